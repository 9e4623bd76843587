"""The life of a job: every step, and every way in which a step is refused."""

import pytest

from events.canonical import digest
from events.keys import Key
from events.receipts import receipt_digest, sign_receipt
from projections.execute import GAS
from projections.receipts import receipt_of
from schemas.events import JobRevealed, JobSettled, Offer, Requirement
from schemas.refusals import (
    BadReceiptSignature,
    DuplicateEntry,
    InsufficientBalance,
    NotCoordinator,
    NotYourJob,
    PriceAboveEscrow,
    Refusal,
    TimeoutTooLong,
    UnknownJob,
    WrongPrice,
    WrongShape,
    WrongSituation,
)
from schemas.services import MAX_MATRIX_BYTES, MAX_SIDE
from schemas.state import (
    Assigned,
    Assignment,
    Attempt,
    Cancelled,
    Commitment,
    Committed,
    Job,
    Open,
    Refunded,
    Revealed,
    Settled,
    situation_of,
)
from schemas.values import MAX_SAFE_INTEGER
from tests.projections.ledger import (
    ALICE,
    BALANCE,
    BOB,
    CHAIN,
    CLIENT,
    COORDINATOR,
    MINER,
    NO_JOB,
    SECOND_COORDINATOR,
    SECOND_MINER,
    Ledger,
    Saying,
    assigned,
    cancelled,
    committed,
    failed,
    given,
    refunded,
    registered,
    revealed,
    say,
    settled,
    submitted,
    work,
)

FEE = GAS["job.submitted"]
OPEN = (registered(), submitted())
ASSIGNED = (*OPEN, assigned())
COMMITTED = (*ASSIGNED, committed())
REVEALED = (*COMMITTED, revealed())
SETTLED = (*REVEALED, settled())


def assignment_of(ledger: Ledger) -> Assignment:
    situation = ledger.job().situation
    assert isinstance(situation, Assigned | Committed | Revealed | Settled)
    return situation.assignment


def test_submission_locks_the_escrow() -> None:
    """A job opens under the id of its event; its escrow leaves the balance and counts as escrowed."""
    ledger = given().when(submitted()).then()

    assert ledger.job() == Job(
        owner=CLIENT.address,
        work=work(),
        escrow=1_000,
        timeout_ms=10_000,
        requirement=Requirement(memory_mib=500),
        submitted_ms=ledger.time_ms,
        submitted_height=1,
        expires_ms=ledger.time_ms + 100_000,
        situation=Open(deadline_ms=ledger.time_ms + 100_000),
    )
    assert ledger.balance(CLIENT) == BALANCE - FEE - 1_000
    assert ledger.state.supply().escrowed == 1_000
    assert list(ledger.state.unfinished_jobs()) == [ledger.job_id]


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"work": work(inner=200, b_rows=201)}, WrongShape(detail="a has 200 columns, b has 201 rows")),
        (
            {"work": work(rows=MAX_SIDE + 1)},
            WrongShape(detail=f"a.rows is {MAX_SIDE + 1}, at most {MAX_SIDE} are possible"),
        ),
        (
            {"work": work(columns=MAX_SIDE + 1)},
            WrongShape(detail=f"b.columns is {MAX_SIDE + 1}, at most {MAX_SIDE} are possible"),
        ),
        (
            {"work": work(rows=513, inner=131_071, columns=1)},
            WrongShape(detail=f"a has {513 * 131_071} bytes, at most {MAX_MATRIX_BYTES} are possible"),
        ),
        (
            {"work": work(rows=1, inner=131_071, columns=513)},
            WrongShape(detail=f"b has {513 * 131_071} bytes, at most {MAX_MATRIX_BYTES} are possible"),
        ),
        (
            {"work": work(rows=4_096, inner=1, columns=4_097)},
            WrongShape(detail=f"the product has {4 * 4_096 * 4_097} bytes, at most {MAX_MATRIX_BYTES} are possible"),
        ),
        ({"timeout_ms": 60_001}, TimeoutTooLong(field="timeout_ms", limit_ms=60_000, found_ms=60_001)),
        ({"lifetime_ms": 600_001}, TimeoutTooLong(field="lifetime_ms", limit_ms=600_000, found_ms=600_001)),
        (
            {"requirement": Requirement(memory_mib=0, miners=(MINER.address, MINER.address))},
            DuplicateEntry(entry=MINER.address),
        ),
        ({"escrow": BALANCE}, InsufficientBalance(needed=BALANCE, available=BALANCE - FEE)),
    ],
)
def test_a_submission_that_cannot_be_is_no_job(fields: dict[str, object], refusal: Refusal) -> None:
    """Shape, times, miners and escrow are checked; the sender pays the fee."""
    ledger = given().when(submitted(**fields)).then(refusal)

    assert ledger.state.job(ledger.job_id) is None
    assert ledger.balance(CLIENT) == BALANCE - FEE


