"""Building kernels, keeping them, and finding the one that fits a device."""

import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from actors.backends import build as builder
from actors.backends import prepare as preparing
from actors.backends.build import (
    MANIFEST,
    Manifest,
    Module,
    build,
    cache_directory,
    compiler,
    directories,
    load,
    read_manifest,
)
from actors.backends.prepare import prepare
from actors.backends.recipes import Kind, Recipe, files, fitting, parse, recipe
from events.errors import BadInput, DeviceUnavailable

needs_nvcc = pytest.mark.skipif(compiler() is None, reason="needs nvcc: install the CUDA toolkit")


@pytest.mark.parametrize(
    ("capability", "choices"),
    [
        ((7, 5), ["sm_75 cubin", "sm_75 ptx"]),
        ((8, 0), ["sm_80 cubin", "sm_80 ptx", "sm_75 ptx"]),
        ((8, 9), ["sm_80 cubin", "sm_80 ptx", "sm_75 ptx"]),
        ((9, 0), ["sm_90a cubin", "sm_80 ptx", "sm_75 ptx"]),
        ((12, 0), ["sm_80 ptx", "sm_75 ptx"]),
        ((7, 0), []),
    ],
)
def test_what_fits_a_device(capability: tuple[int, int], choices: list[str]) -> None:
    """Machine code runs within its generation, sm_90a on 9.0 alone, PTX on whatever came later; the newest is first."""
    found = fitting(["sm_75", "sm_80", "sm_90a"], capability)
    assert [f"{architecture} {kind}" for architecture, kind in found] == choices


def test_recipe_is_read_from_the_head() -> None:
    """Architectures, flags and bounds come from the comment; the digest changes with the flags."""
    source = (
        '// A kernel.\n//\n// arch: sm_80\n// registers: 64\n// no-spill\nextern "C" __global__ void one(int *x) {}\n'
    )
    plain = parse("one", source)
    assert (plain.architectures, plain.registers, plain.may_spill, plain.kernels) == (("sm_80",), 64, False, ("one",))
    exact = parse("one", "// nvcc: -fmad=false\n" + source)
    assert exact.flags[-1] == "-fmad=false"
    assert exact.digest != plain.digest


def test_every_kernel_has_a_recipe() -> None:
    """No file lacks the line that says what it is built for."""
    assert "matmul_dp4a" in files()
    for file in files():
        assert recipe(file).kernels
    with pytest.raises(AssertionError, match="arch"):
        parse("none", "// no line\n")


@needs_nvcc
def test_built_kernels_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was built is found where there is no nvcc, and only while source and bytes are those of the manifest."""
    built = build(["pack"], tmp_path, ["sm_80"])
    assert [module.kind for module in built] == ["cubin", "ptx"]
    assert read_manifest(tmp_path).modules == tuple(built)
    monkeypatch.setattr(builder, "compiler", lambda: None)
    assert load("pack", (8, 6), tmp_path).startswith(b"\x7fELF")
    assert b".target sm_80" in load("pack", (9, 0), tmp_path)
    with pytest.raises(DeviceUnavailable, match=r"compute capability 7\.5"):
        load("pack", (7, 5), tmp_path)
    with pytest.raises(DeviceUnavailable, match="matmul_dp4a"):
        load("matmul_dp4a", (8, 0), tmp_path)
    (tmp_path / built[0].name).write_bytes(b"\x7fELF and more")
    assert b".target sm_80" in load("pack", (8, 6), tmp_path)
    stale = [msgspec.structs.replace(module, source="00" * 32) for module in built]
    (tmp_path / MANIFEST).write_bytes(msgspec.json.encode(Manifest(compiler="13.0", modules=tuple(stale))))
    with pytest.raises(DeviceUnavailable, match="pack"):
        load("pack", (8, 0), tmp_path)


@pytest.mark.parametrize(("asked", "expected"), [("sm_80", []), ("sm_90", []), ("sm_90a", ["sm_90a"])])
def test_a_file_is_built_only_for_what_it_can_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, expected: list[str]
) -> None:
    """Asked for the architecture of one's own card, the files of other cards are passed over."""
    compiled: list[str] = []

    def compile_one(_nvcc: str, its: Recipe, architecture: str, kind: Kind, _output: Path) -> Module:
        compiled.append(architecture)
        return Module(
            file=its.file,
            architecture=architecture,
            kind=kind,
            name="",
            size=0,
            digest="0" * 64,
            source=its.digest,
        )

    monkeypatch.setattr(builder, "_compile", compile_one)
    monkeypatch.setattr(builder, "_known", lambda _nvcc: frozenset({"sm_75", "sm_80", "sm_90"}))
    monkeypatch.setattr(builder, "_version", lambda _nvcc: "13.0")
    build(["matmul_wgmma"], tmp_path, [asked], nvcc="nvcc")
    assert compiled == expected
    compiled.clear()
    build(["matmul_mma"], tmp_path, ["sm_75", "sm_80"], nvcc="nvcc")
    assert compiled == ["sm_80", "sm_80"]
    with pytest.raises(BadInput, match="sm_999") as caught:
        build(["pack"], tmp_path, ["sm_999"], nvcc="nvcc")
    assert "sm_75, sm_80, sm_90" in caught.value.hint


