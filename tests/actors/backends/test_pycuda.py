"""`PyCudaGpu` on a stand-in for PyCUDA's driver module, which keeps memory and notes what it is asked for."""

import struct
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.backends import pycuda as ours
from actors.backends.base import DeviceFault
from actors.backends.pycuda import PyCudaGpu
from events.errors import DeviceUnavailable

UUIDS = ("GPU-00000000-0000-0000-0000-000000000001", "GPU-00000000-0000-0000-0000-00000000000a")


class Driver:
    """The part of pycuda.driver that is used, for two devices with 1,000 bytes each."""

    class Error(Exception):
        """The base of all errors, as PyCUDA has it."""

    class OutOfMemory(Error):
        """Too little memory; PyCUDA calls it MemoryError."""

    class LaunchError(Error):
        """A kernel failed."""

    def __init__(self) -> None:
        self.depth, self.free_bytes, self.said, self.broken = 0, 1_000, [], False
        self.numbers: list[np.generic] = []
        self.MemoryError = self.OutOfMemory
        driver = self

        class Device:
            count = staticmethod(lambda: len(UUIDS))

            def __init__(self, ordinal: int) -> None:
                self.ordinal = ordinal

            def name(self) -> str:
                return "NVIDIA (tm)  Card"

            def total_memory(self) -> int:
                return 1_000

            def compute_capability(self) -> tuple[int, int]:
                return 8, 6

            def get_attribute(self, attribute: int) -> int:
                return attribute

            def retain_primary_context(self) -> Any:
                return SimpleNamespace(push=driver.push, detach=lambda: driver.said.append("detached"))

        self.Device = Device
        self.Context = SimpleNamespace(pop=self.pop, synchronize=lambda: None)
        self.device_attribute = SimpleNamespace(MULTIPROCESSOR_COUNT=84, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=101_376)
        self.function_attribute = SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def init(self) -> None:
        if self.broken:
            raise self.Error("cuInit failed")

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1

    def mem_alloc(self, nbytes: int) -> Any:
        assert self.depth == 1
        if nbytes > self.free_bytes:
            raise self.OutOfMemory("cuMemAlloc failed: out of memory")
        self.free_bytes -= nbytes
        return SimpleNamespace(content=bytearray(nbytes), free=lambda: self.freed(nbytes))

    def freed(self, nbytes: int) -> None:
        assert self.depth == 1
        self.free_bytes += nbytes

    def memset_d8(self, allocation: Any, value: int, nbytes: int) -> None:
        allocation.content[:nbytes] = bytes([value]) * nbytes

    def memcpy_htod(self, allocation: Any, array: np.ndarray) -> None:
        allocation.content[: array.nbytes] = array.tobytes()

    def memcpy_dtoh(self, array: np.ndarray, allocation: Any) -> None:
        if self.broken:
            raise self.LaunchError("an illegal memory access was encountered")
        array[...] = np.frombuffer(allocation.content[: array.nbytes], array.dtype).reshape(array.shape)

    def module_from_buffer(self, code: bytes) -> Any:
        self.said.append(f"module of {len(code)} bytes")

        def function(*arguments: Any, **options: Any) -> None:
            # PyCUDA packs numbers by the letters of their types, and its own table of them has no half.
            for number in (argument for argument in arguments if isinstance(argument, np.generic)):
                if not isinstance(number, np.number):
                    raise TypeError("invalid type on parameter")
                if number.dtype.char not in "bBhHiIlLqQfdFD":
                    raise struct.error("bad char in struct format")
            self.numbers = [argument for argument in arguments if isinstance(argument, np.generic)]
            self.said.append((len(arguments), options))

        function.set_attribute = lambda which, value: self.said.append((which, value))  # type: ignore[attr-defined]
        return SimpleNamespace(get_function=lambda name: function)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(ours, "_driver", lambda: made)
    monkeypatch.setattr(ours, "_uuid", lambda ordinal: UUIDS[ordinal])
    monkeypatch.setattr(ours, "load", lambda file, capability, directory: f"{file} for {capability}".encode())
    return made


@pytest.mark.parametrize(
    ("asked", "found"), [(None, 0), (UUIDS[1], 1), (UUIDS[1].upper().replace("GPU-", ""), 1), (UUIDS[0], 0)]
)
def test_device_is_picked_by_uuid(driver: Driver, asked: str | None, found: int) -> None:
    """In whatever case it is written; without one, the first."""
    properties = PyCudaGpu(asked).properties
    assert properties.uuid == UUIDS[found]
    assert (properties.name, properties.capability, properties.multiprocessors) == ("NVIDIA tm Card", (8, 6), 84)


