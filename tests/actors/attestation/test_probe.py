"""The probe: what each source says, put together by card, and what stands before or over the driver's files."""

import subprocess
import sys as system
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.attestation.child import mapped_files
from actors.attestation.files import driver_version, information
from actors.attestation.loaded import mounts, overlaid, preloaded
from actors.attestation.probe import HostProbe, probe
from actors.attestation.reading import read
from schemas.attestation import HostEvidence, SourceReport
from tests.actors.attestation.mock_host import (
    BUS,
    HOST_MOUNTS,
    SECOND_BUS,
    SECOND_UUID,
    UUID,
    in_procfs,
    kernel_trees,
    libraries,
    needs_compiler,
    neighbour,
    places,
)

BLOCK = "5b" * 32


def sources(found: HostProbe) -> dict[str, bool]:
    return {state.source: state.answered for state in found.sources}


@needs_compiler
def test_four_sources_are_put_together(tmp_path: Path) -> None:
    """NVML, CUDA, sysfs and procfs describe one card, found by its place on the bus."""
    proc, sys = kernel_trees(tmp_path)
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    assert sources(found) == {"nvml": True, "cuda": True, "sysfs": True, "procfs": True}
    (gpu,) = found.gpus
    assert gpu.uuid == UUID
    assert isinstance(gpu.nvml, msgspec.Struct)
    assert gpu.nvml.bus_id == gpu.cuda.bus_id == gpu.sysfs.bus_id == gpu.procfs.bus_id == "0000:17:00.0"
    assert gpu.nvml.device_id == gpu.sysfs.device_id == "2335"
    assert gpu.nvml.subsystem_id == gpu.sysfs.subsystem_id == "18be"
    assert (gpu.nvml.architecture, gpu.nvml.cores, gpu.nvml.memory_mib) == ("Hopper", 16_896, 143_771)
    assert (gpu.cuda.multiprocessors, gpu.cuda.clock_mhz, gpu.cuda.compute_capability) == (132, 1_980, "9.0")
    assert gpu.procfs.vbios == "96.00.BE.00.01"
    assert found.driver_version == "570.86.15"
    assert {Path(file.path).name for file in found.driver_files} == {"libnvidia-ml.so.1", "libcuda.so.1"}
    assert found.library is not None
    assert found.preloaded == found.overlaid == found.malformed == ()


def test_a_host_without_a_card_says_nothing(tmp_path: Path) -> None:
    """Missing libraries and trees are absent sources with a reason each, and no error."""
    found = probe(places(tmp_path, None))
    assert sources(found) == {"nvml": False, "cuda": False, "sysfs": False, "procfs": False}
    assert all(state.detail for state in found.sources)
    assert found.gpus == ()
    evidence = found.evidence(1, BLOCK, BLOCK)
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=HostEvidence) == evidence


@needs_compiler
@pytest.mark.parametrize(
    ("claim", "timeout_s", "said"), [("CRASH", 60.0, "ended with code"), ("HANG", 3.0, "no answer within")]
)
def test_a_library_that_crashes_or_hangs_is_absent(tmp_path: Path, claim: str, timeout_s: float, said: str) -> None:
    """The probe outlives a library that aborts or never returns, and goes on with the other sources."""
    proc, sys = kernel_trees(tmp_path)
    library = libraries(tmp_path / "lib", **{claim: "1"})
    found = probe(places(tmp_path, library, proc=proc, sys=sys, timeout_s=timeout_s))
    (nvml,) = [state for state in found.sources if state.source == "nvml"]
    assert not nvml.answered
    assert said in nvml.detail
    assert [gpu.uuid for gpu in found.gpus] == [UUID]


