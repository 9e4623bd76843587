"""``assay job submit sha256.tree|histogram|sort FILE``."""

from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter, validators

from actors.command_line.job_submit import TERMS, Asked, Terms, submit
from actors.command_line.work.files import array_in, digest_of, size_of
from actors.command_line.work.records import record_of
from events.errors import BadInput
from schemas.services import Histogram, Sha256Tree, Sort

COUNTED_AGAIN: Final = "all of it, by counting again"
ORDERED: Final = "all values, by their order and by a fingerprint of them with a challenge drawn after the commitment"
HASHED_AGAIN: Final = "all of it, by hashing again"
MOST_BINS_OF_ITSELF: Final = 256
POSITIVE: Final = validators.Number(gte=1)
Vector = Annotated[Path, Parameter(help="A .npy file of integers in one dimension.")]


async def sha256_tree(
    file: Annotated[Path, Parameter(help="Any file.")],
    /,
    *,
    chunk: Annotated[int, Parameter(validator=POSITIVE, help="Bytes of a chunk, a power of two.")] = 65_536,
    terms: Terms = TERMS,
) -> None:
    """The Merkle tree (RFC 9162) over a file in chunks, so that any chunk of it can be proved later."""
    work = record_of(Sha256Tree, digest=digest_of(file), size=size_of(file), chunk_bytes=chunk)
    await submit(Asked(work=work, files={work.digest: file}, verified=HASHED_AGAIN), terms)


async def histogram(
    file: Vector,
    /,
    *,
    low: Annotated[int | None, Parameter(help="The least value of the first bin; else the least there is.")] = None,
    width: Annotated[int | None, Parameter(validator=POSITIVE, help="How many integers fall into one bin.")] = None,
    count: Annotated[int, Parameter(validator=POSITIVE, help="Number of bins.")] = MOST_BINS_OF_ITSELF,
    terms: Terms = TERMS,
) -> None:
    """How many values of a file fall into each of a row of equal bins, below, and above. Without --low and --width the
    bins cover all values."""
    values: Any = array_in(file, 1)
    if values.size == 0 or values.dtype.kind not in "iu":
        raise BadInput(f"{file} holds no integers", hint="Convert the values, as with values.astype(numpy.int32).")
    least = int(values.min()) if low is None else low
    span = max(1, int(values.max()) - least + 1)
    work = record_of(
        Histogram,
        digest=digest_of(file),
        element=values.dtype.name,
        length=values.size,
        low=least,
        width=-(-span // count) if width is None else width,
        count=count,
    )
    await submit(Asked(work=work, files={work.digest: file}, verified=COUNTED_AGAIN), terms)


async def sort(file: Vector, /, *, terms: Terms = TERMS) -> None:
    """The values of a file in ascending order."""
    values: Any = array_in(file, 1)
    work = record_of(Sort, digest=digest_of(file), element=values.dtype.name, length=values.size)
    await submit(Asked(work=work, files={work.digest: file}, verified=ORDERED), terms)
