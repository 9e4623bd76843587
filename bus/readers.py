"""The readers of CHAIN, FEED and INBOX over JetStream."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.nuid import NUID

from bus.connection import ApiError, Connection
from bus.port import ChainKind, ChainMessage, FeedRecord, InboxMessage, Limits
from bus.pulling import Doubt, Position, Pull, position_of
from bus.streams import STREAM_MISSING, ensure_reader, not_set_up, reader_name
from events import subjects
from events.errors import BusError, SequenceGap, Unreachable

SECOND = 1_000_000_000
# So long a server may take to deliver what it says it has; it is asked so often, when nothing comes, and waited for.
STALL_S = 30.0
LOOK_EVERY_S = 1.0
LOOK_TIMEOUT_S = 0.5
# A server that was cut off from the others of its cluster answers for so long as if it still led the log.
STALE_S = 12.0
# Chance puts a reader on one of the copies that a cluster keeps: with three, all of these are the same one in half a
# million cases.
COPIES_TRIED = 12
FORGET_S = 60  # an ephemeral consumer that nobody asks is removed by the server
CHAIN_BATCH = 4_096
INBOX_BATCH = 2_048
FEED_BATCH = 256
SMALL_BATCH_BYTES = 4 * 2**20

Item = TypeVar("Item")
log = structlog.get_logger(__name__)
_names = NUID()


async def stream_state(connection: Connection, chain: str, kind: str, subject: str | None = None) -> dict[str, Any]:
    """STREAM.INFO of one of the chain's streams, with the count of messages of ``subject``.

    Raises Unreachable, also when the chain is not set up.
    """
    body = None if subject is None else {"subjects_filter": subject}
    try:
        return await connection.describe(subjects.stream(chain, kind), body)
    except ApiError as error:
        if error.number == STREAM_MISSING:
            raise not_set_up(chain) from error
        raise BusError(f"the NATS server refuses to describe {kind}", why=error.description) from error


async def _info(connection: Connection, stream: str) -> dict[str, Any]:
    try:
        return await connection.describe(stream)
    except ApiError as error:
        raise Unreachable(f"this server has no stream {stream} yet", why=error.description) from error


async def open_ephemeral(
    connection: Connection, stream: str, after: int, subject: str | None = None
) -> tuple[str, str]:
    """A consumer without acknowledgements that starts behind ``after`` and is forgotten when nobody uses it; and the
    server of a cluster that chance has put it on, which reads its own copy of the stream."""
    name = _names.next().decode()
    config: dict[str, Any] = {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "ack_policy": "none",
        "replay_policy": "instant",
        "inactive_threshold": FORGET_S * SECOND,
        "mem_storage": True,
        "num_replicas": 1,
    }
    api_subject = f"CONSUMER.CREATE.{stream}.{name}"
    if subject is not None:
        config["filter_subject"] = subject
        api_subject = f"{api_subject}.{subject}"
    try:
        info = await connection.api(api_subject, {"stream_name": stream, "config": config, "action": "create"})
    except ApiError as error:
        if error.number == STREAM_MISSING:
            raise Unreachable(f"this server has no stream {stream} yet") from error
        raise BusError(f"the NATS server refuses a consumer of {stream}", why=error.description) from error
    return name, info.get("cluster", {}).get("leader", "")


async def forget(connection: Connection, stream: str, consumer: str) -> None:
    """Tells the server at once, rather than after `FORGET_S`. Nothing depends on it."""
    if consumer and connection.client.is_connected:
        try:
            await connection.client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}")
        except (nats.errors.Error, OSError) as error:
            log.debug("consumer_not_deleted", stream=stream, error=repr(error))


class JetStreamChainReader:
    """Checks that every sequence is one more than the last.

    A server that has lost its newest messages uses their sequences again. So whenever it may have been away, the last
    message that was read is read once more, and has to be the same.

    In a cluster one server's copy may have a hole, where its disk was damaged: NATS neither notices nor heals it. Then
    the log is read from another copy.
    """

    def __init__(self, connection: Connection, chain: str, limits: Limits, after: int) -> None:
        self._connection = connection
        self._chain = chain
        self._stream = subjects.stream(chain, "CHAIN")
        self._kinds: dict[str, ChainKind] = {subjects.block(chain): "block", subjects.vote(chain): "vote"}
        self._last = after
        self._created: str | None = None
        self._deliveries = 0
        self._jumped = False
        self._server = ""
        self._holes = 0  # copies that did not have the next message, one after the other
        self._newest: bytes | None = None  # what was read under `_last`
        self._comparing = False
        self._replaced = False
        self._complete = -1  # the sequence that was the log's last when it was looked at
        self._looked = 0.0
        self._owed: tuple[int, float] = (-1, 0.0)  # what was read when the log had more, and since when
        self._pull: Pull[ChainMessage] = Pull(
            connection,
            self._stream,
            self._open,
            self._accept,
            batch=CHAIN_BATCH,
            max_bytes=2 * limits.block_bytes,
        )

    async def start(self) -> None:
        await self._pull.start()

    async def next(self, limit: int, wait_ms: int) -> list[ChainMessage]:
        messages = await self._pull.next(limit, wait_ms)
        now = asyncio.get_running_loop().time()
        if messages:
            self._looked = now
        elif self._complete != self._last and now - self._looked > LOOK_EVERY_S:
            self._looked = now
            await self._look_for_more(now)
        return messages

    async def _look_for_more(self, now: float) -> None:
        """Raises SequenceGap where the server has said for a while that there is more, and does not deliver it."""
        try:
            info = await self._connection.describe(self._stream, timeout_s=LOOK_TIMEOUT_S)
        except (ApiError, BusError):
            return
        last = info["state"]["last_seq"]
        if last <= self._last:
            self._complete = self._last
        elif self._owed[0] != self._last:
            self._owed = (self._last, now)
        elif now - self._owed[1] > STALL_S and self._try_another_copy(info):
            self._owed = (-1, 0.0)
            self._pull.doubt("the log is not delivered to its end")
        elif now - self._owed[1] > STALL_S:
            why = f"the server says that the log ends at {last}, and does not deliver the next one"
            hint = "The server's files are damaged. Compare with another copy of the log before you go on."
            raise SequenceGap(f"the log has no message {self._last + 1}", why=why, hint=hint, after=self._last)

    def _try_another_copy(self, info: dict[str, Any]) -> bool:
        """Whether there are others, and not all of them seem to lack the next message."""
        self._holes += 1
        if info["config"]["num_replicas"] == 1 or self._holes > COPIES_TRIED:
            return False
        log.warning("message_missing_in_a_copy", sequence=self._last + 1, stream=self._stream, server=self._server)
        return True

    async def close(self) -> None:
        await self._pull.close()
        await forget(self._connection, self._stream, self._pull.consumer)

    async def _open(self) -> str:
        info = await self._up_to_date()
        first, last = info["state"]["first_seq"], info["state"]["last_seq"]
        self._created = self._created or info["created"]
        hint = "The server lost or replaced messages. Compare with another copy of the log before you go on."
        if info["created"] != self._created:
            raise SequenceGap("the log was made anew", why=f"on {info['created']}", hint=hint, after=self._last)
        if last < self._last:
            raise SequenceGap(
                f"the log ends at {last}", why=f"{self._last} was read before", hint=hint, after=self._last
            )
        if self._replaced:
            why = f"message {self._last} is another one than was read before"
            raise SequenceGap("the log was rewritten", why=why, hint=hint, after=self._last)
        jumped, self._jumped = self._jumped, False
        if first > self._last + 1 or (jumped and not self._try_another_copy(info)):
            raise SequenceGap(f"the log has no message {self._last + 1}", hint=hint, after=self._last)
        self._comparing = self._newest is not None
        self._deliveries = 0
        consumer, self._server = await open_ephemeral(self._connection, self._stream, self._last - self._comparing)
        return consumer

    async def _up_to_date(self) -> dict[str, Any]:
        """The log's STREAM.INFO. Where others keep copies, a log that ends too early is looked at for a while."""
        deadline = asyncio.get_running_loop().time() + STALE_S
        while True:
            info = await stream_state(self._connection, self._chain, "CHAIN")
            behind = info["state"]["last_seq"] < self._last and info["config"]["num_replicas"] > 1
            if not behind or asyncio.get_running_loop().time() >= deadline:
                return info
            await asyncio.sleep(LOOK_TIMEOUT_S)

    def _accept(self, message: Msg) -> ChainMessage | None:
        position = position_of(message.reply)
        before, self._deliveries = self._deliveries, position.delivery
        if self._comparing and position.sequence == self._last:
            self._comparing = False
            self._replaced = message.data != self._newest
            if self._replaced:
                raise Doubt(f"sequence {position.sequence} has other bytes than before")
            return None
        if position.sequence != self._last + 1:
            # The consumer counts what it delivers. Where its count goes on, the server has left a message out, because
            # it is gone or damaged: a hole. Where it does not, a delivery was lost, and is asked for again.
            self._jumped = position.delivery == before + 1
            raise Doubt(f"sequence {position.sequence} after {self._last}")
        self._last, self._newest, self._holes = position.sequence, message.data, 0
        kind = self._kinds.get(message.subject)
        if kind is None:
            raise Doubt(f"a message of {message.subject} in the log")
        return ChainMessage(position.sequence, kind, message.data, position.time_ns)


