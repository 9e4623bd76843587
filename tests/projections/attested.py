"""Evidence and verdicts of hosts for tests: a real card by two sources, to be changed in one thing at a time."""

from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import replace

from events.canonical import digest
from schemas.attestation import (
    DriverFile,
    ExamVerdict,
    GpuEvidence,
    GpuVerdict,
    HostEvidence,
    Liveness,
    SourceReport,
)
from schemas.state import Attestation, Examined

GPU: Final = "GPU-11111111-2222-3333-4444-555555555555"
SECOND_GPU: Final = "GPU-99999999-2222-3333-4444-555555555555"
EXAM: Final = digest(b"exam")
ADDRESS: Final = "U" + "A" * 55

NVML: Final = SourceReport(
    uuid=GPU,
    name="NVIDIA H200",
    vendor_id="10de",
    device_id="2335",
    bus_id="0000:3b:00.0",
    memory_mib=143_771,
    driver_version="570.86.15",
)
CUDA: Final = SourceReport(
    uuid=GPU, name="NVIDIA H200", bus_id="0000:3b:00.0", memory_mib=142_655, compute_capability="9.0"
)
LIVE: Final = Liveness(elapsed_ms=2_000, energy_before_mj=0, energy_after_mj=1_200_000, power_mw=600_000)


def gpu(uuid: str = GPU, **changes: Any) -> GpuEvidence:
    """One card by NVML and CUDA; ``changes`` replace what a source says."""
    said: dict[str, Any] = {"nvml": replace(NVML, uuid=uuid), "cuda": replace(CUDA, uuid=uuid)}
    return GpuEvidence(uuid=uuid, **{**said, **changes})


def host(*gpus: GpuEvidence, **changes: Any) -> HostEvidence:
    """A host with these cards, by default one."""
    evidence = HostEvidence(
        height=1,
        block=digest(b"block"),
        driver_version="570.86.15",
        driver_files=(DriverFile(path="/usr/lib/libnvidia-ml.so.1", digest=digest(b"file")),),
        gpus=gpus or (gpu(),),
    )
    return replace(evidence, **changes)


def verdict(uuid: str = GPU, **changes: Any) -> GpuVerdict:
    """Of a right exam on a listed card that has filled four fifths of its memory; ``changes`` replace what it says."""
    given: dict[str, Any] = {"result": "right", "device": "listed", "expected": 400_000, "memory_mib": 115_000}
    return GpuVerdict(gpu=uuid, **{**given, **changes})


def attestation(
    evidence: HostEvidence | None = None,
    *verdicts: GpuVerdict,
    performance: int = 500_000,
    shared: tuple[str, ...] = (),
    examined: bool = True,
    **changes: Any,
) -> Attestation:
    """The record of a host after an exam, or before any."""
    evidence = host() if evidence is None else evidence
    verdicts = verdicts or tuple(verdict(each.uuid) for each in evidence.gpus)
    given: dict[str, Any] = {"miner": ADDRESS, "exam": EXAM, "fresh": True, "driver": "listed", "lists": EXAM}
    last = Examined(
        verdict=ExamVerdict(gpus=verdicts, **{**given, **changes}),
        cause="first",
        coordinator=ADDRESS,
        opened_ms=0,
        judged_ms=3_000,
        judged_height=3,
        duration_ms=2_000,
        performance=tuple(performance if each.result == "right" else 0 for each in verdicts),
        shared=shared,
    )
    return Attestation(
        evidence=evidence, since_ms=0, claimed_ms=0, claimed_height=1, examined=last if examined else UNSET
    )
