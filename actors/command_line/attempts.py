"""The attempts of a job with their commitments and ends, as the final blocks of a log have them. Pure."""

from typing import Final as Constant

import msgspec
from msgspec import Struct

from projections.chain import Final
from schemas.blocks import Applied, TimerFired
from schemas.events import Body, JobAssigned, JobCommitted, JobFailed, JobRevealed, JobSettled
from schemas.state import Commitment

SETTLED: Constant = "SETTLED"


class Attempt(Struct, frozen=True, kw_only=True):
    """What one miner made of the job.

    ``number`` counts from 1; ``block`` is the hash of the block that included the commitment, whence the challenge
    comes. ``ended`` is the reason that is on record, `SETTLED`, or empty while nothing has been said; ``said_by`` is
    who said so, empty where a deadline passed.
    """

    number: int
    miner: str
    commitment: Commitment | None = None
    block: str = ""
    revealed: bool = False
    ended: str = ""
    said_by: str = ""


class Attempts:
    """Told block after block. ``made`` are the job's attempts in order."""

    def __init__(self, job: str) -> None:
        self._job = job
        self.made: list[Attempt] = []

    def add(self, final: Final) -> None:
        """Takes what the block did to the job."""
        outcomes = final.executed.outcomes
        timers = final.executed.timers
        for outcome in outcomes[:timers]:
            if isinstance(outcome, TimerFired) and outcome.job == self._job:
                self._end(outcome.reason, "")
        for signed, outcome in zip(final.events, outcomes[timers:], strict=True):
            if isinstance(outcome, Applied) and getattr(signed.event, "job", "") == self._job:
                self._add(signed.event, final)

    def _add(self, event: Body, final: Final) -> None:
        match event:
            case JobAssigned():
                self.made.append(Attempt(number=len(self.made) + 1, miner=event.miner))
            case JobCommitted():
                commitment = Commitment(
                    root=event.root,
                    result=event.result,
                    size=event.size,
                    committed_ms=final.header.time_ms,
                    committed_height=final.header.height,
                )
                self._change(commitment=commitment, block=final.hash)
            case JobRevealed():
                self._change(revealed=True)
            case JobFailed():
                self._end(event.reason, event.sender)
            case JobSettled():
                self._end(SETTLED, event.sender)

    def _end(self, reason: str, said_by: str) -> None:
        """A job that is open has no attempt that could end."""
        if self.made and not self.made[-1].ended:
            self._change(ended=reason, said_by=said_by)

    def _change(self, **changes: object) -> None:
        self.made[-1] = msgspec.structs.replace(self.made[-1], **changes)
