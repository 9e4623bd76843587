"""A bus with just enough ledger behind it for one actor: inboxes, blocks on demand, feeds, queries, live subjects."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from actors.decision import Decision, Done
from bus.port import FeedRecord, Handler, Limits, LiveMessage
from events.canonical import canonical
from events.envelope import SignedEvent, read
from events.errors import NotFound, Unreachable
from schemas.blocks import Applied, Outcome
from schemas.messages import EventRefused, FeedEntry, FeedMessage, Problem, QueryAnswer, QueryRefused
from schemas.queries import EventAnswer, NonceAnswer
from schemas.refusals import AnyRefusal

CHAIN = "testnet"
SPEED = 20


class FastClock:
    """Time that runs faster, so that back-off and resending take no real seconds."""

    def now_ms(self) -> int:
        return time.monotonic_ns() * SPEED // 1_000_000

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1_000 / SPEED)


async def until(condition: Callable[[], object], within_s: float = 10) -> None:
    """Waits for a condition that other tasks bring about; fails after a while."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  a test knows what must become true, not which task brings it about
            await asyncio.sleep(0.002)


class _Feed:
    def __init__(self, network: "SmallNetwork", address: str, after: int) -> None:
        self._network, self._address, self._position = network, address, after

    async def next(self, limit: int, wait_ms: int) -> list[FeedRecord]:
        deadline = asyncio.get_running_loop().time() + wait_ms / 1_000 / SPEED
        while asyncio.get_running_loop().time() < deadline:
            found = self._network.feeds.get(self._address, [])[self._position : self._position + limit]
            if found:
                self._position += len(found)
                first = self._position - len(found) + 1
                return [FeedRecord(first + index, data) for index, data in enumerate(found)]
            await asyncio.sleep(0.002)
        return []

    async def close(self) -> None:
        return None


class _Service:
    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    async def close(self) -> None:
        self._close()


class SmallNetwork:
    """Everybody's ledger: events are included by nonce, and every action succeeds."""

    chain = CHAIN
    limits = Limits()

    def __init__(self) -> None:
        self.inbox: list[SignedEvent] = []
        self.submitted: list[str] = []
        self.ledger: list[SignedEvent] = []
        self.heights: dict[str, int] = {}
        self.height = 0
        self.feeds: dict[str, list[bytes]] = {}
        self.told: list[tuple[str, str, bytes]] = []
        self.reachable = True
        self.feeding = True
        self.on_submit: Callable[[SignedEvent], None] = lambda _: None
        self._listeners: list[asyncio.Queue[LiveMessage]] = []
        self._wallets: dict[str, Handler] = {}

    def nonce(self, address: str) -> int:
        return sum(event.event.sender == address for event in self.ledger)

    def close_block(self) -> int:
        """Includes what can be included and tells the feeds; returns how many events that were."""
        self.height += 1
        included: list[SignedEvent] = []
        for signed in sorted(self.inbox, key=lambda signed: signed.event.nonce):
            if signed.event.nonce == self.nonce(signed.event.sender):
                self.ledger.append(signed)
                self.heights[signed.id] = self.height
                included.append(signed)
        self.inbox = [signed for signed in self.inbox if signed.event.nonce >= self.nonce(signed.event.sender)]
        if self.feeding:
            for sender in dict.fromkeys(signed.event.sender for signed in included):
                own = [signed for signed in included if signed.event.sender == sender]
                self.feed(sender, own)
        return len(included)

    def feed(self, address: str, events: list[SignedEvent]) -> None:
        entries = tuple(
            FeedEntry(index=index, outcome=outcome_of(signed), event=msgspec.Raw(signed.raw))
            for index, signed in enumerate(events)
        )
        message = FeedMessage(chain=CHAIN, height=self.height, block="0" * 64, time_ms=1, entries=entries)
        self.feeds.setdefault(address, []).append(canonical(message))

    def refuse(self, address: str, event_id: str, refusal: AnyRefusal) -> None:
        data = canonical(EventRefused(event=event_id, refusal=refusal, hint=""))
        for listener in self._listeners:
            listener.put_nowait(LiveMessage(address, "refused", data))

    # The port.

    async def submit(self, owner: str, data: bytes) -> None:
        if not self.reachable:
            raise Unreachable("the server is away")
        signed = read(data)
        self.on_submit(signed)
        self.submitted.append(signed.id)
        known = [event.id for event in (*self.inbox, *self.ledger)]
        if signed.event.sender == owner and signed.id not in known:
            self.inbox.append(signed)

    async def submit_many(self, messages: list[tuple[str, bytes]]) -> list[Exception | None]:
        errors: list[Exception | None] = []
        for owner, data in messages:
            try:
                await self.submit(owner, data)
                errors.append(None)
            except Unreachable as error:
                errors.append(error)
        return errors

    async def query(self, what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        if not self.reachable:
            raise Unreachable("the server is away")
        question = msgspec.json.decode(data)
        if what == "nonce":
            address = question["address"]
            value = canonical(NonceAnswer(address=address, nonce=self.nonce(address)))
            return canonical(QueryAnswer(height=self.height, value=msgspec.Raw(value)))
        for signed in self.ledger:
            if signed.id == question["event"]:
                height = self.heights[signed.id]
                value = canonical(
                    EventAnswer(height=height, index=0, time_ms=1, block="0" * 64, outcome=outcome_of(signed))
                )
                return canonical(QueryAnswer(height=self.height, value=msgspec.Raw(value)))
        problem = Problem(code=NotFound.code, detail="", hint="")
        return canonical(QueryRefused(height=self.height, problem=problem))

    async def read_feed(self, address: str, after: int) -> _Feed:
        return _Feed(self, address, after)

    async def publish_live(self, owner: str, topic: str, data: bytes) -> None:
        self.told.append((owner, topic, data))

    async def listen_live(self, owner: str = "*", topic: str = "*") -> AsyncIterator[LiveMessage]:
        queue: asyncio.Queue[LiveMessage] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    async def serve_wallet(self, address: str, handler: Handler) -> _Service:
        self._wallets[address] = handler
        return _Service(lambda: self._wallets.pop(address, None))

    async def ask_wallet(self, address: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        handler = self._wallets.get(address)
        if handler is None:
            raise Unreachable("nobody serves this wallet")
        return await handler(data)


def outcome_of(signed: SignedEvent) -> Outcome:
    return Applied(event=signed.id, fee=signed.event.gas_price)


class Script:
    """An actor whose decisions are a function; what it was told is in ``seen``."""

    name = "script"

    def __init__(self, decide: Callable[[object], Decision] = lambda _: Done()) -> None:
        self._decide = decide
        self.rows: dict[str, bytes] = {}
        self.seen: list[object] = []

    def begin(self, rows: dict[str, bytes], now_ms: int) -> Done:
        self.rows = dict(rows)
        return Done()

    def decide(self, message: object, now_ms: int) -> Decision:
        self.seen.append(message)
        return self._decide(message)
