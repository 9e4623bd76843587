"""`make gpu-check`: every kernel on this machine's GPU, against the CPU and against the clock.

    python -m tests.kernels.gpu.check [--only STEP ...]

It builds PyCUDA where that is missing. Then, each as a step: it compiles the kernels; runs the tests of the kernels and
the golden vectors of the services on the card in place of the emulator; compares larger random results with those of
the CPU, times each kernel beside what bounds it or a library that does the same, and fills the memory; runs a job of
each service in the jail; sits the exam and scores the attestation. What goes wrong is a row of the report, and the rest
is done nevertheless. It prints a table and writes build/gpu-check.json.

Exit codes: 0 all right; 1 something failed, differs, or scores less than it should, which is named; 2 the machine lacks
something, which is named. Aims of speed are printed, reached or missed, and do not change the exit code: speed moves
with what else the card does.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from actors.backends.prepare import prepare
from tests.kernels.device import VARIABLE
from tests.kernels.gpu import jobs, rows
from tests.kernels.gpu.outcome import Report, failures, table_of
from tests.kernels.gpu.preparation import Missing, require_device, require_gpu, require_pycuda
from tests.kernels.gpu.rows import ROOT

REPORT: Final = ROOT / "build" / "gpu-check.json"
TESTS: Final = (
    "tests/kernels",
    "tests/golden/test_data_vectors.py",
    "tests/golden/test_picture_vectors.py",
    "tests/golden/test_product_vectors.py",
    "tests/golden/test_simulation_vectors.py",
)
# They test the emulator, the compiler, and this check.
IGNORED: Final = tuple(f"--ignore=tests/kernels/test_{name}.py" for name in ("emulator", "compile", "gpu_check"))
# A kernel that hangs would hang for ever.
TESTS_SECONDS, EXAM_SECONDS = 1_800, 300


def main(words: list[str] | None = None) -> int:
    """Everything, in order; the exit code."""
    parser = argparse.ArgumentParser(prog="gpu-check")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS), help="these steps alone")
    wanted = parser.parse_args(words).only
    try:
        require_gpu()
        require_pycuda(say)
        require_device()
    except Missing as missing:
        say(f"gpu-check: {missing}")
        say("Nothing was run. It needs a GPU with NVIDIA's driver, nvcc, a C++ compiler, and PyCUDA, which it builds.")
        return 2
    report: Report = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": _commit(), "steps": wanted}
    try:
        for step in wanted:
            say(f"{step}: {ABOUT[step]}")
            try:
                STEPS[step](report)
            except Exception as error:  # noqa: BLE001  whatever it is, it is this step's, and the others shall be done
                report.setdefault("errors", {})[step] = f"{type(error).__name__}: {error}"
            _write(report)
    finally:
        _write(report)
    say("")
    for line in table_of(report):
        say(line)
    say(f"written: {REPORT.relative_to(ROOT)}")
    found = failures(report)
    for failure in found:
        say(f"FAILED: {failure}")
    return 1 if found else 0


def say(words: str) -> None:
    """One line, at once."""
    print(words, flush=True)


def _write(report: Report) -> None:
    """After each row and step, so that whatever ends this process leaves what there is."""
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _compile(report: Report) -> None:
    began = time.monotonic()
    prepare()
    report["compiled"] = {"seconds": round(time.monotonic() - began, 1)}


def _tests(report: Report) -> None:
    """In a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *IGNORED, *TESTS]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, VARIABLE: "pycuda"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=TESTS_SECONDS,
    )
    lines = done.stdout.strip().splitlines()
    say("\n".join(lines if done.returncode else lines[-1:]))
    report["tests"] = {"exit_code": done.returncode, "closing_line": lines[-1] if lines else ""}


def _rows(report: Report) -> None:
    for belongs, row in rows.made():
        report.setdefault(belongs, []).append(row)
        _write(report)
        what = row.get("error") or {True: "same bits", False: "DIFFERS", None: "done"}[row.get("equal")]
        say(f"  {belongs}: {row['name']}: {what}")


def _jobs(report: Report) -> None:
    report["jobs"] = jobs.compared()


def _attestation(report: Report) -> None:
    """What this machine scores; its own clock, nobody else looking."""
    command = [sys.executable, "-m", "actors.command_line", "miner", "selftest", "--backend", "pycuda", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=EXAM_SECONDS)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        found = {"error": (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]}
    report["attestation"] = {"exit_code": done.returncode, **found}


STEPS: Final[Mapping[str, Callable[[Report], None]]] = MappingProxyType(
    {"compile": _compile, "tests": _tests, "rows": _rows, "jobs": _jobs, "attestation": _attestation}
)
ABOUT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "compile": "what this card lacks",
        "tests": "of the kernels, on the card",
        "rows": "comparisons with the CPU, times, a fill of the memory",
        "jobs": "one of each service, in the jail",
        "attestation": "an exam and the score",
    }
)


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
