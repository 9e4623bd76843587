"""Compiled kernels: made by nvcc, kept in a directory with a manifest, found again by the digest of their source.

A host with nvcc compiles what it lacks when it first needs it. One without gets the directory from elsewhere: what
`build` writes can be copied as it is.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from msgspec import Struct

from actors.backends.recipes import Capability, Kind, Recipe, capability_of, fitting, ptx_of, recipe
from events.errors import BadInput, DeviceUnavailable
from schemas.values import Digest

MANIFEST: Final = "manifest.json"
_TIMEOUT_SECONDS: Final = 600


class Module(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A compiled file: of which source, for what, and the digest of its bytes."""

    file: str
    source: Digest
    architecture: str
    kind: Kind
    name: str
    digest: Digest
    size: int


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a directory holds. ``compiler`` is the version that nvcc says."""

    format: int = 1
    compiler: str
    modules: tuple[Module, ...]


def directories() -> list[Path]:
    """Where compiled kernels are looked for, in this order.

    A jail shows its jobs the Python environment and /usr, but no home directory: so the environment comes first, and
    the user's cache serves what runs outside of one, or where the environment cannot be written.
    """
    shared = [Path(sys.prefix), Path("/usr/local")]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  without a home: no error
    return [*(root / "share" / "assay" / "kernels" for root in shared), Path(base) / "assay" / "kernels"]


def cache_directory() -> Path:
    """Where they are put: into a virtual environment that can be written, else into the user's cache."""
    environment, *_, user = directories()
    own = sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK)
    return environment if own else user


def compiler() -> str | None:
    """Where nvcc is: on PATH, or in CUDA's usual place."""
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def build(
    files: Iterable[str], output: Path, architectures: Sequence[str] = (), *, nvcc: str | None = None
) -> list[Module]:
    """Compile the files into ``output``: machine code, and PTX for devices that are yet to come.

    Each is built for those that its head names and this nvcc knows, or for those of the ``architectures`` given that
    it can run on. Raises `DeviceUnavailable` where there is no nvcc, and `BadInput` where it refuses.
    """
    found = nvcc or compiler()
    if found is None:
        raise DeviceUnavailable(
            "kernels cannot be compiled",
            why="there is no nvcc",
            hint="Install the CUDA toolkit, or run `assay kernels build` on a machine that has it and copy its output.",
        )
    known = _known(found)
    for name in architectures:
        # nvcc lists sm_90 and means sm_90a too.
        if name.removesuffix("a") not in known:
            listed = ", ".join(sorted(known, key=lambda word: (len(word), word)))
            raise BadInput(
                f"nvcc does not compile for {name}", hint=f"It knows {listed}; newer CUDA toolkits know more."
            )
    output.mkdir(parents=True, exist_ok=True)
    built: list[Module] = []
    for file in files:
        its = recipe(file)
        asked = [name for name in architectures if _can_run_on(its, name)] if architectures else its.architectures
        wanted = [name for name in asked if name.removesuffix("a") in known]
        built += [_compile(found, its, name, "cubin", output) for name in wanted]
        built += [_compile(found, its, name, "ptx", output) for name in ptx_of(wanted)]
    _add_to_manifest(output, _version(found), built)
    return built


def _can_run_on(its: Recipe, architecture: str) -> bool:
    """What is written for one generation runs on later ones; what is written for an ``a``, on that alone."""
    return architecture in its.architectures or any(
        not own.endswith("a") and capability_of(own) <= capability_of(architecture) for own in its.architectures
    )


def load(
    file: str, capability: Capability, directory: Path | None = None, *, shown: Callable[[Path], bool] | None = None
) -> bytes:
    """The best compiled code of a file for a device; compiled first where it is nowhere.

    ``directory`` is where to look and to put it, in place of `directories` and `cache_directory`; of the former, only
    those that are ``shown``. Raises `DeviceUnavailable`.
    """
    places = [place for place in directories() if shown is None or shown(place)] if directory is None else [directory]
    its = recipe(file)
    for place in places:
        found = _kept(its, capability, place)
        if found is not None:
            return found
    if compiler() is not None:
        place = directory or cache_directory()
        # In a jail nothing can be written, and no compiler started.
        with suppress(OSError):
            build([file], place)
            found = _kept(its, capability, place)
            if found is not None:
                return found
    major, minor = capability
    raise DeviceUnavailable(
        f"the kernel {file} is not compiled for compute capability {major}.{minor}",
        why=f"none of {', '.join(map(str, places))} has this release's version of it, and it cannot be compiled here",
        hint="Run `assay kernels build` where nvcc is, and copy its output there.",
        file=file,
    )


