"""The service kmeans: computing, committing, and judging a result."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actors.backends.base import Clustering
from actors.backends.cpu import CpuBackend
from actors.backends.reference.kmeans import nearest, next_centres
from actors.services.base import Accepted, Computed, Rejected, RejectionCode
from actors.services.generator import seeded_matrix
from actors.services.kmeans import (
    DOMAIN,
    check_inputs,
    compute,
    leaves_of,
    memory_needed,
    read_result,
    result_sizes,
    verify,
)
from actors.services.npy import header_bytes, write_matrix
from actors.services.sampling import SAMPLES, sample
from events.errors import BadInput
from events.merkle import root
from schemas.services import BlobPoints, KMeans, SeededPoints

SEED = "5e" * 32
ROWS, COLUMNS, CLUSTERS, ITERATIONS = 4_500, 3, 6, 5


def seeded_work(rows: int, columns: int, clusters: int, iterations: int) -> KMeans:
    points = SeededPoints(rows=rows, columns=columns, seed="aa" * 32)
    return KMeans(points=points, clusters=clusters, iterations=iterations, seed="bb" * 32)


def groups() -> np.ndarray:
    """Points around six places."""
    generator = np.random.default_rng(4)
    places = generator.integers(-20_000, 20_000, (6, COLUMNS))
    return (places[generator.integers(0, 6, ROWS)] + generator.integers(-900, 900, (ROWS, COLUMNS))).astype(np.int16)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[KMeans, dict[str, Path], Path, Computed]:
    """Points in a blob, in 16 chunks, and an honest result."""
    folder = tmp_path_factory.mktemp("kmeans")
    digest, _ = write_matrix(folder / "points.npy", groups())
    points = BlobPoints(rows=ROWS, columns=COLUMNS, digest=digest)
    work = KMeans(points=points, clusters=CLUSTERS, iterations=ITERATIONS, seed="bb" * 32)
    blobs = {digest: folder / "points.npy"}
    return work, blobs, folder / "result.bin", compute(work, blobs, CpuBackend(), folder / "result.bin")


@pytest.mark.parametrize(
    ("rows", "columns", "clusters", "iterations"),
    [(1, 1, 1, 1), (255, 64, 255, 1), (256, 1, 3, 2), (257, 2, 2, 2), (5_000, 2, 256, 3), (4_097, 9, 4, 30)],
)
def test_honest_results_are_accepted(tmp_path: Path, rows: int, columns: int, clusters: int, iterations: int) -> None:
    """A right result of any shape is accepted, from a file and from memory; its leaves are its file and its root."""
    work = seeded_work(rows, columns, clusters, iterations)
    assert work.inconsistency() is None
    check_inputs(work, {})
    computed = compute(work, {}, CpuBackend(), tmp_path / "result.bin")
    content = (tmp_path / "result.bin").read_bytes()
    assert len(content) == computed.size == work.result_bytes
    assert [computed.size] == list(result_sizes(work))
    leaves = leaves_of(work, read_result(work, content))
    assert b"".join(leaves) == content
    assert computed.root == root(leaves).hex()
    assert memory_needed(work) > 2 * len(content)
    cells = iterations * work.chunks
    assert len(leaves) == 1 + cells + work.chunks
    for given in (tmp_path / "result.bin", content):
        verdict = verify(work, {}, given, computed.root, SEED, 2)
        if cells <= SAMPLES:
            assert verdict == Accepted(error_bits=128, method="recomputed")
        else:
            assert verdict == Accepted(error_bits=0, method="sampled", samples=SAMPLES, chunks=cells)


def test_points_of_a_seed_are_pairs_of_bytes(tmp_path: Path) -> None:
    """Points of a seed are those of a blob with the int16 that the seed's bytes make."""
    work = seeded_work(700, 3, 4, 2)
    computed = compute(work, {}, CpuBackend(), tmp_path / "seeded.bin")
    raw = seeded_matrix("aa" * 32, 700, 6).astype(np.int64)
    points = ((raw[:, 0::2] & 255) + 256 * raw[:, 1::2]).astype(np.int16)
    digest, _ = write_matrix(tmp_path / "points.npy", points)
    same = msgspec.structs.replace(work, points=BlobPoints(rows=700, columns=3, digest=digest))
    assert compute(same, {digest: tmp_path / "points.npy"}, CpuBackend(), tmp_path / "blob.bin") == computed


