"""What every actor runs on: a mailbox, one message at a time, and a memory that changes together with what it causes.

    async with await Store.open(path, identity) as store:
        runtime = await Runtime.start(actor, store, bus, clock, speaking=Speaking(key, gas_price, ledger))
        await runtime.run(stop, [own_feed(bus, key.address)])

`run` returns when ``stop`` is set, and raises what the actor cannot go on after; `supervise` starts it again. Messages
come from sources (`Source`, `own_feed`), from questions (`Runtime.ask`), from effects and timers, and from the voice.
Each ends in one of three ways: done, again later, or never again (`actors.decision`).

Decisions that come together are written together: one transaction holds all events said, rows kept, dead letters and
positions of up to 64 messages. Nothing is sent, answered or started before it is on disk. Positions alone may stay
unwritten for a second: losing them means reading again, and what is read again is decided the same.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from actors import telemetry
from actors.clock import backoff_ms
from actors.decision import (
    Actor,
    AgainLater,
    Answer,
    AnswerSaid,
    Cancel,
    Command,
    Decision,
    Done,
    Drop,
    Keep,
    Later,
    NeverAgain,
    Say,
    Spoken,
    Start,
    Tell,
)
from actors.effects import CALM_AFTER_MS, Effects, Tasks
from actors.ledger import Ledger
from actors.mailbox import Mailbox
from actors.speaker import Hearsay, Lost, NextNonce, Speaker, Used
from actors.store import Batch, DeadLetter, Store
from actors.voice import Voice, spoken
from bus.port import Bus, Clock
from events.canonical import UNREADABLE
from events.envelope import parse, verify_event
from events.errors import AssayError, BusError, Divergence, SequenceGap, TimedOut, Unreachable, WrongNetwork
from events.keys import Key
from schemas.messages import FeedMessage

MAILBOX = 1_024
TOGETHER = 64
MOST_TRIES = 20
POSITIONS_EVERY_MS = 1_000
LONGEST_LETTER = 65_536
LATEST_OF_FEED = 4_096

log = structlog.get_logger()
Source = Callable[["Runtime"], Awaitable[None]]
Prepare = Callable[[object, "Runtime"], Awaitable[object]]


class Speaking(Struct, frozen=True):
    """With which key an actor speaks, what it offers per unit of gas, and whom it asks about its own account."""

    key: Key
    gas_price: int
    ledger: Ledger


class Position(Struct, frozen=True):
    """The place of a message in its source; the source starts after the last one that is saved."""

    source: str
    sequence: int


class Unreadable(Struct, frozen=True):
    """Bytes of a source that are no message; kept among the dead letters."""

    data: bytes
    why: str


class _SavePositions(Struct, frozen=True):
    pass


class Delivery(Struct):
    """A message on its way through the mailbox. ``about`` is the id of the event or job that its trace belongs to."""

    message: object
    position: Position | None = None
    about: str = ""
    reply: asyncio.Future[bytes] | None = None
    tries: int = 0


class Runtime:
    """One running actor. Make it with `start`; all its tasks live within `run`."""

    def __init__(
        self, actor: Actor, store: Store, bus: Bus, clock: Clock, voice: Voice | None, ledger: Ledger | None
    ) -> None:
        self.store = store
        self.clock = clock
        self.voice = voice
        self._actor = actor
        self._bus = bus
        self._mailbox: Mailbox[Delivery] = Mailbox(MAILBOX)
        self._speaker = Speaker(voice, bus, ledger, clock, self.tell) if voice and ledger else None
        self._prepare: Prepare | None = None
        self._tasks = Tasks(clock, self._mailbox.close)
        self._effects = Effects(self._tasks, clock, lambda message, about: self.tell(message, about=about))
        self._replies: set[asyncio.Future[bytes]] = set()
        self._batch = Batch()
        self._after: list[Callable[[], None]] = []
        self._reached: dict[str, int] = {}
        self._deferred: dict[str, set[int]] = {}
        self._saved_ms = 0
        self._log = log.bind(actor=actor.name)

    @classmethod
    async def start(
        cls,
        actor: Actor,
        store: Store,
        bus: Bus,
        clock: Clock,
        *,
        speaking: Speaking | None = None,
        prepare: Prepare | None = None,
    ) -> "Runtime":
        """Brings the voice up to date with the store and, where the store is new, with the ledger.

        ``prepare`` is awaited before each decision and returns the message with what had to be read for it. Raises
        BusError or TimedOut when a new store's nonce cannot be learnt now.
        """
        voice = None
        if speaking is not None:
            waiting, last = await store.waiting(), await store.last_nonce()
            if last is None:
                nonce = (await speaking.ledger.account()).nonce
            else:
                nonce = min((row.nonce for row in waiting), default=last + 1)
            voice = Voice(speaking.key, bus.chain, speaking.gas_price, waiting, nonce)
        runtime = cls(actor, store, bus, clock, voice, speaking.ledger if speaking else None)
        runtime._prepare = prepare
        runtime._reached = await store.positions()
        return runtime

    async def tell(self, message: object, position: Position | None = None, about: str = "") -> None:
        """Puts a message into the mailbox; waits while it is full. Dropped when the actor is stopping."""
        await self._mailbox.put(Delivery(message, position, about))

    async def ask(self, message: object) -> bytes:
        """Puts a question and waits for the actor's `Answer`. Raises Unreachable when the actor stops before."""
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._replies.add(reply)
        try:
            if not await self._mailbox.put(Delivery(message, reply=reply)):
                raise _stopping()
            return await reply
        finally:
            self._replies.discard(reply)

    def position(self, source: str) -> int:
        """How far the source was read when the actor started, and since."""
        return min(self._deferred.get(source) or {self._reached.get(source, 0) + 1}) - 1

    async def find(self, key: str) -> Spoken | None:
        """What was ever said under this key, or is about to be."""
        if self.voice is not None and (waits := self.voice.find(key)) is not None:
            return waits
        row = await self.store.find(key)
        return None if row is None else spoken(row)

    async def run(self, stop: asyncio.Event, sources: Sequence[Source] = ()) -> None:
        """Runs until ``stop`` is set, or raises what ended it. All tasks have ended and all decisions are written."""
        self._spawn("stop", self._close_when(stop))
        try:
            kept = await self.store.kept()
            await self._step(Delivery(None), lambda _, now_ms: self._actor.begin(kept, now_ms))
            await self._commit()
            self._spawn_all(sources)
            while deliveries := await self._mailbox.take(TOGETHER):
                for delivery in deliveries:
                    await self._receive(delivery)
                await self._commit()
            if self._tasks.failure is None:
                await self._commit(positions_too=True)
        finally:
            await self._end()
        if self._tasks.failure is not None:
            raise self._tasks.failure

    def _spawn_all(self, sources: Sequence[Source]) -> None:
        for source in sources:
            self._spawn("source", self._tasks.keep_up(partial(source, self)))
        self._spawn("positions", self._save_positions())
        if self._speaker is not None:
            for part in (self._speaker.send, self._speaker.tick, self._speaker.ask, self._speaker.listen):
                self._spawn(part.__name__, self._tasks.keep_up(part))

    # One message.

    async def _receive(self, delivery: Delivery) -> None:
        """Decides a message, after what it tells the voice."""
        message = delivery.message
        try:
            uses = self._uses(message)
        except AssayError as error:
            message = Unreadable(b"", str(error))
            uses = []
        for used in uses:
            heard = self.voice.hear(used.event, used.nonce, used.outcome, used.height) if self.voice else None
            if heard is not None:
                await self._step(Delivery(heard, about=used.event), self._actor.decide)
        match message:
            case Used() | _SavePositions():
                self._finish(delivery)
            case Unreadable():
                self._bury(delivery, NeverAgain("UNREADABLE", message.why))
                self._finish(delivery)
            case Lost() if self.voice:
                self.voice.lost(message.event, message.nonce)
            case NextNonce() if self.voice:
                self.voice.used_until(message.nonce)
                if message.answers:
                    self.voice.asked()
            case Hearsay() if self.voice:
                turned = self.voice.turned_away(message.event, message.refusal, self.clock.now_ms())
                if turned is not None:
                    await self._step(Delivery(turned, about=message.event), self._actor.decide)
            case _:
                await self._step(delivery, self._actor.decide)

    def _uses(self, message: object) -> list[Used]:
        """What a message says about own events in final blocks. Raises Refused."""
        if isinstance(message, Used):
            return [message]
        uses = []
        if isinstance(message, FeedMessage) and self.voice is not None:
            for entry in message.entries:
                signed = parse(bytes(entry.event)) if isinstance(entry.event, msgspec.Raw) else None
                if signed is None or signed.event.sender != self.voice.address:
                    continue
                # Whoever could forge one, or show one of another chain, could make us say the same thing twice.
                verify_event(signed)
                if signed.event.chain == self.voice.chain:
                    uses.append(Used(signed.id, signed.event.nonce, entry.outcome, message.height))
        return uses

    async def _step(self, delivery: Delivery, decide: Callable[[object, int], Decision]) -> None:
        name = type(delivery.message).__name__
        span = telemetry.tracer.start_as_current_span(
            f"decide {name}",
            context=telemetry.context_about(delivery.about),
            attributes={"assay.actor": self._actor.name, "assay.about": delivery.about},
        )
        with span, structlog.contextvars.bound_contextvars(message=name):
            try:
                if self._prepare is not None and delivery.message is not None:
                    delivery.message = await self._prepare(delivery.message, self)
                decision = decide(delivery.message, self.clock.now_ms())
                await self._check(decision)
            except (AssertionError, Divergence, BusError):
                raise
            except AssayError as error:
                decision = NeverAgain(error.code, str(error))
            except Exception as error:
                # A fault of the code. What was decided before stands; this message must not bring it up for ever.
                if delivery.message is not None:
                    self._bury(delivery, NeverAgain("FAULT", repr(error)))
                    self._finish(delivery)
                await self._commit(positions_too=True)
                raise
            await self._carry_out(decision, delivery)

    async def _check(self, decision: Decision) -> None:
        """Raises Refused before anything is carried out, when something said is no event."""
        if not isinstance(decision, AgainLater):
            for command in decision.commands:
                if isinstance(command, Say):
                    self._speaking().check(command.draft)

    async def _carry_out(self, decision: Decision, delivery: Delivery) -> None:
        if isinstance(decision, AgainLater):
            if delivery.tries + 1 < MOST_TRIES:
                self._defer(delivery, decision)
                return
            decision = NeverAgain("TRIES_USED_UP", decision.why)
        answers = sum(isinstance(command, Answer | AnswerSaid) for command in decision.commands)
        if isinstance(decision, Done) and answers != (delivery.reply is not None):
            raise AssertionError(f"{answers} answers to {type(delivery.message).__name__}")
        for command in decision.commands:
            await self._carry(command, delivery)
        if isinstance(decision, NeverAgain):
            self._bury(delivery, decision)
        self._finish(delivery)

    async def _carry(self, command: Command, delivery: Delivery) -> None:
        match command:
            case Say():
                if await self.find(command.key) is None:
                    said = self._speaking().say(
                        command.key, command.draft, self.clock.now_ms(), telemetry.traceparent()
                    )
                    self._log.debug("said", key=said.key, id=said.event, nonce=said.nonce)
            case Keep():
                self._batch.kept[command.name] = command.value
            case Drop():
                self._batch.kept[command.name] = None
            case Answer():
                self._answer(delivery, command.data)
            case AnswerSaid():
                found = await self.find(command.key)
                if found is None:
                    raise AssertionError(f"the answer names {command.key!r}, which was never said")
                self._answer(delivery, command.make(found))
            case Start():
                self._after.append(partial(self._effects.start, command, delivery.about))
            case Cancel():
                self._after.append(partial(self._effects.cancel, command.name))
            case Later():
                self._after.append(partial(self._effects.later, command, delivery.about))
            case Tell():
                self._after.append(lambda: self._spawn("tell", self._publish(command)))

    def _speaking(self) -> Voice:
        if self.voice is None:
            raise AssertionError(f"{self._actor.name} says something and has no key")
        return self.voice

    def _answer(self, delivery: Delivery, data: bytes) -> None:
        reply = delivery.reply
        if reply is not None:
            self._after.append(lambda: None if reply.done() else reply.set_result(data))

    def _bury(self, delivery: Delivery, decision: NeverAgain) -> None:
        now_ms = self.clock.now_ms()
        self._log.warning("given up", code=decision.code, detail=decision.detail)
        letter = DeadLetter(decision.code, decision.detail[:2_000], _written(delivery.message), now_ms)
        self._batch.dead_letters.append(letter)
        reply = delivery.reply
        if reply is not None:
            fault = AssayError("the question cannot be answered", why=f"{decision.code}: {decision.detail}")
            self._after.append(lambda: None if reply.done() else reply.set_exception(fault))

    # Positions: the place before the first message that is not finished.

    def _defer(self, delivery: Delivery, decision: AgainLater) -> None:
        self._log.info("again later", why=decision.why, delay_ms=decision.delay_ms, tries=delivery.tries + 1)
        delivery.tries += 1
        if delivery.position is not None:
            self._deferred.setdefault(delivery.position.source, set()).add(delivery.position.sequence)
            self._move(delivery.position)
        self._after.append(lambda: self._spawn("again", self._redeliver(delivery, decision.delay_ms)))

    def _finish(self, delivery: Delivery) -> None:
        if delivery.position is not None:
            self._deferred.get(delivery.position.source, set()).discard(delivery.position.sequence)
            self._move(delivery.position)

    def _move(self, position: Position) -> None:
        source = position.source
        self._reached[source] = max(self._reached.get(source, 0), position.sequence)
        self._batch.positions[source] = self.position(source)

    async def _commit(self, *, positions_too: bool = False) -> None:
        batch, after = self._batch, self._after
        if self.voice is not None:
            batch.outbox = self.voice.staged()
        late = self.clock.now_ms() - self._saved_ms >= POSITIONS_EVERY_MS
        if not batch.is_empty() and (positions_too or late or not batch.only_moves()):
            self._batch = Batch()
            await self.store.commit(batch)
            self._saved_ms = self.clock.now_ms()
            if self.voice is not None:
                self.voice.written()
        if self._speaker is not None:
            self._speaker.wake()
        self._after = []
        for action in after:
            action()

    # Beside the mailbox.

    async def _redeliver(self, delivery: Delivery, delay_ms: int) -> None:
        await self.clock.sleep_ms(delay_ms)
        await self._mailbox.put(delivery)

    async def _publish(self, tell: Tell) -> None:
        try:
            await self._bus.publish_live(self._speaking().address, tell.topic, tell.data)
        except BusError as error:
            self._log.debug("nobody was told", topic=tell.topic, error=str(error))

    async def _save_positions(self) -> None:
        while True:
            await self.clock.sleep_ms(POSITIONS_EVERY_MS)
            await self._mailbox.put(Delivery(_SavePositions()))

    def _spawn(self, name: str, run: Coroutine[Any, Any, None]) -> None:
        self._tasks.spawn(f"{self._actor.name}: {name}", run)

    async def _close_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._mailbox.close()

    async def _end(self) -> None:
        self._mailbox.close()
        await self._tasks.end()
        for reply in list(self._replies):
            if not reply.done():
                reply.set_exception(_stopping())


