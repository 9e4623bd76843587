"""The two file systems through which the kernel shows its GPUs: sysfs (PCI) and procfs (the driver)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from actors.attestation.reading import Raw

NVIDIA: Final = "10de"
_DISPLAY_CLASS: Final = "0x03"
_MOST_BYTES: Final = 65_536
_DRIVER_VERSION: Final = re.compile(r"\b(\d{3,4}\.\d{1,4}(?:\.\d{1,4})?)\b")
# What the information file of a GPU says, in the words of the driver, and our field for it.
_INFORMATION: Final[Mapping[str, str]] = {
    "Model": "name",
    "GPU UUID": "uuid",
    "Video BIOS": "vbios",
    "Bus Location": "bus_id",
}


def text_of(path: Path) -> str | None:
    """The beginning of a small file, without the white space around it; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", errors="replace").strip()
    except OSError:
        return None


def driver_version(text: str | None) -> str | None:
    """The first thing in the text that looks like a version of the driver; else the text, which is then malformed."""
    if text is None:
        return None
    found = _DRIVER_VERSION.search(text)
    return found[1] if found else text[:64]


def module_version(sys: Path) -> str | None:
    """The version of the loaded kernel module, by sysfs."""
    return driver_version(text_of(sys / "module/nvidia/version"))


def sysfs(sys: Path) -> list[Raw]:
    """NVIDIA's display controllers on the PCI bus. Raises `OSError` where sysfs shows no bus."""
    version = module_version(sys)
    found: list[Raw] = []
    for device in sorted((sys / "bus/pci/devices").iterdir()):
        vendor = _hexadecimal(device / "vendor")
        kind = text_of(device / "class")
        if vendor != NVIDIA or kind is None or not kind.startswith(_DISPLAY_CLASS):
            continue
        found.append(
            {
                "bus_id": device.name,
                "vendor_id": vendor,
                "device_id": _hexadecimal(device / "device"),
                "subsystem_vendor_id": _hexadecimal(device / "subsystem_vendor"),
                "subsystem_id": _hexadecimal(device / "subsystem_device"),
                "driver_version": version,
            }
        )
    return found


def procfs(proc: Path) -> list[Raw]:
    """The GPUs that the kernel module lists. Raises `OSError` where it does not run."""
    directory = proc / "driver/nvidia"
    version = driver_version(text_of(directory / "version"))
    return [
        {"driver_version": version, **information(text_of(gpu / "information") or "")}
        for gpu in sorted((directory / "gpus").iterdir())
    ]


def information(text: str) -> dict[str, str]:
    """The lines ``label: value``. A value that the driver hides from those who are not root is absent."""
    found = {}
    for line in text.splitlines():
        label, _, value = line.partition(":")
        name = _INFORMATION.get(label.strip())
        if name is not None and value.strip() and "??" not in value:
            found[name] = value.strip()
    return found


def _hexadecimal(path: Path) -> str | None:
    text = text_of(path)
    return None if text is None else text.removeprefix("0x").lower()


def text_of_all(path: Path) -> str | None:
    """A whole file of the kernel; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
