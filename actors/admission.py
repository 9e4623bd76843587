"""From inbox messages to the mempool: what is read, checked, taken or turned away, and when an inbox place is free
again.

Everything that arrives ends in one of three ways: it waits in the mempool, and its place in the inbox is freed when a
final block has used its nonce; it is refused, which its owner is told on the live subject, and its place is freed; or
it is known already, and shares the fate of the first.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
from msgspec import UNSET

from actors.mempool import Mempool
from bus.port import Bus, InboxMessage, InboxReader
from events.canonical import canonical, digest
from events.envelope import SignedEvent, parse, signature_holds
from events.errors import BusError, Refused
from schemas.messages import EventRefused
from schemas.refusals import HINTS, AnyRefusal, BadSignature, NonceTooLow, Refusal, WrongSubject, code_of
from schemas.state import Account

READ_AT_ONCE: Final = 1_000
READ_WAIT_MS: Final = 1_000
CHECKED_INLINE: Final = 8
CHUNK: Final = 64
RECENT: Final = 50_000

log = structlog.get_logger()


class Admission:
    """Keeps the mempool of one validator. ``account`` reads the ledger's final state."""

    def __init__(self, bus: Bus, mempool: Mempool, account: Callable[[str], Account], threads: int = 2) -> None:
        self.mempool: Final = mempool
        self._bus = bus
        self._account = account
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="signatures")
        # The digests of envelopes whose signature holds, by event id, as long as they wait.
        self._digests: dict[str, str] = {}
        self._verified: set[str] = set()
        # Of each event that waits: the server's stamp of its oldest message, and that one's newest token. Should two
        # have the same stamp, the place of one is freed when it comes again.
        self._tokens: dict[str, tuple[int, str]] = {}
        self._free: list[str] = []
        # Ids of events in the latest blocks: what of them is still in the inbox has reached its aim.
        self._recent: dict[str, None] = {}
        self._reader: InboxReader | None = None

    def is_verified(self, envelope_digest: str) -> bool:
        """Whether the signature of the envelope with this SHA-256 is known to hold."""
        return envelope_digest in self._verified

    def remember(self, event_ids: Iterable[str]) -> None:
        """These are in final blocks, so that nobody is told anything else when they come again."""
        for event_id in event_ids:
            self._recent[event_id] = None
        while len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    def close(self) -> None:
        """Ends the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, reader: InboxReader, arrived: asyncio.Event) -> None:
        """Reads until cancelled; sets ``arrived`` when something new waits. Raises BusError."""
        self._reader = reader
        try:
            while True:
                messages = await reader.next(READ_AT_ONCE, READ_WAIT_MS)
                if messages and await self.admit(messages):
                    arrived.set()
                await self.free_places()
        finally:
            self._reader = None
            await reader.close()

    async def admit(self, messages: Sequence[InboxMessage]) -> int:
        """Takes messages in their order; returns how many events wait anew."""
        parsed: list[tuple[InboxMessage, SignedEvent]] = []
        for message in messages:
            signed = await self._parse(message)
            if signed is not None:
                parsed.append((message, signed))
        good = await self._check_signatures([signed for _, signed in parsed])
        admitted = 0
        for (message, signed), holds in zip(parsed, good, strict=True):
            if not holds:
                await self._refuse(message.owner, BadSignature(sender=signed.event.sender), signed.id)
                self._free.append(message.token)
            else:
                admitted += await self._add(message, signed)
        return admitted

    async def _parse(self, message: InboxMessage) -> SignedEvent | None:
        """The event where it is new and could wait; all else is dealt with here."""
        try:
            signed = parse(message.data)
        except Refused as error:
            await self._refuse(message.owner, error.refusal, None)
            self._free.append(message.token)
            return None
        refusal: Refusal | None = None
        if signed.event.sender != message.owner:
            refusal = WrongSubject(subject=message.owner, sender=signed.event.sender)
        elif signed.id in self.mempool:
            self._note_copy(signed.id, message)
            return None
        elif signed.id not in self._recent:
            refusal = self.mempool.hopeless(signed.event)
            if refusal is None:
                return signed
        self._free.append(message.token)
        if refusal is not None:
            await self._refuse(message.owner, refusal, signed.id)
        return None

    async def _check_signatures(self, events: Sequence[SignedEvent]) -> list[bool]:
        """In threads where there are many: libsodium works without the interpreter's lock."""
        if len(events) <= CHECKED_INLINE:
            return [signature_holds(signed) for signed in events]
        loop = asyncio.get_running_loop()
        chunks = [events[start : start + CHUNK] for start in range(0, len(events), CHUNK)]
        checked = await asyncio.gather(*(loop.run_in_executor(self._executor, _hold, chunk) for chunk in chunks))
        return [holds for chunk in checked for holds in chunk]

    async def _add(self, message: InboxMessage, signed: SignedEvent) -> bool:
        if signed.id in self._tokens:
            self._note_copy(signed.id, message)
            return False
        if signed.id in self._recent:  # a block was quicker than the check of the signature
            self._free.append(message.token)
            return False
        refusal, yielded = self.mempool.add(signed, message.time_ns // 1_000_000)
        if refusal is not None:
            await self._refuse(message.owner, refusal, signed.id)
            self._free.append(message.token)
            return False
        envelope_digest = digest(signed.raw)
        self._tokens[signed.id] = (message.time_ns, message.token)
        self._digests[signed.id] = envelope_digest
        self._verified.add(envelope_digest)
        for gone in yielded:
            await self.turn_away(gone, self.mempool.reason_to_yield(gone, signed))
        return True

    def _note_copy(self, event_id: str, message: InboxMessage) -> None:
        """Of an event that waits: the oldest message keeps its place, which is the same one for every validator."""
        time_ns, token = self._tokens[event_id]
        if message.time_ns > time_ns:
            self._free.append(message.token)
            return
        if message.time_ns < time_ns:
            self._free.append(token)
        self._tokens[event_id] = (message.time_ns, message.token)

    async def turn_away(self, signed: SignedEvent, refusal: Refusal) -> None:
        """An event that waited will not get into a block."""
        self.mempool.drop(signed.id)
        self._forget(signed.id)
        await self._refuse(signed.event.sender, refusal, signed.id)
        await self._trim([signed.event.sender])

    async def _trim(self, senders: Iterable[str]) -> None:
        """Turns away what waited for something that will not come, or cannot be paid for any more."""
        for signed, refusal in self.mempool.trim(senders):
            self._forget(signed.id)
            await self._refuse(signed.event.sender, refusal, signed.id)

    async def block_is_final(self, events: Sequence[SignedEvent]) -> None:
        """Frees what the block included, and what it has made impossible."""
        senders = dict.fromkeys(signed.event.sender for signed in events)
        included = [signed.id for signed in events]
        self.remember(included)
        final = frozenset(included)
        for signed in self.mempool.advance(senders):
            self._forget(signed.id)
            if signed.id not in final:
                expected = self._account(signed.event.sender).nonce
                refusal = NonceTooLow(expected=expected, found=signed.event.nonce)
                await self._refuse(signed.event.sender, refusal, signed.id)
        await self._trim(senders)

    async def expire(self, now_ms: int) -> None:
        """Turns away what has waited too long."""
        for signed, refusal in self.mempool.expire(now_ms):
            await self.turn_away(signed, refusal)

    def _forget(self, event_id: str) -> None:
        if event_id in self._tokens:
            self._free.append(self._tokens.pop(event_id)[1])
        self._verified.discard(self._digests.pop(event_id, ""))

    async def free_places(self) -> None:
        """Settles what is done with. A failure is none: the message comes again and is recognised."""
        if self._free and self._reader is not None:
            free, self._free = self._free, []
            try:
                await self._reader.settle(free)
            except BusError as error:
                log.info("inbox places could not be freed", error=str(error))

    async def _refuse(self, owner: str, refusal: AnyRefusal | Refusal, event_id: str | None) -> None:
        code = code_of(refusal)
        told = EventRefused(refusal=refusal, hint=HINTS[code], event=UNSET if event_id is None else event_id)  # type: ignore[arg-type]
        try:
            await self._bus.publish_live(owner, "refused", canonical(told))
        except BusError as error:
            log.debug("nobody was told of the refusal", error=str(error))


def _hold(events: Sequence[SignedEvent]) -> list[bool]:
    return [signature_holds(signed) for signed in events]
