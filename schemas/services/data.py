"""Work on data as it lies in a blob: ``sha256.tree``, ``histogram``, ``sort``."""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from schemas.services.base import MAX_BLOB_BYTES, BlobSize, ServiceWork, ceil_div
from schemas.values import Digest

BYTES_PER_MEBIBYTE: Final = 1_048_576
VALUES_PER_UNIT: Final = 1_000_000
MAX_BINS: Final = 65_536
VALUE_BYTES: Final = {"uint8": 1, "uint16": 2, "int16": 2, "int32": 4, "uint32": 4, "int64": 8}

ChunkBytes = Annotated[int, Meta(ge=1_024, le=1_048_576, description="bytes of a chunk, a power of two")]
Length = Annotated[int, Meta(ge=1, le=MAX_BLOB_BYTES, description="number of values")]


class Sha256Tree(ServiceWork, frozen=True, tag="sha256.tree", tag_field="service"):
    """The leaf hashes of the RFC 9162 Merkle tree over a blob in chunks; the last chunk may be short."""

    unit_type: ClassVar[str] = "mebibytes"

    digest: Digest
    size: BlobSize
    chunk_bytes: ChunkBytes

    def units(self) -> int:
        """Started mebibytes."""
        return ceil_div(self.size, BYTES_PER_MEBIBYTE)

    def blobs(self) -> tuple[str, ...]:
        return (self.digest,)

    def inconsistency(self) -> str | None:
        """Why the blob cannot be cut so."""
        if self.chunk_bytes & (self.chunk_bytes - 1):
            return f"chunk_bytes is {self.chunk_bytes}, which is no power of two"
        return None

    def in_words(self) -> str:
        return f"{self.size} bytes in chunks of {self.chunk_bytes}"


class Histogram(ServiceWork, frozen=True, tag="histogram", tag_field="service"):
    """How many values of a ``.npy`` vector lie in each of ``count`` bins of ``width`` from ``low`` on, below, above."""

    unit_type: ClassVar[str] = "million_values"

    digest: Digest
    element: Literal["uint8", "uint16", "int16", "int32"]
    length: Length
    low: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, description="the least value of the first bin")]
    width: Annotated[int, Meta(ge=1, le=2**32 - 1, description="how many integers fall into one bin")]
    count: Annotated[int, Meta(ge=1, le=MAX_BINS, description="number of bins")]

    def units(self) -> int:
        """Started millions of values."""
        return ceil_div(self.length, VALUES_PER_UNIT)

    def blobs(self) -> tuple[str, ...]:
        return (self.digest,)

    def inconsistency(self) -> str | None:
        """Why there cannot be so many values."""
        return _too_large(self.length, self.element)

    def in_words(self) -> str:
        return f"{self.length} {self.element} in {self.count} bins of {self.width} from {self.low}"


class Sort(ServiceWork, frozen=True, tag="sort", tag_field="service"):
    """The values of a ``.npy`` vector in ascending order. Verified whole, by order and by a fingerprint."""

    unit_type: ClassVar[str] = "million_values"

    digest: Digest
    element: Literal["int32", "int64", "uint32"]
    length: Length

    def units(self) -> int:
        """Started millions of values."""
        return ceil_div(self.length, VALUES_PER_UNIT)

    def blobs(self) -> tuple[str, ...]:
        return (self.digest,)

    def inconsistency(self) -> str | None:
        """Why there cannot be so many values."""
        return _too_large(self.length, self.element)

    def in_words(self) -> str:
        return f"{self.length} {self.element}"


def _too_large(length: int, element: str) -> str | None:
    size = length * VALUE_BYTES[element]
    if size > MAX_BLOB_BYTES:
        return f"{length} values of {element} have {size} bytes, at most {MAX_BLOB_BYTES} are possible"
    return None
