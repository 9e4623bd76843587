"""The service kernel.custom: what is launched, what is checked, and what a source may reach."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.on_gpu import GpuBackend
from actors.sandbox import JobFailed, Limits, Sandbox
from actors.sandbox_messages import FailureCode
from actors.services.base import Accepted, Rejected, RejectionCode
from actors.services.kernel_custom import (
    CODE_NAME,
    check_inputs,
    compile_source,
    compute,
    memory_needed,
    result_sizes,
    verify,
)
from events.errors import BadInput, DeviceUnavailable
from events.merkle import root
from schemas.services.custom import InputBuffer, KernelCustom, OutputBuffer, Scalar
from tests.kernels.emulator.compiled import compiler
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

SOURCE = b"""
extern "C" __global__ void scale(const int *values, int factor, unsigned count, int *scaled, unsigned *indices) {
    unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) {
        scaled[index] = values[index] * factor;
        indices[index] = index;
    }
}
"""
VALUES = np.arange(-100, 100, dtype="<i4")
SEED = "5e" * 32


def work_of(source: bytes, **changes: Any) -> KernelCustom:
    work = KernelCustom(
        source=sha256(source).hexdigest(),
        size=len(source),
        entry="scale",
        architecture=80,
        grid=(4, 1, 1),
        block=(64, 1, 1),
        arguments=(
            InputBuffer(digest=sha256(VALUES.tobytes()).hexdigest(), element="int32", length=VALUES.size),
            Scalar(element="int32", bytes="fdffffff"),
            Scalar(element="uint32", bytes="c8000000"),
            OutputBuffer(element="int32", length=VALUES.size),
            OutputBuffer(element="uint32", length=VALUES.size),
        ),
    )
    return msgspec.structs.replace(work, **changes)


def blobs_in(directory: Path, source: bytes = SOURCE) -> dict[str, Path]:
    blobs = {}
    for content in (source, VALUES.tobytes()):
        path = directory / sha256(content).hexdigest()
        path.write_bytes(content)
        blobs[path.name] = path
    return blobs


def test_the_outputs_are_the_result(tmp_path: Path) -> None:
    """Inputs, numbers and outputs reach the kernel in their order; the outputs follow each other in the file."""
    if compiler() is None:
        pytest.skip("needs a C++ compiler")
    work, blobs, result = work_of(SOURCE), blobs_in(tmp_path), tmp_path / "result"
    assert work.inconsistency() is None
    check_inputs(work, blobs)
    # The emulated GPU compiles the source itself.
    (tmp_path / CODE_NAME).write_bytes(SOURCE)
    computed = compute(work, blobs, GpuBackend(EmulatedGpu()), result)
    scaled, indices = VALUES * np.int32(-3), np.arange(200, dtype="<u4")
    assert result.read_bytes() == scaled.tobytes() + indices.tobytes()
    assert computed.root == root([scaled.tobytes(), indices.tobytes()]).hex()
    assert computed.size in result_sizes(work)
    assert memory_needed(work) > computed.size
    assert verify(work, blobs, result, computed.root, SEED) == Accepted(error_bits=0, method="unverified")


def test_only_the_form_is_judged(tmp_path: Path) -> None:
    """Another size, or bytes that are not those of the root, are rejected; wrong numbers under their root are not."""
    work, blobs = work_of(SOURCE), blobs_in(tmp_path)
    wrong = bytes(1_600)
    its_root = root([wrong[:800], wrong[800:]]).hex()
    assert isinstance(verify(work, blobs, wrong, its_root, SEED), Accepted)
    short = verify(work, blobs, wrong[1:], its_root, SEED)
    assert isinstance(short, Rejected)
    assert short.code is RejectionCode.MALFORMED
    other = verify(work, blobs, b"\x01" + wrong[1:], its_root, SEED)
    assert isinstance(other, Rejected)
    assert other.code is RejectionCode.ROOT_MISMATCH


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 300_000}, "at most 262144"),
        ({"block": (64, 64, 1)}, "4096 threads"),
        ({"arguments": (Scalar(element="int8", bytes="00"),)}, "no result"),
        ({"arguments": (Scalar(element="int32", bytes="00"), OutputBuffer(element="int8", length=1))}, "has 1 bytes"),
        ({"arguments": (OutputBuffer(element="float64", length=1 << 24),)}, "argument 0 has more"),
        ({"arguments": (OutputBuffer(element="int8", length=60_000_000),) * 2}, "together"),
    ],
)
def test_what_cannot_be_launched_is_named(change: dict[str, Any], words: str) -> None:
    """Contradictions are found before anybody is paid."""
    assert words in str(work_of(SOURCE, **change).inconsistency())


def test_blobs_of_another_size_are_refused(tmp_path: Path) -> None:
    """A source or a buffer that is not as the work says is the client's fault."""
    work, blobs = work_of(SOURCE), blobs_in(tmp_path)
    with pytest.raises(BadInput, match="the source is refused"):
        check_inputs(msgspec.structs.replace(work, size=1), blobs)
    blobs[work.arguments[0].digest].write_bytes(b"1")  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="argument 0 is refused"):
        check_inputs(work, blobs)
    latin = "\u00e9".encode("latin-1")
    with pytest.raises(BadInput, match="UTF-8"):
        check_inputs(work_of(latin), blobs_in(tmp_path, latin))


def test_the_processor_runs_no_cuda(tmp_path: Path) -> None:
    """It says so."""
    (tmp_path / CODE_NAME).write_bytes(SOURCE)
    with pytest.raises(DeviceUnavailable, match="cpu"):
        compute(work_of(SOURCE), blobs_in(tmp_path), CpuBackend(), tmp_path / "result")


def has_nvcc(directory: Path) -> bool:
    try:
        compile_source(work_of(b"//"), blobs_in(directory, b"//"), directory / "out")
    except DeviceUnavailable:
        return False
    return True


async def test_a_source_is_compiled_in_the_jail_and_nowhere_else(tmp_path: Path) -> None:
    """It cannot include what the host has, nor compile for ever; a good one goes on to the device, which is none."""
    (tmp_path / "trial").mkdir()
    if not has_nvcc(tmp_path / "trial"):
        pytest.skip("needs nvcc")
    secret = tmp_path / "seed.txt"
    secret.write_text("SU")
    place = tmp_path / "job"
    place.mkdir()
    cases = (
        (SOURCE, 60_000, FailureCode.NO_DEVICE, "cpu"),
        (f'#include "{secret}"\n'.encode() + SOURCE, 60_000, FailureCode.BAD_INPUT, "No such file"),
        (b'extern "C" __global__ void scale(int *x) { oops }', 60_000, FailureCode.BAD_INPUT, "oops"),
        (b'#include "/dev/zero"\n' + SOURCE, 3_000, None, ""),
    )
    async with Sandbox() as sandbox:
        whole = {"namespaces", "filter"} <= set(sandbox.walls)
        for source, wall_ms, code, words in cases:
            work, blobs = work_of(source), blobs_in(place, source)
            limits = Limits(wall_ms=wall_ms, memory_bytes=memory_needed(work), output_bytes=4_096)
            outcome = await sandbox.run(work, blobs, place, limits)
            assert isinstance(outcome, JobFailed)
            if not whole:
                assert outcome.code is FailureCode.NO_JAIL
            elif code is not None:
                assert outcome.code is code, outcome
                assert words in outcome.detail
