"""Histograms on a GPU: counts in shared memory, as many bins at a time as fit there."""

from typing import Final

import numpy as np

from actors.backends.base import Int64Array, IntegerArray, Progress, no_progress
from actors.backends.gpu import Gpu

# As in the kernel.
TILE: Final = 8_192
_THREADS: Final = 256
_QUAD_BYTES: Final = 16
_BLOCKS_PER_MULTIPROCESSOR: Final = 8


def reciprocal_of(width: int) -> int:
    """What the kernel multiplies by in place of a division; see there. 0 for a width of 1."""
    return 0 if width == 1 else (2**64 - 1) // width + 1


def histogram(
    gpu: Gpu, values: IntegerArray, low: int, width: int, count: int, progress: Progress = no_progress
) -> Int64Array:
    """See `actors.backends.base.Backend.histogram`."""
    quads = -(-values.nbytes // _QUAD_BYTES)
    padded = np.zeros(quads * _QUAD_BYTES, dtype=np.uint8)
    padded[: values.nbytes] = np.ascontiguousarray(values).view(np.uint8)
    places = count + 2
    counts = gpu.zeros(places * 4)
    blocks = min(-(-quads // _THREADS), gpu.properties.multiprocessors * _BLOCKS_PER_MULTIPROCESSOR)
    gpu.launch(
        "histogram",
        f"histogram_{values.dtype.name}",
        (blocks, -(-places // TILE), 1),
        (_THREADS, 1, 1),
        gpu.put(padded),
        counts,
        np.int64(values.size),
        np.int32(low),
        np.uint64(reciprocal_of(width)),
        np.int32(count),
    )
    result: Int64Array = gpu.get(counts, np.uint32, (places,)).astype(np.int64)
    progress(1, 1)
    return result
