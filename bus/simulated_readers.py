"""The readers, doors and listeners of the simulated bus."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bus.port import ChainKind, ChainMessage, Clock, FeedRecord, Handler, InboxMessage, LiveMessage
from bus.simulated_stream import SimulatedReader, SimulatedStream
from events import subjects
from events.errors import SequenceGap, Unreachable

LIVE_KEPT = 1_024

Item = TypeVar("Item")
Connected = Callable[[], bool]


async def wait_for(happening: Awaitable[object], clock: Clock, wait_ms: int) -> None:
    """Until it happens, at most ``wait_ms`` of the clock's time."""
    first = asyncio.ensure_future(happening)
    second = asyncio.ensure_future(clock.sleep_ms(max(0, wait_ms)))
    try:
        await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (first, second):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)


class _Reader:
    """Waits for a stream to change until there is something to take."""

    def __init__(self, clock: Clock, connected: Connected, stream: SimulatedStream) -> None:
        self._clock = clock
        self._connected = connected
        self._stream = stream
        self._closed = False

    async def _poll(self, take: Callable[[], list[Item]], wait_ms: int, due_ms: Callable[[], int | None]) -> list[Item]:
        """``due_ms`` says when it is worth looking again, even if nothing changes."""
        deadline = self._clock.now_ms() + wait_ms
        while True:
            if self._closed:
                raise Unreachable("the reader is closed")
            change = self._stream.change
            self._stream.expire()
            items = take() if self._connected() else []
            now_ms = self._clock.now_ms()
            if items or now_ms >= deadline:
                if not items:
                    await asyncio.sleep(0)  # whoever polls without a wait lets others go on
                return items
            due = due_ms()
            until = deadline if due is None else min(deadline, max(due, now_ms + 1))
            await wait_for(change.wait(), self._clock, until - now_ms)

    async def close(self) -> None:
        self._closed = True


def _never() -> None:
    return None


class SimulatedInboxReader(_Reader):
    """See `bus.port.InboxReader`. ``ensure`` makes the durable reader anew when it was retired meanwhile."""

    def __init__(
        self,
        clock: Clock,
        connected: Connected,
        stream: SimulatedStream,
        name: str,
        ensure: Callable[[], SimulatedReader],
    ) -> None:
        super().__init__(clock, connected, stream)
        self._name = name
        self._ensure = ensure

    async def next(self, limit: int, wait_ms: int) -> list[InboxMessage]:
        return await self._poll(lambda: self._take(limit), wait_ms, self._due_ms)

    def _take(self, limit: int) -> list[InboxMessage]:
        return [
            InboxMessage(subjects.last_token(message.subject), message.data, message.time_ns, str(message.sequence))
            for message in self._ensure().take(self._stream, limit, self._clock.now_ms())
        ]

    def _due_ms(self) -> int | None:
        reader = self._stream.readers.get(self._name)
        return None if reader is None else reader.next_due_ms()

    async def settle(self, tokens: list[str]) -> None:
        if self._connected():
            for token in tokens:
                self._stream.settle(self._name, int(token))


class SimulatedChainReader(_Reader):
    """See `bus.port.ChainReader`."""

    def __init__(self, clock: Clock, connected: Connected, stream: SimulatedStream, chain: str, after: int) -> None:
        super().__init__(clock, connected, stream)
        self._kinds: dict[str, ChainKind] = {subjects.block(chain): "block", subjects.vote(chain): "vote"}
        self._last = after
        self._newest: bytes | None = None
        self._check()

    def _check(self) -> None:
        last = self._stream.last_sequence
        hint = "The server lost or replaced messages. Compare with another copy of the log before you go on."
        if last < self._last:
            why = f"{self._last} was read before"
            raise SequenceGap(f"the log ends at {last}", why=why, hint=hint, after=self._last)
        if self._newest is not None and self._stream.messages[self._last].data != self._newest:
            why = f"message {self._last} is another one than was read before"
            raise SequenceGap("the log was rewritten", why=why, hint=hint, after=self._last)
        if last > self._last and self._last + 1 not in self._stream.messages:
            raise SequenceGap(f"the log has no message {self._last + 1}", hint=hint, after=self._last)

    async def next(self, limit: int, wait_ms: int) -> list[ChainMessage]:
        return await self._poll(lambda: self._take(limit), wait_ms, _never)

    def _take(self, limit: int) -> list[ChainMessage]:
        taken: list[ChainMessage] = []
        self._check()
        while len(taken) < limit and self._last + 1 in self._stream.messages:
            message = self._stream.messages[self._last + 1]
            self._last, self._newest = message.sequence, message.data
            taken.append(ChainMessage(self._last, self._kinds[message.subject], message.data, message.time_ns))
        return taken


class SimulatedFeedReader(_Reader):
    """See `bus.port.FeedReader`."""

    def __init__(self, clock: Clock, connected: Connected, stream: SimulatedStream, subject: str, after: int) -> None:
        super().__init__(clock, connected, stream)
        self._subject = subject
        self._last = min(after, stream.last_sequence)

    async def next(self, limit: int, wait_ms: int) -> list[FeedRecord]:
        return await self._poll(lambda: self._take(limit), wait_ms, _never)

    def _take(self, limit: int) -> list[FeedRecord]:
        taken: list[FeedRecord] = []
        self._last = min(self._last, self._stream.last_sequence)
        for message in self._stream.of_subject(self._subject, self._last):
            if len(taken) == limit:
                break
            self._last = message.sequence
            taken.append(FeedRecord(message.sequence, message.data))
        return taken


class SimulatedDoor:
    """Answers questions on some subjects until it is closed."""

    def __init__(
        self, doors: dict[str, list["SimulatedDoor"]], handlers: dict[str, Handler], connected: Connected
    ) -> None:
        self.handlers = handlers
        self.connected = connected
        self._doors = doors

    def open(self) -> None:
        for subject in self.handlers:
            self._doors.setdefault(subject, []).append(self)

    async def close(self) -> None:
        for subject in self.handlers:
            if self in self._doors[subject]:
                self._doors[subject].remove(self)


class SimulatedLiveListener:
    """See `bus.port.LiveListener`."""

    def __init__(self, listeners: list["SimulatedLiveListener"], subject: str, connected: Connected) -> None:
        self.subject = subject
        self._listeners = listeners
        self._connected = connected
        self._kept: deque[LiveMessage] = deque(maxlen=LIVE_KEPT)
        self._arrival = asyncio.Event()
        self._closed = False
        listeners.append(self)

    async def ready(self) -> None:
        return

    def hear(self, owner: str, topic: str, data: bytes) -> None:
        if self._connected():
            self._kept.append(LiveMessage(owner, topic, data))
            self._arrival.set()

    def __aiter__(self) -> "SimulatedLiveListener":
        return self

    async def __anext__(self) -> LiveMessage:
        while not self._kept:
            if self._closed:
                raise StopAsyncIteration
            self._arrival.clear()
            await self._arrival.wait()
        return self._kept.popleft()

    async def close(self) -> None:
        self._closed = True
        self._arrival.set()
        if self in self._listeners:
            self._listeners.remove(self)
