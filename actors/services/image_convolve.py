"""The service ``image.convolve``: an integer filter over a PNG picture.

What is computed is defined in `actors.backends.reference.convolve`; the channel of opacity of an RGBA picture is
carried over as it is. The result is a PNG file of the same form. A miner commits to the root over the rows of the
decoded picture (RFC 9162; leaf *i* holds the bytes of row *i*), so it may compress them as it likes.

**Check.** The verifier decodes both pictures, compares all of the opacity, and filters rows again: all of them where
that takes no more than `WHOLE` multiplications, as it does for a kernel of 3 × 3 over 29 million samples; else as many
as these pay for, at least `SAMPLES`, drawn after the commitment (see `actors.services.sampling` for what that proves).
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from actors.backends.base import Backend, Int32Array, Progress, UInt8Array, no_progress
from actors.backends.reference.convolve import filtered_rows
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.pictures import ERROR_BITS, picture_root
from actors.services.png import Form, file_sizes, read_png, write_png
from actors.services.sampling import SAMPLES, sample
from events.errors import BadInput
from schemas.services import ImageConvolve
from schemas.values import Digest

SUFFIX: Final = "png"
DOMAIN: Final = b"assay:image.convolve:v1\0"
# Multiplications that a verification may take without much ado: a few tenths of a second.
WHOLE: Final = 1 << 28
OPACITY: Final = 3
# The interpreter's own needs, and the arrays of a step in each thread.
FIXED_BYTES: Final = 96 << 20
BYTES_PER_THREAD: Final = 16 << 20


def _form(work: ImageConvolve) -> Form:
    picture = work.picture
    return Form(width=picture.width, height=picture.height, channels=picture.channels)


def result_sizes(work: ImageConvolve) -> range:
    """Bytes that a file which `verify` reads can have."""
    return file_sizes(_form(work))


def memory_needed(work: ImageConvolve, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    return 6 * _form(work).sample_bytes + threads * BYTES_PER_THREAD + FIXED_BYTES


def check_inputs(work: ImageConvolve, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when the file is not the picture that the work describes."""
    _picture(work, blobs)


def _picture(work: ImageConvolve, blobs: Mapping[Digest, Path]) -> UInt8Array:
    return read_png(blobs[work.picture.digest], _form(work)).astype(np.uint8, copy=False)


def _kernel(work: ImageConvolve) -> Int32Array:
    return np.array(work.kernel, dtype=np.int32)


def _coloured(picture: UInt8Array) -> UInt8Array:
    """The channels that are filtered."""
    return np.ascontiguousarray(picture[:, :, :OPACITY])


def compute(
    work: ImageConvolve,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""
    picture = _picture(work, blobs)
    filtered = backend.convolve(_coloured(picture), _kernel(work), work.divisor, work.offset, progress)
    filtered = np.concatenate([filtered, picture[:, :, OPACITY:]], axis=2)
    digest, size = write_png(result, filtered)
    return Computed(root=picture_root(filtered), digest=digest, size=size)


def rows_to_check(work: ImageConvolve, seed: Digest) -> tuple[int, ...]:
    """The rows that a verifier with this challenge filters again."""
    picture = work.picture
    row_cost = picture.width * min(picture.channels, OPACITY) * len(work.kernel) * len(work.kernel[0])
    return sample(seed, DOMAIN, max(SAMPLES, WHOLE // row_cost), picture.height)


def verify(
    work: ImageConvolve,
    blobs: Mapping[Digest, Path],
    result: Path | bytes,
    root: Digest,
    seed: Digest,
    threads: int = 0,
) -> Verdict:
    """See `actors.services.base.Service.verify`. A rejection's ``row`` is a row of pixels."""
    picture = _picture(work, blobs)
    try:
        claimed = read_png(result, _form(work), plain=True).astype(np.uint8, copy=False)
    except BadInput as error:
        return Rejected(code=RejectionCode(error.data["reason"]), detail=error.why)
    found = picture_root(claimed)
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the rows have the root {found}, {root} was committed"
        )
    wrong = (claimed[:, :, OPACITY:] != picture[:, :, OPACITY:]).any(axis=(1, 2))
    if wrong.any():
        row = int(np.argmax(wrong))
        return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=f"row {row} has another opacity", row=row)
    coloured, kernel = _coloured(picture), _kernel(work)
    rows = rows_to_check(work, seed)

    def wrong_row(rows: tuple[int, int]) -> int | None:
        first, stop = rows
        again = filtered_rows(coloured, kernel, work.divisor, work.offset, first, stop)
        differ = (again != claimed[first:stop, :, :OPACITY]).any(axis=(1, 2))
        return first + int(np.argmax(differ)) if differ.any() else None

    with ThreadPoolExecutor(threads or 1, thread_name_prefix="verify") as executor:
        mismatches = [row for row in executor.map(wrong_row, _runs(rows, work)) if row is not None]
    if mismatches:
        row = mismatches[0]
        return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=f"row {row} is not the filtered one", row=row)
    if len(rows) == work.picture.height:
        return Accepted(error_bits=ERROR_BITS, method="recomputed")
    return Accepted(error_bits=0, method="sampled", samples=len(rows), chunks=work.picture.height)


def _runs(rows: tuple[int, ...], work: ImageConvolve) -> list[tuple[int, int]]:
    """Rows that follow one another together, first and stop, as many as a step may take."""
    most = max(1, (1 << 16) // (work.picture.width * work.picture.channels))
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and runs[-1][1] == row and row - runs[-1][0] < most:
            runs[-1] = (runs[-1][0], row + 1)
        else:
            runs.append((row, row + 1))
    return runs
