"""What would this machine score, and why not more: the probe, an exam of this machine's own making, and the verdict.

The same code as in the network, with three differences: the seeds are drawn here, the time is this machine's own clock
(the network takes that of the blocks), and nobody but the machine itself has looked.
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
from actors.backends.base import Backend
from actors.backends.on_gpu import GpuBackend
from actors.profiles import MAINNET
from events.canonical import digest
from projections.attestation import GpuScore, attested, scores_of
from schemas.attestation import ExamAnswer, ExamShape, Grade, HostEvidence, Lane
from schemas.state import Attestation, Examined
from schemas.values import Address

# Told the stage, and how much of its total is done.
Stages: TypeAlias = Callable[[str, int, int], None]

DURATION_MS: Final = 2_500


def no_stages(stage: str, done: int, total: int) -> None:
    """Report nothing."""


class ExamFacts(Struct, frozen=True, kw_only=True):
    """The exam that was sat: on which backend, how large, how long it took by this machine's clock, and what the check
    of it cost."""

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


class SelfTest(Struct, frozen=True, kw_only=True):
    """The whole answer. ``score`` and ``grade`` are those that a network would give for it, had it seen the same."""

    score: int
    grade: Grade
    driver: Lane
    lists: str
    sources: tuple[SourceState, ...]
    preloaded: tuple[str, ...]
    overlaid: tuple[str, ...]
    malformed: tuple[str, ...]
    exam: ExamFacts | None
    gpus: tuple[GpuScore, ...]
    evidence: HostEvidence


class _Sat(Struct, frozen=True):
    submission: Submission
    facts: ExamFacts


def selftest(
    address: Address,
    backend: Backend,
    lists: Lists,
    *,
    places: Places | None = None,
    shape: ExamShape = DEVICE_SHAPE,
    duration_ms: int = DURATION_MS,
    fill_mib: int | None = None,
    stages: Stages = no_stages,
) -> SelfTest:
    """Probe the host, examine its first GPU on ``backend``, and score it. Takes a few times ``duration_ms``.

    Without a GPU the processor is declared and examined. So much memory is filled as the main network asks for, where
    ``backend`` computes on a GPU; or ``fill_mib``. Raises what the backend raises.
    """
    places = places or Places()
    stages("probing", 0, 1)
    looked = probe(places)
    stages("probing", 1, 1)
    seed, challenge = secrets.token_hex(32), secrets.token_hex(32)
    claimed = looked.evidence(0, seed, lists.digest(), processor=processor_id(address))
    exam = Exam(id=digest(bytes.fromhex(seed)), seed=seed, shape=shape, challenge=challenge)
    uuid = claimed.gpus[0].uuid
    if fill_mib is None:
        fill_mib = fill_for(claimed.gpus[0], MAINNET.min_memory_mib) if isinstance(backend, GpuBackend) else 0
    sat: list[_Sat] = []
    live = watched(places, lambda: sat.append(_sit(address, uuid, backend, exam, duration_ms, fill_mib, stages)))
    claimed = msgspec.structs.replace(
        claimed, gpus=tuple(msgspec.structs.replace(gpu, live=live.get(gpu.uuid, UNSET)) for gpu in claimed.gpus)
    )
    return _judged(address, looked, claimed, exam, sat[0], lists)


def processor_id(address: Address) -> str:
    """The id under which a host without a GPU declares its processor: no two miners have the same."""
    return f"CPU-{digest(address.encode())[:32]}"


def _sit(
    address: Address, uuid: str, backend: Backend, exam: Exam, duration_ms: int, fill_mib: int, stages: Stages
) -> _Sat:
    examinee = examinee_on(backend, exam.shape, exam.seed, address, uuid)
    stages("calibrating", 0, 1)
    rate = measured_rate(examinee, exam.shape)
    stages("calibrating", 1, 1)
    rows = rows_for(exam.shape, rate, duration_ms)
    sitting = Sitting(examinee, rows)
    began = time.perf_counter_ns()
    root = sitting.work(lambda done, total: stages("exam", done, total))
    answer = ExamAnswer(gpu=uuid, rows=rows, root=root)
    fill = None
    if fill_mib:
        fill = Fill(memory_on(backend, exam.seed, address, uuid, fill_mib), fill_mib)
        memory_root = fill.work(lambda done, total: stages("filling memory", done, total))
        answer = msgspec.structs.replace(answer, memory_mib=fill_mib, memory_root=memory_root)
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
        memory_mib=fill_mib,
        opening_bytes=len(opening),
        opening_ms=opened // 1_000_000,
        check_ms=0,
    )
    fill_opening = None if fill is None else fill.open(exam.challenge)
    return _Sat(Submission(answer=answer, opening=opening, fill_opening=fill_opening), facts)


def _judged(
    address: Address, looked: HostProbe, claimed: HostEvidence, exam: Exam, sat: _Sat, lists: Lists
) -> SelfTest:
    setup = ExamSetup(exam.seed, exam.shape.inner, exam.shape.columns)
    submissions: Mapping[str, Submission] = {sat.submission.answer.gpu: sat.submission}
    began = time.process_time_ns()
    verdict = judge(address, exam, setup, claimed, submissions, lists, fresh=True)
    check_ms = (time.process_time_ns() - began) // 1_000_000
    rate = sat.facts.giga_operations
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
            duration_ms=sat.facts.duration_ms,
            performance=tuple(rate if gpu.result == "right" else 0 for gpu in verdict.gpus),
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
        exam=msgspec.structs.replace(sat.facts, check_ms=check_ms),
        gpus=scores_of(attestation),
        evidence=claimed,
    )
