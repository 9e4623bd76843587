"""The simulated network: time is the clock's alone, and faults do what they say."""

import asyncio
from pathlib import Path

import pytest

from bus.port import InboxReader, Limits
from bus.simulated import Faults, SimulatedBus, SimulatedNetwork
from bus.simulated_network import matches
from bus.streams import REDELIVERY_S
from events.errors import FenceRefused, InboxFull, SequenceGap, TimedOut, Unreachable
from tests.bus.grounds import GENESIS, VALIDATORS

FIRST, SECOND = VALIDATORS
START_MS = 1_700_000_000_000


class VirtualClock:
    """Goes on only when everybody sleeps: then to the next one's end. No real time passes."""

    def __init__(self) -> None:
        self.time_ms = START_MS

    def now_ms(self) -> int:
        return self.time_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        end = self.time_ms + duration_ms
        for _ in range(20):
            await asyncio.sleep(0)  # let the others do all that they can do now
        self.time_ms = max(self.time_ms, end)


class ChosenFaults(Faults):
    """Each list names the operations that go wrong, once each."""

    def __init__(self) -> None:
        self.cut: list[str] = []
        self.delays: dict[str, int] = {}
        self.requests: list[str] = []
        self.answers: list[str] = []

    def cut_off(self, name: str) -> bool:
        return name in self.cut

    def delay_ms(self, name: str, operation: str) -> int:
        return self.delays.get(operation, 0)

    def loses_request(self, name: str, operation: str) -> bool:
        return _once(self.requests, operation)

    def loses_answer(self, name: str, operation: str) -> bool:
        return _once(self.answers, operation)


def _once(operations: list[str], operation: str) -> bool:
    if operation in operations:
        operations.remove(operation)
        return True
    return False


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def faults() -> ChosenFaults:
    return ChosenFaults()


@pytest.fixture
async def bus(clock: VirtualClock, faults: ChosenFaults) -> SimulatedBus:
    network = SimulatedNetwork(clock, faults)
    limits = Limits(inbox_per_sender=3, inbox_age_s=3_600, blob_chunk_bytes=100)
    chosen = SimulatedBus(network, "chain", limits, "here")
    await chosen.set_up(GENESIS, VALIDATORS)
    return chosen


async def data_of(reader: InboxReader, wait_ms: int = 0) -> list[bytes]:
    return [message.data for message in await reader.next(100, wait_ms)]


async def test_unsettled_comes_again_after_a_while(bus: SimulatedBus, clock: VirtualClock) -> None:
    """A delivery that is not settled comes again after the redelivery time, and not before."""
    await bus.submit("ALICE", b"1")
    reader = await bus.read_inboxes(FIRST)
    assert await data_of(reader) == [b"1"]
    assert await data_of(reader, REDELIVERY_S * 1_000 - 1) == []
    assert await data_of(reader, 10) == [b"1"]
    assert clock.now_ms() == START_MS + REDELIVERY_S * 1_000


async def test_old_events_leave_the_inbox(bus: SimulatedBus, clock: VirtualClock) -> None:
    """After the inbox's age an event is gone and its place is free."""
    for number in range(3):
        await bus.submit("ALICE", b"%d" % number)
    with pytest.raises(InboxFull):
        await bus.submit("ALICE", b"full")
    clock.time_ms += 3_600_000
    await bus.submit("ALICE", b"new")
    assert await data_of(await bus.read_inboxes(FIRST)) == [b"new"]


async def test_feed_key_is_forgotten_after_two_minutes(bus: SimulatedBus, clock: VirtualClock) -> None:
    """A key is remembered for two minutes, like the server does."""
    await bus.publish_feed([("ALICE", "key", b"1")])
    clock.time_ms += 119_999
    await bus.publish_feed([("ALICE", "key", b"1")])
    clock.time_ms += 2
    await bus.publish_feed([("ALICE", "key", b"1")])
    assert len(await (await bus.read_feed("ALICE", 0)).next(10, 0)) == 2


async def test_lost_request(bus: SimulatedBus, faults: ChosenFaults) -> None:
    """A submission that never arrived is sent again; an append is left to its caller."""
    faults.requests += ["submit", "append"]
    await bus.submit("ALICE", b"1")
    with pytest.raises(Unreachable):
        await bus.append("block", b"block", after_block=0)
    assert await bus.chain_end() == 0
    assert await data_of(await bus.read_inboxes(FIRST)) == [b"1"]


async def test_lost_answer(bus: SimulatedBus, faults: ChosenFaults) -> None:
    """A submission whose answer was lost is stored twice; an append that failed may be in the log."""
    faults.answers += ["submit", "append"]
    await bus.submit("ALICE", b"1")
    with pytest.raises(Unreachable):
        await bus.append("block", b"block", after_block=0)
    with pytest.raises(FenceRefused):
        await bus.append("block", b"block", after_block=0)
    assert await data_of(await bus.read_inboxes(FIRST)) == [b"1", b"1"]


async def test_lost_answer_to_a_question(bus: SimulatedBus, faults: ChosenFaults) -> None:
    """A question is answered, but the one who asks runs out of time."""
    asked = []

    async def answer(data: bytes) -> bytes:
        asked.append(data)
        return data

    await bus.serve_wallet("ALICE", answer)
    faults.answers += ["ask_wallet", "ask_wallet"]
    with pytest.raises((TimedOut, Unreachable)):
        await bus.ask_wallet("ALICE", b"1")


