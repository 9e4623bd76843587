"""The coordinator's decisions: match open jobs with miners, judge revealed results, settle, fail, or refund. Pure.

What is to be done follows from the ledger's state alone, so a coordinator that was away just looks at it again. For
each job it keeps only what it has said and not yet heard of (`Case`, a kept row), so that it never says two things
about one situation. Several coordinators may run: each job has a first one by its id, the others step in, one after
the other, when it is silent; where two speak, the log's first valid event wins and the other's has failed.

One client's missing blobs, or one miner's missing results, take a few of the places only, so that others are served.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Literal, Protocol

import msgspec
from msgspec import Struct

from actors.decision import (
    Cancel,
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
from actors.examinations import Examinations, ExamJudge
from actors.matching import eligible
from events.canonical import canonical
from events.errors import BlobUnavailable
from events.keys import Key
from events.receipts import sign_receipt
from projections.receipts import receipt_of
from projections.state import State
from schemas.blocks import Applied
from schemas.events import JobAssigned, JobFailed, JobRefunded, JobSettled
from schemas.services import blobs_of
from schemas.state import Examination, Job, Miner, Open, Revealed, situation_of

TAKE_OVER_MS: Final = 3_000
AGAIN_MS: Final = 2_000
CHECKS_AT_ONCE: Final = 32
CHECKS_PER_OWNER: Final = 4
VERDICTS_AT_ONCE: Final = 16
VERDICTS_PER_MINER: Final = 4


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
    """The result that ``miner`` has committed to under ``root`` has been verified: right, or the ``reason`` why not."""

    job: str
    miner: str
    root: str
    reason: str = ""


class Case(Struct, frozen=True):
    """A job as this coordinator handles it. ``tries`` counts what it has heard of, ``key`` is what it has not heard of
    yet, ``miner`` the one that it has assigned with it."""

    job: str
    tries: int = 0
    key: str = ""
    miner: str = ""


class _Notes(Struct):
    """What this coordinator knows of an unfinished job beside the ledger; gone with the process.

    ``stage`` is the situation and attempt that it has been in since ``since_ms``. ``inputs``: not looked at, usable,
    or not, for ``reason``. Before ``again_ms`` it is left alone.
    """

    stage: tuple[str, int]
    since_ms: int
    inputs: Literal["unknown", "usable", "unusable"] = "unknown"
    reason: str = ""
    again_ms: int = 0


_case_decoder = msgspec.json.Decoder(Case)


class Examiner(Protocol):
    """The effects: everything that takes time or reads files."""

    def check_inputs(self, job_id: str, job: Job) -> Awaitable[InputsChecked]:
        """Raises BlobUnavailable when the owner has not uploaded them, another error when it cannot be known now."""

    def judge(self, job_id: str, job: Job) -> Awaitable[Judged]:
        """Raises when no verdict can be reached now."""

    def forget(self, job_id: str) -> Awaitable[None]: ...

    def sweep(self, unfinished: frozenset[str]) -> Awaitable[None]: ...


class Coordinator:
    """Decides from ``state()``, the ledger's final state at the time of the message."""

    name: Final = "coordinator"

    def __init__(
        self,
        key: Key,
        chain: str,
        state: Callable[[], State],
        examiner: Examiner,
        exam_judge: ExamJudge | None = None,
    ) -> None:
        """Without an ``exam_judge`` this coordinator leaves exams to others."""
        self._key = key
        self._chain = chain
        self._state = state
        self._examiner = examiner
        self._exams = Examinations(key.address, state, exam_judge) if exam_judge else None
        self._cases: dict[str, Case] = {}
        self._notes: dict[str, _Notes] = {}
        # The effects under way: job → owner, and job → miner.
        self._checking: dict[str, str] = {}
        self._judging: dict[str, str] = {}

    def begin(self, rows: Mapping[str, bytes], now_ms: int) -> Done:
        cases = (_case_decoder.decode(row) for name, row in rows.items() if name.startswith("case/"))
        self._cases = {case.job: case for case in cases}
        if self._exams is not None:
            self._exams.begin(rows)
        sweep = Start("sweep", partial(self._examiner.sweep, frozenset(self._state().unfinished_jobs())))
        return Done((sweep, *self._look(now_ms)))

    def decide(self, message: object, now_ms: int) -> Decision:
        before: list[Command] = []
        match message:
            case InputsChecked():
                self._note_inputs(message.job, message.reason)
            case Judged():
                before = self._say_verdict(message)
            case Heard(outcome=Applied()):
                before = self._heard(message.key)
            case Heard() | TurnedAway(given_up=True):
                # Said in vain, which has cost a fee: not at once again.
                before = self._heard(message.key)
                self._pause(message.key.split("/")[1], now_ms)
            case EffectFailed():
                self._effect_failed(message, now_ms)
        if self._exams is not None:
            before += self._exams.decide(message, now_ms)
        return Done((*before, *self._look(now_ms)))

    def _look(self, now_ms: int) -> list[Command]:
        """Everything that the present state asks for."""
        state = self._state()
        commands = self._close_cases(state)
        free = self._free_miners(state)
        for job_id, job in state.unfinished_jobs().items():
            notes = self._notes_of(job_id, job, now_ms)
            if self._case(job_id).key or now_ms < notes.again_ms:
                continue
            match job.situation:
                case Open() if self._is_my_turn(notes, self._first_for(job_id, state), now_ms):
                    commands += self._match(job_id, job, notes, free)
                case Revealed() as revealed if self._is_my_turn(notes, revealed.assignment.coordinator, now_ms):
                    commands += self._judge(job_id, job, revealed)
        if self._exams is not None:
            commands += self._exams.look(now_ms)
        return commands

    def _notes_of(self, job_id: str, job: Job, now_ms: int) -> _Notes:
        stage = (situation_of(job), len(job.attempts))
        notes = self._notes.get(job_id)
        if notes is None:
            notes = self._notes[job_id] = _Notes(stage, now_ms)
        elif notes.stage != stage:
            notes.stage, notes.since_ms, notes.again_ms = stage, now_ms, 0
        return notes

    def _close_cases(self, state: State) -> list[Command]:
        """Forgets jobs that have ended, and stops what is still done for them."""
        unfinished = state.unfinished_jobs()
        commands: list[Command] = []
        for job_id in [job_id for job_id in {**self._cases, **self._notes} if job_id not in unfinished]:
            if self._cases.pop(job_id, None) is not None:
                commands.append(Drop(f"case/{job_id}"))
            if self._checking.pop(job_id, None) is not None:
                commands.append(Cancel(f"inputs/{job_id}"))
            if (miner := self._judging.pop(job_id, None)) is not None:
                commands.append(Cancel(f"judge/{job_id}/{miner}"))
            commands.append(Start(f"forget/{job_id}", partial(self._examiner.forget, job_id)))
            self._notes.pop(job_id, None)
        return commands

    def _free_miners(self, state: State) -> dict[str, Miner]:
        """Miners with a free place, counting what is assigned but not in a block yet. In an exam nobody has one."""
        planned: dict[str, int] = {}
        for case in self._cases.values():
            if case.miner:
                planned[case.miner] = planned.get(case.miner, 0) + 1
        return {
            address: _with_running(miner, miner.running + planned.get(address, 0))
            for address, miner in state.miners().items()
            if miner.running + planned.get(address, 0) < miner.capacity and not _is_in_exam(state, address)
        }

    def _first_for(self, job_id: str, state: State) -> str:
        coordinators = state.genesis.coordinators
        return coordinators[int(job_id[:8], 16) % len(coordinators)]

    def _is_my_turn(self, notes: _Notes, first: str, now_ms: int) -> bool:
        """The first coordinator's at once, the others' one after the other while nothing happens."""
        coordinators = self._state().genesis.coordinators
        behind = coordinators.index(self._key.address) - coordinators.index(first)
        return now_ms - notes.since_ms >= behind % len(coordinators) * TAKE_OVER_MS

    def _match(self, job_id: str, job: Job, notes: _Notes, free: dict[str, Miner]) -> list[Command]:
        if notes.inputs == "unusable":
            return self._say(job_id, "refund", draft(JobRefunded, job=job_id, reason=notes.reason))
        ranked = eligible(job, free, self._state().parameters.trust) if free else []
        if not ranked:
            return []
        if blobs_of(job.work) and notes.inputs == "unknown":
            return self._check_inputs(job_id, job)
        miner, price = ranked[0]
        taken = _with_running(free[miner], free[miner].running + 1)
        if taken.running < taken.capacity:
            free[miner] = taken
        else:
            del free[miner]
        return self._say(job_id, "assign", draft(JobAssigned, job=job_id, miner=miner, price=price), miner)

    def _check_inputs(self, job_id: str, job: Job) -> list[Command]:
        if job_id in self._checking or _is_taken(self._checking, job.owner, CHECKS_AT_ONCE, CHECKS_PER_OWNER):
            return []
        self._checking[job_id] = job.owner
        return [Start(f"inputs/{job_id}", partial(self._examiner.check_inputs, job_id, job), tries=1)]

    def _judge(self, job_id: str, job: Job, revealed: Revealed) -> list[Command]:
        miner = revealed.assignment.miner
        if self._judging.get(job_id) == miner:
            return []
        if _is_taken(self._judging, miner, VERDICTS_AT_ONCE, VERDICTS_PER_MINER):
            return []
        # Of an attempt that somebody else has ended meanwhile nobody needs the verdict.
        stale = self._judging.get(job_id)
        self._judging[job_id] = miner
        start = Start(f"judge/{job_id}/{miner}", partial(self._examiner.judge, job_id, job), tries=1)
        return [start] if stale is None else [Cancel(f"judge/{job_id}/{stale}"), start]

    def _note_inputs(self, job_id: str, reason: str) -> None:
        self._checking.pop(job_id, None)
        if (notes := self._notes.get(job_id)) is not None:
            notes.inputs, notes.reason = ("unusable", reason) if reason else ("usable", "")

    def _say_verdict(self, judged: Judged) -> list[Command]:
        if self._judging.get(judged.job) == judged.miner:
            del self._judging[judged.job]
        job = self._state().job(judged.job)
        if job is None or self._case(judged.job).key:
            return []
        wanted = (judged.miner, judged.root)
        match job.situation:
            case Revealed(commitment=commitment, assignment=assignment) if wanted == (
                assignment.miner,
                commitment.root,
            ):
                if judged.reason:
                    if judged.reason == "BAD_INPUT":
                        self._note_inputs(judged.job, judged.reason)
                    fields = {"job": judged.job, "miner": assignment.miner, "reason": judged.reason}
                    return self._say(judged.job, "fail", draft(JobFailed, **fields))
                sig = sign_receipt(receipt_of(judged.job, job, self._chain), self._key)
                return self._say(judged.job, "settle", draft(JobSettled, job=judged.job, receipt_sig=sig))
        return []

    def _effect_failed(self, failed: EffectFailed, now_ms: int) -> None:
        """Inputs that nobody has uploaded end the job. All else is tried again after a while, until a deadline ends
        it."""
        effect, _, rest = failed.name.partition("/")
        job_id, _, miner = rest.partition("/")
        if effect == "inputs":
            if isinstance(failed.error, BlobUnavailable):
                self._note_inputs(job_id, "BLOB_UNAVAILABLE")
                return
            self._checking.pop(job_id, None)
        elif effect == "judge" and self._judging.get(job_id) == miner:
            del self._judging[job_id]
        self._pause(job_id, now_ms)

    def _pause(self, job_id: str, now_ms: int) -> None:
        if (notes := self._notes.get(job_id)) is not None:
            notes.again_ms = now_ms + AGAIN_MS

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


def _is_taken(under_way: Mapping[str, str], who: str, most: int, most_of_one: int) -> bool:
    """Whether there is no place for one more effect on behalf of ``who``."""
    return len(under_way) >= most or sum(each == who for each in under_way.values()) >= most_of_one


def _is_in_exam(state: State, address: str) -> bool:
    attestation = state.attestation(address)
    return attestation is not None and isinstance(attestation.examination, Examination)


def _with_running(miner: Miner, running: int) -> Miner:
    return msgspec.structs.replace(miner, running=running)
