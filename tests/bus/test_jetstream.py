"""What only a real NATS server can show: crashes, drift, injected replies, discovery, memory."""

import asyncio
import os
import shutil
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import nats
import pytest

from bus.jetstream import JetStreamBus
from bus.port import Limits
from bus.publishing import Outgoing, Publisher
from bus.pulling import Doubt, Position, position_of
from bus.readers import JetStreamChainReader
from bus.server import EmbeddedServer
from bus.streams import FREE, difference, reader_name, reader_settings, stream_settings
from events import subjects
from events.errors import BusError, SequenceGap, TimedOut, Unreachable, WrongNetwork
from tests.bus.grounds import GENESIS, VALIDATORS, JetStreamGround

WAIT_MS = 10_000
FIRST = VALIDATORS[0]


async def set_up(ground: JetStreamGround, limits: Limits | None = None) -> JetStreamBus:
    bus = await ground.connect(limits)
    await bus.set_up(GENESIS, VALIDATORS)
    return bus


# --- a server that dies ----------------------------------------------------------------------------------------------


async def test_readers_go_on_after_the_server_was_killed(tmp_path: Path) -> None:
    """Kill -9 and a restart on the same data: the open readers miss nothing, and what is unsettled comes again."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await set_up(JetStreamGround(server.url))
        log, inbox, feed = await bus.read_chain(0), await bus.read_inboxes(FIRST), await bus.read_feed("ALICE", 0)
        await bus.append("block", b"before", after_block=0)
        await bus.submit("ALICE", b"unsettled")
        await bus.publish_feed([("ALICE", "k1", b"before")])
        assert [message.data for message in await log.next(10, WAIT_MS)] == [b"before"]
        assert [message.data for message in await inbox.next(10, WAIT_MS)] == [b"unsettled"]
        assert [record.data for record in await feed.next(10, WAIT_MS)] == [b"before"]

        await server.kill()
        waiting = asyncio.create_task(bus.submit("ALICE", b"submitted while it was down"))
        await asyncio.sleep(0.05)
        await server.start()
        await waiting
        assert await bus.append("block", b"after", after_block=1) == 2
        await bus.publish_feed([("ALICE", "k2", b"after")])

        message = (await log.next(10, WAIT_MS))[0]
        assert (message.sequence, message.data) == (2, b"after")
        assert [record.data for record in await feed.next(10, WAIT_MS)] == [b"after"]
        came: list[bytes] = []
        while b"submitted while it was down" not in came:
            messages = await inbox.next(10, WAIT_MS)
            assert messages
            came += [message.data for message in messages]
            await inbox.settle([message.token for message in messages])
        assert came[0] == b"unsettled"
        await bus.close()


async def test_nothing_is_lost_or_repeated_over_many_crashes(tmp_path: Path) -> None:
    """A reader that follows a log over several crashes has each message once, in order."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await set_up(JetStreamGround(server.url))
        log = await bus.read_chain(0)
        appended: dict[int, bytes] = {}

        async def write() -> None:
            for number in range(300):
                data = b"%d" % number
                try:
                    appended[await bus.append("vote", data)] = data
                except Unreachable:
                    await asyncio.sleep(0.01)

        async def crash() -> None:
            for _ in range(4):
                await asyncio.sleep(0.05)
                await server.kill()
                await server.start()

        await asyncio.gather(write(), crash())
        end = await bus.chain_end()
        read: dict[int, bytes] = {}
        while len(read) < end:
            messages = await log.next(1_000, WAIT_MS)
            assert messages
            assert [message.sequence for message in messages] == list(
                range(len(read) + 1, len(read) + 1 + len(messages))
            )
            read |= {message.sequence: message.data for message in messages}
        assert appended.items() <= read.items()
        await bus.close()


