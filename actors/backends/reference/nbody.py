"""Bodies that attract each other, in float32 in a fixed order.

What a step is, precisely enough to write it in another language; every operation is one of IEEE 754 binary32, rounded
to nearest, none is fused, and none is left out or moved. From positions x, velocities v and masses m, with the length
dt of a step, half = 0.5 dt and the square e of the softening:

    y_i = x_i + v_i half                                                   in each coordinate, for all bodies
    for body i, a = 0; then for j = 0, 1, …, n - 1, also for j = i:
        d = y_j - y_i                                                      in each coordinate
        r = ((d.x d.x + d.y d.y) + d.z d.z) + e
        q = reciprocal square root of r, see below
        s = m_j ((q q) q)
        a = a + d s                                                        in each coordinate
    v'_i = v_i + a dt
    x'_i = y_i + v'_i half

This is the leapfrog in its form drift, kick, drift: of second order, symplectic, and a state of x and v is all that a
step needs. **Reciprocal square root** of r > 0: the 32 bits of r as an integer b, q = the float of the bits 0x5F3759DF
- (b >> 1); h = 0.5 r; three times q = q (1.5 - h (q q)). It is within 2**-21 of the true one.

**Nothing overflows.** Masses are at most 16, coordinates and velocities at most 1,024 in magnitude, e > 2**-16, dt at
most 1/16, steps at most 2**14, bodies at most 2**16. A force is at most 16 · 2**16 · 0.385 / e < 2**35 in magnitude, so
velocities stay below 2**45, positions below 2**55, and r below 2**113.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from actors.backends.base import Float32Array, Int64Array, Motion, Progress, no_progress

STATE: Final = 6
_ESTIMATE: Final = np.uint32(0x5F3759DF)
_HALF: Final = np.float32(0.5)
_THREE_HALVES: Final = np.float32(1.5)
# Pairs of bodies that one step of the reference takes: its arrays stay in the second-level cache.
_PAIRS: Final = 1 << 15


def reciprocal_square_root(values: Float32Array) -> Float32Array:
    """Of each value, by three steps of Newton's method."""
    estimate: Float32Array = (_ESTIMATE - (values.view(np.uint32) >> np.uint32(1))).view(np.float32)
    half: Float32Array = (_HALF * values).astype(np.float32, copy=False)
    for _ in range(3):
        estimate *= _THREE_HALVES - half * (estimate * estimate)
    return estimate


def drifted(state: Float32Array, motion: Motion) -> Float32Array:
    """Positions in the middle of the step, three rows: the first half of it, for all bodies."""
    half = _HALF * np.float32(motion.dt)
    return np.ascontiguousarray((state[:, :3] + state[:, 3:] * half).T)


def kicked(
    state: Float32Array, middle: Float32Array, masses: Float32Array, motion: Motion, which: slice | Int64Array
) -> Float32Array:
    """The states after the step of some bodies, ``middle`` being `drifted` of all."""
    dt, softening = np.float32(motion.dt), np.float32(motion.softening_squared)
    own = middle[:, which]
    count = own.shape[1]
    acceleration = np.zeros((3, count), dtype=np.float32)
    step = max(1, _PAIRS // count)
    for start in range(0, masses.size, step):
        others = slice(start, start + step)
        d = middle[:, others, np.newaxis] - own[:, np.newaxis, :]
        squares = d * d
        q = reciprocal_square_root(((squares[0] + squares[1]) + squares[2]) + softening)
        d *= masses[others, np.newaxis] * ((q * q) * q)
        for other in range(d.shape[1]):
            acceleration += d[:, other]
    velocity = state[which, 3:] + acceleration.T * dt
    position = own.T + velocity * (_HALF * dt)
    return np.concatenate((position, velocity), axis=1)


def leapfrog(
    state: Float32Array,
    masses: Float32Array,
    motion: Motion,
    steps: int,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Float32Array:
    """See `actors.backends.base.Backend.leapfrog`."""
    count = masses.size
    # A share for each thread, yet not so few bodies that NumPy's calls cost more than the work.
    slice_size = max(min(count, 256), -(-count // threads))
    with ThreadPoolExecutor(threads, thread_name_prefix="bodies") as pool:
        for done in range(1, steps + 1):
            middle = drifted(state, motion)

            def kick(first: int, state: Float32Array = state, middle: Float32Array = middle) -> Float32Array:
                return kicked(state, middle, masses, motion, slice(first, first + slice_size))

            parts: Iterator[Float32Array] = pool.map(kick, range(0, count, slice_size))
            state = np.concatenate(list(parts))
            progress(done, steps)
    return state
