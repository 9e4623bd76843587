"""A small network's log as a file, and the blobs beside it."""

from pathlib import Path

from events.canonical import canonical, digest
from projections.audit import Auditor
from projections.log_file import LogWriter
from schemas.genesis import Genesis
from tests.projections.small_network import SmallNetwork


def export(network: SmallNetwork, file: Path) -> Path:
    """Writes the export and returns its path."""
    auditor = Auditor(network.genesis)
    with file.open("wb") as opened:
        writer = LogWriter(opened, network.genesis)
        for sequence, kind, data in network.log:
            auditor.add(sequence, kind, data)
            writer.add(sequence, kind, data)
        auditor.finish()
        writer.close(auditor.totals())
    return file


def genesis_file(genesis: Genesis, file: Path) -> Path:
    """Writes the genesis as its owner has it, and returns the path."""
    file.write_bytes(canonical(genesis))
    return file


def keep(directory: Path, data: bytes) -> str:
    """Puts a blob there, and returns the digest that it is named by."""
    name = digest(data)
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(data)
    return name
