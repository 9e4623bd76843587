"""The coordinator's decisions on exams: whom to examine when, and what to say of the answers. Pure.

A miner is examined when it has claimed GPUs that nobody has looked at, together with all others once in each period of
the chain, when a settled job draws it, and when its speed has drifted; the causes are in the log, and lead to nothing
but an exam. As with jobs, what is to be done follows from the state; kept is only what was said and not yet heard of.
Where several coordinators run, one is first, the others step in when it is silent.

What a job draws depends on the log alone, so draws are not kept either: a coordinator that starts lets every job draw
that was settled, by whichever coordinator, since its miner's last exam was opened, and finds the same numbers again.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Protocol

import msgspec
from msgspec import Struct, UnsetType

from actors.decision import Command, Draft, EffectFailed, Heard, Keep, Say, Start, TurnedAway, draft
from events.canonical import canonical
from projections.attestation import attested
from projections.bonds import standing_of
from projections.state import State
from schemas.attestation import ExamCause, ExamVerdict
from schemas.blocks import Applied, Failed
from schemas.events import ExamJudged, ExamOpened
from schemas.genesis import Trust
from schemas.refusals import NothingClaimed
from schemas.state import Attestation, Examination, Job, Settled

TAKE_OVER_MS: Final = 3_000
AGAIN_MS: Final = 2_000
# One that takes its claim back when an exam is opened spoils it for all who are named: they do not wait for it.
LEFT_OUT_MS: Final = 60_000
# A deadline is in block time: the block that is to hold the verdict may be a little behind this clock.
LATE_MS: Final = 2_000
MOST_MINERS: Final = 512
JUDGED_AT_ONCE: Final = 4
DRAWN_AT_ONCE: Final = 16
OPENING: Final = "open"
ROWS: Final = "exam/"
# In this order: what all are due for comes first.
CAUSES: Final[tuple[ExamCause, ...]] = ("periodic", "first", "spot", "drift")


class ExamFound(Struct, frozen=True):
    """A miner's answers have been looked at."""

    verdict: ExamVerdict


class SpotDrawn(Struct, frozen=True):
    """A settled job has drawn this number, below 10,000, for its miner."""

    job: str
    miner: str
    number: int


class Undrawn(Struct, frozen=True):
    """A job that was settled at this height and time, and has not drawn yet."""

    miner: str
    height: int
    settled_ms: int


class Word(Struct, frozen=True):
    """What was said about a subject: a miner's address, or the opening of exams. ``tries`` counts what was heard of,
    ``key`` is what was not heard of yet."""

    subject: str
    tries: int = 0
    key: str = ""


class ExamJudge(Protocol):
    """The effects: everything that takes time or reads blobs."""

    def judge(self, miner: str, attestation: Attestation) -> Awaitable[ExamFound]:
        """Looks at the openings, or finds that there are none. Raises when no verdict can be reached now."""

    def draw(self, job_id: str, miner: str, height: int) -> Awaitable[SpotDrawn]:
        """The number that the block at this height draws for the job."""


_word_decoder: Final = msgspec.json.Decoder(Word)


def cause_of(attestation: Attestation, trust: Trust, now_ms: int, *, drawn: bool = False) -> ExamCause | None:
    """Why this miner is to be examined now, if at all. ``drawn``: a settled job has drawn it."""
    if isinstance(attestation.examination, Examination) or not attestation.evidence.gpus:
        return None
    last = attestation.examined
    if isinstance(last, UnsetType):
        return "first"
    if last.opened_ms // trust.reexamine_ms < now_ms // trust.reexamine_ms:
        return "periodic"
    good = last.verdict.fresh and all(gpu.result == "right" for gpu in last.verdict.gpus)
    if not (good and _is_enough(attestation, trust)) and attestation.claimed_ms > last.judged_ms:
        # It has mended something, and says so.
        return "first"
    if drawn:
        return "spot"
    before, now = attestation.previous, min(last.performance, default=0)
    drifted = abs(now - before) * 10_000 > before * trust.drift_bps
    # One that is examined for its drift is not examined again for the same.
    return "drift" if before and now and drifted and last.cause != "drift" else None


def _is_enough(attestation: Attestation, trust: Trust) -> bool:
    """Whether the miner has what the chain asks of an attestation."""
    found = attested(attestation)
    return (
        found.score >= trust.min_score
        and found.memory_mib >= trust.min_memory_mib
        and found.performance >= trust.min_performance
    )


