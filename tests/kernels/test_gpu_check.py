"""`make gpu-check`, as far as a machine without a GPU can run it."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actors.attestation.selftest import ExamFacts, SelfTest, Unexamined
from actors.backends.cpu import CpuBackend
from actors.backends.gpu import Properties
from actors.backends.on_gpu import GpuBackend
from actors.backends.recipes import files, recipe
from actors.services.base import Computed
from actors.services.kernel_custom import CODE_NAME, compute
from projections.attestation import Cap, GpuScore, Level
from schemas.services import WORK_TYPES, KernelCustom, service_of
from tests.kernels.emulator.compiled import compiler
from tests.kernels.emulator.emulated_gpu import EmulatedGpu
from tests.kernels.gpu import check, jobs, preparation, references, rows, timing
from tests.kernels.gpu.cases import TINY, cases, projects
from tests.kernels.gpu.outcome import failures, table_of
from tests.kernels.gpu.references import Cublas, NoReference
from tests.kernels.gpu.rows import ROOT, made, plan, same_bits, tell

needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler: install g++")

# Kernels that no case launches, and why. There are none.
LEFT_OUT: dict[str, str] = {}


def test_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without NVIDIA's driver it names what is missing and ends with 2."""
    monkeypatch.setattr(preparation, "_DRIVER", "libcuda-that-is-nowhere.so.1")
    assert check.main([]) == 2
    assert "no GPU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("raise ImportError('undefined symbol: cuSomething_v4')", "undefined symbol: cuSomething_v4"),
        ("import os; os.abort()", "exit code -6"),
    ],
)
def test_says_why_pycuda_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, words: str
) -> None:
    """Where PyCUDA is there and reaches no device, or crashes, the reason is named and the exit code is 2."""
    monkeypatch.setattr(check, "require_gpu", lambda: None)
    monkeypatch.setattr(check, "require_pycuda", lambda say: None)
    monkeypatch.setattr(preparation, "_REACH", program)
    assert check.main([]) == 2
    assert f"PyCUDA cannot be used: {words}" in capsys.readouterr().out.replace("ImportError: ", "")
    monkeypatch.setattr(preparation, "_REACH", "")
    preparation.require_device()


@needs_compiler
def test_every_kernel_has_a_case_that_is_compared_rightly() -> None:
    """Each kernel of each file is launched by a case that times it, and gives what the CPU gives; where a card lacks
    the instructions, another one has them."""
    timed: set[str] = set()
    for capability in ((7, 5), (8, 0), (9, 0)):
        gpu = EmulatedGpu(capability=capability)
        for case in cases(gpu, TINY):
            gpu.launched.clear()
            result = case.run(GpuBackend(gpu))
            assert same_bits(result, case.run(CpuBackend())), case.name
            assert set(case.kernels) <= set(gpu.launched), case.name
            assert case.factors is not None or case.moved_bytes or case.integer_operations or case.float_operations
            if case.holds is not None:
                assert case.holds(result)
                assert not case.holds(result + (np.arange(result.size) == 4_321).reshape(result.shape))
            timed |= set(case.kernels)
    assert timed | set(LEFT_OUT) == {kernel for file in files() for kernel in recipe(file).kernels}


def test_products_are_judged_by_projection() -> None:
    """One entry off by one is found."""
    a, b = np.full((9, 7), -128, np.int8), np.full((7, 5), 127, np.int8)
    product = a.astype(np.int32) @ b.astype(np.int32)
    assert projects(a, b, product)
    product[8, 4] += 1
    assert not projects(a, b, product)


def test_bits_are_compared() -> None:
    """Zeros of both signs differ, and so do types and shapes."""
    zero = np.zeros(2, dtype=np.float32)
    assert same_bits((zero, zero), (zero, zero.copy()))
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero.astype(np.int32))
    assert not same_bits(zero, zero.reshape(1, 2))
    assert not same_bits((zero,), (zero, zero))


