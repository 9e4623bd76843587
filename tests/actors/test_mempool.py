"""The mempool: order, nonces, limits, and every reason to turn an event away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.mempool import FUTURE_NONCES, Mempool, PoolLimits
from events.envelope import SignedEvent, sign
from events.keys import Key
from projections.execute import GAS
from schemas.events import FaucetRequested, TransferSent
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

CHAIN = "test-chain"
KEYS = [Key(bytes([number]) * 32) for number in range(1, 6)]
FEE = GAS["transfer.sent"]


class Ledger:
    """Accounts as a test sets them."""

    def __init__(self) -> None:
        self.accounts = {key.address: Account(balance=10**12) for key in KEYS}

    def account(self, address: str) -> Account:
        return self.accounts.get(address, Account())


def transfer(sender: int, nonce: int, gas_price: int = 1, *, chain: str = CHAIN, amount: int = 1) -> SignedEvent:
    key = KEYS[sender]
    to = KEYS[(sender + 1) % len(KEYS)].address
    return sign(
        TransferSent(chain=chain, sender=key.address, nonce=nonce, gas_price=gas_price, to=to, amount=amount), key
    )


def pool(ledger: Ledger, **limits: int) -> Mempool:
    return Mempool(CHAIN, 1, ledger.account, PoolLimits(**limits))


def fill(mempool: Mempool, *events: SignedEvent) -> None:
    for event in events:
        assert mempool.add(event, 0) == (None, [])


def test_picks_by_price_across_senders_and_by_nonce_within_one() -> None:
    """The best price goes first, but never before the sender's own earlier nonce."""
    mempool = pool(Ledger())
    cheap_first, dear_second = transfer(0, 0, 1), transfer(0, 1, 9)
    middle = transfer(1, 0, 5)
    fill(mempool, cheap_first, dear_second, middle)
    assert mempool.pick(10) == [middle, cheap_first, dear_second]


def test_equal_prices_are_served_in_order_of_arrival() -> None:
    """Among equal prices the earlier arrival goes first."""
    mempool = pool(Ledger())
    events = [transfer(sender, 0, 3) for sender in (2, 0, 1)]
    fill(mempool, *events)
    assert mempool.pick(2) == events[:2]


def test_a_future_nonce_waits_until_the_gap_closes() -> None:
    """An event behind a gap is kept, not picked, and picked as soon as the gap is filled."""
    mempool = pool(Ledger())
    first, second = transfer(0, 0), transfer(0, 1)
    fill(mempool, second)
    assert mempool.pick(10) == []
    fill(mempool, first)
    assert mempool.pick(10) == [first, second]


def test_a_final_block_frees_what_it_included_and_what_it_outdated() -> None:
    """After a block, events at or below the used nonces leave, others stay."""
    ledger = Ledger()
    mempool = pool(ledger)
    events = [transfer(0, nonce) for nonce in range(3)]
    fill(mempool, *events)
    ledger.accounts[KEYS[0].address] = Account(balance=10**12, nonce=2)
    assert mempool.advance([KEYS[0].address, KEYS[3].address]) == events[:2]
    assert mempool.pick(10) == events[2:]
    assert len(mempool) == 1


def test_the_same_event_again_changes_nothing() -> None:
    """A repeated event is accepted without effect."""
    mempool = pool(Ledger())
    event = transfer(0, 0)
    fill(mempool, event, event)
    assert len(mempool) == 1
    assert event.id in mempool


def test_a_replacement_pays_ten_percent_more_and_takes_the_place() -> None:
    """The dearer event of one nonce replaces the waiting one, which is given back."""
    mempool = pool(Ledger())
    old, new = transfer(0, 0, 100), transfer(0, 0, 110)
    fill(mempool, old)
    assert mempool.add(new, 0) == (None, [old])
    assert mempool.pick(10) == [new]


def test_a_full_pool_gives_the_place_of_the_cheapest_to_a_dearer_event() -> None:
    """When the pool is full, the last event of the sender with the cheapest one yields."""
    mempool = pool(Ledger(), events=2)
    cheap, dear, dearest = transfer(0, 0, 2), transfer(1, 0, 5), transfer(2, 0, 6)
    fill(mempool, cheap, dear)
    assert mempool.add(dearest, 0) == (None, [cheap])
    assert mempool.pick(10) == [dearest, dear]


def test_events_that_wait_too_long_expire() -> None:
    """Events older than the limit leave with how long they waited; younger ones stay."""
    mempool = pool(Ledger(), age_ms=1_000)
    old, young = transfer(0, 0), transfer(1, 0)
    mempool.add(old, 0)
    mempool.add(young, 500)
    assert mempool.expire(1_001) == [(old, Expired(waited_ms=1_001))]
    assert mempool.pick(10) == [young]


