"""The mempool: events that wait for a block. Pure: time, accounts and limits are arguments.

Every sender has a queue by nonce. The part of it without a gap from the account's nonce on is ready; at most
``FUTURE_NONCES`` events may wait behind a gap. Events are picked by gas price across senders, first come first served
among equals, and always in nonce order within a sender. An event with a nonce that is taken replaces the waiting one
if it pays at least 10 % more per gas. When the pool is full, the newest of the cheapest yields to one that pays more.

A sender must be able to pay the fees of all that it has waiting, also later on (`Mempool.trim`); whether an action can
be done is for the block to find out. What waits behind a gap costs its sender nothing and may stay for long, so it gets
no more than half of the pool: the rest is for events that a block will take, and be paid for.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from events.envelope import SignedEvent
from projections.execute import fee_of
from schemas.events import Body, FaucetRequested
from schemas.refusals import (
    Expired,
    FaucetClosed,
    GasPriceTooLow,
    InsufficientBalance,
    MempoolFull,
    NonceTaken,
    NonceTooFar,
    NonceTooLow,
    Refusal,
    SenderLimitExceeded,
    WrongChain,
)
from schemas.state import Account
from schemas.values import MAX_SAFE_INTEGER

FUTURE_NONCES: Final = 64
REPLACEMENT_BPS: Final = 1_000


class PoolLimits(Struct, frozen=True, kw_only=True):
    """``age_ms`` is how long an event may wait, ``bytes`` what all envelopes together may have."""

    events: int = 100_000
    per_sender: int = 1_000
    bytes: int = 2**28
    age_ms: int = 3_600_000


class Pending(Struct, frozen=True):
    """An event that waits. ``order`` counts arrivals."""

    signed: SignedEvent
    fee: int
    arrived_ms: int
    order: int


class _Queue:
    """The waiting events of one sender by nonce, and the sum of their fees."""

    def __init__(self) -> None:
        self.events: dict[int, Pending] = {}
        self.fees = 0
        self._end = 0

    def first_missing(self, nonce: int) -> int:
        """The first nonce from ``nonce`` on that does not wait here."""
        self._end = max(self._end, nonce)
        while self._end in self.events:
            self._end += 1
        return self._end

    def put(self, pending: Pending) -> None:
        self.events[pending.signed.event.nonce] = pending
        self.fees += pending.fee

    def take(self, pending: Pending) -> None:
        nonce = pending.signed.event.nonce
        del self.events[nonce]
        self.fees -= pending.fee
        self._end = min(self._end, nonce)


class Mempool:
    """``account`` reads the last final state. ``most_from_faucet`` is what one request can get, 0: there is none."""

    def __init__(
        self,
        chain: str,
        min_gas_price: int,
        account: Callable[[str], Account],
        limits: PoolLimits | None = None,
        most_from_faucet: int = MAX_SAFE_INTEGER,
    ) -> None:
        self._chain = chain
        self._min_gas_price = min_gas_price
        self._account = account
        self._most_from_faucet = most_from_faucet
        self._limits = limits or PoolLimits()
        self._queues: dict[str, _Queue] = {}
        self._ids: dict[str, Pending] = {}
        # Min-heap of (gas price, -order, id) over everything ever added; entries of events that have gone are skipped.
        self._cheapest: list[tuple[int, int, str]] = []
        self._arrivals = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._ids

    def hopeless(self, event: Body) -> Refusal | None:
        """Why an event cannot wait whatever else does: the checks that are cheaper than that of a signature."""
        account = self._account(event.sender)
        if event.chain != self._chain:
            return WrongChain(expected=self._chain, found=event.chain)
        if event.nonce < account.nonce:
            return NonceTooLow(expected=account.nonce, found=event.nonce)
        if event.gas_price < self._min_gas_price:
            return GasPriceTooLow(minimum=self._min_gas_price, found=event.gas_price)
        if isinstance(event, FaucetRequested) and self._most_from_faucet == 0:
            return FaucetClosed()
        return self._cannot_pay(event, account, fee_of(event))

    def add(self, signed: SignedEvent, now_ms: int) -> tuple[Refusal | None, list[SignedEvent]]:
        """Takes an event whose signature has been verified: why not, and which events had to yield to it.

        An event that waits already is taken again without effect.
        """
        if signed.id in self._ids:
            return None, []
        event, account = signed.event, self._account(signed.event.sender)
        queue = self._queues.get(event.sender) or _Queue()
        replaced = queue.events.get(event.nonce)
        fee = fee_of(event)
        refusal = self.hopeless(event) or self._refusal(event, account, queue, replaced, fee)
        if refusal is not None:
            return refusal, []
        yielded = self._make_room(signed, replaced)
        if isinstance(yielded, MempoolFull):
            return yielded, []
        self._put(Pending(signed=signed, fee=fee, arrived_ms=now_ms, order=self._arrivals))
        self._arrivals += 1
        return None, yielded

    def _refusal(
        self, event: Body, account: Account, queue: _Queue, replaced: Pending | None, fee: int
    ) -> Refusal | None:
        if replaced is not None:
            needed_price = _to_replace(replaced.signed.event.gas_price)
            if event.gas_price < needed_price:
                return NonceTaken(pending=replaced.signed.id, needed_gas_price=needed_price)
        elif len(queue.events) >= self._limits.per_sender:
            return SenderLimitExceeded(limit=self._limits.per_sender)
        elif event.nonce > (expected := queue.first_missing(account.nonce)) + self._future_nonces():
            return NonceTooFar(expected=expected, found=event.nonce)
        return self._cannot_pay(event, account, queue.fees + fee - (replaced.fee if replaced else 0))

    def _future_nonces(self) -> int:
        """How many nonces behind a gap there is room for."""
        is_half_full = 2 * len(self._ids) >= self._limits.events or 2 * self._bytes >= self._limits.bytes
        return 0 if is_half_full else FUTURE_NONCES

    def _cannot_pay(self, event: Body, account: Account, fees: int) -> InsufficientBalance | None:
        available = account.balance + self._gift(event)
        if fees <= available:
            return None
        return InsufficientBalance(needed=min(fees, MAX_SAFE_INTEGER), available=min(available, MAX_SAFE_INTEGER))

    def _gift(self, event: Body) -> int:
        """A faucet request pays its own fee out of what it gets; one that asks for too much gets nothing."""
        return event.amount if isinstance(event, FaucetRequested) and event.amount <= self._most_from_faucet else 0

    def _make_room(self, signed: SignedEvent, replaced: Pending | None) -> list[SignedEvent] | MempoolFull:
        """Removes what the newcomer replaces, and cheaper events as long as the pool is full. All of it or nothing."""
        removed: list[Pending] = []
        leaving = replaced
        while leaving is not None or self._is_full(len(signed.raw)):
            leaving = leaving or self._last_behind_cheapest(signed.event.gas_price)
            if leaving is None:
                needed = self._cheapest[0][0] + 1 if self._cheapest else 0
                for pending in removed:
                    self._put(pending)
                return MempoolFull(limit=self._limits.events, needed_gas_price=min(needed, MAX_SAFE_INTEGER))
            self._take(leaving)
            removed.append(leaving)
            leaving = None
        return [pending.signed for pending in removed]

    def _is_full(self, more_bytes: int) -> bool:
        return len(self._ids) >= self._limits.events or self._bytes + more_bytes > self._limits.bytes

    def _last_behind_cheapest(self, gas_price: int) -> Pending | None:
        """The last event of the sender that holds the cheapest one, if that is cheaper than ``gas_price``."""
        while self._cheapest and self._cheapest[0][2] not in self._ids:
            heapq.heappop(self._cheapest)
        if not self._cheapest:
            return None
        cheapest = self._ids[self._cheapest[0][2]].signed.event
        if cheapest.gas_price >= gas_price:
            return None
        events = self._queues[cheapest.sender].events
        return events[max(events)]

    def _put(self, pending: Pending) -> None:
        event = pending.signed.event
        self._queues.setdefault(event.sender, _Queue()).put(pending)
        self._ids[pending.signed.id] = pending
        self._bytes += len(pending.signed.raw)
        heapq.heappush(self._cheapest, (event.gas_price, -pending.order, pending.signed.id))
        if len(self._cheapest) > 2 * len(self._ids) + 1_024:
            self._cheapest = [entry for entry in self._cheapest if entry[2] in self._ids]
            heapq.heapify(self._cheapest)

    def _take(self, pending: Pending) -> SignedEvent:
        event = pending.signed.event
        queue = self._queues[event.sender]
        queue.take(pending)
        del self._ids[pending.signed.id]
        self._bytes -= len(pending.signed.raw)
        if not queue.events:
            del self._queues[event.sender]
        return pending.signed

    def reason_to_yield(self, gone: SignedEvent, newcomer: SignedEvent) -> Refusal:
        """Why ``gone`` had to make room for ``newcomer``."""
        if gone.event.sender == newcomer.event.sender and gone.event.nonce == newcomer.event.nonce:
            return NonceTaken(pending=newcomer.id, needed_gas_price=_to_replace(newcomer.event.gas_price))
        needed = min(newcomer.event.gas_price, MAX_SAFE_INTEGER)
        return MempoolFull(limit=self._limits.events, needed_gas_price=needed)

    def drop(self, event_id: str) -> None:
        """Removes an event that turned out to be impossible; one that is not there is none to remove."""
        pending = self._ids.get(event_id)
        if pending is not None:
            self._take(pending)

    def advance(self, senders: Iterable[str]) -> list[SignedEvent]:
        """Call after a final block with the senders of its events: removes and returns what has become too old to
        include."""
        stale: list[SignedEvent] = []
        for sender in senders:
            queue = self._queues.get(sender)
            if queue is None:
                continue
            nonce = self._account(sender).nonce
            stale.extend([self._take(pending) for old, pending in list(queue.events.items()) if old < nonce])
        return stale

    def trim(self, senders: Iterable[str]) -> list[tuple[SignedEvent, Refusal]]:
        """Call when an account has less than before, or an event has been dropped: removes and returns what these
        senders cannot pay for any more, and what has come to stand too far behind a gap."""
        gone: list[tuple[SignedEvent, Refusal]] = []
        for sender in senders:
            queue, account = self._queues.get(sender), self._account(sender)
            if queue is None:
                continue
            expected = queue.first_missing(account.nonce)
            gone.extend(
                (self._take(queue.events[nonce]), NonceTooFar(expected=expected, found=nonce))
                for nonce in sorted(nonce for nonce in queue.events if nonce > expected + FUTURE_NONCES)
            )
            while queue.events:
                last = queue.events[max(queue.events)]
                refusal = self._cannot_pay(last.signed.event, account, queue.fees)
                if refusal is None:
                    break
                gone.append((self._take(last), refusal))
        return gone

    def expire(self, now_ms: int) -> list[tuple[SignedEvent, Expired]]:
        """Removes and returns what has waited too long."""
        old = [pending for pending in self._ids.values() if now_ms - pending.arrived_ms > self._limits.age_ms]
        return [(self._take(pending), Expired(waited_ms=now_ms - pending.arrived_ms)) for pending in old]

    def pick(self, limit: int) -> list[SignedEvent]:
        """Up to ``limit`` ready events, best price first; they stay in the pool until a final block or `drop` removes
        them."""
        heads: list[tuple[int, int, str, int]] = []
        for sender, queue in self._queues.items():
            nonce = self._account(sender).nonce
            if (head := queue.events.get(nonce)) is not None:
                heads.append((-head.signed.event.gas_price, head.order, sender, nonce))
        heapq.heapify(heads)
        picked: list[SignedEvent] = []
        while heads and len(picked) < limit:
            _, _, sender, nonce = heads[0]
            events = self._queues[sender].events
            picked.append(events[nonce].signed)
            following = events.get(nonce + 1)
            if following is None:
                heapq.heappop(heads)
            else:
                entry = (-following.signed.event.gas_price, following.order, sender, nonce + 1)
                heapq.heapreplace(heads, entry)
        return picked

    def has_ready(self) -> bool:
        """Whether an event waits that could be included now."""
        return any(self._account(sender).nonce in queue.events for sender, queue in self._queues.items())


def _to_replace(gas_price: int) -> int:
    return min(gas_price + max(1, -(-gas_price * REPLACEMENT_BPS // 10_000)), MAX_SAFE_INTEGER)
