"""The service ``sha256.tree``: the leaf hashes of the Merkle tree of a blob.

The tree is that of RFC 9162, section 2.1.1, over the blob in chunks of ``chunk_bytes``: leaf i is SHA-256(0x00 ‖ chunk
i). The result is the leaf hashes one after the other, 32 bytes each. The root that the miner commits to is the root of
this very tree, so whoever holds the result's root can check any chunk of the blob by its path.

**Check.** The verifier hashes all chunks again, which costs it no more than to make sure of the blob's own digest did.
A wrong result never passes.
"""

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from actors.backends.base import Backend, Progress, UInt8Array, no_progress
from actors.backends.reference.sha256_tree import leaf_hashes
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.npy import write_file
from events.errors import BadInput
from events.merkle import root_of_hashes
from schemas.services import Sha256Tree
from schemas.values import Digest

SUFFIX: Final = "bin"
HASH_BYTES: Final = 32
# No wrong result passes; what is left are collisions of the hash itself.
ERROR_BITS: Final = 128
# The interpreter's own needs, and the hashes of the largest tree as objects.
FIXED_BYTES: Final = 96 << 20
# What a thread reserves: a stack, and an arena of the allocator.
BYTES_PER_THREAD: Final = 80 << 20


def chunks_of(work: Sha256Tree) -> int:
    """The number of chunks, and of hashes."""
    return -(-work.size // work.chunk_bytes)


def result_sizes(work: Sha256Tree) -> range:
    """One size only: 32 bytes per chunk."""
    size = chunks_of(work) * HASH_BYTES
    return range(size, size + 1)


def memory_needed(work: Sha256Tree, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    return work.size + FIXED_BYTES + threads * BYTES_PER_THREAD


def check_inputs(work: Sha256Tree, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when the blob has another size than the work says."""
    _content(work, blobs)


def _content(work: Sha256Tree, blobs: Mapping[Digest, Path]) -> UInt8Array:
    """The blob, memory-mapped."""
    path = blobs[work.digest]
    size = path.stat().st_size
    if size != work.size:
        raise BadInput(
            "the blob is refused",
            why=f"it has {size} bytes, the work says {work.size}",
            hint="Submit the job again with the size of the file.",
            reason="SHAPE",
        )
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapping, dtype=np.uint8)


def compute(
    work: Sha256Tree,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""
    hashes = backend.leaf_hashes(_content(work, blobs), work.chunk_bytes, progress).tobytes()
    digest, size = write_file(result, b"", memoryview(hashes))
    return Computed(root=_root(hashes), digest=digest, size=size)


def verify(
    work: Sha256Tree, blobs: Mapping[Digest, Path], result: Path | bytes, root: Digest, seed: Digest, threads: int = 0
) -> Verdict:
    """See `actors.services.base.Service.verify`. Needs no randomness: ``seed`` does not matter."""
    content = _content(work, blobs)
    chunks = chunks_of(work)
    hashes = _read(result, chunks * HASH_BYTES)
    if hashes is None:
        return Rejected(code=RejectionCode.MALFORMED, detail=f"the result does not have {chunks * HASH_BYTES} bytes")
    found = _root(hashes)
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the hashes have the root {found}, {root} was committed"
        )
    right = leaf_hashes(content, work.chunk_bytes, threads=threads or 1)
    wrong = (np.frombuffer(hashes, dtype=np.uint8).reshape(-1, HASH_BYTES) != right).any(axis=1)
    if wrong.any():
        chunk = int(np.argmax(wrong))
        detail = f"hash {chunk} is not that of chunk {chunk}"
        return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=detail, row=chunk)
    return Accepted(error_bits=ERROR_BITS, method="recomputed")


def _read(result: Path | bytes, size: int) -> bytes | None:
    """The whole result, None where it has another size."""
    if isinstance(result, Path):
        with result.open("rb") as file:
            result = file.read(size + 1)
    return result if len(result) == size else None


def _root(hashes: bytes) -> Digest:
    """The root over leaf hashes that lie one after the other."""
    leaves = [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]
    return root_of_hashes(leaves).hex()
