"""What a device that computes must be able to do; the CPU and every GPU implement it, with the same bits as result."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.events import Device

Int8Array: TypeAlias = npt.NDArray[np.int8]
Int32Array: TypeAlias = npt.NDArray[np.int32]

# Called with (steps done, steps in all), from the thread that called the backend, never more often than once per step.
Progress: TypeAlias = Callable[[int, int], None]


class DeviceFault(Exception):
    """The device has failed: a kernel crashed, or the driver says that it is gone."""


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class Backend(Protocol):
    """A way to compute on one device. Its results are exact, so that any other backend can check them bit for bit."""

    @property
    def name(self) -> str:
        """Which implementation this is: ``cpu``, ``pycuda``."""

    def devices(self) -> tuple[Device, ...]:
        """The devices as the miner will announce them."""

    def multiply(self, a: Int8Array, b: Int8Array, progress: Progress = no_progress) -> Int32Array:
        """The exact product of ``a`` (m × K) and ``b`` (K × n), C-ordered m × n.

        K is at most ``schemas.services.MAX_INNER``. Raises `MemoryError` where the device has too little memory.
        """
