"""How many integers fall into each of a row of equal bins."""

import numpy as np
import numpy.typing as npt

from actors.backends.base import Int64Array, IntegerArray, Progress, no_progress

# Values that one step looks at: its working arrays stay small.
_STEP = 1 << 18


def histogram(values: IntegerArray, low: int, width: int, count: int, progress: Progress = no_progress) -> Int64Array:
    """``count`` + 2 numbers: the values below ``low``, those of each bin, those above the last bin.

    Bin i holds ``low + i * width`` up to ``low + (i + 1) * width - 1``.
    """
    counts = np.zeros(count + 2, dtype=np.int64)
    starts = range(0, values.size, _STEP)
    for done, start in enumerate(starts, start=1):
        bins = _bins(values[start : start + _STEP], low, width, count)
        counts += np.bincount(bins, minlength=count + 2)
        progress(done, len(starts))
    return counts


def _bins(values: IntegerArray, low: int, width: int, count: int) -> npt.NDArray[np.int64]:
    """The place in the result at which each value counts."""
    bins = (values.astype(np.int64) - low) // width
    return np.clip(bins, -1, count) + 1
