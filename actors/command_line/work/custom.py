"""``assay job submit kernel.custom SOURCE``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter, validators

from actors.command_line.job_submit import TERMS, Asked, Terms, submit
from actors.command_line.work.files import digest_of, size_of
from actors.command_line.work.records import record_of
from events.errors import BadInput
from schemas.services import KernelCustom
from schemas.services.custom import ELEMENT_BYTES

UNVERIFIED: Final = "NOT verified: nobody can know what your kernel should compute"
WORDS: Final = "Write input:ELEMENT:FILE, output:ELEMENT:LENGTH or scalar:ELEMENT:NUMBER, such as output:float32:1000."
NOT_NEGATIVE: Final = validators.Number(gte=0)


async def kernel_custom(
    source: Annotated[Path, Parameter(help="A file of CUDA C++.")],
    /,
    *,
    entry: Annotated[str, Parameter(help='The kernel in it, declared extern "C".')],
    argument: Annotated[list[str], Parameter(negative=(), help=f"In the kernel's order; repeat it. {WORDS}")],
    grid: Annotated[str, Parameter(help="Blocks: X, X,Y or X,Y,Z.")] = "1",
    block: Annotated[str, Parameter(help="Threads of a block: X, X,Y or X,Y,Z.")] = "256",
    shared: Annotated[int, Parameter(validator=NOT_NEGATIVE, help="Bytes of dynamic shared memory.")] = 0,
    architecture: Annotated[int, Parameter(help="The least compute capability, times ten.")] = 80,
    terms: Terms = TERMS,
) -> None:
    """A kernel of your own, launched once. Its result is not verified. Few miners offer it."""
    files: dict[str, Path] = {digest_of(source): source}
    work = record_of(
        KernelCustom,
        source=digest_of(source),
        size=size_of(source),
        entry=entry,
        architecture=architecture,
        grid=_extents(grid),
        block=_extents(block),
        shared_bytes=shared,
        arguments=[_argument(word, files) for word in argument],
    )
    await submit(Asked(work=work, files=files, verified=UNVERIFIED), terms)


def _extents(text: str) -> list[int]:
    """One to three numbers; what is not given is 1. Raises `BadInput`."""
    parts = text.split(",")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() for part in parts):
        raise BadInput(f"{text!r} is no extent", hint="Write X, X,Y or X,Y,Z, such as 64,64.")
    return [*map(int, parts), 1, 1][:3]


def _argument(word: str, files: dict[str, Path]) -> dict[str, Any]:
    """One argument of the kernel; a file that it names is added to ``files``. Raises `BadInput`, `OSError`."""
    kind, _, rest = word.partition(":")
    element, _, value = rest.partition(":")
    make = _KINDS.get(kind)
    if make is None or element not in ELEMENT_BYTES or not value:
        raise BadInput(f"{word!r} is no argument", hint=WORDS)
    return {"kind": kind, "element": element, **make(element, value, files)}


def _input(element: str, value: str, files: dict[str, Path]) -> dict[str, Any]:
    file, width = Path(value), ELEMENT_BYTES[element]
    size = size_of(file)
    if size % width:
        raise BadInput(f"{file} cannot be an input", why=f"{size} bytes are no whole number of {element}")
    digest = digest_of(file)
    files[digest] = file
    return {"digest": digest, "length": size // width}


def _output(element: str, value: str, files: dict[str, Path]) -> dict[str, Any]:
    if not value.isdecimal():
        raise BadInput(f"{value!r} is no length", hint=WORDS)
    return {"length": int(value)}


def _scalar(element: str, value: str, files: dict[str, Path]) -> dict[str, Any]:
    import numpy as np

    try:
        number = float(value) if element.startswith("float") else int(value)
        return {"bytes": np.array(number, dtype=np.dtype(element).newbyteorder("<")).tobytes().hex()}
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{value!r} is no {element}", why=str(error)) from error


_KINDS: Final[dict[str, Callable[[str, str, dict[str, Path]], dict[str, Any]]]] = {
    "input": _input,
    "output": _output,
    "scalar": _scalar,
}
