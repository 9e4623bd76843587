"""What a miner does about its attestation: claim at the start, sit exams, go on after a crash."""

from typing import Any

import pytest
from msgspec.structs import replace

from actors.attesting import AGAIN_MS, Answered, Attesting, Claimed, Shown, SitOn
from actors.attesting import Seat as KeptSeat
from actors.decision import Command, Done, EffectFailed, Heard, Later, NeverAgain
from actors.miner import LookAgain, Miner, Registration
from events.canonical import canonical
from events.errors import TimedOut
from schemas.attestation import ExamAnswer, ExamOpening
from schemas.blocks import Failed
from schemas.events import (
    Device,
    ExamCommitted,
    ExamJudged,
    ExamOpened,
    ExamRevealed,
    Offer,
)
from schemas.refusals import UnknownExam
from tests.actors.decisions import Kept, cancelled, only, said, started
from tests.golden import samples
from tests.projections.attested import host

ADDRESS = samples.MINER.address
EXAM, SEED, CHALLENGE = samples.EXAM, samples.JOB, samples.ROWS
ANSWERS = (ExamAnswer(gpu=samples.GPU, rows=256, root=samples.ROWS),)
OPENINGS = (ExamOpening(gpu=samples.GPU, rows=samples.RESULT, size=9),)
COMMON: dict[str, Any] = {"chain": samples.CHAIN, "nonce": 0, "gas_price": 1}
OPENED = ExamOpened(sender=samples.COORDINATOR.address, miners=(ADDRESS,), cause="first", **COMMON)
COMMITTED = ExamCommitted(sender=ADDRESS, exam=EXAM, answers=ANSWERS, **COMMON)
REVEALED = ExamRevealed(sender=ADDRESS, exam=EXAM, openings=OPENINGS, **COMMON)


class Attester:
    """Its effects are started by name; nothing runs."""

    async def claim(self) -> Claimed:
        raise AssertionError

    async def sit(self, exam: str, seed: str) -> Answered:
        raise AssertionError

    async def show(self, exam: str, seed: str, answers: tuple[ExamAnswer, ...], challenge: str) -> Shown:
        raise AssertionError

    async def forget(self, exam: str) -> None:
        raise AssertionError


class Seat:
    """The part of a miner that attests, with its kept rows."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.attesting = Attesting(ADDRESS, Attester())
        self.begun = self.take(self.attesting.begin(self.kept.rows))

    def take(self, commands: list[Command]) -> Done:
        done = Done(tuple(commands))
        self.kept.take(done)
        return done

    def restart(self) -> Done:
        self.attesting = Attesting(ADDRESS, Attester())
        return self.take(self.attesting.begin(self.kept.rows))

    def tell(self, message: object) -> Done:
        return self.take(self.attesting.decide(message))

    def read(self, event: Any, block: str = SEED, event_id: str = EXAM) -> Done:
        return self.take(self.attesting.read(event_id, event, block))


def judged(result: str) -> ExamJudged:
    verdict = samples.verdict()
    gpus = (replace(verdict.gpus[0], result=result),)
    return ExamJudged(sender=samples.COORDINATOR.address, verdict=replace(verdict, gpus=gpus), **COMMON)


def test_a_miner_claims_at_each_start() -> None:
    """It looks at its host and says what it shows; each start has a claim of its own."""
    seat = Seat()
    assert started(seat.begun) == ["claim"]
    ((key, fields),) = said(seat.tell(Claimed(host())))
    assert (key, fields["type"]) == ("claim/1", "attestation.claimed")
    assert started(seat.restart()) == ["claim"]
    assert [key for key, _ in said(seat.tell(Claimed(host())))] == ["claim/2"]


def test_a_host_without_anything_claims_nothing() -> None:
    """No GPU, no claim."""
    assert said(Seat().tell(Claimed(None))) == []


def test_a_claim_that_fails_is_made_later() -> None:
    """No node answered, or a device was full: with the miner's next look, until it is made; the reason is kept."""
    registration = Registration(name="miner", capacity=1, devices=(Device(model="H200", memory_mib=1),), offers=())
    miner = Miner(samples.MINER, samples.CHAIN, registration, Worker(), Attester())
    miner.begin({}, 0)
    for error in (TimedOut("no node answers"), MemoryError("the GPU has too little memory")):
        failing = miner.decide(EffectFailed("claim", error), 0)
        assert isinstance(failing, NeverAgain)
        assert failing.code == "NOT_CLAIMED"
        assert started(miner.decide(LookAgain(), 0)) == ["claim"]
    assert len(said(miner.decide(Claimed(host()), 0))) == 1
    assert started(miner.decide(LookAgain(), 0)) == []


