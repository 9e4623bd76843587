"""``assay job submit kmeans POINTS``."""

import re
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter, validators

from actors.command_line.job_submit import TERMS, Asked, Terms, submit
from actors.command_line.work.files import array_in, digest_of
from actors.command_line.work.records import record_of, seed_of
from schemas.services import KMeans

ADDED_AGAIN: Final = (
    "all labels, means and first sums, and 44 sums of chunks (or all), drawn after the commitment, added again"
)
POSITIVE: Final = validators.Number(gte=1)
_SEEDED: Final = re.compile(r"seed:(?P<seed>[0-9a-f]{64}):(?P<rows>[0-9]{1,7})x(?P<columns>[0-9]{1,3})")
_RANDOM: Final = re.compile(r"random:(?P<rows>[0-9]{1,7})x(?P<columns>[0-9]{1,3})")


async def kmeans(
    points: Annotated[str, Parameter(help="FILE.npy of int16, a point per row; random:ROWSxCOLUMNS or seed:HEX:….")],
    /,
    *,
    clusters: Annotated[int, Parameter(validator=POSITIVE, help="How many.")] = 8,
    iterations: Annotated[int, Parameter(validator=POSITIVE, help="How many.")] = 10,
    seed: Annotated[
        str | None, Parameter(help="64 hexadecimal digits that choose the first centres; else a new one.")
    ] = None,
    terms: Terms = TERMS,
) -> None:
    """Points parted into clusters by Lloyd's algorithm in integers. The result is the centres after each iteration, the
    sums that lead to them, and the cluster of each point."""
    files: dict[str, Path] = {}
    given: dict[str, Any]
    if match := _SEEDED.fullmatch(points) or _RANDOM.fullmatch(points):
        sides = {"rows": int(match["rows"]), "columns": int(match["columns"])}
        given = {"kind": "seed", **sides, "seed": seed_of(match.groupdict().get("seed"))}
    else:
        file = Path(points)
        rows, columns = array_in(file, 2).shape
        given = {"kind": "blob", "rows": rows, "columns": columns, "digest": digest_of(file)}
        files[given["digest"]] = file
    work = record_of(KMeans, points=given, clusters=clusters, iterations=iterations, seed=seed_of(seed))
    await submit(Asked(work=work, files=files, verified=ADDED_AGAIN), terms)
