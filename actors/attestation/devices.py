"""What sits an exam on which backend, how fast it is, and how much memory it fills."""

import time
from typing import Final

from actors.attestation.exam import (
    SEGMENT,
    BackendExaminee,
    Examinee,
    a_seed,
    b_seed,
    operations,
)
from actors.attestation.fill import STEPS, HostMemory, Memory, fill_seed
from actors.attestation.judge import reports
from actors.backends.base import Backend
from actors.backends.host.exam import CHUNK, GpuExaminee
from actors.backends.host.fill import GpuMemory
from actors.backends.on_gpu import GpuBackend
from projections.attestation import FILLED_SHARE_BPS
from schemas.attestation import ExamShape, GpuEvidence
from schemas.values import Address, Digest

CALIBRATION_ROWS: Final = 64
CALIBRATION_NS: Final = 20_000_000
# Walks that a GPU makes at once.
WALKS: Final = 1 << 17
# Of a GPU's memory, what the rows of one segment may take.
SEGMENT_SHARE: Final = 4


def examinee_on(backend: Backend, shape: ExamShape, epoch: Digest, address: Address, uuid: str) -> Examinee:
    """What sits the exam of the device ``uuid`` on this backend: wholly on the device where there is one, and where the
    kernels can work with the shape."""
    b, a = b_seed(epoch), a_seed(epoch, address, uuid)
    if not isinstance(backend, GpuBackend) or shape.inner % CHUNK or shape.columns % CHUNK:
        return BackendExaminee(backend, shape, b, a)
    room = backend.gpu.properties.memory_bytes // SEGMENT_SHARE // (shape.inner + 4 * shape.columns + 64)
    segment = min(SEGMENT, 1 << max(0, room.bit_length() - 1))
    return GpuExaminee(backend.gpu, shape.inner, shape.columns, b, a, segment)


def memory_on(backend: Backend, epoch: Digest, address: Address, uuid: str, memory_mib: int) -> Memory:
    """The memory that is filled: that of the device where there is one."""
    seed = fill_seed(epoch, address, uuid)
    if isinstance(backend, GpuBackend):
        return GpuMemory(backend.gpu, seed, memory_mib, STEPS, WALKS)
    return HostMemory(seed, memory_mib)


def fill_for(gpu: GpuEvidence, counted_mib: int) -> int:
    """The MiB to fill so that ``counted_mib`` of this device count, or all that its sources grant it where that is
    less. Nothing where none grants any, as with a processor."""
    granted = [report.memory_mib for report in reports(gpu) if isinstance(report.memory_mib, int)]
    return -(-min([counted_mib, *granted]) * FILLED_SHARE_BPS // 10_000) if granted else 0


def measured_rate(examinee: Examinee, shape: ExamShape) -> int:
    """Giga-operations a second, by a short piece of the work.

    The first run, which loads kernels, does not count; and a piece that is over too soon would measure how long a
    launch takes, not how fast the device is.
    """
    rows = min(CALIBRATION_ROWS, examinee.segment)
    examinee.root(0, rows)
    while True:
        began = time.perf_counter_ns()
        examinee.root(0, rows)
        spent = max(1, time.perf_counter_ns() - began)
        if spent >= CALIBRATION_NS or rows >= examinee.segment:
            return operations(shape, rows) // spent
        rows = min(4 * rows, examinee.segment)
