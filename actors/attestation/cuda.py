"""What the CUDA driver says, through ctypes: a second library, with interfaces of its own, beside NVML.

Run in a child process (`actors.attestation.child`). The numbers of the attributes are those of ``CUdevice_attribute``
in NVIDIA's ``cuda.h``.
"""

import ctypes
from typing import Any, Final
from uuid import UUID

from actors.attestation.reading import Raw

LIBRARY: Final = "libcuda.so.1"
_CLOCK_RATE_KHZ: Final = 13
_MULTIPROCESSORS: Final = 16
_CAPABILITY_MAJOR: Final = 75
_CAPABILITY_MINOR: Final = 76


class CudaSilent(Exception):
    """The driver library is there and does not answer; the text has CUDA's code."""


class _Driver:
    """The library's functions; a missing one or an error is None as its answer."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)

    def call(self, name: str, *arguments: Any) -> bool:
        function = getattr(self._library, name, None)
        return function is not None and function(*arguments) == 0

    def number(self, name: str, *arguments: Any, kind: Any = ctypes.c_int) -> Any:
        value = kind()
        return value.value if self.call(name, ctypes.byref(value), *arguments) else None

    def text(self, name: str, device: ctypes.c_int) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        return buffer.value.decode("utf-8", errors="replace") if self.call(name, buffer, 256, device) else None

    def uuid(self, device: ctypes.c_int) -> str | None:
        value = (ctypes.c_ubyte * 16)()
        found = self.call("cuDeviceGetUuid_v2", value, device) or self.call("cuDeviceGetUuid", value, device)
        return f"GPU-{UUID(bytes=bytes(value))}" if found else None


def devices(library: str = LIBRARY) -> list[Raw]:
    """One entry per device, in CUDA's order. Raises `OSError` without the library, `CudaSilent` without an answer."""
    driver = _Driver(library)
    if not driver.call("cuInit", 0):
        raise CudaSilent("cuInit fails")
    count = driver.number("cuDeviceGetCount")
    if count is None:
        raise CudaSilent("cuDeviceGetCount fails")
    return [_device(driver, index) for index in range(count)]


def _device(driver: _Driver, index: int) -> dict[str, Any]:
    handle = driver.number("cuDeviceGet", index)
    if handle is None:
        raise CudaSilent(f"cuDeviceGet fails for device {index}")
    device = ctypes.c_int(handle)

    def attribute(number: int) -> int | None:
        value: int | None = driver.number("cuDeviceGetAttribute", number, device)
        return value

    major, minor, clock = attribute(_CAPABILITY_MAJOR), attribute(_CAPABILITY_MINOR), attribute(_CLOCK_RATE_KHZ)
    memory = driver.number("cuDeviceTotalMem_v2", device, kind=ctypes.c_size_t)
    return {
        "uuid": driver.uuid(device),
        "name": driver.text("cuDeviceGetName", device),
        "bus_id": driver.text("cuDeviceGetPCIBusId", device),
        "memory_mib": None if memory is None else memory >> 20,
        "multiprocessors": attribute(_MULTIPROCESSORS),
        "clock_mhz": None if clock is None else clock // 1_000,
        "compute_capability": None if major is None or minor is None else f"{major}.{minor}",
    }
