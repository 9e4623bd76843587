"""The moving part of an actor's outbox: sends what is due, and asks the ledger about what is in doubt.

It changes nothing by itself but when things are sent. What it learns it hands to the runtime, which decides one thing
at a time and writes.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from msgspec import Struct

from actors import telemetry
from actors.ledger import Ledger
from actors.voice import Voice
from bus.port import Bus, Clock
from events.canonical import UNREADABLE
from events.errors import BusError, TimedOut
from schemas.blocks import Outcome
from schemas.messages import EventRefused
from schemas.refusals import AnyRefusal

TICK_MS = 250
ASK_EVERY_MS = 2_000

log = structlog.get_logger()
_refusals = msgspec.json.Decoder(EventRefused)


class Used(Struct, frozen=True):
    """A final block holds this event of the own address."""

    event: str
    nonce: int
    outcome: Outcome
    height: int


class Lost(Struct, frozen=True):
    """A final block used this nonce of the own address for an event that is not the outbox's ``event``."""

    event: str
    nonce: int


class NextNonce(Struct, frozen=True):
    """The ledger's next nonce of the own address; ``answers`` whether every doubt was cleared."""

    nonce: int
    answers: bool


class Hearsay(Struct, frozen=True):
    """A mempool, or somebody in its name, turned an event away."""

    event: str
    refusal: AnyRefusal


Learn = Callable[[object], Awaitable[None]]


class Speaker:
    """Three endless coroutines for one voice; the runtime supervises them. ``learn`` delivers to its mailbox."""

    def __init__(self, voice: Voice, bus: Bus, ledger: Ledger, clock: Clock, learn: Learn) -> None:
        self._voice = voice
        self._bus = bus
        self._ledger = ledger
        self._clock = clock
        self._learn = learn
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something may be due: look now."""
        self._wake.set()

    async def send(self) -> None:
        """Submits what is due, at once after `wake` and again until it is known to be in a block."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            rows = self._voice.due(self._clock.now_ms())
            if not rows:
                continue
            with telemetry.tracer.start_as_current_span(
                "submit", links=[link for row in rows for link in telemetry.link_to(row.traceparent)]
            ):
                errors = await self._bus.submit_many([(self._voice.address, row.raw) for row in rows])
            now_ms = self._clock.now_ms()
            for row, error in zip(rows, errors, strict=True):
                self._voice.sent(row, now_ms, error)
                if error is not None:
                    log.warning("not sent yet", key=row.key, id=row.id, error=str(error))

    async def tick(self) -> None:
        """Wakes the sender from time to time."""
        while True:
            self.wake()
            await self._clock.sleep_ms(TICK_MS)

    async def ask(self) -> None:
        """Asks the ledger while something is in doubt."""
        while True:
            if self._voice.doubts(self._clock.now_ms()):
                try:
                    await self.resolve()
                except (BusError, TimedOut) as error:
                    log.info("the ledger cannot be asked now", error=str(error))
                await self._clock.sleep_ms(ASK_EVERY_MS)
            else:
                await self._clock.sleep_ms(TICK_MS)

    async def resolve(self) -> None:
        """Learns the next nonce, and for every waiting event below it whether it is in a block.

        Raises BusError, TimedOut. An answer of a node that is behind the one that knew the nonce proves nothing about
        an event that it does not know.
        """
        account = await self._ledger.account()
        answers = True
        for row in self._voice.behind(account.nonce):
            found = await self._ledger.event(row.id)
            if found.outcome is not None:
                await self._learn(Used(row.id, row.nonce, found.outcome, found.height))
            elif found.height >= account.height:
                await self._learn(Lost(row.id, row.nonce))
            else:
                answers = False
        await self._learn(NextNonce(account.nonce, answers))

    async def listen(self) -> None:
        """Hears what mempools say about the own events."""
        async for message in self._bus.listen_live(self._voice.address, "refused"):
            try:
                refused = _refusals.decode(message.data)
            except UNREADABLE:
                continue  # anyone may talk here
            if isinstance(refused.event, str):
                await self._learn(Hearsay(refused.event, refused.refusal))