async def test_partition(bus: SimulatedBus, clock: VirtualClock, faults: ChosenFaults, tmp_path: Path) -> None:
    """Who is cut off hears and says nothing; afterwards it goes on where it was, and others went on without it."""
    network = bus._network
    other = SimulatedBus(network, "chain", bus.limits, "there")
    log, inbox = await other.read_chain(0), await other.read_inboxes(SECOND)
    listener = other.listen_live()
    await other.serve_queries({"account": _echo}, "1.0.0")
    faults.cut.append("there")

    await bus.append("block", b"1", after_block=0)
    await bus.submit("ALICE", b"event")
    await bus.publish_live("ALICE", "progress", b"unheard")
    assert await log.next(10, 100) == []
    assert await inbox.next(10, 100) == []
    with pytest.raises(Unreachable):
        await bus.query("account", b"")
    with pytest.raises(Unreachable):
        await other.submit("BOB", b"tried for a while")
    assert clock.now_ms() - START_MS > 10_000
    with pytest.raises(Unreachable):
        await other.append("vote", b"vote")

    faults.cut.clear()
    assert [message.data for message in await log.next(10, 0)] == [b"1"]
    messages = await inbox.next(10, 0)
    assert [message.data for message in messages] == [b"event"]
    await bus.publish_live("ALICE", "progress", b"heard")
    assert (await anext(listener)).data == b"heard"
    assert await bus.query("account", b"x") == b"x"
    faults.cut.append("there")
    await inbox.settle([message.token for message in messages])  # lost, so it comes again
    faults.cut.clear()
    assert await data_of(inbox, REDELIVERY_S * 1_000) == [b"event"]


async def _echo(data: bytes) -> bytes:
    return data


async def test_delay(bus: SimulatedBus, clock: VirtualClock, faults: ChosenFaults) -> None:
    """A delayed operation happens when it arrives: a rival that is faster passes the fence first."""
    faults.delays["append"] = 50
    slow = asyncio.create_task(bus.append("block", b"slow", after_block=0))
    await asyncio.sleep(0)
    faults.delays.clear()
    assert await bus.append("block", b"fast", after_block=0) == 1
    with pytest.raises(FenceRefused):
        await slow
    assert clock.now_ms() == START_MS + 50


async def test_a_rewritten_log_is_noticed(bus: SimulatedBus) -> None:
    """A sequence that stands for another message than the one that was read stops the reader."""
    await bus.append("vote", b"1")
    log = await bus.read_chain(0)
    assert len(await log.next(10, 0)) == 1
    stream = bus._network.stream("chain", "CHAIN")
    stream.drop(1)
    stream.last_sequence = 0
    await bus.append("vote", b"another 1")
    with pytest.raises(SequenceGap, match="rewritten"):
        await log.next(10, 0)


async def test_a_lost_tail_is_forgotten_with_its_keys(bus: SimulatedBus) -> None:
    """A server that has lost its newest messages uses their sequences again, takes the same key anew, and delivers."""
    reader = await bus.read_inboxes(FIRST)
    for number in range(3):
        await bus.submit("a", b"%d" % number)
        await bus.publish_feed([("a", f"key {number}", b"%d" % number)])
    assert [event.data for event in await reader.next(10, 0)] == [b"0", b"1", b"2"]
    for kind in ("INBOX", "FEED"):
        bus._network.stream(bus.chain, kind).lose_tail(2)
        assert bus._network.stream(bus.chain, kind).last_sequence == 1
    await bus.submit("a", b"new")
    await bus.publish_feed([("a", "key 1", b"again"), ("a", "key 0", b"known")])
    assert [event.data for event in await reader.next(10, 0)] == [b"new"]
    feed = await bus.read_feed("a", 0)
    assert [(record.sequence, record.data) for record in await feed.next(10, 0)] == [(1, b"0"), (2, b"again")]
    bus._network.stream(bus.chain, "FEED").lose_tail(100)
    assert bus._network.stream(bus.chain, "FEED").last_sequence == 0


async def test_without_readers_events_are_dropped(bus: SimulatedBus) -> None:
    """As in the server: an inbox in which nobody is interested keeps nothing."""
    await bus.retire_reader(FIRST)
    await bus.retire_reader(SECOND)
    await bus.submit("ALICE", b"1")
    assert await data_of(await bus.read_inboxes(FIRST)) == []


async def test_same_run_twice(clock: VirtualClock, tmp_path: Path) -> None:
    """The same steps give the same sequences, times and orders."""

    async def run() -> list[object]:
        bus = SimulatedBus(SimulatedNetwork(VirtualClock()), "chain")
        await bus.set_up(GENESIS, VALIDATORS)
        for number in range(50):
            await bus.submit(f"S{number % 7}", b"%d" % number)
            await bus.append("vote", b"%d" % number)
        inbox, log = await bus.read_inboxes(FIRST), await bus.read_chain(0)
        return [*await inbox.next(100, 10), *await log.next(100, 10)]

    assert await run() == await run()


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*.c", "a.b.c", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.b", "a.c", False),
    ],
)
def test_subject_patterns(pattern: str, subject: str, *, fits: bool) -> None:
    """A star stands for exactly one token."""
    assert matches(pattern, subject) is fits
