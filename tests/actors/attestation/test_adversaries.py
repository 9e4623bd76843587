"""Every way to be taken for a GPU that we know of, with the score that it reaches; and an honest card beside them."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.attestation.judge import Submission, judge
from actors.attestation.lists import shipped
from actors.attestation.probe import probe
from projections.attestation import CAPS, GpuScore, attested, scores_of
from schemas.attestation import GpuEvidence, HostEvidence, Liveness, SourceReport
from schemas.state import Attestation, Examined
from tests.actors.attestation.mock_host import HOST_MOUNTS, UUID, kernel_trees, libraries, needs_compiler, places
from tests.actors.attestation.small_exam import (
    EXAM,
    FORGERIES,
    MINER,
    cheated,
    honest_sitting,
    lazy,
    setup,
    submission,
)

BLOCK = "5b" * 32
COORDINATOR = "U" + "C" * 55
LISTS = shipped()
# What a real H200 would do in the exam's window, and what a processor does.
H200_RATE = 900_000
CPU_RATE = 60
MOST_FOR_AN_ADVERSARY = 40


def report(**changes: Any) -> SourceReport:
    """What NVML says of an H200."""
    facts: dict[str, Any] = {
        "uuid": UUID,
        "name": "NVIDIA H200",
        "vendor_id": "10de",
        "device_id": "2335",
        "bus_id": "0000:17:00.0",
        "memory_mib": 143_771,
        "compute_capability": "9.0",
        "driver_version": "570.86.15",
    }
    return SourceReport(**{name: value for name, value in (facts | changes).items() if value is not None})


def evidence(gpu: GpuEvidence | None = None, **changes: Any) -> HostEvidence:
    """Evidence of a host with one H200, as anybody could write it down."""
    sysfs = SourceReport(vendor_id="10de", device_id="2335", bus_id="0000:17:00.0", driver_version="570.86.15")
    card = gpu or GpuEvidence(uuid=UUID, nvml=report(), sysfs=sysfs)
    facts: dict[str, Any] = {"height": 1, "block": BLOCK, "driver_version": "570.86.15", "gpus": (card,)}
    return HostEvidence(**(facts | changes))


def attestation(
    claimed: HostEvidence,
    given: Submission | None,
    rate: int = H200_RATE,
    *,
    fresh: bool = True,
    shared: tuple[str, ...] = (),
) -> Attestation:
    """What the log holds after an exam in which the claimed GPU gave this, at this rate by the block times."""
    submissions = {} if given is None else {given.answer.gpu: given}
    verdict = judge(MINER, EXAM, setup(), claimed, submissions, LISTS, fresh=fresh)
    performance = tuple(rate if gpu.result == "right" else 0 for gpu in verdict.gpus)
    examined = Examined(
        verdict=verdict,
        cause="first",
        coordinator=COORDINATOR,
        opened_ms=1_000,
        judged_ms=9_000,
        judged_height=5,
        duration_ms=2_000,
        performance=performance,
        shared=shared,
    )
    return Attestation(evidence=claimed, since_ms=0, claimed_ms=0, claimed_height=1, examined=examined)


def scored(*arguments: Any, **options: Any) -> GpuScore:
    (score,) = scores_of(attestation(*arguments, **options))
    return score


def codes(score: GpuScore) -> set[str]:
    return {cap.code for cap in score.caps}


@pytest.fixture(scope="module")
def right() -> Submission:
    return submission(honest_sitting())


@needs_compiler
def test_an_honest_card_scores_full_points(tmp_path: Path, right: Submission) -> None:
    """A host whose four sources agree, with a right exam at the rate of its card, has 100 points and is measured."""
    proc, sys = kernel_trees(tmp_path)
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    score = scored(found.evidence(1, BLOCK, LISTS.digest()), right)
    assert (score.score, score.grade, score.performance) == (100, "M", H200_RATE)
    assert score.memory_mib >= 140_000


def test_an_honest_card_in_a_container_scores_ninety(right: Submission) -> None:
    """Two sources are enough: NVML and sysfs, without procfs and CUDA."""
    assert scored(evidence(), right).score >= 90


def test_a_new_card_is_admitted_while_nobody_has_listed_it(right: Submission) -> None:
    """A card and a driver that the lists do not know, and against which nothing speaks, reach 90 points."""
    sysfs = SourceReport(vendor_id="10de", device_id="31c2", bus_id="0000:17:00.0", driver_version="570.999.01")
    nvml = report(name="NVIDIA GB300", device_id="31c2", compute_capability="10.3", driver_version="570.999.01")
    claimed = evidence(GpuEvidence(uuid=UUID, nvml=nvml, sysfs=sysfs), driver_version="570.999.01")
    assert scored(claimed, right).score >= 90


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_products_are_wrong(name: str) -> None:
    """Hankel, rank 1, lower precision, 2**31, range: with perfect evidence, still 40 at most."""
    score = scored(evidence(), cheated(FORGERIES[name]))
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "EXAM_WRONG" in codes(score)


def test_lazy_rows_are_wrong() -> None:
    """A tenth of the rows skipped."""
    score = scored(evidence(), cheated(lazy(0.1)))
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "EXAM_WRONG" in codes(score)


@pytest.mark.parametrize("other", ["epoch", "miner", "device"])
def test_replayed_answers_are_wrong(other: str) -> None:
    """The right answer of another exam, another miner, or another card."""
    sittings: dict[str, Callable[[], Any]] = {
        "epoch": lambda: honest_sitting(epoch="ee" * 32),
        "miner": lambda: honest_sitting(miner="U" + "B" * 55),
        "device": lambda: honest_sitting(uuid="GPU-another"),
    }
    score = scored(evidence(), submission(sittings[other]()))
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "EXAM_WRONG" in codes(score)


def test_a_guessed_challenge_is_wrong() -> None:
    """Rows opened that the challenge does not name."""
    given = submission(honest_sitting(), challenge="cc" * 32)
    assert scored(evidence(), given).score <= MOST_FOR_AN_ADVERSARY


def test_late_answers_are_absent(right: Submission) -> None:
    """A right answer that the log holds after the exam's end."""
    score = scored(evidence(), msgspec.structs.replace(right, late=True))
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "EXAM_ABSENT" in codes(score)


