"""The service montecarlo.option: sums over random paths, what they say, and judging them."""

import math
from decimal import Decimal
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from actors.backends.cpu import CpuBackend
from actors.backends.reference.option import normal_deviates, prices
from actors.services.base import Accepted, Computed, Rejected, RejectionCode
from actors.services.npy import header_bytes, open_matrix, write_matrix
from actors.services.option import (
    check_inputs,
    compute,
    estimate,
    findings,
    memory_needed,
    read_sums,
    result_sizes,
    row_root,
    verify,
    walk_of,
)
from events.errors import BadInput
from events.merkle import root
from schemas.services import MonteCarloOption

SEED = "5e" * 32
WORK = MonteCarloOption(
    style="european",
    right="call",
    spot=100_000_000,
    strike=105_000_000,
    rate_ppm=30_000,
    volatility_ppm=200_000,
    days=365,
    steps=1,
    paths=300_000,
    seed="ab" * 32,
)


def black_scholes(work: MonteCarloOption) -> float:
    """The price of a European option, in units."""
    spot, strike = work.spot / 1e6, work.strike / 1e6
    rate, volatility, years = work.rate_ppm / 1e6, work.volatility_ppm / 1e6, work.days / 365
    spread = volatility * math.sqrt(years)
    d = (math.log(spot / strike) + (rate + volatility**2 / 2) * years) / spread
    discounted, phi = strike * math.exp(-rate * years), NormalDist().cdf
    call = spot * phi(d) - discounted * phi(d - spread)
    return call if work.right == "call" else call - spot + discounted


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[MonteCarloOption, Path, Computed]:
    """A work of 74 chunks, the last of which is short, and an honest result."""
    result = tmp_path_factory.mktemp("option") / "result"
    return WORK, result, compute(WORK, {}, CpuBackend(2), result, threads=2)


def test_what_is_computed_is_committed(case: Any) -> None:
    """Root, digest and size are those of the file, which is a table of a row per chunk."""
    work, result, computed = case
    sums = open_matrix(result, "int64", work.chunks, 4)
    assert computed.root == root(row.tobytes() for row in sums).hex() == row_root(sums)
    assert computed.size == result.stat().st_size
    assert computed.size in result_sizes(work)
    assert memory_needed(work) > computed.size
    check_inputs(work, {})


@pytest.mark.parametrize("threads", [1, 3])
def test_an_honest_result_is_accepted_by_a_sample(case: Any, threads: int) -> None:
    """44 of the 74 chunks are done again, from file and from memory, by any number of threads."""
    work, result, computed = case
    for given in (result, result.read_bytes()):
        verdict = verify(work, {}, given, computed.root, SEED, threads)
        assert verdict == Accepted(error_bits=0, method="sampled", samples=44, chunks=74)


@pytest.mark.parametrize(
    "work",
    [
        replace(WORK, paths=1),
        replace(WORK, paths=4_097, right="put"),
        replace(WORK, paths=700, steps=365, style="asian"),
        replace(WORK, paths=300, steps=4_096, style="asian", right="put"),
        replace(WORK, paths=5_000, volatility_ppm=1_000_000, rate_ppm=1_000_000, spot=10**11, strike=1),
        replace(WORK, paths=5_000, volatility_ppm=1_000_000, rate_ppm=-500_000, spot=1, strike=10**11, right="put"),
        replace(WORK, paths=9_000, volatility_ppm=0),
        replace(WORK, paths=2_000, days=36_500, volatility_ppm=100_000, rate_ppm=-10_000),
    ],
    ids=["one path", "put", "daily", "most steps", "highest", "lowest", "no chance", "a century"],
)
def test_few_chunks_are_all_done_again(tmp_path: Path, work: MonteCarloOption) -> None:
    """Of every style and at the bounds of every parameter an honest result is accepted, and no wrong one could be."""
    assert work.inconsistency() is None
    computed = compute(work, {}, CpuBackend(), tmp_path / "result")
    verdict = verify(work, {}, tmp_path / "result", computed.root, SEED)
    assert verdict == Accepted(error_bits=128, method="recomputed", samples=work.chunks, chunks=work.chunks)
    assert "price" in findings(work, {}, tmp_path / "result")


