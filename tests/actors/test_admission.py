"""From inbox messages to the mempool: what waits, what is refused, and that every inbox place is freed in the end."""

import msgspec
import pytest

from actors.admission import CHECKED_INLINE, RECENT, Admission
from actors.mempool import Mempool, PoolLimits
from bus.port import InboxMessage
from events.canonical import digest
from events.envelope import SignedEvent, sign, wrap
from events.errors import Unreachable
from schemas.events import TransferSent
from schemas.messages import EventRefused
from schemas.refusals import InsufficientBalance, code_of
from schemas.state import Account
from tests.projections.small_network import CHAIN, key_of

ALICE, BOB = key_of("alice"), key_of("bob")


class Bus:
    """Remembers what was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []
        self.away = False

    async def publish_live(self, owner: str, topic: str, data: bytes) -> None:
        assert topic == "refused"
        if self.away:
            raise Unreachable("the server is away")
        self.told.append((owner, data))


class Reader:
    """Remembers what was settled."""

    def __init__(self) -> None:
        self.settled: list[str] = []
        self.away = False

    async def settle(self, tokens: list[str]) -> None:
        if self.away:
            raise Unreachable("the server is away")
        self.settled += tokens


class Desk:
    """An admission with its surroundings."""

    def __init__(self, **limits: int) -> None:
        self.accounts: dict[str, Account] = {}
        self.bus, self.reader = Bus(), Reader()
        mempool = Mempool(CHAIN, 1, self.account, PoolLimits(**limits))
        self.admission = Admission(self.bus, mempool, self.account, threads=1)
        self.admission._reader = self.reader
        self._messages = 0

    def account(self, address: str) -> Account:
        return self.accounts.get(address, Account(balance=1_000_000))

    def message(self, signed: SignedEvent, token: str = "", time_ns: int = 0) -> InboxMessage:
        self._messages += 1
        return InboxMessage(
            signed.event.sender, signed.raw, time_ns or self._messages, token or f"token {self._messages}"
        )

    async def arrive(self, *events: SignedEvent) -> int:
        return await self.admission.admit([self.message(signed) for signed in events])

    async def settled(self) -> list[str]:
        await self.admission.free_places()
        return self.reader.settled

    def codes(self) -> list[str]:
        return [code_of(msgspec.json.decode(data, type=EventRefused).refusal) for _, data in self.bus.told]

    async def finalise(self, *events: SignedEvent) -> None:
        for signed in events:
            sender = signed.event.sender
            self.accounts[sender] = Account(balance=1_000_000, nonce=self.account(sender).nonce + 1)
        await self.admission.block_is_final(events)


def transfer(nonce: int = 0, gas_price: int = 1, amount: int = 1) -> SignedEvent:
    event = TransferSent(
        chain=CHAIN, sender=ALICE.address, nonce=nonce, gas_price=gas_price, to=BOB.address, amount=amount
    )
    return sign(event, ALICE)


async def test_a_place_is_freed_when_the_block_is_final() -> None:
    """Not before; and the signature counts as checked exactly as long as the event waits."""
    desk, event = Desk(), transfer()
    assert await desk.arrive(event) == 1
    assert await desk.settled() == []
    assert desk.admission.is_verified(digest(event.raw))
    await desk.finalise(event)
    assert await desk.settled() == ["token 1"]
    assert not desk.admission.is_verified(digest(event.raw))
    assert desk.codes() == []


async def test_an_event_that_came_twice_keeps_one_place() -> None:
    """In one batch or in two, it waits once, in its oldest message: copies of what waits for a gap to close would leave
    no place for what closes it."""
    desk, event = Desk(), transfer()
    assert await desk.arrive(event, event) == 1
    assert await desk.arrive(event) == 0
    assert await desk.settled() == ["token 2", "token 3"]
    await desk.finalise(event)
    assert await desk.settled() == ["token 2", "token 3", "token 1"]


async def test_a_message_that_comes_again_and_again_keeps_one_token() -> None:
    """Redeliveries of a message that waits long do not pile up: the newest token is the one that counts."""
    desk, event = Desk(), transfer()
    for number in range(100):
        await desk.admission.admit([desk.message(event, f"delivery {number}", time_ns=5)])
    await desk.finalise(event)
    assert await desk.settled() == ["delivery 99"]


async def test_what_is_final_is_recognised_without_a_word() -> None:
    """Also when the block is quicker than the check of the signature, and when it was final before the start."""
    desk, first, second = Desk(), transfer(0), transfer(1)
    await desk.finalise(first)
    await desk.arrive(first)
    parsed = desk.message(second)
    await desk.finalise(second)
    assert await desk.admission._add(parsed, second) is False
    third = transfer(2)
    desk.admission.remember([third.id])
    await desk.arrive(third)
    assert len(await desk.settled()) == 3
    assert desk.codes() == []


async def test_the_memory_of_final_events_is_bounded() -> None:
    """The oldest are forgotten: they get NONCE_TOO_LOW, which is true as well."""
    desk = Desk()
    desk.admission.remember(f"{number:064x}" for number in range(RECENT + 10))
    assert len(desk.admission._recent) == RECENT


async def test_a_block_with_another_event_of_the_nonce_outdates_those_that_wait() -> None:
    """Their owner is told, and their places are freed."""
    desk, waits, wins = Desk(), transfer(amount=1), transfer(amount=2)
    await desk.arrive(waits)
    await desk.finalise(wins)
    assert desk.codes() == ["NONCE_TOO_LOW"]
    assert await desk.settled() == ["token 1"]
    assert len(desk.admission.mempool) == 0


async def test_places_of_events_that_cannot_be_paid_any_more_are_freed() -> None:
    """After a block that took the sender's coins, and after one of its events was turned away, nothing stays free."""
    desk = Desk()
    events = [transfer(nonce=nonce) for nonce in range(70)]
    await desk.arrive(*events)
    desk.accounts[ALICE.address] = Account(balance=68_000, nonce=1)
    await desk.admission.block_is_final(events[:1])
    assert len(desk.admission.mempool) == 68
    await desk.admission.turn_away(events[1], InsufficientBalance(needed=2, available=1))
    assert len(desk.admission.mempool) == 64
    assert desk.codes() == ["INSUFFICIENT_BALANCE", "INSUFFICIENT_BALANCE", *["NONCE_TOO_FAR"] * 3]
    assert len(await desk.settled()) == 6