@pytest.mark.parametrize(
    "sides",
    [(4_096, 16_384, 4_096), (MAX_SIDE, 4_096, 1_024), (1_024, 4_096, MAX_SIDE), (512, 131_071, 512), (MAX_SIDE, 1, 1)],
)
def test_the_matrices_of_a_job_may_be_as_large_as_the_bounds(sides: tuple[int, int, int]) -> None:
    """The bounds themselves are possible."""
    rows, inner, columns = sides
    given().when(submitted(work=work(rows=rows, inner=inner, columns=columns))).then()


def test_assignment_sets_the_deadline_of_the_attempt() -> None:
    """The miner has ``timeout_ms`` from the block that assigned it; the coordinator pays no fee."""
    ledger = given(*OPEN).when(assigned()).then()
    assignment = Assignment(
        miner=MINER.address, coordinator=COORDINATOR.address, price=800, assigned_ms=ledger.time_ms, assigned_height=3
    )

    assert ledger.job().situation == Assigned(deadline_ms=ledger.time_ms + 10_000, assignment=assignment)
    assert ledger.balance(COORDINATOR) == BALANCE


@pytest.mark.parametrize(
    ("before", "saying", "refusal"),
    [
        ((registered(),), assigned(price=801), WrongPrice(expected=800, found=801)),
        ((registered(),), assigned(price=0), WrongPrice(expected=800, found=0)),
        ((registered(unit_price=126),), assigned(price=1_008), PriceAboveEscrow(price=1_008, escrow=1_000)),
        (
            (registered(offers=(Offer(service="matmul.int8", unit_price=MAX_SAFE_INTEGER),)),),
            assigned(),
            PriceAboveEscrow(price=MAX_SAFE_INTEGER, escrow=1_000),
        ),
    ],
)
def test_a_price_is_the_miners_own_and_within_the_escrow(
    before: tuple[Saying, ...], saying: Saying, refusal: Refusal
) -> None:
    """The coordinator cannot bargain; a price beyond all amounts is still a price above the escrow."""
    given(*before, submitted()).when(saying).then(refusal)


def test_commitment_starts_the_time_to_reveal() -> None:
    """The result is fixed and the deadline is the chain's time to reveal."""
    ledger = given(*ASSIGNED).when(committed()).then()
    commitment = Commitment(
        root=digest(b"root"),
        result=digest(b"blob"),
        size=160_128,
        committed_ms=ledger.time_ms,
        committed_height=4,
    )

    assert ledger.job().situation == Committed(
        deadline_ms=ledger.time_ms + 4_000, assignment=assignment_of(ledger), commitment=commitment
    )
    assert ledger.balance(MINER) == BALANCE - GAS["miner.registered"]


def test_reveal_keeps_the_miners_signature() -> None:
    """The miner's signature of the receipt is kept, and the time to verify starts."""
    ledger = given(*COMMITTED).when(revealed()).then()
    receipt = receipt_of(ledger.job_id, ledger.job(), CHAIN) if isinstance(ledger.job().situation, Revealed) else None
    situation = ledger.job().situation

    assert isinstance(situation, Revealed)
    assert receipt is not None
    assert situation.miner_sig == sign_receipt(receipt, MINER)
    assert situation.deadline_ms == ledger.time_ms + 5_000


@pytest.mark.parametrize("coordinator", [COORDINATOR, SECOND_COORDINATOR])
def test_settlement_pays_everyone_once(coordinator: Key) -> None:
    """Price 800: 40 to the coordinator that verified, 760 to the miner, 200 of the escrow back to the owner."""
    ledger = given(*REVEALED).when(settled(coordinator)).then()
    situation = ledger.job().situation

    assert isinstance(situation, Settled)
    assert (situation.ended_ms, situation.ended_height) == (ledger.time_ms, 6)
    assert situation.assignment.coordinator == COORDINATOR.address
    assert ledger.balance(coordinator) == BALANCE + 40
    assert ledger.balance(MINER) == BALANCE - GAS["miner.registered"] + 760
    assert ledger.balance(CLIENT) == BALANCE - FEE - 800
    assert ledger.state.supply().escrowed == 0
    miner = ledger.state.miner(MINER.address)
    assert miner is not None
    assert (miner.running, miner.settled, miner.failed, miner.earned) == (0, 1, 0, 760)


