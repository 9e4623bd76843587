"""A fingerprint of a multiset of integers, keyed by a challenge: equal multisets have equal ones, whatever their order.

A value of b bits (32 or 64), taken as unsigned, has the digits w_0 … w_(d-1) of 16 bits, least significant first. For
each evaluation the key gives d tables T_0 … T_(d-1) of 65,536 entries. With the prime p = 2**32 - 5, the value x weighs

    F(x) = T_0[w_0] · T_1[w_1] · … · T_(d-1)[w_(d-1)]   mod p,

and the fingerprint is the sum of the weights of all values modulo p, once for each of `EVALUATIONS` = 4 keys.

**Error.** Let c(x) be how often x occurs in one vector less how often in the other. Both have n < p values, so c(x) is
not 0 modulo p where it is not 0. The two sums differ by D = sum over x of c(x) F(x), a polynomial in the entries of the
tables. Different x have different products of entries, so D is not the zero polynomial unless all c(x) are 0: it does
not matter how often a value occurs, or how many are exchanged for what. Its degree is d. The entries are independent
and uniform over 0 … 2**30 - 1, which are different modulo p; so by the lemma of Schwartz and Zippel D is 0 modulo p
with a probability of at most d / 2**30. The evaluations are independent: two different multisets that were fixed before
the key was known have the same fingerprint with a probability of at most

    (2 / 2**30)**4 = 2**-116 for 32 bits,   (4 / 2**30)**4 = 2**-112 for 64 bits.

**The tables, reproducibly.** SHAKE-256 of ``b"assay:permutation:v1\\0" + seed`` (32 bytes) gives four bytes for each
entry, little-endian, of which the two highest bits are dropped: evaluation after evaluation, in each T_0 first, in each
from entry 0 on.

**Exactness.** 2**32 is 5 modulo p, so that h 2**32 + l may be replaced by 5 h + l (`_fold`). With entries below 2**30,
T_0 T_1 < 2**60 becomes less than 5 · 2**28 + 2**32 < 2**32.4; that times T_2, below 2**62.4, becomes less than 5 ·
2**30.4 + 2**32 < 2**33.5; and that times T_3 is below 2**63.5: all fit 64 bits. The sums of the lower and of the upper
halves of the products are taken apart, so that those of a step fit as well; only they are reduced modulo p.
"""

import hashlib
from concurrent.futures import Executor
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from actors.services.vectors import Vector

Words: TypeAlias = npt.NDArray[np.uint64]

PRIME: Final = 2**32 - 5
EVALUATIONS: Final = 4

_DOMAIN: Final = b"assay:permutation:v1\0"
_DIGIT_BITS: Final = 16
_DIGITS: Final = 1 << _DIGIT_BITS
_ENTRY_BITS: Final = 30
_FOLD: Final = np.uint64((1 << 32) % PRIME)
_LOW_HALF: Final = np.uint64(0xFFFFFFFF)
_HALF_BITS: Final = np.uint64(32)
# Values that one step weighs: its working arrays stay in the second-level cache.
_STEP: Final = 1 << 16


def error_bits(value_bytes: int) -> int:
    """Two different multisets have the same fingerprint with a probability of at most 2 to the minus this."""
    degree = 8 * value_bytes // _DIGIT_BITS
    return EVALUATIONS * (_ENTRY_BITS - (degree - 1).bit_length())


class Fingerprint:
    """The function that the seed (64 hexadecimal digits) gives for values of ``value_bytes``, 4 or 8."""

    def __init__(self, seed: str, value_bytes: int) -> None:
        self._digits = 8 * value_bytes // _DIGIT_BITS
        shape = (EVALUATIONS, self._digits, _DIGITS)
        material = hashlib.shake_256(_DOMAIN + bytes.fromhex(seed)).digest(4 * EVALUATIONS * self._digits * _DIGITS)
        entries = np.frombuffer(material, dtype="<u4") & np.uint32((1 << _ENTRY_BITS) - 1)
        self._tables: Words = entries.astype(np.uint64).reshape(shape)

    def of(self, values: Vector, executor: Executor) -> tuple[int, ...]:
        """The fingerprint of the values, computed in the executor's threads."""
        steps = executor.map(lambda start: self._sums(values[start : start + _STEP]), range(0, values.size, _STEP))
        totals = [0] * EVALUATIONS
        for sums in steps:
            totals = [(total + each) % PRIME for total, each in zip(totals, sums, strict=True)]
        return tuple(totals)

    def _sums(self, values: Vector) -> list[int]:
        """The sums of the weights of a few values."""
        unsigned = np.ascontiguousarray(values).view(f"<u{values.dtype.itemsize}")
        digits = [(unsigned >> (_DIGIT_BITS * place) & 0xFFFF).astype(np.intp) for place in range(self._digits)]
        sums = []
        for tables in self._tables:
            weights: Words = tables[0].take(digits[0])
            for place in range(1, self._digits):
                if place > 1:
                    _fold(weights)
                weights *= tables[place].take(digits[place])
            low, high = int((weights & _LOW_HALF).sum()), int((weights >> _HALF_BITS).sum())
            sums.append(low + (high << 32))
        return sums


def _fold(words: Words) -> None:
    """Make the words smaller, in place, and keep their residues."""
    high = words >> _HALF_BITS
    high *= _FOLD
    words &= _LOW_HALF
    words += high
