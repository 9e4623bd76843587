"""Which cards and drivers are known: data, with a lane for what is unknown but plausible (every new card is, at first).

The lists that come with Assay are ``lists.json`` beside this module. An update is a file of canonical JSON,
``{"body":{…},"sig":"…","signer":"U…"}``: the lists, signed with an NKey over the domain ``assay:lists:v1`` and the
exact bytes of the body. It is taken only from a signer that the host trusts, and only with a higher version.
"""

from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from actors.private_file import replace_private_file
from events.canonical import UNREADABLE, canonical, digest
from events.errors import BadInput, NotAllowed, VerificationFailed
from events.keys import Key, verify
from schemas.attestation import Label, PciId, Version
from schemas.values import Address, Count, Digest, Signature

LISTS_DOMAIN: Final = b"assay:lists:v1\0"
MAX_LISTS_BYTES: Final = 4 << 20
_SHIPPED: Final = "lists.json"


class ListedDevice(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A card. ``name_has`` stands in what the driver calls it; ``peak_giga_operations`` is the dense int8 peak by its
    data sheet, the lowest where several differ; without tensor cores for int8 that of dp4a. A part of a card (MIG) has
    fewer ``multiprocessors`` and less memory."""

    device_id: PciId
    product: Label
    name_has: Label
    compute_capability: Version
    memory_gib: Annotated[int, Meta(ge=1, le=16_384)]
    multiprocessors: Annotated[int, Meta(ge=1, le=100_000)]
    peak_giga_operations: Annotated[int, Meta(ge=1, le=2**31)]


class ListedDriver(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A release, and the digests of its management library where somebody has vouched for them."""

    version: Version
    library_digests: Annotated[tuple[Digest, ...], Meta(max_length=64)] = ()


class Lists(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known. ``branches`` are the first numbers of driver versions that NVIDIA has released from."""

    version: Annotated[int, Meta(ge=1, le=2**31)]
    sources: Annotated[tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=64)]
    branches: Annotated[tuple[Count, ...], Meta(max_length=1_024)]
    devices: Annotated[tuple[ListedDevice, ...], Meta(max_length=10_000)]
    drivers: Annotated[tuple[ListedDriver, ...], Meta(max_length=10_000)]

    def digest(self) -> Digest:
        """What a verdict states: SHA-256 of the canonical bytes."""
        return digest(canonical(self))

    def device(self, device_id: str) -> ListedDevice | None:
        """The card of a PCI device id of NVIDIA."""
        return next((device for device in self.devices if device.device_id == device_id), None)

    def driver(self, version: str) -> ListedDriver | None:
        """The release of a version."""
        return next((driver for driver in self.drivers if driver.version == version), None)


class SignedLists(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An update as a file."""

    body: Lists
    sig: Signature
    signer: Address


def shipped() -> Lists:
    """The lists that come with Assay."""
    return msgspec.json.decode(resources.files(__name__).joinpath(_SHIPPED).read_bytes(), type=Lists)


def signed(lists: Lists, key: Key) -> bytes:
    """The file of an update."""
    sig = key.sign(LISTS_DOMAIN + canonical(lists))
    return canonical(SignedLists(body=lists, sig=sig, signer=key.address)) + b"\n"


def read_update(data: bytes, trusted: Address) -> Lists:
    """The lists of an update. Raises BadInput unless it is one, NotAllowed where somebody else has signed it, and
    VerificationFailed where the signature does not hold."""
    if len(data) > MAX_LISTS_BYTES:
        raise BadInput("the lists are refused", why=f"{len(data)} bytes are more than {MAX_LISTS_BYTES}")
    try:
        update = msgspec.json.decode(data, type=SignedLists)
        again = canonical(update)
    except UNREADABLE as error:
        raise BadInput(
            "the file is no update of the lists", why=str(error)[:300], hint="Take the file that its maintainer signed."
        ) from error
    if again != data.removesuffix(b"\n"):
        raise BadInput("the file is no update of the lists", why="it is not canonical JSON", hint="Take it unchanged.")
    if update.signer != trusted:
        raise NotAllowed(
            "the lists are refused",
            why=f"{update.signer} has signed them, {trusted} is trusted",
            hint="Name the maintainer whom you trust with --key, or take the file of that one.",
            signer=update.signer,
        )
    if not verify(update.signer, LISTS_DOMAIN + canonical(update.body), update.sig):
        raise VerificationFailed(
            "the lists are refused", why="the signature is not that of the signer", hint="Fetch the file again."
        )
    return update.body


def load(file: Path, trusted: Address | None = None) -> Lists:
    """The lists of this host: those of the update in ``file`` where there is one, else those that came with Assay.

    ``trusted`` None takes the signer that was trusted when the file was stored. Raises as `read_update`.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return shipped()
    except OSError as error:
        raise BadInput(f"{file} cannot be read", why=str(error.strerror), hint="Mend it, or remove it.") from error
    return read_update(data, trusted or _signer(data))


def _signer(data: bytes) -> Address:
    try:
        return msgspec.json.decode(data, type=SignedLists).signer
    except UNREADABLE as error:
        raise BadInput(
            "the stored lists are no lists", why=str(error)[:300], hint="Remove the file; those of Assay are used then."
        ) from error


def update(file: Path, data: bytes, trusted: Address) -> Lists:
    """Take an update and store it. Raises as `read_update`, and NotAllowed unless it is newer than what is used."""
    lists = read_update(data, trusted)
    current = load(file)
    if lists.version <= current.version:
        raise NotAllowed(
            "the lists are refused",
            why=f"their version is {lists.version}, {current.version} is in use",
            hint="Take a newer file; going back could let a revoked card pass.",
            version=lists.version,
            current=current.version,
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_private_file(file, data)
    return lists
