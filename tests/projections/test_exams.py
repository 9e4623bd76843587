"""Claims, exams and verdicts: what each event does, what it cannot do, and who gets jobs by it."""

from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from events.canonical import digest
from events.envelope import SignedEvent
from events.keys import Key
from projections.attestation import scores_of
from projections.bonds import attested_of, standing_of
from projections.exams import performance_of
from projections.state import State
from schemas.attestation import ExamAnswer, ExamOpening, ExamShape, ExamVerdict
from schemas.events import (
    AttestationClaimed,
    ExamCommitted,
    ExamJudged,
    ExamOpened,
    ExamRevealed,
    Requirement,
)
from schemas.refusals import (
    DuplicateEntry,
    ExamOver,
    ExamUnderway,
    GradeTooLow,
    NotAttested,
    NotCoordinator,
    NotEnabled,
    NothingClaimed,
    PerformanceTooLow,
    Refusal,
    RequirementNotMet,
    UnknownExam,
    UnknownMiner,
    WrongAnswers,
    WrongExamStage,
)
from schemas.state import Attestation, Attested, Examination, Examined
from tests.projections.attested import GPU, SECOND_GPU, gpu, host, verdict
from tests.projections.ledger import (
    BOB,
    COORDINATOR,
    MINER,
    SECOND_MINER,
    Ledger,
    Saying,
    assigned,
    given,
    registered,
    say,
    submitted,
    trust,
)

BALANCE = 10_000_000
NO_EXAM = digest(b"no exam")
ROOT = digest(b"root")
# In 2 s of the log these rows are 2 x 10^9 x 64 x 32 operations: 2,048 giga-operations per second.
ROWS = 10**9
PERFORMANCE = 2_048
BOTH = host(gpu(), gpu(SECOND_GPU))


def exam_of(ledger: Ledger, miner: Key = MINER) -> str:
    """The exam that the miner is in or was in last."""
    found = ledger.state.attestation(miner.address)
    if found is not None and isinstance(found.examination, Examination):
        return found.examination.exam
    if found is not None and isinstance(found.examined, Examined):
        return found.examined.verdict.exam
    return NO_EXAM


def claimed(miner: Key = MINER, **more: Any) -> Saying:
    return say(miner, AttestationClaimed, **{"evidence": host(), **more})


def opened(*miners: Key, sender: Key = COORDINATOR, cause: str = "first") -> Saying:
    addresses = tuple(miner.address for miner in miners or (MINER,))
    return say(sender, ExamOpened, miners=addresses, cause=cause)


def answers(*uuids: str, **changes: Any) -> tuple[ExamAnswer, ...]:
    return tuple(ExamAnswer(**{"gpu": uuid, "rows": ROWS, "root": ROOT, **changes}) for uuid in uuids or (GPU,))


def answered(miner: Key = MINER, **more: Any) -> Saying:
    return say(miner, ExamCommitted, lambda ledger: {"exam": exam_of(ledger, miner)}, **{"answers": answers(), **more})


def openings(*uuids: str, **changes: Any) -> tuple[ExamOpening, ...]:
    return tuple(ExamOpening(**{"gpu": uuid, "rows": ROOT, "size": 10, **changes}) for uuid in uuids or (GPU,))


def shown(miner: Key = MINER, **more: Any) -> Saying:
    return say(miner, ExamRevealed, lambda ledger: {"exam": exam_of(ledger, miner)}, **{"openings": openings(), **more})


def judged(miner: Key = MINER, *gpus: Any, sender: Key = COORDINATOR, **changes: Any) -> Saying:
    def signed(ledger: Ledger) -> SignedEvent:
        given_verdict: dict[str, Any] = {
            "miner": miner.address,
            "exam": exam_of(ledger, miner),
            "fresh": True,
            "driver": "listed",
            "lists": ROOT,
            "gpus": gpus or (verdict(expected=PERFORMANCE),),
        }
        return say(sender, ExamJudged, verdict=ExamVerdict(**{**given_verdict, **changes}))(ledger)

    return signed


def trusting(*sayings: Saying, **changes: Any) -> Ledger:
    return given(registered(), *sayings, balance=BALANCE, trust=trust(**changes))


def examined(ledger: Ledger, *gpus: Any, miner: Key = MINER, cause: str = "first", duration_ms: int = 2_000) -> Ledger:
    """One exam from the opening to the verdict."""
    ledger.when(opened(miner, cause=cause)).then()
    ledger.when(answered(miner), after_ms=duration_ms).then()
    return ledger.when(shown(miner)).then().when(judged(miner, *gpus)).then()


def record(ledger: Ledger, miner: Key = MINER) -> Attestation:
    found = ledger.state.attestation(miner.address)
    assert found is not None
    return found


