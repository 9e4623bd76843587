"""Freivalds' check: its error bound, its exactness, and what it finds."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.services.freivalds import (
    ERROR_BITS,
    challenge,
    entry_bits,
    error_bits,
    out_of_range_row,
    project,
    row_checker,
    row_steps,
)
from schemas.services import MAX_INNER, MAX_SIDE

SEED = hashlib.sha256(b"a challenge for the tests").hexdigest()
GOLDEN = [
    [-14594.0, 30767.0, 9658.0, 3694.0],
    [8160.0, 31420.0, -31800.0, -5529.0],
    [15859.0, 20976.0, -13508.0, 6930.0],
]


def first_wrong_row(a: np.ndarray, b: np.ndarray, product: np.ndarray, seed: str = SEED) -> int | None:
    """The first wrong row of the whole product."""
    with ThreadPoolExecutor(2) as executor:
        check = row_checker(a, b, seed, executor)
        found = list(executor.map(lambda rows: check(rows, product[rows]), row_steps(*product.shape)))
    return next((row for row in found if row is not None), None)


@pytest.fixture(scope="module")
def honest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two matrices and their product, several steps of rows long."""
    generator = np.random.default_rng(7)
    a = generator.integers(-128, 128, (1_100, 300), dtype=np.int8)
    b = generator.integers(-128, 128, (300, 500), dtype=np.int8)
    product = CpuBackend().multiply(a, b)
    assert len(row_steps(*product.shape)) > 2
    return a, b, product


@pytest.mark.parametrize("inner", [1, 2, 1_000, 4_096, 4_097, 65_536, MAX_INNER])
@pytest.mark.parametrize("columns", [1, 3, 1_000, 4_096, 4_097, MAX_SIDE, MAX_INNER])
def test_bounds_hold_for_all_sizes(inner: int, columns: int) -> None:
    """The sums stay within 2^53, a bit more would break that (or 16 are reached), and the error is at most 2^-128."""
    bits = entry_bits(inner, columns)
    assert inner * 2**14 * columns * 2 ** (bits - 1) <= 2**53
    assert bits == 16 or inner * 2**14 * columns * 2**bits > 2**53
    assert ERROR_BITS <= error_bits(inner, columns) < ERROR_BITS + bits
    assert error_bits(inner, columns) % bits == 0


@pytest.mark.parametrize(("inner", "columns"), [(4_096, 4_096), (100_000, 3_000), (MAX_INNER, 1)])
def test_entries_of_the_challenge_are_uniform_words(inner: int, columns: int) -> None:
    """The entries are the words of SHAKE-256, shifted to the signed range of their bits."""
    bits = entry_bits(inner, columns)
    vectors = challenge(SEED, inner, columns)
    count = error_bits(inner, columns) // bits
    assert vectors.shape == (columns, count)
    material = hashlib.shake_256(b"assay:freivalds:v1\0" + bytes.fromhex(SEED)).digest(2 * columns * count)
    last = int.from_bytes(material[-2:], "little", signed=True) >> (16 - bits)
    assert vectors[-1, -1] == last
    assert vectors.min() >= -(2 ** (bits - 1))
    assert vectors.max() < 2 ** (bits - 1)


def test_golden_challenge() -> None:
    """The vectors of a seed never change."""
    vectors = challenge("00" * 32, 1_000, 3)
    assert vectors[:, :4].tolist() == GOLDEN


def test_too_large_sizes_are_a_broken_invariant() -> None:
    """Sizes for which not even one bit would be exact stop the check."""
    with pytest.raises(AssertionError, match="cannot be checked exactly"):
        entry_bits(2**20, 2**20)


