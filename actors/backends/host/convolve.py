"""Filtered pictures on a GPU: one launch."""

from typing import Final

import numpy as np

from actors.backends.base import Int32Array, Progress, UInt8Array, no_progress
from actors.backends.gpu import Gpu

_TILE: Final = 32
_THREADS_Y: Final = 8


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
    filtered = gpu.zeros(picture.nbytes)
    sizes = (width, height, channels, *kernel.shape, divisor, offset)
    gpu.launch(
        "convolve",
        "convolve",
        (-(-width // _TILE), -(-height // _TILE), channels),
        (_TILE, _THREADS_Y, 1),
        gpu.put(np.ascontiguousarray(picture)),
        gpu.put(np.ascontiguousarray(kernel)),
        filtered,
        *(np.int32(size) for size in sizes),
    )
    result: UInt8Array = gpu.get(filtered, np.uint8, picture.shape)
    progress(1, 1)
    return result