def test_a_coordinators_share_is_rounded_down() -> None:
    """Of a price of 8 at 5 % the coordinator gets nothing, the miner all."""
    ledger = given(registered(unit_price=1), submitted(), assigned(price=8), committed(), revealed(), settled())

    assert ledger.balance(COORDINATOR) == BALANCE
    assert ledger.balance(MINER) == BALANCE - GAS["miner.registered"] + 8


def test_one_account_may_be_owner_and_miner() -> None:
    """Who works for itself pays itself; coins are conserved."""
    ledger = given(registered(CLIENT), submitted(), assigned(miner=CLIENT), committed(CLIENT), revealed(CLIENT))
    ledger.when(settled()).then()

    assert ledger.balance(CLIENT) == BALANCE - FEE - GAS["miner.registered"] - 40


@pytest.mark.parametrize(
    ("before", "saying"),
    [
        (ASSIGNED, failed()),
        (ASSIGNED, failed(SECOND_COORDINATOR)),
        (ASSIGNED, failed(MINER)),
        (COMMITTED, failed()),
        (REVEALED, failed()),
    ],
)
def test_a_failure_opens_the_job_for_others(before: tuple[Saying, ...], saying: Saying) -> None:
    """A coordinator may say so at any time, the miner before its commitment; the attempt is kept with its reason."""
    ledger = given(*before).when(saying).then()

    assert ledger.job().situation == Open(deadline_ms=ledger.job().expires_ms)
    assert ledger.job().attempts == (Attempt(miner=MINER.address, reason="MINER_FAILED"),)
    assert ledger.state.supply().escrowed == 1_000
    ledger.when(registered(SECOND_MINER)).when(assigned(miner=SECOND_MINER)).then()


def test_the_last_failure_refunds_with_its_reason() -> None:
    """With the attempts used up the owner gets the whole escrow back."""
    ledger = given(*ASSIGNED, failed(), registered(SECOND_MINER), assigned(miner=SECOND_MINER))
    ledger.when(failed(miner=SECOND_MINER, reason="RESULT_WRONG")).then()

    assert ledger.job().situation == Refunded(
        reason="RESULT_WRONG", ended_ms=ledger.time_ms, ended_height=ledger.height
    )
    assert ledger.balance(CLIENT) == BALANCE - FEE
    assert ledger.state.supply().escrowed == 0


def test_a_coordinator_gives_an_open_job_up() -> None:
    """job.refunded gives the whole escrow back with the coordinator's reason."""
    ledger = given(*OPEN).when(refunded(reason="BLOB_UNAVAILABLE")).then()

    assert ledger.job().situation == Refunded(reason="BLOB_UNAVAILABLE", ended_ms=ledger.time_ms, ended_height=3)
    assert ledger.balance(CLIENT) == BALANCE - FEE
    assert ledger.state.unfinished_jobs() == {}


def test_the_owner_withdraws_an_open_job() -> None:
    """job.cancelled gives the whole escrow back, and costs its own fee."""
    ledger = given(*OPEN).when(cancelled()).then()

    assert ledger.job().situation == Cancelled(ended_ms=ledger.time_ms, ended_height=3)
    assert ledger.balance(CLIENT) == BALANCE - FEE - GAS["job.cancelled"]


@pytest.mark.parametrize(
    ("before", "saying", "refusal"),
    [
        (OPEN, assigned(CLIENT), NotCoordinator(sender=CLIENT.address)),
        (REVEALED, settled(MINER), NotCoordinator(sender=MINER.address)),
        (ASSIGNED, failed(CLIENT), NotCoordinator(sender=CLIENT.address)),
        (COMMITTED, failed(MINER), NotCoordinator(sender=MINER.address)),
        (OPEN, failed(MINER), NotCoordinator(sender=MINER.address)),
        (OPEN, refunded(CLIENT), NotCoordinator(sender=CLIENT.address)),
        (ASSIGNED, committed(SECOND_MINER), "the miner's"),
        (COMMITTED, revealed(SECOND_MINER), "the miner's"),
        (ASSIGNED, failed(miner=SECOND_MINER), "the miner's"),
        (OPEN, cancelled(BOB), "the client's"),
    ],
)
def test_a_step_belongs_to_one_party(before: tuple[Saying, ...], saying: Saying, refusal: object) -> None:
    """Coordinators assign, settle and refund; the assigned miner commits and reveals; the owner cancels."""
    ledger = given(*before)
    situation = ledger.job().situation
    owners = {"the miner's": MINER.address, "the client's": CLIENT.address}
    expected = NotYourJob(job=ledger.job_id, owner=owners[refusal]) if isinstance(refusal, str) else refusal
    assert isinstance(expected, Refusal)
    ledger.when(saying).then(expected)

    assert ledger.job().situation == situation