def own_feed(bus: Bus, address: str) -> Source:
    """The source of a light actor: FeedMessage records of one address, from where the actor left off.

    Several nodes write a feed, so what one of them says late again is passed over; after a restart it may come again.
    It is told by its bytes, not by its height: a message with a height that will never come must not hide the others.
    """
    latest: dict[bytes, None] = {}

    async def read(runtime: Runtime) -> None:
        reader = await bus.read_feed(address, runtime.position("feed"))
        try:
            while True:
                for record in await reader.next(TOGETHER, 1_000):
                    known = sha256(record.data).digest()
                    if known in latest:
                        continue
                    latest[known] = None
                    if len(latest) > LATEST_OF_FEED:
                        del latest[next(iter(latest))]
                    await runtime.tell(_feed_message(record.data), Position("feed", record.sequence))
        finally:
            await reader.close()

    return read


def every(clock: Clock, interval_ms: int, message: object) -> Source:
    """The source that tells a message now and then."""

    async def tell(runtime: Runtime) -> None:
        while True:
            await clock.sleep_ms(interval_ms)
            await runtime.tell(message)

    return tell


async def supervise(
    name: str, run: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event, clock: Clock
) -> None:
    """Calls ``run(stop)`` until it returns; after a failure again, with growing delays.

    What another try cannot mend is raised: AssertionError, Divergence, and every AssayError but BusError and TimedOut.
    """
    attempt = 0
    while not stop.is_set():
        began_ms = clock.now_ms()
        try:
            return await run(stop)
        except (AssertionError, Divergence, WrongNetwork, SequenceGap):
            log.critical("the actor stops", actor=name, exc_info=True)
            raise
        except (BusError, TimedOut) as error:
            log.warning("the actor starts again", actor=name, error=str(error))
        except AssayError:
            raise
        except Exception:
            log.exception("the actor starts again", actor=name)
        attempt = 0 if clock.now_ms() - began_ms > CALM_AFTER_MS else attempt + 1
        waiting = asyncio.ensure_future(clock.sleep_ms(backoff_ms(attempt)))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, stopping):
            task.cancel()
    return None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


_feed_messages = msgspec.json.Decoder(FeedMessage)


def _feed_message(data: bytes) -> FeedMessage | Unreadable:
    try:
        return _feed_messages.decode(data)
    except UNREADABLE as error:
        return Unreadable(data, str(error))


def _stopping() -> Unreachable:
    return Unreachable("the actor does not answer", why="it is stopping", hint="Ask again in a moment.")


def _written(message: object) -> bytes:
    """The message for the dead letters: JSON where it is a record, else its repr."""
    try:
        return msgspec.json.encode(message)[:LONGEST_LETTER]
    except (TypeError, ValueError, msgspec.MsgspecError):
        return repr(message).encode()[:LONGEST_LETTER]
