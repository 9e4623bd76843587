"""The service ``montecarlo.option``: the price of an option by random paths, in fixed point.

The underlying follows a geometric Brownian motion; the paths, their payoffs and the sums over chunks of paths are
defined at the head of `actors.backends.reference.option`, in integers only, so that every device finds the same sums.
The result is a ``.npy`` file of int64, one row of four sums per chunk; `estimate` makes of them the price and its
confidence interval, exactly. A miner commits to the root over the rows (leaf *i* is row *i*, little-endian).

**Parameters of the paths.** With the time T = days / 365 in years and n steps, in integers, / rounded down:

    diffusion = isqrt(volatility_ppm² days C / (10^12 · 365 n)),    C = floor(2^64 / ln²2)
    drift     = (2 · 10^6 rate_ppm - volatility_ppm²) days D / (2 · 10^12 · 365 n),    D = floor(2^40 / ln 2)

so the binary logarithm of the price grows by drift / 2^40 + diffusion / 2^32 · z in a step with the normal deviate z.
k0, k1, s0, s1 are the first 16 bytes of SHA-256(``assay:paths:v1`` ‖ 0 ‖ seed) as four little-endian words.

**Check.** Every row is held against what sums can be: not negative, not above the most that a payoff can be, and the
square of a sum is at most the number of paths times the sum of squares. Then chunks that are drawn after the
commitment are done again, bit by bit; see `actors.services.sampling` for what that proves. A wrong chunk that is not
drawn can move the price; how far the chunk that lies farthest is from the others, in standard errors, `estimate` says.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from math import isqrt
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct

from actors.backends.base import Backend, Int64Array, Progress, Walk, no_progress
from actors.backends.reference.option import LOW_BITS, SUMS, chunk_sums
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.npy import MAX_HEADER, MAX_PREFIX, matrix_from_bytes, open_matrix, write_matrix
from actors.services.sampling import SAMPLES, sample
from events.errors import BadInput
from events.merkle import leaf_hash, root_of_hashes
from schemas.services import DAYS_PER_YEAR, MILLION, MonteCarloOption
from schemas.values import Digest

SUFFIX: Final = "npy"
DOMAIN: Final = b"assay:montecarlo.option:v1\0"
PATHS_DOMAIN: Final = b"assay:paths:v1\0"
ROW_BYTES: Final = 8 * SUMS
ERROR_BITS: Final = 128
# C and D of the head of this module.
_SQUARED_SCALE: Final = 38_394_480_915_568_083_949
_SCALE: Final = 1_586_259_972_792
# The interpreter's own needs; what a thread reserves (a stack, an arena of the allocator) and its arrays; a leaf of the
# tree as an object.
FIXED_BYTES: Final = 96 << 20
BYTES_PER_THREAD: Final = 96 << 20
BYTES_PER_LEAF: Final = 256
# The standard normal distribution is within this many deviations of its mean in 95 % of all cases.
_DEVIATIONS: Final = Decimal("1.959963984540054")
_DIGITS: Final = 60


class Estimate(Struct, frozen=True, kw_only=True):
    """The price, discounted to the present, and half the width of its 95 % confidence interval, both in millionths.

    ``farthest`` is how far the mean of one chunk is from the mean of all, at most, in standard errors of a chunk.
    """

    price: Decimal
    half_width: Decimal
    farthest: Decimal
    paths: int


def walk_of(work: MonteCarloOption) -> Walk:
    """What the steps of a path and its payoff depend on."""
    material = hashlib.sha256(PATHS_DOMAIN + bytes.fromhex(work.seed)).digest()
    k0, k1, s0, s1 = (int.from_bytes(material[at : at + 4], "little") for at in (0, 4, 8, 12))
    per_step = MILLION**2 * DAYS_PER_YEAR * work.steps
    variance = work.volatility_ppm**2
    return Walk(
        spot=work.spot,
        strike=work.strike,
        drift=(2 * MILLION * work.rate_ppm - variance) * work.days * _SCALE // (2 * per_step),
        diffusion=isqrt(variance * work.days * _SQUARED_SCALE // per_step),
        steps=work.steps,
        paths=work.paths,
        chunk_paths=work.chunk_paths,
        asian=work.style == "asian",
        put=work.right == "put",
        key=(k0, k1, s0, s1),
    )


def result_sizes(work: MonteCarloOption) -> range:
    """Bytes that a file which `verify` reads can have: other programs write other headers."""
    size = work.chunks * ROW_BYTES
    return range(size, size + MAX_PREFIX + MAX_HEADER + 1)


def memory_needed(work: MonteCarloOption, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    return FIXED_BYTES + threads * BYTES_PER_THREAD + work.chunks * (2 * ROW_BYTES + BYTES_PER_LEAF)


def check_inputs(work: MonteCarloOption, blobs: Mapping[Digest, Path]) -> None:
    """There are none."""


def row_root(sums: Int64Array) -> Digest:
    """The root over the rows of sums."""
    content = np.ascontiguousarray(sums, dtype="<i8").tobytes()
    return root_of_hashes(
        [leaf_hash(content[start : start + ROW_BYTES]) for start in range(0, len(content), ROW_BYTES)]
    ).hex()


def compute(
    work: MonteCarloOption,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `MemoryError`, `OSError`."""
    sums = backend.payoff_sums(walk_of(work), 0, work.chunks, progress)
    digest, size = write_matrix(result, sums)
    return Computed(root=row_root(sums), digest=digest, size=size)


