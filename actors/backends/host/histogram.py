"""Histograms on a GPU: counts in shared memory, as many bins at a time as fit there; a launch per band of values."""

from typing import Final

import numpy as np

from actors.backends.base import Int64Array, IntegerArray, Progress, no_progress
from actors.backends.gpu import Gpu
from actors.backends.host.bands import bands, wait

# As in the kernel.
TILE: Final = 8_192
_THREADS: Final = 256
_QUAD_BYTES: Final = 16
_BLOCKS_PER_MULTIPROCESSOR: Final = 8
# Bytes of a band: one step of all threads of an H200, and a copy to it that takes far longer than a launch.
_BAND_BYTES: Final = 1 << 22


def reciprocal_of(width: int) -> int:
    """What the kernel multiplies by in place of a division; see there. 0 for a width of 1."""
    return 0 if width == 1 else (2**64 - 1) // width + 1


def histogram(
    gpu: Gpu, values: IntegerArray, low: int, width: int, count: int, progress: Progress = no_progress
) -> Int64Array:
    """See `actors.backends.base.Backend.histogram`."""
    places = count + 2
    counts = gpu.zeros(places * 4)
    most = gpu.properties.multiprocessors * _BLOCKS_PER_MULTIPROCESSOR
    # So many values are a whole number of quads, whatever their type.
    for band in bands(values.size, max(1, _BAND_BYTES // values.itemsize), _QUAD_BYTES, progress):
        part = np.ascontiguousarray(values[band])
        quads = -(-part.nbytes // _QUAD_BYTES)
        if part.nbytes % _QUAD_BYTES:
            part = np.pad(part, (0, (quads * _QUAD_BYTES - part.nbytes) // part.itemsize))
        gpu.launch(
            "histogram",
            f"histogram_{values.dtype.name}",
            (min(-(-quads // _THREADS), most), -(-places // TILE), 1),
            (_THREADS, 1, 1),
            gpu.put(part),
            counts,
            np.int64(band.stop - band.start),
            np.int32(low),
            np.uint64(reciprocal_of(width)),
            np.int32(count),
        )
        wait(gpu, counts)
        progress(band.stop, values.size)
    result: Int64Array = gpu.get(counts, np.uint32, (places,)).astype(np.int64)
    return result
