"""Exams: whom a coordinator examines when, and what it says of the answers; given a ledger, then these commands."""

from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from actors.coordinator import Coordinator, NewBlock, Tick
from actors.decision import Decision, EffectFailed, Heard, Say
from actors.examinations import (
    AGAIN_MS,
    DRAWN_AT_ONCE,
    LATE_MS,
    LEFT_OUT_MS,
    TAKE_OVER_MS,
    ExamFound,
    SpotDrawn,
    cause_of,
)
from events.errors import Unreachable
from projections.concerns import Concerns
from schemas.attestation import ExamAnswer, ExamOpening
from schemas.blocks import Applied, Failed
from schemas.events import AttestationClaimed, ExamCommitted, ExamOpened, ExamRevealed
from schemas.refusals import ExamUnderway
from schemas.state import Attestation, Examination
from tests.actors.decisions import Kept, heard, only, said, signed_by, started
from tests.actors.test_coordinator import Examiner
from tests.golden import samples
from tests.projections.attested import attestation, gpu, host, verdict
from tests.projections.ledger import trust
from tests.projections.small_network import SmallNetwork, key_of, make_genesis

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
TRUST = trust(reexamine_ms=WEEK_MS)
MINERS = ("miner 0", "miner 1")


class Judge:
    """Its effects are started by name; nothing runs."""

    async def judge(self, miner: str, attestation: Attestation) -> ExamFound:
        raise AssertionError

    async def draw(self, job_id: str, miner: str, height: int) -> SpotDrawn:
        raise AssertionError


class Desk:
    """A coordinator over a ledger with two miners that have claimed."""

    def __init__(self, claims: bool = True, coordinators: int = 1) -> None:
        genesis = make_genesis(trust=TRUST)
        names = ["coordinator", "alice"][:coordinators]
        self.addresses = sorted(key_of(name).address for name in names)
        self.network = SmallNetwork(replace(genesis, coordinators=tuple(self.addresses)))
        self.network.block(*(self.network.register(name) for name in MINERS))
        self.name = "coordinator"
        self.key = key_of(self.name)
        self.kept = Kept()
        self.coordinator = self.start()
        if claims:
            for index, name in enumerate(MINERS):
                self.claim(name, index)

    def start(self) -> Coordinator:
        chain = self.network.chain
        found = Coordinator(self.key, self.network.genesis.chain, lambda: chain.state, Examiner(), Judge())
        self.begun = self.kept.take(found.begin(self.kept.rows, self.now_ms))
        return found

    def examined(self) -> "Desk":
        """Both miners have passed their first exam."""
        self.include(self.tell(NewBlock(1)))
        for index, name in enumerate(MINERS):
            self.answer(name, index)
        self.tell(NewBlock(2))
        for index, name in enumerate(MINERS):
            self.include(self.tell(self.verdict(name, index)))
        return self

    def settle(self, miner: str = MINERS[0]) -> tuple[str, Heard]:
        """A settled job, and what its coordinator hears of it."""
        job_id = self.network.run_job(miner)
        applied = Applied(event=samples.EXAM, fee=0)
        return job_id, Heard(f"settle/{job_id}/1", samples.EXAM, 1, applied, self.network.chain.height)

    @property
    def now_ms(self) -> int:
        return self.network.chain.earliest_ms(0)

    def claim(self, name: str, index: int = 0) -> None:
        evidence = host(gpu(f"GPU-{index}"))
        self.network.block(self.network.say(name, AttestationClaimed, evidence=evidence))

    def tell(self, message: object, after_ms: int = 0) -> Decision:
        return self.kept.take(self.coordinator.decide(message, self.now_ms + after_ms))

    def include(self, decision: Decision) -> Decision:
        """Puts the one thing that is said into a block, and tells its speaker."""
        (say,) = only(decision, Say)
        signed = signed_by(self.network, self.name, self.key, say)
        final = self.network.block(signed)
        return self.tell(heard(final, signed, say.key))

    def exam(self, name: str = MINERS[0]) -> Examination:
        found = self.network.chain.state.attestation(key_of(name).address)
        assert found is not None
        assert isinstance(found.examination, Examination)
        return found.examination

    def answer(self, name: str, index: int) -> None:
        exam = self.exam(name).exam
        answers = (ExamAnswer(gpu=f"GPU-{index}", rows=10**9, root=samples.ROWS),)
        openings = (ExamOpening(gpu=f"GPU-{index}", rows=samples.ROWS, size=1),)
        self.network.block(self.network.say(name, ExamCommitted, exam=exam, answers=answers))
        self.network.block(self.network.say(name, ExamRevealed, exam=exam, openings=openings))

    def verdict(self, name: str, index: int, result: str = "right") -> ExamFound:
        given = verdict(f"GPU-{index}", result=result)
        miner = key_of(name).address
        return ExamFound(replace(samples.verdict(), miner=miner, exam=self.exam(name).exam, gpus=(given,)))


