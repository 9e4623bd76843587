"""The exam: a streamed tall product C = A·B, so much of it that a device is busy for seconds, and so little to check.

**The work.** B (K × n, int8) is the same for everybody in an exam. A is a device's own, with as many rows as it does in
a few seconds: what counts is the rate, rows over the time between two blocks. The seed of A comes from the exam's seed
(the epoch), the miner's address and the device's UUID, so that one device cannot answer for two names, nor an old
answer for a new question. Both are made by `actors.services.generator`, which is keyed by row and column apart.
Nothing is stored: rows of A are made, multiplied, hashed (RFC 9162; leaf i is row i of C as little-endian int32), and
forgotten.

**Commit, then sample.** The miner commits itself to the root over all rows. Only then is the challenge known; it names
`OPENED_ROWS` rows, which the miner makes again and sends with their paths. A miner that has skipped a share p of the
rows passes with (1 - p)**64 at most: 0.12 % for a tenth.

**The opening** is one blob of fixed size, without any header: for each challenged row, ascending, its n entries as
little-endian int32, then its path from the leaf up, 32 bytes each.

The seeds, each 32 bytes, are SHA-256 of a domain, the epoch's seed (a block hash), and what else they depend on:

    b          b"assay:exam:b:v1\\0" + epoch
    a          b"assay:exam:a:v1\\0" + epoch + address (56 bytes) + uuid
    rows       drawn by `actors.services.sampling` from the challenge with the domain b"assay:exam:rows:v1\\0"
"""

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from actors.attestation.segments import Leaves, SegmentedTree, path_length
from actors.backends.base import Backend, Int8Array, Int32Array, Progress, no_progress
from actors.services.generator import seeded_matrix, seeded_rows
from actors.services.matmul import row_hashes
from actors.services.sampling import sample
from events.merkle import root_of_hashes
from schemas.attestation import ExamShape
from schemas.values import Digest

OPENED_ROWS: Final = 64
MAX_OPENING_BYTES: Final = 4 << 20
HASH_BYTES: Final = 32
BYTES_PER_ENTRY: Final = 4

_B_DOMAIN: Final = b"assay:exam:b:v1\0"
_A_DOMAIN: Final = b"assay:exam:a:v1\0"
_ROWS_DOMAIN: Final = b"assay:exam:rows:v1\0"


# Rows in one piece of a miner's work: a power of two, so that the tree over the pieces is that over the rows.
SEGMENT: Final = 65_536
SMALL_SEGMENT: Final = 256

# B has 16 MiB: it stays in the second-level cache of a large GPU, and 64 rows cost 2**30 multiplications to check. A
# row of C takes 2**24 multiplications and 128 compressions of SHA-256.
DEVICE_SHAPE: Final = ExamShape(inner=8_192, columns=2_048, min_rows=SMALL_SEGMENT)
# Rows are counters of 32 bits; more than these are never needed.
MAX_ROWS: Final = 1 << 28


def operations(shape: ExamShape, rows: int) -> int:
    """Multiplications and additions of int8 in so many rows."""
    return 2 * rows * shape.inner * shape.columns


def rows_for(shape: ExamShape, giga_operations: int, duration_ms: int) -> int:
    """The rows that a device of so many billion operations a second does in this time; never below the least."""
    rows = giga_operations * 10**6 * duration_ms // operations(shape, 1)
    return min(max(rows, shape.min_rows), MAX_ROWS)


def b_seed(epoch: Digest) -> Digest:
    """The seed of B, which the whole epoch shares."""
    return hashlib.sha256(_B_DOMAIN + bytes.fromhex(epoch)).hexdigest()


def a_seed(epoch: Digest, address: str, uuid: str) -> Digest:
    """The seed of A: one device of one miner in one epoch."""
    if len(address) != 56:
        raise AssertionError(f"{address!r} is no address: its length would not keep it apart from the UUID")
    return hashlib.sha256(_A_DOMAIN + bytes.fromhex(epoch) + address.encode() + uuid.encode()).hexdigest()


def challenged_rows(rows: int, challenge: Digest) -> tuple[int, ...]:
    """Those of so many rows that the challenge names, ascending."""
    return sample(challenge, _ROWS_DOMAIN, OPENED_ROWS, rows)


class Examinee(Leaves, Protocol):
    """What sits the exam: makes rows of the product from the two seeds; a leaf is a row."""

    def rows(self, indices: Sequence[int]) -> Int32Array:
        """These rows of C."""


class BackendExaminee:
    """Any backend that multiplies; rows of A are made and rows of C hashed on the processor."""

    def __init__(self, backend: Backend, shape: ExamShape, b: Digest, a: Digest) -> None:
        self._backend = backend
        self._inner = shape.inner
        self._a = a
        self._b: Int8Array = seeded_matrix(b, shape.inner, shape.columns)

    @property
    def segment(self) -> int:
        """See `Leaves.segment`."""
        return SMALL_SEGMENT

    def leaves(self, first: int, count: int) -> Sequence[bytes]:
        """See `Leaves.leaves`."""
        return row_hashes(self._backend.multiply(seeded_rows(self._a, first, count, self._inner), self._b))

    def root(self, first: int, count: int) -> bytes:
        """See `Leaves.root`."""
        return root_of_hashes(self.leaves(first, count))

    def rows(self, indices: Sequence[int]) -> Int32Array:
        """See `Examinee.rows`."""
        a = np.concatenate([seeded_rows(self._a, index, 1, self._inner) for index in indices])
        return self._backend.multiply(a, self._b)


class Sitting:
    """One device's exam, from the work to the opening."""

    def __init__(self, examinee: Examinee, rows: int, segment: int | None = None) -> None:
        self._examinee = examinee
        self._rows = rows
        self._tree = SegmentedTree(examinee, rows, segment)

    def work(self, progress: Progress = no_progress) -> Digest:
        """Do the work; the root to commit to. ``progress`` is called after each segment."""
        return self._tree.root(progress)

    def open(self, challenge: Digest) -> bytes:
        """The blob that opens the challenged rows. `work` must have been done."""
        indices = challenged_rows(self._rows, challenge)
        paths = [self._tree.path(index) for index in indices]
        rows = self._examinee.rows(indices)
        parts = [[row.astype("<i4", copy=False).tobytes(), *path] for row, path in zip(rows, paths, strict=True)]
        return b"".join(part for opened_row in parts for part in opened_row)


def opening_size(shape: ExamShape, rows: int, opened_rows: Sequence[int]) -> int:
    """Bytes of the blob that opens some of so many rows."""
    return sum(shape.columns * BYTES_PER_ENTRY + path_length(rows, row) * HASH_BYTES for row in opened_rows)


def opened(
    shape: ExamShape, rows: int, opened_rows: Sequence[int], blob: bytes
) -> tuple[Int32Array, list[list[bytes]]]:
    """The rows and paths of a blob of just `opening_size` bytes."""
    product = np.empty((len(opened_rows), shape.columns), dtype=np.int32)
    paths = []
    position = 0
    for place, row in enumerate(opened_rows):
        product[place] = np.frombuffer(blob, "<i4", shape.columns, position)
        position += shape.columns * BYTES_PER_ENTRY
        end = position + path_length(rows, row) * HASH_BYTES
        paths.append([blob[at : at + HASH_BYTES] for at in range(position, end, HASH_BYTES)])
        position = end
    return product, paths
