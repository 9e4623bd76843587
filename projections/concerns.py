"""Whom a final event concerns: who shall hear of it, and in whose history it stands.

An event that was applied concerns its sender, those that it names, and, where it is about a job, the job's owner and
the miner and coordinator of the attempt. A failed event did nothing to anyone but its sender, and so concerns nobody
else. A timer concerns those of its job.
"""

from collections.abc import Mapping

from msgspec import Struct

from events.envelope import SignedEvent
from projections.execute import Executed
from schemas.blocks import Applied, Outcome, TimerFired
from schemas.events import (
    ExamJudged,
    ExamOpened,
    JobAssigned,
    JobCancelled,
    JobCommitted,
    JobFailed,
    JobRefunded,
    JobRevealed,
    JobSettled,
    JobSubmitted,
    TransferSent,
)
from schemas.state import UNFINISHED, Assigned, Committed, Job, Revealed

AboutJob = JobAssigned | JobCommitted | JobRevealed | JobSettled | JobFailed | JobRefunded | JobCancelled
Parties = tuple[str, ...]


class Concern(Struct, frozen=True):
    """Of one outcome: the addresses, each once, the sender first, and the job that it moved, if any.

    ``beyond`` are those of them that are not its sender, nor the ``to`` of a transfer.
    """

    addresses: Parties
    beyond: Parties = ()
    job: str | None = None


class Concerns:
    """Follows the unfinished jobs from block to block, to know who is in each."""

    def __init__(self, unfinished: Mapping[str, Job]) -> None:
        self._parties: dict[str, Parties] = {job_id: _parties_of(job) for job_id, job in unfinished.items()}

    def of_block(self, executed: Executed, events: tuple[SignedEvent, ...]) -> list[Concern]:
        """One entry per outcome, timers first. Blocks must come in order, each once."""
        timers = executed.outcomes[: executed.timers]
        found = [self._of_timer(outcome) for outcome in timers]
        for signed, outcome in zip(events, executed.outcomes[executed.timers :], strict=True):
            found.append(self._of_event(signed, outcome))
        for job_id, job in executed.draft.jobs_changed.items():
            if not isinstance(job.situation, UNFINISHED):
                self._parties.pop(job_id, None)
        return found

    def _of_timer(self, outcome: Outcome) -> Concern:
        if not isinstance(outcome, TimerFired):
            raise AssertionError("the outcomes of a block begin with those of its timers")
        parties = self._parties[outcome.job]
        self._parties[outcome.job] = parties[:1]
        return Concern(parties, parties, outcome.job)

    def _of_event(self, signed: SignedEvent, outcome: Outcome) -> Concern:
        event = signed.event
        if not isinstance(outcome, Applied):
            return Concern((event.sender,))
        if isinstance(event, TransferSent):
            return Concern((event.sender, event.to))
        if isinstance(event, ExamOpened):
            return _of_named(event.sender, *event.miners)
        if isinstance(event, ExamJudged):
            return _of_named(event.sender, event.verdict.miner)
        if isinstance(event, JobSubmitted):
            self._parties[signed.id] = (event.sender,)
            return Concern((event.sender,), (), signed.id)
        if isinstance(event, AboutJob):
            return self._of_job_event(event)
        return Concern((event.sender,))

    def _of_job_event(self, event: AboutJob) -> Concern:
        parties = self._parties[event.job]
        if isinstance(event, JobAssigned):
            parties = (parties[0], event.miner, event.sender)
        self._parties[event.job] = parties[:1] if isinstance(event, JobFailed) else parties
        addresses = tuple(dict.fromkeys((event.sender, *parties)))
        return Concern(addresses, addresses[1:], event.job)


def _of_named(sender: str, *others: str) -> Concern:
    addresses = tuple(dict.fromkeys((sender, *others)))
    return Concern(addresses, addresses[1:])


def _parties_of(job: Job) -> Parties:
    situation = job.situation
    if isinstance(situation, Assigned | Committed | Revealed):
        return (job.owner, situation.assignment.miner, situation.assignment.coordinator)
    return (job.owner,)
