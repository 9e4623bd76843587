"""Where the command line finds what it was not told: the files of its directory.

The home is ``$ASSAY_HOME``, else ``.assay`` of the working directory where there is one, else ``~/.assay``. A devnet
writes ``context.json`` into ``.assay``, so that commands beside it need no options.
"""

import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from actors.command_line.options import Network
from events.canonical import UNREADABLE
from events.errors import BadInput

LOCAL: Final = ".assay"
CONTEXT: Final = "context.json"


class Context(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A network, and who one is there. Paths are absolute; ``wallet`` is the address of a wallet that signs."""

    url: str
    chain: str
    genesis: str | UnsetType = UNSET
    seed_file: str | UnsetType = UNSET
    wallet: str | UnsetType = UNSET


class Place(Struct, frozen=True):
    """The network that a command is about."""

    url: str
    chain: str
    context: Context | None


def home() -> Path:
    """The directory of wallets and of the context."""
    named = os.environ.get("ASSAY_HOME")
    if named:
        return Path(named).expanduser()
    local = Path.cwd() / LOCAL
    return local if local.is_dir() else Path.home() / LOCAL


def local_home() -> Path:
    """Where a devnet of this directory writes its context."""
    named = os.environ.get("ASSAY_HOME")
    return Path(named).expanduser() if named else Path.cwd() / LOCAL


def keystore_directory() -> Path:
    """Where wallets are kept."""
    return home() / "keystore"


def load_context(directory: Path | None = None) -> Context | None:
    """The context, None where there is none. Raises BadInput when it cannot be read as one."""
    path = (home() if directory is None else directory) / CONTEXT
    try:
        return msgspec.json.decode(path.read_bytes(), type=Context)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise BadInput(
            f"{path} is not a context", why=str(error), hint="Remove it; a devnet writes it anew."
        ) from error


def save_context(directory: Path, context: Context) -> Path:
    """Writes the context of a directory and returns the file's path."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / CONTEXT
    beside = directory / f".{CONTEXT}.{os.getpid()}"
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(context), indent=2) + b"\n")
    beside.replace(path)
    return path


def place_of(network: Network) -> Place:
    """The network by flag, environment, or context. Raises BadInput when none of them names it."""
    context = load_context()
    url = network.url or (context.url if context else "")
    chain = network.chain or (context.chain if context else "")
    for value, flag, variable in ((url, "--url", "ASSAY_URL"), (chain, "--chain", "ASSAY_CHAIN")):
        if not value:
            raise BadInput(
                f"which network? {flag} is missing",
                why=f"neither {flag} nor {variable} is given, and {home() / CONTEXT} does not exist",
                hint="Start one with `assay devnet` in this directory, or name one with --url and --chain.",
            )
    return Place(url, chain, context)