def verify(
    work: MonteCarloOption,
    blobs: Mapping[Digest, Path],
    result: Path | bytes,
    root: Digest,
    seed: Digest,
    threads: int = 0,
) -> Verdict:
    """See `actors.services.base.Service.verify`."""
    try:
        sums = read_sums(work, result)
    except BadInput as error:
        return Rejected(code=RejectionCode(error.data["reason"]), detail=error.why)
    found = row_root(sums)
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the rows have the root {found}, {root} was committed"
        )
    impossible = _impossible_row(work, sums)
    if impossible is not None:
        detail = f"row {impossible} has sums that no payoffs have"
        return Rejected(code=RejectionCode.RANGE, detail=detail, row=impossible)
    walk = walk_of(work)
    drawn = sample(seed, DOMAIN, SAMPLES, work.chunks)
    with ThreadPoolExecutor(threads or 1, thread_name_prefix="verify") as executor:
        again = executor.map(lambda chunk: chunk_sums(walk, chunk, 1)[0], drawn)
        for chunk, expected in zip(drawn, again, strict=True):
            if not np.array_equal(sums[chunk], expected):
                detail = f"row {chunk} is not that of paths {chunk * work.chunk_paths} and following"
                return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=detail, row=chunk)
    if len(drawn) == work.chunks:
        return Accepted(error_bits=ERROR_BITS, method="recomputed", samples=len(drawn), chunks=work.chunks)
    return Accepted(error_bits=0, method="sampled", samples=len(drawn), chunks=work.chunks)


def read_sums(work: MonteCarloOption, result: Path | bytes) -> Int64Array:
    """The rows of a result's file. Raises `BadInput`."""
    if isinstance(result, bytes):
        return matrix_from_bytes(result, "int64", work.chunks, SUMS)
    return open_matrix(result, "int64", work.chunks, SUMS)


def _impossible_row(work: MonteCarloOption, sums: Int64Array) -> int | None:
    """The first row that no payoffs of its paths can have."""
    most = work.strike if work.right == "put" else (work.spot << 12) - work.strike
    if sums.min() < 0:
        return int(np.argmax((sums < 0).any(axis=1)))
    for row, (total, high, products, low) in enumerate(sums.tolist()):
        paths = min(work.chunk_paths, work.paths - row * work.chunk_paths)
        squares = _sum_of_squares(high, products, low)
        if total * total > paths * squares or squares > total * max(most, 0):
            return row
    return None


def _sum_of_squares(high: int, products: int, low: int) -> int:
    """Of payoffs h 2**25 + l, from the sums of h h, h l and l l."""
    return (high << 2 * LOW_BITS) + (products << LOW_BITS + 1) + low


def estimate(work: MonteCarloOption, sums: Int64Array) -> Estimate:
    """The price that the sums say. It depends on them alone, whatever the machine."""
    rows = sums.tolist()
    total = sum(row[0] for row in rows)
    squares = _sum_of_squares(*(sum(row[column] for row in rows) for column in (1, 2, 3)))
    paths = work.paths
    with localcontext(prec=_DIGITS, rounding=ROUND_HALF_EVEN):
        years = Decimal(work.days) / DAYS_PER_YEAR
        discount = (-Decimal(work.rate_ppm) / MILLION * years).exp()
        deviation = (Decimal(paths * squares - total * total) / (paths * max(1, paths - 1))).sqrt()
        half_width = _DEVIATIONS * deviation / Decimal(paths).sqrt()
        mean = Decimal(total) / paths
        farthest = Decimal(0)
        for row, (chunk_total, *_) in enumerate(rows):
            size = min(work.chunk_paths, paths - row * work.chunk_paths)
            if deviation:
                distance = abs(Decimal(chunk_total) / size - mean) * Decimal(size).sqrt() / deviation
                farthest = max(farthest, distance)
        return Estimate(
            price=(discount * mean).quantize(Decimal(1)),
            half_width=(discount * half_width).quantize(Decimal(1)),
            farthest=farthest.quantize(Decimal("0.01")),
            paths=paths,
        )


def findings(work: MonteCarloOption, blobs: Mapping[Digest, Path], result: Path) -> dict[str, str]:
    """What the result says, for people. Raises `BadInput`."""
    sums = read_sums(work, result)
    if (impossible := _impossible_row(work, sums)) is not None:
        raise BadInput("the sums are refused", why=f"row {impossible} has sums that no payoffs have", reason="RANGE")
    found = estimate(work, sums)
    price, half_width = (f"{amount / MILLION:,.6f}" for amount in (found.price, found.half_width))
    return {
        "price": f"{price} ± {half_width} with 95 % confidence, from {found.paths:,} paths",
        "chunks": f"the farthest lies {found.farthest} standard errors from the mean",
    }
