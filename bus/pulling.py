"""Our own pull loop over one JetStream consumer.

A task keeps requests open at the server and a bounded buffer filled. On any doubt (the line broke, silence, a refusal,
a message that its reader did not expect) it drops the buffer's supply and opens the consumer anew from where the reader
stands.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Generic, TypeVar

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus.connection import STATUS, ApiError, Connection
from events.errors import BusError, SequenceGap, TimedOut, Unreachable

EXPIRES_MS = 30_000
HEARTBEAT_MS = 1_000
SILENCE_MS = 3_500
MS = 1_000_000  # nanoseconds
HEARTBEAT = "100"
NOT_FOUND = "404"
REQUEST_OVER = "408"
CONFLICT = "409"
# Descriptions of a conflict that only says that a request is over: as many bytes as it allowed are on their way.
ENOUGH = frozenset({"Batch Completed", "Message Size Exceeds MaxBytes"})
# So many ends without a message in between are no accident: the next message is larger than a request may be.
MOST_IDLE_ENDS = 16
LEFT = "Nats-Pending-Messages"
LONGEST_BACKOFF_S = 1.0

Item = TypeVar("Item")
log = structlog.get_logger(__name__)


class Doubt(Exception):
    """What arrives cannot be trusted to be complete. Never leaves this package."""


class Position(Struct, frozen=True):
    """What the reply subject of a delivery says; integers, unlike nats-py's own reading of it."""

    sequence: int
    delivery: int
    time_ns: int


def position_of(reply: str) -> Position:
    """Raises Doubt for anything that is not ``$JS.ACK.…`` in its short or its long form."""
    parts = reply.split(".")
    if len(parts) == 9:
        numbers = parts[5:8]
    elif len(parts) >= 11:
        numbers = parts[7:10]
    else:
        raise Doubt("a delivery without a position")
    try:
        return Position(int(numbers[0]), int(numbers[1]), int(numbers[2]))
    except ValueError as error:
        raise Doubt("a delivery with a position that is no number") from error


