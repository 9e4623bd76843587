"""Filtered pictures on a GPU: a launch per band of rows, each with the rows beside it that the filter reaches."""

from typing import Final

import numpy as np

from actors.backends.base import Int32Array, Progress, UInt8Array, no_progress
from actors.backends.gpu import Gpu
from actors.backends.host.bands import bands

_TILE: Final = 32
_THREADS_Y: Final = 8
# Samples of a band: twice the blocks that the 132 multiprocessors of an H200 run at once.
_BAND_SAMPLES: Final = 1 << 21
# Rows of a band: beside them, those that are filtered in vain, at most 14, are few.
_BAND_ROWS: Final = 128


def convolve(
    gpu: Gpu,
    picture: UInt8Array,
    kernel: Int32Array,
    divisor: int,
    offset: int,
    progress: Progress = no_progress,
) -> UInt8Array:
    """See `actors.backends.base.Backend.convolve`."""
    height, width, channels = picture.shape
    reach = kernel.shape[0] // 2
    weights = gpu.put(np.ascontiguousarray(kernel))
    result = np.empty_like(picture)
    least = max(_BAND_ROWS, -(-_BAND_SAMPLES // (width * channels)))
    for band in bands(height, least, _TILE, progress):
        # The kernel takes the first and the last row that it is given for the picture's edges: what that makes wrong is
        # left out.
        top, bottom = max(0, band.start - reach), min(height, band.stop + reach)
        rows = np.ascontiguousarray(picture[top:bottom])
        filtered = gpu.zeros(rows.nbytes)
        sizes = (width, bottom - top, channels, *kernel.shape, divisor, offset)
        gpu.launch(
            "convolve",
            "convolve",
            (-(-width // _TILE), -(-(bottom - top) // _TILE), channels),
            (_TILE, _THREADS_Y, 1),
            gpu.put(rows),
            weights,
            filtered,
            *(np.int32(size) for size in sizes),
        )
        result[band] = gpu.get(filtered, np.uint8, rows.shape)[band.start - top : band.stop - top]
        progress(band.stop, height)
    return result