@pytest.mark.parametrize("given", [None, "unopened"])
def test_evidence_without_an_exam_is_worth_little(given: str | None, right: Submission) -> None:
    """Four agreeing sources that anybody can write down, and no answer, or one that is never opened."""
    answer = None if given is None else msgspec.structs.replace(right, opening=None)
    score = scored(evidence(), answer)
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "EXAM_ABSENT" in codes(score)


def test_a_processor_is_too_slow_for_a_card(right: Submission) -> None:
    """CPU emulation: right rows, four thousand times too slow."""
    score = scored(evidence(), right, CPU_RATE)
    assert score.score <= 20
    assert "TOO_SLOW" in codes(score)


@pytest.mark.parametrize(
    ("device_id", "name", "capability"),
    [("1db5", "Tesla V100-SXM2-32GB", "7.0"), ("31c2", "NVIDIA GB300", "10.3"), ("0001", "NVIDIA Something", "9.0")],
)
def test_a_processor_is_too_slow_for_any_card(device_id: str, name: str, capability: str, right: Submission) -> None:
    """CPU emulation of a card whose rate nobody knows, listed or not: even the weakest card is faster."""
    memory = 32_768 if device_id == "1db5" else 143_771
    nvml = report(name=name, device_id=device_id, compute_capability=capability, memory_mib=memory)
    sysfs = SourceReport(vendor_id="10de", device_id=device_id, bus_id="0000:17:00.0", driver_version="570.86.15")
    score = scored(evidence(GpuEvidence(uuid=UUID, nvml=nvml, sysfs=sysfs)), right, CPU_RATE)
    assert score.score <= 20
    assert codes(score) == {"TOO_SLOW"}


def test_a_processor_is_not_taken_for_a_card(right: Submission) -> None:
    """A host that declares its processor and passes the exam is graded C and has less than any threshold."""
    given = submission(honest_sitting(uuid="CPU-1"), uuid="CPU-1")
    score = scored(evidence(GpuEvidence(uuid="CPU-1"), driver_version=msgspec.UNSET), given, CPU_RATE)
    assert score.grade == "C"
    assert score.score <= MOST_FOR_AN_ADVERSARY


def test_a_slow_card_is_not_taken_for_a_fast_one(right: Submission) -> None:
    """Relaying for many names: a card shared by forty of them answers all, more than ten times too slowly."""
    score = scored(evidence(), right, H200_RATE // 40)
    assert score.score <= 20
    assert "TOO_SLOW" in codes(score)


def test_one_card_under_two_names_is_seen(right: Submission) -> None:
    """The same UUID under a second address is shared; and a UUID's answer is of no use to another address."""
    score = scored(evidence(), right, shared=(UUID,))
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "SHARED" in codes(score)


@needs_compiler
def test_a_fake_nvidia_smi_is_not_even_asked(tmp_path: Path) -> None:
    """A program called nvidia-smi on the PATH claims an H200; no source says so."""
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\ntouch "$(dirname "$0")/was-run"\necho \'NVIDIA H200, 570.86.15\'\n')
    fake.chmod(0o755)
    found = probe(places(tmp_path, None, environment={"PATH": f"{fake.parent}:{os.environ['PATH']}"}))
    assert subprocess.run([fake], capture_output=True, check=True).stdout
    (fake.parent / "was-run").unlink()
    assert found.gpus == ()
    assert not (fake.parent / "was-run").exists()
    claimed = attestation(found.evidence(1, BLOCK, LISTS.digest()), None)
    assert attested(claimed).score <= MOST_FOR_AN_ADVERSARY


