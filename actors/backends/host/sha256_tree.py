"""Leaf hashes on a GPU: a thread per chunk."""

from typing import Final

import numpy as np

from actors.backends.base import Progress, UInt8Array, no_progress
from actors.backends.gpu import Gpu

_WARP: Final = 32
# The kernel reads whole blocks of the hash.
_BLOCK_BYTES: Final = 64
_HASH_BYTES: Final = 32


def leaf_hashes(gpu: Gpu, data: UInt8Array, chunk_bytes: int, progress: Progress = no_progress) -> UInt8Array:
    """See `actors.backends.base.Backend.leaf_hashes`."""
    chunks = -(-data.size // chunk_bytes)
    padded = np.zeros(-(-data.size // _BLOCK_BYTES) * _BLOCK_BYTES, dtype=np.uint8)
    padded[: data.size] = data
    hashes = gpu.zeros(chunks * _HASH_BYTES)
    gpu.launch(
        "sha256_tree",
        "sha256_leaves",
        (-(-chunks // _WARP), 1, 1),
        (_WARP, 1, 1),
        gpu.put(padded),
        hashes,
        np.int64(data.size),
        np.int32(chunk_bytes),
        np.int32(chunks),
    )
    result: UInt8Array = gpu.get(hashes, np.uint8, (chunks, _HASH_BYTES))
    progress(1, 1)
    return result