@needs_compiler
def test_cards_that_only_the_kernel_shows_are_not_claimed(tmp_path: Path) -> None:
    """A card of a virtual machine or of another container is reported beside the host's own, with nothing of it in the
    evidence; what /sys says of the own card counts on."""
    proc, sys = kernel_trees(tmp_path)
    neighbour(sys, "0000:65:00.0")
    neighbour(sys, "0000:66:00.0", device="not hexadecimal")
    in_procfs(proc, "0000:67:00.0", "GPU-0a1b2c3d-0000-4000-8000-000000000067")
    found = probe(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    assert [gpu.uuid for gpu in found.gpus] == [UUID]
    assert isinstance(found.gpus[0].sysfs, SourceReport)
    assert [gpu.uuid for gpu in found.unclaimed] == [
        "PCI-0000-65-00-0",
        "PCI-0000-66-00-0",
        "GPU-0a1b2c3d-0000-4000-8000-000000000067",
    ]
    assert found.malformed == ()
    assert found.evidence(1, BLOCK, BLOCK).gpus == found.gpus


def test_a_host_with_cards_in_sysfs_alone_declares_its_processor(tmp_path: Path) -> None:
    """In a container without a GPU /sys shows the machine's cards and driver: neither is said to be the host's."""
    _, sys = kernel_trees(tmp_path)
    found = probe(places(tmp_path, None, sys=sys))
    assert found.gpus == ()
    assert [gpu.uuid for gpu in found.unclaimed] == ["PCI-0000-17-00-0"]
    evidence = found.evidence(1, BLOCK, BLOCK, processor="CPU-1")
    assert [gpu.uuid for gpu in evidence.gpus] == ["CPU-1"]
    assert evidence.driver_version is msgspec.UNSET


def test_procfs_names_cards_where_no_library_does(tmp_path: Path) -> None:
    """A card that the driver drives is claimed, though its libraries are missing; one without a driver is not."""
    proc, sys = kernel_trees(tmp_path)
    neighbour(sys, "0000:65:00.0")
    found = probe(places(tmp_path, None, proc=proc, sys=sys))
    assert [gpu.uuid for gpu in found.gpus] == [UUID]
    assert [gpu.uuid for gpu in found.unclaimed] == ["PCI-0000-65-00-0"]


@needs_compiler
def test_a_library_that_names_what_the_kernel_does_not_show_hides_no_card(tmp_path: Path) -> None:
    """Where a named card is missing from /sys, those that are there may be what answers for it: they are claimed."""
    _, sys = kernel_trees(tmp_path)
    library = libraries(tmp_path / "lib", BUS_ID='"00000000:99:00.0"', CUDA_BUS_ID='"0000:99:00.0"')
    found = probe(places(tmp_path, library, sys=sys))
    assert [gpu.uuid for gpu in found.gpus] == [UUID, "PCI-0000-17-00-0"]
    assert found.unclaimed == ()


@needs_compiler
def test_two_cards_are_told_apart_in_whatever_order(tmp_path: Path) -> None:
    """NVML and CUDA number them differently; each card has its own reports."""
    proc, sys = kernel_trees(tmp_path)
    neighbour(sys, SECOND_BUS)
    in_procfs(proc, SECOND_BUS, SECOND_UUID)
    found = probe(places(tmp_path, libraries(tmp_path / "lib", CARDS="2"), proc=proc, sys=sys))
    assert [gpu.uuid for gpu in found.gpus] == [UUID, SECOND_UUID]
    for gpu, bus in zip(found.gpus, (BUS, SECOND_BUS), strict=True):
        reports = [gpu.nvml, gpu.cuda, gpu.sysfs, gpu.procfs]
        assert [getattr(report, "bus_id", None) for report in reports] == [bus] * 4
        assert gpu.cuda.uuid == gpu.procfs.uuid == gpu.uuid  # type: ignore[union-attr]
    assert found.unclaimed == ()


@needs_compiler
def test_malformed_values_are_named(tmp_path: Path) -> None:
    """A value that no field can hold is left out and named, field and device."""
    library = libraries(tmp_path / "lib", UUID='"GPU not a uuid"', DRIVER='"570.x"', NAME='"H\\001200"')
    found = probe(places(tmp_path, library))
    assert set(found.malformed) == {
        "nvml.driver_version of device 0",
        "nvml.name of device 0",
        "nvml.uuid of device 0",
        "cuda.name of device 0",
    }
    assert HostEvidence(height=1, block=BLOCK, malformed=found.malformed)


@pytest.mark.parametrize(
    ("raw", "malformed"),
    [
        ({"memory_mib": -1}, ("memory_mib",)),
        ({"memory_mib": "80 GB"}, ("memory_mib",)),
        ({"bus_id": "17:00.0"}, ("bus_id",)),
        ({"device_id": "233"}, ("device_id",)),
        ({"name": ""}, ("name",)),
        ({"nonsense": 1}, ("nonsense",)),
        ({"name": "NVIDIA H200", "serial": None}, ()),
    ],
)
def test_each_field_is_read_or_malformed(raw: dict[str, object], malformed: tuple[str, ...]) -> None:
    """A value is read, or absent, or named as malformed."""
    assert read(raw).malformed == malformed


@needs_compiler
def test_a_preloaded_library_is_named(tmp_path: Path) -> None:
    """LD_PRELOAD makes a mock answer as NVML, and shows."""
    library = libraries(tmp_path / "mock") / "libnvidia-ml.so.1"
    found = probe(places(tmp_path, None, at_home=False, environment={"LD_PRELOAD": str(library)}))
    assert str(library) in found.preloaded


@needs_compiler
def test_a_library_from_a_strange_place_is_named(tmp_path: Path) -> None:
    """A library called like the driver's, mapped from where none is installed, shows."""
    library = libraries(tmp_path / "mock")
    found = probe(places(tmp_path, library, at_home=False))
    assert found.preloaded == (str(library / "libcuda.so.1"), str(library / "libnvidia-ml.so.1"))


@pytest.mark.parametrize(
    ("environment", "preload_file", "named"),
    [
        ({}, "", ()),
        ({"LD_PRELOAD": "/tmp/a.so:/tmp/b.so"}, "", ("/tmp/a.so", "/tmp/b.so")),
        ({"LD_AUDIT": "/tmp/audit.so"}, "", ("/tmp/audit.so",)),
        ({}, "/tmp/every.so\n", ("/tmp/every.so",)),
    ],
)
def test_what_is_told_to_the_loader_is_named(
    environment: dict[str, str], preload_file: str, named: tuple[str, ...]
) -> None:
    """LD_PRELOAD, LD_AUDIT and /etc/ld.so.preload are all seen; the driver at its place is not."""
    mapped = ["/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.86.15", "/opt/app/libfoo.so"]
    assert preloaded(mapped, environment, preload_file) == named


CONTAINER = (
    HOST_MOUNTS
    + """\
90 27 254:0 /usr/lib64/libnvidia-ml.so.570.86.15 /usr/lib/libnvidia-ml.so.570.86.15 ro - ext4 /dev/vda ro
91 22 0:50 / /proc/driver/nvidia rw,nosuid - tmpfs tmpfs rw
92 91 0:21 /driver/nvidia/gpus/0000:17:00.0 /proc/driver/nvidia/gpus/0000:17:00.0 ro - proc proc ro
"""
)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", ()),
        ("90 22 0:50 / /proc/driver/nvidia rw - tmpfs tmpfs rw", ("/proc/driver/nvidia",)),
        ("90 22 0:50 / /proc/driver/nvidia rw - overlay overlay rw", ("/proc/driver/nvidia",)),
        ("90 22 254:0 /tmp/fake /proc/driver/nvidia/gpus rw - ext4 /dev/vda rw", ("/proc/driver/nvidia/gpus",)),
        ("90 23 254:0 /tmp/sys /sys/bus/pci/devices rw - ext4 /dev/vda rw", ("/sys/bus/pci/devices",)),
        ("90 23 254:0 /tmp/sys /sys/devices/pci0000:00 rw - ext4 /dev/vda rw", ("/sys/devices/pci0000:00",)),
        ("90 23 254:0 /v /sys/module/nvidia/version rw - ext4 /dev/vda rw", ("/sys/module/nvidia/version",)),
        ("90 27 254:0 /tmp/sys /sys rw - ext4 /dev/vda rw", ("/sys",)),
        ("90 27 254:0 /tmp/x.so /usr/lib/libnvidia-ml.so.1 rw - ext4 /dev/vda rw", ("/usr/lib/libnvidia-ml.so.1",)),
        ("90 27 0:60 / /tmp rw - tmpfs tmpfs rw", ()),
        ("90 23 0:60 / /sys/devices/virtual/powercap ro - tmpfs tmpfs ro", ()),
        ("not a line of mountinfo", ()),
    ],
)
def test_mounts_over_the_kernels_account_are_named(line: str, named: tuple[str, ...]) -> None:
    """A mount over files of the driver, over sysfs or procfs, shows; those of other things do not."""
    assert overlaid(HOST_MOUNTS + line) == named