async def test_log_that_was_made_anew(tmp_path: Path) -> None:
    """A server that comes back without its data stops the readers of the old log."""
    first = EmbeddedServer(tmp_path / "one")
    await first.start()
    bus = await set_up(JetStreamGround(first.url))
    await bus.append("vote", b"1")
    log = await bus.read_chain(0)
    assert len(await log.next(10, WAIT_MS)) == 1
    await first.kill()
    async with EmbeddedServer(tmp_path / "two", port=first.port):
        await bus.set_up(GENESIS, VALIDATORS)
        await bus.append("vote", b"another 1")
        with pytest.raises(SequenceGap, match="made anew"):
            await log.next(10, WAIT_MS)
        await bus.close()
    await first.stop()


async def test_log_whose_newest_messages_were_replaced(tmp_path: Path) -> None:
    """A server that lost its newest message and gave its sequence to another one stops who has read the first."""
    first = EmbeddedServer(tmp_path / "one")
    await first.start()
    ground = JetStreamGround(first.url)
    bus = await set_up(ground)
    await bus.append("vote", b"1")
    await first.stop()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    async with EmbeddedServer(tmp_path / "two") as second:
        other = await JetStreamBus.connect(second.url, ground.chain)
        assert await other.append("vote", b"another 2") == 2
        await other.close()
    await first.start()
    assert await bus.append("vote", b"2") == 2
    log = await bus.read_chain(0)
    read = [*await log.next(1, WAIT_MS), *await log.next(1, WAIT_MS)]
    assert [message.data for message in read] == [b"1", b"2"]
    await first.kill()
    async with EmbeddedServer(tmp_path / "two", port=first.port):
        with pytest.raises(SequenceGap, match="rewritten"):
            await log.next(10, WAIT_MS)
        await bus.close()
    await first.stop()


async def test_log_that_goes_on_after_a_restart(tmp_path: Path) -> None:
    """A reader compares what it read last with what is there, and goes on behind it."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await set_up(JetStreamGround(server.url))
        await bus.append("vote", b"1")
        log = await bus.read_chain(0)
        assert [message.sequence for message in await log.next(1, WAIT_MS)] == [1]
        await server.kill()
        await server.start()
        assert await bus.append("vote", b"2") == 2
        assert [message.data for message in await log.next(1, WAIT_MS)] == [b"2"]
        await bus.close()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data.replace(b"message 9 of", b"message X of"), id="a letter"),
        pytest.param(lambda data: data[: data.index(b"message 9 of")], id="all from there on"),
    ],
)
async def test_message_that_was_damaged_on_the_disk(
    tmp_path: Path, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that the server cannot read is left out by it, or held back for ever with all that follow: the reader
    says so, and does not go on."""
    monkeypatch.setattr("bus.readers.STALL_S", 0.5)
    monkeypatch.setattr("bus.readers.LOOK_EVERY_S", 0.1)
    server = EmbeddedServer(tmp_path / "server", sync_interval="always")
    await server.start()
    bus = await JetStreamBus.connect(server.url, "damaged")
    await bus.set_up(GENESIS, (FIRST,))
    for number in range(20):
        await bus.append("vote", b"message %d of the log" % number)
    await bus.close()
    await server.stop()
    (stored,) = (tmp_path / "server").rglob("ASSAY_damaged_CHAIN/msgs/1.blk")
    data = stored.read_bytes()
    assert data.count(b"message 9 of") == 1
    stored.write_bytes(damage(data))

    await server.start()
    bus = await JetStreamBus.connect(server.url, "damaged")
    log = await bus.read_chain(0)
    read = []
    while len(read) < 9:
        read += await log.next(100, WAIT_MS)
    assert [message.sequence for message in read] == list(range(1, 10))

    async def read_on() -> None:
        while True:
            await log.next(100, 100)

    with pytest.raises(SequenceGap, match="no message 10"):
        await read_on()
    await log.close()
    await bus.close()
    await server.stop()


