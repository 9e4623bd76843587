"""What every record of work has in common."""

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

# What a blob may have: inputs and results alike.
MAX_BLOB_BYTES = 67_108_864
BlobSize = Annotated[int, Meta(ge=1, le=MAX_BLOB_BYTES, description="bytes of a blob")]


class ServiceWork(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all work. A subclass is the parameter schema of one service, told apart by its tag ``service``.

    ``unit_type`` names what is paid for; `units` counts it, rounded up, from the record alone.
    """

    unit_type: ClassVar[str]

    def units(self) -> int:
        """The size of the work that is paid for; at least 1."""
        raise NotImplementedError

    def blobs(self) -> tuple[str, ...]:
        """Digests of the blobs that the work reads, in the order of its fields."""
        return ()

    def inconsistency(self) -> str | None:
        """What contradicts itself or is too large, beyond what the bounds of single fields say; None for nothing."""
        return None

    def in_words(self) -> str:
        """The sizes, for people."""
        return ""


def ceil_div(amount: int, unit: int) -> int:
    """Started units."""
    return -(-amount // unit)
