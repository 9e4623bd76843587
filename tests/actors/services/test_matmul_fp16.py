"""The service matmul.fp16-exact: computing, committing, and judging a result."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.services.base import Accepted, Computed, Rejected, RejectionCode
from actors.services.generator import seeded_matrix
from actors.services.matmul_fp16 import compute, memory_needed, operands, result_size, verify
from actors.services.npy import header_bytes, open_matrix, write_matrix
from events.errors import BadInput
from events.merkle import root
from schemas.services import MAX_EXACT_SUM, BlobMatrix, MatmulFp16Exact, SeededMatrix

SEED = "5e" * 32
ROWS, INNER, COLUMNS, LIMIT = 300, 70, 200, 300


def seeded_work(rows: int, inner: int, columns: int, limit: int) -> MatmulFp16Exact:
    return MatmulFp16Exact(
        a=SeededMatrix(rows=rows, columns=inner, seed="aa" * 32),
        b=SeededMatrix(rows=inner, columns=columns, seed="bb" * 32),
        limit=limit,
    )


def root_of(product: np.ndarray) -> str:
    return root(row.astype("<f4").tobytes() for row in product).hex()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[MatmulFp16Exact, dict[str, Path], Path, Computed]:
    """A work with a blob and a seed, its files, and an honest result."""
    folder = tmp_path_factory.mktemp("matmul")
    a = np.random.default_rng(1).integers(-LIMIT, LIMIT + 1, (ROWS, INNER)).astype(np.float16)
    digest, _ = write_matrix(folder / "a.npy", a)
    work = MatmulFp16Exact(
        a=BlobMatrix(rows=ROWS, columns=INNER, digest=digest),
        b=SeededMatrix(rows=INNER, columns=COLUMNS, seed="bb" * 32),
        limit=LIMIT,
    )
    blobs = {digest: folder / "a.npy"}
    return work, blobs, folder / "result.npy", compute(work, blobs, CpuBackend(), folder / "result.npy", threads=2)


def test_result_is_the_product(case: Any) -> None:
    """The file holds the product in float32; root, digest and size are those of the file."""
    work, blobs, result, computed = case
    product = open_matrix(result, "float32", ROWS, COLUMNS)
    a = open_matrix(blobs[work.a.digest], "float16", ROWS, INNER).astype(np.int64)
    elements = seeded_matrix("bb" * 32, INNER, COLUMNS).astype(np.int64)
    b = ((elements + 128) * (2 * LIMIT + 1) >> 8) - LIMIT
    assert (b.min(), b.max()) == (-LIMIT, LIMIT - 2)
    np.testing.assert_array_equal(product, a @ b)
    assert computed.root == root_of(product)
    assert computed.size == result_size(work) == result.stat().st_size
    assert memory_needed(work) > result_size(work)


@pytest.mark.parametrize(
    ("shape", "limit"),
    [((1, 1, 1), 1), ((1, 1, 1), 2_048), ((3, 2, 7), 2_048), ((5, 131_071, 2), 8), ((400, 500, 300), 129)],
)
def test_honest_results_are_accepted(tmp_path: Path, shape: tuple[int, int, int], limit: int) -> None:
    """A right result of any shape is accepted with an error of at most 2^-128, from a file and from memory."""
    work = seeded_work(*shape, limit)
    assert work.inconsistency() is None
    result = tmp_path / "result.npy"
    computed = compute(work, {}, CpuBackend(), result)
    for given in (result, result.read_bytes()):
        verdict = verify(work, {}, given, computed.root, SEED)
        assert isinstance(verdict, Accepted)
        assert verdict.error_bits >= 128


@pytest.mark.parametrize("sign", [1, -1])
def test_largest_sums_are_exact(sign: int) -> None:
    """Sums that fill all the bits there are, with an odd end, are not rounded; zeros are positive."""
    inner, limit = 128, 256
    assert inner * limit**2 == MAX_EXACT_SUM
    a = np.full((2, inner), limit, dtype=np.float16)
    b = np.full((inner, 3), sign * limit, dtype=np.float16)
    b[-1] = [sign * 255, sign * limit, -1]
    b[:, 2] *= 0
    product = CpuBackend().multiply_fp16(a, b)
    np.testing.assert_array_equal(product, a.astype(np.int64) @ b.astype(np.int64))
    assert not np.signbit(product[:, 2]).any()


def changed(product: np.ndarray, row: int, value: float) -> np.ndarray:
    forged = product.copy()
    forged[row, 17] = value
    return forged


FORGED = [
    ("one off", lambda c: changed(c, 280, c[280, 17] + 1), RejectionCode.PRODUCT_MISMATCH, 280),
    ("other sign", lambda c: -c, RejectionCode.PRODUCT_MISMATCH, 0),
    ("a fraction", lambda c: changed(c, 3, c[3, 17] + np.float32(0.5)), RejectionCode.RANGE, 3),
    ("not a number", lambda c: changed(c, 3, np.nan), RejectionCode.RANGE, 3),
    ("infinite", lambda c: changed(c, 299, -np.inf), RejectionCode.RANGE, 299),
    ("beyond the range", lambda c: changed(c, 4, INNER * LIMIT**2 + 1), RejectionCode.RANGE, 4),
    ("edge of the range", lambda c: changed(c, 4, -INNER * LIMIT**2), RejectionCode.PRODUCT_MISMATCH, 4),
    ("negative zero", lambda c: changed(c, 5, -0.0), RejectionCode.RANGE, 5),
    ("negative zero first", lambda c: changed(changed(c, 9, np.inf), 5, -0.0), RejectionCode.RANGE, 5),
    ("smallest number", lambda c: changed(c, 5, 1e-45), RejectionCode.RANGE, 5),
    ("all zero", np.zeros_like, RejectionCode.PRODUCT_MISMATCH, 0),
    ("rank 1", lambda c: np.outer(c[:, 0], np.ones(COLUMNS)).astype("f4"), RejectionCode.PRODUCT_MISMATCH, 0),
]


@pytest.mark.parametrize(("forge", "code", "row"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED])
def test_forged_results_are_rejected(case: Any, tmp_path: Path, forge: Any, code: RejectionCode, row: int) -> None:
    """A wrong result with a root that fits it is rejected with its first wrong row, whatever the number of threads."""
    work, blobs, result, _ = case
    forged = forge(open_matrix(result, "float32", ROWS, COLUMNS))
    write_matrix(tmp_path / "forged.npy", forged)
    for threads in (1, 3):
        verdict = verify(work, blobs, tmp_path / "forged.npy", root_of(forged), SEED, threads)
        assert isinstance(verdict, Rejected)
        assert (verdict.code, verdict.row) == (code, row)


def test_result_that_was_not_committed_is_rejected(case: Any) -> None:
    """A right product is rejected under another root."""
    work, blobs, result, _ = case
    verdict = verify(work, blobs, result, "00" * 32, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH


DATA = bytes(ROWS * COLUMNS * 4)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", RejectionCode.MALFORMED),
        (header_bytes("float32", ROWS, COLUMNS) + DATA[:-1], RejectionCode.MALFORMED),
        (header_bytes("int32", ROWS, COLUMNS) + DATA, RejectionCode.TYPE),
        (header_bytes("float32", COLUMNS, ROWS) + DATA, RejectionCode.SHAPE),
    ],
)
def test_misshapen_results_are_rejected(case: Any, content: bytes, code: RejectionCode) -> None:
    """A result that is not the file of such a matrix is rejected as such."""
    work, blobs, _, computed = case
    verdict = verify(work, blobs, content, computed.root, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is code


@pytest.mark.parametrize("value", [0.5, 301.0, -301.0, np.nan, np.inf, -np.inf, 6e-8])
def test_bad_operand_is_the_clients_fault(case: Any, tmp_path: Path, value: float) -> None:
    """An element that is no integer within the limit is a BadInput that names operand and row."""
    a = np.ones((ROWS, INNER), dtype=np.float16)
    a[123, 4] = value
    digest, _ = write_matrix(tmp_path / "a.npy", a)
    work = MatmulFp16Exact(a=BlobMatrix(rows=ROWS, columns=INNER, digest=digest), b=case[0].b, limit=LIMIT)
    with pytest.raises(BadInput, match="row 123") as caught:
        operands(work, {digest: tmp_path / "a.npy"})
    assert caught.value.data["operand"] == "a"


def test_operand_of_another_type_is_refused(case: Any, tmp_path: Path) -> None:
    """Integers in int8 are another service's."""
    digest, _ = write_matrix(tmp_path / "a.npy", np.ones((ROWS, INNER), dtype=np.int8))
    work = MatmulFp16Exact(a=BlobMatrix(rows=ROWS, columns=INNER, digest=digest), b=case[0].b, limit=LIMIT)
    with pytest.raises(BadInput, match="operand a") as caught:
        operands(work, {digest: tmp_path / "a.npy"})
    assert caught.value.data["reason"] == "TYPE"


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (seeded_work(1, 129, 1, 256), "8454144"),
        (seeded_work(1, 3, 1, 2_048), "exact"),
        (seeded_work(16_385, 1, 1, 1), "a.rows"),
        (seeded_work(2_049, 16_384, 1, 1), "bytes"),
    ],
)
def test_works_that_cannot_be_done_exactly(work: MatmulFp16Exact, words: str) -> None:
    """Sums that could be rounded, and matrices that are too large, are inconsistent works."""
    assert words in str(work.inconsistency())
