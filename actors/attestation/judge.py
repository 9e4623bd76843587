"""The verdict of a coordinator on one miner in one exam: what its answers are worth, how its cards stand by the lists.

Pure: the same evidence, answers, openings and lists give the same verdict, on any machine. Scores are not made here:
they follow from the log (`projections.attestation`), with the verdict as one of its events.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from actors.attestation.exam_check import ExamFault, ExamSetup, check_opening
from actors.attestation.fill_check import filled_mib
from actors.attestation.lists import ListedDevice, Lists
from schemas.attestation import (
    ExamAnswer,
    ExamResult,
    ExamShape,
    ExamVerdict,
    GpuEvidence,
    GpuVerdict,
    HostEvidence,
    Lane,
    SourceReport,
)
from schemas.values import Address, Digest

NVIDIA: Final = "10de"
# What share of a card's dense int8 peak the exam expects: it also hashes every row, makes those of A and waits for two
# blocks. On paper an idle H200 reaches 0.27 to 0.37 of its peak, and 0.16 to 0.22 while other work takes 40 % of it; no
# card has been measured with it yet. Scores suffer below half of what is expected; being faster earns nothing.
EXPECTED_SHARE_BPS: Final = 2_500
# What a card in no list is held to: the dense int8 peak of an RTX 3090, the weakest class that a main network admits. A
# new card is not weaker, and weaker ones must be listed; else a processor could pass as a card that nobody knows.
WEAKEST_PEAK: Final = 284_000
# Drivers report a little less than what is soldered on (reserved for firmware and error correction), or a little more
# than the name says.
LEAST_MEMORY_BPS: Final = 8_800
MOST_MEMORY_BPS: Final = 10_600
# The oldest compute capability that the kernels are built for.
LEAST_CAPABILITY: Final = (7, 0)
MOST_CAPABILITY: Final = (15, 9)

_PLAUSIBLE_NAME: Final = re.compile(r"(?:NVIDIA|Tesla|Quadro|GeForce)\b.*")


class Submission(Struct, frozen=True, kw_only=True):
    """What came from one GPU: its answer, and the opening blob where it could be fetched. ``late``: the log holds the
    answer, but in a block after the exam's end."""

    answer: ExamAnswer
    opening: bytes | None = None
    fill_opening: bytes | None = None
    late: bool = False


class Exam(Struct, frozen=True, kw_only=True):
    """What the log says of an exam: its id, seed and shape, and the seed that names the rows to open, which was unknown
    when the answers were said."""

    id: Digest
    seed: Digest
    shape: ExamShape
    challenge: Digest


Submissions: TypeAlias = Mapping[str, Submission]


def judge(
    miner: Address,
    exam: Exam,
    setup: ExamSetup,
    evidence: HostEvidence,
    submissions: Submissions,
    lists: Lists,
    *,
    fresh: bool,
) -> ExamVerdict:
    """The verdict. ``fresh`` is what the log says of the block that the evidence names.

    ``submissions`` are by the id of the GPU; those of GPUs that the evidence does not declare count for nothing.
    """
    driver = driver_lane(evidence, lists)
    gpus = tuple(_gpu_verdict(miner, exam, setup, gpu, submissions.get(gpu.uuid), lists) for gpu in evidence.gpus)
    return ExamVerdict(miner=miner, exam=exam.id, fresh=fresh, driver=driver, lists=lists.digest(), gpus=gpus)


def _gpu_verdict(
    miner: Address,
    exam: Exam,
    setup: ExamSetup,
    gpu: GpuEvidence,
    submission: Submission | None,
    lists: Lists,
) -> GpuVerdict:
    lane, listed = device_lane(gpu, lists)
    result = exam_result(miner, exam, setup, submission)
    return GpuVerdict(
        gpu=gpu.uuid,
        result=result,
        device=lane,
        expected=expected_rate(gpu, listed),
        memory_mib=_memory(miner, exam, submission) if result == "right" else 0,
    )


def exam_result(miner: Address, exam: Exam, setup: ExamSetup, submission: Submission | None) -> ExamResult:
    """What an answer is worth. An answer that is not opened is absent: only what can be checked counts."""
    if submission is None:
        return "absent"
    if submission.late:
        return "late"
    if submission.opening is None:
        return "absent"
    finding = check_opening(setup, exam.shape, miner, submission.answer, exam.challenge, submission.opening)
    if finding.fault is None:
        return "right"
    return "malformed" if finding.fault is ExamFault.MALFORMED else "wrong"


def _memory(miner: Address, exam: Exam, submission: Submission | None) -> int:
    if submission is None or submission.fill_opening is None:
        return 0
    return filled_mib(exam.seed, miner, submission.answer, exam.challenge, submission.fill_opening)


