"""Simulations: ``montecarlo.option``, ``nbody``."""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct

from schemas.services.base import MAX_BLOB_BYTES, ServiceWork, ceil_div
from schemas.values import Digest

MILLION: Final = 1_000_000
DAYS_PER_YEAR: Final = 365

# Below 2**37: in the fixed-point form of `actors.backends.reference.option` a path's price then stays below 2**49, and
# the sum of all prices on it below 2**61.
MAX_PRICE: Final = 100_000_000_000
MAX_PATHS: Final = 1_073_741_824
MAX_PATH_STEPS: Final = 4_096
# Of one chunk, so that it is soon done again.
MAX_CHUNK_PATHS: Final = 4_096
MAX_CHUNK_STEPS: Final = 1_048_576
MAX_CHUNKS: Final = 262_144

MAX_BODIES: Final = 65_536
MAX_TIME_STEPS: Final = 16_384
MAX_BLOB_SLACK: Final = 8_192
STATE_COLUMNS: Final = 6
STATE_BYTES: Final = 4 * STATE_COLUMNS
# Bodies whose states are one chunk of a result with a checkpoint after every step.
BODIES_PER_SLICE: Final = 64
# Of one chunk, so that it is soon done again: that of 64 of the most bodies has 4 millions.
MAX_CHUNK_INTERACTIONS: Final = 10_000_000
# Where more than one step lies between two of them: so many that all are computed again.
MAX_CHECKPOINTS_APART: Final = 44

Price = Annotated[int, Meta(ge=1, le=MAX_PRICE, description="millionths of a unit of currency")]


class MonteCarloOption(ServiceWork, frozen=True, tag="montecarlo.option", tag_field="service"):
    """The price of an option by random paths of its underlying in fixed point. Sampled chunks of paths are done again.

    The underlying follows a geometric Brownian motion under the rate without risk. ``european`` pays by its last price,
    ``asian`` by the arithmetic mean of its prices after each step. A year has 365 days.
    """

    unit_type: ClassVar[str] = "million_steps"

    style: Literal["european", "asian"]
    right: Literal["call", "put"]
    spot: Price
    strike: Price
    rate_ppm: Annotated[int, Meta(ge=-500_000, le=1_000_000, description="per year, in millionths, compounded always")]
    volatility_ppm: Annotated[int, Meta(ge=0, le=4_000_000, description="per square root of a year, in millionths")]
    days: Annotated[int, Meta(ge=1, le=36_500, description="until the option expires")]
    steps: Annotated[int, Meta(ge=1, le=MAX_PATH_STEPS, description="of equal length, on each path")]
    paths: Annotated[int, Meta(ge=1, le=MAX_PATHS)]
    seed: Digest

    @property
    def chunk_paths(self) -> int:
        """Paths of a chunk; the last one may have fewer."""
        return min(MAX_CHUNK_PATHS, MAX_CHUNK_STEPS // self.steps)

    @property
    def chunks(self) -> int:
        """Chunks of paths."""
        return ceil_div(self.paths, self.chunk_paths)

    def units(self) -> int:
        """Started millions of steps of all paths."""
        return ceil_div(self.paths * self.steps, MILLION)

    def inconsistency(self) -> str | None:
        """Why there would be too many chunks, or prices leave what fixed point can hold."""
        if self.chunks > MAX_CHUNKS:
            return f"there are {self.chunks} chunks of {self.chunk_paths} paths, at most {MAX_CHUNKS} are possible"
        year = DAYS_PER_YEAR * MILLION
        if self.volatility_ppm**2 * self.days > year * MILLION:
            return "the variance until the expiry, volatility² × time, is more than 1"
        if abs(self.rate_ppm) * self.days > year:
            return "rate × time until the expiry is more than 1 in magnitude"
        return None

    def in_words(self) -> str:
        return f"{self.style} {self.right}, {self.paths:,} paths of {self.steps:,} step{'s' if self.steps > 1 else ''}"


class Bodies(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``count`` bodies: position x, y, z, velocity x, y, z, and mass of each."""

    count: Annotated[int, Meta(ge=1, le=MAX_BODIES)]


class BlobBodies(Bodies, frozen=True, tag="blob", tag_field="kind"):
    """A ``.npy`` file of float32, ``count`` × 7, named by the SHA-256 of its bytes, uploaded by the job's sender."""

    digest: Digest


class SeededBodies(Bodies, frozen=True, tag="seed", tag_field="kind"):
    """A cube of bodies, equal in mass, each a function of (seed, its number) alone; nothing is uploaded."""

    seed: Digest


class NBody(ServiceWork, frozen=True, tag="nbody", tag_field="service"):
    """Bodies that attract each other, in float32 in a fixed order. Sampled pieces of checkpoints are done again.

    The constant of gravitation is 1. ``every`` that many steps, positions and velocities are written down. With
    ``every`` 1 a chunk is 64 bodies after one step; else it is a whole checkpoint.
    """

    unit_type: ClassVar[str] = "million_interactions"

    bodies: BlobBodies | SeededBodies
    steps: Annotated[int, Meta(ge=1, le=MAX_TIME_STEPS)]
    every: Annotated[int, Meta(ge=1, le=MAX_TIME_STEPS, description="steps from one checkpoint to the next")]
    step_ppb: Annotated[int, Meta(ge=1, le=62_500_000, description="length of a step in billionths of a unit of time")]
    softening_ppm: Annotated[int, Meta(ge=4_000, le=1_000_000_000, description="millionths of a unit of length")]

    @property
    def checkpoints(self) -> int:
        """How often the state is written down, the last time at the end."""
        return self.steps // self.every

    @property
    def slices(self) -> int:
        """Chunks of one checkpoint."""
        return ceil_div(self.bodies.count, BODIES_PER_SLICE) if self.every == 1 else 1

    @property
    def chunks(self) -> int:
        """Chunks of the result, a checkpoint's after those of the one before."""
        return self.checkpoints * self.slices

    def units(self) -> int:
        """Started millions of forces of one body on another."""
        return ceil_div(self.bodies.count**2 * self.steps, MILLION)

    def blobs(self) -> tuple[str, ...]:
        return (self.bodies.digest,) if isinstance(self.bodies, BlobBodies) else ()

    def inconsistency(self) -> str | None:
        """Why the steps cannot be parted so, or the result is too large."""
        interactions = self.bodies.count**2 * self.every
        if self.every > 1 and interactions > MAX_CHUNK_INTERACTIONS:
            most = f"at most {MAX_CHUNK_INTERACTIONS} are possible, unless every step is written down"
            return f"from one checkpoint to the next there are {interactions} interactions, {most}"
        if self.steps % self.every:
            return f"{self.steps} steps are no multiple of {self.every}, after which a checkpoint is written"
        if self.every > 1 and self.checkpoints > MAX_CHECKPOINTS_APART:
            most = f"at most {MAX_CHECKPOINTS_APART} are possible, unless every step is written down"
            return f"there are {self.checkpoints} checkpoints, {most}"
        size = self.checkpoints * self.bodies.count * STATE_BYTES
        if size > MAX_BLOB_BYTES - MAX_BLOB_SLACK:
            return f"the checkpoints have {size} bytes, at most {MAX_BLOB_BYTES - MAX_BLOB_SLACK} are possible"
        return None

    def in_words(self) -> str:
        return f"{self.bodies.count:,} bodies, {self.steps:,} steps, {self.checkpoints:,} checkpoints"
