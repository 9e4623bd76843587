"""``assay miner lists``: which cards and drivers this host knows, and how it comes to know more."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from actors.command_line.context import home
from actors.command_line.options import DISPLAY, SIGNER, Address, Display, Signer
from actors.command_line.output import Output, check_target
from events.errors import BadInput

FILE: Final = "lists.json"


Kept = Annotated[
    Path | None,
    Parameter(
        name="--lists",
        env_var="ASSAY_LISTS",
        help="Where an update is kept: for a running actor, lists.json in its directory; else in the home.",
    ),
]


def lists_file(kept: Path | None = None) -> Path:
    """Where the lists of an update are kept."""
    return kept or home() / FILE


def show(*, kept: Kept = None, display: Display = DISPLAY) -> None:
    """The lists in use: cards, drivers, where they come from, and the digest that verdicts state."""
    from actors.attestation.lists import load

    file = lists_file(kept)
    lists = load(file)
    facts = {
        "version": lists.version,
        "digest": lists.digest(),
        "kept in": str(file) if file.exists() else "Assay itself",
        "cards": "\n".join(f"10de:{device.device_id}  {device.product}" for device in lists.devices),
        "drivers": ", ".join(driver.version for driver in lists.drivers),
        "sources": "\n".join(lists.sources),
    }
    Output(display).one(lists, facts)


def update(
    file: Path,
    *,
    key: Annotated[Address, Parameter(env_var="ASSAY_LISTS_KEY", help="Whose signature is trusted.")],
    kept: Kept = None,
    display: Display = DISPLAY,
) -> None:
    """Take newer lists from a signed file; anything else is refused and changes nothing."""
    from actors.attestation.lists import update as take

    lists = take(lists_file(kept), _bytes(file), key)
    facts = {"version": lists.version, "digest": lists.digest(), "cards": len(lists.devices)}
    Output(display).one(lists, {**facts, "drivers": len(lists.drivers)})


def sign(
    file: Path,
    *,
    output_file: Annotated[Path, Parameter(name="--to", help="The signed file, to be given to others.")],
    signer: Signer = SIGNER,
    display: Display = DISPLAY,
) -> None:
    """Sign lists (in the form that `assay miner lists show -o json` prints), as their maintainer."""
    from actors.attestation.lists import Lists, signed
    from actors.command_line.secrets import signing_key
    from events.canonical import UNREADABLE

    check_target(output_file)
    try:
        lists = msgspec.json.decode(_bytes(file), type=Lists)
    except UNREADABLE as error:
        raise BadInput(f"{file} has no lists", why=str(error)[:300], hint="Begin with those in use.") from error
    output_file.write_bytes(signed(lists, signing_key(signer)))
    facts = {"file": str(output_file), "version": lists.version, "digest": lists.digest()}
    Output(display).one(lists, facts)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file} cannot be read", why=str(error.strerror), hint="Name the file.") from error