async def test_a_replaced_event_is_told_by_what() -> None:
    """The newcomer pays more and waits in its place."""
    desk, cheap, dear = Desk(), transfer(gas_price=10), transfer(gas_price=11)
    await desk.arrive(cheap)
    assert await desk.arrive(dear) == 1
    assert desk.codes() == ["NONCE_TAKEN"]
    assert await desk.settled() == ["token 1"]
    assert dear.id in desk.admission.mempool


async def test_what_waits_too_long_expires() -> None:
    """Its owner is told, its place is freed, nothing of it stays."""
    desk = Desk(age_ms=1_000)
    await desk.arrive(transfer())
    await desk.admission.expire(10_000)
    assert desk.codes() == ["EXPIRED"]
    assert await desk.settled() == ["token 1"]
    assert (desk.admission._tokens, desk.admission._digests, desk.admission._verified) == ({}, {}, set())


@pytest.mark.parametrize("number", [CHECKED_INLINE, 200])
async def test_signatures_are_checked_one_by_one_or_in_threads(number: int) -> None:
    """Every seventh signature is wrong: exactly those are refused, whatever the size of the batch."""
    desk = Desk()
    events = [transfer(nonce % 60, amount=nonce + 1, gas_price=2 ** (nonce // 60)) for nonce in range(number)]
    wrong = [index for index in range(number) if index % 7 == 3]
    messages = [
        InboxMessage(ALICE.address, wrap(signed.body_bytes, "A" * 86) if index in wrong else signed.raw, index, "t")
        for index, signed in enumerate(events)
    ]
    await desk.admission.admit(messages)
    assert desk.codes().count("BAD_SIGNATURE") == len(wrong)
    assert all(events[index].id not in desk.admission.mempool for index in wrong)
    desk.admission.close()


async def test_what_cannot_be_paid_is_refused_before_its_signature_is_checked() -> None:
    """A flood of promises costs no cryptography."""
    desk = Desk()
    desk.accounts[ALICE.address] = Account(balance=10)
    await desk.admission.admit(
        [InboxMessage(ALICE.address, wrap(transfer().body_bytes, "A" * 86), number, "t") for number in range(50)]
    )
    assert set(desk.codes()) == {"INSUFFICIENT_BALANCE"}


async def test_a_server_that_is_away_loses_words_and_acknowledgements_only() -> None:
    """Nothing is raised, nothing piles up: what was not settled comes again and is recognised."""
    desk, event = Desk(), transfer()
    desk.bus.away = desk.reader.away = True
    await desk.arrive(event, transfer(nonce=500))
    await desk.finalise(event)
    await desk.admission.free_places()
    assert desk.admission._free == []
    desk.bus.away = desk.reader.away = False
    await desk.arrive(event)
    assert await desk.settled() == ["token 3"]
    assert desk.codes() == []
