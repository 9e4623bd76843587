"""``assay job submit image.convolve PICTURE``, ``assay job submit mandelbrot``."""

from math import isqrt
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter, validators

from actors.command_line.job_submit import TERMS, Asked, Terms, submit
from actors.command_line.work.files import digest_of
from actors.command_line.work.records import record_of, scaled
from events.errors import BadInput
from schemas.services import CENTRE_FRACTION_BITS, FRACTION_BITS, ImageConvolve, Mandelbrot

FILTERED_AGAIN: Final = "rows drawn after the commitment, or all where that is cheap, by filtering them again"
ITERATED_AGAIN: Final = "11,264 pixels (or all) drawn after the commitment, by iterating them again"
LARGEST_HEADER: Final = 64
POSITIVE: Final = validators.Number(gte=1)


async def image_convolve(
    picture: Annotated[Path, Parameter(help="A PNG file: grey, RGB or RGBA of 8 bits per sample.")],
    /,
    *,
    kernel: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True, help="Whole weights row by row, as 1,2,1,2,4,2,1,2,1; or rows by 1,0,-1/…"
        ),
    ],
    divisor: Annotated[int, Parameter(validator=POSITIVE, help="The weighted sum is divided by it.")] = 1,
    offset: Annotated[int, Parameter(help="What is added then.")] = 0,
    terms: Terms = TERMS,
) -> None:
    """A picture through an integer filter, as a picture. Weights in one row are those of a square."""
    from actors.services.png import read_form

    try:
        with picture.open("rb") as opened:
            form = read_form(opened.read(LARGEST_HEADER))
    except BadInput as error:
        raise BadInput(f"{picture} cannot be filtered", why=error.why, hint=error.hint) from error
    if form.bits != 8:
        raise BadInput(
            f"{picture} cannot be filtered", why=f"its samples have {form.bits} bits", hint="Convert it to 8."
        )
    digest = digest_of(picture)
    work = record_of(
        ImageConvolve,
        picture={"digest": digest, "width": form.width, "height": form.height, "channels": form.channels},
        kernel=kernel_of(kernel),
        divisor=divisor,
        offset=offset,
    )
    await submit(Asked(work=work, files={digest: picture}, verified=FILTERED_AGAIN), terms)


def kernel_of(text: str) -> list[list[int]]:
    """The rows of weights. Raises `BadInput`."""
    try:
        rows = [[int(weight) for weight in row.split(",")] for row in text.split("/")]
    except ValueError as error:
        raise BadInput(f"{text!r} is no kernel", hint="Write whole weights, as 1,2,1,2,4,2,1,2,1.") from error
    if len(rows) > 1:
        return rows
    side = isqrt(len(rows[0]))
    if side * side != len(rows[0]):
        hint = "Part the rows, as 1,2,1/2,4,2."
        raise BadInput(f"{len(rows[0])} weights are no square", hint=hint)
    return [rows[0][start : start + side] for start in range(0, len(rows[0]), side)]


async def mandelbrot(
    *,
    width: Annotated[int, Parameter(validator=POSITIVE, help="Pixels.")] = 800,
    height: Annotated[int, Parameter(validator=POSITIVE, help="Pixels.")] = 600,
    re: Annotated[str, Parameter(help="Real part of the middle.")] = "-0.5",
    im: Annotated[str, Parameter(help="Imaginary part of the middle.")] = "0",
    across: Annotated[str, Parameter(help="How wide the picture is in the plane.")] = "3.5",
    iterations: Annotated[int, Parameter(validator=POSITIVE, help="At most, for each pixel.")] = 1_000,
    terms: Terms = TERMS,
) -> None:
    """The Mandelbrot set in fixed point, as a PNG picture of 16-bit grey: the number of iterations of each pixel."""
    work = record_of(
        Mandelbrot,
        width=width,
        height=height,
        re=scaled(re, 1 << CENTRE_FRACTION_BITS, "coordinate", exact=False),
        im=scaled(im, 1 << CENTRE_FRACTION_BITS, "coordinate", exact=False),
        step=scaled(across, 1 << FRACTION_BITS, "width", exact=False) // width,
        max_iterations=iterations,
    )
    await submit(Asked(work=work, files={}, verified=ITERATED_AGAIN), terms)
