"""An exam's rows on a GPU: made, multiplied and hashed there; only hashes and opened rows come back."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from actors.backends.base import Int8Array, Int32Array
from actors.backends.gpu import Buffer, Gpu
from actors.backends.host.matmul import INT8_KERNELS, TILE, fastest, launch_product, packed
from actors.services.generator import key_and_stream, seeded_matrix, seeded_rows

CHUNK: Final = 16
_THREADS: Final = 256
_NODE_THREADS: Final = 64
_WARP: Final = 32
HASH_BYTES: Final = 32
_ENTRY_BYTES: Final = 4


class HashTree:
    """Room for up to ``most`` hashes on the device, and the tree over them (RFC 9162). Taken once: memory that is taken
    and given back in between would make the device wait."""

    def __init__(self, gpu: Gpu, most: int) -> None:
        self._gpu = gpu
        self.leaves: Buffer = gpu.zeros(most * HASH_BYTES)
        self._levels = [gpu.zeros(-(-most // 2) * HASH_BYTES) for _ in range(2)]

    def fetch(self, count: int) -> Sequence[bytes]:
        """The first hashes."""
        return [row.tobytes() for row in self._gpu.get(self.leaves, np.uint8, (count, HASH_BYTES))]

    def root(self, count: int) -> bytes:
        """The root over the first hashes."""
        level, (to, other) = self.leaves, self._levels
        while count > 1:
            above = -(-count // 2)
            grid = (-(-above // _NODE_THREADS), 1, 1)
            self._gpu.launch("exam", "merkle_level", grid, (_NODE_THREADS, 1, 1), level, to, np.int32(count))
            level, to, other, count = to, other, to, above
        return bytes(self._gpu.get(level, np.uint8, (HASH_BYTES,)).tobytes())


class GpuExaminee:
    """Sits an exam on one GPU; see `actors.attestation.exam.Examinee`.

    ``inner`` and ``columns`` are multiples of 16. Up to ``segment`` rows are made at once: beside B the device holds
    ``segment`` · (``inner`` + 4 · ``columns`` + 64) bytes.
    """

    def __init__(self, gpu: Gpu, inner: int, columns: int, b: str, a: str, segment: int, kernel: str = "") -> None:
        if inner % CHUNK or columns % CHUNK:
            raise AssertionError(f"{inner} and {columns} are no multiples of {CHUNK}")
        self._gpu = gpu
        self._inner = inner
        self._columns = columns
        self._a = a
        self._name = kernel or fastest(gpu, INT8_KERNELS)
        self._kernel = INT8_KERNELS[self._name]
        self._length = -(-inner // TILE) * TILE
        self._b: Buffer = packed(gpu, "columns", seeded_matrix(b, inner, columns), self._kernel)
        tile = max(TILE, self._kernel.tile_rows)
        # Padding stays zero: rows that are made overwrite rows only.
        self._left = gpu.zeros(-(-segment // tile) * tile * self._length)
        self._product = gpu.zeros(segment * columns * _ENTRY_BYTES)
        self._segment = segment
        self._tree = HashTree(gpu, segment)

    @property
    def segment(self) -> int:
        """The most rows that are made at once."""
        return self._segment

    def leaves(self, first: int, count: int) -> Sequence[bytes]:
        """The leaf hashes of rows of C."""
        self._hash(first, count)
        return self._tree.fetch(count)

    def root(self, first: int, count: int) -> bytes:
        """The root over rows of C."""
        self._hash(first, count)
        return self._tree.root(count)

    def rows(self, indices: Sequence[int]) -> Int32Array:
        """These rows of C."""
        a: Int8Array = np.concatenate([seeded_rows(self._a, index, 1, self._inner) for index in indices])
        count = len(indices)
        product = self._gpu.zeros(count * self._columns * _ENTRY_BYTES)
        self._multiply(packed(self._gpu, "rows", a, self._kernel), product, count)
        return self._gpu.get(product, np.int32, (count, self._columns))

    def _hash(self, first: int, count: int) -> None:
        """Make rows, and leave their leaf hashes in the tree's room."""
        if not 1 <= count <= self._segment:
            raise AssertionError(f"{count} rows do not fit into a segment of {self._segment}")
        key, stream = key_and_stream(self._a)
        self._gpu.launch(
            "exam",
            "seeded_rows",
            (count, -(-self._inner // (CHUNK * _THREADS)), 1),
            (_THREADS, 1, 1),
            self._left,
            *(np.uint32(word) for word in (*key, *stream, first)),
            np.int32(self._inner),
            np.int32(self._length),
            np.int32(self._kernel.tiled),
        )
        self._multiply(self._left, self._product, count)
        row_bytes = self._columns * _ENTRY_BYTES
        self._gpu.launch(
            "sha256_tree",
            "sha256_leaves",
            (-(-count // _WARP), 1, 1),
            (_WARP, 1, 1),
            self._product,
            self._tree.leaves,
            np.int64(count * row_bytes),
            np.int32(row_bytes),
            np.int32(count),
        )

    def _multiply(self, left: Buffer, product: Buffer, rows: int) -> None:
        shape = (rows, self._length, self._columns)
        launch_product(self._gpu, self._name, self._kernel, left, self._b, product, shape, 1)
