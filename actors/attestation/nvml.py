"""What NVML says, through ``pynvml``. Run in a child process (`actors.attestation.child`): a library may crash or hang.

NVML is loaded by its soname, so whoever sets LD_PRELOAD or LD_LIBRARY_PATH decides which library answers. That is found
by `actors.attestation.loaded`, not here.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import pynvml

from actors.attestation.reading import Raw

_ARCHITECTURES: Final = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
}


def _asked(question: Callable[..., Any], *arguments: Any) -> Any:
    """The answer; None where this library or device has none. Bytes become text."""
    try:
        answer = question(*arguments)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError):
        return None
    return answer.decode("utf-8", errors="replace") if isinstance(answer, bytes) else answer


def devices() -> list[Raw]:
    """One entry per device, in NVML's order. Raises `pynvml.NVMLError` where NVML itself does not answer."""
    pynvml.nvmlInit()
    try:
        version = _asked(pynvml.nvmlSystemGetDriverVersion)
        return [
            {"driver_version": version, **_device(pynvml.nvmlDeviceGetHandleByIndex(index))}
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
    finally:
        pynvml.nvmlShutdown()


def _device(handle: Any) -> dict[str, Any]:
    memory = _asked(pynvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _asked(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    architecture = _asked(pynvml.nvmlDeviceGetArchitecture, handle)
    return {
        "uuid": _asked(pynvml.nvmlDeviceGetUUID, handle),
        "name": _asked(pynvml.nvmlDeviceGetName, handle),
        "memory_mib": None if memory is None else int(memory.total) >> 20,
        "serial": _asked(pynvml.nvmlDeviceGetSerial, handle),
        "vbios": _asked(pynvml.nvmlDeviceGetVbiosVersion, handle),
        "architecture": None if architecture is None else _ARCHITECTURES.get(architecture, f"code {architecture}"),
        "cores": _asked(pynvml.nvmlDeviceGetNumGpuCores, handle),
        "clock_mhz": _asked(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
        **_pci(_asked(pynvml.nvmlDeviceGetPciInfo, handle)),
    }


def _pci(info: Any) -> dict[str, str]:
    """Each id is two of 16 bits: the high one the device's, the low one the vendor's."""
    if info is None:
        return {}
    device, subsystem = int(info.pciDeviceId), int(info.pciSubSystemId)
    bus = info.busId
    return {
        "vendor_id": f"{device & 0xFFFF:04x}",
        "device_id": f"{device >> 16:04x}",
        "subsystem_vendor_id": f"{subsystem & 0xFFFF:04x}",
        "subsystem_id": f"{subsystem >> 16:04x}",
        "bus_id": bus.decode("utf-8", errors="replace") if isinstance(bus, bytes) else str(bus),
    }


def watch(process: int, go_on: Callable[[], bool]) -> list[dict[str, Any]]:
    """Looks at all devices until ``go_on`` says no, which may wait a moment. For each its energy counter at both ends,
    the mean of its power, and whether it showed ``process`` and the most memory of it.

    ``go_on`` is asked after the first look. Raises `pynvml.NVMLError` where NVML itself does not answer.
    """
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        looks = [[_look(handle, process)] for handle in handles]
        began = time.monotonic_ns()
        while go_on():
            for handle, seen in zip(handles, looks, strict=True):
                seen.append(_look(handle, process))
        for handle, seen in zip(handles, looks, strict=True):
            seen.append(_look(handle, process))
        elapsed_ms = (time.monotonic_ns() - began) // 1_000_000
        return [
            {"uuid": _asked(pynvml.nvmlDeviceGetUUID, handle), "elapsed_ms": elapsed_ms, **_summed(seen)}
            for handle, seen in zip(handles, looks, strict=True)
        ]
    finally:
        pynvml.nvmlShutdown()


def _look(handle: Any, process: int) -> dict[str, Any]:
    running = _asked(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    own = [entry for entry in running or () if entry.pid == process]
    memory = own[0].usedGpuMemory if own else None
    return {
        "energy_mj": _asked(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        "power_mw": _asked(pynvml.nvmlDeviceGetPowerUsage, handle),
        "own_process": None if running is None else bool(own),
        "own_memory_mib": None if memory is None else int(memory) >> 20,
    }


def _summed(looks: list[dict[str, Any]]) -> dict[str, Any]:
    said = {name: [look[name] for look in looks if look[name] is not None] for name in looks[0]}
    powers = said["power_mw"]
    return {
        "energy_before_mj": looks[0]["energy_mj"],
        "energy_after_mj": looks[-1]["energy_mj"],
        "power_mw": sum(powers) // len(powers) if powers else None,
        "own_process": any(said["own_process"]) if said["own_process"] else None,
        "own_memory_mib": max(said["own_memory_mib"], default=None),
    }
