"""Leaf hashes on a GPU: a thread per chunk, a launch per band of chunks."""

from typing import Final

import numpy as np

from actors.backends.base import Progress, UInt8Array, no_progress
from actors.backends.gpu import Gpu
from actors.backends.host.bands import bands

_WARP: Final = 32
# The kernel reads whole blocks of the hash.
_BLOCK_BYTES: Final = 64
_HASH_BYTES: Final = 32
# Chunks of a band: two warps for each of the 132 multiprocessors of an H200. A launch takes as long as one thread takes
# for its chunk, however few there are: smaller bands would add up to more than the copies to the device take.
_BAND_CHUNKS: Final = 8_192


def leaf_hashes(gpu: Gpu, data: UInt8Array, chunk_bytes: int, progress: Progress = no_progress) -> UInt8Array:
    """See `actors.backends.base.Backend.leaf_hashes`."""
    chunks = -(-data.size // chunk_bytes)
    result = np.empty((chunks, _HASH_BYTES), dtype=np.uint8)
    for band in bands(chunks, _BAND_CHUNKS, _WARP, progress):
        part = np.ascontiguousarray(data[band.start * chunk_bytes : band.stop * chunk_bytes])
        count = band.stop - band.start
        hashes = gpu.zeros(count * _HASH_BYTES)
        gpu.launch(
            "sha256_tree",
            "sha256_leaves",
            (-(-count // _WARP), 1, 1),
            (_WARP, 1, 1),
            gpu.put(np.pad(part, (0, -part.size % _BLOCK_BYTES)) if part.size % _BLOCK_BYTES else part),
            hashes,
            np.int64(part.size),
            np.int32(chunk_bytes),
            np.int32(count),
        )
        result[band] = gpu.get(hashes, np.uint8, (count, _HASH_BYTES))
        progress(band.stop, chunks)
    return result