def worth(ledger: Ledger, miner: Key = MINER) -> Attested:
    found = ledger.state.miner(miner.address)
    assert found is not None
    return attested_of(found)


def test_an_exam_from_claim_to_verdict() -> None:
    """The record goes from stage to stage, and ends with score, grade, memory and the speed by block times."""
    ledger = trusting(claimed())
    assert worth(ledger) == Attested(score=40, grade="C")
    ledger.when(opened()).then()
    examination = record(ledger).examination
    assert isinstance(examination, Examination)
    assert (examination.opened_ms, examination.opened_height) == (ledger.time_ms, ledger.height)
    assert examination.deadline_ms == ledger.time_ms + 10_000

    ledger.when(answered(), after_ms=2_000).then()
    examination = record(ledger).examination
    assert isinstance(examination, Examination)
    assert examination.deadline_ms == ledger.time_ms + 5_000
    ledger.when(shown()).then().when(judged()).then()
    assert record(ledger).examination is UNSET
    expected = Attested(score=100, grade="M", memory_mib=142_655, performance=PERFORMANCE, examined_ms=ledger.time_ms)
    assert worth(ledger) == expected
    last = record(ledger).examined
    assert isinstance(last, Examined)
    assert (last.duration_ms, last.performance, last.coordinator) == (2_000, (PERFORMANCE,), COORDINATOR.address)


def test_speed_is_what_the_log_saw() -> None:
    """Operations over the time between the two blocks, rounded down; no time at all counts as a millisecond."""
    shape = ExamShape(inner=8_192, columns=2_048, min_rows=1)
    answer = ExamAnswer(gpu=GPU, rows=65_536, root=ROOT)
    assert performance_of(answer, shape, 3_000) == 2 * 65_536 * 8_192 * 2_048 // (3 * 10**9)
    assert performance_of(answer, shape, 0) == performance_of(answer, shape, 1)


@pytest.mark.parametrize(("times", "score"), [(1, 100), (2, 40), (10, 20)])
def test_a_slow_answer_is_capped(times: int, score: int) -> None:
    """More than twice slower than such a card does: 40 points, more than ten times: 20, though every row is right."""
    ledger = examined(trusting(claimed()), verdict(expected=times * PERFORMANCE + 1))
    assert worth(ledger).score == score


def test_all_miners_of_an_exam_have_one_window() -> None:
    """One event examines several miners at the same time, under one seed."""
    ledger = trusting(registered(SECOND_MINER), claimed(), claimed(SECOND_MINER, evidence=host(gpu(SECOND_GPU))))
    ledger.when(opened(MINER, SECOND_MINER)).then()
    first, second = record(ledger).examination, record(ledger, SECOND_MINER).examination
    assert first == second


def test_one_claim_in_vain_spoils_the_opening_for_all() -> None:
    """Either all named miners are in the exam, or none."""
    ledger = trusting(registered(SECOND_MINER), claimed())
    ledger.when(opened(MINER, SECOND_MINER)).then(NothingClaimed(miner=SECOND_MINER.address))
    assert record(ledger).examination is UNSET


@pytest.mark.parametrize(
    ("before", "event", "refusal"),
    [
        ((), claimed(BOB), UnknownMiner(miner=BOB.address)),
        ((), claimed(evidence=host(gpu(), gpu())), DuplicateEntry(entry=GPU)),
        ((claimed(),), opened(sender=MINER), NotCoordinator(sender=MINER.address)),
        ((claimed(),), opened(MINER, MINER), DuplicateEntry(entry=MINER.address)),
        ((), opened(), NothingClaimed(miner=MINER.address)),
        ((claimed(evidence=replace(host(), gpus=())),), opened(), NothingClaimed(miner=MINER.address)),
        ((claimed(),), answered(), UnknownExam(miner=MINER.address, exam=NO_EXAM)),
        ((claimed(),), shown(), UnknownExam(miner=MINER.address, exam=NO_EXAM)),
        ((claimed(),), judged(), UnknownExam(miner=MINER.address, exam=NO_EXAM)),
        ((claimed(), opened()), judged(sender=BOB), NotCoordinator(sender=BOB.address)),
        (
            (claimed(), opened()),
            answered(answers=answers(SECOND_GPU)),
            WrongAnswers(detail=f"{SECOND_GPU} is not expected here"),
        ),
        (
            (claimed(evidence=BOTH), opened()),
            answered(answers=answers(SECOND_GPU, GPU)),
            WrongAnswers(detail=f"{GPU} is not expected here"),
        ),
        (
            (claimed(), opened()),
            answered(answers=answers(rows=15)),
            WrongAnswers(detail="15 rows, at least 16 are asked for"),
        ),
        (
            (claimed(), opened()),
            answered(answers=answers(memory_mib=5)),
            WrongAnswers(detail="memory_mib and memory_root go together"),
        ),
        (
            (claimed(), opened(), answered()),
            shown(openings=openings(SECOND_GPU)),
            WrongAnswers(detail=f"{SECOND_GPU} is not expected here"),
        ),
        (
            (claimed(), opened(), answered()),
            shown(openings=openings(fill=ROOT)),
            WrongAnswers(detail="fill and fill_size go together"),
        ),
        (
            (claimed(), opened(), answered(), shown()),
            judged(MINER, verdict(SECOND_GPU)),
            WrongAnswers(detail="the verdict has other GPUs than the claim"),
        ),
        (
            (claimed(evidence=BOTH), opened(), answered(), shown()),
            judged(MINER, verdict(), verdict(SECOND_GPU)),
            WrongAnswers(detail=f"{SECOND_GPU} has opened nothing and cannot be right"),
        ),
    ],
)
def test_what_cannot_be_said_of_an_exam(before: tuple[Saying, ...], event: Saying, refusal: Refusal) -> None:
    """Each refusal names what does not fit."""
    trusting(*before).when(event).then(refusal)


