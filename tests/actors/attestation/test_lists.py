"""The lists of cards and drivers: what is shipped, and that only a trusted signature changes them."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.attestation.lists import ListedDriver, Lists, load, read_update, shipped, signed, update
from events.canonical import canonical
from events.errors import AssayError, BadInput, NotAllowed, VerificationFailed
from events.keys import Key

MAINTAINER = Key(bytes(31) + b"\1")
STRANGER = Key(bytes(31) + b"\2")


def newer(version: int = 2, **changes: Any) -> Lists:
    return msgspec.structs.replace(shipped(), version=version, **changes)


def test_the_shipped_lists_name_the_admitted_cards() -> None:
    """RTX 3090 and 4090, A100, H100, H200 and L40S are known, and 50 drivers or more."""
    lists = shipped()
    known = {device.device_id: device.product for device in lists.devices}
    assert {"2204", "2684", "20b2", "2330", "2335", "26b9", "2704"} <= set(known)
    assert len(known) == len(lists.devices)
    assert len({driver.version for driver in lists.drivers}) == len(lists.drivers) >= 50
    assert {int(driver.version.split(".")[0]) for driver in lists.drivers} == set(lists.branches)
    assert lists.sources


def test_every_listed_card_has_a_peak() -> None:
    """Without one a card would owe no speed; the least of them is a hundredth of the largest."""
    peaks = {device.product: device.peak_giga_operations for device in shipped().devices}
    assert min(peaks.values()) * 100 > max(peaks.values())
    assert (peaks["H200 SXM 141GB"], peaks["GeForce RTX 3090"], peaks["Tesla V100 SXM2 32GB"]) == (
        1_979_000,
        284_000,
        62_800,
    )
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(
            canonical(shipped()).replace(b'"peak_giga_operations":284000', b'"peak_giga_operations":0'), type=Lists
        )


def test_an_update_is_taken_and_kept(tmp_path: Path) -> None:
    """Newer lists with the trusted signature are stored, and used from then on."""
    file = tmp_path / "home" / "lists.json"
    assert load(file) == shipped()
    drivers = (*shipped().drivers, ListedDriver(version="999.1", library_digests=("ab" * 32,)))
    lists = newer(drivers=drivers, branches=(*shipped().branches, 999))
    assert update(file, signed(lists, MAINTAINER), MAINTAINER.address) == lists
    assert load(file) == load(file, MAINTAINER.address) == lists
    assert load(file).digest() != shipped().digest()


def _tampered(data: bytes) -> bytes:
    return data.replace(b"NVIDIA's data sheets", b"NVIDIA's data shirts")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (signed(newer(), STRANGER), NotAllowed),
        (_tampered(signed(newer(), MAINTAINER)), VerificationFailed),
        (signed(newer(), STRANGER).replace(STRANGER.address.encode(), MAINTAINER.address.encode()), VerificationFailed),
        (signed(newer(version=1), MAINTAINER), NotAllowed),
        (b" " + signed(newer(), MAINTAINER), BadInput),
        (signed(newer(), MAINTAINER)[:-9], BadInput),
        (canonical(newer()), BadInput),
        (b"", BadInput),
        (b"[" * 100_000, BadInput),
        (b"{}" + b" " * (4 << 20), BadInput),
    ],
    ids=[
        "another signer",
        "changed",
        "another's name on it",
        "not newer",
        "not canonical",
        "cut",
        "not signed",
        "empty",
        "deep",
        "too large",
    ],
)
def test_anything_else_is_refused(tmp_path: Path, data: bytes, error: type[AssayError]) -> None:
    """Every other file is refused with a typed error, and changes nothing."""
    file = tmp_path / "lists.json"
    with pytest.raises(error):
        update(file, data, MAINTAINER.address)
    assert not file.exists()


def test_lists_never_go_back(tmp_path: Path) -> None:
    """An older update cannot replace a newer one."""
    file = tmp_path / "lists.json"
    update(file, signed(newer(5), MAINTAINER), MAINTAINER.address)
    with pytest.raises(NotAllowed):
        update(file, signed(newer(4), MAINTAINER), MAINTAINER.address)
    assert load(file).version == 5


def test_a_stored_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    """What lies on the disk is checked again whenever it is read."""
    file = tmp_path / "lists.json"
    update(file, signed(newer(), MAINTAINER), MAINTAINER.address)
    file.write_bytes(_tampered(file.read_bytes()))
    with pytest.raises(VerificationFailed):
        load(file)
    file.write_bytes(b"nothing")
    with pytest.raises(BadInput):
        load(file)


def test_a_signature_is_for_lists_alone() -> None:
    """The same bytes signed for another purpose are no signature here."""
    lists = newer()
    other = {"body": lists, "sig": MAINTAINER.sign(canonical(lists)), "signer": MAINTAINER.address}
    with pytest.raises(VerificationFailed):
        read_update(canonical(other), MAINTAINER.address)
