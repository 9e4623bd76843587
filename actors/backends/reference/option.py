"""Sums of payoffs over random paths, in integers of 64 bits only.

What a chunk's sums are, precisely enough to write it in another language. ``>>`` rounds down, negative integers too.

**Uniform numbers.** The word j mod 4 of Philox4x32-10 (`actors.services.generator`) of the counter (j div 4, path, s0,
s1) under the key (k0, k1) belongs to step j of that path; steps count from 0, paths from 0 over all chunks.

**Normal deviates**, in units of 2**-20. The word's highest bit is the sign (1: negative), its other 31 bits v stand for
the tail probability p = (2 v + 1) / 2**33. With m = 2 v + 1, e the position of its highest one, n = m << 31 - e:
    i = 128 e + (n >> 24 & 127),   r = n & 0xFFFFFF,   magnitude = T[i] - ((T[i] - T[i + 1]) r >> 24),
where T[128 e + f] is 2**20 times the normal deviate whose upper tail is 2**(e - 33) (1 + f / 128), rounded to the
nearest integer, for i from 0 to 4,096 (T[4096] = 0). It is off by less than 2**-17.

**Price** after k steps, in millionths. With Z the sum of the first k deviates, drift and diffusion of `Walk`,
    L = (drift k >> 8) + (diffusion Z >> 20), brought into -2**37 … 12 * 2**32 - 1;   w = L >> 32,   f = L mod 2**32
    M = A[f >> 24] B[f >> 16 & 255] >> 31,   M = M + (M (f mod 2**16) 45,426 >> 48)
    price = (spot >> 20) M + ((spot mod 2**20) M >> 20) >> 11 - w,
where A[i] is 2**31 2**(i / 256), B[i] is 2**31 2**(i / 65,536), rounded to the nearest integer. So M is 2**31 2**(f /
2**32), off by less than 2**-29 of it.

**Payoff.** The price after the last step, or the mean of the prices after all steps, rounded down; minus the strike or,
for a put, the strike minus it; 0 where that is negative. It is below 2**49 and parted as h 2**25 + l; a row of the
result is the sums over the chunk's paths of payoff, h h, h l, l l. Every one is below 2**62.
"""

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from actors.backends.base import Int64Array, Progress, Walk, no_progress
from actors.services.generator import philox

UInt64Array: TypeAlias = npt.NDArray[np.uint64]

SUMS: Final = 4
LOW_BITS: Final = 25
SEGMENTS: Final = 128
OCTAVES: Final = 32
LEAST_LOG: Final = -(1 << 37)
GREATEST_LOG: Final = (12 << 32) - 1

# Deviates that one step of the reference makes: its arrays stay in the second-level cache.
_BATCH: Final = 16_384
_LN2: Final = np.uint64(45_426)


class Tables(NamedTuple):
    """T, A and B of the head of this module."""

    deviates: Int64Array
    coarse_powers: UInt64Array
    fine_powers: UInt64Array


@functools.cache
def tables() -> Tables:
    """The tables. Though made in floating point, all are rounded rightly: none is near a half, as the tests prove."""
    probabilities = [2.0 ** (e - 33) * (1 + f / SEGMENTS) for e in range(OCTAVES) for f in range(SEGMENTS)]
    deviates = [round(-NormalDist().inv_cdf(p) * 2**20) for p in probabilities] + [0]
    coarse = [round(2.0 ** (31 + i / 256)) for i in range(256)]
    fine = [round(2.0 ** (31 + i / 65_536)) for i in range(256)]
    return Tables(
        np.array(deviates, dtype=np.int64), np.array(coarse, dtype=np.uint64), np.array(fine, dtype=np.uint64)
    )


def normal_deviates(words: UInt64Array) -> Int64Array:
    """The deviate of each 32-bit word, in units of 2**-20."""
    table = tables().deviates
    odd = ((words & np.uint64(0x7FFFFFFF)) << np.uint64(1) | np.uint64(1)).astype(np.int64)
    # Exact: a float64 holds every integer of 32 bits.
    highest = np.frexp(odd.astype(np.float64))[1].astype(np.int64) - 1
    normalised = odd << (31 - highest)
    index = SEGMENTS * highest + (normalised >> 24 & SEGMENTS - 1)
    upper = table[index]
    magnitude = upper - ((upper - table[index + 1]) * (normalised & 0xFFFFFF) >> 24)
    deviates: Int64Array = np.where(words >> np.uint64(31) == 1, -magnitude, magnitude)
    return deviates