def test_clusters_are_found(case: Any) -> None:
    """The squared distances of points to their centres get smaller with every iteration."""
    work, _, result, _ = case
    points = groups()
    spread = [
        int(((points.astype(np.int64) - centres[nearest(points, centres)]) ** 2).sum())
        for centres in read_result(work, result.read_bytes()).centres
    ]
    # Means are rounded down, which can add no more than one for each point and coordinate.
    assert all(later <= earlier + ROWS * COLUMNS for earlier, later in pairwise(spread))
    assert spread[-1] < 0.6 * spread[0]


def forge(clustering: Clustering) -> Clustering:
    """A copy to write to."""
    return Clustering(*(part.copy() for part in clustering))


def first_centre(forged: Clustering) -> None:
    forged.centres[0, 2, 1] += 1


def mean(forged: Clustering) -> None:
    forged.centres[3, 0, 0] += 1


def count(forged: Clustering) -> None:
    forged.counts[2, 5, 1] += 1


def counts_exchanged(forged: Clustering) -> None:
    forged.counts[1, 7, 0] -= 400
    forged.counts[1, 7, 1] += 400


def sum_of_one(forged: Clustering) -> None:
    forged.sums[0, 15, 0, 0] += 1


def sum_beyond_its_points(forged: Clustering) -> None:
    forged.sums[4, 3, 0, 0] += 2**24
    forged.sums[4, 3, 1, 0] -= 2**24


def label_without_a_centre(forged: Clustering) -> None:
    forged.labels[300] = CLUSTERS


def one_label(forged: Clustering) -> None:
    forged.labels[ROWS - 1] = (forged.labels[ROWS - 1] + 1) % CLUSTERS


FORGED: list[tuple[Callable[[Clustering], None], RejectionCode, int]] = [
    (first_centre, RejectionCode.CHUNK_MISMATCH, 0),
    (mean, RejectionCode.CHUNK_MISMATCH, 0),
    (count, RejectionCode.CHUNK_MISMATCH, 1 + 2 * 16 + 5),
    (counts_exchanged, RejectionCode.CHUNK_MISMATCH, 1 + 16 + 7),
    (sum_of_one, RejectionCode.CHUNK_MISMATCH, 1 + 15),
    (sum_beyond_its_points, RejectionCode.CHUNK_MISMATCH, 1 + 4 * 16 + 3),
    (label_without_a_centre, RejectionCode.CHUNK_MISMATCH, 1 + 5 * 16 + 1),
    (one_label, RejectionCode.CHUNK_MISMATCH, 1 + 5 * 16 + 15),
]


def judged(case: Any, forged: Clustering, seed: str, threads: int = 0) -> Accepted | Rejected:
    work, blobs, _, _ = case
    leaves = leaves_of(work, forged)
    return verify(work, blobs, b"".join(leaves), root(leaves).hex(), seed, threads)


@pytest.mark.parametrize(("change", "code", "leaf"), FORGED)
def test_contradictions_are_found_anywhere(
    case: Any, change: Callable[[Clustering], None], code: RejectionCode, leaf: int
) -> None:
    """What does not add up is rejected with its leaf, sampled or not."""
    work, _, result, _ = case
    forged = forge(read_result(work, result.read_bytes()))
    change(forged)
    for number in range(3):
        verdict = judged(case, forged, f"{number:064x}")
        assert isinstance(verdict, Rejected)
        assert (verdict.code, verdict.row) == (code, leaf)


