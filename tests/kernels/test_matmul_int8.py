"""The kernels of matmul.int8 against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.host.matmul import multiply
from tests.kernels.emulator.emulated_gpu import EmulatedGpu


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (129, 257, 130), (40, 1_000, 200)])
def test_random_products_are_those_of_the_reference(gpu: EmulatedGpu, shape: tuple[int, int, int]) -> None:
    """Random products equal the reference's, for shapes that fill tiles and shapes that do not."""
    generator = np.random.default_rng(sum(shape))
    a = generator.integers(-128, 128, shape[:2], dtype=np.int8)
    b = generator.integers(-128, 128, shape[1:], dtype=np.int8)
    np.testing.assert_array_equal(multiply(gpu, a, b), CpuBackend().multiply(a, b))
