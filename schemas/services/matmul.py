"""Work on matrices: ``matmul.int8``."""

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

Side = Annotated[int, Meta(ge=1, le=MAX_INNER)]


class Matrix(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An int8 matrix of ``rows`` × ``columns``, row by row."""

    rows: Side
    columns: Side


class BlobMatrix(Matrix, frozen=True, tag="blob", tag_field="kind"):
    """A ``.npy`` file, named by the SHA-256 of its bytes, uploaded by the job's sender."""

    digest: Digest


class SeededMatrix(Matrix, frozen=True, tag="seed", tag_field="kind"):
    """Element (i, j) is a function of (seed, i, j) alone; nothing is uploaded."""

    seed: Digest


class MatmulInt8(ServiceWork, frozen=True, tag="matmul.int8", tag_field="service"):
    """The product of two int8 matrices as an int32 matrix. Verified whole by Freivalds' check in exact arithmetic."""

    unit_type: ClassVar[str] = "million_multiplications"

    a: BlobMatrix | SeededMatrix
    b: BlobMatrix | SeededMatrix

    def units(self) -> int:
        """Started millions of scalar multiplications."""
        return ceil_div(self.a.rows * self.a.columns * self.b.columns, MULTIPLICATIONS_PER_UNIT)

    def blobs(self) -> tuple[str, ...]:
        return tuple(matrix.digest for matrix in (self.a, self.b) if isinstance(matrix, BlobMatrix))

    def inconsistency(self) -> str | None:
        """Why the two matrices cannot be multiplied here."""
        a, b = self.a, self.b
        if a.columns != b.rows:
            return f"a has {a.columns} columns, b has {b.rows} rows"
        for name, side in (("a.rows", a.rows), ("b.columns", b.columns)):
            if side > MAX_SIDE:
                return f"{name} is {side}, at most {MAX_SIDE} are possible"
        matrices = (("a", a.rows * a.columns), ("b", b.rows * b.columns), ("the product", a.rows * b.columns * 4))
        for name, size in matrices:
            if size > MAX_MATRIX_BYTES:
                return f"{name} has {size} bytes, at most {MAX_MATRIX_BYTES} are possible"
        return None

    def in_words(self) -> str:
        return f"{self.a.rows}×{self.a.columns} · {self.b.rows}×{self.b.columns}"
