"""A chain in one process with one node that answers, and a verb's way to it: what is said is in a block at once."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from actors.queries import Queries
from bus.jetstream import JetStreamBus
from events.envelope import SignedEvent, read
from projections.read_model import ReadModel
from tests.projections.small_network import SmallNetwork


class OneNode:
    """The bus of one verb after the other. ``said`` is what they have signed, ``asked`` what they have asked for."""

    def __init__(self, network: SmallNetwork, directory: Path) -> None:
        self.network = network
        self.said: list[SignedEvent] = []
        self.asked: list[str] = []
        self._path = directory / "node.db"

    async def connect(self, *_: Any, **__: Any) -> Self:
        self._model = await ReadModel.open(self._path, self.network.genesis)
        await self._model.restore()
        await self.write()
        node: Any = SimpleNamespace(
            read_model=self._model, genesis=self.network.genesis, chain=self.network.chain, written=self
        )
        self._handlers = Queries(node).handlers()
        return self

    @property
    def value(self) -> int:
        """The height that is written."""
        return self._model.height

    async def write(self) -> None:
        """Takes the blocks of the network that are new."""
        finals = self.network.finals[self._model.height :]
        if finals:
            await self._model.write(finals, finals[-1].commit_sequence, finals[-1].sequence)

    # The port.

    async def query(self, what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        self.asked.append(what)
        return await self._handlers[what](data)

    async def submit(self, owner: str, data: bytes) -> None:
        signed = read(data)
        self.said.append(signed)
        self.network.block(signed)
        self.network.has_said(signed)
        await self.write()

    def listen_live(self, owner: str = "*", topic: str = "*") -> "Silence":
        return Silence()

    async def close(self) -> None:
        await self._model.close()


class Silence:
    """A live subject on which nothing is told."""

    async def ready(self) -> None:
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        await asyncio.Event().wait()

    async def close(self) -> None:
        return None


def one_node(network: SmallNetwork, directory: Path, patch: pytest.MonkeyPatch) -> OneNode:
    """From now on all verbs reach this node."""
    node = OneNode(network, directory)
    patch.setattr(JetStreamBus, "connect", node.connect)
    patch.setenv("ASSAY_URL", "nats://127.0.0.1:1")
    patch.setenv("ASSAY_CHAIN", network.genesis.chain)
    return node
