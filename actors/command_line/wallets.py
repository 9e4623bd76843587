"""``assay wallet …``: encrypted wallets on this machine, and signing without a network."""

import secrets
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from actors.command_line.amounts import moment
from actors.command_line.options import CONSENT, DISPLAY, SIGNER, Consent, Display, Signer
from actors.command_line.output import Output, check_target
from actors.command_line.secrets import confirm, keystore, own_address, read_password, seed_key, signing_key
from actors.keystore import Wallet, check_password, write_seed_file
from events.envelope import parse, wrap
from events.envelope import sign as sign_event
from events.errors import NotAllowed
from events.keys import Key

LARGEST_EVENT = 1_048_576

Name = Annotated[str, Parameter(help="Name of the wallet: letters, digits, dot, dash and underscore.")]
PasswordFile = Annotated[
    Path | None,
    Parameter(
        env_var="ASSAY_PASSWORD_FILE",
        allow_leading_hyphen=True,
        help="File with the password; - reads standard input.",
    ),
]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _show(output: Output, wallet: Wallet) -> None:
    facts = {"wallet": wallet.name, "address": wallet.address, "created": moment(wallet.created_ms)}
    output.one(wallet, facts)


def create(name: Name, /, *, password_file: PasswordFile = None, display: Display = DISPLAY) -> None:
    """Make a wallet with a new random key, encrypted by a password of at least 12 characters, among them a capital, a
    small letter, a digit and a symbol."""
    password = read_password(password_file, prompt=f"New password of wallet {name}: ", twice=True)
    _show(Output(display), keystore().create(name, password, _now_ms()))


def list_wallets(*, display: Display = DISPLAY) -> None:
    """The wallets of the keystore. What is wrong with a file is told on stderr."""
    output = Output(display)
    listing = keystore().wallets()
    rows = [{"wallet": w.name, "address": w.address, "created": moment(w.created_ms)} for w in listing.wallets]
    output.many(listing.wallets, rows)
    for fault in listing.faults:
        output.note(f"left out: {fault}\n  hint: {fault.hint}")
    if not rows:
        output.note("No wallets yet: `assay wallet create NAME` makes one.")


def address(name: Name | None = None, /, *, signer: Signer = SIGNER, display: Display = DISPLAY) -> None:
    """The address of a wallet, or of the key that this directory signs with."""
    chosen = Signer(wallet=name, password_file=signer.password_file) if name else signer
    found = own_address(chosen)
    output = Output(display)
    if output.is_for_people:
        sys.stdout.write(found + "\n")
    else:
        output.one({"address": found}, {})


def import_seed(
    name: Name,
    seed_file: Annotated[Path, Parameter(help="A line SU…, mode 0600.")],
    /,
    *,
    password_file: PasswordFile = None,
    display: Display = DISPLAY,
) -> None:
    """Make a wallet of a seed file (SU…), as any NKey tool writes it. The file stays; remove it yourself."""
    key = seed_key(seed_file)
    password = read_password(password_file, prompt=f"New password of wallet {name}: ", twice=True)
    _show(Output(display), keystore().import_seed(name, key.seed_text(), password, _now_ms()))


def export_seed(
    name: Name,
    file: Annotated[Path, Parameter(help="A new file.")],
    /,
    *,
    password_file: PasswordFile = None,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Write a wallet's seed into a new file of mode 0600. Whoever reads it owns the wallet's coins."""
    output = Output(display)
    check_target(file)
    if consent.dry_run:
        found = own_address(Signer(wallet=name))
        facts = {"address": found, "seed": file, "written": "no, --dry-run"}
        output.one({"dry_run": True, "address": found, "file": str(file)}, facts)
        return
    confirm(f"Write the seed of wallet {name}, not encrypted, into {file}?", consent)
    key = keystore().unlock(name, read_password(password_file, prompt=f"Password of wallet {name}: "))
    write_seed_file(file, key)
    output.one({"address": key.address, "file": str(file)}, {"address": key.address, "seed": file})


def new_seed(file: Annotated[Path, Parameter(help="A new file.")], /, *, display: Display = DISPLAY) -> None:
    """Make a new random key, not encrypted, in a file of mode 0600: for an actor that starts without anybody to type
    a password."""
    check_target(file)
    key = Key(secrets.token_bytes(32))
    write_seed_file(file, key)
    Output(display).one({"address": key.address, "file": str(file)}, {"address": key.address, "seed": file})


def change_password(
    name: Name,
    /,
    *,
    password_file: PasswordFile = None,
    new_password_file: Annotated[Path | None, Parameter(help="File with the new password.")] = None,
    display: Display = DISPLAY,
) -> None:
    """Encrypt a wallet anew. Copies of the old file still open with the old password."""
    old = read_password(password_file, prompt=f"Present password of wallet {name}: ")
    new = read_password(new_password_file, prompt=f"New password of wallet {name}: ", twice=True)
    check_password(new)
    keystore().change_password(name, old, new)
    Output(display).note(f"Wallet {name} is encrypted with the new password.")


def sign(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True, help="File with the body; - reads standard input.")],
    /,
    *,
    signer: Signer = SIGNER,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Sign the body in FILE (- for standard input) and print the envelope, ready to publish to your inbox. The
    body must be canonical JSON, with chain, nonce and your address as sender."""
    if str(file) == "-":
        body = sys.stdin.buffer.read(LARGEST_EVENT)
    else:
        with file.open("rb") as opened:
            body = opened.read(LARGEST_EVENT)
    output = Output(display)
    unsigned = parse(wrap(body.rstrip(b"\n"), "A" * 86))
    event = unsigned.event
    if consent.dry_run:
        output.one(
            {"dry_run": True, "event": unsigned.id, "body": event}, {"event": unsigned.id, "signed": "no, --dry-run"}
        )
        return
    key = signing_key(signer)
    if key.address != event.sender:
        raise NotAllowed(
            "this key cannot sign that event",
            why=f"its sender is {event.sender}, the key is that of {key.address}",
            hint="Choose the sender's key with --wallet or --seed-file.",
        )
    signed = sign_event(event, key)
    if output.is_for_people:
        sys.stdout.write(signed.raw.decode() + "\n")
    else:
        output.one({"event": signed.id, "envelope": msgspec.Raw(signed.raw)}, {})
