"""The rows of the report that the device itself computes: comparisons with the CPU, times, a fill of its memory.

    python -m tests.kernels.gpu.rows FIRST

A kernel that fails spoils its process's context, and one that hangs never ends: so the rows are made in a process of
their own, which ends where one fails, and the next process goes on with the row after it. What it says is one line of
JSON when a row begins and one when it is done.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from actors.attestation.devices import memory_on
from actors.attestation.fill import Fill
from actors.attestation.selftest import DURATION_MS
from actors.backends.base import Backend
from actors.backends.cpu import CpuBackend
from actors.backends.on_gpu import GpuBackend
from actors.backends.pycuda import PyCudaGpu
from actors.profiles import MAINNET
from tests.kernels.gpu.cases import DEVICE, EPOCH, LARGE, MINER, SMALL, Case, Sizes, cases
from tests.kernels.gpu.references import Cublas, NoReference, cupy_sort_ms
from tests.kernels.gpu.timing import REPEATS, Ceilings, TimedGpu, ceilings

Row: TypeAlias = dict[str, Any]
# Which list of the report it belongs to, its name, and how it is made.
Planned: TypeAlias = tuple[str, str, Callable[[], Row]]

ROOT: Final = Path(__file__).resolve().parents[3]
# Far more than any row takes; the alarm's signal ends the process, whatever it waits for.
ROW_SECONDS: Final = 180
FAILED: Final = 3
# Of the memory, what a miner that fills most of it would fill.
FILLED_PERCENT: Final = 85


def made(command: list[str] | None = None) -> Iterator[tuple[str, Row]]:
    """All rows, each with the list that it belongs to; those that failed have an ``error``."""
    command = command or [sys.executable, "-m", "tests.kernels.gpu.rows"]
    first, going_on = 0, True
    while going_on:
        begun: Row | None = None
        with subprocess.Popen([*command, str(first)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                if not line.startswith("{"):
                    continue
                said = json.loads(line)
                if "begun" in said:
                    begun = said
                elif begun is not None:
                    yield begun["list"], {"name": begun["begun"], **said}
                    first, begun = first + 1, None
        ended = process.returncode
        if begun is not None:
            yield begun["list"], {"name": begun["begun"], "error": _end_of(ended)}
            first += 1
        elif ended not in {0, FAILED}:
            yield "devices", {"name": "the process of the rows", "error": _end_of(ended)}
        # A process that has not even begun a row would not do so the next time.
        going_on = begun is not None or ended == FAILED


def _end_of(status: int) -> str:
    if status == -signal.SIGALRM:
        return f"not done within {ROW_SECONDS} s"
    return f"the process has ended with {signal.Signals(-status).name if status < 0 else f'exit code {status}'}"


def main(first: int) -> int:
    """Make the rows from the given one on; the exit code."""
    return tell(plan(PyCudaGpu()), first)


def tell(planned: Iterator[Planned], first: int) -> int:
    """Make each row from the ``first`` on, and say so; ends at one that fails."""
    for number, (belongs, name, make) in enumerate(planned):
        if number < first:
            continue
        _say({"begun": name, "list": belongs})
        signal.alarm(ROW_SECONDS)
        try:
            row = make()
        except Exception as error:  # noqa: BLE001  whatever it is, it is this row's, and the others shall be made
            _say({"error": f"{type(error).__name__}: {error}"})
            return FAILED
        finally:
            signal.alarm(0)
        _say(row)
    return 0


def _say(row: Row) -> None:
    print(json.dumps(row), flush=True)


def plan(gpu: Any, small: Sizes = SMALL, large: Sizes = LARGE) -> Iterator[Planned]:
    """All rows, in order: the device, what it compares, what it times, its memory."""
    timed = TimedGpu(gpu)
    backend, machine = GpuBackend(timed), Machine(gpu)
    yield "devices", "the device", machine.row
    cpu = CpuBackend(os.cpu_count() or 1)
    for case in cases(timed, small):
        yield "comparisons", case.name, partial(compared, case, backend, cpu)
    for case in cases(timed, large):
        yield "timings", case.name, partial(clocked, case, backend, timed, machine)
    yield "fills", f"fill of {FILLED_PERCENT} % of the memory", partial(filled, GpuBackend(gpu))


def same_bits(left: Any, right: Any) -> bool:
    """Whether two results are one: floats by their bits, tuples one after the other."""
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same_bits, left, right))
    return bool(left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes())


def compared(case: Case, backend: Backend, cpu: Backend) -> Row:
    """Whether the device's result has the bits of the CPU's."""
    return {"equal": same_bits(case.run(backend), case.run(cpu))}


def clocked(case: Case, backend: Backend, timed: Any, machine: "Machine") -> Row:
    """The median of some runs, by the device's clock, without copies to and from it, and what it is compared with.

    ``share`` is the reference's time by ours: 1 is as fast as the reference.
    """
    times = []
    for _ in range(1 + REPEATS):
        timed.reset()
        result = case.run(backend)
        times.append(sum(timed.milliseconds[kernel] for kernel in case.kernels))
    spent = float(np.median(times[1:]))
    row: Row = {
        "milliseconds": round(spent, 4),
        "rate": round(case.amount / (spent / 1_000), 3),
        "unit": case.unit,
        "kernels": case.kernels,
    }
    try:
        reference, least = machine.reference(case, result)
        row |= {"reference": reference, "reference_milliseconds": round(least, 4), "share": round(least / spent, 3)}
    except NoReference as nothing:
        row["no_reference"] = str(nothing)
    others = None if case.keys is None else cupy_sort_ms(case.keys)
    if others is not None:
        row["cupy_milliseconds"] = round(others, 4)
    if case.holds is not None:
        row["holds"] = case.holds(result)
    return row


class Machine:
    """What a device can do at most, and what a library makes of it; found out when it is first asked for."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self._ceilings: Ceilings | None = None
        self._cublas: Cublas | None = None

    @property
    def ceilings(self) -> Ceilings:
        """The bounds."""
        self._ceilings = self._ceilings or ceilings(self._gpu)
        return self._ceilings

    def reference(self, case: Case, result: Any) -> tuple[str, float]:
        """What a case is compared with, and how long that takes. Raises `NoReference`."""
        if case.factors is not None:
            self._cublas = self._cublas or Cublas(self._gpu)
            return "cuBLAS", self._cublas.product_ms(*case.factors)
        integers = case.integer_operations
        counted = integers(result) if callable(integers) else integers
        bound = self.ceilings.least_ms(case.moved_bytes, counted, case.float_operations)
        if bound is None:
            raise NoReference("no bound: the driver tells no clock, or nothing was counted")
        return bound

    def row(self) -> Row:
        """Which device it is, and its bounds."""
        its = self.ceilings
        return {
            **msgspec.to_builtins(self._gpu.properties),
            "name": self._gpu.properties.name,
            "copy_gb_per_second": round(its.copied_bytes / 1e9, 1),
            "integer_tera_operations": round(its.integer_operations / 1e12, 2),
            "float_tera_operations": round(its.float_operations / 1e12, 2),
        }


def filled(backend: GpuBackend) -> Row:
    """How long a miner that shows most of the device's memory takes for it, within the window of an exam."""
    mib = (backend.gpu.properties.memory_bytes >> 20) * FILLED_PERCENT // 100
    began = time.perf_counter()
    Fill(memory_on(backend, EPOCH, MINER, DEVICE, mib), mib).work()
    spent = time.perf_counter() - began
    return {"mib": mib, "seconds": round(spent, 2), "aim_seconds": (MAINNET.exam_window_ms - DURATION_MS) / 1_000}


if __name__ == "__main__":
    # At once: what PyCUDA would tidy up, a failed kernel has spoilt, and it would abort.
    os._exit(main(int(sys.argv[1])))
