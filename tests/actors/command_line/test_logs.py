"""An exported log without a network: whose genesis it stands on."""

import json
from pathlib import Path
from typing import Any

import pytest

from events.canonical import canonical
from tests.golden.generate import LOG


@pytest.fixture
def genesis(home: Path) -> Path:
    """The genesis of the golden log, as its owner has it."""
    file = home / "genesis.json"
    with LOG.open("rb") as log:
        file.write_bytes(canonical(json.loads(log.readline())["genesis"]))
    return file


def test_an_audit_says_when_the_genesis_is_only_the_log_s_own(assay: Any, genesis: Path) -> None:
    """Anyone can make a genesis and a log to it: without one of ours its hash is shown for comparison."""
    alone = assay("audit", LOG)
    ours = assay("audit", LOG, "--genesis", genesis)
    assert (alone.code, ours.code) == (0, 0)
    assert "is it yours?" in alone.err
    assert "is it yours?" not in ours.err


def test_verify_log_is_the_audit_of_a_file(assay: Any, genesis: Path, home: Path) -> None:
    """The same report, offline; a changed log ends with 7 and what was found before the difference."""
    told = assay("verify", "log", LOG, "--genesis", genesis, "-o", "json")
    assert (told.code, told.out) == (0, assay("audit", LOG, "--genesis", genesis, "-o", "json").out)
    data = bytearray(LOG.read_bytes())
    data[len(data) // 2] ^= 1
    (home / "changed.ndjson").write_bytes(data)
    changed = assay("verify", "log", "changed.ndjson", "-o", "json")
    assert (changed.code, json.loads(changed.out)["passed"]) == (7, False)
    assert json.loads(changed.err.splitlines()[-1])["data"]["height"] >= 1
    assert assay("verify", "log", "nowhere.ndjson").code == 3