@pytest.mark.parametrize("right", ["call", "put"])
@pytest.mark.parametrize(("strike", "days", "steps"), [(80, 365, 1), (100, 30, 1), (120, 3_000, 1), (105, 365, 8)])
def test_prices_are_those_of_black_and_scholes(tmp_path: Path, right: Any, strike: int, days: int, steps: int) -> None:
    """The price is within three half-widths of the formula, and the half-width is what so many paths give."""
    work = replace(WORK, right=right, strike=strike * 10**6, days=days, steps=steps, paths=200_000)
    compute(work, {}, CpuBackend(), tmp_path / "result")
    found = estimate(work, read_sums(work, tmp_path / "result"))
    assert abs(float(found.price) / 1e6 - black_scholes(work)) < 3 * float(found.half_width) / 1e6
    assert 0 < found.half_width < found.price
    assert found.farthest < 6


def test_an_asian_option_on_one_step_is_european(tmp_path: Path) -> None:
    """The mean of one price is that price."""
    for style in ("european", "asian"):
        compute(replace(WORK, style=style, paths=9_000), {}, CpuBackend(), tmp_path / style)  # type: ignore[arg-type]
    assert (tmp_path / "european").read_bytes() == (tmp_path / "asian").read_bytes()


def test_an_asian_option_is_cheaper(tmp_path: Path) -> None:
    """A mean moves less than the last price: the option costs little more than half, as the theory says."""
    found = []
    for style in ("european", "asian"):
        work = replace(WORK, style=style, paths=50_000, steps=24, strike=100_000_000)  # type: ignore[arg-type]
        compute(work, {}, CpuBackend(), tmp_path / style)
        found.append(estimate(work, read_sums(work, tmp_path / style)).price)
    assert Decimal("0.5") < found[1] / found[0] < Decimal("0.65")


def test_nothing_is_left_to_chance_without_volatility(tmp_path: Path) -> None:
    """The price is the discounted difference, to a millionth, and the interval has no width."""
    work = replace(WORK, volatility_ppm=0, strike=90_000_000, paths=10)
    compute(work, {}, CpuBackend(), tmp_path / "result")
    found = estimate(work, read_sums(work, tmp_path / "result"))
    assert abs(found.price - Decimal(100_000_000 - 90_000_000 * math.exp(-0.03))) <= 2
    assert (found.half_width, found.farthest) == (0, 0)


def test_deviates_are_normal() -> None:
    """Mean 0, variance 1, kurtosis 3 and the tails, and 2^-17 near the exact deviate, over a grid of all words."""
    words = (np.arange(1 << 20, dtype=np.uint64) << np.uint64(12)) + np.uint64(2_049)
    found = normal_deviates(words) / 2**20
    assert abs(found.mean()) < 1e-6
    assert abs((found**2).mean() - 1) < 1e-4
    assert abs((found**4).mean() - 3) < 0.002
    assert abs((np.abs(found) > 3).mean() - 2 * NormalDist().cdf(-3)) < 1e-5
    for word in (0, 1, 2, 1_000, 2**20 + 7, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 3_000_000_000):
        tail = (2 * (word & 0x7FFFFFFF) + 1) / 2**33
        exact = -NormalDist().inv_cdf(tail) * (-1 if word >> 31 else 1)
        assert abs(int(normal_deviates(np.array([word], dtype=np.uint64))[0]) / 2**20 - exact) < 2**-17


def test_prices_are_powers() -> None:
    """The price of a sum of deviates is the exponential, to 2^-28 of it, from the least logarithm to the greatest."""
    walk = replace(walk_of(WORK), spot=10**11, drift=0, diffusion=2**32)
    logs = np.linspace(-11.9, 11.9, 2_001)
    found = prices(walk, (logs * 2**20).astype(np.int64), 1)
    exact = 1e11 * 2.0 ** ((logs * 2**20).astype(np.int64) / 2**20)
    assert np.abs(found / exact - 1).max() < 2**-28 + 1e-7
    beyond = prices(walk, np.array([12 << 20, 13 << 20, -(32 << 20), -(40 << 20)], dtype=np.int64), 1)
    assert beyond[0] == beyond[1]
    assert beyond[2] == beyond[3] == 10**11 >> 32


def test_sums_that_cannot_be_say_nothing(case: Any, tmp_path: Path) -> None:
    """A price is never made of a table that no paths have."""
    work, result, _ = case
    write_matrix(tmp_path / "forged", forged(open_matrix(result, "int64", 74, 4), 3, 0, -(2**60)))
    with pytest.raises(BadInput, match="row 3"):
        findings(work, {}, tmp_path / "forged")


def forged(sums: np.ndarray, row: int, column: int, by: int) -> np.ndarray:
    changed = sums.copy()
    changed[row, column] += by
    return changed


