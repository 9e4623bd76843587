"""The work that a job can ask for: one record per service, told apart by its field ``service``."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from schemas.values import Digest

# A dot product of K int8 pairs is at most K * 128 * 128, which must fit an int32.
MAX_INNER: Final = 131_071
MAX_SIDE: Final = 16_384
# Elements of one matrix, whether operand (int8) or result (int32): what a blob holds beside the header of its file. For
# matrices made from a seed too, so that nobody has to hold more than that to compute or to verify.
MAX_MATRIX_BYTES: Final = 67_108_864
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


class MatmulInt8(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="matmul.int8", tag_field="service"):
    """The product of two int8 matrices as an int32 matrix. Verified whole by Freivalds' check in exact arithmetic."""

    a: BlobMatrix | SeededMatrix
    b: BlobMatrix | SeededMatrix


Work = MatmulInt8

UNIT_TYPE: Final = "million_multiplications"


def service_of(work: Work) -> str:
    """The service's name, as in the field ``service``."""
    return str(work.__struct_config__.tag)


def units_of(work: Work) -> int:
    """The size of the work that is paid for: started millions of scalar multiplications."""
    multiplications = work.a.rows * work.a.columns * work.b.columns
    return -(-multiplications // MULTIPLICATIONS_PER_UNIT)


def blobs_of(work: Work) -> tuple[str, ...]:
    """Digests of the blobs that the work reads, in the order of its fields."""
    return tuple(matrix.digest for matrix in (work.a, work.b) if isinstance(matrix, BlobMatrix))
