"""Work of the client's own making: ``kernel.custom``."""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct

from schemas.services.base import MAX_BLOB_BYTES, BlobSize, ServiceWork, ceil_div
from schemas.values import Digest

ELEMENT_BYTES: Final = {
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}
THREADS_PER_UNIT: Final = 1_000_000
MAX_SOURCE_BYTES: Final = 262_144
MAX_THREADS_PER_BLOCK: Final = 1_024

ElementType = Literal[
    "int8", "uint8", "int16", "uint16", "float16", "int32", "uint32", "float32", "int64", "uint64", "float64"
]
Length = Annotated[int, Meta(ge=1, le=MAX_BLOB_BYTES, description="elements of a buffer")]
Blocks = Annotated[int, Meta(ge=1, le=65_535)]
Threads = Annotated[int, Meta(ge=1, le=MAX_THREADS_PER_BLOCK)]


class InputBuffer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="input", tag_field="kind"):
    """A pointer to the bytes of a blob: ``length`` elements, nothing before or after them."""

    digest: Digest
    element: ElementType
    length: Length


class OutputBuffer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="output", tag_field="kind"):
    """A pointer to memory full of zeros, which becomes a part of the result."""

    element: ElementType
    length: Length


class Scalar(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="scalar", tag_field="kind"):
    """A number by value: its bytes, little-endian, in hexadecimal."""

    element: ElementType
    bytes: Annotated[str, Meta(pattern=r"^([0-9a-f]{2}){1,8}\Z")]


class KernelCustom(ServiceWork, frozen=True, kw_only=True, tag="kernel.custom", tag_field="service"):
    """One launch of a kernel in CUDA C++ that the client brings. Nobody can know what it should compute, so its result
    is not verified.

    ``source`` is the blob with the program, ``size`` bytes of UTF-8; ``entry`` a kernel in it that is declared
    ``extern "C"``; ``architecture`` the least compute capability that it is compiled for, times ten.
    """

    unit_type: ClassVar[str] = "million_threads"

    source: Digest
    size: BlobSize
    entry: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]
    architecture: Annotated[int, Meta(ge=75, le=120)]
    grid: tuple[Blocks, Blocks, Blocks]
    block: tuple[Threads, Threads, Annotated[int, Meta(ge=1, le=64)]]
    shared_bytes: Annotated[int, Meta(ge=0, le=49_152)] = 0
    arguments: Annotated[tuple[InputBuffer | OutputBuffer | Scalar, ...], Meta(min_length=1, max_length=32)]

    def units(self) -> int:
        """Started millions of threads."""
        threads = 1
        for extent in (*self.grid, *self.block):
            threads *= extent
        return ceil_div(threads, THREADS_PER_UNIT)

    def blobs(self) -> tuple[str, ...]:
        inputs = (argument.digest for argument in self.arguments if isinstance(argument, InputBuffer))
        return tuple(dict.fromkeys((self.source, *inputs)))

    def output_sizes(self) -> tuple[int, ...]:
        """Bytes of each output, in the order of the arguments."""
        return tuple(
            argument.length * ELEMENT_BYTES[argument.element]
            for argument in self.arguments
            if isinstance(argument, OutputBuffer)
        )

    def inconsistency(self) -> str | None:
        """What no GPU would launch, and what is too large."""
        if self.size > MAX_SOURCE_BYTES:
            return f"the source has {self.size} bytes, at most {MAX_SOURCE_BYTES} are possible"
        threads = self.block[0] * self.block[1] * self.block[2]
        if threads > MAX_THREADS_PER_BLOCK:
            return f"a block has {threads} threads, at most {MAX_THREADS_PER_BLOCK} are possible"
        if not self.output_sizes():
            return "no argument is an output, so there would be no result"
        for number, argument in enumerate(self.arguments):
            width = ELEMENT_BYTES[argument.element]
            if isinstance(argument, Scalar):
                if len(argument.bytes) != 2 * width:
                    return f"argument {number} has {len(argument.bytes) // 2} bytes, {argument.element} has {width}"
            elif argument.length * width > MAX_BLOB_BYTES:
                return f"argument {number} has more than {MAX_BLOB_BYTES} bytes"
        if sum(self.output_sizes()) > MAX_BLOB_BYTES:
            return f"the outputs have more than {MAX_BLOB_BYTES} bytes together"
        return None

    def in_words(self) -> str:
        extents = (str(self.grid).replace(" ", ""), str(self.block).replace(" ", ""))
        return f"{self.entry} {extents[0]}×{extents[1]}"
