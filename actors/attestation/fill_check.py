"""Checking an opened fill: the challenged walks are walked again, each label made anew."""

import hashlib

from msgspec import UnsetType

from actors.attestation.exam import HASH_BYTES
from actors.attestation.fill import (
    STEPS,
    challenged_walks,
    fill_seed,
    first_state,
    index_of,
    label,
    labels_in,
    opening_size,
    walks_in,
)
from actors.attestation.segments import path_length
from events.merkle import leaf_hash, verify_inclusion
from schemas.attestation import ExamAnswer
from schemas.values import Digest


def filled_mib(epoch: Digest, address: str, answer: ExamAnswer, challenge: Digest, blob: bytes) -> int:
    """The memory that the blob shows to have been filled: all that the answer claims, or nothing."""
    memory, root = answer.memory_mib, answer.memory_root
    if isinstance(memory, UnsetType) or isinstance(root, UnsetType) or memory < 1:
        return 0
    walks = challenged_walks(memory, challenge)
    if len(blob) != opening_size(memory, walks):
        return 0
    seed = fill_seed(epoch, address, answer.gpu)
    expected = bytes.fromhex(root)
    position = 0
    for walk in walks:
        end = position + path_length(walks_in(memory), walk) * HASH_BYTES
        path = [blob[at : at + HASH_BYTES] for at in range(position, end, HASH_BYTES)]
        position = end
        state = _last_state(seed, walk, labels_in(memory))
        if not verify_inclusion(leaf_hash(state), walk, walks_in(memory), path, expected):
            return 0
    return memory


def _last_state(seed: bytes, walk: int, labels: int) -> bytes:
    state = first_state(seed, walk)
    for _ in range(STEPS):
        state = hashlib.sha256(state + label(seed, index_of(state, labels))).digest()
    return state
