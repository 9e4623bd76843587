"""An integer filter over a picture.

Sample (y, x) of a channel is

    clamp(floor(sum over i, j of kernel[i][j] * picture[clamp(y + i - rows // 2)][clamp(x + j - columns // 2)]
                / divisor) + offset)

where the inner clamps bring an index back to the picture's nearest row or column, and the outer one brings the value
into 0 … 255. Everything is an integer; 15 * 15 * 255 * 32,767 < 2**31, so int32 holds every partial sum.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from actors.backends.base import Int32Array, Progress, UInt8Array, no_progress

# Samples of one step: its arrays stay in the second-level cache.
_STEP_SAMPLES: Final = 1 << 16


def filtered_rows(
    picture: UInt8Array, kernel: Int32Array, divisor: int, offset: int, first: int, stop: int
) -> UInt8Array:
    """Rows ``first`` to ``stop`` of the filtered picture."""
    height, width, channels = picture.shape
    up, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    near_rows = np.arange(first - up, stop + up).clip(0, height - 1)
    near_columns = np.arange(-left, width + left).clip(0, width - 1)
    padded = picture[near_rows][:, near_columns].astype(np.int32)
    sums = np.zeros((stop - first, width, channels), dtype=np.int32)
    for (i, j), weight in np.ndenumerate(kernel):
        if weight:
            sums += weight * padded[i : i + stop - first, j : j + width]
    return (sums // np.int32(divisor) + np.int32(offset)).clip(0, 255).astype(np.uint8)


def convolve(
    picture: UInt8Array,
    kernel: Int32Array,
    divisor: int,
    offset: int,
    progress: Progress = no_progress,
    threads: int = 1,
) -> UInt8Array:
    """The filtered picture. See `actors.backends.base.Backend.convolve`."""
    height, width, channels = picture.shape
    result = np.empty_like(picture)
    step = max(1, _STEP_SAMPLES // (width * channels))
    firsts = range(0, height, step)

    def fill(first: int) -> None:
        stop = min(first + step, height)
        result[first:stop] = filtered_rows(picture, kernel, divisor, offset, first, stop)

    with ThreadPoolExecutor(threads, thread_name_prefix="convolve") as pool:
        for done, _ in enumerate(pool.map(fill, firsts), 1):
            progress(done, len(firsts))
    return result
