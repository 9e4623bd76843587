"""The service ``kmeans``: Lloyd's algorithm over points of int16, in integers, for a fixed number of iterations.

What is computed is defined in `actors.backends.reference.kmeans`. The points are a ``.npy`` matrix of int16, or those
of a seed: coordinate (i, j) is the little-endian int16 of bytes 2 j and 2 j + 1 of row i of the int8 matrix of that
seed (`actors.services.generator`) with twice as many columns. The first centres are the points at the indices that
`actors.services.sampling.sample` draws with the work's own seed and `CENTRES_DOMAIN`, in ascending order.

The points are cut into chunks of ``work.chunk_points``. With T iterations, k clusters and d coordinates, the result's
file holds, little-endian and without any header, the **leaves** over which a miner commits to the root (RFC 9162), one
after the other:

1. leaf 0: the centres before each iteration and after the last, (T + 1) × k × d int16;
2. for each iteration, for each chunk a leaf: the number of the chunk's points nearest to each centre, k int32, and the
   sums of these points, k × d int32;
3. for each chunk a leaf: the label of each point among the last centres, uint8.

**Check, whole:** the first centres; in each leaf of 2. that the numbers add up to the chunk's points, the sums to the
sum of the chunk's points, and that each sum can be one of so many int16; all other centres from these numbers and sums;
all labels, from the last centres. **Sampled:** `SAMPLES` of the leaves of 2., or all where there are no more, drawn
after the commitment, are computed again from the points and the committed centres before (see
`actors.services.sampling` for what that proves).

**A jump to where there is nothing left to do.** Each iteration is checked from the centres that the result itself has,
so a few wrong leaves could lead to centres that are easy to go on from: all of them alike, say, from where every later
leaf is right and costs nothing. So all leaves of the first iteration are computed again, and no iteration may lead to
worse clusters than those it began with: with E(leaf, centres) the squared distances of the chunk's points to the
centres that the leaf counts them to, which follows from its numbers and sums,

    E(leaf of iteration t, centres t) <= E(leaf of iteration t - 1, centres t)

for each chunk, the last labels being iteration T. It is an equality of integers or less for whoever takes the nearest
centres. Since means are the best centres for their points, but for their rounding, the squared distances can then never
grow: a jump can lead only to clusters that are as good as the honest ones, and whoever has those has done the work.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from actors.backends.base import Backend, Clustering, Int16Array, Int32Array, Int64Array, Progress, no_progress
from actors.backends.reference.kmeans import count_and_sum, nearest, next_centres
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.generator import seeded_matrix
from actors.services.npy import open_matrix
from actors.services.sampling import SAMPLES, sample
from events.merkle import leaf_hash, root_of_hashes
from schemas.services import KMeans, SeededPoints
from schemas.values import Digest

SUFFIX: Final = "bin"
CENTRES_DOMAIN: Final = b"assay:kmeans-centres:v1\0"
DOMAIN: Final = b"assay:kmeans:v1\0"
ERROR_BITS: Final = 128
# The interpreter's own needs, and the arrays of a step.
FIXED_BYTES: Final = 128 << 20


def result_sizes(work: KMeans) -> range:
    """Bytes that a file which `verify` reads can have: one size."""
    return range(work.result_bytes, work.result_bytes + 1)


def memory_needed(work: KMeans, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    return 4 * work.points.rows * work.points.columns * 2 + 3 * work.result_bytes + FIXED_BYTES


def check_inputs(work: KMeans, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when the file is not the points that the work describes."""
    if not isinstance(work.points, SeededPoints):
        _points(work, blobs)


def _points(work: KMeans, blobs: Mapping[Digest, Path]) -> Int16Array:
    points = work.points
    if isinstance(points, SeededPoints):
        return seeded_matrix(points.seed, points.rows, 2 * points.columns).view("<i2").astype(np.int16, copy=False)
    return open_matrix(blobs[points.digest], "int16", points.rows, points.columns)


