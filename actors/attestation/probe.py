"""Looks at this host: four sources for its GPUs, the files that answered, what is loaded before or mounted over them.

Only raw values: nothing is judged. A source that is missing is absent with its reason, a value that no field can hold
is named as malformed. Cards that only the kernel shows, beside the host's own, are reported and not claimed. Libraries
are asked in child processes with a time limit, so that the probe neither crashes nor hangs, whatever they do.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from actors.attestation import files, loaded
from actors.attestation.child import Said
from actors.attestation.reading import Raw, Reading, Source, SourceState, read
from schemas.attestation import MAX_GPUS, DriverFile, GpuEvidence, HostEvidence, Liveness, SourceReport
from schemas.values import Digest, Height

CHILD_TIMEOUT_S: Final = 20.0
_PACKAGES: Final = Path(__file__).resolve().parents[2]
_MOST_PATHS: Final = 16
_PATH_LENGTH: Final = 256
_NVML_LIBRARY: Final = "libnvidia-ml.so"
_LIBRARIES: Final = frozenset(("nvml", "cuda"))
_FILE_SYSTEMS: Final = frozenset(("sysfs", "procfs"))


class Places(Struct, frozen=True, kw_only=True):
    """Where a host is looked at; tests point these elsewhere."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    preload_file: Path = Path("/etc/ld.so.preload")
    mountinfo: Path = Path("/proc/self/mountinfo")
    driver_directories: tuple[str, ...] = loaded.DRIVER_DIRECTORIES
    environment: Mapping[str, str] | None = None
    timeout_s: float = CHILD_TIMEOUT_S

    def surroundings(self) -> Mapping[str, str]:
        """The environment in which libraries are loaded: this process's own unless another is given."""
        return os.environ if self.environment is None else self.environment


class HostProbe(Struct, frozen=True, kw_only=True):
    """What a look at the host has shown. ``malformed`` has entries ``source.field`` with the device's number.

    ``unclaimed`` are cards that the kernel shows and that this host cannot use: bound to a virtual machine, without a
    driver, or of another container on the same machine. They are no part of the evidence.
    """

    sources: tuple[SourceState, ...]
    gpus: tuple[GpuEvidence, ...]
    unclaimed: tuple[GpuEvidence, ...] = ()
    driver_version: str | None
    driver_files: tuple[DriverFile, ...]
    preloaded: tuple[str, ...]
    overlaid: tuple[str, ...]
    library: Digest | None
    malformed: tuple[str, ...]

    def only(self, uuid: str) -> "HostProbe":
        """With no other GPU than this one, however a backend would take its name; with none where it is not there."""
        chosen = tuple(gpu for gpu in self.gpus if _plain(gpu.uuid) == _plain(uuid))
        return msgspec.structs.replace(self, gpus=chosen)

    def evidence(
        self,
        height: Height,
        block: Digest,
        lists: Digest,
        live: Mapping[str, Liveness] | None = None,
        processor: str | None = None,
    ) -> HostEvidence:
        """As a miner says it: not older than the block of this height. ``live`` is by UUID. A host without a GPU
        declares its processor under the id ``processor``, and no driver: what /sys says of one is of somebody else's
        card."""
        watched = live or {}
        gpus = tuple(msgspec.structs.replace(gpu, live=watched.get(gpu.uuid, UNSET)) for gpu in self.gpus)
        if not gpus and processor is not None:
            gpus = (GpuEvidence(uuid=processor),)
        return HostEvidence(
            height=height,
            block=block,
            driver_version=_or_unset(self.driver_version if self.gpus else None),
            driver_files=self.driver_files,
            preloaded=self.preloaded,
            overlaid=self.overlaid,
            malformed=self.malformed,
            library=_or_unset(self.library),
            lists=lists,
            gpus=gpus,
        )