def test_leaves_that_add_up_are_sampled(tmp_path: Path) -> None:
    """Points counted in a wrong cluster, with all that follows made to fit, are found where their leaf is drawn."""
    work = seeded_work(ROWS, COLUMNS, CLUSTERS, ITERATIONS)
    compute(work, {}, CpuBackend(), tmp_path / "result.bin")
    forged = forge(read_result(work, (tmp_path / "result.bin").read_bytes()))
    points = seeded_matrix("aa" * 32, ROWS, 2 * COLUMNS).view("<i2")
    wrong = [(ITERATIONS - 1, 3), (ITERATIONS - 1, 12)]
    for iteration, chunk in wrong:
        fullest = int(forged.counts[iteration, chunk].argmax())
        other = (fullest + 1) % CLUSTERS
        for tally, moved in ((forged.counts, 1), (forged.sums, forged.centres[iteration, fullest].astype(np.int32))):
            tally[iteration, chunk, fullest] -= moved
            tally[iteration, chunk, other] += moved
    forged.centres[-1] = next_centres(forged.centres[-2], forged.counts[-1], forged.sums[-1])
    forged.labels[:] = nearest(points, forged.centres[-1])
    caught = 0
    for number in range(30):
        drawn = sample(f"{number:064x}", DOMAIN, SAMPLES, ITERATIONS * 16)
        verdict = judged((work, {}, None, None), forged, f"{number:064x}", 1 + number % 2)
        hits = [cell for cell in drawn if divmod(cell, 16) in wrong]
        if hits:
            assert isinstance(verdict, Rejected)
            assert (verdict.code, verdict.row) == (RejectionCode.CHUNK_MISMATCH, 1 + hits[0])
            caught += 1
        else:
            assert isinstance(verdict, Accepted)
    assert 0 < caught < 30


def jumped(work: KMeans, honest: Clustering, points: np.ndarray, at: int) -> Clustering:
    """Right up to iteration ``at``, all leaves of which lead all centres to one point: from there nothing is left to
    do, since all points belong to the first of centres that are alike, and stay with it."""
    forged = forge(honest)
    place = points.sum(axis=0, dtype=np.int64) // len(points)
    forged.counts[at:], forged.sums[at:] = 0, 0
    for number in range(work.chunks):
        chunk = points[number * work.chunk_points : (number + 1) * work.chunk_points]
        total = chunk.sum(axis=0, dtype=np.int64)
        forged.counts[at, number] = len(chunk) // work.clusters
        forged.counts[at, number, 0] += len(chunk) % work.clusters
        forged.sums[at, number] = forged.counts[at, number][:, np.newaxis] * place
        forged.sums[at, number] += (total - len(chunk) * place) // work.clusters
        forged.sums[at, number, 0] += total - forged.sums[at, number].sum(axis=0)
        forged.counts[at + 1 :, number, 0], forged.sums[at + 1 :, number, 0] = len(chunk), total
    forged.centres[at + 1 :] = next_centres(forged.centres[at], forged.counts[at], forged.sums[at])
    forged.labels[:] = 0
    return forged


@pytest.mark.parametrize("at", [0, 1, 40])
def test_jump_to_where_nothing_is_left_to_do_is_found(tmp_path: Path, at: int) -> None:
    """Wrong leaves of one iteration only, after which all is right and costs nothing, pass with no seed."""
    digest, _ = write_matrix(tmp_path / "points.npy", groups())
    points = BlobPoints(rows=ROWS, columns=COLUMNS, digest=digest)
    work = KMeans(points=points, clusters=CLUSTERS, iterations=200, seed="bb" * 32)
    blobs = {digest: tmp_path / "points.npy"}
    compute(work, blobs, CpuBackend(), tmp_path / "result.bin")
    forged = jumped(work, read_result(work, (tmp_path / "result.bin").read_bytes()), groups(), at)
    assert (forged.centres[-1] == forged.centres[-1, 0]).all()
    for number in range(10):
        verdict = judged((work, blobs, None, None), forged, f"{number:064x}")
        assert isinstance(verdict, Rejected)
        assert verdict.code is RejectionCode.CHUNK_MISMATCH
        assert verdict.row in range(1 + at * 16, 1 + (at + 1) * 16)


