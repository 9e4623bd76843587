"""A `Gpu` that keeps the device's own time of each launch, and the bandwidth of a plain copy beside it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from actors.backends.gpu import Argument, Buffer, Extent, Properties
from actors.backends.pycuda import PyCudaGpu

COPY_BYTES: Final = 1 << 30
COPIES: Final = 10


class TimedGpu:
    """Passes everything on; ``milliseconds`` has the time of all launches of each kernel since `reset`."""

    def __init__(self, gpu: PyCudaGpu) -> None:
        self._gpu = gpu
        self.milliseconds: dict[str, float] = defaultdict(float)

    @property
    def properties(self) -> Properties:
        """Those of the device."""
        return self._gpu.properties

    def reset(self) -> None:
        """Forget all times."""
        self.milliseconds.clear()

    def put(self, array: npt.NDArray[Any]) -> Buffer:
        """Pass it on."""
        return self._gpu.put(array)

    def zeros(self, nbytes: int) -> Buffer:
        """Pass it on."""
        return self._gpu.zeros(nbytes)

    def get(self, buffer: Buffer, dtype: npt.DTypeLike, shape: Sequence[int]) -> npt.NDArray[Any]:
        """Pass it on."""
        return self._gpu.get(buffer, dtype, shape)

    def launch(
        self, file: str, kernel: str, grid: Extent, block: Extent, *arguments: Argument, shared_bytes: int = 0
    ) -> None:
        """Launch, and wait for the end."""
        self.milliseconds[kernel] += self._gpu.elapsed_ms(
            lambda: self._gpu.launch(file, kernel, grid, block, *arguments, shared_bytes=shared_bytes)
        )

    def launch_code(
        self, code: bytes, kernel: str, grid: Extent, block: Extent, *arguments: Argument, shared_bytes: int = 0
    ) -> None:
        """Pass it on."""
        self._gpu.launch_code(code, kernel, grid, block, *arguments, shared_bytes=shared_bytes)


def copy_bandwidth(gpu: PyCudaGpu) -> float:
    """Bytes read and written in a second by copies within the device's memory."""
    source, target = gpu.zeros(COPY_BYTES), gpu.zeros(COPY_BYTES)

    def copies() -> None:
        for _ in range(COPIES):
            gpu.copy(target, source)

    gpu.elapsed_ms(copies)
    best = min(gpu.elapsed_ms(copies) for _ in range(3))
    return 2 * COPIES * COPY_BYTES / (best / 1_000)


def cupy_milliseconds(name: str) -> float | None:
    """How long CuPy (cuBLAS) takes for the same work as the case ``name``; None where it is not installed."""
    try:
        import cupy
    except ImportError:
        return None
    works = {
        "matmul_fp16": lambda: (cupy.ones((8_192, 8_192), cupy.float16), cupy.matmul),
        "sort": lambda: (cupy.random.randint(-(2**31), 2**31, 1 << 26, dtype=cupy.int32), lambda a, _: cupy.sort(a)),
    }
    if name not in works:
        return None
    operand, work = works[name]()
    times = []
    for _ in range(4):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        work(operand, operand)
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end))
    return float(np.min(times[1:]))
