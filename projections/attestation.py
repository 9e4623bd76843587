"""The score of a miner's GPUs: a pure function of what its record in the state holds, which is all from the log.

Five levels add up to 100 points, then caps hold the sum down. Only the fourth level is hard to fake, so without it the
rest is worth 40 points at most. A source that says nothing gives no points and takes none; two that contradict each
other are worse than one.

    level                points   full when
    1 device                 10   the sources name the GPU, its model and its memory
    2 driver                 20   the driver's version and files are listed; half when they are only plausible; none
                                  where no source shows the GPU
    3 bus                    30   two of the four sources agree on its PCI identity; half for one
    4 exam                   30   its last exam was right
    5 identity               10   the claim is signed and was fresh; half until a coordinator has looked

A miner is worth as much as its worst GPU.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from schemas.attestation import GpuEvidence, GpuVerdict, Grade, HostEvidence, Liveness, SourceReport
from schemas.state import Attestation, Attested, Examined

EXAM_ABSENT: Final = "EXAM_ABSENT"
CAPS: Final[dict[str, int]] = {
    EXAM_ABSENT: 40,
    "EXAM_WRONG": 40,
    "TOO_SLOW": 20,
    "SLOW": 40,
    "CONTRADICTION": 50,
    "DRIVER_COVERED": 40,
    "MALFORMED": 40,
    "IMPLAUSIBLE": 40,
    "NOT_FRESH": 40,
    "SHARED": 40,
}
# What is expected of a card is a quarter of its peak. Less than half of that is no card of that kind, or one that also
# answers under other names; less than a tenth is nothing like it.
SLOW_SHARE: Final = 2
SLOWEST_SHARE: Final = 10
# Of the same memory NVML says a little more than CUDA, which leaves out what the driver keeps for itself.
MEMORY_TOLERANCE_BPS: Final = 500
# An energy counter that ran with another power than was measured by more than this factor is not that GPU's.
ENERGY_FACTOR: Final = 4
LEAST_ELAPSED_MS: Final = 500
# Filling leaves some room to the driver: what was filled vouches for a quarter more, and what was not for nothing.
FILLED_SHARE_BPS: Final = 8_000
SAME_EVERYWHERE: Final = (
    "uuid",
    "vendor_id",
    "device_id",
    "subsystem_vendor_id",
    "subsystem_id",
    "bus_id",
    "serial",
    "vbios",
    "cores",
    "multiprocessors",
    "compute_capability",
    "driver_version",
)
IDENTITY: Final = ("bus_id", "vendor_id", "device_id", "subsystem_vendor_id", "subsystem_id")


class Level(Struct, frozen=True, kw_only=True):
    """One level: its points, of how many, from which ``raw`` value, by which ``threshold``."""

    number: int
    name: str
    points: int
    most: int
    raw: str
    threshold: str
    sentence: str


class Cap(Struct, frozen=True, kw_only=True):
    """A finding that holds the sum down to ``limit``."""

    code: str
    limit: int
    sentence: str


class GpuScore(Struct, frozen=True, kw_only=True):
    """Of one GPU, with everything that it was made from. ``memory_mib`` is what counts of its memory, for which
    ``filled_mib`` vouch."""

    gpu: str
    score: int
    grade: Grade
    filled_mib: int
    memory_mib: int
    performance: int
    levels: tuple[Level, ...]
    caps: tuple[Cap, ...]


class _Subject(Struct, frozen=True):
    """One GPU with all that is known of it. ``verdict`` is None before its first exam."""

    host: HostEvidence
    gpu: GpuEvidence
    examined: Examined | None
    verdict: GpuVerdict | None
    performance: int

    def reports(self) -> dict[str, SourceReport]:
        """By source, those that said something."""
        named = {"nvml": self.gpu.nvml, "cuda": self.gpu.cuda, "sysfs": self.gpu.sysfs, "procfs": self.gpu.procfs}
        return {name: report for name, report in named.items() if not isinstance(report, UnsetType)}


def attested(attestation: Attestation) -> Attested:
    """The sum of it, for the miner's standing."""
    gpus = scores_of(attestation)
    examined = attestation.examined
    return Attested(
        score=min((gpu.score for gpu in gpus), default=0),
        grade=max((gpu.grade for gpu in gpus), key=("H", "M", "C").index, default="C"),
        memory_mib=min((gpu.memory_mib for gpu in gpus), default=0),
        performance=min((gpu.performance for gpu in gpus), default=0),
        examined_ms=UNSET if isinstance(examined, UnsetType) else examined.judged_ms,
    )


def scores_of(attestation: Attestation) -> tuple[GpuScore, ...]:
    """Of each claimed GPU, in the order of the claim."""
    examined = None if isinstance(attestation.examined, UnsetType) else attestation.examined
    found = []
    for index, gpu in enumerate(attestation.evidence.gpus):
        verdict = None if examined is None else examined.verdict.gpus[index]
        performance = 0 if examined is None else examined.performance[index]
        found.append(_score(_Subject(attestation.evidence, gpu, examined, verdict, performance)))
    return tuple(found)


