"""Matrices made from a seed: element (i, j) is a function of (seed, i, j) alone.

The generator is Philox4x32-10 (J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel Random Numbers: As Easy
as 1, 2, 3", SC 2011): a keyed bijection of a 128-bit counter, ten rounds, 32-bit integers only. Any row can be made
without the others, on any device, with the same bits.

How a matrix is laid out, precisely enough to write it in another language:

1. ``material = SHA-256(b"assay:matrix:v1\\0" + seed)`` with the seed as 32 bytes; its first 16 bytes, read as four
   little-endian words, are ``k0, k1, s0, s1``.
2. The block that holds the elements ``16 q … 16 q + 15`` of row ``i`` is Philox of the counter ``(q, i, s0, s1)``
   under the key ``(k0, k1)``: four words, written little-endian one after the other, sixteen bytes.
3. Element ``(i, j)`` is byte ``j mod 16`` of block ``q = j div 16``, read as two's complement: uniform over -128 … 127.

Row and column enter the counter separately, never as a sum: a matrix of f(i + j) is a Hankel matrix, whose products
can be computed in a fraction of the work.
"""

import hashlib
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Int8Array: TypeAlias = npt.NDArray[np.int8]
Words: TypeAlias = npt.NDArray[np.uint64]

ROUNDS: Final = 10
ELEMENTS_PER_BLOCK: Final = 16

_DOMAIN: Final = b"assay:matrix:v1\0"
_MASK: Final = 0xFFFFFFFF
_MULTIPLIER_0: Final = np.uint64(0xD2511F53)
_MULTIPLIER_1: Final = np.uint64(0xCD9E8D57)
_WEYL_0: Final = 0x9E3779B9
_WEYL_1: Final = 0xBB67AE85
_LOW_WORD: Final = np.uint64(_MASK)
_WORD_BITS: Final = np.uint64(32)
# Counters handled at once: the working arrays stay in the second-level cache.
_BATCH: Final = 16_384


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Philox4x32-10 of many counters under one key.

    The four words of a counter are four arrays of one shape, each word below 2**32 in an unsigned 64-bit integer; the
    result has the same form.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0 = (product_1 >> _WORD_BITS) ^ c1 ^ np.uint64(k0)
        c2 = (product_0 >> _WORD_BITS) ^ c3 ^ np.uint64(k1)
        c1 = product_1 & _LOW_WORD
        c3 = product_0 & _LOW_WORD
        k0 = (k0 + _WEYL_0) & _MASK
        k1 = (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def key_and_stream(seed: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The generator's key, and the two words of each counter that are the seed's: (k0, k1), (s0, s1)."""
    material = hashlib.sha256(_DOMAIN + bytes.fromhex(seed)).digest()
    k0, k1, s0, s1 = (int.from_bytes(material[at : at + 4], "little") for at in (0, 4, 8, 12))
    return (k0, k1), (s0, s1)


def seeded_rows(seed: str, first: int, count: int, columns: int) -> Int8Array:
    """``count`` rows, from row ``first`` on, of the matrix of ``seed`` (64 hexadecimal digits)."""
    (k0, k1), (s0, s1) = key_and_stream(seed)
    blocks = -(-columns // ELEMENTS_PER_BLOCK)
    rows = np.empty((count, columns), dtype=np.int8)
    block_step = min(blocks, _BATCH)
    row_step = max(1, _BATCH // block_step)
    for row in range(0, count, row_step):
        row_indices = np.arange(first + row, first + min(row + row_step, count), dtype=np.uint64)
        for block in range(0, blocks, block_step):
            block_indices = np.arange(block, min(block + block_step, blocks), dtype=np.uint64)
            shape = (row_indices.size, block_indices.size)
            words = philox(
                (
                    np.broadcast_to(block_indices, shape),
                    np.broadcast_to(row_indices[:, np.newaxis], shape),
                    np.full(shape, s0, dtype=np.uint64),
                    np.full(shape, s1, dtype=np.uint64),
                ),
                (k0, k1),
            )
            elements = np.stack(words, axis=-1).astype("<u4").view(np.int8).reshape(shape[0], -1)
            start = block * ELEMENTS_PER_BLOCK
            stop = min(start + elements.shape[1], columns)
            rows[row : row + shape[0], start:stop] = elements[:, : stop - start]
    return rows


def seeded_matrix(seed: str, rows: int, columns: int) -> Int8Array:
    """The whole matrix of ``seed``, ``rows`` × ``columns``."""
    return seeded_rows(seed, 0, rows, columns)
