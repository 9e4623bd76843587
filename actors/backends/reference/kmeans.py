"""Lloyd's algorithm in integers: nearest centres, sums of their points by chunk, and the means.

The label of a point is the least index of a centre with the least squared distance. The next centre is the sum of its
points divided by their number, rounded down in each coordinate; a centre without points stays.

Labels come from float64 BLAS and are exact all the same: |p - c|**2 = |p|**2 + |c|**2 - 2 p c, |p|**2 is the same for
all centres, and with at most 64 coordinates of magnitude 2**15 every partial sum of the rest is an integer of
magnitude at most 2**36 + 2**37 < 2**53.
"""

from typing import Final

import numpy as np

from actors.backends.base import Clustering, Int16Array, Int32Array, Progress, UInt8Array, no_progress

# Distances of one step: 4 MiB in float64.
_STEP_DISTANCES: Final = 1 << 19


def nearest(points: Int16Array, centres: Int16Array) -> UInt8Array:
    """The label of each point, n × d, among the centres, k × d."""
    exact_centres = centres.astype(np.float64)
    squares = (exact_centres * exact_centres).sum(axis=1)
    labels = np.empty(len(points), dtype=np.uint8)
    step = max(1, _STEP_DISTANCES // max(centres.shape))
    for first in range(0, len(points), step):
        part = points[first : first + step].astype(np.float64)
        labels[first : first + step] = np.argmin(squares - 2.0 * (part @ exact_centres.T), axis=1)
    return labels


def count_and_sum(points: Int16Array, labels: UInt8Array, clusters: int) -> tuple[Int32Array, Int32Array]:
    """Points per cluster, and the sum of their coordinates, k × d. For up to 65,535 points, so that int32 is enough."""
    counts = np.bincount(labels, minlength=clusters)
    # Weights are summed in float64, in which these sums are exact.
    columns = [np.bincount(labels, weights=column, minlength=clusters) for column in points.T]
    return counts.astype(np.int32), np.stack(columns, axis=1).astype(np.int32)


def next_centres(centres: Int16Array, counts: Int32Array, sums: Int32Array) -> Int16Array:
    """The centres after an iteration with these counts, chunks × k, and sums, chunks × k × d."""
    total_counts = counts.sum(axis=0, dtype=np.int64)[:, np.newaxis]
    total_sums = sums.sum(axis=0, dtype=np.int64)
    means = total_sums // np.maximum(total_counts, 1)
    return np.where(total_counts > 0, means, centres).astype(np.int16)


def cluster(
    points: Int16Array, first: Int16Array, iterations: int, chunk_points: int, progress: Progress = no_progress
) -> Clustering:
    """Lloyd's algorithm from the ``first`` centres. See `actors.backends.base.Backend.cluster`."""
    chunks = [points[start : start + chunk_points] for start in range(0, len(points), chunk_points)]
    total = (iterations + 1) * len(chunks)
    done = 0
    centres, counts, sums = [first], [], []
    for _ in range(iterations):
        cells = []
        for chunk in chunks:
            cells.append(count_and_sum(chunk, nearest(chunk, centres[-1]), len(first)))
            done += 1
            progress(done, total)
        counts.append(np.stack([cell[0] for cell in cells]))
        sums.append(np.stack([cell[1] for cell in cells]))
        centres.append(next_centres(centres[-1], counts[-1], sums[-1]))
    labels = []
    for chunk in chunks:
        labels.append(nearest(chunk, centres[-1]))
        done += 1
        progress(done, total)
    return Clustering(np.stack(centres), np.stack(counts), np.stack(sums), np.concatenate(labels))
