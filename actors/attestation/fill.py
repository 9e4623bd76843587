"""The fill: memory that a device says it has is filled from a seed, and read all over while it is full.

**The work.** Label i, 32 bytes, is SHA-256 of the fill's seed and i (eight bytes, little-endian), hashed again until it
has cost `LABEL_HASHES` hashes. Memory of M MiB holds N = 32,768·M labels. Then N·`READS_PER_LABEL`/`STEPS` walks read
it: a walk begins with the hash of the seed, its number (eight bytes, little-endian) and "walk"; a step takes the
state's first eight bytes modulo N as the index of a label, and the hash of state and label as the next state. Where a
walk goes next is known only when the label before is. The miner commits itself to the root over the walks' last states.

**What it shows.** Who stores all labels pays N·4 + 4·N hashes; who stores none makes every label that a walk reads
again, 4·N·(4 + 1), two and a half times as much; who stores half, 1.75 times. This happens within the exam's time, so
less memory shows as a slower device, not as a wrong answer: the fill is a price, not a proof.

**The opening**: for each of `OPENED_WALKS` challenged walks, ascending, its path, 32 bytes each. The verifier walks
them itself, 20,000 hashes.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

from actors.attestation.exam import HASH_BYTES
from actors.attestation.segments import Leaves, SegmentedTree, path_length
from actors.backends.base import Progress, no_progress
from actors.services.sampling import sample
from events.merkle import leaf_hash, root_of_hashes
from schemas.values import Digest

LABEL_BYTES: Final = 32
LABELS_PER_MIB: Final = (1 << 20) // LABEL_BYTES
LABEL_HASHES: Final = 4
READS_PER_LABEL: Final = 4
STEPS: Final = 256
OPENED_WALKS: Final = 16
SEGMENT: Final = 256

_SEED_DOMAIN: Final = b"assay:fill:v1\0"
_WALKS_DOMAIN: Final = b"assay:fill:walks:v1\0"
# Four bytes more than a label's first message has, so that no state is a label.
_WALK: Final = b"walk"


def fill_seed(epoch: Digest, address: str, uuid: str) -> bytes:
    """The seed of one device's fill in one exam."""
    return hashlib.sha256(_SEED_DOMAIN + bytes.fromhex(epoch) + address.encode() + uuid.encode()).digest()


def labels_in(memory_mib: int) -> int:
    """Labels in so much memory."""
    return memory_mib * LABELS_PER_MIB


def walks_in(memory_mib: int) -> int:
    """Walks over so much memory."""
    return labels_in(memory_mib) * READS_PER_LABEL // STEPS


def challenged_walks(memory_mib: int, challenge: Digest) -> tuple[int, ...]:
    """The walks that the challenge names, ascending."""
    return sample(challenge, _WALKS_DOMAIN, OPENED_WALKS, walks_in(memory_mib))


def label(seed: bytes, index: int) -> bytes:
    """The label of an index."""
    value = seed + index.to_bytes(8, "little")
    for _ in range(LABEL_HASHES):
        value = hashlib.sha256(value).digest()
    return value


def first_state(seed: bytes, walk: int) -> bytes:
    """The state in which a walk begins."""
    return hashlib.sha256(seed + walk.to_bytes(8, "little") + _WALK).digest()


def index_of(state: bytes, labels: int) -> int:
    """The label that the state reads."""
    return int.from_bytes(state[:8], "little") % labels


class Memory(Leaves, Protocol):
    """Memory to be filled; a leaf is a walk."""

    def fill(self, progress: Progress = no_progress) -> None:
        """Make all labels. ``progress`` counts MiB."""


class HostMemory:
    """The processor's own: the reference for that of devices."""

    def __init__(self, seed: bytes, memory_mib: int) -> None:
        self._seed = seed
        self._memory_mib = memory_mib
        self._labels = bytearray()

    @property
    def segment(self) -> int:
        """See `Leaves.segment`."""
        return SEGMENT

    def fill(self, progress: Progress = no_progress) -> None:
        """See `Memory.fill`."""
        self._labels = bytearray()
        for mib in range(self._memory_mib):
            first = mib * LABELS_PER_MIB
            self._labels += b"".join(label(self._seed, index) for index in range(first, first + LABELS_PER_MIB))
            progress(mib + 1, self._memory_mib)

    def leaves(self, first: int, count: int) -> Sequence[bytes]:
        """See `Leaves.leaves`."""
        return [leaf_hash(self._walked(walk)) for walk in range(first, first + count)]

    def root(self, first: int, count: int) -> bytes:
        """See `Leaves.root`."""
        return root_of_hashes(self.leaves(first, count))

    def _walked(self, walk: int) -> bytes:
        state, labels = first_state(self._seed, walk), labels_in(self._memory_mib)
        for _ in range(STEPS):
            at = index_of(state, labels) * LABEL_BYTES
            state = hashlib.sha256(state + self._labels[at : at + LABEL_BYTES]).digest()
        return state


class Fill:
    """The fill of one device, from the work to the opening. The memory stays full in between."""

    def __init__(self, memory: Memory, memory_mib: int) -> None:
        self._memory = memory
        self._memory_mib = memory_mib
        self._tree = SegmentedTree(memory, walks_in(memory_mib))

    def work(self, progress: Progress = no_progress) -> Digest:
        """Fill, walk, and return the root to commit to. ``progress`` is called for the filling, then for the walks."""
        self._memory.fill(progress)
        return self._tree.root(progress)

    def open(self, challenge: Digest) -> bytes:
        """The blob that opens the challenged walks. `work` must have been done."""
        walks = challenged_walks(self._memory_mib, challenge)
        return b"".join(node for walk in walks for node in self._tree.path(walk))


def opening_size(memory_mib: int, walks: Sequence[int]) -> int:
    """Bytes of the blob that opens these walks."""
    return sum(path_length(walks_in(memory_mib), walk) for walk in walks) * HASH_BYTES
