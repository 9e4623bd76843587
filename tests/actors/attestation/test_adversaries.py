"""Every way to be taken for a GPU that we know of, with the score that it reaches; and an honest card beside them."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.attestation.judge import Submission, judge
from actors.attestation.lists import ListedDevice, shipped
from actors.attestation.probe import probe
from actors.profiles import MAINNET, TESTNET
from projections.attestation import CAPS, GpuScore, attested, scores_of
from projections.bonds import untrustworthy
from schemas.attestation import GpuEvidence, HostEvidence, Liveness, SourceReport
from schemas.genesis import Trust
from schemas.refusals import NotAttested, PerformanceTooLow, Refusal, RequirementNotMet
from schemas.state import Attestation, Examined, Miner, Standing
from tests.actors.attestation.mock_host import HOST_MOUNTS, UUID, kernel_trees, libraries, needs_compiler, places
from tests.actors.attestation.small_exam import (
    EXAM,
    FORGERIES,
    MINER,
    cheated,
    filled,
    honest_sitting,
    lazy,
    setup,
    submission,
)

BLOCK = "5b" * 32
COORDINATOR = "U" + "C" * 55
LISTS = shipped()
# What a real H200 would do in the exam's window: 0.37 of its peak, the most that was estimated. And what a large server
# processor does, and a small one.
H200_RATE = 732_000
SERVER_RATE = 20_000
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


def refused(found: Attestation, trust: Trust, *, has_memory: bool = False) -> Refusal | None:
    """Why a chain of this profile gives no jobs to a miner with enough of a bond; with ``has_memory`` memory aside,
    for a server has enough of it to fill."""
    sums = attested(found)
    if has_memory:
        sums = msgspec.structs.replace(sums, memory_mib=trust.min_memory_mib)
    standing = Standing(attested=sums, bond=trust.min_bond)
    miner = Miner(name="m", capacity=1, devices=(), offers=(), registered_ms=0, standing=standing)
    return untrustworthy(trust, MINER, miner)


@pytest.fixture(scope="module")
def right() -> Submission:
    return submission(honest_sitting())


@needs_compiler
def test_an_honest_card_scores_full_points(tmp_path: Path, right: Submission) -> None:
    """A host whose four sources agree, with a right exam at the rate of its card, has 100 points and is measured; of
    its memory that counts which it has filled, and a quarter more."""
    proc, sys = kernel_trees(tmp_path)
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    claimed = found.evidence(1, BLOCK, LISTS.digest())
    score = scored(claimed, filled(right, 4))
    assert (score.score, score.grade, score.performance) == (100, "M", H200_RATE)
    assert (score.filled_mib, score.memory_mib) == (4, 5)
    assert refused(attestation(claimed, filled(right, 4)), MAINNET, has_memory=True) is None


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


def emulated(name: str, device_id: str, capability: str, memory_mib: int) -> HostEvidence:
    """Perfect evidence of any card, as anybody could write it down."""
    nvml = report(name=name, device_id=device_id, compute_capability=capability, memory_mib=memory_mib)
    sysfs = SourceReport(vendor_id="10de", device_id=device_id, bus_id="0000:17:00.0", driver_version="570.86.15")
    return evidence(GpuEvidence(uuid=UUID, nvml=nvml, sysfs=sysfs))


CARDS: dict[str, tuple[str, str, str, int]] = {
    "H200": ("NVIDIA H200", "2335", "9.0", 143_771),
    "A100": ("NVIDIA A100-SXM4-80GB", "20b2", "8.0", 81_920),
    "RTX 4090": ("NVIDIA GeForce RTX 4090", "2684", "8.9", 24_564),
    "RTX 3090": ("NVIDIA GeForce RTX 3090", "2204", "8.6", 24_576),
    "an invented GB300": ("NVIDIA GB300", "31c2", "10.3", 143_771),
    "an invented card": ("NVIDIA Something", "0001", "9.0", 143_771),
    "RTX 3060": ("NVIDIA GeForce RTX 3060", "2503", "8.6", 12_288),
    "V100": ("Tesla V100-SXM2-32GB", "1db5", "7.0", 32_768),
}


@pytest.mark.parametrize(
    ("card", "rate", "code", "points"),
    [
        ("H200", SERVER_RATE, "TOO_SLOW", 20),
        ("A100", SERVER_RATE, "SLOW", 40),
        ("RTX 4090", SERVER_RATE, "SLOW", 40),
        ("RTX 3090", SERVER_RATE, "SLOW", 40),
        ("an invented GB300", SERVER_RATE, "SLOW", 40),
        ("an invented card", SERVER_RATE, "SLOW", 40),
        *((card, CPU_RATE, "TOO_SLOW", 20) for card in CARDS),
    ],
)
def test_a_processor_is_too_slow_for_a_card(card: str, rate: int, code: str, points: int, right: Submission) -> None:
    """CPU emulation, by a large server and by a small one: every row is right, and even the weakest card that need not
    be listed is faster."""
    claimed = attestation(emulated(*CARDS[card]), right, rate)
    (score,) = scores_of(claimed)
    assert codes(score) == {code}
    assert score.score == points <= MOST_FOR_AN_ADVERSARY
    assert score.grade == "C"
    for trust in (MAINNET, TESTNET):
        assert refused(claimed, trust, has_memory=True) == NotAttested(
            miner=MINER, needed=trust.min_score, score=points
        )


@pytest.mark.parametrize("device", LISTS.devices, ids=lambda device: f"{device.product} {device.device_id}")
def test_a_processor_is_told_by_its_speed_or_refused(device: ListedDevice, right: Submission) -> None:
    """CPU emulation by a large server of each listed card: too slow, or, where the card's peak is 160 TOPS or less, too
    slow for the main network, which so refuses the card itself as well."""
    name = f"NVIDIA {device.name_has}"
    claimed = attestation(
        emulated(name, device.device_id, device.compute_capability, device.memory_gib * 1_024), right, SERVER_RATE
    )
    peak = device.peak_giga_operations
    assert attested(claimed).score == (100 if peak <= 160_000 else 40 if peak <= 800_000 else 20)
    assert refused(claimed, MAINNET, has_memory=True) is not None


@pytest.mark.parametrize("card", ["V100", "RTX 3060"])
def test_a_processor_as_fast_as_an_old_card_is_refused_by_the_main_network(card: str, right: Submission) -> None:
    """CPU emulation of a card that is no faster than a large server: speed does not tell them apart, so such cards are
    not admitted to the main network either."""
    claimed = attestation(emulated(*CARDS[card]), right, SERVER_RATE)
    assert attested(claimed).score == 100
    assert refused(claimed, MAINNET, has_memory=True) == PerformanceTooLow(
        miner=MINER, needed=MAINNET.min_performance, available=SERVER_RATE
    )
    assert isinstance(refused(claimed, TESTNET), RequirementNotMet)


@pytest.mark.parametrize("driver", [msgspec.UNSET, "570.86.15"], ids=["no driver", "a driver that nothing uses"])
def test_a_processor_is_not_taken_for_a_card(driver: str | msgspec.UnsetType) -> None:
    """A host that declares its processor and passes the exam is graded C and has less than any threshold, whatever
    driver it names and however fast it is."""
    given = submission(honest_sitting(uuid="CPU-1"), uuid="CPU-1")
    score = scored(evidence(GpuEvidence(uuid="CPU-1"), driver_version=driver), given, 10 * SERVER_RATE)
    assert score.grade == "C"
    assert score.score <= MOST_FOR_AN_ADVERSARY


@pytest.mark.parametrize(
    ("names", "caps", "points"),
    [
        (1, set(), 100),
        (2, set(), 100),
        (3, {"SLOW"}, 40),
        (5, {"SLOW"}, 40),
        (18, {"TOO_SLOW"}, 20),
        (40, {"TOO_SLOW"}, 20),
    ],
)
def test_one_card_relaying_for_many_names_is_too_slow(names: int, caps: set[str], points: int) -> None:
    """A card under invented UUIDs answers for all of them in one window, all rows right, and shares its speed: from
    three names on it is too slow for what each claims. Two names pass, with half the speed each."""
    for name in range(names):
        uuid = f"GPU-00000000-0000-4000-8000-{name:012d}"
        card = msgspec.structs.replace(evidence().gpus[0], uuid=uuid, nvml=report(uuid=uuid))
        given = submission(honest_sitting(uuid=uuid), uuid=uuid)
        score = scored(evidence(card), given, H200_RATE // names)
        assert (codes(score), score.score, score.performance) == (caps, points, H200_RATE // names)


def test_one_card_under_two_names_is_seen(right: Submission) -> None:
    """The same UUID under a second address is shared; and a UUID's answer is of no use to another address."""
    score = scored(evidence(), right, shared=(UUID,))
    assert score.score <= MOST_FOR_AN_ADVERSARY
    assert "SHARED" in codes(score)