def _in_exam(ledger: Ledger, kind: str) -> Refusal:
    exam = exam_of(ledger)
    if kind == "underway":
        return ExamUnderway(miner=MINER.address, exam=exam)
    return WrongExamStage(exam=exam, stage=kind)


@pytest.mark.parametrize(
    ("before", "event", "kind"),
    [
        ((opened(),), claimed(), "underway"),
        ((opened(),), opened(), "underway"),
        ((opened(),), shown(), "opened"),
        ((opened(),), judged(), "opened"),
        ((opened(), answered()), answered(), "committed"),
        ((opened(), answered()), judged(), "committed"),
        ((opened(), answered(), shown()), shown(), "revealed"),
        ((opened(), answered(), shown()), answered(), "revealed"),
    ],
)
def test_each_stage_comes_once_and_in_order(before: tuple[Saying, ...], event: Saying, kind: str) -> None:
    """Nothing can be said twice, early, or in between; and no verdict comes before there is something to judge."""
    ledger = trusting(claimed(), *before)
    ledger.when(event).then(_in_exam(ledger, kind))


@pytest.mark.parametrize(("before", "event"), [((), answered()), ((answered(),), shown())])
def test_a_late_answer_counts_as_none(before: tuple[Saying, ...], event: Saying) -> None:
    """At the deadline the exam is over; the verdict can then be said, and only that it is missing."""
    ledger = trusting(claimed(), opened(), *before)
    examination = record(ledger).examination
    assert isinstance(examination, Examination)
    deadline_ms = examination.deadline_ms
    ledger.when(event, after_ms=deadline_ms - ledger.time_ms)
    ledger.then(ExamOver(exam=examination.exam, deadline_ms=deadline_ms, now_ms=deadline_ms))
    ledger.when(judged()).then(WrongAnswers(detail=f"{GPU} has opened nothing and cannot be right"))
    ledger.when(judged(MINER, verdict(result="late" if before else "absent"))).then()
    assert worth(ledger).score == 40


def test_a_missed_exam_takes_the_score_away() -> None:
    """A miner that was measured and does not answer the next exam is back at 40."""
    ledger = examined(trusting(claimed()))
    assert worth(ledger).score == 100
    ledger.when(opened(cause="spot")).then().wait(10_000)
    ledger.when(judged(MINER, verdict(result="absent"))).then()
    assert worth(ledger).score == 40
    assert (record(ledger).previous, worth(ledger).performance) == (PERFORMANCE, 0)


def test_the_same_host_keeps_its_verdict() -> None:
    """A claim with another block and other energy says nothing new; one with another card has to be examined."""
    ledger = examined(trusting(claimed()))
    since_ms = record(ledger).since_ms
    ledger.when(claimed(evidence=replace(host(), height=9, block=ROOT, lists=ROOT))).then()
    assert (worth(ledger).score, record(ledger).since_ms) == (100, since_ms)
    ledger.when(claimed(evidence=host(gpu(), gpu(SECOND_GPU)))).then()
    assert (worth(ledger).score, record(ledger).examined) == (40, UNSET)
    assert record(ledger).since_ms == ledger.time_ms


def test_the_first_to_claim_a_gpu_keeps_it() -> None:
    """A second miner with the same UUID is capped, whichever of the two is judged first."""
    for order in ((MINER, SECOND_MINER), (SECOND_MINER, MINER)):
        ledger = trusting(claimed(), registered(SECOND_MINER), claimed(SECOND_MINER))
        for miner in order:
            examined(ledger, miner=miner)
        assert (worth(ledger).score, worth(ledger, SECOND_MINER).score) == (100, 40)
        assert [cap.code for cap in scores_of(record(ledger, SECOND_MINER))[0].caps] == ["SHARED"]


