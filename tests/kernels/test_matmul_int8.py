"""The kernels of matmul.int8 against the CPU reference, bit for bit."""

from typing import Any

import numpy as np
import pytest

from actors.backends.base import DeviceFault
from actors.backends.cpu import CpuBackend
from actors.backends.host import matmul
from actors.backends.host.matmul import INT8_KERNELS, multiply, usable
from tests.kernels.device import require
from tests.kernels.emulator.compiled import compiler
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

KERNELS = list(INT8_KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (129, 257, 130), (40, 1_000, 200), (1_100, 20, 300)])
def test_random_products_are_those_of_the_reference(gpu: EmulatedGpu, kernel: str, shape: tuple[int, int, int]) -> None:
    """Random products equal the reference's, for shapes that fill tiles and shapes that do not."""
    require(gpu, INT8_KERNELS, kernel)
    generator = np.random.default_rng(sum(shape))
    a = generator.integers(-128, 128, shape[:2], dtype=np.int8)
    b = generator.integers(-128, 128, shape[1:], dtype=np.int8)
    np.testing.assert_array_equal(multiply(gpu, a, b, kernel=kernel), CpuBackend().multiply(a, b))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("left", "right"), [(-128, -128), (-128, 127), (127, 127)])
def test_extreme_products_are_exact(gpu: EmulatedGpu, kernel: str, left: int, right: int) -> None:
    """Values that fill an accumulator, which random ones never do, with odd sums, so that a rounded one would show."""
    require(gpu, INT8_KERNELS, kernel)
    inner = 1_500
    a = np.full((3, inner), left, dtype=np.int8)
    b = np.full((inner, 4), right, dtype=np.int8)
    a[:, -1] = 1
    b[-1] = [1, -1, 127, -128]
    np.testing.assert_array_equal(multiply(gpu, a, b, kernel=kernel), a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_position_counts(gpu: EmulatedGpu, kernel: str) -> None:
    """Permutation matrices: each element of an operand reaches the one place that is its own."""
    require(gpu, INT8_KERNELS, kernel)
    generator = np.random.default_rng(7)
    permutation = generator.permutation(160)
    a = np.eye(160, dtype=np.int8)[permutation]
    b = generator.integers(-128, 128, (160, 260), dtype=np.int8)
    np.testing.assert_array_equal(multiply(gpu, a, b, kernel=kernel), b[permutation])


class Forgetful(EmulatedGpu):
    """Does not run the kernels that it is told to leave out."""

    def __init__(self, *left_out: str) -> None:
        super().__init__(capability=(9, 0))
        self.left_out = left_out

    def launch(self, file: str, kernel: str, *words: Any, **options: Any) -> None:
        if kernel not in self.left_out:
            super().launch(file, kernel, *words, **options)


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler to build the kernels for the CPU: install g++")
def test_kernel_that_is_wrong_on_a_card_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel is tried once before it is believed; where its product is wrong, the next one is taken."""
    monkeypatch.setattr(matmul, "_SHOWN", {})
    a = np.arange(12, dtype=np.int8).reshape(3, 4)
    gpu = Forgetful("matmul_wgmma")
    with pytest.warns(RuntimeWarning, match="matmul_wgmma"):
        np.testing.assert_array_equal(multiply(gpu, a, a.T.copy()), CpuBackend().multiply(a, a.T.copy()))
    multiply(gpu, a, a.T.copy())
    assert gpu.launched.count("matmul_mma") == 3
    monkeypatch.setattr(matmul, "_SHOWN", {})
    with pytest.warns(RuntimeWarning), pytest.raises(DeviceFault, match="no kernel"):
        multiply(Forgetful(*KERNELS), a, a.T.copy())


@pytest.mark.parametrize(
    ("capability", "kernel"),
    [
        ((6, 1), "matmul_dp4a"),
        ((7, 5), "matmul_dp4a"),
        ((8, 0), "matmul_mma"),
        ((8, 9), "matmul_mma"),
        ((9, 0), "matmul_wgmma"),
        ((12, 0), "matmul_mma"),
    ],
)
def test_card_decides_on_the_kernel(capability: tuple[int, int], kernel: str) -> None:
    """The fastest one that the card has instructions for is launched."""
    assert usable(INT8_KERNELS, capability)[0] == kernel
