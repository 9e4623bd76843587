"""The service histogram: computing, committing, and judging a result."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.services.base import Accepted, Computed, Rejected, RejectionCode
from actors.services.histogram import check_inputs, compute, memory_needed, result_sizes, verify
from actors.services.vectors import CHUNK_BYTES, open_vector, vector_header, write_vector
from events.errors import BadInput
from events.merkle import root
from schemas.services import Histogram

SEED = "5e" * 32
COUNT = 20_000


def root_of(counts: np.ndarray) -> str:
    content = counts.astype("<i8").tobytes()
    return root(content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)).hex()


def work_of(folder: Path, values: np.ndarray, low: int, width: int, count: int) -> tuple[Histogram, dict[str, Path]]:
    digest, _ = write_vector(folder / "values.npy", values)
    element: Any = values.dtype.name
    work = Histogram(digest=digest, element=element, length=values.size, low=low, width=width, count=count)
    return work, {digest: folder / "values.npy"}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Histogram, dict[str, Path], Path, Computed]:
    """Many bins over many values, and an honest result."""
    folder = tmp_path_factory.mktemp("histogram")
    values = np.random.default_rng(1).integers(-(2**31), 2**31, 300_000).astype(np.int32)
    work, blobs = work_of(folder, values, -(10**9), 10**5, COUNT)
    return work, blobs, folder / "result", compute(work, blobs, CpuBackend(), folder / "result")


@pytest.mark.parametrize("element", ["uint8", "uint16", "int16", "int32"])
@pytest.mark.parametrize(("width", "count"), [(1, 1), (1, 65_536), (7, 300), (2**32 - 1, 2)])
def test_honest_results_are_accepted(tmp_path: Path, element: str, width: int, count: int) -> None:
    """Counts are those of numpy.histogram where that is exact, each value counts once, and the result is accepted."""
    limits = np.iinfo(element)
    values = np.random.default_rng(count).integers(limits.min, limits.max, 30_000, dtype=element, endpoint=True)
    low = int(limits.min) // 2 + 3
    work, blobs = work_of(tmp_path, values, low, width, count)
    check_inputs(work, blobs)
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result")
    counts = open_vector(tmp_path / "result", "int64", count + 2)
    edges = low + width * np.arange(count + 1, dtype=np.float64)
    edges[-1] -= 0.5
    np.testing.assert_array_equal(counts[1:-1], np.histogram(values.astype(np.float64), bins=edges)[0])
    assert int(counts.sum()) == values.size
    assert int(counts[0]) == np.count_nonzero(values.astype(np.int64) < low)
    assert computed.root == root_of(counts)
    assert computed.size in result_sizes(work)
    assert memory_needed(work) > values.nbytes + counts.nbytes
    for given in (tmp_path / "result", (tmp_path / "result").read_bytes()):
        verdict = verify(work, blobs, given, computed.root, SEED)
        assert verdict == Accepted(error_bits=128, method="recomputed")


def moved(counts: np.ndarray, source: int, target: int) -> np.ndarray:
    """One value counted elsewhere."""
    forged = counts.copy()
    forged[source] -= 1
    forged[target] += 1
    return forged


FORGED = [
    ("one more", lambda c: c + (np.arange(c.size) == 9_000), 1),
    ("one moved to the next bin", lambda c: moved(c, 100, 101), 0),
    ("one moved below", lambda c: moved(c, 100, 0), 0),
    ("one moved above", lambda c: moved(c, 100, c.size - 1), 0),
    ("below and above exchanged", lambda c: np.concatenate([c[-1:], c[1:-1], c[:1]]), 0),
    ("error of 2^32", lambda c: c + (np.arange(c.size) == c.size - 1) * 2**32, 2),
    ("more taken from a bin than it has", lambda c: c + (np.arange(c.size) == 5) * -(10**6), 0),
    ("all zero", np.zeros_like, 0),
    ("shifted by a bin", lambda c: np.roll(c, 1), 0),
]


@pytest.mark.parametrize(("forge", "chunk"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_forged_results_are_rejected(case: Any, tmp_path: Path, forge: Any, chunk: int) -> None:
    """Wrong counts with a root that fits them are rejected with their first wrong chunk."""
    work, blobs, result, _ = case
    forged = forge(open_vector(result, "int64", COUNT + 2)).astype(np.int64)
    write_vector(tmp_path / "forged", forged)
    for threads in (0, 2):
        verdict = verify(work, blobs, tmp_path / "forged", root_of(forged), SEED, threads)
        assert isinstance(verdict, Rejected)
        assert (verdict.code, verdict.row) == (RejectionCode.CHUNK_MISMATCH, chunk)


def test_result_that_was_not_committed_is_rejected(case: Any) -> None:
    """A right result under another root is rejected, and the root that was found is said."""
    work, blobs, result, computed = case
    verdict = verify(work, blobs, result, "00" * 32, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH
    assert computed.root in verdict.detail


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", RejectionCode.MALFORMED),
        (b"no vector", RejectionCode.MALFORMED),
        (vector_header("int64", COUNT + 2), RejectionCode.MALFORMED),
        (vector_header("int32", COUNT + 2) + bytes(4 * COUNT + 8), RejectionCode.TYPE),
        (vector_header("int64", COUNT) + bytes(8 * COUNT), RejectionCode.SHAPE),
    ],
)
def test_misshapen_results_are_rejected(case: Any, tmp_path: Path, content: bytes, code: RejectionCode) -> None:
    """A result that is not the file of such a vector is rejected as such, from a file and from memory."""
    work, blobs, _, computed = case
    (tmp_path / "result").write_bytes(content)
    for given in (tmp_path / "result", content):
        verdict = verify(work, blobs, given, computed.root, SEED)
        assert isinstance(verdict, Rejected)
        assert verdict.code is code


def test_bad_blob_is_the_clients_fault(case: Any, tmp_path: Path) -> None:
    """A blob that is not the vector of the work is a BadInput, for miner and verifier."""
    work, _, result, computed = case
    write_vector(tmp_path / "bad.npy", np.zeros(5, dtype=np.int32))
    blobs = {work.digest: tmp_path / "bad.npy"}
    for call in (
        lambda: check_inputs(work, blobs),
        lambda: compute(work, blobs, CpuBackend(), tmp_path / "result"),
        lambda: verify(work, blobs, result, computed.root, SEED),
    ):
        with pytest.raises(BadInput) as caught:
            call()
        assert caught.value.data["reason"] == "SHAPE"
