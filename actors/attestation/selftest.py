"""What would this machine score, and why not more: the probe, an exam of this machine's own making, and the verdict.

The same code as in the network, with four differences: the seeds are drawn here, the time is this machine's own clock
(the network takes that of the blocks), nobody but the machine itself has looked, and its GPUs work one after the other
(in the network all at once).
"""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, Struct

from actors.attestation.devices import examinee_on, fill_for, measured_rate, memory_on
from actors.attestation.exam import DEVICE_SHAPE, Sitting, operations, rows_for
from actors.attestation.exam_check import ExamSetup
from actors.attestation.fill import Fill
from actors.attestation.judge import Exam, Submission, judge
from actors.attestation.lists import Lists
from actors.attestation.live import watched
from actors.attestation.probe import HostProbe, Places, probe
from actors.attestation.reading import SourceState
from actors.backends.base import Backend, DeviceFault
from actors.backends.on_gpu import GpuBackend
from actors.profiles import MAINNET
from events.canonical import digest
from events.errors import AssayError, BadInput
from projections.attestation import GpuScore, attested, scores_of
from schemas.attestation import ExamAnswer, ExamShape, GpuEvidence, Grade, HostEvidence, Lane, Liveness
from schemas.state import Attestation, Examined
from schemas.values import Address

# What computes on the GPU with this UUID; without one, on the processor.
Backends: TypeAlias = Callable[[str | None], Backend]
# Told the stage, and how much of its total is done.
Stages: TypeAlias = Callable[[str, int, int], None]

DURATION_MS: Final = 2_500


def no_stages(stage: str, done: int, total: int) -> None:
    """Report nothing."""


class ExamFacts(Struct, frozen=True, kw_only=True):
    """The exam that a GPU has sat: on which backend, how large, how long it took by this machine's clock, and what the
    check of it cost."""

    backend: str
    gpu: str
    rows: int
    multiplications: int
    duration_ms: int
    giga_operations: int
    memory_mib: int
    opening_bytes: int
    opening_ms: int
    check_ms: int


class Unexamined(Struct, frozen=True, kw_only=True):
    """A claimed GPU that could not work, and why."""

    gpu: str
    why: str


class SelfTest(Struct, frozen=True, kw_only=True):
    """The whole answer. ``score`` and ``grade`` are those that a network would give for it, had it seen the same: those
    of the worst GPU. ``unclaimed`` are cards that the kernel shows and that are not this host's."""

    score: int
    grade: Grade
    driver: Lane
    lists: str
    sources: tuple[SourceState, ...]
    preloaded: tuple[str, ...]
    overlaid: tuple[str, ...]
    malformed: tuple[str, ...]
    exams: tuple[ExamFacts, ...]
    unexamined: tuple[Unexamined, ...]
    gpus: tuple[GpuScore, ...]
    unclaimed: tuple[GpuEvidence, ...]
    evidence: HostEvidence


class _Sat(Struct, frozen=True):
    submission: Submission
    facts: ExamFacts


class _Room(Struct, frozen=True, kw_only=True):
    """What all GPUs of one selftest share."""

    address: Address
    backends: Backends
    places: Places
    exam: Exam
    duration_ms: int
    fill_mib: int | None
    stages: Stages


def selftest(
    address: Address,
    backends: Backends,
    lists: Lists,
    *,
    only: str = "",
    places: Places | None = None,
    shape: ExamShape = DEVICE_SHAPE,
    duration_ms: int = DURATION_MS,
    fill_mib: int | None = None,
    stages: Stages = no_stages,
) -> SelfTest:
    """Probe the host, examine its GPUs one after the other, and score it. Takes a few times ``duration_ms`` for each.

    With ``only`` no other GPU than that is claimed. Without a GPU the processor is declared and examined. So much
    memory is filled as the main network asks for, where the backend computes on a GPU; or ``fill_mib``. Raises BadInput
    where there is no GPU ``only``, and what a backend raises where none can work; one of several that cannot is absent.
    """
    places = places or Places()
    stages("probing", 0, 1)
    looked = _chosen(probe(places), only)
    stages("probing", 1, 1)
    seed, challenge = secrets.token_hex(32), secrets.token_hex(32)
    claimed = looked.evidence(0, seed, lists.digest(), processor=processor_id(address))
    exam = Exam(id=digest(bytes.fromhex(seed)), seed=seed, shape=shape, challenge=challenge)
    room = _Room(
        address=address,
        backends=backends,
        places=places,
        exam=exam,
        duration_ms=duration_ms,
        fill_mib=fill_mib,
        stages=stages,
    )
    sat: list[_Sat] = []
    live: dict[str, Liveness] = {}
    errors: dict[str, Exception] = {}
    for gpu in claimed.gpus:
        told = stages if len(claimed.gpus) == 1 else _named(stages, gpu.uuid)
        try:
            live |= _examine(msgspec.structs.replace(room, stages=told), gpu, sat)
        except (AssayError, DeviceFault, MemoryError, OSError) as error:
            errors[gpu.uuid] = error
    if not sat:
        raise next(iter(errors.values()))
    claimed = msgspec.structs.replace(
        claimed, gpus=tuple(msgspec.structs.replace(gpu, live=live.get(gpu.uuid, UNSET)) for gpu in claimed.gpus)
    )
    return _judged(room, looked, claimed, sat, errors, lists)


