"""``assay job submit matmul.int8 A B``."""

import re
import secrets
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from msgspec import Struct

from actors.command_line.job_submit import TERMS, Asked, Terms, submit
from events.errors import BadInput
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix

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


def operand_of(text: str) -> Operand:
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
    return _operand_in(Path(text))


def _operand_in(file: Path) -> Operand:
    from hashlib import file_digest

    from actors.services.npy import open_matrix, read_header

    try:
        with file.open("rb") as opened:
            header = read_header(opened.read(LARGEST_HEADER))
            opened.seek(0)
            digest = file_digest(opened, "sha256").hexdigest()
        open_matrix(file, "int8", header.rows, header.columns)
    except BadInput as error:
        raise BadInput(f"{file} cannot be an operand", why=error.why, hint=error.hint) from error
    return Operand(BlobMatrix(rows=header.rows, columns=header.columns, digest=digest), file)
