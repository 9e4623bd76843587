"""Kernels built for the CPU: each file once, kept by the digest of all that went into it."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
KERNELS: Final = ROOT / "actors" / "kernels"
_HERE: Final = Path(__file__).resolve().parent
_STANDINS: Final = _HERE / "include"
_CACHE: Final = ROOT / "build" / "emulated-kernels"

_FLAGS: Final = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fno-weak",
    "-w",
    "-fPIC",
    "-shared",
)
_KERNEL: Final = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")
_INCLUDE: Final = re.compile(r'#include "(\w+\.cuh)"')
_DYNAMIC: Final = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w\s]+?)\s+(\w+)\[\];")


class NotCompiled(Exception):
    """The compiler has refused a kernel: its words."""


def compiler() -> str | None:
    """Where the C++ compiler is; None as well where programs are not ELF files, whose sections the emulator uses."""
    if sys.platform != "linux":
        return None
    return shutil.which(os.environ.get("CXX", "g++"))


@cache
def library(file: str) -> ctypes.CDLL:
    """``actors/kernels/<file>.cu``, for the CPU."""
    return library_of((KERNELS / f"{file}.cu").read_text(encoding="utf-8"), file)


def library_of(source: str, file: str) -> ctypes.CDLL:
    """The same for a source that may be in no file."""
    text = _DYNAMIC.sub(r"\1 *\2 = emulator::dynamic_shared<\1>();", _with_headers(source, file + ".cu", set()))
    kernels = "".join(f"EMULATED_KERNEL({name})\n" for name in _KERNEL.findall(text))
    text = f'#include "cuda_on_cpu.h"\n{text}\n{kernels}'
    headers = sorted(_HERE.rglob("*.h"))
    material = "\0".join([*_FLAGS, text, *(header.read_text(encoding="utf-8") for header in headers)])
    built = _CACHE / f"{file}-{sha256(material.encode()).hexdigest()[:32]}.so"
    if not built.exists():
        _build(text, built)
    return ctypes.CDLL(str(built))


def _with_headers(source: str, name: str, included: set[str]) -> str:
    """The source with its headers in place; of those that both have, the emulator's."""
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(source.splitlines(), start=1):
        match = _INCLUDE.fullmatch(line)
        if match is None:
            lines.append(line)
        elif match[1] not in included:
            included.add(match[1])
            header = next(folder / match[1] for folder in (_STANDINS, KERNELS) if (folder / match[1]).exists())
            lines += [_with_headers(header.read_text(encoding="utf-8"), match[1], included)]
            lines.append(f'#line {number + 1} "{name}"')
    return "\n".join(lines)


def _build(text: str, built: Path) -> None:
    found = compiler()
    if found is None:
        raise NotCompiled("there is no C++ compiler: install g++, or name one in CXX")
    built.parent.mkdir(parents=True, exist_ok=True)
    unfinished = built.with_suffix(f".{os.getpid()}")
    folders = (f"-I{_STANDINS}", f"-I{_HERE}")
    command = [found, *_FLAGS, *folders, "-x", "c++", "-", "-o", str(unfinished)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotCompiled(done.stderr)
    unfinished.replace(built)
