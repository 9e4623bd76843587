"""A device's memory, filled from a seed and walked all over; see `actors.attestation.fill`."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from actors.backends.base import Progress, no_progress
from actors.backends.gpu import Buffer, Gpu
from actors.backends.host.exam import HashTree

_LABEL_BYTES: Final = 32
_LABELS_PER_MIB: Final = (1 << 20) // _LABEL_BYTES
_LABEL_THREADS: Final = 256
_WALK_THREADS: Final = 64
# MiB that one launch fills.
_STEP_MIB: Final = 4_096


class GpuMemory:
    """So many MiB of one GPU. Taken when it is filled; given back with the object."""

    def __init__(self, gpu: Gpu, seed: bytes, memory_mib: int, steps: int, segment: int) -> None:
        self._gpu = gpu
        self._memory_mib = memory_mib
        self._steps = steps
        self._segment = segment
        self._seed = gpu.put(np.frombuffer(seed, dtype=np.uint8))
        self._labels: Buffer | None = None
        self._tree = HashTree(gpu, segment)

    @property
    def segment(self) -> int:
        """Walks that are made at once."""
        return self._segment

    def fill(self, progress: Progress = no_progress) -> None:
        """Make all labels. Raises `MemoryError` where the device has not so much memory free."""
        labels = self._labels = self._gpu.zeros(self._memory_mib << 20)
        for mib in range(0, self._memory_mib, _STEP_MIB):
            done = min(mib + _STEP_MIB, self._memory_mib)
            count = (done - mib) * _LABELS_PER_MIB
            grid = (-(-count // _LABEL_THREADS), 1, 1)
            first = np.uint64(mib * _LABELS_PER_MIB)
            self._gpu.launch(
                "fill", "fill_labels", grid, (_LABEL_THREADS, 1, 1), labels, self._seed, first, np.uint64(count)
            )
            progress(done, self._memory_mib)

    def leaves(self, first: int, count: int) -> Sequence[bytes]:
        """The leaf hashes of walks."""
        self._walk(first, count)
        return self._tree.fetch(count)

    def root(self, first: int, count: int) -> bytes:
        """The root over walks."""
        self._walk(first, count)
        return self._tree.root(count)

    def _walk(self, first: int, count: int) -> None:
        if self._labels is None:
            raise AssertionError("the memory is walked before it is filled")
        self._gpu.launch(
            "fill",
            "fill_walks",
            (-(-count // _WALK_THREADS), 1, 1),
            (_WALK_THREADS, 1, 1),
            self._labels,
            np.uint64(self._memory_mib * _LABELS_PER_MIB),
            self._seed,
            self._tree.leaves,
            np.uint64(first),
            np.int32(count),
            np.int32(self._steps),
        )
