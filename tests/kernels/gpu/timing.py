"""A `Gpu` that keeps the device's own time of each launch, and what the device can do at most, to compare it with."""

import ctypes
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from actors.backends.gpu import Argument, Buffer, Extent, Properties
from actors.backends.pycuda import PyCudaGpu, _uuid

COPY_BYTES: Final = 1 << 30
COPIES: Final = 10
REPEATS: Final = 5
_CLOCK_RATE: Final = 13  # CU_DEVICE_ATTRIBUTE_CLOCK_RATE, in kHz
# Lanes of a multiprocessor for 32-bit integers and for floats, by compute capability; see the table of arithmetic
# throughput in the CUDA C++ programming guide. Cards that are not here are like Hopper.
_LANES: Final = {(7, 0): (64, 64), (7, 5): (64, 64), (8, 0): (64, 64), (12, 0): (128, 128)}
_LANES_OF_OTHERS: Final = (64, 128)


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


class Ceilings(Struct, frozen=True, kw_only=True):
    """What a device does at most in a second: bytes read and written by a copy, measured; 32-bit operations of integers
    and of floats, by its clock, 0 where the driver tells none."""

    copied_bytes: float
    integer_operations: float
    float_operations: float

    def least_ms(self, moved_bytes: float, integers: float, floats: float) -> tuple[str, float] | None:
        """What bounds so much work, and how long that takes; None where nothing known does."""
        bounds = (
            ("copy", moved_bytes, self.copied_bytes),
            ("integers", integers, self.integer_operations),
            ("floats", floats, self.float_operations),
        )
        return max(
            ((name, 1_000 * amount / rate) for name, amount, rate in bounds if amount and rate),
            key=lambda bound: bound[1],
            default=None,
        )


def ceilings(gpu: PyCudaGpu) -> Ceilings:
    """Those of this device."""
    source, target = gpu.zeros(COPY_BYTES), gpu.zeros(COPY_BYTES)

    def copies() -> None:
        for _ in range(COPIES):
            gpu.copy(target, source)

    integers, floats = _LANES.get(gpu.properties.capability, _LANES_OF_OTHERS)
    lanes = gpu.properties.multiprocessors * clock_hz(gpu.properties.uuid)
    return Ceilings(
        copied_bytes=2 * COPIES * COPY_BYTES / (median_ms(lambda: gpu.elapsed_ms(copies)) / 1_000),
        integer_operations=integers * lanes,
        float_operations=floats * lanes,
    )


def clock_hz(uuid: str) -> float:
    """The highest clock of a device's multiprocessors; 0 where the driver does not tell it."""
    library, count, kilohertz = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)):
        return 0.0
    ordinal = next((each for each in range(count.value) if _uuid(each) == uuid), 0)
    if library.cuDeviceGetAttribute(ctypes.byref(kilohertz), _CLOCK_RATE, ordinal):
        return 0.0
    return 1_000.0 * kilohertz.value


def median_ms(measure: Callable[[], float]) -> float:
    """Of some runs, after one that does not count: it loads what is not loaded yet."""
    measure()
    return float(np.median([measure() for _ in range(REPEATS)]))
