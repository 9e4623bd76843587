"""The kernel of convolve against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.host.convolve import convolve
from schemas.services import MAX_KERNEL_SIDE, MAX_WEIGHT
from tests.kernels.emulator.emulated_gpu import EmulatedGpu


def agree(gpu: EmulatedGpu, picture: np.ndarray, kernel: np.ndarray, divisor: int, offset: int) -> None:
    found = convolve(gpu, picture, kernel, divisor, offset)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, CpuBackend().convolve(picture, kernel, divisor, offset))


@pytest.mark.parametrize("shape", [(1, 1, 1), (32, 32, 1), (33, 33, 3), (3, 70, 1), (71, 2, 3)])
@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (5, 1), (1, 15), (15, 15)])
def test_random_pictures(gpu: EmulatedGpu, shape: tuple[int, int, int], sides: tuple[int, int]) -> None:
    """Pictures smaller and larger than a block, kernels of all shapes, also larger than the picture."""
    generator = np.random.default_rng(sum(shape) + sum(sides))
    picture = generator.integers(0, 256, shape, dtype=np.uint8)
    kernel = generator.integers(-40, 41, sides, dtype=np.int32)
    agree(gpu, picture, kernel, int(generator.integers(1, 300)), int(generator.integers(-50, 250)))


@pytest.mark.parametrize("weight", [MAX_WEIGHT, -MAX_WEIGHT])
@pytest.mark.parametrize("divisor", [1, 2, 3, 7_373, 16_777_215])
def test_sums_that_fill_the_accumulator(gpu: EmulatedGpu, weight: int, divisor: int) -> None:
    """White under the heaviest kernel: the largest sums there are, and quotients that are rounded down either side."""
    picture = np.full((9, 33, 1), 255, dtype=np.uint8)
    picture[4, 16] = 254
    kernel = np.full((MAX_KERNEL_SIDE, MAX_KERNEL_SIDE), weight, dtype=np.int32)
    for offset in (0, -65_535, 65_535, 128 if weight < 0 else -128):
        agree(gpu, picture, kernel, divisor, offset)
