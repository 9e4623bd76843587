"""What a kernel's host code needs of a GPU: memory, compiled kernels, launches, results.

PyCUDA is one (`actors.backends.pycuda`); the tests have another, which compiles the same kernels for the CPU.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Extent: TypeAlias = tuple[int, int, int]
# What a kernel is given: a buffer, or a scalar with the width that the kernel declares.
Argument: TypeAlias = "Buffer | np.generic"


# What a driver packs, by NumPy's letters: integers of all widths, float32, float64.
_PACKED: Final = frozenset("bBhHiIlLqQfd")


def packable(scalar: np.generic) -> np.generic:
    """A scalar as drivers' bindings take it: PyCUDA has no half, so a float16 goes as the word of its bits.

    Raises `AssertionError` for what no kernel of ours is given: truth values, complex numbers, text.
    """
    if isinstance(scalar, np.float16):
        return scalar.view(np.uint16)
    if scalar.dtype.char not in _PACKED:
        raise AssertionError(f"{scalar!r} cannot be given to a kernel")
    return scalar


class Buffer(Protocol):
    """Memory of the device."""

    @property
    def nbytes(self) -> int: ...


class Properties(Struct, frozen=True, kw_only=True):
    """What decides on how to launch."""

    name: str
    uuid: str
    memory_bytes: int
    multiprocessors: int
    capability: tuple[int, int]


class Gpu(Protocol):
    """One device. Work is in order: a launch sees what was put before, `get` waits for what was launched before.

    Every method may raise `actors.backends.base.DeviceFault`; memory that is not there raises `MemoryError`.
    """

    @property
    def properties(self) -> Properties: ...

    def put(self, array: npt.NDArray[Any]) -> Buffer:
        """A copy of a C-ordered array in the device's memory."""

    def zeros(self, nbytes: int) -> Buffer:
        """Memory full of zeros."""

    def get(self, buffer: Buffer, dtype: npt.DTypeLike, shape: Sequence[int]) -> npt.NDArray[Any]:
        """A copy of the buffer's beginning."""

    def launch(
        self,
        file: str,
        kernel: str,
        grid: Extent,
        block: Extent,
        *arguments: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """Start ``kernel`` of ``actors/kernels/<file>.cu`` (declared ``extern "C"``)."""

    def launch_code(
        self,
        code: bytes,
        kernel: str,
        grid: Extent,
        block: Extent,
        *arguments: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """Start ``kernel`` of a compiled program that is none of ours."""
