"""Random paths on a GPU: a block per chunk of them."""

from typing import Final

import numpy as np

from actors.backends.base import Int64Array, Progress, Walk, no_progress
from actors.backends.gpu import Gpu
from actors.backends.reference.option import SUMS, tables

_THREADS: Final = 128
# Chunks of one launch, so that progress shows: twice the blocks that the 132 multiprocessors of an H200 run at once.
_LAUNCH_CHUNKS: Final = 4_096


def payoff_sums(gpu: Gpu, walk: Walk, first: int, count: int, progress: Progress = no_progress) -> Int64Array:
    """See `actors.backends.base.Backend.payoff_sums`."""
    deviates, coarse, fine = tables()
    buffers = (
        gpu.put(deviates.astype(np.int32)),
        gpu.put(coarse.astype(np.uint32)),
        gpu.put(fine.astype(np.uint32)),
    )
    starts = range(first, first + count, _LAUNCH_CHUNKS)
    rows = []
    for done, start in enumerate(starts, start=1):
        chunks = min(_LAUNCH_CHUNKS, first + count - start)
        sums = gpu.zeros(chunks * SUMS * 8)
        gpu.launch(
            "option",
            "payoff_sums",
            (chunks, 1, 1),
            (_THREADS, 1, 1),
            *buffers,
            sums,
            *map(np.int64, (walk.spot, walk.strike, walk.drift, walk.diffusion)),
            *map(np.int32, (walk.steps, walk.asian, walk.put)),
            *map(np.uint32, (start * walk.chunk_paths, walk.paths, walk.chunk_paths, *walk.key)),
        )
        rows.append(gpu.get(sums, np.int64, (chunks, SUMS)))
        progress(done, len(starts))
    return np.concatenate(rows)
