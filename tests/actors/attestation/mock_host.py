"""Hosts that are not there: libraries compiled to claim a card, and trees in the form of sysfs and procfs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from actors.attestation.probe import Places

SOURCE = Path(__file__).with_name("mock_nvml.c")
COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the mock library is compiled with gcc")
BUS = "0000:17:00.0"
UUID = "GPU-0a1b2c3d-0000-4000-8000-000000000001"
SECOND_BUS = "0000:65:00.0"
SECOND_UUID = "GPU-0a1b2c3d-0000-4000-8000-000000000002"
HOST_MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
"""


def libraries(directory: Path, **claims: str) -> Path:
    """The directory with both libraries, compiled to make these claims."""
    assert COMPILER is not None
    directory.mkdir(parents=True, exist_ok=True)
    options = [f"-D{name}={value}" for name, value in claims.items()]
    nvml = directory / "libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O0", *options, "-o", str(nvml), str(SOURCE)], check=True)
    shutil.copyfile(nvml, directory / "libcuda.so.1")
    return directory


def kernel_trees(
    directory: Path, device: str = "2335", uuid: str = UUID, driver: str = "570.86.15"
) -> tuple[Path, Path]:
    """Trees like /proc and /sys with one card."""
    proc, sys = directory / "proc", directory / "sys"
    card = sys / "bus/pci/devices" / BUS
    card.mkdir(parents=True)
    facts = {"vendor": "0x10de", "device": f"0x{device}", "class": "0x030200"}
    facts |= {"subsystem_vendor": "0x10de", "subsystem_device": "0x18be"}
    for name, value in facts.items():
        (card / name).write_text(value + "\n")
    bridge = sys / "bus/pci/devices/0000:00:00.0"
    bridge.mkdir()
    (bridge / "vendor").write_text("0x8086\n")
    (bridge / "class").write_text("0x060000\n")
    (sys / "module/nvidia").mkdir(parents=True)
    (sys / "module/nvidia/version").write_text(driver + "\n")
    gpu = proc / "driver/nvidia/gpus" / BUS
    gpu.mkdir(parents=True)
    (proc / "driver/nvidia/version").write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Thu Jan 23\n"
    )
    (gpu / "information").write_text(
        f"Model: \t\t NVIDIA H200\nIRQ:   \t\t 100\nGPU UUID: \t {uuid}\nVideo BIOS: \t 96.00.be.00.01\n"
        f"Bus Type: \t PCIe\nDMA Size: \t 52 bits\nBus Location: \t {BUS}\nDevice Minor: \t 0\n"
    )
    return proc, sys


def neighbour(sys: Path, bus: str, device: str = "2335") -> None:
    """One more card in a tree like /sys."""
    card = sys / "bus/pci/devices" / bus
    card.mkdir()
    facts = {"vendor": "0x10de", "device": f"0x{device}", "class": "0x030200"}
    for name, value in facts.items():
        (card / name).write_text(value + "\n")


def in_procfs(proc: Path, bus: str, uuid: str) -> None:
    """One more card in a tree like /proc."""
    gpu = proc / "driver/nvidia/gpus" / bus
    gpu.mkdir()
    (gpu / "information").write_text(f"Model: \t\t NVIDIA H200\nGPU UUID: \t {uuid}\nBus Location: \t {bus}\n")


def places(
    directory: Path,
    library: Path | None,
    *,
    proc: Path | None = None,
    sys: Path | None = None,
    at_home: bool = True,
    mounts: str = HOST_MOUNTS,
    environment: dict[str, str] | None = None,
    timeout_s: float = 20.0,
) -> Places:
    """A host on which the loader finds the libraries of ``library``; ``at_home``: where drivers are installed."""
    mountinfo = directory / "mountinfo"
    mountinfo.write_text(mounts)
    nothing = directory / "nothing"
    nothing.mkdir(exist_ok=True)
    surroundings = {name: value for name, value in os.environ.items() if name not in {"LD_PRELOAD", "LD_AUDIT"}}
    surroundings["LD_LIBRARY_PATH"] = str(library or nothing)
    return Places(
        proc=proc or nothing,
        sys=sys or nothing,
        preload_file=directory / "ld.so.preload",
        mountinfo=mountinfo,
        driver_directories=(str(directory),) if at_home else ("/usr/lib",),
        environment={**surroundings, **(environment or {})},
        timeout_s=timeout_s,
    )
