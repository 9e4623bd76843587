"""Escape counts on a GPU: a launch per band of rows, so that progress shows and no launch takes very long."""

from typing import Final

import numpy as np

from actors.backends.base import Int64Array, Progress, UInt16Array, no_progress
from actors.backends.gpu import Gpu

_BLOCK_X: Final = 32
_BLOCK_Y: Final = 4
_BAND_POINTS: Final = 1 << 20


def escape_counts(
    gpu: Gpu, re: Int64Array, im: Int64Array, max_iterations: int, progress: Progress = no_progress
) -> UInt16Array:
    """See `actors.backends.base.Backend.escape_counts`."""
    width, height = re.size, im.size
    columns, rows = gpu.put(np.ascontiguousarray(re)), gpu.put(np.ascontiguousarray(im))
    result = np.empty((height, width), dtype=np.uint16)
    band = max(1, _BAND_POINTS // width)
    for first in range(0, height, band):
        count = min(band, height - first)
        counts = gpu.zeros(count * width * 2)
        gpu.launch(
            "mandelbrot",
            "escape_counts",
            (-(-width // _BLOCK_X), -(-count // _BLOCK_Y), 1),
            (_BLOCK_X, _BLOCK_Y, 1),
            columns,
            rows,
            counts,
            *(np.int32(number) for number in (width, count, first, max_iterations)),
        )
        result[first : first + count] = gpu.get(counts, np.uint16, (count, width))
        progress(first + count, height)
    return result
