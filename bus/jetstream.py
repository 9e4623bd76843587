"""The port over a NATS server with JetStream."""

from collections.abc import Callable
from pathlib import Path

import nats.errors
import structlog

from bus.blobs import Blobs
from bus.connection import ApiError, Connection
from bus.doors import JetStreamLiveListener, QueryService, WalletDoor, ask
from bus.port import ChainKind, FeedRecord, Handler, Limits
from bus.publishing import EXPECTED_LAST, EXPECTED_LAST_OF, MESSAGE_ID, Outgoing, Publisher
from bus.readers import FilteredReader, JetStreamChainReader, JetStreamInboxReader, feed_reader, stream_state
from bus.streams import CONSUMER_MISSING, STREAM_MISSING, not_set_up, reader_name, set_up
from events import subjects
from events.errors import BusError, MessageTooLarge

APPEND_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


class JetStreamBus:
    """See `bus.port.Bus`. Made by `connect`."""

    def __init__(self, connection: Connection, publisher: Publisher, chain: str, limits: Limits) -> None:
        self.chain = chain
        self.limits = limits
        self._connection = connection
        self._publisher = publisher
        self._blobs = Blobs(connection, publisher, chain, limits)

    @classmethod
    async def connect(
        cls,
        url: str,
        chain: str,
        limits: Limits | None = None,
        name: str = "assay",
        *,
        seed: str | None = None,
        inbox_prefix: str = "_INBOX",
    ) -> "JetStreamBus":
        """``name`` is shown by the server, ``seed`` an NKey to authenticate with. Raises Unreachable, BusError."""
        connection = await Connection.open(url, name, seed=seed, inbox_prefix=inbox_prefix)
        publisher = Publisher(connection)
        await publisher.start()
        return cls(connection, publisher, chain, limits or Limits())

    async def set_up(self, genesis_hash: str, validators: tuple[str, ...]) -> None:
        await set_up(self._connection, self.chain, self.limits, genesis_hash, validators)

    async def submit(self, owner: str, data: bytes) -> None:
        (fate,) = await self.submit_many([(owner, data)])
        if fate is not None:
            raise fate

    async def submit_many(self, messages: list[tuple[str, bytes]]) -> list[Exception | None]:
        limit = self.limits.event_bytes
        fates: list[Exception | None] = [
            MessageTooLarge(f"an event has {len(data)} bytes", hint=f"At most {limit}.", size=len(data), limit=limit)
            if len(data) > limit
            else None
            for _, data in messages
        ]
        sent = [index for index, fate in enumerate(fates) if fate is None]
        outgoing = [Outgoing(subjects.inbox(self.chain, messages[index][0]), messages[index][1]) for index in sent]
        answers = await self._publisher.publish(outgoing, retry="lost")
        for index, answer in zip(sent, answers, strict=True):
            fates[index] = answer if isinstance(answer, BusError) else None
        return fates

    async def read_inboxes(self, validator: str) -> JetStreamInboxReader:
        reader = JetStreamInboxReader(self._connection, self.chain, self.limits, validator)
        await reader.start()
        return reader

    async def retire_reader(self, validator: str) -> None:
        stream = subjects.stream(self.chain, "INBOX")
        try:
            await self._connection.api(f"CONSUMER.DELETE.{stream}.{reader_name(validator)}")
        except ApiError as error:
            if error.number == STREAM_MISSING:
                raise not_set_up(self.chain) from error
            if error.number != CONSUMER_MISSING:
                raise BusError("the NATS server does not remove a reader", why=error.description) from error

    async def append(self, kind: ChainKind, data: bytes, after_block: int | None = None) -> int:
        limit = self.limits.block_bytes
        if len(data) > limit:
            raise MessageTooLarge(
                f"a {kind} has {len(data)} bytes", hint=f"At most {limit}.", size=len(data), limit=limit
            )
        subject = subjects.block(self.chain) if kind == "block" else subjects.vote(self.chain)
        fence = {EXPECTED_LAST: str(after_block), EXPECTED_LAST_OF: subjects.block(self.chain)}
        headers = None if after_block is None else fence
        message = Outgoing(subject, data, headers)
        (fate,) = await self._publisher.publish([message], retry="unsent", timeout_s=APPEND_TIMEOUT_S)
        if isinstance(fate, BusError):
            raise fate
        return fate

    async def read_chain(self, after: int) -> JetStreamChainReader:
        reader = JetStreamChainReader(self._connection, self.chain, self.limits, after)
        await reader.start()
        return reader

    async def chain_end(self) -> int:
        info = await stream_state(self._connection, self.chain, "CHAIN")
        end: int = info["state"]["last_seq"]
        return end

    async def publish_feed(self, messages: list[tuple[str, str, bytes]]) -> None:
        outgoing = [
            Outgoing(subjects.feed(self.chain, address), data, {MESSAGE_ID: key}) for address, key, data in messages
        ]
        for fate in await self._publisher.publish(outgoing, retry="lost"):
            if isinstance(fate, BusError):
                raise fate

    async def read_feed(self, address: str, after: int) -> FilteredReader[FeedRecord]:
        reader = feed_reader(self._connection, self.chain, address, after)
        await reader.start()
        return reader

    async def publish_live(self, owner: str, topic: str, data: bytes) -> None:
        if self._connection.client.is_connected:  # else it would come late, which is worse than not at all
            try:
                await self._connection.client.publish(subjects.live(self.chain, owner, topic), data)
            except (nats.errors.Error, OSError) as error:
                log.debug("live_message_lost", error=repr(error))

    def listen_live(self, owner: str = "*", topic: str = "*") -> JetStreamLiveListener:
        return JetStreamLiveListener(self._connection, subjects.live(self.chain, owner, topic))

    async def serve_queries(self, handlers: dict[str, Handler], version: str) -> QueryService:
        return await QueryService.open(self._connection, self.chain, handlers, version)

    async def query(self, what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        return await ask(self._connection, subjects.query(self.chain, what), data, timeout_ms)

    async def serve_wallet(self, address: str, handler: Handler) -> WalletDoor:
        door = WalletDoor(self._connection, handler)
        await door.start(subjects.wallet(self.chain, address))
        return door

    async def ask_wallet(self, address: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        return await ask(self._connection, subjects.wallet(self.chain, address), data, timeout_ms)

    async def put_blob(self, owner: str, source: Path, progress: Callable[[int], None] | None = None) -> str:
        return await self._blobs.put(owner, source, progress)

    async def get_blob(
        self, owner: str, digest: str, target: Path, timeout_ms: int, progress: Callable[[int], None] | None = None
    ) -> int:
        return await self._blobs.get(owner, digest, target, timeout_ms, progress)

    async def close(self) -> None:
        self._publisher.close()
        await self._connection.close()