def opened(decision: Decision) -> tuple[str, set[str]]:
    """The cause and the miners of the exam that is opened."""
    ((_, fields),) = said(decision)
    return fields["cause"], set(fields["miners"])


def test_new_claims_are_examined_together() -> None:
    """Whoever has claimed and was never examined is named in one event, once."""
    desk = Desk()
    decision = desk.tell(NewBlock(1))
    assert opened(decision) == ("first", {key_of(name).address for name in MINERS})
    assert said(desk.tell(Tick())) == []
    desk.include(decision)
    assert desk.exam().cause == "first"
    assert said(desk.tell(NewBlock(2))) == []


def test_without_claims_nothing_is_done() -> None:
    """A miner that claims nothing is in no exam; neither is anybody on a chain without trust parameters."""
    assert said(Desk(claims=False).tell(Tick())) == []


def test_answers_are_judged_and_the_verdict_is_said_once() -> None:
    """Opened answers are looked at; the verdict is said, and ends the exam."""
    desk = Desk()
    desk.include(desk.tell(NewBlock(1)))
    desk.answer(MINERS[0], 0)
    exam, address = desk.exam(), key_of(MINERS[0]).address
    assert started(desk.tell(NewBlock(2))) == [f"examine/{address}/{exam.exam}"]
    assert started(desk.tell(Tick())) == []
    decision = desk.tell(desk.verdict(MINERS[0], 0))
    assert [fields["verdict"]["miner"] for _, fields in said(decision)] == [address]
    assert said(desk.tell(desk.verdict(MINERS[0], 0))) == []
    desk.include(decision)
    found = desk.network.chain.state.attestation(address)
    assert found is not None
    assert found.examination is UNSET
    assert said(desk.tell(NewBlock(3))) == []


def test_silence_is_judged_after_the_deadline() -> None:
    """A while after the deadline, for block time may be behind, the missing answer is looked at too."""
    desk = Desk()
    desk.include(desk.tell(NewBlock(1)))
    late_ms = desk.exam().deadline_ms + LATE_MS - desk.now_ms
    assert started(desk.tell(Tick(), after_ms=late_ms - 1)) == []
    assert len(started(desk.tell(Tick(), after_ms=late_ms))) == 2


def test_a_judge_that_fails_is_asked_again() -> None:
    """After a pause; others are judged meanwhile."""
    desk = Desk()
    desk.include(desk.tell(NewBlock(1)))
    desk.answer(MINERS[0], 0)
    (name,) = started(desk.tell(NewBlock(2)))
    assert started(desk.tell(EffectFailed(name, Unreachable("away")))) == []
    assert started(desk.tell(Tick(), after_ms=AGAIN_MS)) == [name]


def test_a_verdict_on_an_exam_that_is_over_is_forgotten() -> None:
    """Nothing is said where the state has moved on."""
    desk = Desk()
    desk.include(desk.tell(NewBlock(1)))
    stale = desk.verdict(MINERS[0], 0)
    wrong = replace(stale, verdict=replace(stale.verdict, exam=samples.EXAM))
    assert said(desk.tell(wrong)) == []


def test_after_a_crash_nothing_is_said_twice() -> None:
    """What was said before is a kept row; the new process waits to hear of it."""
    desk = Desk()
    decision = desk.tell(NewBlock(1))
    desk.coordinator = desk.start()
    assert said(desk.tell(Tick())) == []
    desk.include(decision)
    desk.answer(MINERS[0], 0)
    assert len(started(desk.tell(NewBlock(2)))) == 1


