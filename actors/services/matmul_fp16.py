"""The service ``matmul.fp16-exact``: the product of matrices of integers that are held as float16.

It is what tensor cores are fastest at among the things that every card does alike: all elements are integers of
magnitude at most L, and K · L² ≤ 2**23, so that no sum is rounded, in whatever order it is taken. The result is a
float32 matrix of integers, without negative zeros; commitment and check are those of `actors.services.matmul`.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from actors.backends.base import Backend, Float16Array, Float32Array, Int8Array, Progress, no_progress
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.freivalds import error_bits, row_checker, row_steps
from actors.services.generator import seeded_rows
from actors.services.matmul import BYTES_PER_THREAD, FIXED_BYTES, free_threads
from actors.services.npy import MAX_HEADER, MAX_PREFIX, header_bytes, matrix_from_bytes, open_matrix, write_matrix
from events.errors import BadInput
from events.merkle import leaf_hash, root_of_hashes
from schemas.services import BlobMatrix, MatmulFp16Exact, SeededMatrix
from schemas.values import Digest

SUFFIX: Final = "npy"
BYTES_PER_ENTRY: Final = 4


def result_size(work: MatmulFp16Exact) -> int:
    """Bytes of the file that `compute` writes."""
    rows, columns = work.a.rows, work.b.columns
    return len(header_bytes("float32", rows, columns)) + rows * columns * BYTES_PER_ENTRY


def result_sizes(work: MatmulFp16Exact) -> range:
    """Bytes that a file which `verify` reads can have: other programs write other headers."""
    entries = work.a.rows * work.b.columns * BYTES_PER_ENTRY
    return range(entries, entries + MAX_PREFIX + MAX_HEADER + 1)


def memory_needed(work: MatmulFp16Exact, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    rows, inner, columns = work.a.rows, work.a.columns, work.b.columns
    matrices = 2 * rows * inner + 6 * inner * columns + 2 * rows * columns * BYTES_PER_ENTRY
    return matrices + threads * BYTES_PER_THREAD + FIXED_BYTES


def operands(work: MatmulFp16Exact, blobs: Mapping[Digest, Path]) -> tuple[Float16Array, Float16Array]:
    """Both matrices: memory-mapped from the file of their digest, or made from their seed.

    Raises `BadInput` when a file is not the matrix that the work describes, or an element is no integer within the
    limit; its data then has ``operand``, a or b.
    """
    return _operand("a", work.a, work.limit, blobs), _operand("b", work.b, work.limit, blobs)


def _operand(name: str, matrix: BlobMatrix | SeededMatrix, limit: int, blobs: Mapping[Digest, Path]) -> Float16Array:
    if isinstance(matrix, SeededMatrix):
        return seeded_integers(matrix, limit)
    try:
        found: Float16Array = open_matrix(blobs[matrix.digest], "float16", matrix.rows, matrix.columns)
    except BadInput as error:
        data = {**error.data, "operand": name}
        raise BadInput(f"operand {name}: {error.what}", why=error.why, hint=error.hint, **data) from error
    for step in row_steps(matrix.rows, matrix.columns):
        wrong = not_an_integer_within(found[step], limit)
        if wrong is not None:
            raise BadInput(
                f"operand {name} is refused",
                why=f"row {step.start + wrong} has an element that is no integer of magnitude at most {limit}",
                hint="Round the matrix, or give a larger limit.",
                reason="RANGE",
                operand=name,
            )
    return found


def seeded_integers(matrix: SeededMatrix, limit: int) -> Float16Array:
    """The matrix of a seed, spread over −limit … limit."""
    integers = np.empty((matrix.rows, matrix.columns), dtype=np.float16)
    for step in row_steps(matrix.rows, matrix.columns):
        elements: Int8Array = seeded_rows(matrix.seed, step.start, step.stop - step.start, matrix.columns)
        integers[step] = ((elements.astype(np.int32) + 128) * (2 * limit + 1) >> 8) - limit
    return integers


def not_an_integer_within(rows: np.ndarray[Any, Any], limit: int) -> int | None:
    """The first row with an element that is no integer, or larger in magnitude; None where there is none."""
    values = rows.astype(np.float32)
    # A comparison with what is not a number is false.
    right = (np.abs(values) <= limit) & (np.trunc(values) == values)
    return None if right.all() else int(np.argmin(right.all(axis=1)))


def check_inputs(work: MatmulFp16Exact, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when a file is not the matrix that the work describes."""
    for name, matrix in (("a", work.a), ("b", work.b)):
        if isinstance(matrix, BlobMatrix):
            _operand(name, matrix, work.limit, blobs)


