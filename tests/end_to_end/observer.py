"""A program that writes down the state root of each height, a line ``height root`` for each, as it finds it itself.

python observer.py follow URL GENESIS READ_MODEL ROOTS    follows a live log until it is killed
python observer.py audit EXPORT ROOTS                     audits an export
"""

import asyncio
import locale
import sys
from pathlib import Path
from typing import TextIO

from actors.clock import SystemClock
from actors.node import Node
from bus.jetstream import JetStreamBus
from events.blocks import decode_genesis
from projections.audit import audit_file
from projections.chain import Final
from projections.contest import Candidate


class Notes:
    """An observer of a node that writes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    async def on_candidate(self, candidate: Candidate) -> None:
        pass

    async def on_final(self, final: Final) -> None:
        self._file.write(f"{final.header.height} {final.executed.state_root}\n")
        self._file.flush()


async def follow(url: str, genesis_file: Path, read_model: Path, roots: Path) -> None:
    """Takes up where the read model stands."""
    genesis = decode_genesis(genesis_file.read_bytes())
    bus = await JetStreamBus.connect(url, genesis.chain, name="observer")
    node = Node(bus, SystemClock(), genesis, read_model)
    with roots.open("a") as file:
        node.observe(Notes(file))
        await node.start()
        await node.join()


def audit(export: Path, roots: Path) -> None:
    """Raises Divergence."""
    with roots.open("a") as file:
        audit_file(export, roots=lambda height, root: print(height, root, file=file))


if __name__ == "__main__":
    # As a program does that speaks its user's language. Raises where the machine does not have that locale.
    locale.setlocale(locale.LC_ALL, "")
    command, *arguments = sys.argv[1:]
    if command == "follow":
        asyncio.run(follow(arguments[0], *map(Path, arguments[1:])))
    else:
        audit(*map(Path, arguments))
