"""The service matmul.int8: computing, committing, and judging a result."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.freivalds import MAX_PRODUCT
from actors.services.generator import seeded_matrix
from actors.services.matmul import (
    compute,
    memory_needed,
    result_size,
    row_root,
    verify,
)
from actors.services.npy import header_bytes, open_matrix, write_matrix
from bus.port import Limits
from events.errors import BadInput
from events.merkle import inclusion_path, leaf_hash, root, verify_inclusion
from schemas.services import MAX_MATRIX_BYTES, MAX_SIDE, BlobMatrix, MatmulInt8, SeededMatrix

SEED = "5e" * 32
ROWS, INNER, COLUMNS = 900, 70, 400


def seeded_work(rows: int, inner: int, columns: int) -> MatmulInt8:
    return MatmulInt8(
        a=SeededMatrix(rows=rows, columns=inner, seed="aa" * 32),
        b=SeededMatrix(rows=inner, columns=columns, seed="bb" * 32),
    )


def root_of(product: np.ndarray) -> str:
    return root(row.astype("<i4").tobytes() for row in product).hex()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[MatmulInt8, dict[str, Path], Path, Computed]:
    """A work with a blob and a seed, its files, and an honest result."""
    folder = tmp_path_factory.mktemp("matmul")
    a = np.random.default_rng(1).integers(-128, 128, (ROWS, INNER), dtype=np.int8)
    digest, _ = write_matrix(folder / "a.npy", a)
    work = MatmulInt8(
        a=BlobMatrix(rows=ROWS, columns=INNER, digest=digest),
        b=SeededMatrix(rows=INNER, columns=COLUMNS, seed="bb" * 32),
    )
    blobs = {digest: folder / "a.npy"}
    return work, blobs, folder / "result.npy", compute(work, blobs, CpuBackend(), folder / "result.npy", threads=2)


def test_result_is_the_product(case: Any) -> None:
    """The file holds the product in int32; root, digest and size are those of the file."""
    work, blobs, result, computed = case
    product = open_matrix(result, "int32", ROWS, COLUMNS)
    a = open_matrix(blobs[work.a.digest], "int8", ROWS, INNER).astype(np.int64)
    np.testing.assert_array_equal(product, a @ seeded_matrix("bb" * 32, INNER, COLUMNS).astype(np.int64))
    assert computed.root == root_of(product)
    assert computed.size == result_size(work) == result.stat().st_size
    assert memory_needed(work) > result_size(work)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 2_000, 1), (3, 5, 7), (2_500, 3, 2), (40, 131_071, 4), (500, 500, 500)]
)
def test_honest_results_are_accepted(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """A right result of any shape is accepted with an error of at most 2^-128, from a file and from memory."""
    work = seeded_work(*shape)
    result = tmp_path / "result.npy"
    computed = compute(work, {}, CpuBackend(), result)
    for given in (result, result.read_bytes()):
        verdict = verify(work, {}, given, computed.root, SEED)
        assert isinstance(verdict, Accepted)
        assert verdict.error_bits >= 128


def test_row_root_is_the_rfc_9162_tree_of_the_rows() -> None:
    """A single row can be shown with its path to the committed root."""
    product = np.arange(11 * 3, dtype=np.int32).reshape(11, 3)
    with ThreadPoolExecutor(2) as executor:
        found = bytes.fromhex(row_root(product, executor))
    leaves = [leaf_hash(row.tobytes()) for row in product]
    assert found.hex() == root_of(product)
    assert verify_inclusion(leaves[6], 6, 11, inclusion_path(leaves, 6), found)


def set_entry(product: np.ndarray, row: int, value: int) -> np.ndarray:
    forged = product.copy()
    forged[row, 17] = value
    return forged


FORGED = [
    ("one off", lambda c: set_entry(c, 850, int(c[850, 17]) + 1), RejectionCode.PRODUCT_MISMATCH, 850),
    ("error of 2^31", lambda c: set_entry(c, 3, (int(c[3, 17]) + 2**32) % 2**32 - 2**31), RejectionCode.RANGE, 3),
    ("beyond the range", lambda c: set_entry(c, 4, INNER * MAX_PRODUCT + 1), RejectionCode.RANGE, 4),
    ("edge of the range", lambda c: set_entry(c, 4, -INNER * MAX_PRODUCT), RejectionCode.PRODUCT_MISMATCH, 4),
    ("least int32", lambda c: set_entry(c, 899, -(2**31)), RejectionCode.RANGE, 899),
    ("two errors", lambda c: set_entry(set_entry(c, 700, -(2**31)), 20, 0), RejectionCode.PRODUCT_MISMATCH, 20),
    ("rank 1", lambda c: np.outer(c[:, 0], np.ones(COLUMNS, dtype=np.int32)), RejectionCode.PRODUCT_MISMATCH, 0),
    ("all zero", np.zeros_like, RejectionCode.PRODUCT_MISMATCH, 0),
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("forge", "code", "row"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED])
def test_forged_results_are_rejected(
    case: Any, tmp_path: Path, forge: Any, code: RejectionCode, row: int, threads: int
) -> None:
    """A wrong result with a root that fits it is rejected with its first wrong row, whatever the number of threads."""
    work, blobs, result, _ = case
    forged = forge(open_matrix(result, "int32", ROWS, COLUMNS))
    write_matrix(tmp_path / "forged.npy", forged)
    verdict = verify(work, blobs, tmp_path / "forged.npy", root_of(forged), SEED, threads)
    assert isinstance(verdict, Rejected)
    assert (verdict.code, verdict.row) == (code, row)


def test_result_that_was_not_committed_is_rejected(case: Any) -> None:
    """A right product is rejected under another root, and a wrong one is judged by its root first."""
    work, blobs, result, computed = case
    verdict = verify(work, blobs, result, "00" * 32, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH
    assert computed.root in verdict.detail
    content = bytearray(result.read_bytes())
    content[-1] ^= 0x80
    verdict = verify(work, blobs, bytes(content), computed.root, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH


DATA = bytes(ROWS * COLUMNS * 4)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", RejectionCode.MALFORMED),
        (b"no matrix", RejectionCode.MALFORMED),
        (header_bytes("int32", ROWS, COLUMNS) + DATA[:-1], RejectionCode.MALFORMED),
        (header_bytes("int32", ROWS, COLUMNS) + DATA + b"\0", RejectionCode.MALFORMED),
        (header_bytes("int8", ROWS, COLUMNS) + DATA[: ROWS * COLUMNS], RejectionCode.TYPE),
        (header_bytes("int32", ROWS, COLUMNS).replace(b"False", b"True ") + DATA, RejectionCode.TYPE),
        (header_bytes("int32", COLUMNS, ROWS) + DATA, RejectionCode.SHAPE),
        (header_bytes("int32", 1, ROWS * COLUMNS) + DATA, RejectionCode.SHAPE),
    ],
)
def test_misshapen_results_are_rejected(case: Any, tmp_path: Path, content: bytes, code: RejectionCode) -> None:
    """A result that is not the file of such a matrix is rejected as such, from a file and from memory."""
    work, blobs, _, computed = case
    path = tmp_path / "result.npy"
    path.write_bytes(content)
    for given in (path, content):
        verdict = verify(work, blobs, given, computed.root, SEED)
        assert isinstance(verdict, Rejected)
        assert verdict.code is code


@pytest.mark.parametrize("operand", ["a", "b"])
def test_bad_operand_is_the_clients_fault(case: Any, tmp_path: Path, operand: str) -> None:
    """A blob that is not the matrix of the work is a BadInput that names the operand, for miner and verifier."""
    _, _, result, computed = case
    path = tmp_path / "bad.npy"
    write_matrix(path, np.zeros((3, 3), dtype=np.int32))
    bad = BlobMatrix(rows=3, columns=3, digest="cc" * 32)
    good = SeededMatrix(rows=3, columns=3, seed="dd" * 32)
    work = MatmulInt8(a=bad, b=good) if operand == "a" else MatmulInt8(a=good, b=bad)
    for call in (
        lambda: compute(work, {bad.digest: path}, CpuBackend(), tmp_path / "result.npy"),
        lambda: verify(work, {bad.digest: path}, result, computed.root, SEED),
    ):
        with pytest.raises(BadInput, match=f"operand {operand}") as caught:
            call()
        assert caught.value.data["operand"] == operand
        assert caught.value.data["reason"] == "TYPE"


def test_verdicts_are_records() -> None:
    """A verdict can be written into a report and read back."""
    for verdict in (
        Accepted(error_bits=128),
        Rejected(code=RejectionCode.RANGE, detail="row 3 …", row=3),
        Rejected(code=RejectionCode.MALFORMED, detail="empty"),
    ):
        assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_verification_needs_little_memory(tmp_path: Path) -> None:
    """The check of a 16 MiB result allocates less than the result: no copy of a whole matrix ever exists."""
    a = seeded_matrix("aa" * 32, 2_048, 2_048)
    digest, _ = write_matrix(tmp_path / "a.npy", a)
    matrix = BlobMatrix(rows=2_048, columns=2_048, digest=digest)
    work = MatmulInt8(a=matrix, b=matrix)
    blobs = {digest: tmp_path / "a.npy"}
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result.npy")
    tracemalloc.start()
    try:
        verdict = verify(work, blobs, tmp_path / "result.npy", computed.root, SEED, threads=2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(verdict, Accepted)
    assert peak < 14 << 20


def test_verification_of_a_thin_product_needs_little_memory(tmp_path: Path) -> None:
    """Steps are as small where the operands are wide and the result is narrow: no copy of an operand exists either."""
    a = np.ones((64, 131_071), dtype=np.int8)
    digest, _ = write_matrix(tmp_path / "a.npy", a)
    work = MatmulInt8(
        a=BlobMatrix(rows=64, columns=131_071, digest=digest), b=SeededMatrix(rows=131_071, columns=1, seed="bb" * 32)
    )
    blobs = {digest: tmp_path / "a.npy"}
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result.npy")
    tracemalloc.start()
    try:
        verdict = verify(work, blobs, tmp_path / "result.npy", computed.root, SEED, threads=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(verdict, Accepted)
    assert peak < 24 << 20


def test_every_matrix_that_the_rules_allow_fits_into_a_blob() -> None:
    """No result is too large to be uploaded."""
    assert len(header_bytes("int32", MAX_SIDE, MAX_SIDE)) + MAX_MATRIX_BYTES <= Limits().blob_bytes
