"""Work on points: ``kmeans``."""

from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from schemas.services.base import MAX_BLOB_BYTES, ServiceWork, ceil_div
from schemas.values import Digest

MAX_POINTS: Final = 1_000_000
MAX_DIMENSIONS: Final = 64
MAX_CLUSTERS: Final = 256
MAX_LLOYD_ITERATIONS: Final = 1_000
MAX_POINT_BYTES: Final = MAX_BLOB_BYTES // 4 * 3
MULTIPLICATIONS_PER_UNIT: Final = 1_000_000

# Points of one chunk: a sixteenth of all, at least 256. A sum of int16 over a chunk fits an int32.
CHUNKS: Final = 16
SMALLEST_CHUNK: Final = 256


class Points(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``rows`` points of ``columns`` int16 coordinates each."""

    rows: Annotated[int, Meta(ge=1, le=MAX_POINTS)]
    columns: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)]


class BlobPoints(Points, frozen=True, tag="blob", tag_field="kind"):
    """A ``.npy`` file, named by the SHA-256 of its bytes, uploaded by the job's sender."""

    digest: Digest


class SeededPoints(Points, frozen=True, tag="seed", tag_field="kind"):
    """Coordinate (i, j) is a function of (seed, i, j) alone; nothing is uploaded."""

    seed: Digest


class KMeans(ServiceWork, frozen=True, tag="kmeans", tag_field="service"):
    """Lloyd's algorithm in integers, a fixed number of iterations. All labels and sampled sums are done again.

    ``seed`` chooses the points that are the first centres.
    """

    unit_type: ClassVar[str] = "million_multiplications"

    points: BlobPoints | SeededPoints
    clusters: Annotated[int, Meta(ge=1, le=MAX_CLUSTERS)]
    iterations: Annotated[int, Meta(ge=1, le=MAX_LLOYD_ITERATIONS)]
    seed: Digest

    @property
    def chunk_points(self) -> int:
        """Points of a chunk; the last one may have fewer."""
        return max(SMALLEST_CHUNK, ceil_div(self.points.rows, CHUNKS))

    @property
    def chunks(self) -> int:
        """Chunks of points."""
        return ceil_div(self.points.rows, self.chunk_points)

    @property
    def result_bytes(self) -> int:
        """Bytes of the result's file: centres, counts and sums of all chunks in all iterations, labels."""
        per_centre = self.points.columns * 2
        per_cell = self.clusters * (1 + self.points.columns) * 4
        centres = (self.iterations + 1) * self.clusters * per_centre
        return centres + self.iterations * self.chunks * per_cell + self.points.rows

    def units(self) -> int:
        """Started millions of squared differences: each point to each centre, once per iteration and for the labels."""
        differences = self.points.rows * self.points.columns * self.clusters * (self.iterations + 1)
        return ceil_div(differences, MULTIPLICATIONS_PER_UNIT)

    def blobs(self) -> tuple[str, ...]:
        return (self.points.digest,) if isinstance(self.points, BlobPoints) else ()

    def inconsistency(self) -> str | None:
        """Why there are too few points, or too much to write."""
        if self.clusters > self.points.rows:
            return f"{self.points.rows} points cannot be the first centres of {self.clusters} clusters"
        size = self.points.rows * self.points.columns * 2
        if size > MAX_POINT_BYTES:
            return f"the points have {size} bytes, at most {MAX_POINT_BYTES} are possible"
        if self.result_bytes > MAX_BLOB_BYTES:
            return f"the result has {self.result_bytes} bytes, at most {MAX_BLOB_BYTES} are possible"
        return None

    def in_words(self) -> str:
        points = self.points
        return f"{points.rows} points of {points.columns}, {self.clusters} clusters, {self.iterations} iterations"
