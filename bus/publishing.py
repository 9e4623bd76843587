"""Publishing into streams with many acknowledgements in flight.

Our own table of pending acknowledgements: each has a deadline and every one is settled, by its answer, by the deadline
or by the line breaking. (nats-py's table keeps a slot for ever when an acknowledgement is lost.)
"""

import asyncio
from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.aio.msg import Msg

from bus.connection import NO_RESPONDERS, STATUS, Connection
from events.canonical import UNREADABLE
from events.errors import BusError, FenceRefused, InboxFull, MessageTooLarge, Unreachable

EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_LAST_OF = "Nats-Expected-Last-Subject-Sequence-Subject"
MESSAGE_ID = "Nats-Msg-Id"
WINDOW_MESSAGES = 2_000
WINDOW_BYTES = 4 * 2**20
ATTEMPT_S = 3.0
PUBLISH_TIMEOUT_S = 15.0
SWEEP_S = 0.25
TOO_LARGE = 10054
STORE_REFUSES = 10077
ID_IN_PROCESS = 10158  # a cluster is about to store a message of the same id: the next try hears of it
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
TOO_MANY_REQUESTS = 429
UNAVAILABLE = 503

log = structlog.get_logger(__name__)


class Outgoing(Struct, frozen=True):
    """A message on its way into a stream."""

    subject: str
    data: bytes
    headers: dict[str, str] | None = None


class _ServerError(Struct, frozen=True):
    code: int
    err_code: int = 0
    description: str = ""


