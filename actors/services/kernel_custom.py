"""The service ``kernel.custom``: one launch of the client's own kernel.

The source is compiled to PTX by ``nvcc``, in the jail and before anything else (`compile_source`); the program is
launched once, with its buffers and numbers in the order of the work; the result is its output buffers one after the
other. The root that the miner commits to has one leaf for each output.

**Check.** Of the form only: the size, and the root. What the kernel should have computed nobody knows, so nobody can
verify it: the verdict says so, and so does everything that shows the result. Who needs more asks several miners and
compares, which takes a kernel whose result does not depend on the order of its threads.
"""

import shutil
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from actors.backends.base import Backend, Launch, LaunchArgument, Progress, UInt8Array, no_progress
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from events.errors import BadInput, DeviceUnavailable
from events.merkle import leaf_hash, root_of_hashes
from schemas.services.custom import ELEMENT_BYTES, InputBuffer, KernelCustom, OutputBuffer
from schemas.values import Digest

SUFFIX: Final = "bin"
# Where `compile_source` leaves the program, in the job's directory.
CODE_NAME: Final = "kernel.ptx"
FIXED_BYTES: Final = 512 << 20
COMPILER_BYTES: Final = 4 << 30
COMPILER_FILE_BYTES: Final = 64 << 20
_CUDA_BIN: Final = "/usr/local/cuda/bin"
_LAST_LINES: Final = 8


def result_sizes(work: KernelCustom) -> range:
    """One size only: the outputs have no header."""
    size = sum(work.output_sizes())
    return range(size, size + 1)


def memory_needed(work: KernelCustom, threads: int = 1) -> int:
    """Bytes of the host's memory for the buffers, with room for CUDA's own."""
    inputs = (each for each in work.arguments if isinstance(each, InputBuffer))
    return sum(each.length * ELEMENT_BYTES[each.element] for each in inputs) + sum(work.output_sizes()) + FIXED_BYTES


def check_inputs(work: KernelCustom, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when a blob has another size than the work says, or the source is no text."""
    _source(work, blobs)
    _inputs(work, blobs)


def compile_source(work: KernelCustom, blobs: Mapping[Digest, Path], output: Path) -> None:
    """Compile the source to PTX. The source can name any file to include: this belongs into a jail.

    Raises `BadInput` with the compiler's last words, and `DeviceUnavailable` where there is no compiler.
    """
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=_CUDA_BIN)
    if nvcc is None:
        raise DeviceUnavailable(
            "the source cannot be compiled",
            why="there is no nvcc",
            hint="Install the CUDA toolkit on the miner's host.",
        )
    command = [nvcc, "-x", "cu", "-std=c++17", "-ptx", f"-arch=compute_{work.architecture}", "-o", str(output), "-"]
    done = subprocess.run(
        command,
        input=_source(work, blobs),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": f"{_CUDA_BIN}:/usr/local/bin:/usr/bin:/bin", "TMPDIR": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108
        check=False,
    )
    if done.returncode:
        words = done.stdout.decode("utf-8", errors="replace").strip().splitlines()[-_LAST_LINES:]
        raise BadInput(
            "the source cannot be compiled",
            why="\n".join(words) or f"nvcc ended with exit code {done.returncode}",
            hint=f"Try `nvcc -ptx -arch=compute_{work.architecture}` on it.",
        )


def compute(
    work: KernelCustom,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Launch what `compile_source` has left beside ``result``. Raises `BadInput`, `DeviceUnavailable`, `DeviceFault`,
    `MemoryError`, `OSError`."""
    code = (result.parent / CODE_NAME).read_bytes()
    outputs = backend.run_code(code, _launch(work), _inputs(work, blobs))
    digest = sha256()
    with result.open("xb") as file:
        for output in outputs:
            content = output.tobytes()
            digest.update(content)
            file.write(content)
    progress(1, 1)
    return Computed(root=_root(work, result.read_bytes()), digest=digest.hexdigest(), size=result.stat().st_size)


def verify(
    work: KernelCustom,
    blobs: Mapping[Digest, Path],
    result: Path | bytes,
    root: Digest,
    seed: Digest,
    threads: int = 0,
) -> Verdict:
    """Check the form: that is all there is to check. See `actors.services.base.Service.verify`."""
    content = result if isinstance(result, bytes) else result.read_bytes()
    expected = sum(work.output_sizes())
    if len(content) != expected:
        return Rejected(code=RejectionCode.MALFORMED, detail=f"the result has {len(content)} bytes, not {expected}")
    found = _root(work, content)
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the outputs have the root {found}, {root} was committed"
        )
    return Accepted(error_bits=0, method="unverified")


def _source(work: KernelCustom, blobs: Mapping[Digest, Path]) -> bytes:
    source = blobs[work.source].read_bytes()
    if len(source) != work.size:
        raise BadInput("the source is refused", why=f"it has {len(source)} bytes, the work says {work.size}")
    try:
        source.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput("the source is refused", why=f"it is not UTF-8: {error.reason}") from error
    return source


def _inputs(work: KernelCustom, blobs: Mapping[Digest, Path]) -> list[UInt8Array]:
    arrays = []
    for number, argument in enumerate(work.arguments):
        if not isinstance(argument, InputBuffer):
            continue
        expected, found = argument.length * ELEMENT_BYTES[argument.element], blobs[argument.digest].stat().st_size
        if found != expected:
            raise BadInput(
                f"argument {number} is refused",
                why=f"its blob has {found} bytes; {argument.length} {argument.element} are {expected}",
                hint="A buffer is raw little-endian elements, without a header: numpy's tofile writes it.",
            )
        arrays.append(np.fromfile(blobs[argument.digest], dtype=np.uint8))
    return arrays


def _launch(work: KernelCustom) -> Launch:
    arguments: list[LaunchArgument] = []
    for argument in work.arguments:
        if isinstance(argument, InputBuffer):
            arguments.append(None)
        elif isinstance(argument, OutputBuffer):
            arguments.append(argument.length * ELEMENT_BYTES[argument.element])
        else:
            little_endian = np.dtype(argument.element).newbyteorder("<")
            arguments.append(np.frombuffer(bytes.fromhex(argument.bytes), dtype=little_endian)[0])
    return Launch(
        entry=work.entry,
        grid=work.grid,
        block=work.block,
        shared_bytes=work.shared_bytes,
        arguments=tuple(arguments),
    )


def _root(work: KernelCustom, content: bytes) -> Digest:
    """Over the outputs."""
    leaves, start = [], 0
    for size in work.output_sizes():
        leaves.append(leaf_hash(content[start : start + size]))
        start += size
    return root_of_hashes(leaves).hex()
