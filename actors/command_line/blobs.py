"""The blobs that a verdict needs, in a directory: the user's own, or one that they are downloaded to."""

import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from actors.command_line.checks import Checks
from actors.command_line.network import connect
from actors.command_line.options import Network
from actors.command_line.output import Output
from events.canonical import digest
from events.errors import BlobMismatch, BlobUnavailable

Blobs = Annotated[Path | None, Parameter(help="Directory with blobs, each named by its digest; else the network's.")]
# Owner and digest.
Wanted = tuple[str, str]


@asynccontextmanager
async def blobs_in(
    directory: Path | None, wanted: Iterable[Wanted], network: Network, output: Output
) -> AsyncIterator[Path]:
    """The directory, or a new one with what the network has of the wanted blobs. Raises Unreachable, TimedOut."""
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="assay-verify-") as folder:
        await _download(network, dict.fromkeys(wanted), Path(folder), output)
        yield Path(folder)


async def _download(network: Network, wanted: Iterable[Wanted], directory: Path, output: Output) -> None:
    if not wanted:
        return
    async with connect(network) as line:
        for owner, name in wanted:
            output.note(f"download {name}")
            try:
                await line.bus.get_blob(owner, name, directory / name, line.timeout_ms)
            except (BlobUnavailable, BlobMismatch) as error:
                output.note(f"{name} is not to be had: {error}")


def hold_digest(checks: Checks, path: Path) -> None:
    """Notes the check that the file is the blob that it is named for. Raises VerificationFailed."""
    found = digest(path.read_bytes())
    checks.hold(f"blob {path.name} has its digest", holds=found == path.name, difference=f"its bytes have {found}")