async def test_consumer_that_the_server_forgot(jetstream: JetStreamGround) -> None:
    """Readers whose consumer was deleted at the server go on with another one."""
    bus = await set_up(jetstream)
    log, inbox = await bus.read_chain(0), await bus.read_inboxes(FIRST)
    api = bus._connection.api
    await api(f"CONSUMER.DELETE.{subjects.stream(bus.chain, 'CHAIN')}.{log._pull.consumer}")
    await api(f"CONSUMER.DELETE.{subjects.stream(bus.chain, 'INBOX')}.{reader_name(FIRST)}")
    await bus.append("vote", b"1")
    assert [message.data for message in await log.next(10, WAIT_MS)] == [b"1"]
    await bus.submit("ALICE", b"event")  # VALIDATOR2's reader keeps it in any case
    assert [message.data for message in await inbox.next(10, WAIT_MS)] == [b"event"]


async def test_no_server() -> None:
    """Connecting to nothing ends with a hint after the time allowed, not for ever."""
    async with EmbeddedServer() as server:
        port = server.port
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bus.connection.CONNECT_TIMEOUT_S", 0.3)
        with pytest.raises(Unreachable) as caught:
            await JetStreamBus.connect(f"nats://127.0.0.1:{port}", "chain")
    assert "devnet" in caught.value.hint


async def test_requests_while_the_server_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing answers, calls end with Unreachable after their time, and live messages are dropped."""
    monkeypatch.setattr("bus.jetstream.APPEND_TIMEOUT_S", 0.2)
    async with EmbeddedServer(tmp_path) as server:
        bus = await set_up(JetStreamGround(server.url))
        await server.kill()
        await bus.publish_live("ALICE", "progress", b"lost")
        with pytest.raises(Unreachable):
            await bus.append("vote", b"x")
        with pytest.raises((Unreachable, TimedOut)):
            await bus.query("account", b"", timeout_ms=100)
        await bus.close()


async def test_idle_readers_outlast_their_requests(jetstream: JetStreamGround, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that hears nothing for several lifetimes of its requests still gets the next message."""
    monkeypatch.setattr("bus.pulling.EXPIRES_MS", 100)
    monkeypatch.setattr("bus.pulling.HEARTBEAT_MS", 30)
    monkeypatch.setattr("bus.pulling.SILENCE_MS", 10_000)
    bus = await set_up(jetstream)
    log = await bus.read_chain(0)
    consumer = log._pull.consumer
    assert await log.next(1, 500) == []
    await bus.append("vote", b"1")
    assert [message.sequence for message in await log.next(1, WAIT_MS)] == [1]
    assert log._pull.consumer == consumer


async def test_server_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that hears not even heartbeats opens another consumer, and misses nothing."""
    monkeypatch.setattr("bus.pulling.HEARTBEAT_MS", 100)
    monkeypatch.setattr("bus.pulling.SILENCE_MS", 250)
    async with EmbeddedServer(tmp_path) as server:
        bus = await set_up(JetStreamGround(server.url))
        log = await bus.read_chain(0)
        consumer = log._pull.consumer
        os.kill(server.pid, signal.SIGSTOP)
        assert await log.next(1, 600) == []
        os.kill(server.pid, signal.SIGCONT)
        await bus.append("vote", b"1")
        assert [message.sequence for message in await log.next(1, WAIT_MS)] == [1]
        assert log._pull.consumer != consumer
        await bus.close()


async def test_upload_over_a_crash(tmp_path: Path) -> None:
    """An upload during which the server is killed goes on by itself, and its blob is right."""
    (tmp_path / "source").write_bytes(os.urandom(20 * 2**20))
    async with EmbeddedServer(tmp_path / "data") as server:
        bus = await set_up(JetStreamGround(server.url))
        begun = asyncio.Event()
        upload = asyncio.create_task(bus.put_blob("ALICE", tmp_path / "source", lambda _: begun.set()))
        await begun.wait()
        await server.kill()
        await server.start()
        digest = await upload
        await bus.get_blob("ALICE", digest, tmp_path / "target", WAIT_MS)
        assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
        await bus.close()


# --- acknowledgements ------------------------------------------------------------------------------------------------


async def test_lost_acknowledgements_are_settled(jetstream: JetStreamGround, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an acknowledgement a message is sent again, or given up if that could store it twice; slots get free."""
    monkeypatch.setattr("bus.publishing.ATTEMPT_S", 0.05)
    monkeypatch.setattr("bus.publishing.SWEEP_S", 0.02)
    bus = await jetstream.connect()
    client = bus._connection.client
    heard = 0

    async def answer_the_third(message: nats.aio.msg.Msg) -> None:
        nonlocal heard
        heard += 1
        if heard == 3:
            await message.respond(b'{"stream":"S","seq":9}')

    await client.subscribe("silent", cb=answer_the_third)
    publisher = Publisher(bus._connection)
    await publisher.start()
    assert await publisher.publish([Outgoing("silent", b"x")], retry="lost", timeout_s=5) == [9]
    assert heard == 3
    (fate,) = await publisher.publish([Outgoing("silent", b"x")], retry="unsent", timeout_s=5)
    assert isinstance(fate, Unreachable)
    (fate,) = await publisher.publish([Outgoing("silent", b"x")], retry="lost", timeout_s=0.2)
    assert isinstance(fate, Unreachable)
    (fate,) = await publisher.publish([Outgoing("nobody.stores.this", b"x")], retry="unsent", timeout_s=0.1)
    assert isinstance(fate, Unreachable)
    for subject in ("silent", "nobody.stores.this"):
        (fate,) = await publisher.publish([Outgoing(subject, b"x")], retry="never")
        assert isinstance(fate, Unreachable)
    assert (len(publisher._pending), publisher._bytes) == (0, 0)
    publisher.close()