def test_another_coordinator_steps_in() -> None:
    """One is first by the period; the other waits, and speaks when nothing happens."""
    desk = Desk(coordinators=2)
    first = desk.addresses[desk.now_ms // WEEK_MS % 2] == desk.key.address
    assert bool(said(desk.tell(Tick()))) == first
    assert bool(said(desk.tell(Tick(), after_ms=TAKE_OVER_MS))) != first


ADDRESS = key_of(MINERS[0]).address


def test_a_settled_job_draws_its_miner() -> None:
    """The number that the block draws decides; below the rate the miner is examined once more, and once."""
    desk = Desk().examined()
    for number, drawn in ((500, False), (499, True)):
        job_id, settled = desk.settle()
        assert started(desk.tell(settled)) == [f"draw/{job_id}"]
        assert started(desk.tell(Tick())) == []
        decision = desk.tell(SpotDrawn(job_id, ADDRESS, number))
        assert bool(said(decision)) == drawn
    assert opened(decision) == ("spot", {ADDRESS})
    desk.include(decision)
    assert desk.exam().cause == "spot"
    desk.answer(MINERS[0], 0)
    assert said(desk.include(desk.tell(desk.verdict(MINERS[0], 0)))) == []
    assert said(desk.tell(NewBlock(3))) == []


def test_a_draw_that_fails_is_tried_again() -> None:
    """After a pause; the check is not lost by a block that cannot be read for a moment."""
    desk = Desk().examined()
    job_id, settled = desk.settle()
    (name,) = started(desk.tell(settled))
    assert started(desk.tell(EffectFailed(name, Unreachable("away")))) == []
    assert started(desk.tell(Tick(), after_ms=AGAIN_MS)) == [name]
    assert opened(desk.tell(SpotDrawn(job_id, ADDRESS, 0))) == ("spot", {ADDRESS})


def test_draws_are_found_again_after_a_crash() -> None:
    """Whether the crash came before the draw or after it: a job settled since the miner's last exam draws anew."""
    desk = Desk().examined()
    job_id, settled = desk.settle()
    assert started(desk.tell(settled)) == [f"draw/{job_id}"]
    desk.coordinator = desk.start()
    assert f"draw/{job_id}" in started(desk.begun)
    assert opened(desk.tell(SpotDrawn(job_id, ADDRESS, 0)))
    desk.kept.rows.clear()
    desk.coordinator = desk.start()
    assert f"draw/{job_id}" in started(desk.begun)
    desk.include(desk.tell(SpotDrawn(job_id, ADDRESS, 0)))
    desk.coordinator = desk.start()
    assert f"draw/{job_id}" not in started(desk.begun)


def test_another_coordinators_draws_are_found_too() -> None:
    """A coordinator that starts finds what any of them has settled, so that one that is gone takes no check with it."""
    desk = Desk().examined()
    job_id, _ = desk.settle(MINERS[1])
    assert started(desk.tell(NewBlock(3))) == []
    desk.coordinator = desk.start()
    assert f"draw/{job_id}" in started(desk.begun)
    assert opened(desk.tell(SpotDrawn(job_id, key_of(MINERS[1]).address, 0)))[1] == {key_of(MINERS[1]).address}


def test_an_opening_in_vain_loses_no_draw() -> None:
    """When the event that opens the exam does nothing, it is said again."""
    desk = Desk().examined()
    job_id, settled = desk.settle()
    desk.tell(settled)
    ((key, _),) = said(desk.tell(SpotDrawn(job_id, ADDRESS, 0)))
    refused = Failed(event=samples.EXAM, fee=0, refusal=ExamUnderway(miner=ADDRESS, exam=samples.EXAM))
    in_vain = Heard(key, samples.EXAM, 1, refused, desk.network.chain.height)
    assert said(desk.tell(in_vain)) == []
    assert opened(desk.tell(Tick(), after_ms=AGAIN_MS)) == ("spot", {ADDRESS})


def test_whoever_takes_its_claim_back_keeps_nobody_from_an_exam() -> None:
    """An exam is opened for all that it names or for none: the next is opened without the one that spoiled it, which
    waits a minute for its own."""
    desk = Desk(claims=False)
    for index, name in enumerate(MINERS):
        desk.claim(name, index)
    decision = desk.tell(NewBlock(1))
    (say,) = only(decision, Say)
    nothing = desk.network.say(MINERS[1], AttestationClaimed, evidence=replace(host(), gpus=()))
    signed = signed_by(desk.network, desk.name, desk.key, say)
    in_vain = heard(desk.network.block(nothing, signed), signed, say.key)
    assert isinstance(in_vain.outcome, Failed)
    desk.claim(MINERS[1], 1)
    failed_ms = desk.now_ms
    desk.tell(in_vain)
    desk.include(desk.tell(Tick(), after_ms=AGAIN_MS))
    assert desk.exam(MINERS[0]).cause == "first"
    since_ms = desk.now_ms - failed_ms
    assert said(desk.tell(Tick(), after_ms=LEFT_OUT_MS - since_ms - 1)) == []
    assert opened(desk.tell(Tick(), after_ms=LEFT_OUT_MS - since_ms)) == ("first", {key_of(MINERS[1]).address})


def test_an_exam_ends_what_was_drawn_before_it() -> None:
    """A draw that comes when its miner sits another exam already asks for no second one."""
    desk = Desk().examined()
    (early, settled), (late, settled_too) = desk.settle(), desk.settle()
    desk.tell(settled)
    desk.tell(settled_too)
    desk.include(desk.tell(SpotDrawn(early, ADDRESS, 0)))
    desk.answer(MINERS[0], 0)
    assert said(desk.include(desk.tell(desk.verdict(MINERS[0], 0)))) == []
    assert said(desk.tell(SpotDrawn(late, ADDRESS, 0))) == []


def test_draws_are_made_some_at_a_time() -> None:
    """A coordinator that was away for long does not read all blocks at once."""
    desk = Desk().examined()
    jobs = [desk.settle()[0] for _ in range(DRAWN_AT_ONCE + 1)]
    desk.coordinator = desk.start()
    first = [name for name in started(desk.begun) if name.startswith("draw/")]
    assert len(first) == DRAWN_AT_ONCE
    done = first[0].split("/")[1]
    (last,) = started(desk.tell(SpotDrawn(done, ADDRESS, 9_999)))
    assert {*first, last} == {f"draw/{job_id}" for job_id in jobs}


def test_whoever_is_in_an_exam_gets_no_job() -> None:
    """A job waits until a miner is free of exams."""
    desk = Desk()
    desk.include(desk.tell(NewBlock(1)))
    desk.network.block(desk.network.submit())
    assert said(desk.tell(NewBlock(2))) == []


def test_an_exam_concerns_those_whom_it_names() -> None:
    """The event is in the feed of each named miner, the verdict in that of its one."""
    desk = Desk()
    desk.include(desk.tell(NewBlock(1)))
    final = desk.network.finals[-1]
    assert isinstance(final.events[0].event, ExamOpened)
    (concern,) = Concerns({}).of_block(final.executed, final.events)
    assert set(concern.beyond) == {key_of(name).address for name in MINERS}


def examined(found: Attestation, **changes: Any) -> Attestation:
    assert found.examined is not UNSET
    return replace(found, examined=replace(found.examined, **changes))


RIGHT = attestation(performance=1_000)
WRONG = attestation(None, verdict(result="wrong"))


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (attestation(examined=False), "first"),
        (attestation(replace(host(), gpus=()), examined=False), None),
        (RIGHT, None),
        (replace(RIGHT, previous=1_112), "drift"),
        (replace(RIGHT, previous=1_111), None),
        (replace(RIGHT, previous=909), "drift"),
        (replace(RIGHT, previous=910), None),
        (examined(replace(RIGHT, previous=1), cause="drift"), None),
        (WRONG, None),
        (replace(WRONG, claimed_ms=3_001), "first"),
        (replace(WRONG, claimed_ms=3_000), None),
        (replace(attestation(fresh=False), claimed_ms=3_001), "first"),
        (replace(RIGHT, claimed_ms=3_001), None),
    ],
)
def test_why_a_miner_is_examined(found: Attestation, cause: str | None) -> None:
    """Never examined, mended after a failure, or off by more than a tenth, once."""
    assert cause_of(found, TRUST, 5_000) == cause


