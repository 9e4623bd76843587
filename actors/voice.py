"""An actor's own signed events: each said exactly once, whatever crashes in between.

`Voice` is the outbox in memory, without input or output. It gives nonces, signs, and knows what waits; `staged` is what
has to be written before anything may be sent, `due` what is to be sent now. `actors.speaker` sends and asks, the
runtime writes.

What makes it safe: an event of nonce n is signed anew with another nonce only after a final block has used n for
something else. Then the earlier signature is dead, and the two can never both be in the log. Two processes with the
same key so never say one thing twice, they only take turns. (Should both say the very same bytes at once, that is one
event, and each hears of it as its own.)
"""

import heapq
from collections.abc import Iterable

import msgspec
import structlog
from msgspec import Struct

from actors.decision import Draft, Heard, Spoken, TurnedAway, complete, draft
from actors.store import OutboxRow
from events.canonical import canonical
from events.envelope import read, sign
from events.errors import Refused
from events.keys import Key
from schemas.blocks import Outcome
from schemas.events import TransferSent
from schemas.refusals import AnyRefusal, InsufficientBalance, code_of

# A mempool holds 64 nonces of one sender beyond the next; a little less leaves room for another process with the key.
WINDOW = 60
RESEND_FIRST_MS = 2_000
RESEND_LONGEST_MS = 16_000
RETRY_MS = 500
OVERDUE_MS = 10_000
# Refusals that pass by themselves, or that only the ledger can judge.
PASSING = (
    "EXPIRED",
    "GAS_PRICE_TOO_LOW",
    "INSUFFICIENT_BALANCE",
    "MEMPOOL_FULL",
    "NONCE_GAP",
    "NONCE_TAKEN",
    "NONCE_TOO_FAR",
    "NONCE_TOO_LOW",
    "SENDER_LIMIT_EXCEEDED",
)
OF_NONCES = ("NONCE_GAP", "NONCE_TAKEN", "NONCE_TOO_FAR", "NONCE_TOO_LOW")

log = structlog.get_logger()


class _Sending(Struct):
    """When a row is to be sent, and how often it was since it was last told anew."""

    due_ms: int = 0
    tries: int = 0
    first_ms: int | None = None


