"""Rules of jobs: from submission to exactly one end.

    Open ─ job.assigned → Assigned ─ job.committed → Committed ─ job.revealed → Revealed ─ job.settled → Settled
     │ ↖─ job.failed, or a deadline missed, while attempts are left ─┘
     ├─ job.cancelled → Cancelled
     └─ job.refunded, the lifetime over, or attempts used up → Refunded

`projections.timers` has what happens without anyone saying so.
"""

import msgspec

from events.receipts import receipt_digest, receipt_signature_holds
from projections.bonds import count, first_repeated, punish
from projections.miners import cannot_take, change_counters, price_of
from projections.payments import add_balance, change_supply
from projections.receipts import receipt_of
from projections.state import Context, Draft
from schemas.events import (
    JobAssigned,
    JobCancelled,
    JobCommitted,
    JobFailed,
    JobRefunded,
    JobRevealed,
    JobSettled,
    JobSubmitted,
)
from schemas.genesis import Parameters
from schemas.refusals import (
    BadReceiptSignature,
    DeadlinePassed,
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
from schemas.services import Work
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
    Situation,
    situation_of,
)
from schemas.values import MAX_SAFE_INTEGER

EXPIRED = "EXPIRED"
WRONG = "RESULT_WRONG"


def _wrong_situation(job_id: str, job: Job) -> WrongSituation:
    return WrongSituation(job=job_id, situation=situation_of(job))


def _overdue(job_id: str, situation: Open | Assigned | Committed | Revealed, context: Context) -> DeadlinePassed | None:
    """A deadline that has come may have to wait for its block (`projections.timers`); it holds from its moment on."""
    if situation.deadline_ms > context.time_ms:
        return None
    return DeadlinePassed(job=job_id, deadline_ms=situation.deadline_ms, now_ms=context.time_ms)


def _put_situation(draft: Draft, job_id: str, job: Job, situation: Situation) -> None:
    draft.put_job(job_id, msgspec.structs.replace(job, situation=situation))


def shape_refusal(work: Work) -> WrongShape | None:
    """Why the work cannot be done by anyone, None when it can."""
    detail = work.inconsistency()
    return None if detail is None else WrongShape(detail=detail)


def job_submitted(draft: Draft, event: JobSubmitted, context: Context, event_id: str) -> Refusal | None:
    """Opens a job under the event's id and locks its escrow."""
    parameters, available = draft.parameters, draft.account(event.sender).balance
    if (shape := shape_refusal(event.work)) is not None:
        return shape
    if event.timeout_ms > parameters.max_timeout_ms:
        return TimeoutTooLong(field="timeout_ms", limit_ms=parameters.max_timeout_ms, found_ms=event.timeout_ms)
    if event.lifetime_ms > parameters.max_lifetime_ms:
        return TimeoutTooLong(field="lifetime_ms", limit_ms=parameters.max_lifetime_ms, found_ms=event.lifetime_ms)
    if (repeated := first_repeated(event.requirement.miners or ())) is not None:
        return DuplicateEntry(entry=repeated)
    if event.escrow > available:
        return InsufficientBalance(needed=event.escrow, available=available)
    expires_ms = context.time_ms + event.lifetime_ms
    add_balance(draft, event.sender, -event.escrow)
    change_supply(draft, escrowed=event.escrow)
    job = Job(
        owner=event.sender,
        work=event.work,
        escrow=event.escrow,
        timeout_ms=event.timeout_ms,
        requirement=event.requirement,
        submitted_ms=context.time_ms,
        submitted_height=context.height,
        expires_ms=expires_ms,
        situation=Open(deadline_ms=expires_ms),
    )
    draft.put_job(event_id, job)
    return None


