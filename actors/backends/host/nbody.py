"""Attracting bodies on a GPU: a launch per step, between two buffers."""

from typing import Final

import numpy as np

from actors.backends.base import Float32Array, Motion, Progress, no_progress
from actors.backends.gpu import Gpu
from actors.backends.host.bands import wait
from actors.backends.reference.nbody import STATE

_THREADS: Final = 128
# Interactions and steps between two waits for the device: about a millisecond of an H200, or a thousand short launches,
# beside which a wait does not count. Without waits all steps would be launched, and told, long before they are done.
_BAND_INTERACTIONS: Final = 1 << 30
_BAND_STEPS: Final = 1_024


def leapfrog(
    gpu: Gpu,
    state: Float32Array,
    masses: Float32Array,
    motion: Motion,
    steps: int,
    progress: Progress = no_progress,
) -> Float32Array:
    """See `actors.backends.base.Backend.leapfrog`."""
    dt = np.float32(motion.dt)
    now, then = gpu.put(np.ascontiguousarray(state)), gpu.zeros(state.nbytes)
    weights = gpu.put(np.ascontiguousarray(masses))
    band = max(1, min(_BAND_STEPS, _BAND_INTERACTIONS // masses.size**2))
    for done in range(1, steps + 1):
        gpu.launch(
            "nbody",
            "leapfrog",
            (-(-masses.size // _THREADS), 1, 1),
            (_THREADS, 1, 1),
            now,
            weights,
            then,
            np.int32(masses.size),
            dt,
            np.float32(0.5) * dt,
            np.float32(motion.softening_squared),
        )
        now, then = then, now
        if done % band == 0 or done == steps:
            wait(gpu, now)
            progress(done, steps)
    result: Float32Array = gpu.get(now, np.float32, (masses.size, STATE))
    return result
