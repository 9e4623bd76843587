"""The leaf hashes of a Merkle tree over bytes in chunks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np

from actors.backends.base import Progress, UInt8Array, no_progress

HASH_BYTES = 32
# Bytes that one step hashes.
_STEP_BYTES = 1 << 21


def leaf_hashes(data: UInt8Array, chunk_bytes: int, progress: Progress = no_progress, threads: int = 1) -> UInt8Array:
    """SHA-256(0x00 ‖ chunk) of each chunk, one row of 32 bytes each; the last chunk may be short."""
    chunks = -(-data.size // chunk_bytes)
    content = data.data
    hashes = np.empty((chunks, HASH_BYTES), dtype=np.uint8)
    step = max(1, _STEP_BYTES // chunk_bytes)
    starts = range(0, chunks, step)

    def hash_step(first: int) -> None:
        for chunk in range(first, min(first + step, chunks)):
            leaf = sha256(b"\x00")
            leaf.update(content[chunk * chunk_bytes : (chunk + 1) * chunk_bytes])
            hashes[chunk] = np.frombuffer(leaf.digest(), dtype=np.uint8)

    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        finished: Iterator[None] = pool.map(hash_step, starts)
        for done, _ in enumerate(finished, start=1):
            progress(done, len(starts))
    return hashes
