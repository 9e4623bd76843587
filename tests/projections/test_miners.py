"""Registration of miners, and who can take a job."""

import pytest

from projections.miners import change_counters, price_of
from schemas.events import Device, Offer, Requirement
from schemas.refusals import (
    DuplicateEntry,
    MinerBusy,
    MinerExcluded,
    Refusal,
    RequirementNotMet,
    ServiceNotOffered,
    UnknownMiner,
)
from schemas.state import Miner
from schemas.values import MAX_SAFE_INTEGER
from tests.projections.ledger import (
    MINER,
    NO_JOB,
    SECOND_MINER,
    Ledger,
    Saying,
    assigned,
    committed,
    failed,
    genesis,
    given,
    registered,
    revealed,
    settled,
    submitted,
)


def miner_of(ledger: Ledger) -> Miner:
    miner = ledger.state.miner(MINER.address)
    assert miner is not None
    return miner


def test_a_registration_puts_up_the_offer() -> None:
    """A new miner has its offer, no jobs, and the time of its registration."""
    ledger = given().when(registered(unit_price=7)).then()

    assert miner_of(ledger) == Miner(
        name="a miner",
        capacity=1,
        devices=(Device(model="small", memory_mib=1), Device(model="large", memory_mib=1_000)),
        offers=(Offer(service="other.service", unit_price=1), Offer(service="matmul.int8", unit_price=7)),
        registered_ms=ledger.time_ms,
    )
    assert list(ledger.state.miners()) == [MINER.address]


def test_registering_again_replaces_the_offer_and_keeps_the_record() -> None:
    """What a miner has done stays, whatever it offers now."""
    ledger = given(registered(), submitted(), assigned(), committed(), revealed(), settled())
    before = miner_of(ledger)
    ledger.when(registered(name="renamed", capacity=0, offers=(Offer(service="new", unit_price=5),))).then()
    after = miner_of(ledger)

    assert (after.name, after.capacity, after.offers) == ("renamed", 0, (Offer(service="new", unit_price=5),))
    assert (before.settled, before.earned) == (1, 760)
    assert (after.settled, after.earned, after.registered_ms) == (1, 760, before.registered_ms)


def test_an_offer_names_each_service_once() -> None:
    """Two prices for one service are refused."""
    offers = tuple(Offer(service="matmul.int8", unit_price=price) for price in (1, 2))
    given().when(registered(offers=offers)).then(DuplicateEntry(entry="matmul.int8"))


def test_the_price_is_units_times_unit_price() -> None:
    """A job of 8 units at 100 costs 800; a service that is not offered has no price."""
    ledger = given(registered(unit_price=100), submitted())
    job, miner = ledger.job(), miner_of(ledger)

    assert price_of(miner, job) == 800
    assert price_of(Miner(name="n", capacity=1, devices=(), offers=(), registered_ms=0), job) is None


@pytest.mark.parametrize(
    ("before", "job", "refusal"),
    [
        ((), {}, UnknownMiner(miner=MINER.address)),
        ((registered(capacity=0),), {}, MinerBusy(miner=MINER.address, capacity=0)),
        ((registered(), submitted(), assigned()), {}, MinerBusy(miner=MINER.address, capacity=1)),
        (
            (registered(offers=(Offer(service="other", unit_price=1),)),),
            {},
            ServiceNotOffered(miner=MINER.address, service="matmul.int8"),
        ),
        (
            (registered(memory_mib=499),),
            {},
            RequirementNotMet(miner=MINER.address, needed_mib=500, available_mib=499),
        ),
    ],
)
def test_a_miner_that_cannot_take_the_job_does_not_get_it(
    before: tuple[Saying, ...], job: dict[str, object], refusal: Refusal
) -> None:
    """Capacity, service and memory of the miner decide; the job stays open."""
    given(*before, submitted(**job)).when(assigned()).then(refusal)


def test_a_job_that_names_its_miners_goes_to_no_other() -> None:
    """``requirement.miners`` excludes all others."""
    requirement = Requirement(memory_mib=0, miners=(SECOND_MINER.address,))
    ledger = given(registered(), registered(SECOND_MINER), submitted(requirement=requirement))
    ledger.when(assigned()).then(MinerExcluded(job=ledger.job_id, miner=MINER.address))
    ledger.when(assigned(miner=SECOND_MINER)).then()


def test_a_miner_that_failed_a_job_does_not_get_it_again() -> None:
    """One attempt per miner and job."""
    ledger = given(registered(), submitted(), assigned(), failed())
    ledger.when(assigned()).then(MinerExcluded(job=ledger.job_id, miner=MINER.address))


def test_a_finished_job_makes_room() -> None:
    """``running`` goes down when the job ends, so the miner can have the next one."""
    ledger = given(registered(), submitted(), assigned(), failed(), submitted())
    ledger.when(assigned()).then()

    assert (miner_of(ledger).running, miner_of(ledger).failed) == (1, 1)


def test_earnings_stop_at_the_largest_amount() -> None:
    """The counter of coins ever earned cannot leave the range of amounts."""
    draft = given(registered()).state.draft()
    change_counters(draft, MINER.address, earned=MAX_SAFE_INTEGER)
    change_counters(draft, MINER.address, earned=1)
    miner = draft.miner(MINER.address)

    assert miner is not None
    assert miner.earned == MAX_SAFE_INTEGER


def test_ending_a_job_that_nobody_has_stops_the_node() -> None:
    """Counting below zero, or for an unknown miner, is a broken invariant."""
    draft = given(registered()).state.draft()
    with pytest.raises(AssertionError, match="no such job"):
        change_counters(draft, MINER.address, running=-1)
    with pytest.raises(AssertionError, match="no such job"):
        change_counters(Ledger(genesis()).state.draft(), NO_JOB, running=1)
