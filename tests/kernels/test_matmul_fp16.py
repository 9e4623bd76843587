"""The kernels of matmul.fp16-exact against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.host.matmul import FP16_KERNELS, multiply_fp16, usable
from tests.kernels.device import require
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

KERNELS = list(FP16_KERNELS)


def same_bits(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_array_equal(left.view(np.uint32), right.view(np.uint32))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("shape", "limit"), [((1, 1, 1), 2_048), ((3, 2, 7), 2_048), ((65, 130, 129), 254), ((20, 1_000, 70), 91)]
)
def test_random_products_are_those_of_the_reference(
    gpu: EmulatedGpu, kernel: str, shape: tuple[int, int, int], limit: int
) -> None:
    """Random products equal the reference's, for shapes that fill tiles and shapes that do not."""
    require(gpu, FP16_KERNELS, kernel)
    generator = np.random.default_rng(sum(shape))
    a = generator.integers(-limit, limit + 1, shape[:2]).astype(np.float16)
    b = generator.integers(-limit, limit + 1, shape[1:]).astype(np.float16)
    same_bits(multiply_fp16(gpu, a, b, kernel=kernel), CpuBackend().multiply_fp16(a, b))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_sums_are_exact(gpu: EmulatedGpu, kernel: str, sign: int) -> None:
    """Sums that fill all the bits there are, with an odd end, are not rounded; no zero is negative."""
    require(gpu, FP16_KERNELS, kernel)
    a = np.full((2, 128), 256, dtype=np.float16)
    b = np.full((128, 3), sign * 256, dtype=np.float16)
    b[-1] = [sign * 255, sign * 256, -1]
    b[:, 2] *= np.float16(-0.0)
    a[1, 100:] = 1
    same_bits(multiply_fp16(gpu, a, b, kernel=kernel), CpuBackend().multiply_fp16(a, b))
    assert not np.signbit(multiply_fp16(gpu, a, b, kernel=kernel)[:, 2]).any()


@pytest.mark.parametrize(
    ("capability", "kernel"),
    [((6, 1), "matmul_fp16_plain"), ((7, 5), "matmul_fp16_plain"), ((8, 0), "matmul_fp16"), ((9, 0), "matmul_fp16")],
)
def test_card_decides_on_the_kernel(capability: tuple[int, int], kernel: str) -> None:
    """The fastest one that the card has instructions for is launched."""
    assert usable(FP16_KERNELS, capability)[0] == kernel