@pytest.mark.parametrize(
    "found",
    [
        attestation(None, verdict(memory_mib=0)),
        attestation(performance=150_000),
        attestation(performance=499_999),
    ],
    ids=["so much memory was not free", "slow for such a card", "slower than the chain asks"],
)
def test_a_right_exam_that_shows_too_little_is_sat_again(found: Attestation) -> None:
    """What kept a card from its memory or speed may be gone: a new claim asks for another exam, long before the next
    period. One that has enough asks in vain."""
    asks = trust(reexamine_ms=WEEK_MS, min_score=70, min_memory_mib=15_564, min_performance=500_000)
    assert cause_of(found, asks, 5_000) is None
    assert cause_of(replace(found, claimed_ms=3_001), asks, 5_000) == "first"
    assert cause_of(replace(attestation(), claimed_ms=3_001), asks, 5_000) is None


def test_all_are_due_once_in_a_period() -> None:
    """Periods are those of the chain, so that all miners are due at the same moment; a draw comes after that."""
    assert cause_of(RIGHT, TRUST, WEEK_MS - 1) is None
    assert cause_of(RIGHT, TRUST, WEEK_MS) == "periodic"
    assert cause_of(RIGHT, TRUST, 5_000, drawn=True) == "spot"
    assert cause_of(RIGHT, TRUST, WEEK_MS, drawn=True) == "periodic"
