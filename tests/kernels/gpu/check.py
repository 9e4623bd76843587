"""`make gpu-check`: every kernel on this machine's GPU, against the CPU and against the clock.

    python -m tests.kernels.gpu.check [--quick]

It builds PyCUDA where that is missing; runs the tests of the kernels and the golden vectors of the services on the card
in place of the emulator; compares larger random results with those of the CPU; times each kernel beside a plain copy
(and CuPy, where installed); sits the exam and scores the attestation; prints a table and writes build/gpu-check.json.

Exit codes: 0 all right; 1 something differs, or a test failed; 2 the machine lacks something, which is named.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.kernels.device import VARIABLE
from tests.kernels.gpu.preparation import Missing, require_gpu, require_pycuda

ROOT: Final = Path(__file__).resolve().parents[3]
REPORT: Final = ROOT / "build" / "gpu-check.json"
TESTS: Final = (
    "tests/kernels",
    "tests/golden/test_data_vectors.py",
    "tests/golden/test_picture_vectors.py",
    "tests/golden/test_product_vectors.py",
    "tests/golden/test_simulation_vectors.py",
)
# They test the emulator and the compiler.
IGNORED: Final = ("--ignore=tests/kernels/test_emulator.py", "--ignore=tests/kernels/test_compile.py")
REPEATS: Final = 4
AIMS_TOPS: Final = {"matmul_wgmma": 1_300, "matmul_mma": 550}
AIM_SHARE, AIM_SCORE = 0.85, 90
COMPARED_SIDE, TIMED_SIDE = 1_000, 8_192


def main(words: list[str] | None = None) -> int:
    """Everything, in order; the exit code."""
    parser = argparse.ArgumentParser(prog="gpu-check")
    parser.add_argument("--quick", action="store_true", help="leave out the tests and the attestation")
    options = parser.parse_args(words)
    try:
        require_gpu()
        require_pycuda(say)
    except Missing as missing:
        say(f"gpu-check: {missing}")
        say("Nothing was run. It needs a GPU with NVIDIA's driver, nvcc, a C++ compiler, and PyCUDA, which it builds.")
        return 2
    report: dict[str, Any] = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": _commit()}
    if not options.quick:
        report["tests"] = _tests()
    report |= _on_the_device()
    if not options.quick:
        report["attestation"] = _attestation()
    _print_table(report)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    say(f"written: {REPORT.relative_to(ROOT)}")
    wrong = [entry["name"] for entry in report["comparisons"] if not entry["equal"]]
    wrong += [f"{entry['name']} (large)" for entry in report["timings"] if not entry.get("holds", True)]
    failed = report.get("tests", {}).get("exit_code", 0) != 0
    if wrong or failed:
        say("FAILED: " + (f"differs from the CPU: {', '.join(wrong)}" if wrong else "tests failed, see above"))
    return 1 if wrong or failed else 0


def say(words: str) -> None:
    """One line, at once."""
    print(words, flush=True)


def _tests() -> dict[str, Any]:
    """The tests of kernels and services, in a process of their own, on the card."""
    say("tests of the kernels, on the card")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *IGNORED, *TESTS]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, VARIABLE: "pycuda"}, stdout=subprocess.PIPE, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    say("\n".join(lines if done.returncode else lines[-1:]))
    return {"exit_code": done.returncode, "closing_line": lines[-1] if lines else ""}


def _on_the_device() -> dict[str, Any]:
    """Comparisons with the CPU, and times."""
    import msgspec

    from actors.backends.cpu import CpuBackend
    from actors.backends.on_gpu import GpuBackend
    from actors.backends.pycuda import PyCudaGpu
    from tests.kernels.gpu import cases
    from tests.kernels.gpu.timing import TimedGpu, copy_bandwidth

    gpu = PyCudaGpu()
    timed = TimedGpu(gpu)
    backend, cpu = GpuBackend(timed), CpuBackend(os.cpu_count() or 1)
    say(f"{gpu.properties.name}, {gpu.properties.memory_bytes >> 30} GiB, {gpu.properties.uuid}")
    comparisons = []
    for case in (*cases.products(timed, COMPARED_SIDE), *cases.others(large=False)):
        equal = same_bits(case.run(backend), case.run(cpu))
        comparisons.append({"name": case.name, "equal": equal})
        say(f"  {'same bits' if equal else 'DIFFERS  '}  {case.name}")
    bandwidth = copy_bandwidth(gpu)
    timings = [
        _timed(case, backend, timed, bandwidth)
        for make in (cases.products(timed, TIMED_SIDE), cases.others(large=True))
        for case in make
    ]
    facts = {
        "device": msgspec.to_builtins(gpu.properties),
        "comparisons": comparisons,
        "copy_gb_per_second": round(bandwidth / 1e9, 1),
        "timings": timings,
    }
    gpu.close()
    return facts


def same_bits(left: Any, right: Any) -> bool:
    """Whether two results are one: floats by their bits, tuples one after the other."""
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same_bits, left, right))
    return bool(left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes())


def _timed(case: Any, backend: Any, timed: Any, bandwidth: float) -> dict[str, Any]:
    """The best of some runs, by the device's clock, without copies to and from it."""
    from tests.kernels.gpu.timing import cupy_milliseconds

    times = []
    for _ in range(REPEATS):
        timed.reset()
        result = case.run(backend)
        times.append(sum(timed.milliseconds[kernel] for kernel in case.kernels))
    best = float(np.min(times))
    entry: dict[str, Any] = {
        "name": case.name,
        "milliseconds": round(best, 4),
        "rate": round(case.amount / (best / 1_000), 3),
        "unit": case.unit,
    }
    if case.moved_bytes:
        entry["share_of_copy"] = round(case.moved_bytes / (best / 1_000) / bandwidth, 3)
    if case.holds is not None:
        entry["holds"] = case.holds(result)
    reference = cupy_milliseconds(case.name)
    if reference is not None:
        entry["cupy_milliseconds"] = round(reference, 4)
    say(f"  timed      {case.name}")
    return entry


