"""What it costs to check: a device's exam beside doing it again, and a large product beside multiplying it again.

    python tests/benchmarks/exam.py

Processor time, where it says so, counts what all threads used; the rest is by the clock. Times are the best of a few
runs: on a busy machine the others measure its other work.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Final

# Our own threads share out the work; read when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from rows import Row, results, show

from actors.attestation.exam import DEVICE_SHAPE, BackendExaminee, Sitting, a_seed, b_seed, operations, rows_for
from actors.attestation.exam_check import ExamSetup, check_opening
from actors.backends.cpu import CpuBackend
from actors.services.freivalds import error_bits, out_of_range_row, row_checker, row_steps
from actors.services.generator import seeded_matrix
from schemas.attestation import ExamAnswer

EPOCH: Final = sha256(b"epoch").hexdigest()
CHALLENGE: Final = sha256(b"challenge").hexdigest()
MINER: Final = "U" + "A" * 55
UUID: Final = "GPU-0a1b2c3d-0000-4000-8000-000000000001"
# So many rows are really done here; a device does 77 million in its two seconds.
ROWS: Final = 1_024
DEVICE_ROWS: Final = rows_for(DEVICE_SHAPE, 1_300_000, 2_000)
SIDE: Final = 4_096
RUNS: Final = 5
THREADS: Final = 2


def _best(work: Callable[[], object], clock: Callable[[], float], runs: int = RUNS) -> float:
    took = []
    for _ in range(runs):
        began = clock()
        work()
        took.append(clock() - began)
    return min(took) * 1_000


def exam_rows() -> list[Row]:
    """An exam of the shape that devices sit."""
    began = time.process_time()
    setup = ExamSetup(EPOCH, DEVICE_SHAPE.inner, DEVICE_SHAPE.columns)
    set_up = (time.process_time() - began) * 1_000
    began = time.process_time()
    sitting = Sitting(
        BackendExaminee(CpuBackend(), DEVICE_SHAPE, b_seed(EPOCH), a_seed(EPOCH, MINER, UUID)), ROWS, 1_024
    )
    answer = ExamAnswer(gpu=UUID, rows=ROWS, root=sitting.work())
    again = (time.process_time() - began) * 1_000
    opening = sitting.open(CHALLENGE)

    def check() -> None:
        if not check_opening(setup, DEVICE_SHAPE, MINER, answer, CHALLENGE, opening).passed:
            raise AssertionError("an honest opening was refused")

    per_gpu = _best(check, time.process_time)
    name = "exam_check_per_gpu_cpu_ms"
    return [
        Row("exam_set_up_cpu_ms", set_up, "ms", name),
        Row(name, per_gpu, "ms", name),
        Row("exam_opening_kib", len(opening) / 1_024, "KiB", "exam_opening_kib"),
        Row(f"exam_done_again_{ROWS}_rows_cpu_ms", again, "ms", name),
        Row("exam_done_again_of_an_h200_cpu_ms_extrapolated", again / ROWS * DEVICE_ROWS, "ms", name),
        Row(
            "exam_cpu_giga_operations", operations(DEVICE_SHAPE, ROWS) / again / 1e6, "1/s", "exam_cpu_giga_operations"
        ),
    ]


def product_rows() -> list[Row]:
    """Freivalds' check of a 4096 × 4096 × 4096 product of int8 by two threads."""
    a, b = seeded_matrix("aa" * 32, SIDE, SIDE), seeded_matrix("bb" * 32, SIDE, SIDE)
    product = np.concatenate(
        [CpuBackend(THREADS).multiply(a[first : first + SIDE // 4], b) for first in range(0, SIDE, SIDE // 4)]
    )
    with ThreadPoolExecutor(THREADS) as executor:

        def check() -> None:
            wrong_row = row_checker(a, b, CHALLENGE, executor)

            def check_step(rows: slice) -> bool:
                part = product[rows]
                return out_of_range_row(part, SIDE) is None and wrong_row(rows, part) is None

            if not all(executor.map(check_step, row_steps(SIDE, SIDE))):
                raise AssertionError("an honest product was refused")

        name = "freivalds_4096_ms"
        checked = _best(check, time.perf_counter)
        checked_cpu = _best(check, time.process_time)
    again = _best(lambda: CpuBackend(THREADS).multiply(a, b), time.perf_counter, 2)
    wide = a.astype(np.float64), b.astype(np.float64)
    plain = _best(lambda: wide[0] @ wide[1], time.perf_counter, 1)
    return [
        Row(name, checked, "ms", name),
        Row("freivalds_4096_cpu_ms", checked_cpu, "ms", name),
        Row("freivalds_4096_error_bits", error_bits(SIDE, SIDE), "bits", "freivalds_4096_error_bits"),
        Row("multiplied_again_4096_ms", again, "ms", name),
        Row("numpy_float64_4096_one_thread_ms", plain, "ms", name),
    ]


def measure() -> list[Row]:
    """All rows."""
    return [*exam_rows(), *product_rows()]


if __name__ == "__main__":
    show(results(measure()))