def test_a_container_runtimes_mounts_are_no_overlay() -> None:
    """Files of the driver under their own names, and the GPU's directory of procfs, come with every GPU container."""
    assert overlaid(CONTAINER) == ()
    assert overlaid(CONTAINER.replace("- proc proc ro", "- ext4 /dev/vda ro")) != ()


@given(text=st.text(max_size=400))
def test_any_text_of_the_kernel_is_read(text: str) -> None:
    """Whatever stands in maps, mountinfo, an information file or a version: no error, and paths only."""
    assert all(path.startswith("/") for path in mapped_files(text))
    assert set(overlaid(f"{HOST_MOUNTS}{text}")) <= {mount.point for mount in mounts(f"{HOST_MOUNTS}{text}")}
    assert driver_version(text) is not None
    assert set(information(text)) <= {"name", "uuid", "vbios", "bus_id"}


@given(raw=st.dictionaries(st.sampled_from(SourceReport.__struct_fields__), st.none() | st.integers() | st.text()))
def test_any_answer_of_a_library_is_read(raw: dict[str, object]) -> None:
    """Each field of any answer is kept, absent or named as malformed; what is kept fits the wire."""
    found = read(raw)
    kept = {name for name in raw if getattr(found.report, name) is not msgspec.UNSET}
    assert kept | set(found.malformed) == {name for name, value in raw.items() if value is not None}
    assert msgspec.json.decode(msgspec.json.encode(found.report), type=SourceReport) == found.report


_IN_A_NAMESPACE = """
import json, subprocess, sys
fake = sys.argv[1]
subprocess.run(["mount", "--bind", fake, "/sys/bus/pci/devices"], check=True)
from actors.attestation.probe import probe
print(json.dumps(probe().overlaid))
"""


def test_an_overlay_in_a_mount_namespace_is_named(tmp_path: Path) -> None:
    """A directory that is really mounted over sysfs, in a namespace of its own, shows."""
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        system.executable,
        "-c",
        _IN_A_NAMESPACE,
        str(tmp_path),
    ]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if "probe" not in ran.stderr and ran.returncode:
        pytest.skip(f"no mount namespaces here: {ran.stderr.strip()[-200:]}")
    assert "/sys/bus/pci/devices" in ran.stdout
