"""The filters of PNG rows (PNG specification, section 9), undone.

Each byte of a row is stored as a difference, modulo 256, to a prediction from the bytes of the pixel to the left (a),
above (b), and above to the left (c); what lies outside of the picture is 0:

    0 None: 0     1 Sub: a     2 Up: b     3 Average: floor((a + b) / 2)
    4 Paeth: of a, b, c the one nearest to a + b - c; of equally near ones the first

Sub and Up are sums along a row or a column. Average and Paeth need the pixel to the left before the next, so there all
rows are undone at once along diagonals: at step s the pixels (y, s - y), whose predecessors belong to the steps s - 1
and s - 2. In an array with one column more than the picture, these pixels lie at a fixed distance from one another.
"""

from typing import Final

import numpy as np

from actors.backends.base import Int16Array, UInt8Array

ROW_FILTERS: Final = 5


def decoded_rows(filters: UInt8Array, stored: UInt8Array) -> UInt8Array:
    """The bytes of the picture. ``filters`` has the filter of each row; ``stored`` is height × width × bytes."""
    if int(filters.max()) <= 2:
        return _by_rows(filters, stored)
    return _by_diagonals(filters, stored)


def _by_rows(filters: UInt8Array, stored: UInt8Array) -> UInt8Array:
    rows = np.empty_like(stored)
    above = np.zeros_like(stored[0])
    for y, kind in enumerate(filters.tolist()):
        if kind == 1:
            np.cumsum(stored[y], axis=0, dtype=np.uint8, out=rows[y])
        elif kind == 2:
            np.add(stored[y], above, out=rows[y])
        else:
            rows[y] = stored[y]
        above = rows[y]
    return rows


def _by_diagonals(filters: UInt8Array, stored: UInt8Array) -> UInt8Array:
    height, width, pixel = stored.shape
    padded = np.empty((height, width + 1, pixel), dtype=np.uint8)
    padded[:, :width] = stored
    flat = padded.reshape(-1, pixel)
    # One where the row has this filter, for each filter but None, else zero.
    sub, up, average, paeth = ((filters == kind).astype(np.int16)[:, np.newaxis] for kind in (1, 2, 3, 4))
    # The pixels of the last two steps, by their row plus one; row 0 stands for what lies above the picture.
    last, last_but_one = (np.zeros((height + 1, pixel), dtype=np.int16) for _ in range(2))
    for step in range(height + width - 1):
        first, stop = max(0, step - width + 1), min(height, step + 1)
        a, b, c = last[first + 1 : stop + 1], last[first:stop], last_but_one[first:stop]
        rows = slice(first, stop)
        predicted = a * sub[rows] + b * up[rows] + (a + b >> 1) * average[rows] + _paeth(a, b, c) * paeth[rows]
        diagonal = flat[step + first * width : step + (stop - 1) * width + 1 : width]
        pixels = diagonal + predicted & 255
        diagonal[:] = pixels
        # What is written over belongs to the step before the last, which nothing needs again.
        last_but_one[first + 1 : stop + 1] = pixels
        last, last_but_one = last_but_one, last
    return np.ascontiguousarray(padded[:, :width])


def _paeth(a: Int16Array, b: Int16Array, c: Int16Array) -> Int16Array:
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
