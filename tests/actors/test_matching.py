"""Who may take a job, and why a job waits."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from actors.matching import Wanted, eligible, wanted_of, why_unmatched, why_waiting
from actors.profiles import MAINNET
from projections.miners import cannot_take, price_of
from schemas.events import Device, Offer, Requirement
from schemas.services import MatmulInt8, SeededMatrix, units_of
from schemas.state import (
    Assigned,
    Assignment,
    Attempt,
    Attested,
    Cancelled,
    Commitment,
    Committed,
    Job,
    Miner,
    Open,
    Refunded,
    Revealed,
    Settled,
    Situation,
    Standing,
)

A, B, C = ("U" + letter * 55 for letter in "ABC")
SEED = "0" * 64
WORK = MatmulInt8(
    a=SeededMatrix(rows=1_000, columns=1_000, seed=SEED), b=SeededMatrix(rows=1_000, columns=1_000, seed=SEED)
)
OPEN = Open(deadline_ms=10_000)


def miner(
    price: int = 2, *, capacity: int = 1, running: int = 0, memory: int = 1_024, service: str = "matmul.int8"
) -> Miner:
    return Miner(
        name="miner",
        capacity=capacity,
        devices=(Device(model="CPU", memory_mib=8), Device(model="CPU", memory_mib=memory)),
        offers=(Offer(service=service, unit_price=price),),
        registered_ms=0,
        running=running,
    )


def job(
    escrow: int = 5_000,
    *,
    memory: int = 0,
    named: tuple[str, ...] = (),
    tried: tuple[str, ...] = (),
    situation: Situation = OPEN,
) -> Job:
    return Job(
        owner=A,
        work=WORK,
        escrow=escrow,
        timeout_ms=1_000,
        requirement=Requirement(memory_mib=memory, miners=named or UNSET),
        submitted_ms=0,
        submitted_height=1,
        expires_ms=10_000,
        attempts=tuple(Attempt(miner=address, reason="RESULT_WRONG") for address in tried),
        situation=situation,
    )


def test_the_cheapest_miner_comes_first_then_the_freest_then_the_first_address() -> None:
    """Miners are ranked by price, then by free places, then by address."""
    miners = {C: miner(2, capacity=4, running=1), B: miner(2), A: miner(3, capacity=9)}
    assert eligible(job(), miners) == [(C, 2_000), (B, 2_000), (A, 3_000)]
    assert eligible(job(), {B: miner(), A: miner()}) == [(A, 2_000), (B, 2_000)]


def test_the_price_counts_started_units() -> None:
    """The price is the unit price times the started millions of multiplications."""
    small = replace(WORK, a=SeededMatrix(rows=1_001, columns=1_000, seed=SEED))
    assert units_of(small) == 1_001
    wanted = Wanted(work=small, escrow=9_000, requirement=Requirement(memory_mib=0))
    assert eligible(wanted, {A: miner(7)}) == [(A, 7_007)]


@pytest.mark.parametrize(
    ("asked", "miners", "code", "said"),
    [
        (job(), {}, "NO_MINER_FOR_SERVICE", "No miner has registered."),
        (job(), {A: miner(service="exam")}, "NO_MINER_FOR_SERVICE", "only miner does not offer matmul.int8"),
        (job(), {n: miner(service="exam") for n in (A, B)}, "NO_MINER_FOR_SERVICE", "None of the 2 registered"),
        (job(memory=2_048), {A: miner()}, "NO_MINER_WITH_MEMORY", "largest offered has 1024 MiB"),
        (job(1_999), {A: miner(), B: miner(3)}, "PRICE_TOO_LOW", "asks 0.002 ASY; the escrow is 0.001999 ASY"),
        (job(), {A: miner(running=1)}, "ALL_MINERS_BUSY", "The 1 miner that could do it: 1 of 1 places"),
        (job(), {A: miner(capacity=0)}, "ALL_MINERS_BUSY", "no new jobs"),
        (job(tried=(A, B)), {A: miner(), B: miner()}, "ALL_MINERS_EXCLUDED", "All 2"),
        (job(tried=(A,)), {A: miner()}, "ALL_MINERS_EXCLUDED", "The only miner that offers matmul.int8 has tried"),
        (job(named=(C,), tried=(A,)), {A: miner(), B: miner()}, "ALL_MINERS_EXCLUDED", "remaining 1"),
        (job(tried=(A,), memory=2_048), {A: miner(memory=9_999), B: miner()}, "NO_MINER_WITH_MEMORY", "1024"),
        (job(), {A: miner()}, "WAITING_FOR_COORDINATOR", "1 miner can"),
        (job(), {A: miner(), B: miner()}, "WAITING_FOR_COORDINATOR", "2 miners can"),
    ],
)
def test_an_open_job_says_what_it_waits_for(asked: Job, miners: dict[str, Miner], code: str, said: str) -> None:
    """The code names the first requirement that no miner is left for, and the sentence has the numbers."""
    waiting = why_waiting(asked, miners)
    assert waiting.code == code
    assert said in waiting.sentence
    assert (code == "WAITING_FOR_COORDINATOR") == bool(eligible(asked, miners))


STRICT = replace(MAINNET, min_bond=100)
MEASURED = Attested(score=90, grade="M", memory_mib=140_000, performance=50_000)
GOOD = Standing(bond=100, attested=MEASURED)


def standing(of: Standing, **changes: Any) -> Miner:
    return replace(miner(), standing=replace(of, **changes))


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (standing(GOOD), "WAITING_FOR_COORDINATOR", "1 miner can"),
        (standing(GOOD, banned=True), "ALL_MINERS_BANNED", "too many wrong results"),
        (
            standing(GOOD, bond=99),
            "NO_MINER_WITH_BOND",
            "to bond 100 micro-ASY",
        ),
        (miner(), "NO_MINER_WITH_BOND", "has bonded is 0"),
        (standing(GOOD, attested=UNSET), "NO_MINER_ATTESTED", "NOT_ATTESTED: of the 1 miner that"),
        (standing(GOOD, attested=replace(MEASURED, score=69)), "NO_MINER_ATTESTED", "the best has 69 points"),
        (
            standing(GOOD, attested=replace(MEASURED, score=69)),
            "NO_MINER_ATTESTED",
            "asked for are 70 points, 15564 MiB",
        ),
        (standing(GOOD, attested=replace(MEASURED, memory_mib=8)), "NO_MINER_ATTESTED", "REQUIREMENT_NOT_MET"),
        (standing(GOOD, attested=replace(MEASURED, performance=8)), "NO_MINER_ATTESTED", "PERFORMANCE_TOO_LOW"),
    ],
)
def test_a_chain_that_asks_for_more_says_what_is_missing(found: Miner, code: str, said: str) -> None:
    """Bans, bonds and attestation are looked at as the rules do, and only where the chain asks for them."""
    waiting = why_waiting(job(), {A: found}, STRICT)
    assert (waiting.code, said in waiting.sentence) == (code, True)
    view: Any = SimpleNamespace(miner={A: found}.get, parameters=SimpleNamespace(trust=STRICT))
    assert (cannot_take(view, SEED, job(), A) is None) == bool(eligible(job(), {A: found}, STRICT))
    assert (code == "ALL_MINERS_BANNED") != bool(eligible(job(), {A: found}))


@pytest.mark.parametrize(
    ("asked", "code"),
    [({"score": 91}, "NO_MINER_ATTESTED"), ({"grade": "H"}, "NO_MINER_ATTESTED"), ({"score": 90, "grade": "C"}, "")],
)
def test_a_job_that_asks_for_more_says_so(asked: dict[str, Any], code: str) -> None:
    """A score or a grade above all miners' leaves the job waiting; one that is met does not."""
    wanted = replace(wanted_of(job()), requirement=Requirement(memory_mib=0, **asked))
    assert why_unmatched(wanted, {A: standing(GOOD)}).code == (code or "WAITING_FOR_COORDINATOR")