def _score(subject: _Subject) -> GpuScore:
    levels = (_device(subject), _driver(subject), _bus(subject), _exam(subject), _identity(subject))
    caps = tuple(
        Cap(code=code, limit=CAPS[code], sentence=sentence)
        for code, sentence in (*_exam_faults(subject), *_evidence_faults(subject))
    )
    passed = levels[3].points > 0
    return GpuScore(
        gpu=subject.gpu.uuid,
        score=min([sum(level.points for level in levels), *(cap.limit for cap in caps)]),
        grade=_grade(subject, caps),
        filled_mib=_filled(subject) if passed else 0,
        memory_mib=_memory(subject) if passed else 0,
        performance=subject.performance if passed else 0,
        levels=levels,
        caps=caps,
    )


def _grade(subject: _Subject, caps: tuple[Cap, ...]) -> Grade:
    """Measured is a GPU that shows in some source, and against which nothing was found."""
    if caps or subject.verdict is None or not subject.reports():
        return "C"
    return "H" if subject.verdict.hardware else "M"


def _filled(subject: _Subject) -> int:
    return 0 if subject.verdict is None else subject.verdict.memory_mib


def _memory(subject: _Subject) -> int:
    """What all sources grant it, and no more than what was filled vouches for."""
    said = [report.memory_mib for report in subject.reports().values() if isinstance(report.memory_mib, int)]
    return min(min(said, default=0), _filled(subject) * 10_000 // FILLED_SHARE_BPS)


# The levels.


def _device(subject: _Subject) -> Level:
    reports = subject.reports().values()
    said = [
        name for name in ("uuid", "name", "memory_mib") if any(getattr(each, name) is not UNSET for each in reports)
    ]
    points = 10 if len(said) == 3 else 5 if said else 0
    names = [report.name for report in reports if isinstance(report.name, str)]
    memory = [report.memory_mib for report in reports if isinstance(report.memory_mib, int)]
    sentence = (
        "The sources name the GPU, its model and its memory."
        if points == 10
        else f"Of UUID, model and memory only {len(said)} are known."
        if said
        else "No source names this GPU."
    )
    raw = ", ".join([*names[:1], *(f"{size} MiB" for size in memory[:1])]) or "nothing"
    return Level(
        number=1, name="device", points=points, most=10, raw=raw, threshold="UUID, model, memory", sentence=sentence
    )


def _driver(subject: _Subject) -> Level:
    host = subject.host
    version = host.driver_version if isinstance(host.driver_version, str) else "no version"
    lane = "not looked at" if subject.examined is None else subject.examined.verdict.driver
    covered = bool(host.preloaded or host.overlaid)
    shown = bool(subject.reports())
    points = {"listed": 20, "plausible": 10}.get(lane, 0) if shown and not covered else 0
    sentence = {
        "not looked at": "A coordinator compares the driver with its lists at the first exam.",
        "listed": "The driver is one of those in the lists.",
        "plausible": "The driver is not in the lists, and nothing speaks against it.",
        "unknown": "The lists do not know this driver.",
        "implausible": "There is no such driver.",
    }[lane]
    if not shown:
        sentence = "No source shows a GPU that this driver could run."
    if covered:
        sentence = "Something stands between the host and the driver's files."
    raw = f"{version}, {lane}"
    return Level(number=2, name="driver", points=points, most=20, raw=raw, threshold="listed", sentence=sentence)


def _agree(first: SourceReport, second: SourceReport) -> bool:
    """Both know the place on the bus, and differ in nothing of the PCI identity that both know."""
    common = [(getattr(first, name), getattr(second, name)) for name in IDENTITY]
    known = [(one, other) for one, other in common if one is not UNSET and other is not UNSET]
    return first.bus_id is not UNSET and second.bus_id is not UNSET and all(one == other for one, other in known)


def _bus(subject: _Subject) -> Level:
    reports = subject.reports()
    placed = [name for name, report in reports.items() if report.bus_id is not UNSET]
    agreeing = any(_agree(first, second) for first, second in combinations(reports.values(), 2))
    points = 30 if agreeing else 15 if len(placed) == 1 else 0
    sentence = (
        "Two sources agree on the GPU's PCI identity."
        if agreeing
        else "Only one source knows the GPU's place on the bus."
        if placed[1:] == [] and placed
        else "The sources do not agree on the GPU's PCI identity."
        if placed
        else "No source knows the GPU's place on the bus."
    )
    if subject.verdict is not None and subject.verdict.device == "implausible":
        points, sentence = 0, "There is no such card: its ids, its name and its abilities do not belong together."
    raw = ", ".join(placed) or "no source"
    return Level(
        number=3, name="bus", points=points, most=30, raw=raw, threshold="two sources that agree", sentence=sentence
    )


def _exam(subject: _Subject) -> Level:
    result = "none yet" if subject.verdict is None else subject.verdict.result
    sentence = {
        "none yet": "It has not been examined.",
        "right": "Every row that it had to open was right.",
        "wrong": "A row that it had to open was wrong.",
        "malformed": "What it opened is no answer.",
        "absent": "It did not answer the exam.",
        "late": "It did not open its answer in time.",
    }[result]
    raw = result if result != "right" else f"right, {subject.performance} giga-operations/s"
    points = 30 if result == "right" else 0
    return Level(number=4, name="exam", points=points, most=30, raw=raw, threshold="right", sentence=sentence)


def _identity(subject: _Subject) -> Level:
    if subject.examined is None:
        points, raw, sentence = 5, "signed", "The claim is signed; at the first exam its age is looked at."
    elif subject.examined.verdict.fresh:
        points, raw, sentence = 10, "signed, fresh", "The claim is signed, and was made when it says."
    else:
        points, raw, sentence = 0, "signed, not fresh", "The claim is older than it says, or of another chain."
    return Level(
        number=5, name="identity", points=points, most=10, raw=raw, threshold="signed and fresh", sentence=sentence
    )


# What holds the sum down.


def _exam_faults(subject: _Subject) -> Iterator[tuple[str, str]]:
    verdict, examined = subject.verdict, subject.examined
    if verdict is None or examined is None:
        yield EXAM_ABSENT, "Without an exam, all else is only what the miner says."
        return
    if verdict.result in ("absent", "late"):
        yield EXAM_ABSENT, "The last exam was not answered in time."
    elif verdict.result in ("wrong", "malformed"):
        yield "EXAM_WRONG", "The answer to the last exam was wrong."
    elif subject.performance * SLOW_SHARE < verdict.expected:
        yield (
            "TOO_SLOW" if subject.performance * SLOWEST_SHARE < verdict.expected else "SLOW",
            f"Such a card does {verdict.expected} giga-operations per second, this one did {subject.performance}.",
        )
    if not examined.verdict.fresh:
        yield "NOT_FRESH", "The evidence was not made for this claim."
    if verdict.device == "implausible" or examined.verdict.driver == "implausible":
        yield "IMPLAUSIBLE", "The lists say that this card or driver cannot be."
    if subject.gpu.uuid in examined.shared:
        yield "SHARED", "Another miner has claimed this GPU before, and has shown that it has it."


def _evidence_faults(subject: _Subject) -> Iterator[tuple[str, str]]:
    host = subject.host
    if host.malformed:
        yield "MALFORMED", f"Malformed: {', '.join(host.malformed[:3])}."
    if host.preloaded:
        yield "DRIVER_COVERED", f"Loaded before the driver's own libraries: {', '.join(host.preloaded[:3])}."
    elif host.overlaid:
        yield "DRIVER_COVERED", f"Mounted over what the driver says: {', '.join(host.overlaid[:3])}."
    found = next(_contradictions(subject), None)
    if found is not None:
        yield "CONTRADICTION", found


def _contradictions(subject: _Subject) -> Iterator[str]:
    reports = subject.reports()
    for (one, first), (other, second) in combinations(reports.items(), 2):
        for name in SAME_EVERYWHERE:
            here, there = getattr(first, name), getattr(second, name)
            if here is not UNSET and there is not UNSET and here != there:
                yield f"The {name.replace('_', ' ')} is {here} by {one}, {there} by {other}."
        if isinstance(first.name, str) and isinstance(second.name, str) and _plain(first.name) != _plain(second.name):
            yield f"The name is {first.name} by {one}, {second.name} by {other}."
        if isinstance(first.memory_mib, int) and isinstance(second.memory_mib, int):
            smaller, larger = sorted((first.memory_mib, second.memory_mib))
            if (larger - smaller) * 10_000 > larger * MEMORY_TOLERANCE_BPS:
                yield f"The memory is {first.memory_mib} MiB by {one}, {second.memory_mib} MiB by {other}."
    for name, report in reports.items():
        if report.uuid is not UNSET and report.uuid != subject.gpu.uuid:
            yield f"The claim is for {subject.gpu.uuid}, {name} says {report.uuid}."
        version = subject.host.driver_version
        if version is not UNSET and report.driver_version is not UNSET and report.driver_version != version:
            yield f"The host's driver is {version}, by {name} it is {report.driver_version}."
    if isinstance(subject.gpu.live, Liveness):
        yield from _dead(subject.gpu.live)


def _plain(name: str) -> str:
    return name.casefold().removeprefix("nvidia").replace(" ", "")


def _dead(live: Liveness) -> Iterator[str]:
    """What a GPU that has just worked cannot have shown."""
    before, after, power = live.energy_before_mj, live.energy_after_mj, live.power_mw
    if isinstance(before, UnsetType) or isinstance(after, UnsetType):
        return
    if after < before:
        yield f"The energy counter ran backwards, from {before} to {after} mJ."
    elif not isinstance(power, UnsetType) and power and live.elapsed_ms >= LEAST_ELAPSED_MS:
        # Milliwatts times milliseconds are microjoules.
        used, expected = (after - before) * 1_000, power * live.elapsed_ms
        if used * ENERGY_FACTOR < expected or used > expected * ENERGY_FACTOR:
            yield f"{power} mW for {live.elapsed_ms} ms do not use {after - before} mJ."
