"""The service ``matmul.int8``: the exact int32 product of two int8 matrices.

A miner computes the product, writes it as a ``.npy`` file, and commits itself to the Merkle root of its rows (RFC
9162; leaf *i* is row *i* as little-endian int32, so that a single row can later be shown with its path) and to the
file's digest. Only then does the block that holds the commitment yield the random seed of the check, which covers
every entry; see `actors.services.freivalds` for its error bound.
"""

import os
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from actors.backends.base import Backend, Int8Array, Int32Array, Progress, no_progress
from actors.backends.cpu import EXACT_INNER
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.freivalds import error_bits, out_of_range_row, row_checker, row_steps
from actors.services.generator import seeded_matrix
from actors.services.npy import MAX_HEADER, MAX_PREFIX, header_bytes, matrix_from_bytes, open_matrix, write_matrix
from events.errors import BadInput
from events.merkle import leaf_hash, root_of_hashes
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix
from schemas.values import Digest

SUFFIX: Final = "npy"
BYTES_PER_ENTRY: Final = 4
# Blocks of rows, the buffers of the BLAS, and a stack.
BYTES_PER_THREAD: Final = 96 << 20
FIXED_BYTES: Final = 64 << 20


def result_size(work: MatmulInt8) -> int:
    """Bytes of the file that `compute` writes."""
    rows, columns = work.a.rows, work.b.columns
    return len(header_bytes("int32", rows, columns)) + rows * columns * BYTES_PER_ENTRY


def result_sizes(work: MatmulInt8) -> range:
    """Bytes that a file which `verify` reads can have: other programs write other headers."""
    entries = work.a.rows * work.b.columns * BYTES_PER_ENTRY
    return range(entries, entries + MAX_PREFIX + MAX_HEADER + 1)


def memory_needed(work: MatmulInt8, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    rows, inner, columns = work.a.rows, work.a.columns, work.b.columns
    matrices = rows * inner + inner * columns + rows * columns * BYTES_PER_ENTRY
    pieces = min(inner, EXACT_INNER) * columns * 4 + threads * BYTES_PER_THREAD
    return matrices + pieces + FIXED_BYTES


def operands(work: MatmulInt8, blobs: Mapping[Digest, Path]) -> tuple[Int8Array, Int8Array]:
    """Both matrices: memory-mapped from the file of their digest, or made from their seed.

    Raises `BadInput` when a file is not the matrix that the work describes; its data then has ``operand``, a or b.
    """
    return _operand("a", work.a, blobs), _operand("b", work.b, blobs)


def _operand(name: str, matrix: BlobMatrix | SeededMatrix, blobs: Mapping[Digest, Path]) -> Int8Array:
    if isinstance(matrix, SeededMatrix):
        return seeded_matrix(matrix.seed, matrix.rows, matrix.columns)
    try:
        return open_matrix(blobs[matrix.digest], "int8", matrix.rows, matrix.columns)
    except BadInput as error:
        data = {**error.data, "operand": name}
        raise BadInput(f"operand {name}: {error.what}", why=error.why, hint=error.hint, **data) from error


def check_inputs(work: MatmulInt8, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when a file is not the matrix that the work describes."""
    for name, matrix in (("a", work.a), ("b", work.b)):
        if isinstance(matrix, BlobMatrix):
            _operand(name, matrix, blobs)


def row_hashes(rows: Int32Array) -> list[bytes]:
    """The leaf hash of each row."""
    return [leaf_hash(row.astype("<i4", copy=False).tobytes()) for row in rows]


def row_root(product: Int32Array, executor: Executor) -> Digest:
    """The root over all rows; the hashing runs in the executor's threads."""
    steps = executor.map(lambda rows: row_hashes(product[rows]), row_steps(*product.shape))
    return root_of_hashes([leaf for leaves in steps for leaf in leaves]).hex()


def compute(
    work: MatmulInt8,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""
    a, b = operands(work, blobs)
    product = backend.multiply(a, b, progress)
    with ThreadPoolExecutor(threads + 1, thread_name_prefix="hash") as executor:
        written = executor.submit(write_matrix, result, product)
        root = row_root(product, executor)
        digest, size = written.result()
    return Computed(root=root, digest=digest, size=size)


def verify(
    work: MatmulInt8, blobs: Mapping[Digest, Path], result: Path | bytes, root: Digest, seed: Digest, threads: int = 0
) -> Verdict:
    """Check the whole result: its form, its root, its range, and the product itself with the challenge of ``seed``.

    ``seed`` must have been unknown when ``root`` was committed. ``threads`` 0 takes what suits the machine.
    The verdict depends on the arguments alone. Beside the operands it holds a few MiB; files are memory-mapped.
    Raises `BadInput` when an operand's file is not what the work says: the result can then not be judged.
    """
    rows, columns = work.a.rows, work.b.columns
    inner = work.a.columns
    a, b = operands(work, blobs)
    try:
        if isinstance(result, bytes):
            product: Int32Array = matrix_from_bytes(result, "int32", rows, columns)
        else:
            product = open_matrix(result, "int32", rows, columns)
    except BadInput as error:
        return Rejected(code=RejectionCode(error.data["reason"]), detail=error.why)

    with ThreadPoolExecutor(threads or free_threads(), thread_name_prefix="verify") as executor:
        wrong_row = row_checker(a, b, seed, executor)

        def check(step: slice) -> tuple[list[bytes], Rejected | None]:
            part = product[step]
            leaves = row_hashes(part)
            outside = out_of_range_row(part, inner)
            if outside is not None:
                return leaves, _out_of_range(step.start + outside)
            wrong = wrong_row(step, part)
            return leaves, None if wrong is None else _not_the_product(wrong)

        checked = list(executor.map(check, row_steps(rows, max(inner, columns))))
    found = root_of_hashes([leaf for leaves, _ in checked for leaf in leaves]).hex()
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the rows have the root {found}, {root} was committed"
        )
    for _, rejected in checked:
        if rejected is not None:
            return rejected
    return Accepted(error_bits=error_bits(inner, columns))


def free_threads() -> int:
    """One thread per processor where the BLAS keeps to one; else one: the two kinds hinder each other."""
    return min(4, os.cpu_count() or 1) if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else 1


def _out_of_range(row: int) -> Rejected:
    detail = f"row {row} has an entry that no product of int8 matrices of this size can have"
    return Rejected(code=RejectionCode.RANGE, detail=detail, row=row)


def _not_the_product(row: int) -> Rejected:
    return Rejected(code=RejectionCode.PRODUCT_MISMATCH, detail=f"row {row} is not that of the product", row=row)