class Card(EmulatedGpu):
    """An emulated GPU with what only a real one is asked for; all work takes a millisecond."""

    taken: Any = None

    @property
    def properties(self) -> Properties:
        return msgspec.structs.replace(super().properties, memory_bytes=4 << 20)

    def zeros(self, nbytes: int) -> Any:
        self.taken = super().zeros(nbytes)
        self.taken.allocation = self.taken.address
        return self.taken

    def put(self, array: Any) -> Any:
        buffer: Any = super().put(array)
        buffer.allocation = buffer.address
        return buffer

    def elapsed_ms(self, work: Any) -> float:
        work()
        return 1.0

    def copy(self, target: Any, source: Any) -> None:
        target.content[:] = source.content


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """A card with a clock of 1 GHz, on which no library is found."""

    def nowhere() -> Path:
        raise NoReference("no cuBLAS: nowhere")

    monkeypatch.setattr(timing, "COPY_BYTES", 1 << 12)
    monkeypatch.setattr(timing, "clock_hz", lambda uuid: 1e9)
    monkeypatch.setattr(references, "cublas_path", nowhere)
    return Card(capability=(9, 0))


@needs_compiler
def test_rows_have_times_and_what_they_are_compared_with(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row is made; every time has a reference, its share of it, or the reason why there is none."""
    assert tell(plan(card, TINY, TINY), 0) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [
        {**done, "name": begun["begun"], "list": begun["list"]} for begun, done in zip(*[iter(said)] * 2, strict=True)
    ]
    assert said[0] == {"begun": "the device", "list": "devices"}
    assert said[1]["copy_gb_per_second"] == round(2 * 10 * 4_096 / 1e6, 1)
    assert said[1]["integer_tera_operations"] == round(2 * 64 * 1e9 / 1e12, 2)
    compared, timings = ([row for row in found if row["list"] == name] for name in ("comparisons", "timings"))
    assert all(row["equal"] for row in compared)
    assert [row["name"] for row in compared] == [row["name"] for row in timings]
    for row in timings:
        assert row["milliseconds"] >= 1
        assert ("share" in row) != ("no_reference" in row), row
        assert row.get("holds", True) is True
    assert {row["name"] for row in timings if row.get("no_reference")} == {
        "matmul_wgmma",
        "matmul_mma",
        "matmul_dp4a",
        "matmul_fp16",
        "matmul_fp16_plain",
    }
    assert {row["reference"] for row in timings if "reference" in row} >= {"integers", "floats"}
    assert found[-1]["list"] == "fills"
    assert found[-1]["mib"] == 3


CUBLAS = r"""
#include <cstddef>
#include <math.h>
#include "cuda_fp16.h"
extern "C" int cublasCreate_v2(void **handle) { *handle = (void *)0x1234; return 0; }
extern "C" int cublasGemmEx(void *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
                            int type_a, int lda, const void *b, int type_b, int ldb, const void *beta, void *c,
                            int type_c, int ldc, int compute, int algorithm) {
    bool whole = type_a == 3 && type_b == 3 && type_c == 10 && compute == 72;
    bool halves = type_a == 2 && type_b == 2 && type_c == 0 && compute == 68;
    if (handle != (void *)0x1234 || !(whole || halves) || op_a != 1 || op_b != 0 || algorithm != -1) return 15;
    if (whole ? *(int *)alpha != 1 || *(int *)beta : *(float *)alpha != 1 || *(float *)beta) return 7;
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            double sum = 0;
            for (int l = 0; l < k; ++l) {
                size_t left = (size_t)i * lda + l, right = (size_t)j * ldb + l;
                sum += whole ? ((signed char *)a)[left] * ((signed char *)b)[right]
                             : __half2float(((__half *)a)[left]) * __half2float(((__half *)b)[right]);
            }
            size_t place = (size_t)j * ldc + i;
            if (whole) ((int *)c)[place] = (int)sum;
            else ((float *)c)[place] = (float)sum;
        }
    return 0;
}
"""


@needs_compiler
def test_cublas_multiplies_the_same_factors(card: Card, tmp_path: Path) -> None:
    """A library with cuBLAS's interface is asked for the whole product, in both types, by its columns."""
    path, folder = tmp_path / "libcublas.so.13", Path(compiled_folder())
    subprocess.run(
        [str(compiler()), "-shared", "-fPIC", f"-I{folder}", "-x", "c++", "-", "-o", str(path)],
        input=CUBLAS,
        text=True,
        check=True,
    )
    library = Cublas(card, path)  # type: ignore[arg-type]
    generator = np.random.default_rng(1)
    for element, result in ((np.int8, np.int32), (np.float16, np.float32)):
        a = generator.integers(-100, 100, (7, 12)).astype(element)
        b = generator.integers(-100, 100, (12, 5)).astype(element)
        assert library.product_ms(a, b) == 1.0
        np.testing.assert_array_equal(card.get(card.taken, result, (5, 7)).T, a.astype(np.int64) @ b.astype(np.int64))
    with pytest.raises(NoReference, match="cannot be loaded"):
        Cublas(card, tmp_path / "libcublas.so.12")  # type: ignore[arg-type]
    library._handle = ctypes.c_void_p(5)
    with pytest.raises(NoReference, match="status 15"):
        library.product_ms(a, b)