def _kept(its: Recipe, capability: Capability, directory: Path) -> bytes | None:
    """A whole module of this very source, if there is one."""
    modules = {
        (module.architecture, module.kind): module
        for module in read_manifest(directory).modules
        if module.file == its.file and module.source == its.digest
    }
    for choice in fitting((architecture for architecture, _ in modules), capability):
        module = modules.get(choice)
        if module is None:
            continue
        try:
            content = (directory / module.name).read_bytes()
        except OSError:
            continue
        if sha256(content).hexdigest() == module.digest:
            return content
    return None


def read_manifest(directory: Path) -> Manifest:
    """What a directory holds; nothing where there is none to read. Raises `BadInput` where the manifest is not one."""
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return Manifest(compiler="", modules=())
    except msgspec.DecodeError as error:
        raise BadInput(
            f"{path} is not a manifest of kernels", why=str(error), hint="Remove it and build anew."
        ) from error
    if any(Path(module.name).name != module.name for module in manifest.modules):
        raise BadInput(f"{path} names files elsewhere", hint="Remove it and build anew.")
    return manifest


def _add_to_manifest(directory: Path, version: str, built: Sequence[Module]) -> None:
    """Replaced as a whole, so that a reader sees the old one or the new one."""
    names = {module.name for module in built}
    others = [module for module in read_manifest(directory).modules if module.name not in names]
    modules = tuple(sorted([*others, *built], key=lambda module: module.name))
    content = msgspec.json.format(msgspec.json.encode(Manifest(compiler=version, modules=modules)))
    unfinished = directory / f"{MANIFEST}.{os.getpid()}"
    unfinished.write_bytes(content + b"\n")
    unfinished.replace(directory / MANIFEST)


def command(nvcc: str, its: Recipe, architecture: str, kind: Kind, output: Path) -> list[str]:
    """How nvcc is called."""
    virtual = architecture.replace("sm_", "compute_")
    code = architecture if kind == "cubin" else virtual
    target = f"-gencode=arch={virtual},code={code}"
    source = resources.files("actors.kernels").joinpath(f"{its.file}.cu")
    return [nvcc, *its.flags, target, f"-{kind}", "-o", str(output), str(source)]


def _compile(nvcc: str, its: Recipe, architecture: str, kind: Kind, output: Path) -> Module:
    name = f"{its.file}.{its.digest[:16]}.{architecture}.{kind}"
    with TemporaryDirectory(dir=output, prefix="unfinished-") as scratch:
        made = Path(scratch) / name
        done = subprocess.run(
            command(nvcc, its, architecture, kind, made),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise BadInput(f"nvcc refuses {its.file}.cu for {architecture}", why=words, file=its.file)
        content = made.read_bytes()
        made.replace(output / name)
    digest = sha256(content).hexdigest()
    return Module(
        file=its.file,
        source=its.digest,
        architecture=architecture,
        kind=kind,
        name=name,
        digest=digest,
        size=len(content),
    )


def _known(nvcc: str) -> frozenset[str]:
    """What this nvcc compiles for."""
    return frozenset(_said(nvcc, "--list-gpu-code").split())


def _version(nvcc: str) -> str:
    words = _said(nvcc, "--version").split("release ")
    return words[1].split()[0].rstrip(",") if len(words) > 1 else "unknown"


def _said(nvcc: str, option: str) -> str:
    try:
        done = subprocess.run([nvcc, option], capture_output=True, text=True, check=True, timeout=_TIMEOUT_SECONDS)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeviceUnavailable("nvcc does not work", why=str(error), hint="Mend the CUDA toolkit.") from error
    return done.stdout
