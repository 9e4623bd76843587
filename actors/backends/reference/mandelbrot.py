"""How long the orbit of each point of a grid stays within distance 2 of the origin, in fixed point.

A number is a 64-bit integer in units of 2**-56. For each c = (re, im):

    z = 0; n = 0
    while n < max_iterations and square(x) + square(y) <= 4:
        z = (square(x) - square(y) + re, square(x + y) - square(x) - square(y) + im); n = n + 1

with z = (x, y) and square(v) = floor(v**2 / 2**56).

**Nothing overflows.** Coordinates are below 4 in magnitude. Where the test passes, square(x) + square(y) <= 4, so the
next x and y are below 8 in magnitude, their squares below 2**62 and the sum of these below 2**63. |x + y| is needed
only where the test has passed; it is at most 3 then.

**Points that never leave.** The iteration is a function of z alone on finitely many numbers. Once z is what it was
some steps before, it goes round for ever, and n will be ``max_iterations``: no need to go on. This changes no result.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from actors.backends.base import Int64Array, Progress, UInt16Array, no_progress

# Points iterated at once, and iterations between two looks at which of them are done.
_STEP_POINTS: Final = 1 << 13
_STRIDE: Final = 16
_HALF: Final = 28
_LOW: Final = (1 << _HALF) - 1
_FOUR: Final = 4 << 56


def square(value: Int64Array) -> Int64Array:
    """floor(value**2 / 2**56), for magnitudes below 8 (2**59).

    With value = h 2**28 + l: value**2 / 2**56 = h**2 + (h l + l**2 / 2**29) / 2**27, and taking the floor of the inner
    quotient first does not change the outer one. h**2 is below 2**62, h l below 2**59.
    """
    high, low = value >> _HALF, value & _LOW
    lower: Int64Array = (high * low + (low * low >> _HALF + 1)) >> _HALF - 1
    return high * high + lower


def counts_of(re: Int64Array, im: Int64Array, max_iterations: int) -> UInt16Array:
    """The counts of points given one by one."""
    counts = np.full(re.size, max_iterations, dtype=np.uint16)
    index = np.arange(re.size)
    x, y, seen_x, seen_y = (np.zeros(re.size, dtype=np.int64) for _ in range(4))
    look_again = _STRIDE
    for done in range(0, max_iterations, _STRIDE):
        passed = np.zeros(index.size, dtype=np.uint16)
        within = np.ones(index.size, dtype=bool)
        for _ in range(min(_STRIDE, max_iterations - done)):
            xx, yy = square(x), square(y)
            within &= xx + yy <= _FOUR
            passed += within
            # What has left goes on as nonsense; nobody looks at it.
            cross = square(x + y) - xx - yy
            x = xx - yy + re
            y = cross + im
        counts[index[~within]] = done + passed[~within]
        going = within & ((x != seen_x) | (y != seen_y))
        if not going.any():
            break
        if done + _STRIDE >= look_again:
            seen_x, seen_y = x, y
            look_again *= 2
        if not going.all():
            index, re, im, x, y = index[going], re[going], im[going], x[going], y[going]
            seen_x, seen_y = seen_x[going], seen_y[going]
    return counts


def escape_counts(
    re: Int64Array, im: Int64Array, max_iterations: int, progress: Progress = no_progress, threads: int = 1
) -> UInt16Array:
    """The picture of counts. See `actors.backends.base.Backend.escape_counts`."""
    height, width = im.size, re.size
    counts = np.empty(height * width, dtype=np.uint16)
    firsts = range(0, counts.size, _STEP_POINTS)

    def fill(first: int) -> None:
        rows, columns = np.divmod(np.arange(first, min(first + _STEP_POINTS, counts.size)), width)
        counts[first : first + _STEP_POINTS] = counts_of(re[columns], im[rows], max_iterations)

    with ThreadPoolExecutor(threads, thread_name_prefix="mandelbrot") as pool:
        for done, _ in enumerate(pool.map(fill, firsts), 1):
            progress(done, len(firsts))
    return counts.reshape(height, width)