def test_dropping_frees_fees_and_nonce() -> None:
    """A dropped event leaves room for another with its nonce; dropping it twice is harmless."""
    ledger = Ledger()
    ledger.accounts[KEYS[0].address] = Account(balance=FEE)
    mempool = pool(ledger)
    first = transfer(0, 0)
    fill(mempool, first)
    mempool.drop(first.id)
    mempool.drop(first.id)
    fill(mempool, transfer(0, 0, amount=2))
    assert len(mempool) == 1


def test_the_faucet_pays_its_fee_from_what_it_gives() -> None:
    """An account without a coin may ask the faucet, as long as the gift covers the fee."""
    mempool = pool(Ledger())
    key = Key(bytes([77]) * 32)
    fee = GAS["faucet.requested"]
    asked = FaucetRequested(chain=CHAIN, sender=key.address, nonce=0, gas_price=1, amount=fee)
    fill(mempool, sign(asked, key))
    little = FaucetRequested(chain=CHAIN, sender=KEYS[1].address, nonce=0, gas_price=1, amount=fee - 1)
    ledger = Ledger()
    ledger.accounts.clear()
    refusal, _ = pool(ledger).add(sign(little, KEYS[1]), 0)
    assert refusal == InsufficientBalance(needed=fee, available=fee - 1)


@pytest.mark.parametrize(
    ("most", "amount", "refusal"),
    [
        (0, 50_000, FaucetClosed()),
        (50_000, 50_001, InsufficientBalance(needed=GAS["faucet.requested"], available=0)),
        (50_000, 50_000, None),
    ],
)
def test_nothing_is_paid_from_what_no_faucet_gives(most: int, amount: int, refusal: Refusal | None) -> None:
    """Who has no coins cannot fill the pool with requests that get none."""
    mempool = Mempool(CHAIN, 1, lambda _: Account(), most_from_faucet=most)
    asked = FaucetRequested(chain=CHAIN, sender=KEYS[0].address, nonce=0, gas_price=1, amount=amount)
    assert mempool.hopeless(asked) == refusal
    assert mempool.add(sign(asked, KEYS[0]), 0) == (refusal, [])


def test_events_behind_gaps_get_half_of_the_pool() -> None:
    """What costs its sender nothing leaves room for what will be paid for; a gap that closes is welcome."""
    mempool = pool(Ledger(), events=6)
    fill(mempool, transfer(0, 1), transfer(1, 1), transfer(2, 1))
    assert mempool.add(transfer(3, 1), 0) == (NonceTooFar(expected=0, found=1), [])
    fill(mempool, transfer(3, 0), transfer(3, 1), transfer(0, 0))
    assert len(mempool) == 6


def test_what_cannot_be_paid_for_any_more_is_trimmed() -> None:
    """An account that has given its coins away holds only what the rest can pay for, in order of nonces."""
    ledger = Ledger()
    mempool = pool(ledger)
    events = [transfer(0, nonce) for nonce in range(5)]
    fill(mempool, *events)
    ledger.accounts[KEYS[0].address] = Account(balance=3 * FEE - 1, nonce=1)
    mempool.advance([KEYS[0].address])
    assert mempool.trim([KEYS[0].address, KEYS[1].address]) == [
        (events[4], InsufficientBalance(needed=4 * FEE, available=3 * FEE - 1)),
        (events[3], InsufficientBalance(needed=3 * FEE, available=3 * FEE - 1)),
    ]
    assert mempool.pick(10) == events[1:3]
    assert mempool.trim([KEYS[0].address]) == []


def test_what_a_dropped_event_leaves_far_behind_a_gap_is_trimmed() -> None:
    """Only as much waits behind a gap that opens as may wait behind one that was there."""
    mempool = pool(Ledger())
    events = [transfer(0, nonce) for nonce in range(FUTURE_NONCES + 3)]
    fill(mempool, *events)
    mempool.drop(events[0].id)
    assert mempool.trim([KEYS[0].address]) == [
        (event, NonceTooFar(expected=0, found=event.event.nonce)) for event in events[-2:]
    ]
    assert len(mempool) == FUTURE_NONCES


def test_an_event_behind_a_gap_is_not_ready() -> None:
    """Only an event that a block could include now counts as ready."""
    mempool = pool(Ledger())
    assert not mempool.has_ready()
    fill(mempool, transfer(0, 5))
    assert not mempool.has_ready()
    fill(mempool, transfer(1, 0))
    assert mempool.has_ready()


