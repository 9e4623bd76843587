"""Secrets of a verb: passwords and keys. From files, standard input, the environment or a prompt; never from argv."""

import getpass
import os
import sys
from pathlib import Path

from actors.command_line.context import keystore_directory, load_context
from actors.command_line.options import Consent, Signer
from actors.keystore import Keystore, load_seed_file
from events.errors import BadInput, NotAllowed, NotFound
from events.keys import Key

LONGEST_PASSWORD = 4_096


def keystore() -> Keystore:
    """The keystore of the home directory."""
    return Keystore(keystore_directory())


def read_password(password_file: Path | None, *, prompt: str = "Password: ", twice: bool = False) -> str:
    """The password from the file (``-``: the first line of standard input), from ASSAY_PASSWORD, or asked for on a
    terminal, ``twice`` where it is a new one. Raises BadInput, NotAllowed."""
    if password_file is not None:
        return _first_line(password_file)
    if password := os.environ.get("ASSAY_PASSWORD"):
        return password
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NotAllowed(
            "no password",
            why="there is no terminal to ask on",
            hint="Give --password-file FILE (- for standard input), or set ASSAY_PASSWORD_FILE or ASSAY_PASSWORD.",
        )
    password = getpass.getpass(prompt, stream=sys.stderr)
    if twice and getpass.getpass("Once more: ", stream=sys.stderr) != password:
        raise BadInput("the two passwords differ", hint="Type the same password twice.")
    return password


def _first_line(path: Path) -> str:
    if str(path) == "-":
        text = sys.stdin.readline(LONGEST_PASSWORD)
    else:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            text = file.readline(LONGEST_PASSWORD)
    password = text.rstrip("\r\n")
    if not password:
        raise BadInput(f"{'standard input' if str(path) == '-' else path} holds no password on its first line")
    return password


def signing_key(signer: Signer) -> Key:
    """The key that a verb signs with: of the wallet, the seed file, or the context's seed file. Raises NotAllowed where
    none is named, and the errors of the keystore."""
    if signer.wallet is not None:
        store = keystore()
        password = read_password(signer.password_file, prompt=f"Password of wallet {signer.wallet}: ")
        return store.unlock(signer.wallet, password)
    if signer.seed_file is not None:
        return seed_key(signer.seed_file)
    context = load_context()
    if context is not None and isinstance(context.seed_file, str):
        return seed_key(Path(context.seed_file))
    raise NotAllowed(
        "no key to sign with",
        why="neither --wallet nor --seed-file is given, and this directory has no devnet",
        hint="Name a key with --seed-file FILE or --wallet NAME; `assay wallet create NAME` makes a wallet.",
    )


def seed_key(path: Path) -> Key:
    """The key in a seed file. Raises NotFound, and the errors of the keystore."""
    if not path.exists():
        raise NotFound(
            f"there is no seed file {path}",
            hint="Name another with --seed-file; that of a devnet is gone when the devnet is: start one again.",
        )
    return load_seed_file(path)


def own_address(signer: Signer) -> str:
    """The address of that key, without a password where that is possible. Raises as `signing_key`."""
    if signer.wallet is not None:
        listing = keystore().wallets()
        for wallet in listing.wallets:
            if wallet.name == signer.wallet:
                return wallet.address
        if not listing.faults:
            raise NotFound(
                f"there is no wallet {signer.wallet!r}",
                why=f"{keystore_directory()} has {', '.join(wallet.name for wallet in listing.wallets) or 'none'}",
                hint="`assay wallet create NAME` makes one.",
            )
    return signing_key(signer).address


def confirm(question: str, consent: Consent) -> None:
    """Asks on a terminal, unless --yes was given; a script that has no terminal has said what it wants. Raises
    NotAllowed when the answer is not yes."""
    if consent.yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise NotAllowed("nothing was sent", why="the answer was not yes", hint="Use --yes to be asked nothing.")
