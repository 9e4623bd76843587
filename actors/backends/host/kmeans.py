"""Lloyd's algorithm on a GPU: the points stay there; the means of an iteration are made on the host."""

from typing import Final

import numpy as np

from actors.backends.base import Clustering, Int16Array, Progress, no_progress
from actors.backends.gpu import Buffer, Gpu
from actors.backends.reference.kmeans import next_centres

_POINT_THREADS: Final = 128
_SUM_THREADS: Final = 256


def cluster(
    gpu: Gpu,
    points: Int16Array,
    first: Int16Array,
    iterations: int,
    chunk_points: int,
    progress: Progress = no_progress,
) -> Clustering:
    """See `actors.backends.base.Backend.cluster`."""
    count, dimensions = points.shape
    clusters = len(first)
    chunks = -(-count // chunk_points)
    here = gpu.put(np.ascontiguousarray(points, dtype=np.int16))
    labels = gpu.zeros(count)

    def label(centres: Int16Array) -> None:
        _launch(
            gpu,
            "nearest",
            (count, _POINT_THREADS),
            (here, gpu.put(np.ascontiguousarray(centres, dtype=np.int16)), labels),
            (count, dimensions, clusters),
        )

    centres, counts, sums = [first], [], []
    for done in range(1, iterations + 1):
        label(centres[-1])
        cell_counts, cell_sums = gpu.zeros(chunks * clusters * 4), gpu.zeros(chunks * clusters * dimensions * 4)
        _launch(
            gpu,
            "sum_chunks",
            (count * dimensions, _SUM_THREADS),
            (here, labels, cell_counts, cell_sums),
            (count, dimensions, clusters, chunk_points),
        )
        counts.append(gpu.get(cell_counts, np.int32, (chunks, clusters)))
        sums.append(gpu.get(cell_sums, np.int32, (chunks, clusters, dimensions)))
        centres.append(next_centres(centres[-1], counts[-1], sums[-1]))
        progress(done, iterations + 1)
    label(centres[-1])
    last = gpu.get(labels, np.uint8, (count,))
    progress(iterations + 1, iterations + 1)
    return Clustering(np.stack(centres), np.stack(counts), np.stack(sums), last)


def _launch(
    gpu: Gpu, kernel: str, threads: tuple[int, int], buffers: tuple[Buffer, ...], sizes: tuple[int, ...]
) -> None:
    """Start one thread for each of so many, in blocks."""
    wanted, block = threads
    grid = (-(-wanted // block), 1, 1)
    gpu.launch("kmeans", kernel, grid, (block, 1, 1), *buffers, *(np.int32(size) for size in sizes))