FORGED = [
    ("negative", lambda s: forged(s, 3, 0, -(2**60)), RejectionCode.RANGE, 3),
    ("sum above the squares", lambda s: forged(s, 70, 0, 2**45), RejectionCode.RANGE, 70),
    ("squares without payoffs", lambda s: forged(s, 9, 1, 2**58), RejectionCode.RANGE, 9),
    ("all zero but one", lambda s: np.where(np.arange(74)[:, None] == 5, s, 0), RejectionCode.CHUNK_MISMATCH, None),
    ("one more everywhere", lambda s: s + np.array([1, 0, 0, 0]), RejectionCode.CHUNK_MISMATCH, None),
    ("rows exchanged", lambda s: s[::-1], RejectionCode.RANGE, None),
    ("half of the rows twice", lambda s: np.concatenate((s[:37], s[:37])), RejectionCode.RANGE, 73),
]


@pytest.mark.parametrize(("forge", "code", "row"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_forged_results_are_rejected(case: Any, tmp_path: Path, forge: Any, code: Any, row: int | None) -> None:
    """A wrong result is rejected under a root that fits it, by what sums can be or by a chunk that is done again."""
    work, result, _ = case
    wrong = np.ascontiguousarray(forge(open_matrix(result, "int64", 74, 4)))
    write_matrix(tmp_path / "forged", wrong)
    verdict = verify(work, {}, tmp_path / "forged", row_root(wrong), SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is code
    assert row is None or verdict.row == row


def test_a_share_of_wrong_chunks_is_found_as_often_as_the_bound_says(case: Any, tmp_path: Path) -> None:
    """One wrong chunk of 74 is found under 44 of 74 seeds, within what chance allows; a fifth under all of these."""
    work, result, _ = case
    sums = open_matrix(result, "int64", 74, 4)
    seeds = [f"{number:064x}" for number in range(20)]
    for wrong, least, most in ((1, 5, 19), (15, 20, 20)):
        changed = sums.copy()
        changed[:wrong, 3] ^= 1
        write_matrix(tmp_path / f"forged{wrong}", changed)
        committed = row_root(changed)
        verdicts = [verify(work, {}, tmp_path / f"forged{wrong}", committed, seed) for seed in seeds]
        assert least <= sum(isinstance(verdict, Rejected) for verdict in verdicts) <= most


DATA = bytes(74 * 32)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", RejectionCode.MALFORMED),
        (b"\x93NUMPY", RejectionCode.MALFORMED),
        (header_bytes("int64", 74, 4) + DATA[:-1], RejectionCode.MALFORMED),
        (header_bytes("int64", 74, 4) + DATA + b"\0", RejectionCode.MALFORMED),
        (header_bytes("int32", 74, 4) + DATA[: 74 * 16], RejectionCode.TYPE),
        (header_bytes("float32", 148, 4) + DATA, RejectionCode.TYPE),
        (header_bytes("int64", 4, 74) + DATA, RejectionCode.SHAPE),
        (header_bytes("int64", 2**30, 2**30), RejectionCode.SHAPE),
        (header_bytes("int64", 74, 4) + DATA, RejectionCode.ROOT_MISMATCH),
    ],
)
def test_misshapen_results_are_rejected(case: Any, tmp_path: Path, content: bytes, code: RejectionCode) -> None:
    """What is not such a table, or not the one that was committed, is rejected as such, from file and memory."""
    work, _, computed = case
    (tmp_path / "given").write_bytes(content)
    for given in (tmp_path / "given", content):
        verdict = verify(work, {}, given, computed.root, SEED)
        assert isinstance(verdict, Rejected)
        assert verdict.code is code


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"volatility_ppm": 1_000_001}, "variance"),
        ({"volatility_ppm": 4_000_000, "days": 22}, None),
        ({"volatility_ppm": 4_000_000, "days": 23}, "variance"),
        ({"rate_ppm": -500_000, "days": 731, "volatility_ppm": 0}, "rate"),
        ({"rate_ppm": -500_000, "days": 730, "volatility_ppm": 0}, None),
        ({"steps": 4_096, "paths": 256 * 262_144}, None),
        ({"steps": 4_096, "paths": 256 * 262_144 + 1}, "262145 chunks"),
        ({"paths": 2**30}, None),
    ],
)
def test_what_contradicts_itself_is_told(changes: dict[str, Any], said: str | None) -> None:
    """Work that fixed point could not hold, or of too many chunks, is refused with its reason; at the bound not."""
    found = replace(WORK, **changes).inconsistency()
    assert (found is None) if said is None else said in (found or "")
