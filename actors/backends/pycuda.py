"""A GPU by PyCUDA. Importing this module touches no driver; making a `PyCudaGpu` does."""

import ctypes
import importlib
import importlib.util
import re
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from actors.backends.base import DeviceFault
from actors.backends.build import load
from actors.backends.gpu import Argument, Buffer, Extent, Properties, packable
from events.errors import DeviceUnavailable

# More dynamic shared memory than this has to be asked for.
_DEFAULT_SHARED_BYTES: Final = 48 << 10
_UUID_BYTES: Final = 16
_LIBRARY: Final = "libcuda.so.1"
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9 ._-]+")


class PyCudaBuffer:
    """Memory of the device. When nothing refers to it any more it is ``unused``, and given back by the next call."""

    def __init__(self, allocation: Any, nbytes: int, unused: deque[Any]) -> None:
        self.allocation = allocation
        self._nbytes = nbytes
        weakref.finalize(self, unused.append, allocation).atexit = False

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self._nbytes


class PyCudaGpu:
    """One device in its primary context. Any thread may use it, one at a time.

    ``uuid`` picks the device (``GPU-…``, as nvidia-smi says); without it, the first one that the driver shows is taken.
    Compiled kernels are looked for, and put, in ``kernels``; by default in the user's cache. A kernel that fails
    spoils the context: after a `DeviceFault` the process should end.
    """

    def __init__(self, uuid: str | None = None, kernels: Path | None = None) -> None:
        self._driver = _driver()
        self._kernels = kernels
        # PyCUDA gives nothing back outside of the context, and says nothing of it.
        self._unused: deque[Any] = deque()
        self._modules: dict[str, Any] = {}
        self._functions: dict[tuple[str, str], Any] = {}
        try:
            self._driver.init()
        except self._driver.Error as error:
            raise DeviceUnavailable(
                "there is no GPU", why=str(error), hint="Check nvidia-smi, and that this user may open /dev/nvidia*."
            ) from error
        with self._faults():
            ordinal = self._ordinal(uuid)
            device = self._driver.Device(ordinal)
            self._context: Any = device.retain_primary_context()
            self._properties = self._properties_of(device, ordinal)
            self._shared_bytes = device.get_attribute(self._driver.device_attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)

    @property
    def properties(self) -> Properties:
        """What the driver says."""
        return self._properties

    def put(self, array: npt.NDArray[Any]) -> PyCudaBuffer:
        """See `actors.backends.gpu.Gpu.put`."""
        if not array.flags.c_contiguous:
            raise AssertionError("only C-ordered arrays can be put")
        with self._current():
            buffer = self._allocate(array.nbytes)
            if array.nbytes:
                self._driver.memcpy_htod(buffer.allocation, array)
        return buffer

    def zeros(self, nbytes: int) -> PyCudaBuffer:
        """See `actors.backends.gpu.Gpu.zeros`."""
        with self._current():
            buffer = self._allocate(nbytes)
            self._driver.memset_d8(buffer.allocation, 0, max(nbytes, 1))
        return buffer

    def get(self, buffer: Buffer, dtype: npt.DTypeLike, shape: Sequence[int]) -> npt.NDArray[Any]:
        """See `actors.backends.gpu.Gpu.get`."""
        array = np.empty(tuple(shape), dtype=dtype)
        if array.nbytes > buffer.nbytes:
            raise AssertionError(f"{array.nbytes} bytes cannot come from a buffer of {buffer.nbytes}")
        with self._current():
            if array.nbytes:
                self._driver.memcpy_dtoh(array, _own(buffer).allocation)
            else:
                self._driver.Context.synchronize()
        return array

    def launch(
        self,
        file: str,
        kernel: str,
        grid: Extent,
        block: Extent,
        *arguments: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """See `actors.backends.gpu.Gpu.launch`. Raises `DeviceUnavailable` where the kernel is not compiled."""
        if shared_bytes > self._shared_bytes:
            raise AssertionError(f"{kernel} needs {shared_bytes} bytes of shared memory, not {self._shared_bytes}")
        given = list(map(_given, arguments))
        with self._current():
            function = self._function(file, kernel)
            if shared_bytes > _DEFAULT_SHARED_BYTES:
                most = self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
                function.set_attribute(most, shared_bytes)
            function(*given, grid=grid, block=block, shared=shared_bytes)

    def launch_code(
        self,
        code: bytes,
        kernel: str,
        grid: Extent,
        block: Extent,
        *arguments: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """See `actors.backends.gpu.Gpu.launch_code`."""
        given = list(map(_given, arguments))
        with self._current():
            function = self._driver.module_from_buffer(code).get_function(kernel)
            function(*given, grid=grid, block=block, shared=shared_bytes)

    def synchronize(self) -> None:
        """Wait for all that was launched."""
        with self._current():
            self._driver.Context.synchronize()

    def elapsed_ms(self, work: Any) -> float:
        """Milliseconds that the device was busy with what ``work()`` launches, by its own clock."""
        with self._current():
            begin, end = self._driver.Event(), self._driver.Event()
            begin.record()
            work()
            end.record()
            end.synchronize()
            return float(begin.time_till(end))

    def copy(self, target: PyCudaBuffer, source: PyCudaBuffer) -> None:
        """From one buffer of the device to another of the same size."""
        with self._current():
            self._driver.memcpy_dtod_async(target.allocation, source.allocation, source.nbytes)

    def close(self) -> None:
        """Give the device back; calling it again does nothing. Buffers cannot be used any more."""
        context, self._context = self._context, None
        if context is not None:
            with self._faults():
                context.detach()

    def _allocate(self, nbytes: int) -> PyCudaBuffer:
        return PyCudaBuffer(self._driver.mem_alloc(max(nbytes, 1)), nbytes, self._unused)

    def _function(self, file: str, kernel: str) -> Any:
        key = (file, kernel)
        if key not in self._functions:
            if file not in self._modules:
                code = load(file, self._properties.capability, self._kernels)
                self._modules[file] = self._driver.module_from_buffer(code)
            self._functions[key] = self._modules[file].get_function(kernel)
        return self._functions[key]

    def _ordinal(self, uuid: str | None) -> int:
        count = self._driver.Device.count()
        if count == 0:
            raise DeviceUnavailable(
                "there is no GPU", why="the driver shows none", hint="Check nvidia-smi and CUDA_VISIBLE_DEVICES."
            )
        shown = [_uuid(ordinal) for ordinal in range(count)]
        if uuid is None:
            return 0
        if _digits(uuid) not in map(_digits, shown):
            raise DeviceUnavailable(
                f"there is no GPU {uuid}",
                why=f"the driver shows {', '.join(shown)}",
                hint="Take one of these, or check CUDA_VISIBLE_DEVICES.",
            )
        return list(map(_digits, shown)).index(_digits(uuid))

    def _properties_of(self, device: Any, ordinal: int) -> Properties:
        major, minor = device.compute_capability()
        name = " ".join(_NOT_IN_A_NAME.sub(" ", device.name()).split())[:64].strip(" ._-")
        return Properties(
            name=name or "GPU",
            uuid=_uuid(ordinal),
            memory_bytes=device.total_memory(),
            multiprocessors=device.get_attribute(self._driver.device_attribute.MULTIPROCESSOR_COUNT),
            capability=(major, minor),
        )

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Within the device's context, and out of it again: PyCUDA aborts the process when a thread ends in one."""
        with self._faults():
            self._context.push()
            try:
                while self._unused:
                    self._unused.popleft().free()
                yield
            finally:
                self._driver.Context.pop()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """The driver's errors, as ours."""
        try:
            yield
        except self._driver.MemoryError as error:
            raise MemoryError(f"the GPU has too little memory: {error}") from error
        except self._driver.Error as error:
            raise DeviceFault(f"the GPU has failed: {error}") from error


def _driver() -> ModuleType:
    """PyCUDA's driver module, not yet initialised."""
    if importlib.util.find_spec("pycuda") is None:
        raise DeviceUnavailable(
            "the backend pycuda cannot be used",
            why="PyCUDA is not installed",
            hint="Install it where CUDA is: pip install 'assay-network[gpu]', or `make gpu-check` in a checkout.",
        )
    _load_libraries()
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise DeviceUnavailable(
            "the backend pycuda cannot be used",
            why=str(error),
            hint="Build PyCUDA against the CUDA that is here: pip install --force-reinstall --no-cache-dir pycuda.",
        ) from error


def _load_libraries() -> None:
    """What PyCUDA was linked with, where the linker may not know it: the driver's library, and cuRAND as a package."""
    try:
        ctypes.CDLL(_LIBRARY, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise DeviceUnavailable("there is no GPU", why=str(error), hint="Install NVIDIA's driver.") from error
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in sorted(Path(folder).glob("*/lib/libcurand.so.*")):
            with suppress(OSError):
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _given(argument: Argument) -> Any:
    """What PyCUDA takes for it."""
    return packable(argument) if isinstance(argument, np.generic) else _own(argument).allocation


def _own(buffer: Any) -> PyCudaBuffer:
    if not isinstance(buffer, PyCudaBuffer):
        raise AssertionError(f"{buffer!r} is not a buffer of this device")
    return buffer


def _uuid(ordinal: int) -> str:
    """A device's UUID, as nvidia-smi writes it. PyCUDA has no name for the driver's function."""
    library = ctypes.CDLL(_LIBRARY)
    content = (ctypes.c_ubyte * _UUID_BYTES)()
    ask = getattr(library, "cuDeviceGetUuid_v2", None) or library.cuDeviceGetUuid
    status = ask(content, ctypes.c_int(ordinal))
    if status:
        raise DeviceFault(f"the driver tells no UUID of device {ordinal}: error {status}")
    digits = bytes(content).hex()
    return "GPU-" + "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _digits(uuid: str) -> str:
    """What counts in a UUID, however it is written."""
    return re.sub(r"^(GPU|MIG)-|-", "", uuid).lower()
