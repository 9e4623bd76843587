"""Sorting on a GPU: a stable radix sort, eight bits per pass."""

from typing import Final

import numpy as np

from actors.backends.base import IntegerArray, Progress, no_progress
from actors.backends.gpu import Gpu
from actors.backends.host.bands import wait

# As in the kernels.
TILE: Final = 4_096
_DIGITS: Final = 256
_THREADS: Final = 256
_WARP: Final = 32
_DIGIT_BITS: Final = 8
_SIGN_OF_A_DIGIT: Final = 128


def sort(gpu: Gpu, values: IntegerArray, progress: Progress = no_progress) -> IntegerArray:
    """See `actors.backends.base.Backend.sort`."""
    tiles = -(-values.size // TILE)
    bits = 8 * values.itemsize
    signed = np.issubdtype(values.dtype, np.signedinteger)
    keys, ordered = gpu.put(np.ascontiguousarray(values)), gpu.zeros(values.nbytes)
    counts, totals = gpu.zeros(_DIGITS * tiles * 4), gpu.zeros(_DIGITS * 4)
    scanning = min(_THREADS, -(-tiles // _WARP) * _WARP)
    passes = range(0, bits, _DIGIT_BITS)
    for done, shift in enumerate(passes, start=1):
        flip = _SIGN_OF_A_DIGIT if signed and shift == passes[-1] else 0
        digit = (np.uint32(values.size), np.int32(shift), np.int32(flip))
        gpu.launch("sort", f"radix_count_{bits}", (tiles, 1, 1), (_THREADS, 1, 1), keys, counts, *digit)
        gpu.launch("sort", "radix_scan", (_DIGITS, 1, 1), (scanning, 1, 1), counts, totals, np.uint32(tiles))
        grid, block = (tiles, 1, 1), (_THREADS, 1, 1)
        gpu.launch("sort", f"radix_scatter_{bits}", grid, block, keys, ordered, counts, totals, *digit)
        keys, ordered = ordered, keys
        wait(gpu, keys)
        progress(done, len(passes))
    result: IntegerArray = gpu.get(keys, values.dtype, values.shape)
    return result
