"""A `Gpu` without a GPU: the same kernels and the same host code, on the CPU, thread for thread."""

import ctypes
import mmap
import weakref
from collections.abc import Sequence
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from actors.backends.base import DeviceFault
from actors.backends.gpu import Argument, Extent, Properties, packable
from tests.kernels.emulator.compiled import library, library_of

_PAGE: Final = mmap.PAGESIZE
_ALIGNMENT: Final = 16
_GUARD: Final = 0x5A
_MAX_THREADS: Final = 1_024
_MAX_SHARED_BYTES: Final = 227 << 10
_DEADLOCK, _FAULT = 1, 2
# The emulator's state is global to each library, and its handler of faults to the process.
_ONE_AT_A_TIME: Final = Lock()

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class EmulatedBuffer:
    """Memory that ends where a page begins that nobody may touch; the few bytes between are checked for writes.

    It starts after a page of that kind too, though not at once: reads before it may go unseen.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        rounded = -(-max(nbytes, 1) // _ALIGNMENT) * _ALIGNMENT
        inner = -(-rounded // _PAGE) * _PAGE
        anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        base = _libc.mmap(None, inner + 2 * _PAGE, 0, anonymous, -1, 0)
        if base in {None, ctypes.c_void_p(-1).value}:
            raise MemoryError(f"no {nbytes} bytes")
        weakref.finalize(self, _libc.munmap, base, inner + 2 * _PAGE)
        if _libc.mprotect(base + _PAGE, inner, mmap.PROT_READ | mmap.PROT_WRITE):
            raise MemoryError(f"no {nbytes} bytes")
        whole = np.frombuffer((ctypes.c_uint8 * inner).from_address(base + _PAGE), dtype=np.uint8)
        start = inner - rounded
        self.address = base + _PAGE + start
        self.content = whole[start : start + nbytes]
        self._around = [whole[:start], whole[start + nbytes :]]
        for guard in self._around:
            guard.fill(_GUARD)

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def check(self) -> None:
        """Raises `DeviceFault` where something was written beside the buffer."""
        if any(np.any(guard != _GUARD) for guard in self._around):
            raise DeviceFault(f"a kernel has written beside a buffer of {self._nbytes} bytes")


class EmulatedGpu:
    """Threads and blocks run in order, or, ``backward``, in the opposite one: the results must not differ."""

    def __init__(self, *, capability: tuple[int, int] = (8, 0), backward: bool = False) -> None:
        self._capability = capability
        self._backward = backward
        self.launched: list[str] = []

    @property
    def properties(self) -> Properties:
        return Properties(
            name="emulated",
            uuid="GPU-00000000-0000-0000-0000-000000000000",
            memory_bytes=1 << 30,
            multiprocessors=2,
            capability=self._capability,
        )

    def put(self, array: npt.NDArray[Any]) -> EmulatedBuffer:
        if not array.flags.c_contiguous:
            raise AssertionError("only C-ordered arrays can be put")
        buffer = EmulatedBuffer(array.nbytes)
        buffer.content[:] = np.frombuffer(array.tobytes(), dtype=np.uint8)
        return buffer

    def zeros(self, nbytes: int) -> EmulatedBuffer:
        buffer = EmulatedBuffer(nbytes)
        buffer.content.fill(0)
        return buffer

    def get(self, buffer: Any, dtype: npt.DTypeLike, shape: Sequence[int]) -> npt.NDArray[Any]:
        buffer.check()
        wanted = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(buffer.content[: count * wanted.itemsize].tobytes(), dtype=wanted).reshape(shape)

    def launch(
        self,
        file: str,
        kernel: str,
        grid: Extent,
        block: Extent,
        *arguments: Argument,
        shared_bytes: int = 0,
    ) -> None:
        self._launch(library(file), kernel, grid, block, *arguments, shared_bytes=shared_bytes)

    def launch_code(
        self,
        code: bytes,
        kernel: str,
        grid: Extent,
        block: Extent,
        *arguments: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """``code`` is the source itself: nothing else can be run here."""
        self._launch(library_of(code.decode(), "code"), kernel, grid, block, *arguments, shared_bytes=shared_bytes)

    def _launch(
        self,
        built: ctypes.CDLL,
        kernel: str,
        grid: Extent,
        block: Extent,
        *arguments: Argument,
        shared_bytes: int = 0,
    ) -> None:
        _check_extents(grid, block, shared_bytes)
        values = [
            ctypes.c_void_p(argument.address) if isinstance(argument, EmulatedBuffer) else _scalar(argument)
            for argument in arguments
        ]
        sizes = (ctypes.c_size_t * len(values))(*(ctypes.sizeof(value) for value in values))
        wrong = built[f"mismatch_{kernel}"](ctypes.c_size_t(len(values)), sizes)
        if wrong:
            what = "the number of arguments" if wrong < 0 else f"the width of argument {wrong}"
            raise AssertionError(f"{kernel}: {what} is not as declared")
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        geometry = (ctypes.c_uint * 6)(*grid, *block)
        with _ONE_AT_A_TIME:
            outcome = built[f"launch_{kernel}"](pointers, geometry, ctypes.c_size_t(shared_bytes), int(self._backward))
            position = (ctypes.c_uint * 6)()
            built.emulator_position(position)
        self.launched.append(kernel)
        if outcome == _DEADLOCK:
            raise DeviceFault(f"{kernel}: threads of block {tuple(position[:3])} wait for others that do not come")
        if outcome == _FAULT:
            where = f"thread {tuple(position[3:])} of block {tuple(position[:3])}"
            raise DeviceFault(f"{kernel}: {where} has touched memory that is not its own")
        for argument in arguments:
            if isinstance(argument, EmulatedBuffer):
                argument.check()


def _scalar(argument: Any) -> Any:
    """The scalar, in memory of its width."""
    if not isinstance(argument, np.generic):
        raise AssertionError(f"{argument!r} is neither a buffer nor a NumPy scalar")
    taken = packable(argument)
    return ctypes.create_string_buffer(taken.tobytes(), taken.nbytes)


def _check_extents(grid: Extent, block: Extent, shared_bytes: int) -> None:
    """What a driver would refuse."""
    threads = block[0] * block[1] * block[2]
    if min(*grid, *block) < 1 or threads > _MAX_THREADS or block[2] > 64:
        raise AssertionError(f"blocks of {block} in a grid of {grid} cannot be launched")
    if grid[0] >= 2**31 or max(grid[1:]) >= 2**16 or shared_bytes > _MAX_SHARED_BYTES:
        raise AssertionError(f"a grid of {grid} with {shared_bytes} bytes of shared memory cannot be launched")