def probe(places: Places | None = None) -> HostProbe:
    """Look at the host. Takes as long as its libraries, at most twice `CHILD_TIMEOUT_S`."""
    places = places or Places()
    nvml, cuda = ask_child(places, "nvml"), ask_child(places, "cuda")
    answers: dict[Source, tuple[list[Raw], str]] = {
        "nvml": (list(nvml.devices), nvml.silence),
        "cuda": (list(cuda.devices), cuda.silence),
        "sysfs": _of_files(lambda: files.sysfs(places.sys)),
        "procfs": _of_files(lambda: files.procfs(places.proc)),
    }
    readings = {source: [read(_in_one_spelling(raw)) for raw in said] for source, (said, _) in answers.items()}
    claimed, unclaimed = _claimed(_by_device(readings))
    mapped = {*nvml.mapped, *cuda.mapped}
    preload_text = files.text_of(places.preload_file) or ""
    mountinfo = files.text_of_all(places.mountinfo) or ""
    return HostProbe(
        sources=tuple(
            SourceState(source=source, answered=not silence, devices=len(said), detail=silence)
            for source, (said, silence) in answers.items()
        ),
        gpus=tuple(device.evidence() for device in claimed[:MAX_GPUS]),
        unclaimed=tuple(device.evidence() for device in unclaimed[:MAX_GPUS]),
        driver_version=_driver_version(readings),
        driver_files=_driver_files(mapped),
        preloaded=_paths(loaded.preloaded(mapped, places.surroundings(), preload_text, places.driver_directories)),
        overlaid=_paths(loaded.overlaid(mountinfo)),
        library=_library(nvml.mapped),
        malformed=tuple(entry for device in claimed for entry in device.malformed)[:_MOST_PATHS],
    )


def ask_child(places: Places, question: str, *arguments: str) -> Said:
    """Ask a library in a process of its own; its crash, its silence and its time-out are answers too."""
    try:
        process = start_child(places, question, *arguments)
    except OSError as error:
        return Said(silence=f"its process does not start: {error.strerror}")
    return end_child(places, process)


