"""What happens to jobs as time passes."""

import pytest
from hypothesis import given as examples
from hypothesis import strategies

from projections.deadlines import Deadlines, deadline_of
from projections.execute import timers_due
from schemas.blocks import TimerFired
from schemas.refusals import DeadlinePassed
from schemas.state import Attempt, Job, Open, Refunded
from tests.projections.ledger import (
    BALANCE,
    CLIENT,
    MINER,
    SECOND_MINER,
    Ledger,
    Saying,
    assigned,
    committed,
    given,
    registered,
    revealed,
    settled,
    submitted,
)

FEE = 10_000


def timers_of(ledger: Ledger) -> tuple[object, ...]:
    assert ledger.executed is not None
    return ledger.executed.outcomes[: ledger.executed.timers]


def test_an_open_job_expires_with_its_lifetime() -> None:
    """Exactly at its deadline a job that no miner has goes back to its owner."""
    ledger = given(submitted(lifetime_ms=5_000)).wait(4_999)
    assert timers_of(ledger) == ()
    ledger.wait(1)

    assert timers_of(ledger) == (TimerFired(job=ledger.job_id, reason="EXPIRED", refunded=1_000),)
    assert ledger.job().situation == Refunded(reason="EXPIRED", ended_ms=ledger.time_ms, ended_height=3)
    assert ledger.balance(CLIENT) == BALANCE - FEE


@pytest.mark.parametrize(
    ("sayings", "limit_ms", "reason"),
    [
        ((assigned(),), 10_000, "DEADLINE_MISSED"),
        ((assigned(), committed()), 4_000, "RESULT_NOT_REVEALED"),
    ],
)
def test_a_miner_that_misses_a_deadline_loses_the_job(sayings: tuple[Saying, ...], limit_ms: int, reason: str) -> None:
    """The attempt is counted as failed and the job opens again, until its lifetime ends."""
    ledger = given(registered(), submitted(), *sayings).wait(limit_ms - 1)
    assert timers_of(ledger) == ()
    ledger.wait(1)

    assert timers_of(ledger) == (TimerFired(job=ledger.job_id, reason=reason, refunded=0),)
    assert ledger.job().situation == Open(deadline_ms=ledger.job().expires_ms)
    assert ledger.job().attempts == (Attempt(miner=MINER.address, reason=reason),)
    miner = ledger.state.miner(MINER.address)
    assert miner is not None
    assert (miner.running, miner.failed) == (0, 1)


def test_the_last_attempt_ends_in_a_refund() -> None:
    """When attempts are used up the escrow goes back with the last reason."""
    ledger = given(registered(), registered(SECOND_MINER), submitted(), assigned()).wait(10_000)
    ledger.when(assigned(miner=SECOND_MINER)).then()
    ledger.wait(10_000)

    assert timers_of(ledger) == (TimerFired(job=ledger.job_id, reason="DEADLINE_MISSED", refunded=1_000),)
    assert ledger.job().situation == Refunded(
        reason="DEADLINE_MISSED", ended_ms=ledger.time_ms, ended_height=ledger.height
    )
    assert len(ledger.job().attempts) == 2
    assert ledger.balance(CLIENT) == BALANCE - FEE


@pytest.mark.parametrize("lifetime_ms", [5_000, 11_000])
def test_a_job_whose_lifetime_is_over_does_not_open_again(lifetime_ms: int) -> None:
    """A deadline missed at the end of the lifetime or after it refunds at once, with the reason EXPIRED."""
    ledger = given(registered(), submitted(lifetime_ms=lifetime_ms), assigned()).wait(10_000)

    assert timers_of(ledger) == (TimerFired(job=ledger.job_id, reason="DEADLINE_MISSED", refunded=1_000),)
    assert ledger.job().situation == Refunded(reason="EXPIRED", ended_ms=ledger.time_ms, ended_height=ledger.height)


def test_a_result_that_nobody_verifies_is_refunded_without_blame() -> None:
    """The owner gets the escrow back; the miner is not paid, and has not failed either."""
    ledger = given(registered(), submitted(), assigned(), committed(), revealed()).wait(5_000)

    assert timers_of(ledger) == (TimerFired(job=ledger.job_id, reason="NOT_VERIFIED", refunded=1_000),)
    assert ledger.job().situation == Refunded(
        reason="NOT_VERIFIED", ended_ms=ledger.time_ms, ended_height=ledger.height
    )
    assert ledger.job().attempts == ()
    miner = ledger.state.miner(MINER.address)
    assert miner is not None
    assert (miner.running, miner.failed, miner.settled) == (0, 0, 0)
    assert ledger.balance(CLIENT) == BALANCE - FEE


def test_timers_fire_before_the_events_of_the_block() -> None:
    """A commitment in the block of its deadline comes too late."""
    ledger = given(registered(), submitted(), assigned()).when(committed(), after_ms=10_000)
    assert ledger.executed is not None

    assert ledger.executed.timers == 1
    assert [type(outcome).__name__ for outcome in ledger.executed.outcomes] == ["TimerFired", "Failed"]