@pytest.mark.parametrize(
    ("given_events", "event", "limits", "reason"),
    [
        ([], transfer(0, 0, chain="other-chain"), {}, WrongChain(expected=CHAIN, found="other-chain")),
        ([], transfer(4, 6), {}, NonceTooLow(expected=7, found=6)),
        ([], transfer(0, 0, 0), {}, GasPriceTooLow(minimum=1, found=0)),
        (
            [transfer(0, 0)],
            transfer(0, 2 + FUTURE_NONCES),
            {},
            NonceTooFar(expected=1, found=2 + FUTURE_NONCES),
        ),
        (
            [transfer(0, 0, 100)],
            transfer(0, 0, 109),
            {},
            NonceTaken(pending=transfer(0, 0, 100).id, needed_gas_price=110),
        ),
        ([transfer(0, 0)], transfer(0, 1), {"per_sender": 1}, SenderLimitExceeded(limit=1)),
        ([transfer(0, 0, 4)], transfer(1, 0, 4), {"events": 1}, MempoolFull(limit=1, needed_gas_price=5)),
        ([transfer(3, 0)], transfer(3, 1), {}, InsufficientBalance(needed=2 * FEE, available=2 * FEE - 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Refusal) else "",
)
def test_refusals(given_events: list[SignedEvent], event: SignedEvent, limits: dict[str, int], reason: Refusal) -> None:
    """Each reason to turn an event away is found, and the pool stays as it was."""
    ledger = Ledger()
    ledger.accounts[KEYS[3].address] = Account(balance=2 * FEE - 1)
    ledger.accounts[KEYS[4].address] = Account(balance=10**12, nonce=7)
    mempool = pool(ledger, **limits)
    fill(mempool, *given_events)
    assert mempool.add(event, 0) == (reason, [])
    assert len(mempool) == len(given_events)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(1, 20)), max_size=60), st.integers(2, 20))
def test_what_is_picked_can_always_be_included_in_that_order(adds: list[tuple[int, int, int]], limit: int) -> None:
    """For any arrivals, picks have no nonce gap per sender, no repetition, and obey the pool's size."""
    ledger = Ledger()
    mempool = pool(ledger, events=limit)
    for time_ms, (sender, nonce, price) in enumerate(adds):
        mempool.add(transfer(sender, nonce, price), time_ms)
    assert len(mempool) <= limit
    following = {key.address: 0 for key in KEYS}
    for event in mempool.pick(1_000):
        assert event.event.nonce == following[event.event.sender]
        following[event.event.sender] += 1


def test_the_bytes_of_all_envelopes_are_bounded() -> None:
    """A dearer event pushes out as many cheaper ones as its size needs; where that is not enough, nothing changes."""
    size = len(transfer(0, 0).raw)
    mempool = pool(Ledger(), bytes=2 * size + 10)
    first, second = transfer(0, 0, 1), transfer(1, 0, 1)
    fill(mempool, first, second)
    assert mempool.add(transfer(2, 0, 1), 0) == (MempoolFull(limit=100_000, needed_gas_price=2), [])
    dear, dearer = transfer(2, 0, 2, amount=10**9), transfer(3, 0, 3, amount=10**15)
    assert mempool.add(dear, 0) == (None, [second])
    refused = transfer(3, 0, 2, amount=10**15)
    assert mempool.add(refused, 0) == (MempoolFull(limit=100_000, needed_gas_price=3), [])
    assert mempool.pick(10) == [dear, first]
    assert mempool.add(dearer, 0) == (None, [first, dear])
    mempool.drop(dearer.id)
    fill(mempool, first, second)


def test_a_replacement_that_does_not_fit_changes_nothing() -> None:
    """The event that it would replace stays."""
    first = transfer(0, 0, 1)
    mempool = pool(Ledger(), bytes=len(first.raw))
    fill(mempool, first)
    refusal, yielded = mempool.add(transfer(0, 0, 2, amount=10**9), 0)
    assert (type(refusal), yielded) == (MempoolFull, [])
    assert mempool.pick(10) == [first]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (transfer(0, 1, chain="other-chain"), WrongChain(expected=CHAIN, found="other-chain")),
        (transfer(0, 0), NonceTooLow(expected=1, found=0)),
        (transfer(0, 1, 0), GasPriceTooLow(minimum=1, found=0)),
        (transfer(0, 1, 10**10), InsufficientBalance(needed=10**10 * FEE, available=10**12)),
        (transfer(0, 1), None),
        (transfer(0, 500), None),
    ],
)
def test_the_checks_before_the_signature(event: SignedEvent, reason: Refusal | None) -> None:
    """They ask nothing that an event which is still on its way in could change."""
    ledger = Ledger()
    ledger.accounts[KEYS[0].address] = Account(balance=10**12, nonce=1)
    assert pool(ledger).hopeless(event.event) == reason
