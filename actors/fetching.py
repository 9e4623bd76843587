"""Getting a blob, and telling apart why it cannot be had: its owner's fault, the network's, or this host's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bus.port import Bus
from events.errors import AssayError, BlobUnavailable

SECOND_LOOK_MS: Final = 3_000


class HostFault(AssayError):
    """This host lacks disk or memory for what it was to do."""

    code = "HOST_FAULT"


@contextmanager
def host_faults(doing: str) -> Iterator[None]:
    """What the operating system refuses becomes HostFault."""
    try:
        yield
    except (OSError, MemoryError) as error:
        hint = "Give this host more disk and memory."
        raise HostFault(f"{doing} failed on this host", why=repr(error), hint=hint) from error


async def fetch(bus: Bus, owner: str, digest: str, target: Path, timeout_ms: int) -> None:
    """Downloads a blob to ``target``, unless it is there already.

    Raises BlobUnavailable only when the server was there to be asked, so that nobody is blamed for its absence: when it
    has been away meanwhile, the second look raises another BusError or TimedOut, or finds the blob. Raises BlobMismatch
    when the bytes have another digest.
    """
    if target.exists():
        return
    try:
        await bus.get_blob(owner, digest, target, timeout_ms)
    except BlobUnavailable:
        await bus.get_blob(owner, digest, target, SECOND_LOOK_MS)


def abandoned(directory: Path, kept: frozenset[str]) -> list[Path]:
    """The folders of jobs below ``directory`` that are none of the ``kept`` ones."""
    if not directory.is_dir():
        return []
    return sorted(folder for folder in directory.iterdir() if folder.name not in kept)