def test_an_exam_from_its_opening_to_the_verdict() -> None:
    """The work, the answers, and then, when a block holds them, the rows that this block names."""
    seat = Seat()
    assert started(seat.read(OPENED)) == [f"sit/{EXAM}"]
    ((key, fields),) = said(seat.tell(Answered(EXAM, ANSWERS)))
    assert (key, fields["exam"]) == (f"answer/{EXAM}", EXAM)
    assert started(seat.read(COMMITTED, CHALLENGE)) == [f"show/{EXAM}"]
    ((key, fields),) = said(seat.tell(Shown(EXAM, OPENINGS)))
    assert (key, fields["openings"][0]["size"]) == (f"show/{EXAM}", 9)
    assert list(seat.read(REVEALED).commands) == []
    ended = seat.read(judged("right"))
    assert (started(ended), cancelled(ended)) == ([f"forget/{EXAM}"], [f"sit/{EXAM}", f"show/{EXAM}"])
    assert list(seat.kept.rows) == []


@pytest.mark.parametrize(
    ("steps", "does"),
    [
        (0, ("start", f"sit/{EXAM}")),
        (1, ("say", f"answer/{EXAM}")),
        (2, ("start", f"show/{EXAM}")),
        (3, ("say", f"show/{EXAM}")),
    ],
)
def test_after_a_crash_an_exam_goes_on(steps: int, does: tuple[str, str]) -> None:
    """At each stage the new process does what the old one was at; what was said has the same key."""
    seat = Seat()
    seat.read(OPENED)
    actions = (
        lambda: seat.tell(Answered(EXAM, ANSWERS)),
        lambda: seat.read(COMMITTED, CHALLENGE),
        lambda: seat.tell(Shown(EXAM, OPENINGS)),
    )
    for action in actions[:steps]:
        action()
    again = seat.restart()
    found = [("start", name) for name in started(again)] + [("say", key) for key, _ in said(again)]
    assert found == [("start", "claim"), does]


def test_exams_of_others_are_none_of_its_business() -> None:
    """Neither an exam that does not name it nor somebody else's verdict changes anything."""
    seat = Seat()
    other = replace(OPENED, miners=(samples.ALICE.address,))
    assert list(seat.read(other).commands) == []
    seat.read(OPENED)
    verdict = judged("right")
    theirs = replace(verdict, verdict=replace(verdict.verdict, miner=samples.ALICE.address))
    assert list(seat.read(theirs).commands) == []
    assert list(seat.tell(Answered(samples.JOB, ANSWERS)).commands) == []


def test_a_new_exam_ends_the_old_one() -> None:
    """There is one exam at a time; the last one that a block names counts."""
    seat = Seat()
    seat.read(OPENED)
    decision = seat.read(OPENED, event_id=samples.JOB)
    assert cancelled(decision) == [f"sit/{EXAM}", f"show/{EXAM}"]
    assert started(decision) == [f"forget/{EXAM}", f"sit/{samples.JOB}"]


@pytest.mark.parametrize(("result", "again"), [("absent", 1), ("late", 1), ("wrong", 0), ("right", 0)])
def test_a_missed_exam_is_asked_for_once_more(result: str, again: int) -> None:
    """A claim after a missed exam leads to another one; only once, for it may be the host that cannot do it."""
    seat = Seat()
    for attempt in (again, 0):
        seat.read(OPENED)
        assert started(seat.read(judged(result))).count("claim") == attempt


def test_the_miner_hands_on_what_concerns_exams() -> None:
    """Effects that fail are tried again, words in vain end the exam, and neither disturbs the jobs."""
    registration = Registration(
        name="m", capacity=1, devices=(Device(model="d", memory_mib=1),), offers=(Offer(service="a", unit_price=1),)
    )
    miner = Miner(samples.MINER, samples.CHAIN, registration, Worker(), Attester())
    exam = "a" * 64
    miner.begin({"seat": canonical(KeptSeat(exam=exam, seed=SEED))}, 0)
    decision = miner.decide(EffectFailed(f"sit/{exam}", TimedOut("slow")), 0)
    assert isinstance(decision, NeverAgain)
    assert only(decision, Later) == [Later(AGAIN_MS, SitOn(exam))]
    assert started(miner.decide(SitOn(exam), 0)) == [f"sit/{exam}"]
    refusal = UnknownExam(miner=ADDRESS, exam=exam)
    vain = Heard(f"answer/{exam}", EXAM, 1, Failed(event=EXAM, fee=1, refusal=refusal), 5)
    assert started(miner.decide(vain, 0)) == [f"forget/{exam}"]
    assert started(miner.decide(SitOn(exam), 0)) == []


class Worker:
    """Its effects are never run."""

    async def look_up(self, height: int) -> Any:
        raise AssertionError

    async def describe(self, job_id: str, height: int) -> Any:
        raise AssertionError

    async def compute(self, job_id: str, job: Any) -> Any:
        raise AssertionError

    async def deliver(self, job_id: str, result: str) -> Any:
        raise AssertionError

    async def forget(self, job_id: str) -> None:
        raise AssertionError

    async def sweep(self, unfinished: frozenset[str]) -> None:
        raise AssertionError
