"""Work on matrices: ``matmul.int8`` and ``matmul.fp16-exact``."""

from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from schemas.services.base import MAX_BLOB_BYTES, ServiceWork, ceil_div
from schemas.values import Digest

# A dot product of K int8 pairs is at most K * 128 * 128, which must fit an int32.
MAX_INNER: Final = 131_071
MAX_SIDE: Final = 16_384
# Elements of one matrix, whether operand (int8) or result (int32): what a blob holds beside the header of its file. For
# matrices made from a seed too, so that nobody has to hold more than that to compute or to verify.
MAX_MATRIX_BYTES: Final = MAX_BLOB_BYTES
MULTIPLICATIONS_PER_UNIT: Final = 1_000_000
# A half holds every integer up to 2**11. Sums of products up to 2**23 are exact in float32 in any order, and in the
# tensor cores too, which align the terms of a sum to the largest one and keep 24 bits of each.
MAX_HALF_INTEGER: Final = 2_048
MAX_EXACT_SUM: Final = 1 << 23

Side = Annotated[int, Meta(ge=1, le=MAX_INNER)]


class Matrix(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A matrix of ``rows`` × ``columns``, row by row, of the elements that its service takes."""

    rows: Side
    columns: Side


class BlobMatrix(Matrix, frozen=True, tag="blob", tag_field="kind"):
    """A ``.npy`` file, named by the SHA-256 of its bytes, uploaded by the job's sender."""

    digest: Digest


class SeededMatrix(Matrix, frozen=True, tag="seed", tag_field="kind"):
    """Element (i, j) is a function of (seed, i, j) alone; nothing is uploaded."""

    seed: Digest


def units_of_product(a: Matrix, b: Matrix) -> int:
    """Started millions of scalar multiplications."""
    return ceil_div(a.rows * a.columns * b.columns, MULTIPLICATIONS_PER_UNIT)


def mismatch(a: Matrix, b: Matrix, element_bytes: int) -> str | None:
    """Why two matrices cannot be multiplied here; an element of the product has four bytes."""
    if a.columns != b.rows:
        return f"a has {a.columns} columns, b has {b.rows} rows"
    for name, side in (("a.rows", a.rows), ("b.columns", b.columns)):
        if side > MAX_SIDE:
            return f"{name} is {side}, at most {MAX_SIDE} are possible"
    matrices = (
        ("a", a.rows * a.columns * element_bytes),
        ("b", b.rows * b.columns * element_bytes),
        ("the product", a.rows * b.columns * 4),
    )
    for name, size in matrices:
        if size > MAX_MATRIX_BYTES:
            return f"{name} has {size} bytes, at most {MAX_MATRIX_BYTES} are possible"
    return None


class MatmulInt8(ServiceWork, frozen=True, tag="matmul.int8", tag_field="service"):
    """The product of two int8 matrices as an int32 matrix. Verified whole by Freivalds' check in exact arithmetic."""

    unit_type: ClassVar[str] = "million_multiplications"

    a: BlobMatrix | SeededMatrix
    b: BlobMatrix | SeededMatrix

    def units(self) -> int:
        """Started millions of scalar multiplications."""
        return units_of_product(self.a, self.b)

    def blobs(self) -> tuple[str, ...]:
        return tuple(matrix.digest for matrix in (self.a, self.b) if isinstance(matrix, BlobMatrix))

    def inconsistency(self) -> str | None:
        """Why the two matrices cannot be multiplied here."""
        return mismatch(self.a, self.b, 1)

    def in_words(self) -> str:
        return f"{self.a.rows}×{self.a.columns} · {self.b.rows}×{self.b.columns}"


class MatmulFp16Exact(ServiceWork, frozen=True, tag="matmul.fp16-exact", tag_field="service"):
    """The product of two matrices of integers held as float16, as a float32 matrix; no sum is ever rounded.

    All elements are integers of magnitude at most ``limit``, and inner dimension × ``limit``² is at most 2**23. Element
    (i, j) of a matrix of a seed is ((e + 128) × (2 × ``limit`` + 1) div 256) − ``limit`` where matmul.int8 has e.
    Verified whole by Freivalds' check in exact arithmetic.
    """

    unit_type: ClassVar[str] = "million_multiplications"

    a: BlobMatrix | SeededMatrix
    b: BlobMatrix | SeededMatrix
    limit: Annotated[int, Meta(ge=1, le=MAX_HALF_INTEGER)]

    def units(self) -> int:
        """Started millions of scalar multiplications."""
        return units_of_product(self.a, self.b)

    def blobs(self) -> tuple[str, ...]:
        return tuple(matrix.digest for matrix in (self.a, self.b) if isinstance(matrix, BlobMatrix))

    def inconsistency(self) -> str | None:
        """Why the two matrices cannot be multiplied here, or not exactly."""
        most = self.a.columns * self.limit**2
        if most > MAX_EXACT_SUM:
            return f"sums of products can reach {most}, at most {MAX_EXACT_SUM} are exact"
        return mismatch(self.a, self.b, 2)

    def in_words(self) -> str:
        return f"{self.a.rows}×{self.a.columns} · {self.b.rows}×{self.b.columns}"