def _attestation() -> dict[str, Any]:
    """What this machine scores; its own clock, nobody else looking."""
    say("attestation and exam")
    command = [sys.executable, "-m", "actors.command_line", "miner", "selftest", "--backend", "pycuda", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        found = {"error": (done.stderr or done.stdout).strip()}
    return {"exit_code": done.returncode, **found}


def _print_table(report: dict[str, Any]) -> None:
    say("")
    for line in table_of(report):
        say(line)


def table_of(report: dict[str, Any]) -> Iterator[str]:
    """The times, in columns."""
    yield f"{'kernel':<22}{'ms':>12}{'rate':>14} {'unit':<18}{'of copy':>9}{'CuPy ms':>12}"
    for entry in report["timings"]:
        share = f"{entry['share_of_copy']:.0%}" if "share_of_copy" in entry else ""
        reference = f"{entry['cupy_milliseconds']:.3f}" if "cupy_milliseconds" in entry else ""
        yield (
            f"{entry['name']:<22}{entry['milliseconds']:>12.3f}{entry['rate']:>14,.2f} {entry['unit']:<18}"
            f"{share:>9}{reference:>12}"
        ).rstrip()
    yield f"{'copy on the device':<22}{'':>12}{report['copy_gb_per_second']:>14,.1f} GB/s read and written"
    if "attestation" in report:
        found = report["attestation"]
        exam = (found.get("exam") or {}).get("giga_operations", 0) / 1_000
        score, grade = found.get("score", "none"), found.get("grade", "none")
        yield f"attestation: score {score}, grade {grade}, exam {exam:,.1f} TOPS"
    for name, value, aim in aims_of(report):
        yield f"{'reached' if value >= aim else 'MISSED '}  {name}: {value:,.2f} of {aim:,.2f}"


def aims_of(report: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """What is aimed at, on an H200 alone: name, value, aim."""
    if "H200" not in report["device"]["name"]:
        return
    for entry in report["timings"]:
        if entry["name"] in AIMS_TOPS:
            yield f"{entry['name']} TOPS", entry["rate"], AIMS_TOPS[entry["name"]]
        if "share_of_copy" in entry:
            yield f"{entry['name']} share of copy", entry["share_of_copy"], AIM_SHARE
    if "attestation" in report:
        yield "attestation score", report["attestation"].get("score", 0), AIM_SCORE


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
