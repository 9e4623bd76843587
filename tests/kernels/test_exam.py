"""The kernels of the exam: the same leaves, roots and rows as the reference, on every kernel that multiplies."""

import numpy as np
import pytest

from actors.attestation.devices import examinee_on, measured_rate
from actors.attestation.exam import BackendExaminee, Sitting
from actors.attestation.exam_check import ExamSetup, check_opening
from actors.backends.cpu import CpuBackend
from actors.backends.host.exam import GpuExaminee
from actors.backends.host.matmul import INT8_KERNELS
from actors.backends.on_gpu import GpuBackend
from schemas.attestation import ExamAnswer, ExamShape
from tests.kernels.device import require
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

A, B = "a1" * 32, "b2" * 32


def both(gpu: EmulatedGpu, inner: int, columns: int, kernel: str) -> tuple[GpuExaminee, BackendExaminee]:
    shape = ExamShape(inner=inner, columns=columns, min_rows=1)
    return GpuExaminee(gpu, inner, columns, B, A, 160, kernel), BackendExaminee(CpuBackend(), shape, B, A)


@pytest.mark.parametrize("kernel", list(INT8_KERNELS))
def test_leaves_roots_and_rows_are_those_of_the_reference(gpu: EmulatedGpu, kernel: str) -> None:
    """Rows from the seed, their product and their hashes, for an inner dimension that fills tiles and one that does
    not, and for a segment that is not full."""
    require(gpu, INT8_KERNELS, kernel)
    for inner, columns in ((256, 48), (400, 16)):
        device, reference = both(gpu, inner, columns, kernel)
        for first, count in ((0, 128), (1_000, 33), (2**27, 1)):
            assert list(device.leaves(first, count)) == list(reference.leaves(first, count))
            assert device.root(first, count) == reference.root(first, count)
        np.testing.assert_array_equal(device.rows((3, 70_000, 5)), reference.rows((3, 70_000, 5)))


def test_wide_rows_take_several_blocks(gpu: EmulatedGpu) -> None:
    """An inner dimension of more than 4,096 elements is made by more than one block per row."""
    device, reference = both(gpu, 4_112, 16, "matmul_dp4a")
    assert list(device.leaves(7, 2)) == list(reference.leaves(7, 2))


def test_a_device_passes_the_exam(gpu: EmulatedGpu) -> None:
    """An exam sat on the device, with leaves kept and with roots alone, is found right."""
    shape = ExamShape(inner=256, columns=48, min_rows=16)
    miner, uuid = "U" + "A" * 55, "GPU-1"
    epoch, challenge = "11" * 32, "22" * 32
    examinee = examinee_on(GpuBackend(gpu), shape, epoch, miner, uuid)
    assert isinstance(examinee, GpuExaminee)
    assert measured_rate(examinee, shape) >= 0
    sitting = Sitting(examinee, 100, 32)
    answer = ExamAnswer(gpu=uuid, rows=100, root=sitting.work())
    opening = sitting.open(challenge)
    assert check_opening(ExamSetup(epoch, 256, 48), shape, miner, answer, challenge, opening).passed


def test_impossible_shapes_are_broken_invariants(gpu: EmulatedGpu) -> None:
    """Columns that are no multiple of 16, or more rows than a segment has."""
    with pytest.raises(AssertionError, match="no multiples"):
        GpuExaminee(gpu, 256, 50, B, A, 16)
    with pytest.raises(AssertionError, match="do not fit"):
        GpuExaminee(gpu, 256, 48, B, A, 16).leaves(0, 17)
