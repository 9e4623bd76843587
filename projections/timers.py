"""Rules of time: what happens to a job when its deadline has come, as a function of the block's time and the jobs."""

from projections.bonds import count
from projections.jobs import EXPIRED, end_attempt, refund
from projections.miners import change_counters
from projections.state import Context, Draft
from schemas.blocks import TimerFired
from schemas.state import Assigned, Committed, Open, Refunded, Revealed

DEADLINE_MISSED = "DEADLINE_MISSED"
RESULT_NOT_REVEALED = "RESULT_NOT_REVEALED"
NOT_VERIFIED = "NOT_VERIFIED"


def fire(draft: Draft, context: Context) -> list[TimerFired]:
    """Acts on deadlines at or before the block's time, in order of deadline, then job id. Wants a fresh draft.

    At most as many as a block may hold events, so that no crowd of deadlines makes a block that takes too long; the
    next blocks act on the others. A job that opens again has lifetime left, so none is acted on twice.
    """
    due = draft.state.due_jobs(context.time_ms, draft.parameters.max_block_events)
    return [_fire(draft, job_id, context) for job_id in due]


def _fire(draft: Draft, job_id: str, context: Context) -> TimerFired:
    job = draft.job(job_id)
    if job is None:
        raise AssertionError(f"a deadline of the unknown job {job_id}")
    match job.situation:
        case Open():
            reason = EXPIRED
            refund(draft, job_id, job, reason, context)
        case Assigned() as situation:
            reason = DEADLINE_MISSED
            end_attempt(draft, job_id, job, situation, reason, context)
            count(draft, situation.assignment.miner, late=1)
        case Committed() as situation:
            reason = RESULT_NOT_REVEALED
            end_attempt(draft, job_id, job, situation, reason, context)
            count(draft, situation.assignment.miner, late=1)
        case Revealed() as situation:
            # The miner has done all it had to, so this is no failure of its; but nobody vouched for the result.
            reason = NOT_VERIFIED
            change_counters(draft, situation.assignment.miner, running=-1)
            refund(draft, job_id, job, reason, context)
        case _:
            raise AssertionError(f"a deadline of the finished job {job_id}")
    after = draft.job(job_id)
    refunded = job.escrow if after is not None and isinstance(after.situation, Refunded) else 0
    return TimerFired(job=job_id, reason=reason, refunded=refunded)
