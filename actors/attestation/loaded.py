"""Whether the driver's own files answered: what was loaded before them, what is mounted over them.

NVML and CUDA are found by soname, so whoever sets LD_PRELOAD or LD_LIBRARY_PATH can answer in their place; and whoever
may mount can lay files over the kernel's. Both leave traces in ``/proc/self/maps`` and ``/proc/self/mountinfo``.

Container runtimes mount the driver's files into containers: each from a file of the same name, and the directories
``/proc/driver/nvidia/gpus/…`` from procfs itself over an empty tmpfs. That is not an overlay.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from msgspec import Struct

_DRIVER_FILE: Final = re.compile(r"lib(?:cuda|nvidia-[a-z0-9-]+|nvcuvid)\.so(?:\.[0-9.]+)?")
# Where distributions, NVIDIA's own installer and container runtimes put the driver's libraries.
DRIVER_DIRECTORIES: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/nvidia",
    "/opt/nvidia",
    "/run/opengl-driver",
    "/nix/store",
)
_PROC_DRIVER: Final = "/proc/driver/nvidia"
_PROC_GPUS: Final = f"{_PROC_DRIVER}/gpus"
_SYSTEM_TREES: Final = (_PROC_DRIVER, "/sys/bus/pci", "/sys/devices/pci", "/sys/module")
_READ_BYTES: Final = 1 << 20


class Mount(Struct, frozen=True):
    """A line of mountinfo: where, which part of the file system, and of which kind it is."""

    point: str
    root: str
    kind: str


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def mounts(mountinfo: str) -> list[Mount]:
    """The mounts, in their order (proc_pid_mountinfo(5)); lines of another form are left out."""
    found = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if separator and len(fields) >= 6 and kinds:
            found.append(Mount(_unescaped(fields[4]), _unescaped(fields[3]), kinds[0]))
    return found


def overlaid(mountinfo: str) -> tuple[str, ...]:
    """The mount points over files of the driver, over the kernel's account of the GPUs, or in place of /proc or
    /sys."""
    listed = mounts(mountinfo)
    return tuple(sorted({mount.point for mount in listed if _hides(mount, listed)}))


def _hides(mount: Mount, listed: Sequence[Mount]) -> bool:
    point = mount.point
    if point in {"/proc", "/sys"}:
        return mount.kind != {"/proc": "proc", "/sys": "sysfs"}[point]
    if point.startswith(_PROC_DRIVER):
        return not (_is_itself(mount) or (point in {_PROC_DRIVER, _PROC_GPUS} and _only_holds_procfs(mount, listed)))
    if any(point == tree or point.startswith(tree) for tree in _SYSTEM_TREES):
        return mount.kind != "sysfs" or mount.root != point.removeprefix("/sys")
    name = PurePosixPath(point).name
    return _DRIVER_FILE.fullmatch(name) is not None and PurePosixPath(mount.root).name != name


def _is_itself(mount: Mount) -> bool:
    """A part of procfs, at its own place."""
    return mount.kind == "proc" and mount.root == mount.point.removeprefix("/proc")


def _only_holds_procfs(mount: Mount, listed: Sequence[Mount]) -> bool:
    """A container runtime's tmpfs: what lies in it are GPUs' directories of procfs, at least one."""
    within = [other for other in listed if other.point.startswith(_PROC_GPUS + "/")]
    return mount.kind == "tmpfs" and bool(within) and all(_is_itself(other) for other in within)


def preloaded(
    mapped: Iterable[str],
    environment: Mapping[str, str],
    preload_file: str,
    directories: tuple[str, ...] = DRIVER_DIRECTORIES,
) -> tuple[str, ...]:
    """What was told to the loader to load first, and libraries of the driver that lie where none is installed.

    ``preload_file`` is the text of ``/etc/ld.so.preload``.
    """
    told = f"{environment.get('LD_PRELOAD', '')} {preload_file}".replace(":", " ").split()
    audited = environment.get("LD_AUDIT", "").replace(":", " ").split()
    strange = [path for path in driver_libraries(mapped) if not _is_at_home(path, directories)]
    return tuple(sorted({*told, *audited, *strange}))


def driver_libraries(mapped: Iterable[str]) -> list[str]:
    """Those of the mapped files that are called like libraries of the driver."""
    return sorted(path for path in mapped if _DRIVER_FILE.fullmatch(PurePosixPath(path).name))


def _is_at_home(path: str, directories: tuple[str, ...]) -> bool:
    return any(path.startswith(directory + "/") for directory in directories)


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(_READ_BYTES):
                digest.update(part)
    except OSError:
        return None
    return digest.hexdigest()
