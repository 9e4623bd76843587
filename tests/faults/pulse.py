"""Hears of final blocks as any client can, from the log alone, and notes when."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Self

import msgspec
from msgspec import Raw, Struct

from bus.jetstream import JetStreamBus
from bus.port import ChainMessage
from events.errors import TimedOut, Unreachable


class Beat(Struct, frozen=True):
    """A final block: when the server stored the last vote that it needed, and when it was heard of; both by the
    monotonic clock."""

    final_s: float
    heard_s: float


class _Body(Struct):
    sender: str
    nonce: int


class _Envelope(Struct):
    body: _Body


class _Block(Struct):
    header: Raw
    events: list[_Envelope]


class _Header(Struct):
    height: int
    parent: str


class _Vote(Struct):
    block: str
    validator: str


class _SignedVote(Struct):
    vote: _Vote


_blocks = msgspec.json.Decoder(_Block)
_headers = msgspec.json.Decoder(_Header)
_votes = msgspec.json.Decoder(_SignedVote)


class Pulse:
    """Follows the log in the background; ``note`` hears the sender and the nonce of each event that is final."""

    def __init__(self, bus: JetStreamBus, genesis_hash: str, validators: int, note: Callable[[str, int], None]) -> None:
        self._bus = bus
        self._head = genesis_hash
        self._validators = validators
        self._note = note
        self._blocks: dict[str, tuple[_Block, _Header]] = {}
        self._voters: dict[str, set[str]] = {}
        self.height = 0
        self.events = 0
        self.position = 0
        self.beats: list[Beat] = []
        # Of each final block, by height.
        self.hashes: dict[int, str] = {}

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(Unreachable, TimedOut):
                reader = await self._bus.read_chain(self.position)
                try:
                    while True:
                        for message in await reader.next(256, 1_000):
                            self.position = message.sequence
                            self._take(message)
                finally:
                    await reader.close()
            await asyncio.sleep(0.1)

    def _take(self, message: ChainMessage) -> None:
        if message.kind == "block":
            block = _blocks.decode(message.data)
            header = _headers.decode(block.header)
            if header.height == self.height + 1:
                self._blocks[sha256(block.header).hexdigest()] = (block, header)
            return
        vote = _votes.decode(message.data).vote
        voters = self._voters.setdefault(vote.block, set())
        voters.add(vote.validator)
        found = self._blocks.get(vote.block)
        if found is None or found[1].parent != self._head or 3 * len(voters) < 2 * self._validators:
            return
        block, header = found
        self._head, self.height = vote.block, header.height
        self._blocks.clear()
        self._voters.clear()
        self.hashes[header.height] = vote.block
        heard_s = time.monotonic()
        self.beats.append(Beat(heard_s - (time.time_ns() - message.time_ns) / 1_000_000_000, heard_s))
        self.events += len(block.events)
        for envelope in block.events:
            self._note(envelope.body.sender, envelope.body.nonce)

    def failure(self) -> BaseException | None:
        """What ended it, if anything did."""
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    def last_final_s(self) -> float:
        """When the newest block that was heard of became final; raises what has ended the hearing."""
        if (failure := self.failure()) is not None:
            raise failure
        return self.beats[-1].final_s if self.beats else 0.0
