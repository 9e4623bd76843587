"""``assay job submit montecarlo.option``, ``assay job submit nbody BODIES``."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter, validators

from actors.command_line.job_submit import TERMS, Asked, Terms, submit
from actors.command_line.work.files import array_in, digest_of
from actors.command_line.work.records import record_of, scaled, seed_of
from schemas.services import MonteCarloOption, NBody

STEPPED_AGAIN: Final = (
    "the range of all, and 64 bodies (or all) of each step drawn after the commitment, by computing them again; "
    "all of it with steps between checkpoints"
)
AGAIN: Final = "the form and range of all, and 44 chunks (or all) drawn after the commitment, by computing them again"
MILLION: Final = 1_000_000
BILLION: Final = 1_000_000_000
POSITIVE: Final = validators.Number(gte=1)
Seed = Annotated[str | None, Parameter(help="64 hexadecimal digits; else a new one.")]
_SEEDED: Final = re.compile(r"seed:(?P<seed>[0-9a-f]{64}):(?P<count>[0-9]{1,6})")
_RANDOM: Final = re.compile(r"random:(?P<count>[0-9]{1,6})")


async def montecarlo_option(
    *,
    spot: Annotated[str, Parameter(help="Price of the underlying now, such as 100.")],
    strike: Annotated[str, Parameter(help="Price at which the option may be exercised.")],
    volatility: Annotated[str, Parameter(help="Per square root of a year, such as 0.2.")],
    rate: Annotated[str, Parameter(help="Without risk, per year, compounded always.")] = "0",
    days: Annotated[int, Parameter(validator=POSITIVE, help="Until it expires; a year has 365.")] = 365,
    style: Annotated[Literal["european", "asian"], Parameter(help="By the last price, or by the mean.")] = "european",
    right: Annotated[Literal["call", "put"], Parameter(help="To buy, or to sell.")] = "call",
    steps: Annotated[int, Parameter(validator=POSITIVE, help="On each path.")] = 1,
    paths: Annotated[int, Parameter(validator=POSITIVE, help="Random paths.")] = MILLION,
    seed: Seed = None,
    terms: Terms = TERMS,
) -> None:
    """The price of an option with its confidence interval, by random paths in fixed point; see `assay job result`."""
    work = record_of(
        MonteCarloOption,
        style=style,
        right=right,
        spot=scaled(spot, MILLION, "price"),
        strike=scaled(strike, MILLION, "price"),
        rate_ppm=scaled(rate, MILLION, "rate"),
        volatility_ppm=scaled(volatility, MILLION, "volatility"),
        days=days,
        steps=steps,
        paths=paths,
        seed=seed_of(seed),
    )
    await submit(Asked(work=work, files={}, verified=AGAIN), terms)


async def nbody(
    bodies: Annotated[str, Parameter(help="FILE.npy of float32, x y z vx vy vz mass; random:COUNT or seed:HEX:COUNT.")],
    /,
    *,
    steps: Annotated[int, Parameter(validator=POSITIVE, help="How many.")] = 100,
    every: Annotated[int, Parameter(validator=POSITIVE, help="Steps from one checkpoint to the next.")] = 1,
    step: Annotated[str, Parameter(help="Length of a step in units of time.")] = "0.001",
    softening: Annotated[str, Parameter(help="Length below which attraction fades.")] = "0.05",
    terms: Terms = TERMS,
) -> None:
    """Bodies that attract each other, moved in float32 with the same bits on every device. The result is their
    positions and velocities at all checkpoints; `assay verify job` says how far the energy has drifted."""
    files: dict[str, Path] = {}
    given: dict[str, Any]
    if match := _SEEDED.fullmatch(bodies) or _RANDOM.fullmatch(bodies):
        given = {"kind": "seed", "count": int(match["count"]), "seed": seed_of(match.groupdict().get("seed"))}
    else:
        file = Path(bodies)
        given = {"kind": "blob", "count": array_in(file, 2).shape[0], "digest": digest_of(file)}
        files[given["digest"]] = file
    work = record_of(
        NBody,
        bodies=given,
        steps=steps,
        every=every,
        step_ppb=scaled(step, BILLION, "length of a step"),
        softening_ppm=scaled(softening, MILLION, "softening"),
    )
    await submit(Asked(work=work, files=files, verified=STEPPED_AGAIN), terms)