def compiled_folder() -> Path:
    """Where the emulator's headers are."""
    return ROOT / "tests" / "kernels" / "emulator" / "include"


SPOILT = """
import os, signal, sys
from tests.kernels.gpu.rows import tell

def plan():
    yield "comparisons", "one", lambda: {"equal": True}
    yield "comparisons", "two", lambda: 1 / 0
    yield "timings", "three", lambda: os.kill(os.getpid(), signal.SIGALRM)
    yield "timings", "four", os.abort
    print("what a library says by itself")
    yield "fills", "five", lambda: {"seconds": 1.0}

os._exit(tell(plan(), int(sys.argv[1])))
"""


def test_rows_go_on_after_one_that_spoils_the_process() -> None:
    """An error, a hang and a crash are rows of the report; the others are made, each once."""
    found = list(made([sys.executable, "-c", SPOILT]))
    assert [(belongs, row["name"]) for belongs, row in found] == [
        ("comparisons", "one"),
        ("comparisons", "two"),
        ("timings", "three"),
        ("timings", "four"),
        ("fills", "five"),
    ]
    errors = [row.get("error") for _, row in found]
    assert errors == [
        None,
        "ZeroDivisionError: division by zero",
        f"not done within {rows.ROW_SECONDS} s",
        "the process has ended with SIGABRT",
        None,
    ]


def test_process_that_does_not_begin_is_tried_once() -> None:
    """Its end is a row; nothing goes on for ever."""
    ((belongs, row),) = made([sys.executable, "-c", "raise SystemExit(7)"])
    assert (belongs, row["error"]) == ("devices", "the process has ended with exit code 7")


def report_of(**changes: Any) -> dict[str, Any]:
    """A report in which all is right, but for the changes."""
    attestation = {"exit_code": 0, "score": 95, "grade": "M", "exams": [{"giga_operations": 1_310_000}], "gpus": []}
    return {
        "steps": list(check.STEPS),
        "compiled": {"seconds": 60.0},
        "tests": {"exit_code": 0, "closing_line": "500 passed"},
        "devices": [{"name": "NVIDIA H200", "copy_gb_per_second": 4_100.0}],
        "comparisons": [{"name": "sort int32", "equal": True}],
        "timings": [
            {
                "name": "sort int32",
                "milliseconds": 2.5,
                "rate": 4.0,
                "unit": "Gkeys/s",
                "reference": "copy",
                "reference_milliseconds": 1.25,
                "share": 0.5,
                "cupy_milliseconds": 2.0,
            },
            {
                "name": "matmul_mma",
                "milliseconds": 1.0,
                "rate": 600.0,
                "unit": "TOPS",
                "holds": True,
                "no_reference": "no cuBLAS",
            },
        ],
        "fills": [{"name": "fill of 85 % of the memory", "mib": 122_000, "seconds": 8.0, "aim_seconds": 7.5}],
        "jobs": {"walls": ["namespaces", "filter"], "rows": [{"name": "sort", "equal": True}]},
        "attestation": attestation,
    } | changes


