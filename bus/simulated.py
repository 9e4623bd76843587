"""The port in memory: the same limits and refusals, no server, no real time, the same run from the same seed.

A `SimulatedNetwork` is what a NATS server would be; each process of a simulation has its own `SimulatedBus` to it. What
shall go wrong is said by one `Faults` object, which every operation asks.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from bus.blob_files import Assembly, chunk_header, chunk_of, part_of, source_file
from bus.port import ChainKind, Handler, Limits
from bus.publishing import EXPECTED_LAST, EXPECTED_LAST_OF, MESSAGE_ID
from bus.simulated_network import Faults, SimulatedNetwork, matches
from bus.simulated_readers import (
    SimulatedChainReader,
    SimulatedDoor,
    SimulatedFeedReader,
    SimulatedInboxReader,
    SimulatedLiveListener,
    wait_for,
)
from bus.simulated_stream import SimulatedReader, SimulatedStream
from bus.streams import (
    check_settings,
    check_stream,
    reader_name,
    reader_settings,
    stream_settings,
    with_genesis,
)
from events import subjects
from events.errors import BusError, InboxFull, MessageTooLarge, TimedOut, Unreachable

SUBMIT_TIMEOUT_MS = 15_000
RETRY_MS = 250

__all__ = ["Faults", "SimulatedBus", "SimulatedNetwork"]

Result = TypeVar("Result")
log = structlog.get_logger(__name__)


class SimulatedBus:
    """See `bus.port.Bus`."""

    def __init__(
        self, network: SimulatedNetwork, chain: str, limits: Limits | None = None, name: str = "assay"
    ) -> None:
        self.chain = chain
        self.limits = limits or Limits()
        self.name = name
        self._network = network
        self._clock = network.clock
        self._closed = False
        self._open: list[SimulatedDoor | SimulatedLiveListener] = []

    async def _do(self, operation: str, action: Callable[[], Result]) -> Result:
        """Everything passes here, and what shall go wrong with it goes wrong here."""
        faults = self._network.faults
        delay_ms = faults.delay_ms(self.name, operation)
        if delay_ms:
            await self._clock.sleep_ms(delay_ms)
        if self._closed:
            raise Unreachable("the connection is closed")
        if faults.cut_off(self.name) or faults.loses_request(self.name, operation):
            raise Unreachable("the network does not answer", operation=operation)
        result = action()
        if faults.loses_answer(self.name, operation):
            raise Unreachable("the network does not answer", operation=operation)
        return result

    def _connected(self) -> bool:
        return not self._closed and not self._network.faults.cut_off(self.name)

    async def set_up(self, genesis_hash: str, validators: tuple[str, ...]) -> None:
        await self._do("set_up", lambda: self._set_up(genesis_hash, validators))

    def _set_up(self, genesis_hash: str, validators: tuple[str, ...]) -> None:
        for settings in stream_settings(self.chain, self.limits).values():
            wanted = with_genesis(settings, genesis_hash)
            stream = self._network.streams.setdefault(wanted["name"], SimulatedStream(wanted, self._clock))
            check_stream(wanted, stream.settings, genesis_hash)
        for validator in validators:
            self._ensure_reader(validator)

    def _ensure_reader(self, validator: str) -> SimulatedReader:
        wanted, name = reader_settings(validator, self.limits), reader_name(validator)
        reader = self._network.stream(self.chain, "INBOX").readers.setdefault(name, SimulatedReader(wanted))
        check_settings(f"reader {name}", wanted, reader.settings)
        return reader

    async def submit(self, owner: str, data: bytes) -> None:
        if len(data) > self.limits.event_bytes:
            limit = self.limits.event_bytes
            hint = f"At most {limit}."
            raise MessageTooLarge(f"an event has {len(data)} bytes", hint=hint, size=len(data), limit=limit)
        subject = subjects.inbox(self.chain, owner)
        await self._persist("submit", lambda: self._network.publish(subject, data))

    async def _persist(self, operation: str, action: Callable[[], int]) -> int:
        """Tries again while the network does not answer. When only the answer was lost, the message is there twice."""
        deadline = self._clock.now_ms() + SUBMIT_TIMEOUT_MS
        while True:
            try:
                return await self._do(operation, action)
            except Unreachable:
                if self._closed or self._clock.now_ms() + RETRY_MS >= deadline:
                    raise
            await self._clock.sleep_ms(RETRY_MS)

    async def submit_many(self, messages: list[tuple[str, bytes]]) -> list[Exception | None]:
        fates: list[Exception | None] = []
        for owner, data in messages:
            try:
                await self.submit(owner, data)
                fates.append(None)
            except BusError as error:
                fates.append(error)
        return fates

    async def read_inboxes(self, validator: str) -> SimulatedInboxReader:
        reader = await self._do("read_inboxes", lambda: self._ensure_reader(validator))
        reader.reset()
        stream = self._network.stream(self.chain, "INBOX")
        again = partial(self._ensure_reader, validator)
        return SimulatedInboxReader(self._clock, self._connected, stream, reader_name(validator), again)

    async def retire_reader(self, validator: str) -> None:
        stream = self._network.stream(self.chain, "INBOX")
        await self._do("retire_reader", lambda: stream.retire(reader_name(validator)))

    async def append(self, kind: ChainKind, data: bytes, after_block: int | None = None) -> int:
        limit = self.limits.block_bytes
        if len(data) > limit:
            hint = f"At most {limit}."
            raise MessageTooLarge(f"a {kind} has {len(data)} bytes", hint=hint, size=len(data), limit=limit)
        subject = subjects.block(self.chain) if kind == "block" else subjects.vote(self.chain)
        fence = {EXPECTED_LAST: str(after_block), EXPECTED_LAST_OF: subjects.block(self.chain)}
        headers = {} if after_block is None else fence
        return await self._do("append", lambda: self._network.publish(subject, data, headers))

    async def read_chain(self, after: int) -> SimulatedChainReader:
        stream = await self._do("read_chain", lambda: self._network.stream(self.chain, "CHAIN"))
        return SimulatedChainReader(self._clock, self._connected, stream, self.chain, after)

    async def chain_end(self) -> int:
        return await self._do("chain_end", lambda: self._network.stream(self.chain, "CHAIN").last_sequence)

    async def publish_feed(self, messages: list[tuple[str, str, bytes]]) -> None:
        for address, key, data in messages:
            subject = subjects.feed(self.chain, address)

            def store(subject: str = subject, data: bytes = data, key: str = key) -> int:
                return self._network.publish(subject, data, {MESSAGE_ID: key})

            await self._persist("publish_feed", store)

    async def read_feed(self, address: str, after: int) -> SimulatedFeedReader:
        stream = await self._do("read_feed", lambda: self._network.stream(self.chain, "FEED"))
        subject = subjects.feed(self.chain, address)
        return SimulatedFeedReader(self._clock, self._connected, stream, subject, after)

    async def publish_live(self, owner: str, topic: str, data: bytes) -> None:
        if self._connected():
            subject = subjects.live(self.chain, owner, topic)
            for listener in self._network.listeners:
                if matches(listener.subject, subject):
                    listener.hear(owner, topic, data)

    def listen_live(self, owner: str = "*", topic: str = "*") -> SimulatedLiveListener:
        subject = subjects.live(self.chain, owner, topic)
        listener = SimulatedLiveListener(self._network.listeners, subject, self._connected)
        self._open.append(listener)
        return listener

    async def serve_queries(self, handlers: dict[str, Handler], version: str) -> SimulatedDoor:
        return await self._serve({subjects.query(self.chain, what): handler for what, handler in handlers.items()})

    async def serve_wallet(self, address: str, handler: Handler) -> SimulatedDoor:
        return await self._serve({subjects.wallet(self.chain, address): handler})

    async def _serve(self, handlers: dict[str, Handler]) -> SimulatedDoor:
        door = SimulatedDoor(self._network.doors, handlers, self._connected)
        await self._do("serve", door.open)
        self._open.append(door)
        return door

    async def query(self, what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        return await self._ask("query", subjects.query(self.chain, what), data, timeout_ms)

    async def ask_wallet(self, address: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        return await self._ask("ask_wallet", subjects.wallet(self.chain, address), data, timeout_ms)

    async def _ask(self, operation: str, subject: str, data: bytes, timeout_ms: int) -> bytes:
        door = await self._do(operation, lambda: self._next_door(subject))
        task = asyncio.create_task(_call(door.handlers[subject](data)))
        await wait_for(asyncio.wait([task]), self._clock, timeout_ms)
        if not task.done():
            task.cancel()
            raise TimedOut(f"{subject}: no answer in time")
        error = task.exception()
        if error is not None:
            log.error("door_failed", subject=subject, exc_info=error)
            raise Unreachable(f"{subject}: the node failed to answer", why=repr(error)) from error
        if self._network.faults.loses_answer(self.name, operation):
            raise TimedOut(f"{subject}: no answer in time")
        return task.result()

    def _next_door(self, subject: str) -> SimulatedDoor:
        doors = [door for door in self._network.doors.get(subject, []) if door.connected()]
        if not doors:
            raise Unreachable(f"{subject}: nobody answers", hint="Check the name of the chain; does a node of it run?")
        everyone = self._network.doors[subject]
        everyone.remove(doors[0])
        everyone.append(doors[0])  # its turn comes again after the others'
        return doors[0]

    async def put_blob(self, owner: str, source: Path, progress: Callable[[int], None] | None = None) -> str:
        file = await source_file(source, self.limits)
        subject = subjects.blob(self.chain, owner, file.digest)
        stored = Assembly(file.digest, None, self.limits.blob_bytes)
        if self._assemble(subject, 0, stored)[1]:
            if progress is not None:
                progress(file.size)
            return file.digest
        sent = 0
        async for chunk in file.chunks():
            data, headers = chunk.data, chunk_header(chunk)

            def store(data: bytes = data, headers: dict[str, str] = headers) -> int:
                return self._network.publish(subject, data, headers)

            try:
                await self._persist("put_blob", store)
            except InboxFull as full:
                hint = "Old blobs expire; try again later."
                raise BusError("the store of blobs is full", why=full.why, hint=hint) from full
            sent += len(data)
            if progress is not None:
                progress(sent)
        return file.digest

    async def get_blob(
        self, owner: str, digest: str, target: Path, timeout_ms: int, progress: Callable[[int], None] | None = None
    ) -> int:
        subject = subjects.blob(self.chain, owner, digest)
        deadline = self._clock.now_ms() + timeout_ms
        assembly = Assembly(digest, part_of(target), self.limits.blob_bytes)
        try:
            stream = await self._do("get_blob", lambda: self._network.stream(self.chain, "BLOBS"))
            position, right = 0, False
            while not right:
                change = stream.change
                if self._connected():
                    position, right = self._assemble(subject, position, assembly)
                left_ms = deadline - self._clock.now_ms()
                if not right and left_ms <= 0:
                    raise assembly.shortfall(digest, timeout_ms)
                if not right:
                    await wait_for(change.wait(), self._clock, min(left_ms, RETRY_MS))
                    if stream.change is change and assembly.give_way():
                        position = assembly.restart_after
            if progress is not None:
                progress(assembly.size)
            assembly.finish(target)
        finally:
            assembly.abandon()
        return assembly.size

    def _assemble(self, subject: str, after: int, assembly: Assembly) -> tuple[int, bool]:
        """How far the stored chunks were read, and whether they make the right blob."""
        stream = self._network.stream(self.chain, "BLOBS")
        while True:
            void = False
            for message in stream.of_subject(subject, after):
                after = message.sequence
                chunk = chunk_of(message.sequence, message.headers, message.data)
                complete = None if chunk is None else assembly.take(chunk)
                if complete:
                    return after, True
                if complete is False:
                    after, void = assembly.restart_after, True
                    break
            if not void:
                return after, False

    async def close(self) -> None:
        self._closed = True
        for opened in self._open:
            await opened.close()


async def _call(answer: Awaitable[bytes]) -> bytes:
    return await answer
