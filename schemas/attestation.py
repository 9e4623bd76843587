"""Attestation: what a miner's host says of its GPUs, what an exam asks of them, and what a coordinator finds.

Nothing here is believed because it is said: evidence is scored by how far its sources agree, and an exam by the rows
that were opened and by the times of the blocks that hold its events (`projections.attestation`). What a source does
not say is absent, and proves nothing. Rates are in giga-operations per second, an operation being one multiplication or
one addition.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.values import Address, Count, Digest, Height

MAX_GPUS = 16
SOURCES = ("nvml", "cuda", "sysfs", "procfs")

GpuId = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z", description="the GPU's UUID, as GPU-… of the driver")
]
Label = Annotated[str, Meta(pattern=r"^[ -~]{1,96}\Z", description="printable ASCII")]
FilePath = Annotated[str, Meta(pattern=r"^[ -~]{1,256}\Z", description="printable ASCII")]
PciId = Annotated[str, Meta(pattern=r"^[0-9a-f]{4}\Z", description="16 bits, lower-case hexadecimal")]
PciAddress = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z", description="domain:bus:device.function")
]
Version = Annotated[str, Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}\Z")]
Memory = Annotated[int, Meta(ge=0, le=16_777_216, description="MiB")]
Side = Annotated[int, Meta(ge=1, le=2**31, description="rows or columns")]


class SourceReport(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one source says of one GPU."""

    uuid: GpuId | UnsetType = UNSET
    name: Label | UnsetType = UNSET
    vendor_id: PciId | UnsetType = UNSET
    device_id: PciId | UnsetType = UNSET
    subsystem_vendor_id: PciId | UnsetType = UNSET
    subsystem_id: PciId | UnsetType = UNSET
    bus_id: PciAddress | UnsetType = UNSET
    memory_mib: Memory | UnsetType = UNSET
    serial: Label | UnsetType = UNSET
    vbios: Label | UnsetType = UNSET
    architecture: Label | UnsetType = UNSET
    cores: Count | UnsetType = UNSET
    multiprocessors: Count | UnsetType = UNSET
    clock_mhz: Count | UnsetType = UNSET
    compute_capability: Version | UnsetType = UNSET
    driver_version: Version | UnsetType = UNSET


class Liveness(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What NVML showed around a piece of work of ``elapsed_ms``: the energy counter before and after it, the power that
    it drew, and whether our own process and its memory showed."""

    elapsed_ms: Count
    energy_before_mj: Count | UnsetType = UNSET
    energy_after_mj: Count | UnsetType = UNSET
    power_mw: Count | UnsetType = UNSET
    own_process: bool | UnsetType = UNSET
    own_memory_mib: Memory | UnsetType = UNSET


class GpuEvidence(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One declared GPU, by source. A host without a GPU may declare its processor: an id of its own, and no source."""

    uuid: GpuId
    nvml: SourceReport | UnsetType = UNSET
    cuda: SourceReport | UnsetType = UNSET
    sysfs: SourceReport | UnsetType = UNSET
    procfs: SourceReport | UnsetType = UNSET
    live: Liveness | UnsetType = UNSET


class DriverFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of the driver that is mapped into the process that probed, and its digest."""

    path: FilePath
    digest: Digest


class HostEvidence(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a host says of itself and its GPUs.

    ``block`` is the hash of the final block at ``height``, so that evidence cannot be older than it. ``preloaded``
    names libraries that stand before the driver's own (LD_PRELOAD, /etc/ld.so.preload, /proc/self/maps), ``overlaid``
    mounts over the driver's files, sysfs or procfs (/proc/self/mountinfo): both are empty on an honest host.
    ``library`` is the digest of the management library that answered, ``lists`` that of the host's own driver and PCI
    lists. ``malformed`` names what a source said that no field of its report can hold.
    """

    height: Height
    block: Digest
    driver_version: Version | UnsetType = UNSET
    driver_files: Annotated[tuple[DriverFile, ...], Meta(max_length=16)] = ()
    preloaded: Annotated[tuple[FilePath, ...], Meta(max_length=16)] = ()
    overlaid: Annotated[tuple[FilePath, ...], Meta(max_length=16)] = ()
    malformed: Annotated[tuple[Label, ...], Meta(max_length=16)] = ()
    library: Digest | UnsetType = UNSET
    lists: Digest | UnsetType = UNSET
    gpus: Annotated[tuple[GpuEvidence, ...], Meta(max_length=MAX_GPUS)] = ()


class ExamShape(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The product that an exam asks for: A (rows chosen by the miner, at least ``min_rows``, x ``inner``) times B
    (``inner`` x ``columns``, the same for everybody). The rows of A follow from the exam's seed, the miner's address
    and the GPU's id."""

    inner: Side
    columns: Side
    min_rows: Side


class ExamAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a GPU has computed: the Merkle root over the first ``rows`` rows of C. ``memory_mib`` were filled for it,
    with ``memory_root`` as the root over the walks that have read them."""

    gpu: GpuId
    rows: Side
    root: Digest
    memory_mib: Memory | UnsetType = UNSET
    memory_root: Digest | UnsetType = UNSET


class ExamOpening(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Digest and size of the blob with a GPU's challenged rows, and, where memory was filled, of that with its walks.
    Both lie under the miner's address."""

    gpu: GpuId
    rows: Digest
    size: Count
    fill: Digest | UnsetType = UNSET
    fill_size: Count | UnsetType = UNSET


ExamCause = Literal["first", "periodic", "spot", "drift"]
ExamResult = Literal["right", "wrong", "malformed", "absent", "late"]
Lane = Literal["listed", "plausible", "unknown", "implausible"]
Grade = Annotated[
    Literal["C", "M", "H"], Meta(description="C claimed, M measured by an exam, H rooted in the hardware")
]
Points = Annotated[int, Meta(ge=0, le=100)]


class GpuVerdict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A coordinator's finding on one GPU.

    ``device`` says where its PCI ids, name and abilities stand by the lists, ``expected`` the rate that such a card
    at least reaches in the exam (0 for a processor), ``memory_mib`` what was shown to be filled. ``hardware``: a
    confidential-computing report is bound to the miner's key.
    """

    gpu: GpuId
    result: ExamResult
    device: Lane = "unknown"
    expected: Count = 0
    memory_mib: Memory = 0
    hardware: bool = False


class ExamVerdict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A coordinator's finding on a miner in one exam: a verdict per declared GPU, in the order of its evidence.

    ``fresh``: the evidence names a block of this chain, by its right hash, that was young when it was claimed.
    ``driver`` is the lane of the driver's version and files, ``lists`` the digest of the lists that were used.
    """

    miner: Address
    exam: Digest
    fresh: bool
    driver: Lane
    lists: Digest
    gpus: Annotated[tuple[GpuVerdict, ...], Meta(max_length=MAX_GPUS)] = ()