def first_centres(work: KMeans, points: Int16Array) -> Int16Array:
    """The points that the work's seed chooses."""
    return points[list(sample(work.seed, CENTRES_DOMAIN, work.clusters, len(points)))]


def compute(
    work: KMeans,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""
    points = _points(work, blobs)
    clustering = backend.cluster(points, first_centres(work, points), work.iterations, work.chunk_points, progress)
    leaves = leaves_of(work, clustering)
    digest = hashlib.sha256()
    with result.open("xb") as file:
        for leaf in leaves:
            digest.update(leaf)
            file.write(leaf)
    root = root_of_hashes([leaf_hash(leaf) for leaf in leaves]).hex()
    return Computed(root=root, digest=digest.hexdigest(), size=work.result_bytes)


def leaves_of(work: KMeans, clustering: Clustering) -> list[bytes]:
    """The leaves, which one after the other are the file."""
    cells = (
        counts.astype("<i4").tobytes() + sums.astype("<i4").tobytes()
        for iteration in zip(clustering.counts, clustering.sums, strict=True)
        for counts, sums in zip(*iteration, strict=True)
    )
    labels = clustering.labels.tobytes()
    step = work.chunk_points
    return [
        clustering.centres.astype("<i2").tobytes(),
        *cells,
        *(labels[first : first + step] for first in range(0, len(labels), step)),
    ]


def read_result(work: KMeans, content: bytes) -> Clustering:
    """The parts of a file, which must have ``work.result_bytes``."""
    iterations, chunks, clusters, columns = work.iterations, work.chunks, work.clusters, work.points.columns
    centres = np.frombuffer(content, dtype="<i2", count=(iterations + 1) * clusters * columns)
    cells = np.frombuffer(
        content, dtype="<i4", count=iterations * chunks * clusters * (1 + columns), offset=centres.nbytes
    ).reshape(iterations, chunks, -1)
    return Clustering(
        centres=centres.astype(np.int16, copy=False).reshape(-1, clusters, columns),
        counts=cells[:, :, :clusters],
        sums=cells[:, :, clusters:].reshape(iterations, chunks, clusters, columns),
        labels=np.frombuffer(content, dtype=np.uint8, offset=centres.nbytes + cells.nbytes),
    )


def verify(
    work: KMeans, blobs: Mapping[Digest, Path], result: Path | bytes, root: Digest, seed: Digest, threads: int = 0
) -> Verdict:
    """See `actors.services.base.Service.verify`. A rejection's ``row`` is a leaf."""
    points = _points(work, blobs)
    size = len(result) if isinstance(result, bytes) else result.stat().st_size
    if size != work.result_bytes:
        detail = f"the file has {size} bytes and should have {work.result_bytes}"
        return Rejected(code=RejectionCode.MALFORMED, detail=detail)
    claimed = read_result(work, result if isinstance(result, bytes) else result.read_bytes())
    found = root_of_hashes([leaf_hash(leaf) for leaf in leaves_of(work, claimed)]).hex()
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the leaves have the root {found}, {root} was committed"
        )
    chunks = [points[first : first + work.chunk_points] for first in range(0, len(points), work.chunk_points)]
    rejected = _contradiction(work, claimed, points, chunks)
    if rejected is not None:
        return rejected
    cells = work.iterations * work.chunks
    drawn = sample(seed, DOMAIN, SAMPLES, cells)
    again = [*sorted({*range(work.chunks), *drawn}), *range(cells, cells + work.chunks)]
    with ThreadPoolExecutor(threads or 1, thread_name_prefix="verify") as executor:
        right = list(executor.map(lambda cell: _is_right(work, claimed, chunks, cell), again))
    if not all(right):
        cell = again[right.index(False)]
        what = "labels" if cell >= cells else "counts and sums"
        detail = f"leaf {1 + cell} has wrong {what}"
        return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=detail, row=1 + cell)
    if len(drawn) == cells:
        return Accepted(error_bits=ERROR_BITS, method="recomputed")
    if (worse := _leaf_that_is_worse(work, claimed, chunks)) is not None:
        detail = f"leaf {worse} counts points to centres that are not the nearest ones"
        return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=detail, row=worse)
    return Accepted(error_bits=0, method="sampled", samples=len(drawn), chunks=cells)


