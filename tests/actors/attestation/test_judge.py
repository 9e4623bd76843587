"""Where cards and drivers stand by the lists, and what a verdict says."""

from typing import Any

import msgspec
import pytest

from actors.attestation.judge import WEAKEST_PEAK, device_lane, driver_lane, expected_rate, judge
from actors.attestation.lists import ListedDriver, shipped
from schemas.attestation import ExamVerdict, GpuEvidence, HostEvidence, SourceReport
from tests.actors.attestation.small_exam import EXAM, MINER, UUID, filled, honest_sitting, setup, submission

BLOCK = "5b" * 32
LISTS = shipped()


def card(**facts: Any) -> GpuEvidence:
    return GpuEvidence(uuid=UUID, nvml=SourceReport(**facts))


@pytest.mark.parametrize(
    ("facts", "lane"),
    [
        ({"vendor_id": "10de", "device_id": "2335", "name": "NVIDIA H200"}, "listed"),
        ({"vendor_id": "10de", "device_id": "2684", "name": "NVIDIA GeForce RTX 4090", "memory_mib": 24_564}, "listed"),
        ({"vendor_id": "10de", "device_id": "20b2", "name": "NVIDIA A100-SXM4-80GB", "memory_mib": 81_920}, "listed"),
        ({"vendor_id": "10de", "device_id": "2236", "name": "NVIDIA A100"}, "implausible"),
        ({"vendor_id": "10de", "device_id": "2204", "name": "NVIDIA GeForce RTX 3090 Ti"}, "implausible"),
        ({"vendor_id": "10de", "device_id": "2704", "name": "NVIDIA GeForce RTX 4080 SUPER"}, "implausible"),
        ({"vendor_id": "1002", "device_id": "2335"}, "implausible"),
        ({"name": "NVIDIA H200"}, "unknown"),
        ({}, "unknown"),
        ({"vendor_id": "10de", "device_id": "0001"}, "unknown"),
        (
            {
                "vendor_id": "10de",
                "device_id": "0001",
                "name": "NVIDIA X1",
                "memory_mib": 200_000,
                "compute_capability": "13.0",
            },
            "plausible",
        ),
        (
            {
                "vendor_id": "10de",
                "device_id": "0001",
                "name": "ACME X1",
                "memory_mib": 200_000,
                "compute_capability": "13.0",
            },
            "unknown",
        ),
    ],
)
def test_cards_stand_in_their_lane(facts: dict[str, Any], lane: str) -> None:
    """Listed, plausible, unknown, implausible: by ids, name, memory and capability together."""
    assert device_lane(card(**facts), LISTS)[0] == lane


def test_two_sources_with_two_cards_are_implausible() -> None:
    """NVML and sysfs name different devices."""
    gpu = GpuEvidence(
        uuid=UUID,
        nvml=SourceReport(vendor_id="10de", device_id="2335"),
        sysfs=SourceReport(vendor_id="10de", device_id="1eb8"),
    )
    assert device_lane(gpu, LISTS)[0] == "implausible"


@pytest.mark.parametrize(
    ("version", "module", "library", "lane"),
    [
        ("570.86.15", "570.86.15", None, "listed"),
        ("570.86.15", "535.54.03", None, "implausible"),
        ("570.999.01", "570.999.01", None, "plausible"),
        ("571.999.01", "571.999.01", None, "unknown"),
        (None, None, None, "unknown"),
        ("580.95.05", "580.95.05", "aa" * 32, "listed"),
        ("580.95.05", "580.95.05", "bb" * 32, "unknown"),
    ],
)
def test_drivers_stand_in_their_lane(version: str | None, module: str | None, library: str | None, lane: str) -> None:
    """A listed version; an unlisted one of a known branch; one of none; one that the module contradicts; a library
    whose digest is not among those that were vouched for."""
    known = tuple(
        msgspec.structs.replace(driver, library_digests=("aa" * 32,)) if driver.version == "580.95.05" else driver
        for driver in LISTS.drivers
    )
    assert all(isinstance(driver, ListedDriver) for driver in known)
    lists = msgspec.structs.replace(LISTS, drivers=known)
    gpu = GpuEvidence(uuid=UUID, sysfs=SourceReport(driver_version=module) if module else SourceReport())
    evidence = HostEvidence(
        height=1,
        block=BLOCK,
        driver_version=version or msgspec.UNSET,
        library=library or msgspec.UNSET,
        gpus=(gpu,),
    )
    assert driver_lane(evidence, lists) == lane


def test_every_card_owes_a_rate() -> None:
    """A quarter of the listed peak, also where that is low; of the weakest admitted class's where a card is in no list,
    whatever it says of itself; a processor, of which no source speaks, owes nothing."""
    for device in LISTS.devices:
        assert expected_rate(card(name=device.name_has), device) == device.peak_giga_operations // 4
    assert WEAKEST_PEAK == 284_000
    for said in ({"name": "X"}, {"multiprocessors": 1}, {"name": "X", "multiprocessors": 100_000}, {}):
        assert expected_rate(card(**said), None) == 71_000
    assert expected_rate(GpuEvidence(uuid="CPU-1"), None) == 0


def test_a_verdict_says_what_was_found() -> None:
    """One entry per declared GPU in the order of the evidence; memory as far as it was shown; the lists' digest."""
    given = filled(submission(honest_sitting()), 1)
    gpus = (GpuEvidence(uuid="GPU-silent"), card(vendor_id="10de", device_id="2335"))
    evidence = HostEvidence(height=1, block=BLOCK, gpus=gpus)
    verdict = judge(MINER, EXAM, setup(), evidence, {UUID: given, "GPU-undeclared": given}, LISTS, fresh=True)
    assert [(gpu.gpu, gpu.result, gpu.memory_mib) for gpu in verdict.gpus] == [
        ("GPU-silent", "absent", 0),
        (UUID, "right", 1),
    ]
    assert (verdict.exam, verdict.lists, verdict.fresh) == (EXAM.id, LISTS.digest(), True)
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=ExamVerdict) == verdict
    again = judge(MINER, EXAM, setup(), evidence, {UUID: given}, LISTS, fresh=True)
    assert again == verdict
