"""The service sort: computing, committing, and judging a result."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.services.base import Accepted, Computed, Rejected, RejectionCode
from actors.services.sort import _STEP, check_inputs, compute, first_out_of_order, memory_needed, result_sizes, verify
from actors.services.vectors import CHUNK_BYTES, open_vector, vector_header, write_vector
from events.errors import BadInput
from events.merkle import root
from schemas.services import Sort

SEED = "5e" * 32
LENGTH = 60_000


def root_of(values: np.ndarray) -> str:
    content = values.tobytes()
    return root(content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)).hex()


def work_of(folder: Path, values: np.ndarray) -> tuple[Sort, dict[str, Path]]:
    digest, _ = write_vector(folder / "values.npy", values)
    element: Any = values.dtype.name
    return Sort(digest=digest, element=element, length=values.size), {digest: folder / "values.npy"}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sort, dict[str, Path], Path, Computed]:
    """Values, many of them several times, and an honest result."""
    folder = tmp_path_factory.mktemp("sort")
    values = np.random.default_rng(1).integers(-20_000, 20_000, LENGTH).astype(np.int32)
    work, blobs = work_of(folder, values)
    return work, blobs, folder / "result", compute(work, blobs, CpuBackend(), folder / "result", threads=2)


@pytest.mark.parametrize(("element", "bits"), [("int32", 116), ("uint32", 116), ("int64", 112)])
@pytest.mark.parametrize("length", [1, 2, 1_000, 140_000])
def test_honest_results_are_accepted(tmp_path: Path, element: str, bits: int, length: int) -> None:
    """The result is the values in order, and is accepted with the error that is written, from file and memory."""
    limits = np.iinfo(element)
    values = np.random.default_rng(length).integers(limits.min, limits.max, length, dtype=element, endpoint=True)
    values[: min(length, 2)] = [limits.max, limits.min][:length]
    work, blobs = work_of(tmp_path, values)
    check_inputs(work, blobs)
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result")
    ordered = open_vector(tmp_path / "result", element, length)
    assert ordered.tolist() == sorted(values.tolist())
    assert computed.root == root_of(ordered)
    assert computed.size in result_sizes(work)
    assert memory_needed(work) > 2 * values.nbytes
    for given in (tmp_path / "result", (tmp_path / "result").read_bytes()):
        verdict = verify(work, blobs, given, computed.root, SEED)
        assert verdict == Accepted(error_bits=bits, method="permutation")


def changed(values: np.ndarray, place: int, by: int) -> np.ndarray:
    forged = values.copy()
    forged[place] += by
    return np.sort(forged)


def exchanged(values: np.ndarray, one: int, other: int) -> np.ndarray:
    forged = values.copy()
    forged[one], forged[other] = values[other], values[one]
    return forged


FORGED = [
    ("unsorted", lambda v: v[::-1], RejectionCode.ORDER),
    ("neighbours exchanged", lambda v: exchanged(v, 100, 30_000), RejectionCode.ORDER),
    ("last two exchanged", lambda v: exchanged(v, LENGTH - 1, LENGTH - 9), RejectionCode.ORDER),
    ("one off", lambda v: changed(v, 30_000, 1), RejectionCode.NOT_A_PERMUTATION),
    ("sum kept", lambda v: changed(changed(v, 10_000, 5), 20_000, -5), RejectionCode.NOT_A_PERMUTATION),
    ("one bit", lambda v: changed(v, 59_999, 2**30), RejectionCode.NOT_A_PERMUTATION),
    ("one value twice", lambda v: np.sort(np.concatenate([v[1:], v[7:8]])), RejectionCode.NOT_A_PERMUTATION),
    ("distinct values stretched", lambda v: np.unique(v)[np.arange(LENGTH) // 2], RejectionCode.NOT_A_PERMUTATION),
    ("already in order, of nobody", lambda v: np.arange(LENGTH), RejectionCode.NOT_A_PERMUTATION),
    ("all alike", lambda v: np.full(LENGTH, 7), RejectionCode.NOT_A_PERMUTATION),
    ("rounded", lambda v: v & ~15, RejectionCode.NOT_A_PERMUTATION),
]


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize(("forge", "code"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_forged_results_are_rejected(case: Any, tmp_path: Path, forge: Any, code: RejectionCode, threads: int) -> None:
    """A wrong result with a root that fits it is rejected for its order or for its values."""
    work, blobs, result, _ = case
    forged = np.ascontiguousarray(forge(open_vector(result, "int32", LENGTH)), dtype=np.int32)
    write_vector(tmp_path / "forged", forged)
    verdict = verify(work, blobs, tmp_path / "forged", root_of(forged), SEED, threads)
    assert isinstance(verdict, Rejected)
    assert verdict.code is code
    assert (verdict.row is not None) is (code is RejectionCode.ORDER)


@pytest.mark.parametrize("place", [0, 1, _STEP - 2, _STEP - 1, _STEP, 2 * _STEP - 1, 2 * _STEP])
def test_first_descent(place: int) -> None:
    """The first place from which values fall is found, also where two steps meet; none is found in order."""
    values = np.arange(2 * _STEP + 2, dtype=np.int32)
    assert first_out_of_order(values) is None
    values[place + 1 :] -= 2
    assert first_out_of_order(values) == place


def test_result_that_was_not_committed_is_rejected(case: Any) -> None:
    """A right result under another root is rejected, and a wrong one is judged by its root first."""
    work, blobs, result, computed = case
    content = bytearray(result.read_bytes())
    verdict = verify(work, blobs, bytes(content), "00" * 32, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH
    assert computed.root in verdict.detail
    content[-1] ^= 0x80
    verdict = verify(work, blobs, bytes(content), computed.root, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", RejectionCode.MALFORMED),
        (vector_header("int32", LENGTH) + bytes(LENGTH * 4 - 1), RejectionCode.MALFORMED),
        (vector_header("uint32", LENGTH) + bytes(LENGTH * 4), RejectionCode.TYPE),
        (vector_header("int32", LENGTH - 1) + bytes(LENGTH * 4 - 4), RejectionCode.SHAPE),
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
    write_vector(tmp_path / "bad.npy", np.zeros(LENGTH, dtype=np.uint32))
    blobs = {work.digest: tmp_path / "bad.npy"}
    for call in (
        lambda: check_inputs(work, blobs),
        lambda: compute(work, blobs, CpuBackend(), tmp_path / "result"),
        lambda: verify(work, blobs, result, computed.root, SEED),
    ):
        with pytest.raises(BadInput) as caught:
            call()
        assert caught.value.data["reason"] == "TYPE"


def test_verification_needs_little_memory(tmp_path: Path) -> None:
    """Beside the tables of the fingerprint the check holds a few steps: no copy of the values ever exists."""
    values = np.random.default_rng(2).integers(0, 2**32, 3_000_000, dtype=np.uint32)
    work, blobs = work_of(tmp_path, values)
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result")
    tracemalloc.start()
    try:
        verdict = verify(work, blobs, tmp_path / "result", computed.root, SEED, threads=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(verdict, Accepted)
    assert peak < 11 << 20