def test_result_that_was_not_committed_is_rejected(case: Any) -> None:
    """A right result is rejected under another root."""
    work, blobs, result, computed = case
    verdict = verify(work, blobs, result, "00" * 32, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH
    assert computed.root in verdict.detail


@pytest.mark.parametrize("cut", [slice(0, 0), slice(0, -1), slice(1, None), slice(0, 100)])
def test_results_of_another_size_are_rejected(case: Any, tmp_path: Path, cut: slice) -> None:
    """A file that is too short or too long is malformed, from a file and from memory."""
    work, blobs, result, computed = case
    content = result.read_bytes()
    for wrong in (content[cut], content + b"\0"):
        (tmp_path / "wrong.bin").write_bytes(wrong)
        for given in (wrong, tmp_path / "wrong.bin"):
            verdict = verify(work, blobs, given, computed.root, SEED)
            assert isinstance(verdict, Rejected)
            assert verdict.code is RejectionCode.MALFORMED


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no points", "MALFORMED"),
        (header_bytes("int16", ROWS, COLUMNS), "MALFORMED"),
        (header_bytes("int8", ROWS, COLUMNS) + bytes(ROWS * COLUMNS), "TYPE"),
        (header_bytes("int16", COLUMNS, ROWS) + bytes(2 * ROWS * COLUMNS), "SHAPE"),
    ],
)
def test_bad_points_are_the_clients_fault(case: Any, tmp_path: Path, content: bytes, reason: str) -> None:
    """A blob that is not the points of the work is a BadInput, for miner and verifier."""
    work, blobs, result, computed = case
    bad = dict.fromkeys(blobs, tmp_path / "bad.npy")
    (tmp_path / "bad.npy").write_bytes(content)
    for call in (
        lambda: check_inputs(work, bad),
        lambda: compute(work, bad, CpuBackend(), tmp_path / "out.bin"),
        lambda: verify(work, bad, result, computed.root, SEED),
    ):
        with pytest.raises(BadInput) as caught:
            call()
        assert caught.value.data["reason"] == reason


@pytest.mark.parametrize("kind", ["random", "00", "ff", "80", "7f", "damaged"])
def test_whatever_the_file_holds_there_is_a_verdict(case: Any, kind: str) -> None:
    """Numbers at the ends of their ranges, noise, and single bits that are wrong: rejected, without an overflow."""
    work, blobs, result, _ = case
    generator = np.random.default_rng(6)
    for number in range(20):
        content = bytearray(result.read_bytes())
        if kind == "random":
            content[:] = generator.bytes(len(content))
        elif kind == "damaged":
            content[int(generator.integers(len(content) - ROWS))] ^= 1 << int(generator.integers(8))
        else:
            start = int(generator.integers(len(content) - 8)) if number else 0
            content[start:] = bytes.fromhex(kind) * (len(content) - start)
        committed = root(leaves_of(work, read_result(work, bytes(content)))).hex()
        verdict = verify(work, blobs, bytes(content), committed, SEED)
        assert isinstance(verdict, Rejected)
        assert verdict.code is RejectionCode.CHUNK_MISMATCH


def test_progress_is_told(case: Any, tmp_path: Path) -> None:
    """Steps are counted up to the last one."""
    work, blobs, _, _ = case
    told: list[tuple[int, int]] = []
    compute(work, blobs, CpuBackend(), tmp_path / "out.bin", lambda done, total: told.append((done, total)))
    assert told == [(done, len(told)) for done in range(1, len(told) + 1)]
    assert len(told) == (ITERATIONS + 1) * 16