async def test_senseless_answers_are_ignored(jetstream: JetStreamGround, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are no acknowledgement settle nothing, and late or repeated ones do no harm."""
    monkeypatch.setattr("bus.publishing.ATTEMPT_S", 0.2)
    bus = await jetstream.connect()

    async def answer(message: nats.aio.msg.Msg) -> None:
        for data in (b"", b"nonsense", b'{"seq":"x"}', b'{"stream":"S","seq":4}', b'{"stream":"S","seq":5}'):
            await message.respond(data)

    await bus._connection.client.subscribe("noisy", cb=answer)
    assert await bus._publisher.publish([Outgoing("noisy", b"x")], retry="lost", timeout_s=5) == [4]


async def test_an_id_that_a_cluster_is_still_storing(jetstream: JetStreamGround) -> None:
    """A message whose id a cluster is about to store is sent again, until the server knows what became of the first."""
    bus = await jetstream.connect()
    answers = [
        b'{"stream":"S","error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}',
        b'{"stream":"S","seq":7,"duplicate":true}',
    ]

    async def answer(message: nats.aio.msg.Msg) -> None:
        await message.respond(answers.pop(0))

    await bus._connection.client.subscribe("cluster", cb=answer)
    assert await bus._publisher.publish([Outgoing("cluster", b"x")], retry="lost", timeout_s=5) == [7]
    assert answers == []


# --- what others may do ----------------------------------------------------------------------------------------------


async def test_injected_reply(jetstream: JetStreamGround) -> None:
    """The server's acknowledgement lands on whatever reply subject a publisher names; it is garbage like any other.

    It stands in the log and moves the fence, so a proposer must know the last message of its kind, valid or not.
    """
    bus = await set_up(jetstream)
    client = bus._connection.client
    await bus.append("block", b"first", after_block=0)
    await client.publish(subjects.inbox(bus.chain, "MALLORY"), b"event", reply=subjects.block(bus.chain))
    await client.publish(subjects.inbox(bus.chain, "MALLORY"), b"event", reply=subjects.inbox(bus.chain, "VICTIM"))
    log = await bus.read_chain(1)
    injected = (await log.next(1, WAIT_MS))[0]
    assert (injected.sequence, injected.kind) == (2, "block")
    assert b'"seq"' in injected.data
    with pytest.raises(BusError):
        await bus.append("block", b"second", after_block=1)
    assert await bus.append("block", b"second", after_block=2) == 3

    inbox = await bus.read_inboxes(FIRST)
    messages = []
    while len(messages) < 3:
        messages += await inbox.next(10, WAIT_MS)
    assert [message.owner for message in messages].count("VICTIM") == 1


async def test_first_block_may_follow_garbage_at_sequence_zero(jetstream: JetStreamGround) -> None:
    """A fence of 0 means that there is no message of this kind, whatever else is in the log."""
    bus = await set_up(jetstream)
    await bus.append("vote", b"early vote")
    assert await bus.append("block", b"block", after_block=0) == 2


async def test_queries_are_a_nats_service(jetstream: JetStreamGround) -> None:
    """Stock tools discover the nodes, their version and their endpoints."""

    async def answer(data: bytes) -> bytes:
        return b"{}"

    bus = await set_up(jetstream)
    service = await bus.serve_queries({"account": answer, "block": answer}, "1.2.3")
    client = await nats.connect(jetstream.url)
    found = msgspec.json.decode((await client.request("$SRV.INFO.assay", b"", timeout=5)).data)
    assert (found["name"], found["version"]) == ("assay", "1.2.3")
    assert [endpoint["subject"] for endpoint in found["endpoints"]] == [
        f"assay.{bus.chain}.query.account",
        f"assay.{bus.chain}.query.block",
    ]
    assert (await client.request(f"assay.{bus.chain}.query.account", b"", timeout=5)).data == b"{}"
    await client.close()
    await service.close()


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changed", "named"),
    [
        ("INBOX", {"max_msgs_per_subject": 7}, "max_msgs_per_subject"),
        ("INBOX", {"max_age": 200_000_000_000}, "max_age"),
        ("INBOX", {"discard_new_per_subject": False}, "discard_new_per_subject"),
        ("CHAIN", {"max_msgs": 1, "discard": "old"}, "discard"),
        ("FEED", {"duplicate_window": 1_000_000_000}, "duplicate_window"),
        ("BLOBS", {"discard": "old", "discard_new_per_subject": False}, "discard"),
        ("FEED", {"allow_direct": True}, "allow_direct"),
        ("FEED", {"subjects": ["assay.elsewhere.feed.*"]}, "subjects"),
        ("FEED", {"metadata": {"assay.genesis": GENESIS, "more": "x"}}, "metadata"),
        ("FEED", {"compression": "s2"}, "compression"),
        ("FEED", {"description": "mine"}, "description"),
    ],
)
async def test_drift_of_a_stream_is_named(
    jetstream: JetStreamGround, kind: str, changed: dict[str, object], named: str
) -> None:
    """Whatever an operator changes on a stream stops the next start, which names the setting."""
    bus = await set_up(jetstream)
    name = subjects.stream(bus.chain, kind)
    api = bus._connection.api
    if "subjects" in changed:
        changed = {"subjects": [f"assay.{bus.chain}.feed.more.*"]}
    settings = (await api(f"STREAM.INFO.{name}"))["config"]
    await api(f"STREAM.UPDATE.{name}", settings | changed)
    with pytest.raises(WrongNetwork) as caught:
        await bus.set_up(GENESIS, VALIDATORS)
    assert caught.value.data["setting"].startswith(named)


async def test_drift_of_a_reader_is_named(jetstream: JetStreamGround) -> None:
    """A validator's reader with other settings is refused too, at set-up and when it is opened."""
    bus = await set_up(jetstream)
    stream, name = subjects.stream(bus.chain, "INBOX"), reader_name(FIRST)
    config = reader_settings(FIRST, bus.limits) | {"ack_wait": 1_000_000_000}
    await bus._connection.api(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
    for attempt in (bus.set_up(GENESIS, VALIDATORS), bus.read_inboxes(FIRST)):
        with pytest.raises(WrongNetwork) as caught:
            await attempt
        assert caught.value.data["setting"].startswith("ack_wait")


async def test_every_setting_of_the_server_is_written_down(jetstream: JetStreamGround) -> None:
    """The server has no stream setting that we leave to its default unnoticed."""
    bus = await set_up(jetstream)
    for kind, wanted in stream_settings(bus.chain, bus.limits).items():
        found = (await bus._connection.api(f"STREAM.INFO.{subjects.stream(bus.chain, kind)}"))["config"]
        assert found.keys() - wanted.keys() - FREE == {"metadata"}


@pytest.mark.parametrize(
    ("wanted", "found", "named"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 0}, {}, None),
        ({}, {"new_setting": False}, None),
        ({}, {"new_setting": True}, "new_setting"),
        ({"a": 1}, {}, "a"),
        ({}, {"num_replicas": 3}, None),
        ({"num_replicas": 0}, {"num_replicas": 3}, "num_replicas"),
        ({"metadata": {"g": "1"}}, {"metadata": {"g": "1", "_nats.ver": "2"}}, None),
        ({"metadata": {"g": "1"}}, {"metadata": {"g": "2"}}, "metadata"),
        ({"metadata": {"g": "1"}}, {}, "metadata"),
    ],
)
def test_difference(wanted: dict[str, object], found: dict[str, object], named: str | None) -> None:
    """Unset and absent are the same; what is unknown must be unset; the operator chooses the replicas of streams."""
    difference_found = difference(wanted, found)
    assert difference_found is None if named is None else str(difference_found).startswith(named)