@needs_compiler
@pytest.mark.parametrize("passes", [False, True], ids=["no card", "a card behind it"])
def test_a_preloaded_nvml_is_held_down(tmp_path: Path, passes: bool, right: Submission) -> None:
    """LD_PRELOAD puts a mock before NVML: 40 at most, even with a right exam."""
    library = libraries(tmp_path / "mock") / "libnvidia-ml.so.1"
    found = probe(places(tmp_path, None, at_home=False, environment={"LD_PRELOAD": str(library)}))
    score = scored(_claimed_h200(found.evidence(1, BLOCK, LISTS.digest())), right if passes else None)
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "DRIVER_COVERED" in codes(score)


def _claimed_h200(claimed: HostEvidence) -> HostEvidence:
    """With a card in it, whether or not the loader let the mock answer."""
    return claimed if claimed.gpus else msgspec.structs.replace(claimed, gpus=evidence().gpus)


@needs_compiler
def test_a_mock_nvml_with_an_agreeing_sysfs_lacks_only_the_card(tmp_path: Path, right: Submission) -> None:
    """A mock in the driver's own place, with trees that agree: without a card the exam is absent, or far too slow."""
    proc, sys = kernel_trees(tmp_path)
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    claimed = found.evidence(1, BLOCK, LISTS.digest())
    absent, slow = scored(claimed, None), scored(claimed, right, CPU_RATE)
    assert absent.score <= MOST_FOR_AN_ADVERSARY
    assert slow.score <= 20


@needs_compiler
def test_a_procfs_overlay_is_held_down(tmp_path: Path, right: Submission) -> None:
    """A directory mounted over the kernel module's account: 40 at most, even with a right exam."""
    proc, sys = kernel_trees(tmp_path)
    line = "90 22 254:0 /tmp/fake /proc/driver/nvidia rw,relatime - ext4 /dev/vda rw\n"
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys, mounts=HOST_MOUNTS + line))
    score = scored(found.evidence(1, BLOCK, LISTS.digest()), right)
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "DRIVER_COVERED" in codes(score)


@needs_compiler
def test_sources_that_contradict_each_other_are_held_down(tmp_path: Path, right: Submission) -> None:
    """A mock that claims an H200 over the sysfs of a T4 has 50 points at most; without a card's rate, 20."""
    proc, sys = kernel_trees(tmp_path, device="1eb8")
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    claimed = found.evidence(1, BLOCK, LISTS.digest())
    score = scored(claimed, right)
    assert score.score <= CAPS["CONTRADICTION"]
    assert "CONTRADICTION" in codes(score)
    assert scored(claimed, None).score <= MOST_FOR_AN_ADVERSARY


@pytest.mark.parametrize(
    "change",
    [
        {"device_id": "2204"},
        {"name": "NVIDIA A100-SXM4-80GB"},
        {"compute_capability": "8.0"},
        {"memory_mib": 24_000},
        {"vendor_id": "1002"},
        {"multiprocessors": 900},
    ],
)
def test_a_card_that_cannot_be_is_held_down(change: dict[str, Any], right: Submission) -> None:
    """Ids, name and abilities that do not belong together."""
    gpu = GpuEvidence(uuid=UUID, nvml=report(**change))
    score = scored(evidence(gpu), right)
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "IMPLAUSIBLE" in codes(score)


def test_malformed_values_are_held_down(right: Submission) -> None:
    """Something that a source said fits no field: 40 at most."""
    score = scored(evidence(malformed=("nvml.uuid of device 0",)), right)
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "MALFORMED" in codes(score)


@pytest.mark.parametrize(
    "fields",
    [
        ("nvml", "sysfs"),
        ("sysfs",),
        ("nvml",),
    ],
)
def test_missing_fields_give_nothing(fields: tuple[str, ...]) -> None:
    """Sources that are missing score nothing; without an exam no evidence passes 40."""
    whole = evidence().gpus[0]
    gpu = GpuEvidence(uuid=UUID, **dict.fromkeys(fields, msgspec.UNSET) | {"live": msgspec.UNSET})
    part = msgspec.structs.replace(whole, **dict.fromkeys(fields, msgspec.UNSET))
    assert scored(evidence(gpu), None).score <= scored(evidence(part), None).score <= MOST_FOR_AN_ADVERSARY


def test_a_malformed_answer_is_held_down(right: Submission) -> None:
    """An opening of another size."""
    assert right.opening is not None
    score = scored(evidence(), msgspec.structs.replace(right, opening=right.opening[:-1]))
    assert score.score <= MOST_FOR_AN_ADVERSARY


def test_old_evidence_is_held_down(right: Submission) -> None:
    """Evidence that names no young block of this chain may be another's."""
    score = scored(evidence(), right, fresh=False)
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "NOT_FRESH" in codes(score)


def test_a_counter_that_does_not_fit_the_power_is_seen(right: Submission) -> None:
    """A mock whose energy counter does not follow power and time contradicts itself."""
    live = Liveness(elapsed_ms=4_000, energy_before_mj=1_000_000, energy_after_mj=1_001_000, power_mw=600_000)
    gpu = msgspec.structs.replace(evidence().gpus[0], live=live)
    assert "CONTRADICTION" in codes(scored(evidence(gpu), right))
