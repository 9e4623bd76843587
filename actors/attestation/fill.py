"""The fill: memory that a device says it has is filled from a seed, and read all over while it is full.

**The work.** Label i, 32 bytes, is SHA-256 of the fill's seed and i (eight bytes, little-endian), hashed again until it
has cost `LABEL_HASHES` hashes. Memory of M MiB holds N = 32,768·M labels. Then N·`READS_PER_LABEL`/`STEPS` walks read
it: a walk begins with the hash of the seed and its number; a step takes the state's first eight bytes modulo N as the
index of a label, and the hash of state and label as the next state. Where a walk goes next is known only when the label
before is. The miner commits itself to the root over the walks' last states.

**What it shows.** Who stores all labels pays N·4 + 4·N hashes; who stores none makes every label that a walk reads
again, 4·N·(4 + 1), two and a half times as much; who stores half, 1.75 times. This happens within the exam's time, so
less memory shows as a slower device, not as a wrong answer: the fill is a price, not a proof.

**The opening**: for each of `OPENED_WALKS` challenged walks, ascending, its path, 32 bytes each. The verifier walks
them itself, 20,000 hashes.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from actors.attestation.exam import HASH_BYTES, path_length
from actors.backends.base import Progress, no_progress
from actors.services.sampling import sample
from events.merkle import inclusion_path, leaf_hash, root_of_hashes
from schemas.values import Digest

LABEL_BYTES: Final = 32
LABELS_PER_MIB: Final = (1 << 20) // LABEL_BYTES
LABEL_HASHES: Final = 4
READS_PER_LABEL: Final = 4
STEPS: Final = 256
OPENED_WALKS: Final = 16

_SEED_DOMAIN: Final = b"assay:fill:v1\0"
_WALK_DOMAIN: Final = b"assay:fill:walk:v1\0"
_WALKS_DOMAIN: Final = b"assay:fill:walks:v1\0"


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
    return hashlib.sha256(_WALK_DOMAIN + seed + walk.to_bytes(8, "little")).digest()


def index_of(state: bytes, labels: int) -> int:
    """The label that the state reads."""
    return int.from_bytes(state[:8], "little") % labels


class Fill:
    """The fill of one device in the processor's memory, the reference for those in a device's."""

    def __init__(self, seed: bytes, memory_mib: int) -> None:
        self._seed = seed
        self._memory_mib = memory_mib
        self._leaves: list[bytes] = []

    def work(self, progress: Progress = no_progress) -> Digest:
        """Fill, walk, and return the root to commit to. ``progress`` counts MiB filled, then as many walked."""
        labels = labels_in(self._memory_mib)
        memory = bytearray()
        total = 2 * self._memory_mib
        for mib in range(self._memory_mib):
            first = mib * LABELS_PER_MIB
            memory += b"".join(label(self._seed, index) for index in range(first, first + LABELS_PER_MIB))
            progress(mib + 1, total)
        walks = walks_in(self._memory_mib)
        self._leaves = []
        for walk in range(walks):
            state = first_state(self._seed, walk)
            for _ in range(STEPS):
                at = index_of(state, labels) * LABEL_BYTES
                state = hashlib.sha256(state + memory[at : at + LABEL_BYTES]).digest()
            self._leaves.append(leaf_hash(state))
            if (walk + 1) % (walks // self._memory_mib) == 0:
                progress(self._memory_mib + (walk + 1) * self._memory_mib // walks, total)
        return root_of_hashes(self._leaves).hex()

    def open(self, challenge: Digest) -> bytes:
        """The blob that opens the challenged walks. `work` must have been done."""
        if not self._leaves:
            raise AssertionError("there is nothing to open before the work is done")
        paths: Sequence[bytes] = [
            node
            for walk in challenged_walks(self._memory_mib, challenge)
            for node in inclusion_path(self._leaves, walk)
        ]
        return b"".join(paths)


def opening_size(memory_mib: int, walks: Sequence[int]) -> int:
    """Bytes of the blob that opens these walks."""
    return sum(path_length(walks_in(memory_mib), walk) for walk in walks) * HASH_BYTES
