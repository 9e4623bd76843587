"""Every kernel compiles with nvcc for what it is written for, and uses no more of a multiprocessor than it says."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from msgspec import Struct

from actors.backends.build import command, compiler
from actors.backends.recipes import Recipe, files, parse, recipe

# One of each generation of instructions that kernels are written for.
ARCHITECTURES: Final = ("sm_75", "sm_80", "sm_90a")
# What a thread may have at most.
MOST_REGISTERS: Final = 255
PARALLEL: Final = 2

_ENTRY: Final = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_SPILLS: Final = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS: Final = re.compile(r"Used (\d+) registers")


class Use(Struct, frozen=True, kw_only=True):
    """What one kernel takes on one architecture."""

    kernel: str
    architecture: str
    registers: int
    spilled_bytes: int


def uses_in(report: str) -> list[Use]:
    """What ptxas reports with ``-v``."""
    uses = []
    for entry in re.split(r"(?=ptxas info\s*: Compiling entry function)", report):
        match, spills, registers = _ENTRY.search(entry), _SPILLS.search(entry), _REGISTERS.search(entry)
        if match and spills and registers:
            spilled = int(spills[1]) + int(spills[2])
            uses.append(Use(kernel=match[1], architecture=match[2], registers=int(registers[1]), spilled_bytes=spilled))
    return uses


def excesses(its: Recipe, uses: list[Use]) -> list[str]:
    """What breaks a promise of the file's head."""
    most = its.registers or MOST_REGISTERS
    found = [f"{use}: more than {most} registers" for use in uses if use.registers > most]
    if not its.may_spill:
        found += [f"{use}: registers are kept in memory" for use in uses if use.spilled_bytes]
    return found


@pytest.mark.skipif(compiler() is None, reason="needs nvcc to compile the kernels: install the CUDA toolkit")
@pytest.mark.parametrize("file", files())
def test_kernels_compile_within_their_bounds(file: str, tmp_path: Path) -> None:
    """All kernels of the file compile without a warning, within the registers and spills that its head promises."""
    its = recipe(file)

    def compiled(architecture: str) -> list[Use]:
        words = command(str(compiler()), its, architecture, "cubin", tmp_path / f"{architecture}.cubin")
        done = subprocess.run([*words, "-Xptxas", "-v"], capture_output=True, text=True, check=False)
        report = done.stdout + done.stderr
        assert done.returncode == 0, report
        assert "warning" not in report.lower(), report
        assert "performance loss" not in report.lower(), report
        uses = uses_in(report)
        assert sorted(use.kernel for use in uses) == sorted(its.kernels)
        return uses

    wanted = [architecture for architecture in ARCHITECTURES if architecture in its.architectures]
    assert wanted, f"{file}.cu is for none of {ARCHITECTURES}"
    with ThreadPoolExecutor(PARALLEL) as pool:
        uses = [use for each in pool.map(compiled, wanted) for use in each]
    assert excesses(its, uses) == []


REPORT = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
    64 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 64 bytes stack
ptxas info    : Compiling entry function 'two' for 'sm_80'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 65 registers, used 1 barriers
"""


def test_broken_promises_are_found() -> None:
    """A kernel that spills, and one that takes more registers than promised, are named."""
    its = parse("both", "// arch: sm_80\n// registers: 64\n// no-spill\n__global__ void one() {}")
    first, second = excesses(its, uses_in(REPORT))
    assert "two" in first
    assert "64 registers" in first
    assert "one" in second
    assert "memory" in second