def expected_rate(gpu: GpuEvidence, listed: ListedDevice | None) -> int:
    """Giga-operations a second that the exam expects of a card: a share of its listed peak, or of the weakest peak
    where it is in no list. A processor, of which no source speaks, owes nothing."""
    if not reports(gpu):
        return 0
    peak = WEAKEST_PEAK if listed is None else listed.peak_giga_operations
    return peak * EXPECTED_SHARE_BPS // 10_000


def reports(gpu: GpuEvidence) -> list[SourceReport]:
    """What the sources say that say anything."""
    said = (gpu.nvml, gpu.cuda, gpu.sysfs, gpu.procfs)
    return [report for report in said if not isinstance(report, UnsetType)]


def device_lane(gpu: GpuEvidence, lists: Lists) -> tuple[Lane, ListedDevice | None]:
    """Where a card stands, and its entry where it has one.

    Listed: its PCI ids are in the lists, and nothing that any source says of it could not be true of that card.
    Implausible: something could not. Plausible: no entry, but ids, name and abilities that a new card of NVIDIA's
    would have. Unknown: not enough is said.
    """
    said = reports(gpu)
    vendors = _all(report.vendor_id for report in said)
    ids = _all(report.device_id for report in said)
    if any(vendor != NVIDIA for vendor in vendors):
        return "implausible", None
    if not ids or not vendors:
        return "unknown", None
    if any(device_id != ids[0] for device_id in ids):
        return "implausible", None
    listed = lists.device(ids[0])
    if listed is None:
        return ("plausible" if _could_be_new(said) else "unknown"), None
    return ("listed" if all(_could_be(report, listed) for report in said) else "implausible"), listed


def _could_be(report: SourceReport, listed: ListedDevice) -> bool:
    """Whether this card could be described so."""
    if isinstance(report.name, str) and not _has_words(report.name, listed.name_has):
        return False
    if isinstance(report.compute_capability, str) and report.compute_capability != listed.compute_capability:
        return False
    if isinstance(report.multiprocessors, int) and not 1 <= report.multiprocessors <= listed.multiprocessors:
        return False
    if not isinstance(report.memory_mib, int):
        return True
    nominal = listed.memory_gib * 1_024
    return nominal * LEAST_MEMORY_BPS <= report.memory_mib * 10_000 <= nominal * MOST_MEMORY_BPS


def _has_words(name: str, words: str) -> bool:
    """Whether the words stand in the name as whole words, so that an A10 is no A100, and a 3090 no 3090 Ti."""
    parts, wanted = re.split(r"[ \-_/]+", name), words.split()
    places = [at for at in range(len(parts)) if parts[at : at + len(wanted)] == wanted]
    return any(parts[at + len(wanted) : at + len(wanted) + 1] not in (["Ti"], ["SUPER"]) for at in places)


def _could_be_new(said: list[SourceReport]) -> bool:
    """Whether a card of NVIDIA's that nobody has listed yet could be described so."""
    names = _all(report.name for report in said)
    memories = [report.memory_mib for report in said if isinstance(report.memory_mib, int)]
    capabilities = [_numbers(text) for text in _all(report.compute_capability for report in said)]
    return (
        bool(names)
        and all(_PLAUSIBLE_NAME.fullmatch(name) for name in names)
        and bool(memories)
        and all(1_024 <= memory <= 1_048_576 for memory in memories)
        and bool(capabilities)
        and all(LEAST_CAPABILITY <= capability <= MOST_CAPABILITY for capability in capabilities)
    )


def driver_lane(evidence: HostEvidence, lists: Lists) -> Lane:
    """Where the driver stands: listed with its version (and with its library, where digests of it are known); plausible
    where the version is of a branch that exists and the kernel module says the same; implausible where they differ."""
    version = evidence.driver_version
    if version is UNSET or isinstance(version, UnsetType):
        return "unknown"
    versions = _all(report.driver_version for gpu in evidence.gpus for report in reports(gpu))
    if any(other != version for other in versions):
        return "implausible"
    listed = lists.driver(version)
    if listed is None:
        return "plausible" if _numbers(version)[0] in lists.branches and _module_agrees(evidence) else "unknown"
    if listed.library_digests and evidence.library not in listed.library_digests:
        return "unknown"
    return "listed"


def _module_agrees(evidence: HostEvidence) -> bool:
    """Whether the kernel's own account, by sysfs or procfs, has the version too."""
    kernel = [report for gpu in evidence.gpus for report in (gpu.sysfs, gpu.procfs)]
    return any(
        report.driver_version == evidence.driver_version for report in kernel if not isinstance(report, UnsetType)
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _all(values: Iterable[str | UnsetType]) -> list[str]:
    return [value for value in values if isinstance(value, str)]