def job_assigned(draft: Draft, event: JobAssigned, context: Context, event_id: str) -> Refusal | None:
    """Gives an open job to a miner that can take it, at the miner's own price."""
    if event.sender not in draft.genesis.coordinators:
        return NotCoordinator(sender=event.sender)
    job, miner = draft.job(event.job), draft.miner(event.miner)
    if job is None:
        return UnknownJob(job=event.job)
    if not isinstance(job.situation, Open):
        return _wrong_situation(event.job, job)
    if (late := _overdue(event.job, job.situation, context)) is not None:
        return late
    if (refusal := cannot_take(draft, event.job, job, event.miner)) is not None:
        return refusal
    price = None if miner is None else price_of(miner, job)
    if price is None:
        raise AssertionError(f"miner {event.miner} can take the job but has no price")
    if price > job.escrow:
        return PriceAboveEscrow(price=min(price, MAX_SAFE_INTEGER), escrow=job.escrow)
    if price != event.price:
        return WrongPrice(expected=price, found=event.price)
    assignment = Assignment(
        miner=event.miner,
        coordinator=event.sender,
        price=price,
        assigned_ms=context.time_ms,
        assigned_height=context.height,
    )
    situation = Assigned(deadline_ms=context.time_ms + job.timeout_ms, assignment=assignment)
    _put_situation(draft, event.job, job, situation)
    change_counters(draft, event.miner, running=1)
    return None


def job_committed(draft: Draft, event: JobCommitted, context: Context, event_id: str) -> Refusal | None:
    """Binds the assigned miner to a result."""
    job = draft.job(event.job)
    if job is None:
        return UnknownJob(job=event.job)
    situation = job.situation
    if not isinstance(situation, Assigned):
        return _wrong_situation(event.job, job)
    if event.sender != situation.assignment.miner:
        return NotYourJob(job=event.job, owner=situation.assignment.miner)
    if (late := _overdue(event.job, situation, context)) is not None:
        return late
    commitment = Commitment(
        root=event.root,
        result=event.result,
        size=event.size,
        committed_ms=context.time_ms,
        committed_height=context.height,
    )
    deadline_ms = context.time_ms + draft.parameters.reveal_timeout_ms
    committed = Committed(deadline_ms=deadline_ms, assignment=situation.assignment, commitment=commitment)
    _put_situation(draft, event.job, job, committed)
    count(draft, event.sender, submitted=1)
    return None


def _receipt_refusal(draft: Draft, job_id: str, job: Job, signer: str, sig: str) -> BadReceiptSignature | None:
    receipt = receipt_of(job_id, job, draft.genesis.chain)
    if receipt_signature_holds(receipt, signer, sig):
        return None
    return BadReceiptSignature(signer=signer, receipt=receipt_digest(receipt))


def job_revealed(draft: Draft, event: JobRevealed, context: Context, event_id: str) -> Refusal | None:
    """Says that the committed result can be fetched, with the miner's signature of the receipt."""
    job = draft.job(event.job)
    if job is None:
        return UnknownJob(job=event.job)
    situation = job.situation
    if not isinstance(situation, Committed):
        return _wrong_situation(event.job, job)
    if event.sender != situation.assignment.miner:
        return NotYourJob(job=event.job, owner=situation.assignment.miner)
    if (late := _overdue(event.job, situation, context)) is not None:
        return late
    refusal = _receipt_refusal(draft, event.job, job, event.sender, event.receipt_sig)
    if refusal is not None:
        return refusal
    revealed = Revealed(
        deadline_ms=context.time_ms + draft.parameters.verify_timeout_ms,
        assignment=situation.assignment,
        commitment=situation.commitment,
        miner_sig=event.receipt_sig,
    )
    _put_situation(draft, event.job, job, revealed)
    count(draft, event.sender, on_time=1)
    return None


def coordinators_share(price: int, parameters: Parameters) -> int:
    """What a coordinator gets of the price of a settled job, rounded down; the miner gets the rest."""
    return price * parameters.coordinator_bps // 10_000