@pytest.mark.parametrize("inner", [4_096, MAX_INNER])
def test_projection_of_extreme_matrices_is_exact(inner: int) -> None:
    """Matrices of -128 and 127 give the same projections in float64 as in Python's integers."""
    columns = 64
    vectors = challenge(SEED, inner, columns)
    extremes = np.where(vectors[:, 0] < 0, -128, 127).astype(np.int8)
    b = np.tile(extremes, (inner, 1))
    a = np.full((2, inner), -128, dtype=np.int8)
    with ThreadPoolExecutor(1) as executor:
        projected = project(b, vectors, executor)
        result = project(a, projected, executor)
    integers = vectors.astype(np.int64).astype(object)
    expected = [sum(int(extremes[j]) * integers[j, t] for j in range(columns)) for t in range(vectors.shape[1])]
    assert projected[inner - 1].astype(np.int64).tolist() == expected
    assert result[1].astype(np.int64).tolist() == [-128 * inner * value for value in expected]


@pytest.mark.parametrize("inner", [1, 1_024, MAX_INNER])
def test_extreme_products_are_accepted(inner: int) -> None:
    """Products that fill the accumulator pass the range check and the check itself."""
    a = np.full((3, inner), -128, dtype=np.int8)
    b = np.full((inner, 3), -128, dtype=np.int8)
    product = CpuBackend().multiply(a, b)
    assert out_of_range_row(product, inner) is None
    assert first_wrong_row(a, b, product) is None


def test_honest_products_are_never_rejected(honest: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """A right product passes under every one of 100 challenges."""
    a, b, product = honest
    seeds = [hashlib.sha256(bytes([number])).hexdigest() for number in range(100)]
    assert [first_wrong_row(a, b, product, seed) for seed in seeds] == [None] * 100


def test_every_planted_single_entry_error_is_found(honest: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """One entry that is off, by any single bit that stays in range, at 200 random places, is found with its row."""
    a, b, product = honest
    generator = np.random.default_rng(3)
    for _ in range(200):
        row, column = int(generator.integers(1_100)), int(generator.integers(500))
        forged = product.copy()
        forged[row, column] ^= 1 << int(generator.integers(0, 22))
        assert first_wrong_row(a, b, forged) == row


@pytest.mark.parametrize(
    "forge",
    [
        lambda c: c[5].__setitem__(slice(0, 2), c[5, [1, 0]]),
        lambda c: c[5].__iadd__(np.where(np.arange(500) == 3, 1, np.where(np.arange(500) == 4, -1, 0))),
        lambda c: c.__setitem__(slice(5, None), 0),
        lambda c: c.__setitem__([5, 6], c[[6, 5]]),
        lambda c: c.__setitem__(slice(5, None), c[5:] // 256 * 256),
        lambda c: c.__setitem__(slice(5, None), np.outer(c[5:, 0], c[5]) // 10_000),
    ],
    ids=["entries-swapped", "errors-cancel", "lazy-rows", "rows-swapped", "low-precision", "rank-1"],
)
def test_forged_products_are_found(honest: tuple[np.ndarray, np.ndarray, np.ndarray], forge: object) -> None:
    """The forgeries that peers have met are found, in the first row that is wrong."""
    a, b, product = honest
    forged = product.copy()
    forge(forged)  # type: ignore[operator]
    assert out_of_range_row(forged, 300) is None
    assert first_wrong_row(a, b, forged) == 5


@pytest.mark.parametrize("value", [2**31 - 1, -(2**31), 300 * 2**14 + 1, -300 * 2**14 - 1])
def test_entries_out_of_range_are_found_before_the_product(
    honest: tuple[np.ndarray, np.ndarray, np.ndarray], value: int
) -> None:
    """An entry larger than any product can have is out of range; among them is an error of 2^31, which wraps around."""
    forged = honest[2].copy()
    forged[77, 3] = value
    assert out_of_range_row(forged, 300) == 77
    wrapped = honest[2].copy()
    wrapped[9, 9] = np.int32((int(wrapped[9, 9]) + 2**32) % 2**32 - 2**31)
    assert out_of_range_row(wrapped, 300) == 9
