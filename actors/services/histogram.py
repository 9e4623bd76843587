"""The service ``histogram``: how many of the integers in a file fall into each of a row of equal bins.

The input is a ``.npy`` vector. With ``low``, ``width`` and ``count`` of the work, the value v belongs to bin
floor((v - low) / width); the result is a ``.npy`` vector of ``count`` + 2 int64: how many values lie below the first
bin, in each bin, and above the last one. A miner commits to the root over the result's chunks of 64 KiB
(`actors.services.vectors`).

**Check.** The verifier counts again: this costs little more than to read the values. A wrong result never passes.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from actors.backends.base import Backend, Progress, no_progress
from actors.backends.reference.histogram import histogram
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.vectors import (
    CHUNK_BYTES,
    Vector,
    open_vector,
    read_vector,
    vector_root,
    vector_sizes,
    write_vector,
)
from events.errors import BadInput
from schemas.services import VALUE_BYTES, Histogram
from schemas.values import Digest

SUFFIX: Final = "npy"
# No wrong result passes at all; what is left are collisions of the digests by which input and result are named.
ERROR_BITS: Final = 128
# The interpreter's own needs, and the arrays of a step.
FIXED_BYTES: Final = 64 << 20
# What a thread reserves: a stack, and an arena of the allocator.
BYTES_PER_THREAD: Final = 80 << 20


def result_sizes(work: Histogram) -> range:
    """Bytes that a file which `verify` reads can have."""
    return vector_sizes("int64", work.count + 2)


def memory_needed(work: Histogram, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    return work.length * VALUE_BYTES[work.element] + FIXED_BYTES + threads * BYTES_PER_THREAD


def check_inputs(work: Histogram, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when the file is not the vector that the work describes."""
    _values(work, blobs)


def _values(work: Histogram, blobs: Mapping[Digest, Path]) -> Vector:
    return open_vector(blobs[work.digest], work.element, work.length)


def compute(
    work: Histogram,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""
    counts = backend.histogram(_values(work, blobs), work.low, work.width, work.count, progress)
    digest, size = write_vector(result, counts)
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as executor:
        return Computed(root=vector_root(counts, executor), digest=digest, size=size)


def verify(
    work: Histogram, blobs: Mapping[Digest, Path], result: Path | bytes, root: Digest, seed: Digest, threads: int = 0
) -> Verdict:
    """See `actors.services.base.Service.verify`. Needs no randomness: ``seed`` does not matter."""
    values = _values(work, blobs)
    try:
        claimed = read_vector(result, "int64", work.count + 2)
    except BadInput as error:
        return Rejected(code=RejectionCode(error.data["reason"]), detail=error.why)
    with ThreadPoolExecutor(threads or 1, thread_name_prefix="verify") as executor:
        found = vector_root(claimed, executor)
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the counts have the root {found}, {root} was committed"
        )
    wrong = np.flatnonzero(claimed != histogram(values, work.low, work.width, work.count))
    if wrong.size:
        entry = int(wrong[0])
        chunk = entry * claimed.itemsize // CHUNK_BYTES
        return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=f"entry {entry} is a wrong count", row=chunk)
    return Accepted(error_bits=ERROR_BITS, method="recomputed")
