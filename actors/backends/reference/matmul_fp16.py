"""The product of matrices of integers held as float16, through float32 BLAS."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from actors.backends.base import Float16Array, Float32Array, Progress, no_progress

# Elements of one block of rows.
_BLOCK_ELEMENTS: Final = 1 << 20


def multiply(a: Float16Array, b: Float16Array, progress: Progress = no_progress, threads: int = 1) -> Float32Array:
    """The exact product, without negative zeros.

    Every sum of products is an integer of magnitude at most 2**23, so whatever order a BLAS sums in, and whether or not
    it fuses, nothing is rounded; what it may leave open is the sign of a zero, which is made positive here.
    """
    rows, inner = a.shape
    columns = b.shape[1]
    if b.shape[0] != inner:
        raise AssertionError(f"shapes {a.shape} and {b.shape} cannot be multiplied")
    product = np.empty((rows, columns), dtype=np.float32)
    right = b.astype(np.float32)
    step = max(1, _BLOCK_ELEMENTS // max(inner, columns))
    starts = range(0, rows, step)

    def fill(start: int) -> None:
        block = slice(start, start + step)
        product[block] = a[block].astype(np.float32) @ right
        product[block] += np.float32(0)

    with ThreadPoolExecutor(threads, thread_name_prefix="multiply") as pool:
        for done, _ in enumerate(pool.map(fill, starts), start=1):
            progress(done, len(starts))
    return product
