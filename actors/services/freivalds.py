"""Freivalds' check of a whole int8 matrix product, in exact arithmetic (R. Freivalds, IFIP Congress 1977).

A is m × K, B is K × n, both int8; C is the claimed product, m × n int32. Once C is committed, a random R of n × k is
drawn from a public seed, and C·R is compared with A·(B·R): three thin products in place of the full one.

**Error.** R's entries are uniform over a set S of 2**b integers. If C differs from A·B anywhere, some row d of C -
A·B is not zero, and for each column r of R, d·r = 0 has probability at most 1/|S| (fix all entries of r but one where
d is not zero: at most one value of that one works). The columns are independent, so a wrong C passes with probability
at most |S|**-k = 2**-(b k), over the integers, whatever C is.

**Exactness.** All three products go through float64 BLAS. S = -2**(b-1) … 2**(b-1) - 1, so with |A|, |B| <= 2**7 and
|C| <= K 2**14 (checked first, row by row):

    |B R| sums   <= n 2**7 2**(b-1)
    |A (B R)| sums <= K 2**7 n 2**7 2**(b-1) = K n 2**(13+b)
    |C R| sums   <= n K 2**14 2**(b-1)    = K n 2**(13+b)

These bound the sum of the magnitudes, hence every partial sum in any order, fused or not. b is chosen so that
K n 2**(13+b) <= 2**53, up to where float64 holds every integer: no operation ever rounds, and equality is equality of
integers. For 4096 × 4096 × 4096, b = 16 and k = 8. Where a product of two elements is at most P instead of 2**14, read
P for 2**14 above.

**R, reproducibly.** SHAKE-256 of ``b"assay:freivalds:v1\\0" + seed`` (32 bytes) gives two bytes for each entry, row
after row; each pair is a little-endian signed 16-bit integer, shifted right arithmetically by 16 - b. An
extendable-output function uses all 256 bits of the seed; a 64-bit key would leave only 2**64 possible R, above the
error that is claimed.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from actors.backends.base import Float16Array, Float32Array, Int8Array, Int32Array

Float64Array: TypeAlias = npt.NDArray[np.float64]

ERROR_BITS: Final = 128
MAX_PRODUCT: Final = 128 * 128

_DOMAIN: Final = b"assay:freivalds:v1\0"
_EXACT_BITS: Final = 53
_WORD_BITS: Final = 16
# Elements that one step converts to float64: 2 MiB, within the second-level cache.
_STEP_ELEMENTS: Final = 1 << 18


def entry_bits(inner: int, columns: int, most: int = MAX_PRODUCT) -> int:
    """b, the bits of an entry of R: the most, up to 16, for which ``inner * columns * most * 2**(b - 1) <= 2**53``.

    ``most`` bounds the product of two elements.
    """
    bits = _EXACT_BITS + 1 - (inner * columns * most - 1).bit_length()
    if bits < 1:
        raise AssertionError(f"an inner dimension of {inner} with {columns} columns cannot be checked exactly")
    return min(bits, _WORD_BITS)


def error_bits(inner: int, columns: int, most: int = MAX_PRODUCT) -> int:
    """A wrong product passes with a probability of at most 2 to the minus this."""
    bits = entry_bits(inner, columns, most)
    return bits * -(-ERROR_BITS // bits)


def challenge(seed: str, inner: int, columns: int, most: int = MAX_PRODUCT) -> Float64Array:
    """R for the seed (64 hexadecimal digits): ``columns`` × k integers in float64, k as `error_bits` needs."""
    bits = entry_bits(inner, columns, most)
    count = columns * -(-ERROR_BITS // bits)
    material = hashlib.shake_256(_DOMAIN + bytes.fromhex(seed)).digest(2 * count)
    entries = np.frombuffer(material, dtype="<i2") >> (_WORD_BITS - bits)
    return entries.astype(np.float64).reshape(columns, -1)


def row_steps(rows: int, columns: int) -> list[slice]:
    """The rows in slices of the size that a step takes."""
    step = max(1, _STEP_ELEMENTS // max(1, columns))
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def project(matrix: Int8Array | Float16Array, vectors: Float64Array, executor: Executor) -> Float64Array:
    """``matrix @ vectors`` in steps of rows, so that the float64 copy of the matrix never exists as a whole."""

    def project_step(rows: slice) -> Float64Array:
        return matrix[rows].astype(np.float64) @ vectors

    return np.concatenate(list(executor.map(project_step, row_steps(*matrix.shape))))


def out_of_range_row(product: Int32Array, inner: int) -> int | None:
    """The first row with an entry that no product of this inner dimension can have; None where there is none."""
    limit = inner * MAX_PRODUCT
    if int(product.max()) <= limit and int(product.min()) >= -limit:
        return None
    return int(np.argmax(((product > limit) | (product < -limit)).any(axis=1)))


def row_checker(
    a: Int8Array | Float16Array, b: Int8Array | Float16Array, seed: str, executor: Executor, most: int = MAX_PRODUCT
) -> Callable[[slice, Int32Array | Float32Array], int | None]:
    """The check for slices of rows: given the slice and those rows of C, the first wrong row in it, or None.

    All elements must be integers, no product of one of ``a`` and one of ``b`` above ``most``, and the rows of C in the
    range that follows. It may be called from several threads. B·R is computed here, once.
    """
    inner, columns = b.shape
    vectors = challenge(seed, inner, columns, most)
    projected = project(b, vectors, executor)

    def wrong_row(rows: slice, product: Int32Array | Float32Array) -> int | None:
        expected = a[rows].astype(np.float64) @ projected
        found = product.astype(np.float64) @ vectors
        wrong = (expected != found).any(axis=1)
        return rows.start + int(np.argmax(wrong)) if wrong.any() else None

    return wrong_row