def test_no_compiler_is_an_error_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to do."""
    monkeypatch.setattr(builder, "compiler", lambda: None)
    with pytest.raises(DeviceUnavailable) as caught:
        build(["pack"], tmp_path)
    assert "assay kernels build" in caught.value.hint


def test_places_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python environment, which a job in its jail can see, comes before the user's cache; there it is put too, if
    it can be written."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, *_, last = directories()
    assert first == tmp_path / "venv" / "share" / "assay" / "kernels"
    assert last == tmp_path / "cache" / "assay" / "kernels" == cache_directory()
    (tmp_path / "venv").mkdir()
    assert cache_directory() == first
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    assert directories()[0] == first


@needs_nvcc
def test_what_is_missing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is in no place is compiled into the one that can be written, once."""
    monkeypatch.setattr(builder, "directories", lambda: [tmp_path / "nowhere", tmp_path / "cache"])
    monkeypatch.setattr(builder, "cache_directory", lambda: tmp_path / "cache")
    assert load("matmul_wgmma", (9, 0)).startswith(b"\x7fELF")
    monkeypatch.setattr(builder, "compiler", lambda: None)
    assert load("matmul_wgmma", (9, 0)).startswith(b"\x7fELF")


@needs_nvcc
def test_what_a_jail_does_not_show_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing compiles what only the user's cache has: a job in its jail would not find it there."""
    environment, cache = tmp_path / "environment", tmp_path / "cache"
    built = build(["pack"], cache, ["sm_80"])
    monkeypatch.setattr(builder, "directories", lambda: [environment, cache])
    assert load("pack", (8, 0)) == (cache / built[0].name).read_bytes()
    monkeypatch.setattr(builder, "cache_directory", lambda: environment)
    assert load("pack", (8, 0), shown=lambda place: place == environment).startswith(b"\x7fELF")
    assert (environment / built[0].name).exists()
    (environment / MANIFEST).unlink()
    monkeypatch.setattr(preparing, "cache_directory", lambda: environment)
    monkeypatch.setattr(preparing, "files", lambda: ("pack",))
    monkeypatch.setattr("actors.jail.shows", lambda place: place == environment)
    monkeypatch.setattr(preparing, "PyCudaGpu", lambda device: Card())
    assert preparing.main("") == 0
    assert read_manifest(environment).modules


class Card:
    """A device of which only the capability is asked."""

    properties = SimpleNamespace(capability=(8, 0))

    def close(self) -> None:
        pass


def test_nothing_is_compiled_where_nothing_can_be_written(tmp_path: Path) -> None:
    """As in a jail: a typed error that says what to do."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceUnavailable) as caught:
        load("pack", (9, 0), tmp_path / "file" / "below")
    assert caught.value.hint


def test_preparing_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, or PyCUDA, a miner that is told to use one does not start, with the reason."""
    with pytest.raises(DeviceUnavailable, match=r"the GPU cannot be used: .*(PyCUDA|GPU)"):
        prepare("GPU-00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize(
    "content",
    [b"no JSON", b'{"format":1}', b'{"format":1,"compiler":"13.0","modules":[{"file":"pack"}]}'],
)
def test_broken_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    """A manifest that is none names itself."""
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(BadInput, match=MANIFEST):
        load("pack", (8, 0), tmp_path)


def test_manifest_names_no_files_elsewhere(tmp_path: Path) -> None:
    """A module's name is a name in the directory, no path."""
    module = {
        "file": "pack",
        "source": "00" * 32,
        "architecture": "sm_80",
        "kind": "cubin",
        "name": "../pack.cubin",
        "digest": "00" * 32,
        "size": 1,
    }
    content = {"format": 1, "compiler": "13.0", "modules": [module]}
    (tmp_path / MANIFEST).write_bytes(msgspec.json.encode(content))
    with pytest.raises(BadInput, match="elsewhere"):
        load("pack", (8, 0), tmp_path)
