"""The kernels of histogram against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.host.histogram import histogram, reciprocal_of
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

ELEMENTS = ("uint8", "uint16", "int16", "int32")


def agree(gpu: EmulatedGpu, values: np.ndarray, low: int, width: int, count: int) -> None:
    found = histogram(gpu, values, low, width, count)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, CpuBackend().histogram(values, low, width, count))


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("length", [1, 15, 16, 17, 40_000])
def test_random_values(gpu: EmulatedGpu, element: str, length: int) -> None:
    """Random values of each type, in numbers that fill the last load and that do not, with values on either side."""
    limits = np.iinfo(element)
    span = int(limits.max) - int(limits.min)
    values = np.random.default_rng(length).integers(limits.min, limits.max, length, dtype=element, endpoint=True)
    low = int(limits.min) + span // 4
    agree(gpu, values, low, max(1, span // 200), 100)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("edge", ["min", "max"])
def test_all_values_alike(gpu: EmulatedGpu, element: str, edge: str) -> None:
    """One bin takes everything, at either end of the type, in a bin and beyond the bins."""
    extreme = int(getattr(np.iinfo(element), edge))
    values = np.full(5_000, extreme, dtype=element)
    for low in (extreme, extreme - 1, extreme + 1):
        if -(2**31) <= low < 2**31:
            agree(gpu, values, low, 1, 1)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 641, 65_537, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1])
def test_edges_of_bins(gpu: EmulatedGpu, width: int) -> None:
    """Values on both sides of every kind of border, for widths whose reciprocals are rounded the most."""
    low = -(2**31)
    borders = [low + n * width + d for n in (0, 1, 2, 3, 5, 100, 6_553, (2**32 - 1) // width) for d in (-1, 0, 1)]
    values = np.array([n for n in borders if low <= n < 2**31] + [low, 2**31 - 1, 0, -1], dtype=np.int32)
    for count in (1, 2, 300):
        agree(gpu, values, low, width, count)


@pytest.mark.parametrize("count", [8_190, 8_191, 65_536])
def test_more_bins_than_a_tile(gpu: EmulatedGpu, count: int) -> None:
    """Bins in several tiles, the last of which is full, has one place, or is nearly full."""
    values = np.random.default_rng(count).integers(0, 2**16, 2_000, dtype=np.uint16)
    values[:4] = 0, 1, 2**16 - 2, 2**16 - 1
    agree(gpu, values, 1, 1, count)
    agree(gpu, values, -3, 1, count)


def test_reciprocals_divide_exactly() -> None:
    """The multiplication in place of the division is right next to all multiples of a width."""
    generator = np.random.default_rng(3)
    widths = [*range(2, 200), *(int(w) for w in generator.integers(2, 2**32, 400)), 2**32 - 1]
    for width in widths:
        largest = (2**32 - 1) // width
        for n in {0, 1, largest // 2, largest - 1, largest, largest + 1}:
            for value in (n * width - 1, n * width, n * width + 1):
                if 0 <= value < 2**32:
                    assert value * reciprocal_of(width) >> 64 == value // width
