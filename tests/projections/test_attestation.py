"""The score: each level, each cap, and what can never happen to it."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from projections.attestation import CAPS, GpuScore, attested, scores_of
from schemas.attestation import GpuEvidence, Liveness, SourceReport
from schemas.state import Attestation, Attested
from tests.projections.attested import CUDA, GPU, LIVE, NVML, SECOND_GPU, attestation, gpu, host, verdict

SYSFS = SourceReport(vendor_id="10de", device_id="2335", bus_id="0000:3b:00.0")


def score(found: Attestation) -> GpuScore:
    (only,) = scores_of(found)
    return only


def points(found: Attestation) -> tuple[int, ...]:
    return tuple(level.points for level in score(found).levels)


def caps(found: Attestation) -> set[str]:
    return {cap.code for cap in score(found).caps}


def test_a_real_card_has_all_points() -> None:
    """Two sources that agree, a listed driver, a right exam and a fresh claim: 100 points, measured."""
    found = score(attestation())
    assert (found.score, found.grade, found.caps) == (100, "M", ())
    assert (found.memory_mib, found.performance) == (142_655, 500_000)


def test_a_real_card_in_a_container_has_ninety() -> None:
    """A driver that no list has, and two sources left of four, still make 90."""
    assert score(attestation(driver="plausible")).score == 90


def test_before_its_first_exam_a_card_has_forty() -> None:
    """Nothing that a miner says of itself is worth more."""
    found = attestation(examined=False)
    assert points(found) == (10, 0, 30, 0, 5)
    assert (score(found).score, score(found).grade, caps(found)) == (40, "C", {"EXAM_ABSENT"})
    assert (score(found).memory_mib, score(found).performance) == (0, 0)


LEVELS: list[tuple[str, int, Attestation, int]] = [
    ("no source", 1, attestation(host(GpuEvidence(uuid=GPU))), 0),
    ("only a place", 1, attestation(host(GpuEvidence(uuid=GPU, sysfs=SYSFS))), 0),
    ("no memory", 1, attestation(host(gpu(nvml=UNSET, cuda=replace(CUDA, memory_mib=UNSET)))), 5),
    ("listed driver", 2, attestation(driver="listed"), 20),
    ("plausible driver", 2, attestation(driver="plausible"), 10),
    ("unknown driver", 2, attestation(driver="unknown"), 0),
    ("impossible driver", 2, attestation(driver="implausible"), 0),
    ("covered driver", 2, attestation(host(preloaded=("/tmp/fake.so",))), 0),
    ("one source", 3, attestation(host(gpu(cuda=UNSET))), 15),
    ("three sources", 3, attestation(host(gpu(sysfs=SYSFS))), 30),
    ("another place", 3, attestation(host(gpu(cuda=replace(CUDA, bus_id="0000:3c:00.0")))), 0),
    ("another id", 3, attestation(host(gpu(cuda=UNSET, sysfs=replace(SYSFS, device_id="2684")))), 0),
    ("an impossible card", 3, attestation(None, verdict(device="implausible")), 0),
    ("wrong", 4, attestation(None, verdict(result="wrong")), 0),
    ("malformed", 4, attestation(None, verdict(result="malformed")), 0),
    ("absent", 4, attestation(None, verdict(result="absent")), 0),
    ("late", 4, attestation(None, verdict(result="late")), 0),
    ("stale", 5, attestation(fresh=False), 0),
]


@pytest.mark.parametrize(
    ("level", "found", "expected"), [case[1:] for case in LEVELS], ids=[case[0] for case in LEVELS]
)
def test_each_level_gives_what_it_says(level: int, found: Attestation, expected: int) -> None:
    """The points of one level, and a sentence with the raw value."""
    shown = score(found).levels[level - 1]
    assert (shown.number, shown.points) == (level, expected)
    assert shown.points <= shown.most
    assert shown.sentence.endswith(".")
    assert shown.raw
    assert shown.threshold


FAULTS: list[tuple[str, str, Attestation]] = [
    ("absent", "EXAM_ABSENT", attestation(None, verdict(result="absent"))),
    ("late", "EXAM_ABSENT", attestation(None, verdict(result="late"))),
    ("wrong", "EXAM_WRONG", attestation(None, verdict(result="wrong"))),
    ("malformed answer", "EXAM_WRONG", attestation(None, verdict(result="malformed"))),
    ("ten times too slow", "TOO_SLOW", attestation(performance=39_999)),
    ("not quite ten times", "SLOW", attestation(performance=40_000)),
    ("twice too slow", "SLOW", attestation(performance=199_999)),
    ("malformed evidence", "MALFORMED", attestation(host(malformed=("nvml.name of device 0",)))),
    ("preloaded", "DRIVER_COVERED", attestation(host(preloaded=("/tmp/libnvidia-ml.so.1",)))),
    ("overlaid", "DRIVER_COVERED", attestation(host(overlaid=("/proc/driver/nvidia",)))),
    ("impossible card", "IMPLAUSIBLE", attestation(None, verdict(device="implausible"))),
    ("impossible driver", "IMPLAUSIBLE", attestation(driver="implausible")),
    ("replayed evidence", "NOT_FRESH", attestation(fresh=False)),
    ("somebody else's", "SHARED", attestation(shared=(GPU,))),
    ("two names", "CONTRADICTION", attestation(host(gpu(cuda=replace(CUDA, name="NVIDIA A100"))))),
    ("two sizes", "CONTRADICTION", attestation(host(gpu(cuda=replace(CUDA, memory_mib=81_920))))),
    ("two places", "CONTRADICTION", attestation(host(gpu(cuda=replace(CUDA, bus_id="0000:3c:00.0"))))),
    ("two ids", "CONTRADICTION", attestation(host(gpu(sysfs=replace(SYSFS, device_id="2684"))))),
    ("two UUIDs", "CONTRADICTION", attestation(host(gpu(cuda=replace(CUDA, uuid=SECOND_GPU))))),
    ("another UUID", "CONTRADICTION", attestation(host(replace(gpu(), uuid=SECOND_GPU)))),
    ("two drivers", "CONTRADICTION", attestation(host(gpu(nvml=replace(NVML, driver_version="535.1"))))),
    ("energy backwards", "CONTRADICTION", attestation(host(gpu(live=replace(LIVE, energy_before_mj=1_200_001))))),
    ("no energy", "CONTRADICTION", attestation(host(gpu(live=replace(LIVE, energy_after_mj=299_999))))),
    ("too much energy", "CONTRADICTION", attestation(host(gpu(live=replace(LIVE, energy_after_mj=4_800_001))))),
]


@pytest.mark.parametrize(("code", "found"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_each_fault_holds_the_sum_down(code: str, found: Attestation) -> None:
    """The cap is named, no score is above it, and a card with a fault is never more than claimed."""
    assert caps(found) >= {code}
    assert score(found).score <= CAPS[code] <= 50
    assert score(found).grade == "C"
    assert all(cap.sentence.endswith(".") for cap in score(found).caps)


HARMLESS: list[tuple[str, Attestation]] = [
    ("just fast enough", attestation(performance=200_000)),
    ("nothing expected", attestation(None, verdict(expected=0), performance=1)),
    ("NVIDIA left out", attestation(host(gpu(cuda=replace(CUDA, name="H200"))))),
    ("a little less memory", attestation(host(gpu(cuda=replace(CUDA, memory_mib=136_583))))),
    ("alive", attestation(host(gpu(live=LIVE)))),
    ("too short to tell", attestation(host(gpu(live=replace(LIVE, elapsed_ms=499, energy_after_mj=0))))),
    ("no counter", attestation(host(gpu(live=Liveness(elapsed_ms=2_000, own_process=False))))),
    ("another's is shared", attestation(shared=(SECOND_GPU,))),
]


@pytest.mark.parametrize("found", [case[1] for case in HARMLESS], ids=[case[0] for case in HARMLESS])
def test_what_an_honest_card_may_show_costs_nothing(found: Attestation) -> None:
    """What differs on honest hosts takes no points."""
    assert score(found).score == 100


def test_a_miner_is_worth_its_worst_card() -> None:
    """Score, grade, memory and speed are the lowest of all claimed cards."""
    both = host(gpu(), gpu(SECOND_GPU))
    found = attested(attestation(both, verdict(hardware=True), verdict(SECOND_GPU, result="wrong")))
    assert found == Attested(score=40, grade="C", memory_mib=0, performance=0, examined_ms=3_000)
    found = attested(attestation(both, verdict(hardware=True), verdict(SECOND_GPU)))
    assert (found.score, found.grade) == (100, "M")
    assert attested(attestation(host(gpus=()))) == Attested(score=0, grade="C", examined_ms=3_000)


@pytest.mark.parametrize("driver", ["unknown", "plausible", "listed"])
def test_a_processor_is_honestly_low(driver: str) -> None:
    """A device without any source has a right exam and a signature, which is 40 points, and is only claimed; the
    version of a driver that nothing shows in use adds nothing, and no memory counts."""
    found = score(attestation(host(GpuEvidence(uuid="CPU-0")), driver=driver))
    assert (found.score, found.grade, found.performance, found.memory_mib) == (40, "C", 500_000, 0)


def test_memory_is_what_filling_vouches_for() -> None:
    """Sources that grant more than was filled, with a quarter of room, are not believed; nothing filled is nothing."""
    for filled, counted in ((120_000, 142_655), (114_124, 142_655), (114_123, 142_653), (20_000, 25_000), (0, 0)):
        found = attestation(None, verdict(memory_mib=filled))
        assert (score(found).filled_mib, score(found).memory_mib) == (filled, counted)
        assert attested(found).memory_mib == counted
    assert score(attestation(None, verdict(result="wrong"))).filled_mib == 0


def test_the_hardware_can_vouch() -> None:
    """With a confidential-computing report, and nothing found against it, the grade is H."""
    assert score(attestation(None, verdict(hardware=True))).grade == "H"
    assert score(attestation(host(overlaid=("/sys",)), verdict(hardware=True))).grade == "C"


lanes = st.sampled_from(("listed", "plausible", "unknown", "implausible"))
results = st.sampled_from(("right", "wrong", "malformed", "absent", "late"))
reports = st.one_of(
    st.just(UNSET),
    st.builds(
        SourceReport,
        uuid=st.sampled_from((UNSET, GPU, SECOND_GPU)),
        name=st.sampled_from((UNSET, "NVIDIA H200", "H200", "NVIDIA A100")),
        bus_id=st.sampled_from((UNSET, "0000:3b:00.0", "0000:3c:00.0")),
        device_id=st.sampled_from((UNSET, "2335", "2684")),
        memory_mib=st.one_of(st.just(UNSET), st.integers(0, 200_000)),
    ),
)
cards = st.builds(GpuEvidence, uuid=st.just(GPU), nvml=reports, cuda=reports, sysfs=reports, procfs=reports)
paths = st.sampled_from(((), ("/x",)))


@st.composite
def records(draw: Callable[..., Any]) -> Attestation:
    evidence = host(draw(cards), preloaded=draw(paths), overlaid=draw(paths), malformed=draw(paths))
    given_verdict = verdict(result=draw(results), device=draw(lanes), expected=draw(st.integers(0, 10**6)))
    return attestation(
        evidence,
        given_verdict,
        performance=draw(st.integers(0, 10**6)),
        shared=draw(st.sampled_from(((), (GPU,)))),
        fresh=draw(st.booleans()),
        driver=draw(lanes),
        examined=draw(st.booleans()),
    )


@settings(max_examples=300)
@given(records())
def test_the_score_is_the_sum_of_the_levels_under_the_caps(found: Attestation) -> None:
    """For any record: within bounds, held by every cap, and above 40 only with a right exam."""
    shown = score(found)
    total = sum(level.points for level in shown.levels)
    assert [level.most for level in shown.levels] == [10, 20, 30, 30, 10]
    assert all(0 <= level.points <= level.most for level in shown.levels)
    assert shown.score == min([total, *(CAPS[cap.code] for cap in shown.caps)])
    if shown.levels[3].points == 0:
        assert shown.score <= 40
        assert (shown.memory_mib, shown.performance) == (0, 0)
    assert (shown.grade == "C") >= bool(shown.caps)
    assert score(found) == shown


@settings(max_examples=300)
@given(records(), st.sampled_from(("preloaded", "overlaid", "malformed")))
def test_no_fault_more_can_raise_a_score(found: Attestation, field: str) -> None:
    """Evidence of one more fault never adds points, and a wrong result leaves 40 at most."""
    worse = replace(found, evidence=replace(found.evidence, **{field: ("/more",)}))
    assert score(worse).score <= score(found).score
    if found.examined is not UNSET:
        wrong = replace(found.examined.verdict, gpus=(replace(found.examined.verdict.gpus[0], result="wrong"),))
        assert score(replace(found, examined=replace(found.examined, verdict=wrong))).score <= 40


@settings(max_examples=200)
@given(records(), st.sampled_from(("nvml", "cuda", "sysfs", "procfs")))
def test_a_silent_source_proves_nothing(found: Attestation, source: str) -> None:
    """Without one source the levels give no more points; only a contradiction can go away with it."""
    silent = replace(found.evidence.gpus[0], **{source: UNSET})
    without = score(replace(found, evidence=replace(found.evidence, gpus=(silent,))))
    shown = score(found)
    if "CONTRADICTION" not in {cap.code for cap in shown.caps}:
        assert without.score <= shown.score
