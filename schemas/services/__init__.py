"""The work that a job can ask for: one record per service, told apart by its field ``service``."""

from schemas.services.base import MAX_BLOB_BYTES, ServiceWork
from schemas.services.clusters import BlobPoints, KMeans, SeededPoints
from schemas.services.custom import KernelCustom
from schemas.services.data import MAX_BINS, VALUE_BYTES, Histogram, Sha256Tree, Sort
from schemas.services.matmul import (
    MAX_EXACT_SUM,
    MAX_HALF_INTEGER,
    MAX_INNER,
    MAX_MATRIX_BYTES,
    MAX_SIDE,
    BlobMatrix,
    MatmulFp16Exact,
    MatmulInt8,
    Matrix,
    SeededMatrix,
)
from schemas.services.pictures import (
    CENTRE_FRACTION_BITS,
    FRACTION_BITS,
    MAX_KERNEL_SIDE,
    MAX_WEIGHT,
    ImageConvolve,
    Mandelbrot,
    Picture,
)
from schemas.services.simulations import (
    BODIES_PER_SLICE,
    DAYS_PER_YEAR,
    MILLION,
    STATE_BYTES,
    BlobBodies,
    MonteCarloOption,
    NBody,
    SeededBodies,
)

__all__ = [
    "BODIES_PER_SLICE",
    "CENTRE_FRACTION_BITS",
    "DAYS_PER_YEAR",
    "FRACTION_BITS",
    "MAX_BINS",
    "MAX_BLOB_BYTES",
    "MAX_EXACT_SUM",
    "MAX_HALF_INTEGER",
    "MAX_INNER",
    "MAX_KERNEL_SIDE",
    "MAX_MATRIX_BYTES",
    "MAX_SIDE",
    "MAX_WEIGHT",
    "MILLION",
    "STATE_BYTES",
    "VALUE_BYTES",
    "WORK_TYPES",
    "BlobBodies",
    "BlobMatrix",
    "BlobPoints",
    "Histogram",
    "ImageConvolve",
    "KMeans",
    "KernelCustom",
    "Mandelbrot",
    "MatmulFp16Exact",
    "MatmulInt8",
    "Matrix",
    "MonteCarloOption",
    "NBody",
    "Picture",
    "SeededBodies",
    "SeededMatrix",
    "SeededPoints",
    "ServiceWork",
    "Sha256Tree",
    "Sort",
    "Work",
    "blobs_of",
    "service_of",
    "unit_type_of",
    "units_of",
]

Work = (
    MatmulInt8
    | MatmulFp16Exact
    | Sha256Tree
    | Histogram
    | Sort
    | MonteCarloOption
    | NBody
    | ImageConvolve
    | Mandelbrot
    | KMeans
    | KernelCustom
)

WORK_TYPES: tuple[type[ServiceWork], ...] = (
    MatmulInt8,
    MatmulFp16Exact,
    Sha256Tree,
    Histogram,
    Sort,
    MonteCarloOption,
    NBody,
    ImageConvolve,
    Mandelbrot,
    KMeans,
    KernelCustom,
)


def service_of(work: ServiceWork | type[ServiceWork]) -> str:
    """The service's name, as in the field ``service``."""
    return str(work.__struct_config__.tag)


def units_of(work: ServiceWork) -> int:
    """The size of the work that is paid for, in its `unit_type_of`."""
    return work.units()


def unit_type_of(work: ServiceWork) -> str:
    """What one unit of the work is."""
    return work.unit_type


def blobs_of(work: ServiceWork) -> tuple[str, ...]:
    """Digests of the blobs that the work reads, in the order of its fields."""
    return work.blobs()