class FilteredReader(Generic[Item]):
    """Reads one subject of a stream.

    Its sequences have holes, so the consumer's own count is what must not have any.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        subject: str,
        after: int,
        make: Callable[[Position, Msg], Item | None],
        *,
        batch: int,
        max_bytes: int,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._subject = subject
        self._make = make
        self._last = after
        self._deliveries = 0
        self._pull: Pull[Item] = Pull(connection, stream, self._open, self._accept, batch=batch, max_bytes=max_bytes)

    async def start(self) -> None:
        await self._pull.start()

    async def next(self, limit: int, wait_ms: int) -> list[Item]:
        return await self._pull.next(limit, wait_ms)

    async def close(self) -> None:
        await self._pull.close()
        await forget(self._connection, self._stream, self._pull.consumer)

    async def _open(self) -> str:
        self._deliveries = 0
        if self._last:
            # A server that has lost its newest messages gives their sequences to others.
            self._last = min(self._last, (await _info(self._connection, self._stream))["state"]["last_seq"])
        consumer, _ = await open_ephemeral(self._connection, self._stream, self._last, self._subject)
        return consumer

    def _accept(self, message: Msg) -> Item | None:
        position = position_of(message.reply)
        if position.delivery != self._deliveries + 1:
            raise Doubt(f"delivery {position.delivery} after {self._deliveries}")
        self._deliveries = position.delivery
        self._last = position.sequence
        return self._make(position, message)


def feed_reader(connection: Connection, chain: str, address: str, after: int) -> FilteredReader[FeedRecord]:
    """The feed of one address; `FilteredReader.start` it."""
    return FilteredReader(
        connection,
        subjects.stream(chain, "FEED"),
        subjects.feed(chain, address),
        after,
        lambda position, message: FeedRecord(position.sequence, message.data),
        batch=FEED_BATCH,
        max_bytes=SMALL_BATCH_BYTES,
    )


class JetStreamInboxReader:
    """Over the validator's durable consumer, which is reset when it is opened: all that is unsettled comes at once."""

    def __init__(self, connection: Connection, chain: str, limits: Limits, validator: str) -> None:
        self._connection = connection
        self._chain = chain
        self._limits = limits
        self._validator = validator
        self._stream = subjects.stream(chain, "INBOX")
        self._pull: Pull[InboxMessage] = Pull(
            connection, self._stream, self._open, self._accept, batch=INBOX_BATCH, max_bytes=SMALL_BATCH_BYTES
        )

    async def start(self) -> None:
        await self._pull.start()

    async def next(self, limit: int, wait_ms: int) -> list[InboxMessage]:
        return await self._pull.next(limit, wait_ms)

    async def settle(self, tokens: list[str]) -> None:
        """Not confirmed: what is lost on the way comes again."""
        client = self._connection.client
        for token in tokens:
            try:
                await client.publish(token)
            except (nats.errors.Error, OSError) as error:
                log.debug("not_settled", error=repr(error))
                return

    async def close(self) -> None:
        await self._pull.close()

    async def _open(self) -> str:
        name = reader_name(self._validator)
        await ensure_reader(self._connection, self._chain, self._limits, self._validator)
        try:
            await self._connection.api(f"CONSUMER.RESET.{self._stream}.{name}")
        except ApiError as error:
            raise BusError(f"the NATS server does not reset reader {name}", why=error.description) from error
        return name

    def _accept(self, message: Msg) -> InboxMessage:
        position = position_of(message.reply)
        return InboxMessage(subjects.last_token(message.subject), message.data, position.time_ns, message.reply)