def test_who_only_claims_a_gpu_takes_it_from_nobody() -> None:
    """Without a right exam a claim to somebody's UUID does no harm."""
    ledger = trusting(claimed(), registered(SECOND_MINER), claimed(SECOND_MINER))
    examined(ledger, miner=SECOND_MINER)
    assert worth(ledger, SECOND_MINER).score == 100


TERMS: list[tuple[dict[str, int], Refusal]] = [
    ({"min_score": 70}, NotAttested(miner=MINER.address, needed=70, score=40)),
    ({"min_memory_mib": 16_384}, RequirementNotMet(miner=MINER.address, needed_mib=16_384, available_mib=0)),
    ({"min_performance": 1_000}, PerformanceTooLow(miner=MINER.address, needed=1_000, available=0)),
]


@pytest.mark.parametrize(("terms", "refusal"), TERMS)
def test_a_chain_lets_only_measured_miners_work(terms: dict[str, int], refusal: Refusal) -> None:
    """Points, memory and speed are asked for by the genesis; an exam gives them."""
    ledger = trusting(claimed(), submitted(), **terms)
    ledger.when(assigned()).then(refusal)
    examined(ledger).when(assigned()).then()


@pytest.mark.parametrize(
    ("filled", "needed", "available"),
    [(0, 16_384, 0), (13_107, 16_384, 16_383), (20_000, 500_000, 25_000), (115_000, 500_000, 142_655)],
)
def test_only_filled_memory_counts_where_the_chain_asks_for_it(filled: int, needed: int, available: int) -> None:
    """A device that a registration invents gets no job that needs it, nor does memory that sources grant and no exam
    has filled; elsewhere the registration's word is enough."""
    wanted = submitted(requirement=Requirement(memory_mib=500_000))
    invented, found = registered(memory_mib=900_000), verdict(expected=PERFORMANCE, memory_mib=filled)
    examined(trusting(claimed(), invented, wanted), found).when(assigned()).then()
    ledger = examined(trusting(claimed(), invented, wanted, min_memory_mib=16_384), found)
    ledger.when(assigned()).then(RequirementNotMet(miner=MINER.address, needed_mib=needed, available_mib=available))


def test_enough_filled_memory_is_enough() -> None:
    """What was filled vouches for a quarter more: 13,108 MiB for 16,385."""
    wanted = submitted(requirement=Requirement(memory_mib=16_385))
    ledger = trusting(claimed(), registered(memory_mib=900_000), wanted, min_memory_mib=16_384)
    examined(ledger, verdict(expected=PERFORMANCE, memory_mib=13_108)).when(assigned()).then()


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({"score": 50}, NotAttested(miner=MINER.address, needed=50, score=40)),
        ({"grade": "M"}, GradeTooLow(miner=MINER.address, needed="M", grade="C")),
    ],
)
def test_a_job_may_ask_for_points_and_a_grade(asked: dict[str, Any], refusal: Refusal) -> None:
    """Where the chain asks for nothing, the client can."""
    ledger = trusting(claimed(), submitted(requirement=Requirement(memory_mib=0, **asked)))
    ledger.when(assigned()).then(refusal)
    examined(ledger).when(assigned()).then()


def test_a_better_grade_is_good_enough() -> None:
    """C, M and H ascend."""
    ledger = examined(trusting(claimed()), verdict(hardware=True, expected=0))
    ledger.when(submitted(requirement=Requirement(memory_mib=0, grade="M"))).then().when(assigned()).then()


@pytest.mark.parametrize(("event", "feature"), [(claimed(), "attestation"), (opened(), "exams"), (answered(), "exams")])
def test_a_chain_without_trust_parameters_has_no_exams(event: Saying, feature: str) -> None:
    """The genesis decides."""
    given(registered()).when(event).then(NotEnabled(feature=feature))


def test_the_state_is_the_same_from_its_rows() -> None:
    """Attestations are rows of the state like all else, sorted among them, and can be proven."""
    ledger = examined(trusting(claimed()))
    rows = list(ledger.state.rows())
    assert [key for key, _ in rows] == sorted(key for key, _ in rows)
    again = State.from_rows(ledger.state.genesis, reversed(rows))
    assert again.root() == ledger.state.root()
    assert again.attestation(MINER.address) == record(ledger)
    assert again.attestations() == ledger.state.attestations()
    found = again.prove(f"attestation/{MINER.address}")
    assert found.value is not UNSET
    assert standing_of(again.miners()[MINER.address]).attested == worth(ledger)