ASSIGNMENT = Assignment(miner=B, coordinator=C, price=1, assigned_ms=1, assigned_height=1)
COMMITMENT = Commitment(root=SEED, result=SEED, size=1, committed_ms=1, committed_height=1)


@pytest.mark.parametrize(
    ("situation", "code"),
    [
        (Assigned(deadline_ms=9, assignment=ASSIGNMENT), "RUNNING"),
        (Committed(deadline_ms=9, assignment=ASSIGNMENT, commitment=COMMITMENT), "WAITING_FOR_REVEAL"),
        (
            Revealed(deadline_ms=9, assignment=ASSIGNMENT, commitment=COMMITMENT, miner_sig="A" * 86),
            "WAITING_FOR_VERDICT",
        ),
        (
            Settled(
                assignment=ASSIGNMENT,
                commitment=COMMITMENT,
                miner_sig="A" * 86,
                coordinator_sig="A" * 86,
                ended_ms=1,
                ended_height=1,
            ),
            "ENDED_SETTLED",
        ),
        (Refunded(reason="EXPIRED", ended_ms=1, ended_height=1), "ENDED_REFUNDED"),
        (Cancelled(ended_ms=1, ended_height=1), "ENDED_CANCELLED"),
    ],
)
def test_a_job_past_matching_says_where_it_is(situation: Situation, code: str) -> None:
    """Each situation after the matching has its code."""
    assert why_waiting(job(situation=situation), {}).code == code


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("BAD_INPUT", "BAD_INPUT, an input is not what the work says of it."),
        ("EXPIRED", "EXPIRED, no miner took it within its lifetime."),
        ("OF_A_LATER_VERSION", "OF_A_LATER_VERSION."),
    ],
)
def test_a_refunded_job_says_why_in_words(reason: str, said: str) -> None:
    """Each reason that the rules or a coordinator give is explained; any other is shown as it is."""
    waiting = why_waiting(job(situation=Refunded(reason=reason, ended_ms=1, ended_height=1)), {})
    assert waiting.sentence == f"The escrow went back to the client: {said}"


@given(
    st.dictionaries(
        st.sampled_from((A, B, C)),
        st.builds(
            miner,
            st.integers(0, 6),
            capacity=st.integers(0, 2),
            running=st.integers(0, 2),
            memory=st.sampled_from((16, 64)),
            service=st.sampled_from(("matmul.int8", "exam")),
        ),
    ),
    st.integers(1, 6_000),
    st.sampled_from((0, 32, 128)),
)
def test_the_ranking_does_not_depend_on_the_order_of_the_miners(
    miners: dict[str, Miner], escrow: int, memory: int
) -> None:
    """The same miners in another order give the same ranking: just those that the rules let have the job."""
    asked = job(escrow, memory=memory)
    ranked = eligible(asked, miners)
    assert ranked == eligible(asked, dict(reversed(miners.items())))
    assert ranked == sorted(ranked, key=lambda entry: entry[1])
    view: Any = SimpleNamespace(miner=miners.get, parameters=SimpleNamespace(trust=UNSET))
    takers = [address for address in miners if cannot_take(view, SEED, asked, address) is None]
    assert {address for address, _ in ranked} == {
        address for address in takers if (price_of(miners[address], asked) or 0) <= escrow
    }
    for address, price in ranked:
        assert price <= escrow
        assert miners[address].running < miners[address].capacity
    assert (why_unmatched(wanted_of(asked), miners).code == "WAITING_FOR_COORDINATOR") == bool(ranked)