class Pull(Generic[Item]):
    """``open_consumer`` makes or finds the consumer and returns its name; ``accept`` turns a message into an item.

    ``accept`` returns None to skip and raises Doubt to have the consumer opened anew. ``open_consumer`` may raise
    SequenceGap, which ends the loop and is raised by `next`.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        open_consumer: Callable[[], Awaitable[str]],
        accept: Callable[[Msg], Item | None],
        *,
        batch: int,
        max_bytes: int,
    ) -> None:
        self._connection = connection
        self._client = connection.client
        self._stream = stream
        self._open_consumer = open_consumer
        self._accept = accept
        self._batch = batch
        self._max_bytes = max_bytes
        self._buffer: deque[tuple[Item, int]] = deque()
        self._buffered_bytes = 0
        self._filled = asyncio.Event()
        self._wake = asyncio.Event()
        self._doubt: str | None = None
        self._failure: BusError | None = None
        self._demand = 0
        self._idle_ends = 0  # requests that have ended since something was delivered
        self._lively = False  # something was delivered since the consumer was opened
        self._heard = 0.0
        self._consumer = ""
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def consumer(self) -> str:
        """The name of the consumer that is open now."""
        return self._consumer

    async def start(self) -> None:
        """Opens the consumer once, so that what is wrong is raised here, then goes on by itself."""
        self._connection.on_disconnect.append(self._line_broke)
        async with AsyncExitStack() as cleanup:
            cleanup.push_async_callback(self.close)
            await self._open()
            cleanup.pop_all()
        self._task = asyncio.create_task(self._run(), name=f"pull {self._stream}")

    async def next(self, limit: int, wait_ms: int) -> list[Item]:
        """Up to ``limit`` items as soon as there is one; none after ``wait_ms``."""
        if not self._buffer and self._failure is None:
            self._filled.clear()
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await self._filled.wait()
            except TimeoutError:
                return []
        if not self._buffer and self._failure is not None:
            raise self._failure
        taken = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        self._buffered_bytes -= sum(size for _, size in taken)
        if self._wants_more():
            self._wake.set()
        return [item for item, _ in taken]

    async def close(self) -> None:
        """Ends the loop. The buffer's items are gone."""
        if self._line_broke in self._connection.on_disconnect:
            self._connection.on_disconnect.remove(self._line_broke)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._unsubscribe()
        self._failure = self._failure or Unreachable("the reader is closed")
        self._filled.set()

    def _wants_more(self) -> bool:
        few = self._demand + len(self._buffer) <= self._batch // 2
        return few and self._buffered_bytes < self._max_bytes

    def _line_broke(self) -> None:
        self._suspect("the line broke")

    def doubt(self, reason: str) -> None:
        """Has the consumer opened anew from where the reader stands."""
        self._suspect(reason)

    def _suspect(self, reason: str) -> None:
        self._doubt = self._doubt or reason
        self._wake.set()

    async def _run(self) -> None:
        backoff_s = 0.01
        while True:
            try:
                if self._doubt is not None:
                    log.info("consumer_reopened", stream=self._stream, reason=self._doubt)
                    await self._connection.wait_until_up(LONGEST_BACKOFF_S)
                    await self._open()
                await self._keep_demand()
                backoff_s = 0.01 if self._lively else backoff_s
            except SequenceGap as gap:
                self._failure = gap
                self._filled.set()
                return
            except (BusError, TimedOut, ApiError, nats.errors.Error, OSError) as error:
                self._suspect(repr(error))
                log.warning("consumer_not_open", stream=self._stream, error=str(error))
                if self._client.is_closed:
                    self._failure = Unreachable("the connection is closed")
                    self._filled.set()
                    return
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    async def _open(self) -> None:
        await self._unsubscribe()
        self._doubt = None
        self._demand = 0
        self._idle_ends = 0
        self._lively = False
        self._consumer = await self._open_consumer()
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(
            self._inbox, cb=self._arrived, pending_msgs_limit=0, pending_bytes_limit=0
        )
        self._heard = asyncio.get_running_loop().time()

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._client.is_closed:
            try:
                await subscription.unsubscribe()
            except (nats.errors.Error, OSError) as error:
                log.debug("not_unsubscribed", stream=self._stream, error=repr(error))

    async def _keep_demand(self) -> None:
        """Returns on doubt."""
        loop = asyncio.get_running_loop()
        while self._doubt is None:
            self._wake.clear()
            if self._wants_more():
                await self._request(self._batch - self._demand - len(self._buffer))
            try:
                async with asyncio.timeout(HEARTBEAT_MS / 1000):
                    await self._wake.wait()
            except TimeoutError:
                if self._demand and loop.time() - self._heard > SILENCE_MS / 1000:
                    self._suspect("silence")

    async def _request(self, count: int) -> None:
        self._demand += count
        request = {
            "batch": count,
            "max_bytes": self._max_bytes,
            "expires": EXPIRES_MS * MS,
            "idle_heartbeat": HEARTBEAT_MS * MS,
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._client.publish(subject, msgspec.json.encode(request), self._inbox)

    async def _arrived(self, message: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        if self._doubt is not None:
            return
        if message.subject == self._inbox:
            self._status(message)
            return
        try:
            item = self._accept(message)
        except Doubt as doubt:
            self._suspect(str(doubt))
            return
        self._demand = max(0, self._demand - 1)
        self._idle_ends = 0
        self._lively = True
        if item is not None:
            self._buffer.append((item, len(message.data)))
            self._buffered_bytes += len(message.data)
            self._filled.set()
        if self._wants_more():
            self._wake.set()

    def _status(self, message: Msg) -> None:
        """The server says that a request is over, or that it is still there."""
        headers = message.headers or {}
        status = headers.get(STATUS)
        if status == HEARTBEAT:
            return
        description = headers.get("Description", "").strip()
        if status == REQUEST_OVER or (status == CONFLICT and description in ENOUGH):
            # Over by time or by bytes: what will not be delivered is asked for again. In a cluster this comes before
            # messages of the same request, which have a longer way.
            left = headers.get(LEFT, "")
            self._demand = max(0, self._demand - int(left)) if left.isdigit() else 0
            self._idle_ends += status == CONFLICT
            if self._idle_ends <= MOST_IDLE_ENDS:
                self._wake.set()
                return
        self._suspect(f"status {status} {description}".strip())
