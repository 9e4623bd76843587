"""The CPU backend against 64-bit integers."""

import msgspec
import numpy as np
import pytest

from actors.backends.base import Backend
from actors.backends.cpu import EXACT_INNER, CpuBackend
from schemas.events import Device
from schemas.services import MAX_INNER


def reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int64) @ b.astype(np.int64)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [
        (1, 1, 1),
        (3, 5, 7),
        (100, 100, 100),
        (1, EXACT_INNER, 1),
        (2, EXACT_INNER + 1, 3),
        (300, 2 * EXACT_INNER - 1, 40),
        (2_000, 2, 1_500),
        (2, MAX_INNER, 2),
    ],
)
def test_random_products_are_exact(rows: int, inner: int, columns: int, threads: int) -> None:
    """Random products equal those in 64-bit integers, whatever the shape and the number of threads."""
    generator = np.random.default_rng(rows + inner + columns)
    a = generator.integers(-128, 128, (rows, inner), dtype=np.int8)
    b = generator.integers(-128, 128, (inner, columns), dtype=np.int8)
    product = CpuBackend(threads).multiply(a, b)
    assert product.dtype == np.int32
    assert product.flags.c_contiguous
    np.testing.assert_array_equal(product, reference(a, b))


@pytest.mark.parametrize("inner", [1, EXACT_INNER - 1, EXACT_INNER, EXACT_INNER + 1, MAX_INNER - 1, MAX_INNER])
@pytest.mark.parametrize(("left", "right"), [(-128, -128), (-128, 127), (127, 127)])
def test_extreme_products_are_exact(inner: int, left: int, right: int) -> None:
    """Matrices that fill the accumulator, which random ones never do, are exact up to the largest inner dimension.

    The last column of A is 1 and odd sums arise, so that a rounded sum would show."""
    a = np.full((4, inner), left, dtype=np.int8)
    b = np.full((inner, 4), right, dtype=np.int8)
    a[:, -1] = 1
    b[-1] = [1, -1, 127, -128]
    np.testing.assert_array_equal(CpuBackend().multiply(a, b), reference(a, b))


def test_largest_product_fits_an_int32() -> None:
    """-128 times -128 over the largest inner dimension is the largest entry, and is below 2^31."""
    a = np.full((1, MAX_INNER), -128, dtype=np.int8)
    assert CpuBackend().multiply(a, a.T).item() == MAX_INNER * 128 * 128 < 2**31


def test_progress_counts_up_to_the_total() -> None:
    """Progress is told step by step, in order, and ends at the total."""
    said: list[tuple[int, int]] = []
    ones = np.ones((2_500, 2_500), dtype=np.int8)
    CpuBackend(2).multiply(ones, ones, lambda done, total: said.append((done, total)))
    total = said[0][1]
    assert total > 1
    assert said == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize(("left", "right"), [((2, 3), (2, 3)), ((1, MAX_INNER + 1), (MAX_INNER + 1, 1))])
def test_inexact_shapes_are_a_broken_invariant(left: tuple[int, int], right: tuple[int, int]) -> None:
    """Shapes that the rules never let through stop the backend."""
    with pytest.raises(AssertionError, match="cannot be multiplied"):
        CpuBackend().multiply(np.zeros(left, dtype=np.int8), np.zeros(right, dtype=np.int8))


def test_device_can_be_announced() -> None:
    """The processor's name and memory fit the record that a miner registers with."""
    backend: Backend = CpuBackend()
    (device,) = backend.devices()
    assert backend.name == "cpu"
    assert msgspec.json.decode(msgspec.json.encode(device), type=Device) == device
    assert device.memory_mib > 0
