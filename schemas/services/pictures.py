"""Work on pictures: ``image.convolve``, ``mandelbrot``."""

from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from schemas.services.base import MAX_BLOB_BYTES, ServiceWork, ceil_div
from schemas.values import Digest

MAX_PICTURE_SIDE: Final = 16_384
# Bytes of samples of one picture. A file that does not get smaller by compression still fits into a blob, with room.
MAX_PICTURE_BYTES: Final = MAX_BLOB_BYTES // 4 * 3
MAX_KERNEL_SIDE: Final = 15
# 15 * 15 * 255 * MAX_WEIGHT fits an int32, so every partial sum does.
MAX_WEIGHT: Final = 32_767
MULTIPLICATIONS_PER_UNIT: Final = 1_000_000

MAX_MANDELBROT_PIXELS: Final = 4_096 * 4_096
MAX_ITERATIONS: Final = 65_535
ITERATIONS_PER_UNIT: Final = 1_000_000
FRACTION_BITS: Final = 56
CENTRE_FRACTION_BITS: Final = 50
# Of all pixels, in units of 2**-FRACTION_BITS: the fixed-point orbit then never leaves 64 bits.
MAX_COORDINATE: Final = (4 << FRACTION_BITS) - 1

PictureSide = Annotated[int, Meta(ge=1, le=MAX_PICTURE_SIDE, description="pixels")]
Weight = Annotated[int, Meta(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
KernelRow = Annotated[tuple[Weight, ...], Meta(min_length=1, max_length=MAX_KERNEL_SIDE)]
Coordinate = Annotated[
    int,
    Meta(
        ge=-(4 << CENTRE_FRACTION_BITS),
        le=4 << CENTRE_FRACTION_BITS,
        description=f"in units of 2^-{CENTRE_FRACTION_BITS}",
    ),
]


class Picture(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A PNG file of 8 bits per sample, named by the SHA-256 of its bytes: ``channels`` 1 grey, 3 RGB, 4 RGBA."""

    digest: Digest
    width: PictureSide
    height: PictureSide
    channels: Annotated[int, Meta(ge=1, le=4)]


class ImageConvolve(ServiceWork, frozen=True, tag="image.convolve", tag_field="service"):
    """A picture through an integer filter, as a picture. Sampled rows are done again; all of them where it is cheap.

    ``kernel`` lies over the picture as it is written, its middle over the pixel; both sides are odd. The weighted sum
    is divided by ``divisor`` (rounded down), ``offset`` is added, and the value is brought into 0 … 255.
    """

    unit_type: ClassVar[str] = "million_multiplications"

    picture: Picture
    kernel: Annotated[tuple[KernelRow, ...], Meta(min_length=1, max_length=MAX_KERNEL_SIDE)]
    divisor: Annotated[int, Meta(ge=1, le=16_777_215)]
    offset: Annotated[int, Meta(ge=-65_535, le=65_535)]

    def units(self) -> int:
        """Started millions of scalar multiplications, the channel of opacity included."""
        picture = self.picture
        samples = picture.width * picture.height * picture.channels
        return ceil_div(samples * len(self.kernel) * len(self.kernel[0]), MULTIPLICATIONS_PER_UNIT)

    def blobs(self) -> tuple[str, ...]:
        return (self.picture.digest,)

    def inconsistency(self) -> str | None:
        """Why the kernel is none, or the picture too large."""
        picture = self.picture
        if picture.channels == 2:
            return "pictures of 2 channels (grey with opacity) are not read, only of 1, 3 or 4"
        size = picture.width * picture.height * picture.channels
        if size > MAX_PICTURE_BYTES:
            return f"the picture has {size} bytes, at most {MAX_PICTURE_BYTES} are possible"
        rows, columns = len(self.kernel), len(self.kernel[0])
        if any(len(row) != columns for row in self.kernel):
            return "the rows of the kernel differ in length"
        if rows % 2 == 0 or columns % 2 == 0:
            return f"the kernel has {rows} rows and {columns} columns, and both must be odd"
        return None

    def in_words(self) -> str:
        picture = self.picture
        return (
            f"{picture.width}×{picture.height}, {picture.channels} channel{'s' if picture.channels > 1 else ''}, "
            f"kernel {len(self.kernel[0])}×{len(self.kernel)}"
        )


class Mandelbrot(ServiceWork, frozen=True, tag="mandelbrot", tag_field="service"):
    """The Mandelbrot set in fixed point, as a picture of iteration counts. Sampled pixels are done again.

    ``re`` and ``im`` are the middle of the picture; ``step`` is the distance of neighbouring pixels in units of 2^-56.
    """

    unit_type: ClassVar[str] = "million_iterations"

    width: PictureSide
    height: PictureSide
    re: Coordinate
    im: Coordinate
    step: Annotated[int, Meta(ge=1, le=(1 << 53) - 1, description=f"in units of 2^-{FRACTION_BITS}")]
    max_iterations: Annotated[int, Meta(ge=1, le=MAX_ITERATIONS)]

    def units(self) -> int:
        """Started millions of iterations, as if every pixel needed all of them."""
        return ceil_div(self.width * self.height * self.max_iterations, ITERATIONS_PER_UNIT)

    def inconsistency(self) -> str | None:
        """Why the picture is too large, or reaches too far."""
        pixels = self.width * self.height
        if pixels > MAX_MANDELBROT_PIXELS:
            return f"the picture has {pixels} pixels, at most {MAX_MANDELBROT_PIXELS} are possible"
        for name, centre, side in (("re", self.re, self.width), ("im", self.im, self.height)):
            reach = (abs(centre) << FRACTION_BITS - CENTRE_FRACTION_BITS) + (side * self.step + 1) // 2
            if reach > MAX_COORDINATE:
                return f"{name} and step lead to coordinates of 4 or more in magnitude"
        return None

    def in_words(self) -> str:
        return f"{self.width}×{self.height}, up to {self.max_iterations} iterations"