def _chosen(looked: HostProbe, only: str) -> HostProbe:
    """With no other GPU than this one, where one is named."""
    if not only:
        return looked
    chosen = looked.only(only)
    if not chosen.gpus:
        there = ", ".join(gpu.uuid for gpu in looked.gpus) or "none"
        raise BadInput(
            f"there is no GPU {only}", why=f"this host's are: {there}", hint="Name one of these by its UUID."
        )
    return chosen


def _named(stages: Stages, gpu: str) -> Stages:
    """Stages that say which of several GPUs they are about."""
    return lambda stage, done, total: stages(f"{gpu}: {stage}", done, total)


def processor_id(address: Address) -> str:
    """The id under which a host without a GPU declares its processor: no two miners have the same."""
    return f"CPU-{digest(address.encode())[:32]}"


def _examine(room: _Room, gpu: GpuEvidence, sat: list[_Sat]) -> Mapping[str, Liveness]:
    """Adds what the GPU has answered to ``sat``; what its counters showed meanwhile."""
    backend = room.backends(None if gpu.uuid == processor_id(room.address) else gpu.uuid)
    fill_mib = room.fill_mib
    if fill_mib is None:
        fill_mib = fill_for(gpu, MAINNET.min_memory_mib) if isinstance(backend, GpuBackend) else 0
    live = watched(room.places, lambda: sat.append(_sit(room, gpu.uuid, backend, fill_mib)))
    return {uuid: shown for uuid, shown in live.items() if uuid == gpu.uuid}


def _sit(room: _Room, uuid: str, backend: Backend, fill_mib: int) -> _Sat:
    address, exam, stages = room.address, room.exam, room.stages
    examinee = examinee_on(backend, exam.shape, exam.seed, address, uuid)
    stages("calibrating", 0, 1)
    rate = measured_rate(examinee, exam.shape)
    stages("calibrating", 1, 1)
    rows = rows_for(exam.shape, rate, room.duration_ms)
    sitting = Sitting(examinee, rows)
    began = time.perf_counter_ns()
    root = sitting.work(lambda done, total: stages("exam", done, total))
    answer = ExamAnswer(gpu=uuid, rows=rows, root=root)
    answer, fill = _filled(room, answer, backend, fill_mib)
    duration = max(1, (time.perf_counter_ns() - began) // 1_000_000)
    began = time.perf_counter_ns()
    opening = sitting.open(exam.challenge)
    opened = time.perf_counter_ns() - began
    facts = ExamFacts(
        backend=backend.name,
        gpu=uuid,
        rows=rows,
        multiplications=operations(exam.shape, rows) // 2,
        duration_ms=duration,
        giga_operations=operations(exam.shape, rows) // (duration * 1_000_000),
        memory_mib=0 if fill is None else fill_mib,
        opening_bytes=len(opening),
        opening_ms=opened // 1_000_000,
        check_ms=0,
    )
    fill_opening = None if fill is None else fill.open(exam.challenge)
    return _Sat(Submission(answer=answer, opening=opening, fill_opening=fill_opening), facts)


def _filled(room: _Room, answer: ExamAnswer, backend: Backend, fill_mib: int) -> tuple[ExamAnswer, Fill | None]:
    """The answer with the memory that was filled for it: none, where so much is not free."""
    if not fill_mib:
        return answer, None
    try:
        fill = Fill(memory_on(backend, room.exam.seed, room.address, answer.gpu, fill_mib), fill_mib)
        memory_root = fill.work(lambda done, total: room.stages("filling memory", done, total))
    except MemoryError:
        return answer, None
    return msgspec.structs.replace(answer, memory_mib=fill_mib, memory_root=memory_root), fill


def _judged(
    room: _Room,
    looked: HostProbe,
    claimed: HostEvidence,
    sat: list[_Sat],
    errors: Mapping[str, Exception],
    lists: Lists,
) -> SelfTest:
    address, exam = room.address, room.exam
    setup = ExamSetup(exam.seed, exam.shape.inner, exam.shape.columns)
    submissions: Mapping[str, Submission] = {each.facts.gpu: each.submission for each in sat}
    rates = {each.facts.gpu: each.facts.giga_operations for each in sat}
    began = time.process_time_ns()
    verdict = judge(address, exam, setup, claimed, submissions, lists, fresh=True)
    check_ms = (time.process_time_ns() - began) // 1_000_000 // len(sat)
    attestation = Attestation(
        evidence=claimed,
        since_ms=0,
        claimed_ms=0,
        claimed_height=0,
        examined=Examined(
            verdict=verdict,
            cause="first",
            coordinator=address,
            opened_ms=0,
            judged_ms=0,
            judged_height=0,
            duration_ms=max(each.facts.duration_ms for each in sat),
            performance=tuple(rates[gpu.gpu] if gpu.result == "right" else 0 for gpu in verdict.gpus),
        ),
    )
    total = attested(attestation)
    return SelfTest(
        score=total.score,
        grade=total.grade,
        driver=verdict.driver,
        lists=verdict.lists,
        sources=looked.sources,
        preloaded=looked.preloaded,
        overlaid=looked.overlaid,
        malformed=looked.malformed,
        exams=tuple(msgspec.structs.replace(each.facts, check_ms=check_ms) for each in sat),
        unexamined=tuple(Unexamined(gpu=gpu, why=str(error)) for gpu, error in errors.items()),
        gpus=scores_of(attestation),
        unclaimed=looked.unclaimed,
        evidence=claimed,
    )