def _contradiction(work: KMeans, claimed: Clustering, points: Int16Array, chunks: list[Int16Array]) -> Rejected | None:
    """What cannot be, seen without a single distance."""
    sizes = np.array([len(chunk) for chunk in chunks])
    totals = np.stack([chunk.sum(axis=0, dtype=np.int64) for chunk in chunks])
    if (claimed.centres[0] != first_centres(work, points)).any():
        return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail="the first centres are wrong", row=0)
    for iteration, (counts, sums) in enumerate(zip(claimed.counts, claimed.sums, strict=True)):
        wrong = (counts < 0).any(axis=1) | (counts.sum(axis=1, dtype=np.int64) != sizes)
        wrong |= (sums.sum(axis=1, dtype=np.int64) != totals).any(axis=1)
        least, most = (limit * counts.astype(np.int64)[:, :, np.newaxis] for limit in (-(1 << 15), (1 << 15) - 1))
        wrong |= ((sums < least) | (sums > most)).any(axis=(1, 2))
        if wrong.any():
            leaf = 1 + iteration * work.chunks + int(np.argmax(wrong))
            detail = f"the counts or sums of leaf {leaf} do not add up to its points"
            return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=detail, row=leaf)
        if (claimed.centres[iteration + 1] != next_centres(claimed.centres[iteration], counts, sums)).any():
            detail = f"the centres after iteration {iteration} are not the means of their points"
            return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=detail, row=0)
    return None


def _leaf_that_is_worse(work: KMeans, claimed: Clustering, chunks: list[Int16Array]) -> int | None:
    """The first leaf whose points lie farther from their centres than with the clusters of the iteration before; for
    right labels."""
    cells = list(zip(claimed.counts, claimed.sums, strict=True))
    last = []
    for number, chunk in enumerate(chunks):
        first = number * work.chunk_points
        last.append(count_and_sum(chunk, claimed.labels[first : first + work.chunk_points], work.clusters))
    cells.append((np.stack([counts for counts, _ in last]), np.stack([sums for _, sums in last])))
    for iteration in range(1, len(cells)):
        centres = claimed.centres[iteration].astype(np.int64)
        before, after = (_distances(centres, *cells[number]) for number in (iteration - 1, iteration))
        if (after > before).any():
            return 1 + iteration * work.chunks + int(np.argmax(after > before))
    return None


def _distances(centres: Int64Array, counts: Int32Array, sums: Int32Array) -> Int64Array:
    """The sum of squared distances of each chunk's points to the centres that they are counted to, less the sum of
    squares of the points. Below 2**54 in magnitude."""
    squares = counts.astype(np.int64) @ (centres * centres).sum(axis=1)
    distances: Int64Array = squares - 2 * np.tensordot(sums.astype(np.int64), centres, axes=2)
    return distances


def _is_right(work: KMeans, claimed: Clustering, chunks: list[Int16Array], cell: int) -> bool:
    """Whether a cell is what its points and the centres before it give."""
    iteration, chunk = divmod(cell, work.chunks)
    labels = nearest(chunks[chunk], claimed.centres[iteration])
    if iteration == work.iterations:
        first = chunk * work.chunk_points
        return np.array_equal(labels, claimed.labels[first : first + work.chunk_points])
    counts, sums = count_and_sum(chunks[chunk], labels, work.clusters)
    return np.array_equal(counts, claimed.counts[iteration, chunk]) and np.array_equal(
        sums, claimed.sums[iteration, chunk]
    )