def _is_examined_since(attestation: Attestation, time_ms: int) -> bool:
    """Whether an exam was opened after this time."""
    exams = (attestation.examination, attestation.examined)
    return any(not isinstance(exam, UnsetType) and exam.opened_ms > time_ms for exam in exams)


class Examinations:
    """Decides from ``state()``, the ledger's final state at the time of the message."""

    def __init__(self, address: str, state: Callable[[], State], judge: ExamJudge) -> None:
        self._address = address
        self._state = state
        self._judge = judge
        self._words: dict[str, Word] = {}
        self._judging: set[str] = set()
        # By job, those that have to draw, and of which of them an effect runs; by miner, when the job was settled that
        # has drawn it.
        self._undrawn: dict[str, Undrawn] = {}
        self._drawing: set[str] = set()
        self._drawn: dict[str, int] = {}
        # When something came to be due, by subject and what it is about; and until when it is left alone.
        self._since: dict[str, tuple[str, int]] = {}
        self._again: dict[str, int] = {}

    def begin(self, rows: Mapping[str, bytes]) -> None:
        """Takes up what the kept rows say, those of others are left alone; and what jobs have not drawn."""
        words = (_word_decoder.decode(row) for name, row in rows.items() if name.startswith(ROWS))
        self._words = {word.subject: word for word in words}
        for job_id, job in self._state().jobs.items():
            self._let_draw(job_id, job)

    def decide(self, message: object, now_ms: int) -> list[Command]:
        """What a message asks for; all else comes from `look`."""
        match message:
            case ExamFound():
                return self._found(message.verdict)
            case SpotDrawn():
                self._note_draw(message)
            case Heard(outcome=Applied()) if message.key.startswith("settle/"):
                job_id = message.key.split("/")[1]
                self._let_draw(job_id, self._state().job(job_id))
            case Heard(outcome=Applied()) if message.key.startswith(ROWS):
                return self._heard(message.key)
            case Heard() | TurnedAway(given_up=True) if message.key.startswith(ROWS):
                self._again[message.key.split("/")[1]] = now_ms + AGAIN_MS
                match message:
                    case Heard(outcome=Failed(refusal=NothingClaimed(miner=miner))):
                        self._again[miner] = now_ms + LEFT_OUT_MS
                return self._heard(message.key)
            case EffectFailed() if message.name.startswith("examine/"):
                address = message.name.split("/")[1]
                self._judging.discard(address)
                self._again[address] = now_ms + AGAIN_MS
            case EffectFailed() if message.name.startswith("draw/"):
                job_id = message.name.split("/")[1]
                self._drawing.discard(job_id)
                if job_id in self._undrawn:
                    self._again[job_id] = now_ms + AGAIN_MS
        return []

    def look(self, now_ms: int) -> list[Command]:
        """Everything that the present state asks for."""
        state, trust = self._state(), self._trust()
        if trust is None or not state.attestations():
            return []
        commands = [*self._draw(state, now_ms), *self._open(state, trust, now_ms)]
        for address, attestation in state.attestations().items():
            if isinstance(attestation.examination, Examination):
                commands += self._examine(address, attestation, attestation.examination, now_ms)
        return commands

    def _trust(self) -> Trust | None:
        trust = self._state().parameters.trust
        return None if isinstance(trust, UnsetType) else trust

    def _is_mine(self, subject: str, about: str, number: int, now_ms: int) -> bool:
        """Whether it is this coordinator's turn: the first's at once, the others' while nothing happens."""
        if self._word(subject).key or now_ms < self._again.get(subject, 0):
            return False
        if subject not in self._since or self._since[subject][0] != about:
            self._since[subject] = (about, now_ms)
        coordinators = self._state().genesis.coordinators
        behind = (coordinators.index(self._address) - number) % len(coordinators)
        return now_ms - self._since[subject][1] >= behind * TAKE_OVER_MS

    def _open(self, state: State, trust: Trust, now_ms: int) -> list[Command]:
        due: dict[str, list[str]] = {}
        for address, attestation in sorted(state.attestations().items()):
            miner = state.miner(address)
            if miner is None or standing_of(miner).banned or now_ms < self._again.get(address, 0):
                continue
            cause = cause_of(attestation, trust, now_ms, drawn=address in self._drawn)
            if cause is not None:
                due.setdefault(cause, []).append(address)
        cause = next((cause for cause in CAUSES if cause in due), None)
        if cause is None:
            self._since.pop(OPENING, None)
            return []
        chosen = due[cause][:MOST_MINERS]
        if not self._is_mine(OPENING, f"{cause} {chosen[0]}", now_ms // trust.reexamine_ms, now_ms):
            return []
        return self._say(OPENING, draft(ExamOpened, miners=tuple(chosen), cause=cause))

    def _examine(self, address: str, attestation: Attestation, examination: Examination, now_ms: int) -> list[Command]:
        if isinstance(examination.openings, UnsetType) and now_ms < examination.deadline_ms + LATE_MS:
            return []
        if address in self._judging or len(self._judging) >= JUDGED_AT_ONCE:
            return []
        if not self._is_mine(address, examination.exam, int(examination.exam[:8], 16), now_ms):
            return []
        self._judging.add(address)
        judge = partial(self._judge.judge, address, attestation)
        return [Start(f"examine/{address}/{examination.exam}", judge, tries=1)]

    def _found(self, verdict: ExamVerdict) -> list[Command]:
        self._judging.discard(verdict.miner)
        attestation = self._state().attestation(verdict.miner)
        if attestation is None or self._word(verdict.miner).key:
            return []
        examination = attestation.examination
        if isinstance(examination, UnsetType) or examination.exam != verdict.exam:
            return []
        return self._say(verdict.miner, draft(ExamJudged, verdict=verdict))

    def _let_draw(self, job_id: str, job: Job | None) -> None:
        """The job has to draw if it was settled after its miner's last exam was opened."""
        trust = self._trust()
        if trust is None or not trust.spot_check_bps or job is None or not isinstance(job.situation, Settled):
            return
        miner, settled_ms = job.situation.assignment.miner, job.situation.ended_ms
        attestation = self._state().attestation(miner)
        if attestation is not None and not _is_examined_since(attestation, settled_ms):
            self._undrawn[job_id] = Undrawn(miner, job.situation.ended_height, settled_ms)

    def _draw(self, state: State, now_ms: int) -> list[Command]:
        """Starts some of the draws. An exam makes those from before it needless, whatever it was opened for."""
        latest = state.attestations()
        self._drawn = {
            miner: settled_ms
            for miner, settled_ms in self._drawn.items()
            if not _is_examined_since(latest[miner], settled_ms)
        }
        commands: list[Command] = []
        needless: list[str] = []
        # After a long absence there are many, and each message looks at them: no further than has to be.
        for job_id, undrawn in self._undrawn.items():
            if len(self._drawing) >= DRAWN_AT_ONCE:
                break
            if _is_examined_since(latest[undrawn.miner], undrawn.settled_ms):
                needless.append(job_id)
            elif job_id not in self._drawing and now_ms >= self._again.get(job_id, 0):
                self._drawing.add(job_id)
                draw = partial(self._judge.draw, job_id, undrawn.miner, undrawn.height)
                commands.append(Start(f"draw/{job_id}", draw, tries=1))
        for job_id in needless:
            self._forget_draw(job_id)
        return commands

    def _note_draw(self, drawn: SpotDrawn) -> None:
        """One that is drawn stays so until it is examined; what its other jobs would draw adds nothing."""
        self._drawing.discard(drawn.job)
        undrawn, trust = self._undrawn.get(drawn.job), self._trust()
        self._forget_draw(drawn.job)
        if undrawn is None or trust is None or drawn.number >= trust.spot_check_bps:
            return
        attestation = self._state().attestation(undrawn.miner)
        if attestation is None or _is_examined_since(attestation, undrawn.settled_ms):
            return
        self._drawn[undrawn.miner] = undrawn.settled_ms
        for job_id in [job_id for job_id, each in self._undrawn.items() if each.miner == undrawn.miner]:
            self._forget_draw(job_id)

    def _forget_draw(self, job_id: str) -> None:
        self._undrawn.pop(job_id, None)
        self._again.pop(job_id, None)

    def _word(self, subject: str) -> Word:
        return self._words.get(subject) or Word(subject)

    def _say(self, subject: str, said: Draft) -> list[Command]:
        """One thing at a time about one subject. The count of tries makes the key of each new thing a new one."""
        word = self._word(subject)
        word = Word(subject, word.tries, f"{ROWS}{subject}/{word.tries}")
        self._words[subject] = word
        return [Keep(f"{ROWS}{subject}", canonical(word)), Say(word.key, said)]

    def _heard(self, key: str) -> list[Command]:
        subject = key.split("/")[1]
        word = self._words.get(subject)
        if word is None or word.key != key:
            return []
        self._words[subject] = Word(subject, word.tries + 1)
        return [Keep(f"{ROWS}{subject}", canonical(self._words[subject]))]
