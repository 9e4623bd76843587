"""The kernel of montecarlo.option against the CPU reference, bit for bit."""

import numpy as np
import pytest
from msgspec.structs import replace

from actors.backends.base import Walk
from actors.backends.cpu import CpuBackend
from actors.backends.host.option import payoff_sums
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

WALK = Walk(
    spot=100_000_000,
    strike=105_000_000,
    drift=15_862_599_727,
    diffusion=1_239_000_000,
    steps=1,
    paths=1_000,
    chunk_paths=256,
    asian=False,
    put=False,
    key=(1, 0xFFFFFFFF, 3, 0x80000000),
)


def agree(gpu: EmulatedGpu, walk: Walk, first: int = 0, count: int | None = None) -> None:
    chunks = -(-walk.paths // walk.chunk_paths) - first if count is None else count
    found = payoff_sums(gpu, walk, first, chunks)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, CpuBackend().payoff_sums(walk, first, chunks))


@pytest.mark.parametrize("asian", [False, True])
@pytest.mark.parametrize("put", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_styles_and_steps(gpu: EmulatedGpu, asian: bool, put: bool, steps: int) -> None:
    """Every style and right, with steps that fill a block of random words and that do not; the last chunk is short."""
    agree(gpu, replace(WALK, asian=asian, put=put, steps=steps, diffusion=WALK.diffusion // 2))


@pytest.mark.parametrize("first", [0, 1, 3])
def test_single_chunks(gpu: EmulatedGpu, first: int) -> None:
    """A chunk by itself has the same sums as among the others, wherever it lies."""
    agree(gpu, WALK, first, 1)
    whole = payoff_sums(gpu, WALK, 0, 4)
    np.testing.assert_array_equal(payoff_sums(gpu, WALK, first, 1), whole[first : first + 1])


@pytest.mark.parametrize(
    "walk",
    [
        replace(WALK, spot=100_000_000_000, strike=1, drift=2**41, diffusion=2**32 * 3 // 2),
        replace(WALK, spot=100_000_000_000, strike=1, drift=2**43, diffusion=2**32, asian=True),
        replace(WALK, spot=1, strike=100_000_000_000, drift=-(2**43), diffusion=2**32, put=True),
        replace(WALK, spot=2**20, strike=1, drift=0, diffusion=0, steps=5),
        replace(WALK, paths=1, chunk_paths=4_096),
        replace(WALK, paths=2**30, chunk_paths=64),
    ],
    ids=[
        "prices near the most",
        "beyond the most",
        "below the least",
        "nothing moves",
        "one path",
        "last chunk of many",
    ],
)
def test_extremes(gpu: EmulatedGpu, walk: Walk) -> None:
    """Logarithms beyond both ends, sums near their bounds, and paths of the highest number."""
    last = -(-walk.paths // walk.chunk_paths) - 1
    agree(gpu, walk, max(0, last - 1), min(2, last + 1))
