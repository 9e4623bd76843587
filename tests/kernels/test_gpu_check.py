"""`make gpu-check`, as far as a machine without a GPU can run it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.base import Progress, no_progress
from actors.backends.cpu import CpuBackend
from actors.backends.on_gpu import GpuBackend
from tests.kernels.emulator.compiled import compiler
from tests.kernels.emulator.emulated_gpu import EmulatedGpu
from tests.kernels.gpu import cases, preparation
from tests.kernels.gpu.check import ROOT, main, same_bits, table_of

needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler: install g++")


def test_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without NVIDIA's driver it names what is missing and ends with 2."""
    monkeypatch.setattr(preparation, "_DRIVER", "libcuda-that-is-nowhere.so.1")
    assert main([]) == 2
    assert "no GPU" in capsys.readouterr().out


@needs_compiler
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_products_are_compared_rightly(capability: tuple[int, int]) -> None:
    """Every kernel that a card can run has a case, and its result is that of the CPU."""
    gpu = EmulatedGpu(capability=capability)
    found = list(cases.products(gpu, 70))
    for case in found:
        product = case.run(GpuBackend(gpu))
        assert same_bits(product, case.run(CpuBackend()))
        assert case.holds is not None
        assert case.holds(product)
        assert not case.holds(product + (np.arange(product.size) == 4_321).reshape(product.shape))
    assert [name for case in found for name in case.kernels] == [
        name for name in gpu.launched if name.startswith("matmul")
    ]


class Recorder:
    """Stands for a backend: keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def asked(*arguments: Any, progress: Progress = no_progress) -> Any:
            self.asked.append(name)
            return np.zeros(1)

        return asked


def test_every_computation_has_a_case() -> None:
    """What a backend can do is compared and timed; programs of strangers are not."""
    recorder = Recorder()
    for case in cases.others(large=False):
        if case.kernels[0].startswith("pack"):
            continue
        case.run(recorder)  # type: ignore[arg-type]
    methods = {"histogram", "sort", "convolve", "leaf_hashes", "cluster", "escape_counts", "payoff_sums", "leapfrog"}
    assert set(recorder.asked) == methods
    known = {name for name in vars(GpuBackend) if not name.startswith("_")}
    assert known - {"name", "gpu", "devices", "multiply", "multiply_fp16", "run_code"} == methods


def test_bits_are_compared() -> None:
    """Zeros of both signs differ, and so do types and shapes."""
    zero = np.zeros(2, dtype=np.float32)
    assert same_bits((zero, zero), (zero, zero.copy()))
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero.astype(np.int32))
    assert not same_bits(zero, zero.reshape(1, 2))
    assert not same_bits((zero,), (zero, zero))


def test_table_has_a_line_for_each_kernel() -> None:
    """Times, rates and shares are in columns."""
    report = {
        "device": {"name": "NVIDIA H200"},
        "timings": [
            {"name": "sort", "milliseconds": 2.5, "rate": 4.0, "unit": "Gkeys/s", "share_of_copy": 0.5},
            {"name": "matmul_mma", "milliseconds": 1.0, "rate": 600.0, "unit": "TOPS", "cupy_milliseconds": 0.9},
        ],
        "copy_gb_per_second": 4_100.0,
        "attestation": {"score": 95, "grade": "M", "exam": {"giga_operations": 1_310_000}},
    }
    lines = list(table_of(json.loads(json.dumps(report))))
    assert "50%" in lines[1]
    assert "0.900" in lines[2]
    assert "4,100.0" in lines[3]
    assert "95" in lines[4]
    assert "1,310.0 TOPS" in lines[4]
    aims = "\n".join(lines[5:])
    assert "MISSED   sort share of copy" in aims
    assert "reached  matmul_mma TOPS" in aims
    assert "reached  attestation score" in aims
    assert len(list(table_of({**report, "device": {"name": "NVIDIA L4"}}))) == 5


def test_can_be_started_as_a_program() -> None:
    """The module that make calls is there, and its help says what it does."""
    command = [sys.executable, "-m", "tests.kernels.gpu.check", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--quick" in done.stdout
    assert "tests.kernels.gpu.check" in Path(ROOT / "Makefile").read_text(encoding="utf-8")