def test_a_fake_nvidia_smi_is_not_even_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called nvidia-smi on the PATH, of the probe and of its children, claims an H200; no source says so."""
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\ntouch "$(dirname "$0")/was-run"\necho \'NVIDIA H200, 570.86.15\'\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    assert shutil.which("nvidia-smi") == str(fake)
    found = probe(places(tmp_path, None))
    assert found.gpus == ()
    assert not (fake.parent / "was-run").exists()
    subprocess.run(["nvidia-smi"], capture_output=True, check=True)
    assert (fake.parent / "was-run").exists()
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
    """A mock in the driver's own place, with trees that agree: without a card the exam is absent, or too slow."""
    proc, sys = kernel_trees(tmp_path)
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    claimed = found.evidence(1, BLOCK, LISTS.digest())
    absent, slow = scored(claimed, None), scored(claimed, right, SERVER_RATE)
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


def test_missing_sources_give_nothing(right: Submission) -> None:
    """Beside a right exam each missing source takes its points; what no source shows has 40, and is only claimed."""
    gpu = evidence().gpus[0]
    shown = {
        "both": gpu,
        "NVML": msgspec.structs.replace(gpu, sysfs=msgspec.UNSET),
        "sysfs": msgspec.structs.replace(gpu, nvml=msgspec.UNSET),
        "neither": GpuEvidence(uuid=UUID),
    }
    found = {name: scored(evidence(card), right) for name, card in shown.items()}
    assert {name: score.score for name, score in found.items()} == {"both": 100, "NVML": 85, "sysfs": 75, "neither": 40}
    assert {name: score.grade for name, score in found.items()} == {
        "both": "M",
        "NVML": "M",
        "sysfs": "M",
        "neither": "C",
    }


@pytest.mark.parametrize(
    ("field", "points"), [("uuid", 95), ("name", 95), ("memory_mib", 95), ("bus_id", 85), ("vendor_id", 100)]
)
def test_missing_fields_give_nothing(field: str, points: int, right: Submission) -> None:
    """Beside a right exam a field that NVML leaves out takes the points that only it gives."""
    gpu = msgspec.structs.replace(evidence().gpus[0], nvml=report(**{field: None}))
    assert scored(evidence(gpu), right).score == points


def test_a_missing_driver_gives_nothing(right: Submission) -> None:
    """Without a version the driver's 20 points are gone."""
    assert scored(evidence(driver_version=msgspec.UNSET), right).score == 80


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
