"""``assay job submit matmul.int8|matmul.fp16-exact A B``."""

import math
import re
import secrets
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter, validators
from msgspec import Struct, to_builtins

from actors.command_line.job_submit import TERMS, Asked, Terms, submit
from actors.command_line.work.records import record_of
from events.errors import BadInput
from schemas.services import MAX_EXACT_SUM, MAX_HALF_INTEGER, BlobMatrix, MatmulFp16Exact, MatmulInt8, SeededMatrix

HOW_VERIFIED: Final = "all entries, by Freivalds' check in exact arithmetic with a challenge drawn after the commitment"
_SEEDED: Final = re.compile(r"seed:(?P<seed>[0-9a-f]{64}):(?P<rows>[0-9]{1,6})x(?P<columns>[0-9]{1,6})")
_RANDOM: Final = re.compile(r"random:(?P<rows>[0-9]{1,6})x(?P<columns>[0-9]{1,6})")
LARGEST_HEADER: Final = 8_192


class Operand(Struct, frozen=True):
    """A matrix as the job names it, and the file to upload, if any."""

    matrix: BlobMatrix | SeededMatrix
    file: Path | None = None


async def matmul_int8(
    a: Annotated[str, Parameter(help="The first matrix: FILE.npy, random:ROWSxCOLUMNS or seed:HEX:ROWSxCOLUMNS.")],
    b: Annotated[str, Parameter(help="The second matrix.")],
    /,
    *,
    terms: Terms = TERMS,
) -> None:
    """The exact product of two matrices of int8. A matrix is a .npy file of int8; or seed:…, made from the seed, so
    that nothing is uploaded; or random:…, the same with a new seed."""
    operands = (operand_of(a), operand_of(b))
    files = {operand.matrix.digest: operand.file for operand in operands if isinstance(operand.matrix, BlobMatrix)}
    work = MatmulInt8(a=operands[0].matrix, b=operands[1].matrix)
    uploads = {digest: file for digest, file in files.items() if file is not None}
    await submit(Asked(work=work, files=uploads, verified=HOW_VERIFIED), terms)


async def matmul_fp16(
    a: Annotated[str, Parameter(help="The first matrix: FILE.npy, random:ROWSxCOLUMNS or seed:HEX:ROWSxCOLUMNS.")],
    b: Annotated[str, Parameter(help="The second matrix.")],
    /,
    *,
    limit: Annotated[
        int | None, Parameter(validator=validators.Number(gte=1), help="The largest magnitude of an element.")
    ] = None,
    terms: Terms = TERMS,
) -> None:
    """The exact product of two matrices of integers held as float16. Without --limit, it is the largest of the files'
    elements, or, where both matrices come from seeds, the largest with which the product is exact."""
    operands = (operand_of(a, "float16"), operand_of(b, "float16"))
    files = {operand.matrix.digest: operand.file for operand in operands if isinstance(operand.matrix, BlobMatrix)}
    work = record_of(
        MatmulFp16Exact,
        a=to_builtins(operands[0].matrix),
        b=to_builtins(operands[1].matrix),
        limit=_limit_of(operands) if limit is None else limit,
    )
    uploads = {digest: file for digest, file in files.items() if file is not None}
    await submit(Asked(work=work, files=uploads, verified=HOW_VERIFIED), terms)


def _limit_of(operands: tuple[Operand, Operand]) -> int:
    """The least that the files allow, or the largest that is exact."""
    import numpy as np

    from actors.services.npy import open_matrix

    found = [
        float(np.abs(open_matrix(operand.file, "float16", operand.matrix.rows, operand.matrix.columns)).max())
        for operand in operands
        if operand.file is not None
    ]
    if not found:
        return max(1, min(MAX_HALF_INTEGER, math.isqrt(MAX_EXACT_SUM // max(1, operands[0].matrix.columns))))
    if not max(found) <= MAX_HALF_INTEGER:
        raise BadInput("an element is too large", hint=f"Elements are integers of magnitude up to {MAX_HALF_INTEGER}.")
    return max(1, math.ceil(max(found)))


def operand_of(text: str, element: Literal["int8", "float16"] = "int8") -> Operand:
    """A matrix from its word on the command line. Raises BadInput."""
    if match := _SEEDED.fullmatch(text):
        return Operand(SeededMatrix(rows=int(match["rows"]), columns=int(match["columns"]), seed=match["seed"]))
    if match := _RANDOM.fullmatch(text):
        seed = secrets.token_bytes(32).hex()
        return Operand(SeededMatrix(rows=int(match["rows"]), columns=int(match["columns"]), seed=seed))
    if text.startswith(("seed:", "random:")):
        raise BadInput(
            f"{text!r} is not a matrix", hint="Write seed:HEX:ROWSxCOLUMNS with 64 digits, or random:ROWSxCOLUMNS."
        )
    return _operand_in(Path(text), element)


def _operand_in(file: Path, element: Literal["int8", "float16"]) -> Operand:
    from hashlib import file_digest

    from actors.services.npy import open_matrix, read_header

    try:
        with file.open("rb") as opened:
            header = read_header(opened.read(LARGEST_HEADER))
            opened.seek(0)
            digest = file_digest(opened, "sha256").hexdigest()
        open_matrix(file, element, header.rows, header.columns)
    except BadInput as error:
        raise BadInput(f"{file} cannot be an operand", why=error.why, hint=error.hint) from error
    return Operand(BlobMatrix(rows=header.rows, columns=header.columns, digest=digest), file)