class Voice:
    """The outbox of one address, made of the store's ``waiting`` rows and the account's next ``nonce`` as far as known.

    A wrong nonce does no harm: what is signed with a used one is signed anew once the ledger says so.
    """

    def __init__(self, key: Key, chain: str, gas_price: int, waiting: Iterable[OutboxRow], nonce: int) -> None:
        self.address = key.address
        self.chain = chain
        self.gas_price = gas_price
        self._key = key
        self._rows = {row.key: row for row in waiting}
        self._by_nonce = {row.nonce: row.key for row in self._rows.values()}
        if len(self._by_nonce) != len(self._rows):
            raise AssertionError("two waiting events in the outbox share a nonce")
        # The nonce that a final block will use next, as far as known here.
        self._floor = nonce
        self._next = max([nonce, *(used + 1 for used in self._by_nonce)])
        self._holes: list[int] = [number for number in range(self._floor, self._next) if number not in self._by_nonce]
        self._staged: dict[str, OutboxRow] = {}
        self._sending: dict[str, _Sending] = {}
        self._doubtful = True

    @property
    def waiting(self) -> int:
        """How many events wait for a block."""
        return len(self._rows)

    def check(self, unfinished: Draft) -> None:
        """Raises Refused unless the draft is an event that every node can read."""
        complete(unfinished, chain=self.chain, sender=self.address, gas_price=self.gas_price)

    def find(self, key: str) -> Spoken | None:
        """What waits under a key, staged or written. What is final is in the store only."""
        row = self._rows.get(key)
        return None if row is None else spoken(row)

    def say(self, key: str, unfinished: Draft, now_ms: int, traceparent: str = "") -> Spoken:
        """Signs and stages. The key must be neither waiting nor in the store (the runtime looks). Raises Refused."""
        if key in self._rows:
            raise AssertionError(f"{key!r} is said already")
        return spoken(self._stage(key, unfinished, self._take_nonce(), now_ms, traceparent))

    def hear(self, event_id: str, nonce: int, outcome: Outcome, height: int) -> Heard | None:
        """A final block holds this event of our address. Returns what became of something said, None if it is not ours.

        Hearing the same again changes nothing.
        """
        self._pass(nonce)
        key = self._by_nonce.get(nonce)
        if key is None:
            return None
        row = self._rows[key]
        if row.id != event_id:
            self.lost(row.id, nonce)
            return None
        self._leave(msgspec.structs.replace(row, state="final", raw=b"", outcome=canonical(outcome), height=height))
        return Heard(key, event_id, nonce, outcome, height)

    def lost(self, event_id: str, nonce: int) -> None:
        """A final block used the nonce for something else than this event: sign what the event says anew."""
        self._pass(nonce)
        row = self._rows.get(self._by_nonce.get(nonce, ""))
        if row is None or row.id != event_id:
            return
        del self._by_nonce[nonce]
        self._sending.pop(row.key, None)
        again = self._stage(row.key, Draft(row.draft), self._take_nonce(), row.said_ms, row.traceparent)
        log.warning("signed anew: somebody else used the nonce", key=row.key, nonce=nonce, now=again.nonce)

    def used_until(self, nonce: int) -> None:
        """The ledger says that ``nonce`` is the next one of the account."""
        if nonce > 0:
            self._pass(nonce - 1)

    def turned_away(self, event_id: str, refusal: AnyRefusal, now_ms: int) -> TurnedAway | None:
        """A mempool, or somebody in its name, says this. None when the event does not wait here.

        It makes us ask the ledger, or send again soon. Given up is only what our own check refuses with the same code.
        """
        row = next((row for row in self._in_window() if row.id == event_id), None)
        if row is None:
            return None
        code = code_of(refusal)
        if isinstance(refusal, InsufficientBalance):
            log.warning(
                "a mempool says that the account lacks coins for this event",
                key=row.key,
                address=self.address,
                needed=refusal.needed,
                available=refusal.available,
            )
        else:
            log.info("a mempool turned an event away", key=row.key, id=event_id, code=code)
        if code in OF_NONCES:
            self._doubtful = True
        given_up = code not in PASSING and self._own_refusal(row) == code
        if given_up:
            self._leave(msgspec.structs.replace(row, state="refused", outcome=canonical(refusal)))
            self._fill(row.nonce, now_ms)
        else:
            # Never later than it would be without these words, however often somebody says them.
            known = self._sending.get(row.key) or _Sending(due_ms=now_ms + RESEND_FIRST_MS)
            self._sending[row.key] = _Sending(
                due_ms=min(known.due_ms, now_ms + RESEND_FIRST_MS),
                tries=1,
                first_ms=now_ms if known.first_ms is None else known.first_ms,
            )
        return TurnedAway(row.key, event_id, refusal, given_up)

    def staged(self) -> list[OutboxRow]:
        """Rows that have changed since `written`."""
        return list(self._staged.values())

    def written(self) -> None:
        """All that was staged is on disk; it may be sent."""
        self._staged.clear()

    def due(self, now_ms: int) -> list[OutboxRow]:
        """What is to be sent now, by nonce, within the window."""
        return [
            row
            for row in self._in_window()
            if row.key not in self._staged and self._sending.get(row.key, _NEVER_SENT).due_ms <= now_ms
        ]

    def sent(self, row: OutboxRow, now_ms: int, error: Exception | None) -> None:
        """The row was sent, or could not be; it comes due again after a while."""
        if self._rows.get(row.key) is not row:
            return
        state = self._sending.setdefault(row.key, _Sending())
        state.first_ms = now_ms if state.first_ms is None else state.first_ms
        wait_ms = RETRY_MS if error else min(RESEND_FIRST_MS << min(state.tries, 8), RESEND_LONGEST_MS)
        state.tries += 0 if error else 1
        state.due_ms = now_ms + wait_ms

    def doubts(self, now_ms: int) -> bool:
        """Whether the ledger should be asked: something is unclear, or takes longer than it should."""
        if self._doubtful:
            return True
        if any(nonce < self._floor for nonce in self._by_nonce):
            return True
        lowest = next(iter(self._in_window()), None)
        state = None if lowest is None else self._sending.get(lowest.key)
        return state is not None and state.first_ms is not None and now_ms - state.first_ms > OVERDUE_MS

    def asked(self) -> None:
        """The ledger has answered what was in doubt."""
        self._doubtful = False

    def behind(self, nonce: int) -> list[OutboxRow]:
        """Waiting rows whose nonce the ledger has used already, by nonce."""
        return [self._rows[self._by_nonce[number]] for number in sorted(self._by_nonce) if number < nonce]

    def _in_window(self) -> Iterable[OutboxRow]:
        for nonce in range(self._floor, min(self._floor + WINDOW, self._next)):
            if (key := self._by_nonce.get(nonce)) is not None:
                yield self._rows[key]

    def _take_nonce(self) -> int:
        while self._holes:
            nonce = heapq.heappop(self._holes)
            if nonce >= self._floor:
                return nonce
        self._next += 1
        return self._next - 1

    def _pass(self, nonce: int) -> None:
        self._floor = max(self._floor, nonce + 1)
        self._next = max(self._next, self._floor)

    def _stage(self, key: str, unfinished: Draft, nonce: int, said_ms: int, traceparent: str) -> OutboxRow:
        event = complete(unfinished, chain=self.chain, sender=self.address, gas_price=self.gas_price, nonce=nonce)
        signed = sign(event, self._key)
        row = OutboxRow(
            key=key,
            nonce=nonce,
            id=signed.id,
            draft=unfinished.fields,
            raw=signed.raw,
            state="waiting",
            traceparent=traceparent,
            said_ms=said_ms,
        )
        self._rows[key] = self._staged[key] = row
        self._by_nonce[nonce] = key
        return row

    def _leave(self, row: OutboxRow) -> None:
        del self._rows[row.key]
        del self._by_nonce[row.nonce]
        self._sending.pop(row.key, None)
        self._staged[row.key] = row

    def _fill(self, nonce: int, now_ms: int) -> None:
        """Uses a nonce that nothing will use any more, so that what waits behind it can go on."""
        if not any(number > nonce for number in self._by_nonce):
            heapq.heappush(self._holes, nonce)
            return
        # A transfer to oneself fails, uses its nonce, and costs its fee only.
        nothing = draft(TransferSent, to=self.address, amount=1)
        self._stage(f"nothing/{nonce}", nothing, nonce, now_ms, "")

    def _own_refusal(self, row: OutboxRow) -> str:
        try:
            signed = read(row.raw)
        except Refused as error:
            return code_of(error.refusal)
        return "WRONG_CHAIN" if signed.event.chain != self.chain else ""


_NEVER_SENT = _Sending()


def spoken(row: OutboxRow) -> Spoken:
    """The row as the actor sees it."""
    return Spoken(row.key, row.id, row.nonce, Draft(row.draft))
