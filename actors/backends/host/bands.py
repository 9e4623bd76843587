"""Work parted into a few large launches, so that progress shows."""

from typing import Final

import numpy as np

from actors.backends.base import Progress, no_progress
from actors.backends.gpu import Buffer, Gpu

# A launch and the wait for its end take some twenty microseconds, which so few do not add up to anything.
MOST_BANDS: Final = 16


def bands(length: int, least: int, multiple: int, progress: Progress) -> list[slice]:
    """The rows 0 … ``length`` - 1 in up to `MOST_BANDS` bands, alike but for the last, which may be shorter.

    All begin at a multiple of ``multiple``. With fewer than twice the ``least`` rows, or where nobody listens to the
    progress, there is one.
    """
    count = 1 if progress is no_progress else max(1, min(MOST_BANDS, length // least))
    size = -(-length // (count * multiple)) * multiple
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def wait(gpu: Gpu, buffer: Buffer) -> None:
    """Until all that was launched is done. Raises `DeviceFault` where that has failed."""
    gpu.get(buffer, np.uint8, (0,))