# --- deliveries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "position"),
    [
        ("$JS.ACK.S.C.1.5.3.1795153338957860758.0", Position(5, 3, 1795153338957860758)),
        ("$JS.ACK.domain.hash.S.C.1.5.3.1795153338957860758.0.token", Position(5, 3, 1795153338957860758)),
        ("$JS.ACK.domain.hash.S.C.1.5.3.1795153338957860758.0", Position(5, 3, 1795153338957860758)),
    ],
)
def test_position_of_a_delivery(reply: str, position: Position) -> None:
    """Both forms of the reply subject give integers, nanoseconds included."""
    assert position_of(reply) == position


@pytest.mark.parametrize("reply", ["", "_INBOX.x.y", "$JS.ACK.S.C.1.x.3.4.0", "a.b.c.d.e.f.g.h.i.j"])
def test_delivery_without_a_position(reply: str) -> None:
    """A message that no consumer delivered is doubted, not guessed at."""
    with pytest.raises(Doubt):
        position_of(reply)


def test_missing_delivery_is_asked_for_again() -> None:
    """Where the consumer's count jumps too, a delivery was lost; where the count goes on, the log has a hole."""
    reader = JetStreamChainReader(SimpleNamespace(client=None), "c", Limits(), 4)  # type: ignore[arg-type]

    def message(sequence: int, delivery: int) -> SimpleNamespace:
        return SimpleNamespace(reply=f"$JS.ACK.S.C.1.{sequence}.{delivery}.7.0", subject=subjects.vote("c"), data=b"")

    assert reader._accept(message(5, 1)).sequence == 5  # type: ignore[union-attr, arg-type]
    with pytest.raises(Doubt):
        reader._accept(message(7, 3))  # type: ignore[arg-type]
    assert not reader._jumped
    for delivery in (4, 1):  # the next of the same consumer, and the first of a fresh one
        reader._deliveries, reader._jumped = delivery - 1, False
        with pytest.raises(Doubt):
            reader._accept(message(7, delivery))  # type: ignore[arg-type]
        assert reader._jumped


# --- memory ----------------------------------------------------------------------------------------------------------


async def test_memory_of_the_largest_blob(jetstream: JetStreamGround, tmp_path: Path) -> None:
    """64 MiB go in and out with a few MiB held."""
    bus = await set_up(jetstream)
    source, target = tmp_path / "source", tmp_path / "target"
    piece = os.urandom(2**20)
    with source.open("wb") as file:
        for _ in range(64):
            file.write(piece)
    tracemalloc.start()
    try:
        digest = await bus.put_blob("ALICE", source)
        sent = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert await bus.get_blob("ALICE", digest, target, 30_000) == 64 * 2**20
        received = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(sent, received) < 8 * 2**20, (sent, received)