LOW = {
    "exit_code": 0,
    "score": 40,
    "unexamined": [{"gpu": "GPU-2", "why": "no memory"}],
    "gpus": [
        {
            "caps": [{"sentence": "Too slow."}],
            "levels": [{"name": "exam", "points": 0, "most": 30}, {"name": "driver", "points": 20, "most": 20}],
        }
    ],
}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"errors": {"jobs": "SandboxBroken: no sign of life"}}, "jobs: SandboxBroken: no sign of life"),
    ({"tests": {"exit_code": 1, "closing_line": "3 failed"}}, "tests failed: 3 failed"),
    ({"devices": [{"name": "the device", "error": "DeviceFault: x"}]}, "devices: the device: DeviceFault: x"),
    ({"comparisons": [{"name": "nbody", "equal": False}]}, "nbody: differs from the CPU"),
    ({"comparisons": [{"name": "nbody", "error": "DeviceFault: x"}]}, "comparisons: nbody: DeviceFault: x"),
    ({"timings": [{"name": "matmul_mma", "holds": False}]}, "matmul_mma (large): is wrong"),
    ({"timings": [{"name": "nbody", "error": "MemoryError: x"}]}, "timings: nbody: MemoryError: x"),
    ({"timings": []}, "rows: nothing came of it"),
    ({"fills": [{"name": "fill", "error": "MemoryError: x"}]}, "fills: fill: MemoryError: x"),
    ({"jobs": {"rows": [{"name": "sort", "equal": False}]}}, "job sort in the jail: differs from the CPU"),
    ({"jobs": {"rows": [{"name": "sort", "error": "CRASHED: x"}]}}, "job sort in the jail: CRASHED: x"),
    ({"attestation": {"exit_code": 1, "error": "DeviceFault: boom"}}, "attestation: DeviceFault: boom (exit code 1)"),
    ({"attestation": {"exit_code": 2}}, "attestation: it has no score (exit code 2)"),
    ({"attestation": {"exit_code": 1, "score": 95}}, "attestation: the exam was not right (exit code 1)"),
    (
        {"attestation": LOW},
        "attestation: score 40, not 90 or more: GPU-2 was not examined: no memory; Too slow.; level exam 0 of 30",
    ),
    ({"attestation": {"exit_code": 0, "score": 89}}, "attestation: score 89, not 90 or more: no reason given"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_makes_the_check_fail(changes: dict[str, Any], words: str) -> None:
    """Each thing that goes wrong is one sentence; of a report in which all is right, nothing is said."""
    assert failures(report_of()) == []
    assert failures(report_of(**changes)) == [words]


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A check that finds a card; where its report is."""
    for name in ("require_gpu", "require_pycuda", "require_device"):
        monkeypatch.setattr(check, name, lambda *given: None)
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "REPORT", tmp_path / "build" / "report.json")
    return tmp_path / "build" / "report.json"


def test_steps_that_break_leave_a_report(
    monkeypatch: pytest.MonkeyPatch, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step that raises is an error of the report, the others are done, the reasons are printed, and the code is 1."""

    def broken(report: dict[str, Any]) -> None:
        raise RuntimeError("boom")

    good = report_of()
    left = {"compile": "compiled", "tests": "tests", "jobs": "jobs", "attestation": "attestation"}
    steps: dict[str, Any] = {
        step: (lambda report, key=key: report.update({key: good[key]})) for step, key in left.items()
    }
    steps["rows"] = lambda report: report.update({name: good[name] for name in ("devices", "comparisons", "timings")})
    monkeypatch.setattr(check, "STEPS", steps)
    assert check.main([]) == 0
    assert json.loads(prepared.read_text())["attestation"]["score"] == 95
    assert "FAILED" not in capsys.readouterr().out
    monkeypatch.setattr(check, "STEPS", {**steps, "tests": broken, "rows": broken})
    assert check.main([]) == 1
    written = json.loads(prepared.read_text())
    assert written["errors"] == {"tests": "RuntimeError: boom", "rows": "RuntimeError: boom"}
    assert written["attestation"]["score"] == 95
    assert "FAILED: rows: RuntimeError: boom" in capsys.readouterr().out
    assert check.main(["--only", "jobs"]) == 0


def test_a_check_that_is_broken_off_leaves_what_there_is(
    monkeypatch: pytest.MonkeyPatch, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are written as they come, also where somebody ends the check."""

    def made_until_interrupted() -> Any:
        yield "comparisons", {"name": "one", "equal": True}
        yield "timings", {"name": "two", "error": "DeviceFault: x"}
        raise KeyboardInterrupt

    monkeypatch.setattr(rows, "made", made_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        check.main(["--only", "rows"])
    written = json.loads(prepared.read_text())
    assert written["comparisons"] == [{"name": "one", "equal": True}]
    assert failures(written) == ["timings: two: DeviceFault: x"]
    assert "comparisons: one: same bits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stdout", "code", "expected"),
    [
        ('{"score": 95}', 0, {"exit_code": 0, "score": 95}),
        ("", 1, {"exit_code": 1, "error": "the GPU has failed"}),
    ],
)
def test_attestation_keeps_what_the_selftest_says(
    monkeypatch: pytest.MonkeyPatch, stdout: str, code: int, expected: dict[str, Any]
) -> None:
    """Its answer, or its last words and exit code."""

    def run(command: list[str], **options: Any) -> Any:
        assert command[-4:] == ["--backend", "pycuda", "-o", "json"]
        return subprocess.CompletedProcess(command, code, stdout, "probing: 100 %\nthe GPU has failed\n")

    monkeypatch.setattr("subprocess.run", run)
    report: dict[str, Any] = {}
    check.STEPS["attestation"](report)
    assert report["attestation"] == expected


def test_the_selftest_says_what_the_check_reads() -> None:
    """The names under which it looks for scores, exams and reasons are those of the answer."""
    assert {"score", "grade", "exams", "unexamined", "gpus"} <= set(SelfTest.__struct_fields__)
    assert {"gpu", "why"} <= set(Unexamined.__struct_fields__)
    assert {"caps", "levels"} <= set(GpuScore.__struct_fields__)
    assert {"name", "points", "most"} <= set(Level.__struct_fields__)
    assert "sentence" in Cap.__struct_fields__
    assert "giga_operations" in ExamFacts.__struct_fields__


def test_table_has_a_line_for_each_kernel() -> None:
    """Times, references and shares are in columns; aims of speed are an H200's alone, that of the score is not."""
    lines = list(table_of(report_of()))
    assert "copy" in lines[1]
    assert "50%" in lines[1]
    assert "no cuBLAS" in lines[2]
    assert "4,100.0" in lines[3]
    assert "122,000 MiB in 8.00 s" in lines[4]
    assert "score 95" in lines[5]
    assert "1,310.0 TOPS" in lines[5]
    assert [line.split(":")[0] for line in lines[6:]] == [
        "MISSED   copy on the device, GB/s",
        "MISSED   sort int32, share of a copy",
        "reached  matmul_mma TOPS",
        "MISSED   fill of 85 % of the memory, seconds, at most",
        "reached  attestation score",
    ]
    other = report_of(devices=[{"name": "NVIDIA L4", "copy_gb_per_second": 280.0}])
    assert len(list(table_of(other))) == 7
    assert "DeviceFault" in list(table_of(report_of(timings=[{"name": "nbody", "error": "DeviceFault"}])))[1]


def test_a_job_of_each_service_goes_through_the_jail() -> None:
    """In the jail of the CPU they give what they give anywhere; a stranger's program finds no GPU there, and that is a
    row of its own."""
    found = jobs.compared("cpu")
    assert [row["name"] for row in found["rows"]] == [service_of(kind) for kind in WORK_TYPES]
    *others, custom = found["rows"]
    assert [row for row in others if row.get("equal") is not True] == []
    assert custom["name"] == "kernel.custom"
    assert "NO_" in custom["error"] or "nvcc" in custom["error"]


@needs_compiler
def test_the_strangers_program_of_the_check_gives_what_is_expected(tmp_path: Path) -> None:
    """With a half by value, which it multiplies by."""
    work = next(work for work in jobs.works(tmp_path) if isinstance(work, KernelCustom))
    assert work.inconsistency() is None
    (tmp_path / CODE_NAME).write_bytes(jobs.SOURCE)
    blobs = {digest: tmp_path / digest for digest in work.blobs()}
    result = compute(work, blobs, GpuBackend(EmulatedGpu()), tmp_path / "result")
    assert isinstance(result, Computed)
    assert (tmp_path / "result").read_bytes() == jobs.expected_of_custom()
    assert np.frombuffer(jobs.expected_of_custom(), "<i4").tolist() == (jobs.VALUES * -1.5).tolist()


def test_can_be_started_as_a_program() -> None:
    """The module that make calls is there, and its help says what it does."""
    command = [sys.executable, "-m", "tests.kernels.gpu.check", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--only" in done.stdout
    assert "tests.kernels.gpu.check" in Path(ROOT / "Makefile").read_text(encoding="utf-8")
