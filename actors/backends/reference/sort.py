"""Integers in ascending order."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from actors.backends.base import IntegerArray, Progress, no_progress

# A vector is halved, smaller values to the left, until no part has more values. A halving is much of what quicksort
# begins with anyway: 2**24 random values take a sixth more processor time than one call of NumPy's.
_PART_VALUES: Final = 1 << 21


def sort(values: IntegerArray, progress: Progress = no_progress, threads: int = 1) -> IntegerArray:
    """A sorted copy of a vector. A step is a halving, or the sorting of a part."""
    ordered = values.copy()
    halvings = (-(-values.size // _PART_VALUES) - 1).bit_length()
    total = 2 * (1 << halvings) - 1
    done = 0
    parts = [ordered]
    with ThreadPoolExecutor(threads, thread_name_prefix="sort") as pool:
        for _ in range(halvings):
            halves: list[IntegerArray] = []
            for pair in pool.map(_halved, parts):
                halves += pair
                done += 1
                progress(done, total)
            parts = halves
        for _ in pool.map(np.ndarray.sort, parts):
            done += 1
            progress(done, total)
    return ordered


def _halved(part: IntegerArray) -> tuple[IntegerArray, IntegerArray]:
    """Both halves of a part, once no value of the left one is greater than any of the right one."""
    middle = part.size // 2
    part.partition(middle)
    return part[:middle], part[middle:]