def prices(walk: Walk, deviates: Int64Array, steps: Int64Array | int) -> Int64Array:
    """The prices after ``steps`` steps whose deviates have these sums."""
    _, coarse, fine = tables()
    logs = (walk.drift * steps >> 8) + (walk.diffusion * deviates >> 20)
    logs = np.clip(logs, LEAST_LOG, GREATEST_LOG)
    fraction = (logs & 0xFFFFFFFF).astype(np.uint64)
    high, low = fraction >> np.uint64(24), fraction >> np.uint64(16) & np.uint64(255)
    power = coarse[high] * fine[low] >> np.uint64(31)
    power += power * ((fraction & np.uint64(0xFFFF)) * _LN2) >> np.uint64(48)
    upper, lower = np.uint64(walk.spot >> 20), np.uint64(walk.spot & 0xFFFFF)
    scaled = upper * power + (lower * power >> np.uint64(20))
    shift = (11 - (logs >> 32)).astype(np.uint64)
    found: Int64Array = (scaled >> shift).astype(np.int64)
    return found


def _deviates(walk: Walk, paths: UInt64Array, first: int, blocks: int) -> Int64Array:
    """Of the steps of ``blocks`` blocks of four from block ``first`` on: a row per step, a column per path."""
    shape = (blocks, paths.size)
    k0, k1, s0, s1 = walk.key
    counter = (
        np.broadcast_to(np.arange(first, first + blocks, dtype=np.uint64)[:, np.newaxis], shape),
        np.broadcast_to(paths, shape),
        np.full(shape, s0, dtype=np.uint64),
        np.full(shape, s1, dtype=np.uint64),
    )
    words = np.stack(philox(counter, (k0, k1)), axis=1).reshape(-1, paths.size)
    return normal_deviates(words[: walk.steps - 4 * first])


def _payoffs(walk: Walk, first: int, count: int) -> Int64Array:
    """Of the paths from ``first`` on."""
    paths = np.arange(first, first + count, dtype=np.uint64)
    total = np.zeros(count, dtype=np.int64)
    prices_sum = np.zeros(count, dtype=np.int64)
    blocks = -(-walk.steps // 4)
    at_once = max(1, _BATCH // (4 * count))
    for block in range(0, blocks, at_once):
        deviates = _deviates(walk, paths, block, min(at_once, blocks - block))
        if walk.asian:
            sums = np.cumsum(deviates, axis=0) + total
            steps = np.arange(4 * block + 1, 4 * block + 1 + len(sums), dtype=np.int64)
            prices_sum += prices(walk, sums, steps[:, np.newaxis]).sum(axis=0)
        total += deviates.sum(axis=0)
    price: Int64Array = prices_sum // walk.steps if walk.asian else prices(walk, total, walk.steps)
    gains: Int64Array = np.maximum(walk.strike - price if walk.put else price - walk.strike, 0)
    return gains


def chunk_sums(walk: Walk, first: int, count: int) -> Int64Array:
    """One row for each of ``count`` chunks from chunk ``first`` on."""
    sums = np.zeros((count, SUMS), dtype=np.int64)
    beginning = first * walk.chunk_paths
    payoffs = _payoffs(walk, beginning, min(count * walk.chunk_paths, walk.paths - beginning))
    high, low = payoffs >> LOW_BITS, payoffs & (1 << LOW_BITS) - 1
    starts = np.arange(0, payoffs.size, walk.chunk_paths)
    for column, terms in enumerate((payoffs, high * high, high * low, low * low)):
        sums[:, column] = np.add.reduceat(terms, starts)
    return sums


def payoff_sums(walk: Walk, first: int, count: int, progress: Progress = no_progress, threads: int = 1) -> Int64Array:
    """See `actors.backends.base.Backend.payoff_sums`."""
    at_once = max(1, _BATCH // walk.chunk_paths)
    starts = range(first, first + count, at_once)

    def batch(start: int) -> Int64Array:
        return chunk_sums(walk, start, min(at_once, first + count - start))

    rows = []
    with ThreadPoolExecutor(threads, thread_name_prefix="paths") as pool:
        finished: Iterator[Int64Array] = pool.map(batch, starts)
        for done, sums in enumerate(finished, start=1):
            rows.append(sums)
            progress(done, len(starts))
    return np.concatenate(rows)