def test_unknown_device_is_refused_with_those_there_are(driver: Driver) -> None:
    """The error names the devices that the driver shows."""
    with pytest.raises(DeviceUnavailable, match=UUIDS[0]):
        PyCudaGpu("GPU-00000000-0000-0000-0000-0000000000ff")
    driver.broken = True
    with pytest.raises(DeviceUnavailable, match="cuInit"):
        PyCudaGpu()


def test_arrays_go_there_and_back(driver: Driver) -> None:
    """Arrays of any type, empty ones among them; the beginning of a buffer by itself; zeros."""
    gpu = PyCudaGpu()
    array = np.arange(12, dtype=np.int16).reshape(3, 4)
    buffer = gpu.put(array)
    np.testing.assert_array_equal(gpu.get(buffer, np.int16, (3, 4)), array)
    np.testing.assert_array_equal(gpu.get(buffer, np.int16, (2,)), [0, 1])
    assert gpu.get(gpu.put(np.zeros(0)), np.int8, (0,)).shape == (0,)
    assert gpu.get(gpu.zeros(8), np.int32, (2,)).tolist() == [0, 0]
    with pytest.raises(AssertionError, match="cannot come"):
        gpu.get(buffer, np.int64, (4,))
    with pytest.raises(AssertionError, match="C-ordered"):
        gpu.put(array.T)


def test_memory_comes_back_from_any_thread(driver: Driver) -> None:
    """What nothing refers to is given back within the context, by the next call; too much is a MemoryError."""
    gpu = PyCudaGpu()
    held = [gpu.zeros(600)]
    with pytest.raises(MemoryError):
        gpu.zeros(600)
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert gpu.zeros(600).nbytes == 600
    assert driver.depth == 0


def test_kernels_are_loaded_once_and_launched(driver: Driver, tmp_path: Path) -> None:
    """A module is loaded at its first kernel; more shared memory than usual is asked for; too much never launches."""
    gpu = PyCudaGpu(kernels=tmp_path)
    buffer = gpu.zeros(4)
    gpu.launch("sort", "radix_scan", (2, 1, 1), (64, 1, 1), buffer, np.uint32(5))
    gpu.launch("sort", "radix_scan", (2, 1, 1), (64, 1, 1), buffer, np.uint32(5), shared_bytes=60_000)
    assert driver.said[0] == "module of 15 bytes"
    assert driver.said[1] == (2, {"grid": (2, 1, 1), "block": (64, 1, 1), "shared": 0})
    assert driver.said[2] == (8, 60_000)
    assert driver.said[3] == (2, {"grid": (2, 1, 1), "block": (64, 1, 1), "shared": 60_000})
    with pytest.raises(AssertionError, match="shared memory"):
        gpu.launch("sort", "radix_scan", (2, 1, 1), (64, 1, 1), buffer, shared_bytes=200_000)
    with pytest.raises(AssertionError, match="not a buffer"):
        gpu.launch("sort", "radix_scan", (2, 1, 1), (64, 1, 1), b"bytes")  # type: ignore[arg-type]


@pytest.mark.parametrize("ours_or_not", [True, False])
def test_halves_are_given_as_their_bits(driver: Driver, ours_or_not: bool) -> None:
    """PyCUDA cannot pack a float16; what no kernel takes is refused before it reaches the driver."""
    gpu = PyCudaGpu()

    def launch(number: np.generic) -> None:
        if ours_or_not:
            gpu.launch("sort", "radix_scan", (1, 1, 1), (1, 1, 1), number)
        else:
            gpu.launch_code(b"code", "entry", (1, 1, 1), (1, 1, 1), number)

    launch(np.float16(-1.5))
    assert [(number.dtype.char, int(number)) for number in driver.numbers] == [("H", 0xBE00)]
    for number in (np.int8(-1), np.uint16(2), np.int64(-(2**40)), np.uint64(2**60), np.float32(0.5), np.float64(0.5)):
        launch(number)
        assert driver.numbers == [number]
    for refused in (np.bool_(True), np.complex64(1), np.str_("x")):
        with pytest.raises(AssertionError, match="cannot be given"):
            launch(refused)


def test_failed_kernel_is_a_fault_of_the_device(driver: Driver) -> None:
    """The driver's words are in it, and the context is left."""
    gpu = PyCudaGpu()
    buffer = gpu.zeros(4)
    driver.broken = True
    with pytest.raises(DeviceFault, match="illegal memory access"):
        gpu.get(buffer, np.int32, (1,))
    assert driver.depth == 0


def test_device_is_given_back_once(driver: Driver) -> None:
    """Closing twice gives it back once."""
    gpu = PyCudaGpu()
    gpu.close()
    gpu.close()
    assert driver.said == ["detached"]