def job_settled(draft: Draft, event: JobSettled, context: Context, event_id: str) -> Refusal | None:
    """Pays from the escrow: a share of the price to the coordinator that verified (the sender), the rest of the price
    to the miner, and what is left to the owner.
    """
    if event.sender not in draft.genesis.coordinators:
        return NotCoordinator(sender=event.sender)
    job = draft.job(event.job)
    if job is None:
        return UnknownJob(job=event.job)
    situation = job.situation
    if not isinstance(situation, Revealed):
        return _wrong_situation(event.job, job)
    if (late := _overdue(event.job, situation, context)) is not None:
        return late
    refusal = _receipt_refusal(draft, event.job, job, event.sender, event.receipt_sig)
    if refusal is not None:
        return refusal
    assignment = situation.assignment
    share = coordinators_share(assignment.price, draft.parameters)
    change_supply(draft, escrowed=-job.escrow)
    add_balance(draft, event.sender, share)
    add_balance(draft, assignment.miner, assignment.price - share)
    add_balance(draft, job.owner, job.escrow - assignment.price)
    change_counters(draft, assignment.miner, running=-1, settled=1, earned=assignment.price - share)
    count(draft, assignment.miner, verified=1)
    settled = Settled(
        assignment=assignment,
        commitment=situation.commitment,
        miner_sig=situation.miner_sig,
        coordinator_sig=event.receipt_sig,
        ended_ms=context.time_ms,
        ended_height=context.height,
    )
    _put_situation(draft, event.job, job, settled)
    return None


def job_failed(draft: Draft, event: JobFailed, context: Context, event_id: str) -> Refusal | None:
    """Ends an attempt: said by a coordinator, or by the miner itself before it has committed."""
    job = draft.job(event.job)
    if job is None:
        return UnknownJob(job=event.job)
    situation = job.situation
    gives_up = isinstance(situation, Assigned) and event.sender == situation.assignment.miner
    if not gives_up and event.sender not in draft.genesis.coordinators:
        return NotCoordinator(sender=event.sender)
    if not isinstance(situation, Assigned | Committed | Revealed):
        return _wrong_situation(event.job, job)
    if event.miner != situation.assignment.miner:
        # Meant for an attempt that has ended meanwhile.
        return NotYourJob(job=event.job, owner=situation.assignment.miner)
    end_attempt(draft, event.job, job, situation, event.reason, context)
    if isinstance(situation, Revealed) and event.reason == WRONG:
        # Only what was revealed can have been looked at.
        punish(draft, event.miner)
    return None


def job_refunded(draft: Draft, event: JobRefunded, context: Context, event_id: str) -> Refusal | None:
    """Gives an open job up."""
    if event.sender not in draft.genesis.coordinators:
        return NotCoordinator(sender=event.sender)
    job = draft.job(event.job)
    if job is None:
        return UnknownJob(job=event.job)
    if not isinstance(job.situation, Open):
        return _wrong_situation(event.job, job)
    refund(draft, event.job, job, event.reason, context)
    return None


def job_cancelled(draft: Draft, event: JobCancelled, context: Context, event_id: str) -> Refusal | None:
    """Withdraws an open job: only its owner may."""
    job = draft.job(event.job)
    if job is None:
        return UnknownJob(job=event.job)
    if event.sender != job.owner:
        return NotYourJob(job=event.job, owner=job.owner)
    if not isinstance(job.situation, Open):
        return _wrong_situation(event.job, job)
    _unlock(draft, job)
    cancelled = Cancelled(ended_ms=context.time_ms, ended_height=context.height)
    _put_situation(draft, event.job, job, cancelled)
    return None


def end_attempt(
    draft: Draft, job_id: str, job: Job, situation: Assigned | Committed | Revealed, reason: str, context: Context
) -> None:
    """Counts a failure of the miner. The job opens again for others, or is refunded when its chances are over."""
    miner = situation.assignment.miner
    change_counters(draft, miner, running=-1, failed=1)
    tried = msgspec.structs.replace(job, attempts=(*job.attempts, Attempt(miner=miner, reason=reason)))
    if len(tried.attempts) >= draft.parameters.max_attempts:
        refund(draft, job_id, tried, reason, context)
    elif job.expires_ms <= context.time_ms:
        refund(draft, job_id, tried, EXPIRED, context)
    else:
        _put_situation(draft, job_id, tried, Open(deadline_ms=job.expires_ms))


def refund(draft: Draft, job_id: str, job: Job, reason: str, context: Context) -> None:
    """Gives the whole escrow back and ends the job."""
    _unlock(draft, job)
    refunded = Refunded(reason=reason, ended_ms=context.time_ms, ended_height=context.height)
    _put_situation(draft, job_id, job, refunded)


def _unlock(draft: Draft, job: Job) -> None:
    change_supply(draft, escrowed=-job.escrow)
    add_balance(draft, job.owner, job.escrow)