class _Answer(Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    error: _ServerError | None = None


_answers = msgspec.json.Decoder(_Answer)


Retry = Literal["lost", "unsent", "never"]


class _Batch:
    """The fate of each message of one call: its sequence, its error, or None while nothing is known."""

    def __init__(self, messages: Sequence[Outgoing], retry: Retry) -> None:
        self.messages = messages
        self.retry = retry
        self.fates: list[int | BusError | None] = [None] * len(messages)
        self.unsent: list[int] = []
        self.open = 0
        self.done = asyncio.Event()

    def settle(self, index: int, fate: int | BusError | None) -> None:
        """None: to be sent again."""
        if fate is None:
            self.unsent.append(index)
        else:
            self.fates[index] = fate
        self.open -= 1
        if self.open == 0:
            self.done.set()


class Publisher:
    """All that one connection publishes into streams."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = connection.client
        self._pending: dict[str, tuple[_Batch, int, float]] = {}  # in the order of their deadlines
        self._bytes = 0
        self._room = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None
        self._prefix = f"{self._client.new_inbox()}."
        self._numbers = 0

    async def start(self) -> None:
        """To be called once, before the first message."""
        await self._client.subscribe(f"{self._prefix}*", cb=self._answered, pending_msgs_limit=0, pending_bytes_limit=0)
        self._connection.on_disconnect.append(self._line_broke)

    async def publish(
        self, messages: Sequence[Outgoing], *, retry: Retry, timeout_s: float = PUBLISH_TIMEOUT_S
    ) -> list[int | BusError]:
        """One entry per message: the sequence it was stored under, or why not.

        ``retry`` is what is sent again until ``timeout_s`` is over: "unsent" only what the server certainly did not
        store, "lost" also what has no acknowledgement and may then be stored twice, "never" nothing, for messages whose
        order matters. What is not sent again is Unreachable.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        batch = _Batch(messages, retry)
        todo: Sequence[int] = range(len(messages))
        wait_s = 0.005
        while todo:
            try:
                await self._connection.wait_until_up(max(0.0, deadline - loop.time()))
            except Unreachable as error:
                self._give_up(batch, todo, error)
                break
            await self._send(batch, todo)
            todo, batch.unsent = sorted(batch.unsent), []
            if todo and (retry == "never" or loop.time() + wait_s >= deadline):
                self._give_up(batch, todo, Unreachable("the NATS server did not store a message", timeout_s=timeout_s))
                break
            if todo:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, 0.25)
        return [self._known(fate) for fate in batch.fates]

    @staticmethod
    def _known(fate: int | BusError | None) -> int | BusError:
        if fate is None:
            raise AssertionError("a published message has no fate")
        return fate

    @staticmethod
    def _give_up(batch: _Batch, todo: Sequence[int], error: Unreachable) -> None:
        for index in todo:
            batch.fates[index] = error

    async def _send(self, batch: _Batch, todo: Sequence[int]) -> None:
        """Sends these and waits until each is settled."""
        loop = asyncio.get_running_loop()
        batch.open = 1  # this call itself, so that the batch is not done before all are sent
        batch.done.clear()
        for index in todo:
            message = batch.messages[index]
            while self._pending and (
                len(self._pending) >= WINDOW_MESSAGES or self._bytes + len(message.data) > WINDOW_BYTES
            ):
                self._room.clear()
                self._sweep_later()
                await self._room.wait()
            self._numbers += 1
            token = str(self._numbers)
            batch.open += 1
            self._pending[token] = (batch, index, loop.time() + ATTEMPT_S)
            self._bytes += len(message.data)
            try:
                await self._client.publish(message.subject, message.data, f"{self._prefix}{token}", message.headers)
            except nats.errors.MaxPayloadError:
                self._settle(token, MessageTooLarge("above the server's limit of a message", size=len(message.data)))
            except (nats.errors.Error, OSError):
                self._settle(token, None)
        self._sweep_later()
        batch.open -= 1
        if batch.open:
            await batch.done.wait()

    def _settle(self, token: str, fate: int | BusError | None) -> None:
        entry = self._pending.pop(token, None)
        if entry is None:
            return  # answered after its deadline
        batch, index, _ = entry
        self._bytes -= len(batch.messages[index].data)
        batch.settle(index, fate)
        self._room.set()

    def _lose(self, token: str) -> None:
        """Nobody knows whether it was stored."""
        batch, _, _ = self._pending[token]
        why = "its acknowledgement was lost; it may have been stored"
        self._settle(token, None if batch.retry == "lost" else Unreachable("a message has no acknowledgement", why=why))

    def _line_broke(self) -> None:
        for token in tuple(self._pending):
            self._lose(token)

    def _sweep_later(self) -> None:
        if self._sweeper is None and self._pending:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = asyncio.get_running_loop().time()
        overdue = list(takewhile(lambda token: self._pending[token][2] <= now, self._pending))
        for token in overdue:
            self._lose(token)
        self._sweep_later()

    async def _answered(self, message: Msg) -> None:
        token = message.subject[len(self._prefix) :]
        if message.headers is not None and message.headers.get(STATUS) == NO_RESPONDERS:
            self._settle(token, None)
            return
        try:
            answer = _answers.decode(message.data)
        except UNREADABLE:
            log.warning("not_an_acknowledgement", data=message.data[:200])
            return
        self._settle(token, answer.seq if answer.error is None else _fate_of(answer.error))

    def close(self) -> None:
        """Whoever still waits gets Unreachable or is told to try again, which then fails."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._line_broke()


def _fate_of(error: _ServerError) -> BusError | None:
    """What a refusal means; None: it was not stored and may be sent again."""
    if error.err_code in WRONG_LAST_SEQUENCE:
        return FenceRefused("somebody else appended first", why=error.description, hint="Read the log and decide anew.")
    if error.err_code == STORE_REFUSES:
        return InboxFull("the stream takes no more", why=error.description, hint="Wait for a block, then try again.")
    if error.err_code == TOO_LARGE:
        return MessageTooLarge("above the stream's limit of a message", why=error.description)
    if error.code in (TOO_MANY_REQUESTS, UNAVAILABLE) or error.err_code == ID_IN_PROCESS:
        return None
    return BusError("the NATS server refuses a message", why=error.description, code=error.err_code)
