"""The coordinator's decisions: match open jobs with miners, judge revealed results, settle, fail, or refund. Pure.

What is to be done follows from the ledger's state alone, so a coordinator that was away just looks at it again. For
each job it remembers only what it has said and not yet heard of (`Case`, a kept row), so that it never says two things
about one situation. Several coordinators may run: each job has a first one by its id, the others step in, one after
the other, when it is silent; where two speak, the log's first valid event wins and the other's has failed.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from actors.decision import (
    Command,
    Decision,
    Done,
    Draft,
    Drop,
    EffectFailed,
    Heard,
    Keep,
    Say,
    Start,
    TurnedAway,
    draft,
)
from actors.matching import eligible
from events.canonical import canonical
from events.errors import BlobUnavailable
from events.keys import Key
from events.receipts import sign_receipt
from projections.receipts import receipt_of
from projections.state import State
from schemas.events import JobAssigned, JobFailed, JobRefunded, JobSettled
from schemas.services import blobs_of
from schemas.state import Job, Miner, Open, Revealed, situation_of

TAKE_OVER_MS: Final = 3_000
CHECKS_AT_ONCE: Final = 8
VERDICTS_AT_ONCE: Final = 4


class NewBlock(Struct, frozen=True):
    """The state has moved on to this height."""

    height: int


class Tick(Struct, frozen=True):
    """Some time has passed."""


class InputsChecked(Struct, frozen=True):
    """The inputs of a job have been fetched and read: usable, or the ``reason`` why not."""

    job: str
    reason: str = ""


class Judged(Struct, frozen=True):
    """The result under ``root`` has been verified: right, or the ``reason`` why not."""

    job: str
    root: str
    reason: str = ""


class Case(Struct, frozen=True):
    """A job as this coordinator handles it. ``tries`` counts what it has heard of, ``key`` is what it has not heard of
    yet, ``miner`` the one that it has assigned with it."""

    job: str
    tries: int = 0
    key: str = ""
    miner: str = ""


_case_decoder = msgspec.json.Decoder(Case)


class Examiner(Protocol):
    """The effects: everything that takes time or reads files."""

    def check_inputs(self, job_id: str, job: Job) -> Awaitable[InputsChecked]: ...

    def judge(self, job_id: str, job: Job) -> Awaitable[Judged]: ...

    def forget(self, job_id: str) -> Awaitable[None]: ...


class Coordinator:
    """Decides from ``state()``, the ledger's final state at the time of the message."""

    name: Final = "coordinator"

    def __init__(self, key: Key, chain: str, state: Callable[[], State], examiner: Examiner) -> None:
        self._key = key
        self._chain = chain
        self._state = state
        self._examiner = examiner
        self._cases: dict[str, Case] = {}
        # Job → "" (usable), a reason, or None while it is being checked.
        self._inputs: dict[str, str | None] = {}
        self._judging: dict[str, str] = {}
        self._seen_ms: dict[tuple[str, str, int], int] = {}

    def begin(self, rows: Mapping[str, bytes], now_ms: int) -> Done:
        self._cases = {case.job: case for case in map(_case_decoder.decode, rows.values())}
        return Done(tuple(self._look(now_ms)))

    def decide(self, message: object, now_ms: int) -> Decision:
        before: list[Command] = []
        match message:
            case InputsChecked():
                self._inputs[message.job] = message.reason
            case Judged():
                before = self._say_verdict(message)
            case Heard():
                before = self._heard(message.key)
            case TurnedAway(given_up=True):
                before = self._heard(message.key)
            case EffectFailed():
                self._effect_failed(message)
        return Done((*before, *self._look(now_ms)))

    def _look(self, now_ms: int) -> list[Command]:
        """Everything that the present state asks for."""
        state = self._state()
        commands = self._close_cases(state)
        free = self._free_miners(state)
        for job_id, job in state.unfinished_jobs().items():
            if self._case(job_id).key:
                continue
            match job.situation:
                case Open() if self._is_my_turn(job_id, job, self._first_for(job_id, state), now_ms):
                    commands += self._match(job_id, job, free)
                case Revealed() as revealed if self._is_my_turn(job_id, job, revealed.assignment.coordinator, now_ms):
                    commands += self._judge(job_id, job, revealed)
        return commands

    def _close_cases(self, state: State) -> list[Command]:
        """Forgets jobs that have ended."""
        unfinished = state.unfinished_jobs()
        known = [*self._cases, *(job for job in self._inputs if job not in self._cases)]
        ended = [job_id for job_id in known if job_id not in unfinished]
        commands: list[Command] = []
        for job_id in ended:
            if self._cases.pop(job_id, None) is not None:
                commands.append(Drop(f"case/{job_id}"))
            commands.append(Start(f"forget/{job_id}", partial(self._examiner.forget, job_id)))
            self._inputs.pop(job_id, None)
            self._judging.pop(job_id, None)
        if ended:
            gone = frozenset(ended)
            self._seen_ms = {seen: at_ms for seen, at_ms in self._seen_ms.items() if seen[0] not in gone}
        return commands

    def _free_miners(self, state: State) -> dict[str, Miner]:
        """Miners with a free place, counting what is assigned but not in a block yet."""
        planned: dict[str, int] = {}
        for case in self._cases.values():
            if case.miner:
                planned[case.miner] = planned.get(case.miner, 0) + 1
        return {
            address: _with_running(miner, miner.running + planned.get(address, 0))
            for address, miner in state.miners().items()
            if miner.running + planned.get(address, 0) < miner.capacity
        }

    def _first_for(self, job_id: str, state: State) -> str:
        coordinators = state.genesis.coordinators
        return coordinators[int(job_id[:8], 16) % len(coordinators)]

    def _is_my_turn(self, job_id: str, job: Job, first: str, now_ms: int) -> bool:
        """The first coordinator's at once, the others' one after the other while nothing happens."""
        seen_ms = self._seen_ms.setdefault((job_id, situation_of(job), len(job.attempts)), now_ms)
        coordinators = self._state().genesis.coordinators
        behind = coordinators.index(self._key.address) - coordinators.index(first)
        return now_ms - seen_ms >= behind % len(coordinators) * TAKE_OVER_MS

    def _match(self, job_id: str, job: Job, free: dict[str, Miner]) -> list[Command]:
        if not free:
            return []
        if blobs_of(job.work):
            if job_id not in self._inputs:
                return self._check_inputs(job_id, job)
            reason = self._inputs[job_id]
            if reason is None:
                return []
            if reason:
                return self._say(job_id, "refund", draft(JobRefunded, job=job_id, reason=reason))
        ranked = eligible(job, free)
        if not ranked:
            return []
        miner, price = ranked[0]
        taken = _with_running(free[miner], free[miner].running + 1)
        if taken.running < taken.capacity:
            free[miner] = taken
        else:
            del free[miner]
        return self._say(job_id, "assign", draft(JobAssigned, job=job_id, miner=miner, price=price), miner)

    def _check_inputs(self, job_id: str, job: Job) -> list[Command]:
        if sum(reason is None for reason in self._inputs.values()) >= CHECKS_AT_ONCE:
            return []
        self._inputs[job_id] = None
        return [Start(f"inputs/{job_id}", partial(self._examiner.check_inputs, job_id, job))]

    def _judge(self, job_id: str, job: Job, revealed: Revealed) -> list[Command]:
        root = revealed.commitment.root
        if self._judging.get(job_id) == root or len(self._judging) >= VERDICTS_AT_ONCE:
            return []
        self._judging[job_id] = root
        return [Start(f"judge/{job_id}/{root}", partial(self._examiner.judge, job_id, job))]

    def _say_verdict(self, judged: Judged) -> list[Command]:
        self._judging.pop(judged.job, None)
        job = self._state().job(judged.job)
        if job is None or self._case(judged.job).key:
            return []
        match job.situation:
            case Revealed(commitment=commitment, assignment=assignment) if commitment.root == judged.root:
                if judged.reason:
                    if judged.reason == "BAD_INPUT":
                        self._inputs[judged.job] = judged.reason
                    fields = {"job": judged.job, "miner": assignment.miner, "reason": judged.reason}
                    return self._say(judged.job, "fail", draft(JobFailed, **fields))
                sig = sign_receipt(receipt_of(judged.job, job, self._chain), self._key)
                return self._say(judged.job, "settle", draft(JobSettled, job=judged.job, receipt_sig=sig))
        return []

    def _effect_failed(self, failed: EffectFailed) -> None:
        """Inputs that cannot be had end the job; a verdict that was not reached is tried again at the next look."""
        effect, _, rest = failed.name.partition("/")
        job_id = rest.partition("/")[0]
        if effect == "inputs" and self._inputs.get(job_id, "") is None:
            if isinstance(failed.error, BlobUnavailable):
                self._inputs[job_id] = "BLOB_UNAVAILABLE"
            else:
                del self._inputs[job_id]
        elif effect == "judge":
            self._judging.pop(job_id, None)

    def _case(self, job_id: str) -> Case:
        return self._cases.get(job_id) or Case(job_id)

    def _say(self, job_id: str, verb: str, said: Draft, miner: str = "") -> list[Command]:
        """One thing at a time about one job. The count of tries makes the key of each new thing a new one."""
        case = self._case(job_id)
        case = Case(job_id, case.tries, f"{verb}/{job_id}/{case.tries}", miner)
        self._cases[job_id] = case
        return [Keep(f"case/{job_id}", canonical(case)), Say(case.key, said, about=job_id)]

    def _heard(self, key: str) -> list[Command]:
        """What was said is in a block, applied or failed, or can never be: the state tells how to go on."""
        job_id = key.split("/")[1]
        case = self._cases.get(job_id)
        if case is None or case.key != key:
            return []
        self._cases[job_id] = Case(job_id, case.tries + 1)
        return [Keep(f"case/{job_id}", canonical(self._cases[job_id]))]


def _with_running(miner: Miner, running: int) -> Miner:
    return msgspec.structs.replace(miner, running=running)
