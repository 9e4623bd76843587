"""What is to be built of each kernel file: read from the comment at its head. See `actors.kernels`."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from schemas.values import Digest

# Machine code of one architecture, or code that a driver compiles for whatever it has.
Kind: TypeAlias = Literal["cubin", "ptx"]
Capability: TypeAlias = tuple[int, int]

FLAGS: Final = ("-std=c++17", "-O3")

_LINE: Final = re.compile(r"// (arch|nvcc|registers): (.+)")
_ARCHITECTURE: Final = re.compile(r"sm_(\d+)(\d)(a?)")
_INCLUDE: Final = re.compile(r'#include "(\w+\.cuh)"')
_KERNEL: Final = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")


class Recipe(Struct, frozen=True, kw_only=True):
    """One file: its flags, what it is built for, and what its kernels may use.

    ``digest`` covers the source, the headers that it includes and the flags: whatever was built from it bears it.
    """

    file: str
    source: str
    kernels: tuple[str, ...]
    flags: tuple[str, ...]
    architectures: tuple[str, ...]
    registers: int | None
    may_spill: bool
    digest: Digest


def source_of(name: str) -> str:
    """A file of `actors.kernels`."""
    return resources.files("actors.kernels").joinpath(name).read_text(encoding="utf-8")


def files() -> tuple[str, ...]:
    """All kernel files, without their suffix."""
    names = (entry.name for entry in resources.files("actors.kernels").iterdir())
    return tuple(sorted(name.removesuffix(".cu") for name in names if name.endswith(".cu")))


@cache
def recipe(file: str) -> Recipe:
    """How ``<file>.cu`` is built."""
    return parse(file, source_of(f"{file}.cu"))


def parse(file: str, source: str) -> Recipe:
    """The recipe in a source."""
    head = [line for line in source.splitlines() if line.startswith("//")]
    said: dict[str, str] = {match[1]: match[2] for line in head if (match := _LINE.fullmatch(line))}
    architectures = tuple(said.get("arch", "").split())
    if not architectures or not all(_ARCHITECTURE.fullmatch(name) for name in architectures):
        raise AssertionError(f"{file}.cu does not say in a line '// arch: …' what it is built for")
    flags = (*FLAGS, *said.get("nvcc", "").split())
    material = "\0".join([*flags, source, *(source_of(name) for name in _headers(source))])
    return Recipe(
        file=file,
        source=source,
        kernels=tuple(_KERNEL.findall(source)),
        flags=flags,
        architectures=architectures,
        registers=int(said["registers"]) if "registers" in said else None,
        may_spill="// no-spill" not in head,
        digest=sha256(material.encode()).hexdigest(),
    )


def _headers(source: str) -> list[str]:
    """The headers that a source includes, and theirs."""
    found: list[str] = []
    for name in _INCLUDE.findall(source):
        if name not in found:
            found += [name, *(inner for inner in _headers(source_of(name)) if inner not in found)]
    return found


def capability_of(architecture: str) -> Capability:
    """(9, 0) for sm_90 and sm_90a."""
    match = _ARCHITECTURE.fullmatch(architecture)
    if match is None:
        raise AssertionError(f"{architecture} is no architecture")
    return int(match[1]), int(match[2])


def fitting(architectures: Iterable[str], capability: Capability) -> list[tuple[str, Kind]]:
    """What runs on a device, best first.

    Machine code runs on its own generation from its own minor version on; sm_90a on 9.0 alone. PTX runs on all that
    came later, but not that of an ``a``.
    """
    known = sorted(set(architectures), key=lambda name: (capability_of(name), name.endswith("a")), reverse=True)
    choices: list[tuple[str, Kind]] = []
    for name in known:
        its = capability_of(name)
        if its == capability or (not name.endswith("a") and its[0] == capability[0] and its <= capability):
            choices.append((name, "cubin"))
    return [*choices, *((name, "ptx") for name in ptx_of(known) if capability_of(name) <= capability)]


def ptx_of(architectures: Sequence[str]) -> list[str]:
    """Those that PTX is worth having of."""
    return [name for name in architectures if not name.endswith("a")]
