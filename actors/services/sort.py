"""The service ``sort``: the integers of a file in ascending order.

The input is a ``.npy`` vector, the result one of the same type and length. A miner commits to the root over the
result's chunks of 64 KiB (`actors.services.vectors`).

**Check.** The result has to be in ascending order, and to hold the values of the input, each as often as there. The
order is looked at whole; the values are compared by a fingerprint that is keyed by the challenge
(`actors.services.fingerprint`, also for its error bound). A sorted vector with the right values is the result: there is
only one.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from actors.backends.base import Backend, Progress, no_progress
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.fingerprint import Fingerprint, error_bits
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
from schemas.services import VALUE_BYTES, Sort
from schemas.values import Digest

SUFFIX: Final = "npy"
# The interpreter's own needs.
FIXED_BYTES: Final = 64 << 20
# What a thread reserves: a stack, and an arena of the allocator.
BYTES_PER_THREAD: Final = 80 << 20
# Values that one step compares.
_STEP: Final = 1 << 20


def result_sizes(work: Sort) -> range:
    """Bytes that a file which `verify` reads can have."""
    return vector_sizes(work.element, work.length)


def memory_needed(work: Sort, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    return 3 * work.length * VALUE_BYTES[work.element] + FIXED_BYTES + (threads + 1) * BYTES_PER_THREAD


def check_inputs(work: Sort, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when the file is not the vector that the work describes."""
    _values(work, blobs)


def _values(work: Sort, blobs: Mapping[Digest, Path]) -> Vector:
    return open_vector(blobs[work.digest], work.element, work.length)


def compute(
    work: Sort,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""
    ordered = backend.sort(_values(work, blobs), progress)
    with ThreadPoolExecutor(threads + 1, thread_name_prefix="hash") as executor:
        written = executor.submit(write_vector, result, ordered)
        root = vector_root(ordered, executor)
        digest, size = written.result()
    return Computed(root=root, digest=digest, size=size)


def verify(
    work: Sort, blobs: Mapping[Digest, Path], result: Path | bytes, root: Digest, seed: Digest, threads: int = 0
) -> Verdict:
    """See `actors.services.base.Service.verify`."""
    values = _values(work, blobs)
    try:
        claimed = read_vector(result, work.element, work.length)
    except BadInput as error:
        return Rejected(code=RejectionCode(error.data["reason"]), detail=error.why)
    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1), thread_name_prefix="verify") as executor:
        found = vector_root(claimed, executor)
        if found != root:
            return Rejected(
                code=RejectionCode.ROOT_MISMATCH, detail=f"the values have the root {found}, {root} was committed"
            )
        if (place := first_out_of_order(claimed)) is not None:
            detail = f"value {place + 1} is less than value {place}"
            chunk = (place + 1) * claimed.itemsize // CHUNK_BYTES
            return Rejected(code=RejectionCode.ORDER, detail=detail, row=chunk)
        fingerprint = Fingerprint(seed, claimed.itemsize)
        if fingerprint.of(values, executor) != fingerprint.of(claimed, executor):
            return Rejected(
                code=RejectionCode.NOT_A_PERMUTATION, detail="the values are not those of the input, each as often"
            )
    return Accepted(error_bits=error_bits(claimed.itemsize), method="permutation")


def first_out_of_order(values: Vector) -> int | None:
    """The first place whose value is greater than the next one's; None where there is none."""
    for start in range(0, values.size - 1, _STEP):
        step = values[start : start + _STEP + 1]
        descents = step[:-1] > step[1:]
        if descents.any():
            return start + int(np.argmax(descents))
    return None
