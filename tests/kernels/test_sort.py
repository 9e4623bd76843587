"""The kernels of sort against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.host.sort import TILE, sort
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

ELEMENTS = ("int32", "uint32", "int64")


def agree(gpu: EmulatedGpu, values: np.ndarray) -> None:
    found = sort(gpu, values)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, CpuBackend().sort(values))


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("length", [1, 33, 300])
def test_random_values(gpu: EmulatedGpu, element: str, length: int) -> None:
    """Random values of the whole range, in numbers that fill warps and tiles and that do not."""
    limits = np.iinfo(element)
    values = np.random.default_rng(length).integers(limits.min, limits.max, length, dtype=element, endpoint=True)
    agree(gpu, values)


def test_whole_tiles(gpu: EmulatedGpu) -> None:
    """A tile that is full, and a key beyond it that belongs before all others."""
    values = np.random.default_rng(2).integers(0, 70_000, TILE + 1).astype(np.int32)
    values[-1] = -1
    agree(gpu, values)


@pytest.mark.parametrize("element", ELEMENTS)
def test_adversarial_values(gpu: EmulatedGpu, element: str) -> None:
    """Values in order; and extremes, single bits, both sides of zero, many alike, runs in the opposite order."""
    limits, bits = np.iinfo(element), 8 * np.dtype(element).itemsize
    singles = [1 << bit for bit in range(bits)] + [(1 << bit) - 1 for bit in range(bits + 1)]
    edges = np.array([n % 2**bits for n in singles], dtype=f"uint{bits}").view(element)
    run = np.arange(300, dtype=element)
    alike = np.full(600, limits.max, dtype=element)
    agree(gpu, run)
    agree(gpu, np.concatenate([edges, alike, run[::-1] - limits.max // 2, np.repeat(edges[::-1], 5)]))


def test_more_tiles_than_a_scan_takes_at_once(gpu: EmulatedGpu) -> None:
    """Sums over tiles are carried from one step of the scan to the next; checked on the scan alone."""
    tiles = 600
    counts = np.random.default_rng(5).integers(0, 4_096, (3, tiles), dtype=np.uint32)
    rows, totals = gpu.put(counts), gpu.zeros(3 * 4)
    gpu.launch("sort", "radix_scan", (3, 1, 1), (256, 1, 1), rows, totals, np.uint32(tiles))
    sums = np.cumsum(counts, axis=1, dtype=np.uint32)
    np.testing.assert_array_equal(gpu.get(rows, np.uint32, counts.shape), sums - counts)
    np.testing.assert_array_equal(gpu.get(totals, np.uint32, (3,)), sums[:, -1])