def test_timers_fire_in_order_of_deadline_then_job() -> None:
    """Jobs that are due in one block are dealt with by deadline, then id, whatever order they came in."""
    ledger = given()
    ids = []
    for lifetime_ms in (9_000, 7_000, 5_000, 6_000):
        ledger.when(submitted(lifetime_ms=lifetime_ms)).then()
        ids.append((ledger.time_ms + lifetime_ms, ledger.job_id))
    assert ledger.state.next_deadline_ms() == min(ids)[0]
    assert not timers_due(ledger.state, min(ids)[0] - 1)
    assert timers_due(ledger.state, min(ids)[0])
    ledger.wait(20_000)

    assert [outcome.job for outcome in timers_of(ledger) if isinstance(outcome, TimerFired)] == [
        job_id for _, job_id in sorted(ids)
    ]
    assert ledger.state.next_deadline_ms() is None
    assert not timers_due(ledger.state, 2**53)


def test_a_block_acts_on_as_many_deadlines_as_it_may_hold_events() -> None:
    """However many come at once, no block takes longer for it; the next blocks act on the others, in the same order."""
    ledger = given(max_block_events=2)
    ids = []
    for lifetime_ms in (60_000, 50_000, 40_000, 30_000, 20_000):
        ledger.when(submitted(lifetime_ms=lifetime_ms)).then()
        ids.insert(0, ledger.job_id)

    acted = []
    for _ in range(3):
        ledger.wait(100_000)
        acted.append([outcome.job for outcome in timers_of(ledger) if isinstance(outcome, TimerFired)])
    assert acted == [ids[:2], ids[2:4], ids[4:]]
    assert not timers_due(ledger.state, 2**53)


@pytest.mark.parametrize(
    ("sayings", "late", "limit_ms"),
    [
        ((), assigned(), 100_000),
        ((assigned(),), committed(), 10_000),
        ((assigned(), committed()), revealed(), 4_000),
        ((assigned(), committed(), revealed()), settled(), 5_000),
    ],
)
def test_a_deadline_holds_before_a_block_acts_on_it(sayings: tuple[Saying, ...], late: Saying, limit_ms: int) -> None:
    """While its deadline waits behind others a job goes no further."""
    ledger = given(registered(), submitted(), *sayings, max_block_events=1)
    deadline_ms = ledger.time_ms + limit_ms
    job_id = ledger.job_id
    ledger.when(submitted(lifetime_ms=1)).then()
    ledger.job_id = job_id

    ledger.when(late, after_ms=limit_ms - 1_000)
    ledger.then(DeadlinePassed(job=job_id, deadline_ms=deadline_ms, now_ms=deadline_ms))
    ledger.wait(1)
    assert [outcome.job for outcome in timers_of(ledger) if isinstance(outcome, TimerFired)] == [job_id]


def test_a_finished_job_has_no_deadline() -> None:
    """Settled jobs are left alone for ever."""
    ledger = given(registered(), submitted(), assigned(), committed(), revealed(), settled()).wait(10**9)

    assert deadline_of(ledger.job()) is None
    assert timers_of(ledger) == ()
    assert ledger.state.unfinished_jobs() == {}


@examples(
    strategies.lists(
        strategies.tuples(strategies.integers(0, 5), strategies.one_of(strategies.none(), strategies.integers(0, 9))),
        max_size=40,
    ),
    strategies.integers(0, 9),
)
def test_due_jobs_depend_on_the_jobs_alone(changes: list[tuple[int, int | None]], now_ms: int) -> None:
    """After any history of changes the queue answers what a plain sort of the jobs would."""
    template = given(submitted()).job()
    jobs: dict[str, Job] = {}
    deadlines = Deadlines(jobs)
    for number, deadline_ms in changes:
        job_id = str(number)
        if deadline_ms is None:
            jobs.pop(job_id, None)
        else:
            jobs[job_id] = _with_deadline(template, deadline_ms)
        deadlines.add([job_id])
        if number % 2:
            deadlines.due(now_ms, number)
    expected = sorted((deadline, job_id) for job_id, job in jobs.items() if (deadline := deadline_of(job)) is not None)

    due = [job_id for deadline, job_id in expected if deadline <= now_ms]
    assert deadlines.due(now_ms, 2) == due[:2]
    assert deadlines.due(now_ms, 99) == due
    assert deadlines.due(now_ms, 99) == Deadlines(dict(reversed(jobs.items()))).due(now_ms, 99)
    assert deadlines.next_ms() == (expected[0][0] if expected else None)


def _with_deadline(job: Job, deadline_ms: int) -> Job:
    return Job(
        owner=job.owner,
        work=job.work,
        escrow=job.escrow,
        timeout_ms=job.timeout_ms,
        requirement=job.requirement,
        submitted_ms=job.submitted_ms,
        submitted_height=job.submitted_height,
        expires_ms=job.expires_ms,
        situation=Open(deadline_ms=deadline_ms),
    )
