"""A Merkle tree over so many leaves that a device makes them piece by piece, and keeps one hash for each piece."""

from collections.abc import Sequence
from typing import Final, Protocol

from actors.backends.base import Progress, no_progress
from events.merkle import inclusion_path, root_of_hashes
from schemas.values import Digest

# Up to so many leaf hashes are kept (32 MiB), where segments are as small as a processor's. Else only the root of each
# segment is, and the segment of an opened leaf is made again: a GPU does that faster than its leaves are fetched.
MAX_KEPT_LEAVES: Final = 1 << 20
MAX_KEPT_SEGMENT: Final = 1 << 12


class Leaves(Protocol):
    """What makes leaf hashes."""

    @property
    def segment(self) -> int:
        """How many it makes at once: a power of two, so that the tree over the pieces is that over the leaves."""

    def leaves(self, first: int, count: int) -> Sequence[bytes]:
        """The hashes of ``count`` leaves, from leaf ``first`` on."""

    def root(self, first: int, count: int) -> bytes:
        """The root over these."""


class SegmentedTree:
    """The tree over ``count`` leaves of RFC 9162."""

    def __init__(self, source: Leaves, count: int, segment: int | None = None) -> None:
        self._segment = segment or source.segment
        if self._segment & (self._segment - 1) or self._segment < 1:
            raise AssertionError(f"a segment of {self._segment} is no power of two: the tree would have another shape")
        self._source = source
        self._count = count
        self._roots: list[bytes] = []
        self._kept: list[bytes] | None = None

    def root(self, progress: Progress = no_progress) -> Digest:
        """Make all leaves; the root over them. ``progress`` is called after each segment."""
        starts = range(0, self._count, self._segment)
        keep = self._count <= MAX_KEPT_LEAVES and self._segment <= MAX_KEPT_SEGMENT
        self._roots = []
        kept: list[bytes] = []
        for done, first in enumerate(starts, 1):
            if keep:
                leaves = self._source.leaves(first, self._length(first))
                kept += leaves
                self._roots.append(root_of_hashes(leaves))
            else:
                self._roots.append(self._source.root(first, self._length(first)))
            progress(done, len(starts))
        self._kept = kept or None
        return root_of_hashes(self._roots).hex()

    def path(self, index: int) -> list[bytes]:
        """The path of a leaf, from it up. `root` must have been called."""
        if not self._roots:
            raise AssertionError("there is nothing to open before the work is done")
        segment, place = divmod(index, self._segment)
        first = segment * self._segment
        if self._kept is None:
            leaves = self._source.leaves(first, self._length(first))
        else:
            leaves = self._kept[first : first + self._segment]
        return [*inclusion_path(leaves, place), *inclusion_path(self._roots, segment)]

    def _length(self, first: int) -> int:
        return min(self._segment, self._count - first)


def path_length(count: int, index: int) -> int:
    """Hashes from a leaf to the root over so many."""
    length, last = 0, count - 1
    while last:
        length += not (index == last and last % 2 == 0)
        index, last = index >> 1, last >> 1
    return length