def start_child(places: Places, question: str, *arguments: str) -> subprocess.Popen[bytes]:
    """The process, asked and not waited for. Raises `OSError`."""
    return subprocess.Popen(
        [sys.executable, "-m", "actors.attestation.child", question, *arguments],
        cwd=_PACKAGES,
        env=dict(places.surroundings()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def end_child(places: Places, process: subprocess.Popen[bytes]) -> Said:
    """Close its standard input, and wait for its answer for as long as it may take."""
    try:
        output, _ = process.communicate(timeout=places.timeout_s)
    except subprocess.TimeoutExpired:
        _kill(process)
        return Said(silence=f"no answer within {places.timeout_s:g} s")
    if process.returncode:
        return Said(silence=f"its process ended with code {process.returncode}")
    try:
        return msgspec.json.decode(output, type=Said)
    except msgspec.DecodeError as error:
        return Said(silence=f"its answer is not readable: {error}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and wait for a moment: one that a driver holds in the kernel ends later, or never."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _of_files(look: Callable[[], list[Raw]]) -> tuple[list[Raw], str]:
    try:
        return look(), ""
    except OSError as error:
        return [], f"{error.filename}: {error.strerror}"


def _in_one_spelling(raw: Raw) -> Raw:
    """NVML writes the domain of a PCI address with eight digits, the others with four; digits above nine come in
    capitals here and small there."""
    bus, vbios = raw.get("bus_id"), raw.get("vbios")
    changed = dict(raw)
    if isinstance(vbios, str):
        changed["vbios"] = vbios.upper()
    if isinstance(bus, str):
        domain, _, rest = bus.lower().partition(":")
        short = domain[4:] if len(domain) == 8 and domain.startswith("0000") else domain
        changed["bus_id"] = f"{short}:{rest}"
    return changed


class _Device(Struct, kw_only=True):
    """One device, where the sources see it, and what each says of it."""

    place: str
    reports: dict[str, SourceReport] = {}
    malformed: list[str] = []

    def evidence(self) -> GpuEvidence:
        """As it is claimed."""
        return GpuEvidence(
            uuid=_name_of(self.place, self.reports),
            nvml=self.reports.get("nvml", UNSET),
            cuda=self.reports.get("cuda", UNSET),
            sysfs=self.reports.get("sysfs", UNSET),
            procfs=self.reports.get("procfs", UNSET),
        )


def _by_device(readings: Mapping[Source, list[Reading]]) -> list[_Device]:
    """The sources' devices put together: by PCI address, else by UUID. What has neither is a device of its own."""
    found: dict[str, _Device] = {}
    names: dict[str, str] = {}
    for source, devices in readings.items():
        for number, reading in enumerate(devices):
            report = reading.report
            place = report.bus_id if isinstance(report.bus_id, str) else None
            if place is None and isinstance(report.uuid, str):
                place = names.get(report.uuid, report.uuid)
            place = place or f"{source}-{number}"
            if isinstance(report.uuid, str):
                names.setdefault(report.uuid, place)
            device = found.setdefault(place, _Device(place=place))
            device.reports[source] = report
            device.malformed += [f"{source}.{_printable(name)} of device {number}"[:96] for name in reading.malformed]
    return list(found.values())


def _claimed(devices: list[_Device]) -> tuple[list[_Device], list[_Device]]:
    """Which devices are this host's, and which are not.

    /sys shows the cards of the whole machine in every container, and /proc in some; /sys also those that a virtual
    machine has, or that have no driver. So a card is this host's when NVML or CUDA names it, or, where both name none,
    when procfs does. But where a file system shows others and not each of those, one of the others may stand behind a
    false name: then they are claimed too.
    """
    own = [device for device in devices if not _LIBRARIES.isdisjoint(device.reports)]
    own = own or [device for device in devices if "procfs" in device.reports]
    incomplete = {source for source in _FILE_SYSTEMS if any(source not in device.reports for device in own)}
    claimed = [device for device in devices if device in own or not incomplete.isdisjoint(device.reports)]
    return claimed, [device for device in devices if device not in claimed]


def _name_of(place: str, reports: Mapping[str, SourceReport]) -> str:
    """The UUID by the first source that knows one, else what the device can be told apart by."""
    uuids = [report.uuid for report in reports.values() if not isinstance(report.uuid, UnsetType)]
    return uuids[0] if uuids else "PCI-" + "-".join(part for part in place.replace(".", ":").split(":") if part)


def _driver_version(readings: Mapping[Source, list[Reading]]) -> str | None:
    versions = [reading.report.driver_version for devices in readings.values() for reading in devices]
    known = [version for version in versions if isinstance(version, str)]
    return known[0] if known else None


def _driver_files(mapped: set[str]) -> tuple[DriverFile, ...]:
    digests = [(path, loaded.digest_of(Path(path))) for path in loaded.driver_libraries(mapped)]
    return tuple(
        DriverFile(path=_printable(path), digest=digest) for path, digest in digests[:_MOST_PATHS] if digest is not None
    )


def _library(mapped: tuple[str, ...]) -> Digest | None:
    """The digest of the management library that was mapped while NVML answered."""
    paths = [path for path in loaded.driver_libraries(mapped) if Path(path).name.startswith(_NVML_LIBRARY)]
    return loaded.digest_of(Path(paths[0])) if paths else None


def _paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_printable(path) for path in paths[:_MOST_PATHS])


def _plain(uuid: str) -> str:
    """In small letters, without the driver's prefix and dashes."""
    return uuid.casefold().removeprefix("gpu-").replace("-", "")


def _printable(path: str) -> str:
    """In the characters and the length that a path on the wire may have."""
    return "".join(character if " " <= character <= "~" else "?" for character in path)[:_PATH_LENGTH] or "?"


def _or_unset(value: str | None) -> Any:
    return UNSET if value is None else value
