"""Running the command line inside the test, and a network for the tests that need one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from actors.command_line import main

Run = Callable[..., "Ended"]


class Ended(NamedTuple):
    """What a command line has left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own to work in, and no setting of whoever runs the tests."""
    for name in ("URL", "CHAIN", "WALLET", "SEED_FILE", "PASSWORD", "PASSWORD_FILE", "OUTPUT", "GENESIS", "CONFIG"):
        monkeypatch.delenv(f"ASSAY_{name}", raising=False)
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def assay(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line and returns its exit code, stdout and stderr."""

    def run(*words: str | Path) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        found = capsys.readouterr()
        return Ended(code, found.out, found.err)

    return run