@pytest.mark.parametrize("saying", [assigned(), committed(), revealed(), settled(), failed(), refunded(), cancelled()])
def test_a_job_that_does_not_exist_has_no_steps(saying: Saying) -> None:
    """Each step names the unknown job."""
    given(registered()).when(saying).then(UnknownJob(job=NO_JOB))


_ALL = {
    "open": OPEN,
    "assigned": ASSIGNED,
    "committed": COMMITTED,
    "revealed": REVEALED,
    "settled": SETTLED,
    "refunded": (*OPEN, refunded()),
    "cancelled": (*OPEN, cancelled()),
}
_STEPS = {
    "job.assigned": (assigned(), ("open",)),
    "job.committed": (committed(), ("assigned",)),
    "job.revealed": (revealed(), ("committed",)),
    "job.settled": (settled(), ("revealed",)),
    "job.failed": (failed(), ("assigned", "committed", "revealed")),
    "job.refunded": (refunded(), ("open",)),
    "job.cancelled": (cancelled(), ("open",)),
}


@pytest.mark.parametrize("situation", _ALL)
@pytest.mark.parametrize("step", _STEPS)
def test_a_step_is_possible_in_its_situations_only(step: str, situation: str) -> None:
    """The table of all steps in all situations: outside its own a step is refused and leaves the job alone."""
    ledger = given(*_ALL[situation])
    saying, possible = _STEPS[step]
    before = ledger.job()
    assert situation_of(before) == situation
    ledger.when(saying)

    if situation in possible:
        ledger.then()
        assert ledger.job() != before
    else:
        ledger.then(WrongSituation(job=ledger.job_id, situation=situation))
        assert ledger.job() == before


@pytest.mark.parametrize(
    ("before", "key", "record"), [(COMMITTED, MINER, JobRevealed), (REVEALED, COORDINATOR, JobSettled)]
)
def test_a_receipt_that_is_signed_wrong_stops_the_job_there(
    before: tuple[Saying, ...], key: Key, record: type[JobRevealed | JobSettled]
) -> None:
    """Neither the miner nor the coordinator gets on with a signature that is not its own over this receipt."""
    ledger = given(*before)
    receipt = receipt_of(ledger.job_id, ledger.job(), CHAIN)
    wrong = sign_receipt(receipt, ALICE)
    saying = say(key, record, lambda ledger: {"job": ledger.job_id}, receipt_sig=wrong)
    ledger.when(saying).then(BadReceiptSignature(signer=key.address, receipt=receipt_digest(receipt)))


def test_steps_are_free_when_they_succeed_and_paid_when_they_fail() -> None:
    """The escrow has paid for the steps of a job; a step that fails costs its gas, so that nobody can spam them."""
    ledger = given(*OPEN).when(assigned(price=1)).then(WrongPrice(expected=800, found=1))
    assert ledger.balance(COORDINATOR) == BALANCE - GAS["job.assigned"]

    ledger.when(assigned()).then()
    assert ledger.balance(COORDINATOR) == BALANCE - GAS["job.assigned"]
    assert ledger.state.account(COORDINATOR.address).nonce == 2


def test_jobs_are_listed_in_order_of_submission() -> None:
    """By height first, and within a block by id, however they come to be known."""
    ledger = given()
    ids = []
    for owners in ((CLIENT, ALICE), (BOB, MINER)):
        executed = ledger.block(*(submitted(owner) for owner in owners))
        ids += sorted(outcome.event for outcome in executed.outcomes if not isinstance(outcome, str))

    assert list(ledger.state.unfinished_jobs()) == ids
    again = type(ledger.state).from_rows(ledger.state.genesis, ledger.state.rows())
    assert list(again.unfinished_jobs()) == ids
