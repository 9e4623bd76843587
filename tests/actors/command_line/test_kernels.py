"""``assay kernels build``."""

from pathlib import Path

import pytest

from actors.backends import recipes
from actors.backends.build import compiler, read_manifest
from actors.command_line.application import run
from events.errors import BadInput


@pytest.mark.parametrize("name", ["ampere", "sm_", "80", "sm_80b"])
def test_unknown_architectures_are_refused(name: str) -> None:
    """A word that is no architecture is refused before anything is compiled."""
    with pytest.raises(BadInput, match="architecture"):
        run(["kernels", "build", "--arch", name])


@pytest.mark.skipif(compiler() is None, reason="needs nvcc: install the CUDA toolkit")
def test_what_is_built_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Machine code and PTX for each architecture asked for, in the directory, with a manifest."""
    monkeypatch.setattr(recipes, "files", lambda: ("pack",))
    words = ["kernels", "build", "--arch", "sm_75", "--arch", "sm_90a", "--directory", str(tmp_path), "-o", "ndjson"]
    assert run(words) == 0
    listed = capsys.readouterr().out
    for module in read_manifest(tmp_path).modules:
        assert module.digest in listed
        assert (tmp_path / module.name).stat().st_size == module.size
    kinds = [(module.architecture, module.kind) for module in read_manifest(tmp_path).modules]
    assert sorted(kinds) == [("sm_75", "cubin"), ("sm_75", "ptx"), ("sm_90a", "cubin")]


@pytest.mark.skipif(compiler() is None, reason="needs nvcc: install the CUDA toolkit")
def test_what_no_architecture_fits_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel written for sm_90a alone is not built for sm_90; the command says so."""
    monkeypatch.setattr(recipes, "files", lambda: ("pack", "matmul_wgmma"))
    assert run(["kernels", "build", "--arch", "sm_90", "--directory", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "matmul_wgmma is not built: it runs on sm_90a alone" in said.err
    assert {module.file for module in read_manifest(tmp_path).modules} == {"pack"}