def row_hashes(rows: Float32Array) -> list[bytes]:
    """The leaf hash of each row, as little-endian float32."""
    return [leaf_hash(row.astype("<f4", copy=False).tobytes()) for row in rows]


def compute(
    work: MatmulFp16Exact,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""
    a, b = operands(work, blobs)
    product = backend.multiply_fp16(a, b, progress)
    with ThreadPoolExecutor(threads + 1, thread_name_prefix="hash") as executor:
        written = executor.submit(write_matrix, result, product)
        steps = executor.map(lambda rows: row_hashes(product[rows]), row_steps(*product.shape))
        root = root_of_hashes([leaf for leaves in steps for leaf in leaves]).hex()
        digest, size = written.result()
    return Computed(root=root, digest=digest, size=size)


def verify(
    work: MatmulFp16Exact,
    blobs: Mapping[Digest, Path],
    result: Path | bytes,
    root: Digest,
    seed: Digest,
    threads: int = 0,
) -> Verdict:
    """Check the whole result: its form, its root, that all entries are integers in range and no zero is negative, and
    the product itself with the challenge of ``seed``. See `actors.services.base.Service.verify`.
    """
    rows, columns, inner = work.a.rows, work.b.columns, work.a.columns
    a, b = operands(work, blobs)
    try:
        product: Float32Array = (
            matrix_from_bytes(result, "float32", rows, columns)
            if isinstance(result, bytes)
            else open_matrix(result, "float32", rows, columns)
        )
    except BadInput as error:
        return Rejected(code=RejectionCode(error.data["reason"]), detail=error.why)

    most = work.limit**2
    with ThreadPoolExecutor(threads or free_threads(), thread_name_prefix="verify") as executor:
        wrong_row = row_checker(a, b, seed, executor, most)

        def check(step: slice) -> tuple[list[bytes], Rejected | None]:
            part = product[step]
            leaves = row_hashes(part)
            outside = _out_of_range_row(part, inner * most)
            if outside is not None:
                return leaves, _rejected(RejectionCode.RANGE, step.start + outside)
            wrong = wrong_row(step, part)
            return leaves, None if wrong is None else _rejected(RejectionCode.PRODUCT_MISMATCH, wrong)

        checked = list(executor.map(check, row_steps(rows, max(inner, columns))))
    found = root_of_hashes([leaf for leaves, _ in checked for leaf in leaves]).hex()
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the rows have the root {found}, {root} was committed"
        )
    for _, rejected in checked:
        if rejected is not None:
            return rejected
    return Accepted(error_bits=error_bits(inner, columns, most))


def _out_of_range_row(rows: Float32Array, most: int) -> int | None:
    """The first row with what no exact product has: a fraction, too large a number, a negative zero."""
    wrong = not_an_integer_within(rows, most)
    negative = (np.signbit(rows) & (rows == 0)).any(axis=1)
    if not negative.any():
        return wrong
    first = int(np.argmax(negative))
    return first if wrong is None else min(first, wrong)


def _rejected(code: RejectionCode, row: int) -> Rejected:
    detail = (
        f"row {row} is not that of the product"
        if code is RejectionCode.PRODUCT_MISMATCH
        else f"row {row} has an entry that no exact product of this size can have"
    )
    return Rejected(code=code, detail=detail, row=row)
