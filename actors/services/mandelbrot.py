"""The service ``mandelbrot``: a picture of the Mandelbrot set, computed in fixed point.

What the count of a point is, to the last bit, is defined in `actors.backends.reference.mandelbrot`. The pixel of row i
and column j belongs to the point

    re = 64 * work.re + floor((2 j + 1 - width) * step / 2),    im = 64 * work.im + floor((height - 1 - 2 i) * step / 2)

in units of 2**-56. The result is a PNG file of 16-bit grey whose samples are the counts. A miner commits to the root
over its rows (RFC 9162; leaf *i* holds the counts of row *i*, big-endian).

**Check.** No count may be 0 or above the most. `PIXELS` pixels, or all where there are no more, drawn after the
commitment, are iterated again. Each pixel stands for itself, so the sample is one of pixels, not of rows: by the
argument of `actors.services.sampling` a picture with a share p of wrong pixels passes with at most (1 - p)**`PIXELS`,
one in seventy thousand for a thousandth. Pixels cost very different amounts of work, those of the set the most: the
bound is on the share of pixels, however little or much work they are.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from actors.backends.base import Backend, Int64Array, Progress, UInt16Array, no_progress
from actors.backends.reference.mandelbrot import counts_of
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.pictures import ERROR_BITS, picture_root
from actors.services.png import Form, file_sizes, read_png, write_png
from actors.services.sampling import sample
from events.errors import BadInput
from schemas.services import CENTRE_FRACTION_BITS, FRACTION_BITS, Mandelbrot
from schemas.values import Digest

SUFFIX: Final = "png"
DOMAIN: Final = b"assay:mandelbrot:v1\0"
PIXELS: Final = 11_264
# The interpreter's own needs, and the arrays of a step in each thread.
FIXED_BYTES: Final = 96 << 20
BYTES_PER_THREAD: Final = 16 << 20
# Counts, the same as bytes, filtered and compressed.
_BYTES_PER_PIXEL: Final = 12


def _form(work: Mandelbrot) -> Form:
    return Form(width=work.width, height=work.height, channels=1, bits=16)


def coordinates(work: Mandelbrot) -> tuple[Int64Array, Int64Array]:
    """The coordinates of columns and rows, in units of 2**-56."""
    scale = 1 << FRACTION_BITS - CENTRE_FRACTION_BITS
    columns = 2 * np.arange(work.width, dtype=np.int64) + 1 - work.width
    rows = work.height - 1 - 2 * np.arange(work.height, dtype=np.int64)
    return work.re * scale + (columns * work.step >> 1), work.im * scale + (rows * work.step >> 1)


def rows_root(counts: UInt16Array) -> Digest:
    """The root over the rows."""
    return picture_root(counts.astype(">u2"))


def result_sizes(work: Mandelbrot) -> range:
    """Bytes that a file which `verify` reads can have."""
    return file_sizes(_form(work))


def memory_needed(work: Mandelbrot, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    return _BYTES_PER_PIXEL * work.width * work.height + threads * BYTES_PER_THREAD + FIXED_BYTES


def check_inputs(work: Mandelbrot, blobs: Mapping[Digest, Path]) -> None:
    """There are no inputs."""


def compute(
    work: Mandelbrot,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `MemoryError`, `OSError`."""
    re, im = coordinates(work)
    counts = backend.escape_counts(re, im, work.max_iterations, progress)
    digest, size = write_png(result, counts)
    return Computed(root=rows_root(counts), digest=digest, size=size)


def verify(
    work: Mandelbrot, blobs: Mapping[Digest, Path], result: Path | bytes, root: Digest, seed: Digest, threads: int = 0
) -> Verdict:
    """See `actors.services.base.Service.verify`. A rejection's ``row`` is a row of pixels."""
    try:
        counts = read_png(result, _form(work), plain=True).astype(np.uint16, copy=False)
    except BadInput as error:
        return Rejected(code=RejectionCode(error.data["reason"]), detail=error.why)
    found = rows_root(counts)
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the rows have the root {found}, {root} was committed"
        )
    outside = ((counts < 1) | (counts > work.max_iterations)).any(axis=1)
    if outside.any():
        row = int(np.argmax(outside))
        return Rejected(code=RejectionCode.RANGE, detail=f"row {row} has a count that cannot be", row=row)
    pixels = np.array(sample(seed, DOMAIN, PIXELS, counts.size))
    rows, columns = np.divmod(pixels, work.width)
    wrong = np.flatnonzero(_again(work, rows, columns, threads or 1) != counts[rows, columns])
    if wrong.size:
        row, column = int(rows[wrong[0]]), int(columns[wrong[0]])
        return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=f"row {row}, column {column} is wrong", row=row)
    if pixels.size == counts.size:
        return Accepted(error_bits=ERROR_BITS, method="recomputed")
    return Accepted(error_bits=0, method="sampled", samples=int(pixels.size), chunks=counts.size)


def _again(work: Mandelbrot, rows: Int64Array, columns: Int64Array, threads: int) -> UInt16Array:
    """The counts of these pixels."""
    re, im = coordinates(work)
    parts = np.array_split(np.arange(rows.size), threads)
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as executor:
        counts = executor.map(lambda part: counts_of(re[columns[part]], im[rows[part]], work.max_iterations), parts)
        return np.concatenate(list(counts))
