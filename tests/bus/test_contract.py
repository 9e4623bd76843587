"""What every implementation of the port keeps, on the simulated network and on a real NATS server."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bus.port import Bus, ChainReader, FeedReader, InboxMessage, InboxReader, Limits
from events import subjects
from events.errors import (
    AssayError,
    BlobMismatch,
    BlobUnavailable,
    BusError,
    FenceRefused,
    InboxFull,
    MessageTooLarge,
    SequenceGap,
    TimedOut,
    Unreachable,
    WrongNetwork,
)
from tests.bus.grounds import GENESIS, VALIDATORS, Ground

FIRST, SECOND = VALIDATORS
WAIT_MS = 5_000


async def take(reader: InboxReader | ChainReader | FeedReader, count: int) -> list:
    """Exactly ``count`` messages, and no more within a moment."""
    taken: list = []
    while len(taken) < count:
        more = await reader.next(count, WAIT_MS)
        assert more, f"{len(taken)} of {count} came"
        taken += more
    assert await reader.next(1, 30) == []
    return taken


async def settle_all(bus: Bus, validator: str, count: int) -> list[InboxMessage]:
    reader = await bus.read_inboxes(validator)
    messages = await take(reader, count)
    await reader.settle([message.token for message in messages])
    await reader.close()
    return messages


async def eventually(attempt: Callable[[], Awaitable[None]]) -> None:
    """Settling is not confirmed, so its effect is awaited."""
    async with asyncio.timeout(WAIT_MS / 1000):
        while True:
            try:
                return await attempt()
            except InboxFull:
                await asyncio.sleep(0.005)


# --- the inbox -------------------------------------------------------------------------------------------------------


async def test_submitted_events_reach_every_validator(bus: Bus) -> None:
    """Each validator reads every sender's events, in order, with owner, bytes and the server's time."""
    for number in range(3):
        await bus.submit(f"SENDER{number}", b"event %d" % number)
    for validator in VALIDATORS:
        messages = await take(await bus.read_inboxes(validator), 3)
        assert [(message.owner, message.data) for message in messages] == [
            (f"SENDER{number}", b"event %d" % number) for number in range(3)
        ]
        assert all(isinstance(message.time_ns, int) and message.time_ns > 1_600_000_000 * 10**9 for message in messages)


async def test_sender_cap(bus: Bus) -> None:
    """A sender at its cap is refused while others pass; its places are free again when every validator has settled."""
    for number in range(5):
        await bus.submit("FLOODER", b"%d" % number)
    with pytest.raises(InboxFull):
        await bus.submit("FLOODER", b"one too many")
    await bus.submit("OTHER", b"passes")

    await settle_all(bus, FIRST, 6)
    with pytest.raises(InboxFull):
        await bus.submit("FLOODER", b"the second validator has not settled")
    await settle_all(bus, SECOND, 6)
    await eventually(lambda: bus.submit("FLOODER", b"passes again"))
    reader = await bus.read_inboxes(FIRST)
    assert [message.data for message in await take(reader, 1)] == [b"passes again"]


async def test_inbox_cap(bus: Bus) -> None:
    """The whole inbox has a cap too, and nobody is pushed out by it."""
    messages = [(f"SENDER{number}", b"event") for number in range(14)]
    fates = await bus.submit_many(messages)
    assert [type(fate) for fate in fates] == [type(None)] * 12 + [InboxFull] * 2
    await take(await bus.read_inboxes(FIRST), 12)


async def test_submit_many_tells_each_fate(bus: Bus) -> None:
    """One fate per message: stored, above the sender's cap, or too large; a bad one does not hold up the others."""
    messages = [("SENDER", b"%d" % number) for number in range(7)] + [("OTHER", b"x" * 1_001), ("OTHER", b"x" * 1_000)]
    fates = await bus.submit_many(messages)
    assert [type(fate) for fate in fates[:7]].count(InboxFull) == 2
    assert isinstance(fates[7], MessageTooLarge)
    assert fates[8] is None
    assert await bus.submit_many([]) == []


async def test_unsettled_events_come_again_to_a_reopened_reader(bus: Bus) -> None:
    """A validator that restarts sees at once all that it has not settled, though it was delivered before."""
    for number in range(4):
        await bus.submit("SENDER", b"%d" % number)
    reader = await bus.read_inboxes(FIRST)
    seen = await take(reader, 4)
    await reader.settle([seen[0].token])
    await reader.close()

    again = await take_at_least(await bus.read_inboxes(FIRST), {b"1", b"2", b"3"})
    assert again[-1].data == b"3"
    with pytest.raises(Unreachable):
        await reader.next(1, 10)


async def take_at_least(reader: InboxReader, wanted: set[bytes]) -> list[InboxMessage]:
    """Until all of these came; the port allows that others come again."""
    taken: list[InboxMessage] = []
    while not wanted <= {message.data for message in taken}:
        more = await reader.next(100, WAIT_MS)
        assert more, f"still missing: {wanted - {message.data for message in taken}}"
        taken += more
    return taken


async def test_tokens_outlive_a_reopening(bus: Bus) -> None:
    """What a reopened reader delivers again can be settled like the first time."""
    for number in range(5):
        await bus.submit("SENDER", b"%d" % number)
    await (await bus.read_inboxes(FIRST)).close()
    await settle_all(bus, SECOND, 5)
    before = await bus.read_inboxes(FIRST)
    await take(before, 5)
    await before.close()
    await settle_all(bus, FIRST, 5)
    await eventually(lambda: bus.submit("SENDER", b"free"))


async def test_retired_reader_holds_nothing(bus: Bus) -> None:
    """A dead validator keeps every place; retiring its reader frees them, and it can come back later."""
    for number in range(5):
        await bus.submit("SENDER", b"%d" % number)
    await settle_all(bus, FIRST, 5)
    with pytest.raises(InboxFull):
        await bus.submit("SENDER", b"held by the dead one")
    await bus.retire_reader(SECOND)
    await bus.retire_reader(SECOND)  # twice is as good as once
    await eventually(lambda: bus.submit("SENDER", b"new"))

    back = await bus.read_inboxes(SECOND)
    assert [message.data for message in await take(back, 1)] == [b"new"]


async def test_reader_waits_for_the_next_event(bus: Bus) -> None:
    """A waiting reader is told at once, and an empty inbox answers with nothing after the wait."""
    reader = await bus.read_inboxes(FIRST)
    assert await reader.next(10, 10) == []
    waiting = asyncio.create_task(reader.next(10, WAIT_MS))
    await asyncio.sleep(0)
    await bus.submit("SENDER", b"event")
    assert [message.data for message in await waiting] == [b"event"]


# --- the log ---------------------------------------------------------------------------------------------------------


async def test_log_is_one_sequence_without_holes(bus: Bus) -> None:
    """Blocks and votes get consecutive sequences; a reader from anywhere sees the rest, with kinds and times."""
    assert await bus.chain_end() == 0
    sequences = [
        await bus.append(kind, b"%d" % number) for number, kind in enumerate(["block", "vote", "vote", "block"])
    ]
    assert sequences == [1, 2, 3, 4]
    assert await bus.chain_end() == 4
    for after in range(5):
        messages = await take(await bus.read_chain(after), 4 - after)
        assert [message.sequence for message in messages] == sequences[after:]
        assert [message.kind for message in messages] == ["block", "vote", "vote", "block"][after:]
        assert all(message.time_ns > 1_600_000_000 * 10**9 for message in messages)


async def test_fence(bus: Bus) -> None:
    """An append behind a block that is not the last one is refused; votes do not move the fence."""
    assert await bus.append("block", b"first", after_block=0) == 1
    with pytest.raises(FenceRefused):
        await bus.append("block", b"rival", after_block=0)
    await bus.append("vote", b"vote")
    assert await bus.append("block", b"second", after_block=1) == 3
    with pytest.raises(FenceRefused):
        await bus.append("block", b"late", after_block=1)
    assert await bus.chain_end() == 3


async def test_only_one_of_many_rivals_passes_the_fence(ground: Ground, bus: Bus) -> None:
    """Of proposers that append at the same time behind the same block, exactly one succeeds."""
    rivals = [await ground.connect(bus.limits, f"rival{number}") for number in range(5)]
    fates = await asyncio.gather(
        *(rival.append("block", b"x", after_block=0) for rival in rivals), return_exceptions=True
    )
    assert sorted(type(fate).__name__ for fate in fates) == ["FenceRefused"] * 4 + ["int"]


async def test_equal_bytes_are_stored_each_time(bus: Bus) -> None:
    """The log and the inbox never de-duplicate: whoever says garbage first must not silence the real thing."""
    assert [await bus.append("vote", b"same") for _ in range(2)] == [1, 2]
    await bus.submit("SENDER", b"same")
    await bus.submit("SENDER", b"same")
    await take(await bus.read_inboxes(FIRST), 2)


async def test_reader_follows_the_log(bus: Bus) -> None:
    """A reader that is open sees what is appended later, in portions of the size it asks for."""
    reader = await bus.read_chain(0)
    assert await reader.next(10, 10) == []
    for number in range(7):
        await bus.append("vote", b"%d" % number)
    seen: list[bytes] = []
    while len(seen) < 7:
        messages = await reader.next(3, WAIT_MS)
        assert 1 <= len(messages) <= 3
        seen += [message.data for message in messages]
    assert seen == [b"%d" % number for number in range(7)]


async def test_a_vote_may_be_fenced_too(bus: Bus) -> None:
    """A vote that is only for a log whose last block is known is refused when there is another one, or none."""
    with pytest.raises(FenceRefused):
        await bus.append("vote", b"too early", after_block=1)
    assert await bus.append("block", b"first", after_block=0) == 1
    assert await bus.append("vote", b"first", after_block=1) == 2
    assert await bus.append("vote", b"second", after_block=1) == 3
    assert await bus.append("block", b"second", after_block=1) == 4
    with pytest.raises(FenceRefused):
        await bus.append("vote", b"too late", after_block=1)
    assert await bus.chain_end() == 4


async def test_a_feed_shorter_than_what_was_read(bus: Bus) -> None:
    """Who goes on in a feed from behind its end, because the server lost something, hears of what is new."""
    await bus.publish_feed([("ALICE", "k1", b"1")])
    reader = await bus.read_feed("ALICE", 9)
    await bus.publish_feed([("ALICE", "k2", b"2")])
    assert [record.data for record in await reader.next(1, WAIT_MS)] == [b"2"]


async def test_hole_in_the_log(ground: Ground, bus: Bus) -> None:
    """A log whose beginning somebody removed is refused, not read from where it starts."""
    for number in range(5):
        await bus.append("vote", b"%d" % number)
    await ground.prune_log()
    with pytest.raises(SequenceGap):
        await (await bus.read_chain(0)).next(1, WAIT_MS)
    assert [message.sequence for message in await take(await bus.read_chain(4), 1)] == [5]


async def test_log_shorter_than_what_was_read(bus: Bus) -> None:
    """A reader that goes on from a position behind the log's end stops: the server lost something."""
    await bus.append("vote", b"only one")
    with pytest.raises(SequenceGap):
        await (await bus.read_chain(2)).next(1, WAIT_MS)


# --- set-up and limits -----------------------------------------------------------------------------------------------


async def test_other_genesis(ground: Ground, bus: Bus) -> None:
    """A node with another genesis is turned away and told both hashes."""
    with pytest.raises(WrongNetwork) as caught:
        await bus.set_up("cd" * 32, VALIDATORS)
    assert caught.value.data["expected"] == "cd" * 32
    assert caught.value.data["found"] == GENESIS
    await bus.set_up(GENESIS, VALIDATORS)


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        ({"inbox_messages": 13}, "max_msgs"),
        ({"inbox_per_sender": 6}, "max_msgs_per_subject"),
        ({"inbox_bytes": 2**29}, "max_bytes"),
        ({"inbox_age_s": 600}, "max_age"),
        ({"event_bytes": 2_000}, "max_msg_size"),
        ({"block_bytes": 2_000}, "max_msg_size"),
        ({"feed_age_s": 600}, "max_age"),
        ({"blob_age_s": 600}, "max_age"),
        ({"blobs_total_bytes": 2**20}, "max_bytes"),
    ],
)
async def test_other_limits(ground: Ground, bus: Bus, limits: dict[str, int], setting: str) -> None:
    """A node with other limits is turned away, and the setting that differs is named."""
    same = {name: getattr(bus.limits, name) for name in bus.limits.__struct_fields__}
    other = await ground.connect(Limits(**(same | limits)))
    with pytest.raises(WrongNetwork) as caught:
        await other.set_up(GENESIS, VALIDATORS)
    assert caught.value.data["setting"].startswith(setting)


async def test_short_ages(ground: Ground) -> None:
    """Ages below the time for which keys are remembered are fine."""
    bus = await ground.connect(Limits(inbox_age_s=10, feed_age_s=10, blob_age_s=10))
    await bus.set_up(GENESIS, VALIDATORS)
    await bus.set_up(GENESIS, VALIDATORS)
    assert await bus.chain_end() == 0


async def test_more_validators_later(ground: Ground, bus: Bus) -> None:
    """Setting up again adds the readers of new validators, which see what is stored from then on."""
    other = await ground.connect(bus.limits)
    await other.set_up(GENESIS, (*VALIDATORS, "VALIDATOR3"))
    await bus.submit("SENDER", b"event")
    await take(await other.read_inboxes("VALIDATOR3"), 1)


async def test_nobody_has_set_up_the_chain(ground: Ground) -> None:
    """Before a validator's node has made the streams, readers are told that they are not there."""
    early = await ground.connect()
    for attempt in (early.read_inboxes(FIRST), early.read_chain(0), early.chain_end(), early.read_feed("ADDRESS", 0)):
        with pytest.raises(Unreachable, match=r"no chain|no stream"):
            await attempt


@pytest.mark.parametrize("kind", ["block", "vote"])
async def test_too_large_for_the_log(bus: Bus, kind: str) -> None:
    """A message above the limit is refused with both sizes, one at the limit is stored."""
    with pytest.raises(MessageTooLarge) as caught:
        await bus.append(kind, b"x" * 100_001)
    assert caught.value.data == {"size": 100_001, "limit": 100_000}
    assert await bus.append(kind, b"x" * 100_000, after_block=0) == 1


async def test_large_blocks_are_read_whole(ground: Ground) -> None:
    """A log of blocks at the largest size is read back byte for byte."""
    bus = await ground.connect()
    await bus.set_up(GENESIS, VALIDATORS)
    blocks = [bytes([number]) * bus.limits.block_bytes for number in range(5)]
    for block in blocks:
        await bus.append("block", block)
    assert [message.data for message in await take(await bus.read_chain(0), 5)] == blocks


# --- feed and live ---------------------------------------------------------------------------------------------------


async def test_feed_by_address(bus: Bus) -> None:
    """A feed has the records of its address in order, and is read on from a position."""
    await bus.publish_feed([("ALICE", "k1", b"1"), ("BOB", "k2", b"2"), ("ALICE", "k3", b"3"), ("ALICE", "k4", b"4")])
    records = await take(await bus.read_feed("ALICE", 0), 3)
    assert [record.data for record in records] == [b"1", b"3", b"4"]
    assert [record.data for record in await take(await bus.read_feed("ALICE", records[0].sequence), 2)] == [b"3", b"4"]
    reader = await bus.read_feed("BOB", 0)
    await take(reader, 1)
    await bus.publish_feed([("BOB", "k5", b"5")])
    assert [record.data for record in await reader.next(10, WAIT_MS)] == [b"5"]


async def test_feed_key_is_stored_once(ground: Ground, bus: Bus) -> None:
    """When several nodes publish the same record under its key, it is stored once."""
    other = await ground.connect(bus.limits, "other node")
    await bus.publish_feed([("ALICE", "height-1/0", b"record")])
    await other.publish_feed([("ALICE", "height-1/0", b"record"), ("ALICE", "height-1/1", b"next")])
    assert [record.data for record in await take(await bus.read_feed("ALICE", 0), 2)] == [b"record", b"next"]


async def test_live(ground: Ground, bus: Bus) -> None:
    """Those who listen now are told, by owner and topic; nothing is kept for others."""
    other = await ground.connect(bus.limits, "listener")
    await bus.publish_live("ALICE", "heartbeat", b"before anyone listens")
    everything, hers = other.listen_live(), other.listen_live("ALICE", "progress")
    await everything.ready()
    await hers.ready()
    await bus.publish_live("BOB", "progress", b"1")
    await bus.publish_live("ALICE", "progress", b"2")
    async with asyncio.timeout(5):
        heard = [await anext(everything), await anext(everything)]
        assert [(message.owner, message.topic, message.data) for message in heard] == [
            ("BOB", "progress", b"1"),
            ("ALICE", "progress", b"2"),
        ]
        assert (await anext(hers)).data == b"2"
        await hers.close()
        with pytest.raises(StopAsyncIteration):
            await anext(hers)
        await everything.close()


async def test_slow_listener_loses_the_oldest(bus: Bus) -> None:
    """A listener that does not keep up has bounded memory and hears the newest."""
    listener = bus.listen_live()
    await listener.ready()
    for number in range(1_500):
        await bus.publish_live("ALICE", "progress", b"%d" % number)
    async with asyncio.timeout(5):
        await bus.publish_live("ALICE", "progress", b"end")
        heard: list[bytes] = []
        while not heard or heard[-1] != b"end":
            if len(heard) == 0:
                await asyncio.sleep(0.2)  # the messages are on their way to a listener that is busy elsewhere
            heard.append((await anext(listener)).data)
    assert len(heard) <= 1_024
    await listener.close()


# --- questions -------------------------------------------------------------------------------------------------------


async def test_queries(ground: Ground, bus: Bus) -> None:
    """A question reaches one of the nodes that answer it; after the last one has closed, nobody answers."""
    asked: list[str] = []

    def node(name: str) -> Callable[[bytes], Awaitable[bytes]]:
        async def answer(data: bytes) -> bytes:
            asked.append(name)
            return data[::-1]

        return answer

    other = await ground.connect(bus.limits, "other node")
    services = [await one.serve_queries({"account": node(name)}, "1.0.0") for one, name in ((bus, "a"), (other, "b"))]
    asking = await ground.connect(bus.limits, "client")
    assert [await asking.query("account", b"%03d" % number) for number in range(20)] == [
        (b"%03d" % number)[::-1] for number in range(20)
    ]
    assert len(asked) == 20
    with pytest.raises(Unreachable):
        await asking.query("unknown", b"")
    for service in services:
        await service.close()
    with pytest.raises(Unreachable):
        await asking.query("account", b"")


async def test_query_that_takes_too_long(bus: Bus) -> None:
    """A question is given up after its time-out."""
    never = asyncio.Event()

    async def answer(data: bytes) -> bytes:
        await never.wait()
        return b""

    service = await bus.serve_queries({"slow": answer}, "1.0.0")
    with pytest.raises(TimedOut):
        await bus.query("slow", b"", timeout_ms=50)
    never.set()
    await service.close()


async def test_a_question_that_waits_holds_up_no_other(bus: Bus) -> None:
    """Questions of one name are answered side by side, so nobody can block them for all."""
    go_on = asyncio.Event()

    async def answer(data: bytes) -> bytes:
        if data == b"slow":
            await go_on.wait()
        return data

    service = await bus.serve_queries({"echo": answer}, "1.0.0")
    slow = [asyncio.create_task(bus.query("echo", b"slow")) for _ in range(8)]
    assert await bus.query("echo", b"quick", timeout_ms=2_000) == b"quick"
    go_on.set()
    assert await asyncio.gather(*slow) == [b"slow"] * 8
    await service.close()


async def test_handler_with_a_bug(bus: Bus) -> None:
    """A handler that raises answers with an error at once, and answers the next question."""

    async def answer(data: bytes) -> bytes:
        return b"%d" % (1 // int(data))

    service = await bus.serve_queries({"inverse": answer}, "1.0.0")
    with pytest.raises(Unreachable, match="failed to answer"):
        await bus.query("inverse", b"0")
    assert await bus.query("inverse", b"1") == b"1"
    await service.close()


async def test_wallet(ground: Ground, bus: Bus) -> None:
    """A wallet answers many requests at once on its own subject, until it closes."""
    barrier = asyncio.Barrier(3)

    async def answer(data: bytes) -> bytes:
        await barrier.wait()
        return data.upper()

    door = await bus.serve_wallet("ALICE", answer)
    client = await ground.connect(bus.limits, "client")
    answers = await asyncio.gather(*(client.ask_wallet("ALICE", word) for word in (b"a", b"b", b"c")))
    assert answers == [b"A", b"B", b"C"]
    with pytest.raises(Unreachable):
        await client.ask_wallet("BOB", b"")
    await door.close()
    with pytest.raises(Unreachable):
        await client.ask_wallet("ALICE", b"")


# --- blobs -----------------------------------------------------------------------------------------------------------


def file_of(folder: Path, data: bytes, name: str = "source") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 999, 1_000, 1_001, 25_500], ids=str)
async def test_blob_there_and_back(bus: Bus, tmp_path: Path, size: int) -> None:
    """A file of any size comes back under its digest, with progress both ways and no other file left."""
    data = bytes(number * 7 % 251 for number in range(size))
    sent: list[int] = []
    received: list[int] = []
    digest = await bus.put_blob("ALICE", file_of(tmp_path, data), sent.append)
    assert digest == digest_of(data)
    assert await bus.get_blob("ALICE", digest, tmp_path / "target", WAIT_MS, received.append) == size
    assert (tmp_path / "target").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
    assert sent == sorted(sent)
    assert (sent[-1], received[-1]) == (size, size)


async def test_blob_is_stored_once(ground: Ground, bus: Bus, tmp_path: Path) -> None:
    """Uploading what is there already sends nothing, so the number of uploads does not fill the store."""
    source = file_of(tmp_path, b"data" * 1_000)
    digest = await bus.put_blob("ALICE", source)
    steps: list[int] = []
    assert await bus.put_blob("ALICE", source, steps.append) == digest
    assert steps == [4_000]
    target = tmp_path / "target"
    await bus.get_blob("ALICE", digest, target, WAIT_MS)
    assert target.read_bytes() == source.read_bytes()


async def chunks(ground: Ground, bus: Bus, digest: str, parts: list[tuple[str | None, bytes]]) -> None:
    """What any client may store under a blob's name."""
    for header, data in parts:
        headers = None if header is None else {"Assay-Chunk": header}
        await ground.publish(subjects.blob(bus.chain, "ALICE", digest), data, headers)


WHOLE = b"aaabbbccc"
PARTS = [("0/3", b"aaa"), ("1/3", b"bbb"), ("2/3", b"ccc")]


@pytest.mark.parametrize(
    "parts",
    [
        [(None, WHOLE)],
        [("0/1", WHOLE)],
        PARTS,
        [*PARTS[:2], *PARTS],
        [*PARTS, *PARTS],
        [(None, b'{"stream":"X","seq":7}'), *PARTS],
        [("0/3", b"xxx"), *PARTS],
        [("0/3", b"xxx"), ("1/3", b"yyy"), *PARTS, ("2/3", b"zzz")],
        [("0/3", b"xxx"), ("1/3", b"yyy"), ("2/3", b"zzz"), *PARTS],
        [("0/2", b"aaa"), ("0/3", b"aaa"), *PARTS],
        [PARTS[1], PARTS[2], *PARTS],
        [("nonsense", b"aaa"), ("3/3", b"x"), ("0/0", b"x"), ("-1/3", b"x"), ("0/999999", b"x"), *PARTS],
        [PARTS[0], ("2/3", b"ccc"), ("0/3", b"other"), PARTS[1], PARTS[2]],
    ],
    ids=[
        "one message without header",
        "one chunk",
        "three chunks",
        "upload begun again",
        "uploaded twice",
        "injected acknowledgement first",
        "garbage first chunk",
        "garbage begun before",
        "whole garbage before",
        "other count first",
        "ends before begin",
        "senseless headers",
        "strays between",
    ],
)
async def test_right_blob_is_found(
    ground: Ground, bus: Bus, tmp_path: Path, parts: list[tuple[str | None, bytes]]
) -> None:
    """A right upload is found whatever else is stored under its name."""
    await chunks(ground, bus, digest_of(WHOLE), parts)
    assert await bus.get_blob("ALICE", digest_of(WHOLE), tmp_path / "target", WAIT_MS) == len(WHOLE)
    assert (tmp_path / "target").read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([], BlobUnavailable),
        (PARTS[:2], BlobUnavailable),
        ([PARTS[0], PARTS[2]], BlobUnavailable),
        ([(None, b"wrong")], BlobMismatch),
        ([*PARTS[:2], ("2/3", b"wrong")], BlobMismatch),
    ],
    ids=["nothing", "last chunk missing", "middle chunk missing", "wrong bytes", "one wrong chunk"],
)
async def test_no_right_blob(
    ground: Ground, bus: Bus, tmp_path: Path, parts: list[tuple[str | None, bytes]], error: type[AssayError]
) -> None:
    """Without the right bytes there is a typed error after the time-out, and no file."""
    await chunks(ground, bus, digest_of(WHOLE), parts)
    with pytest.raises(error) as caught:
        await bus.get_blob("ALICE", digest_of(WHOLE), tmp_path / "target", 150)
    assert caught.value.data["digest"] == digest_of(WHOLE)
    assert list(tmp_path.iterdir()) == []


async def test_blob_that_arrives_while_it_is_awaited(ground: Ground, bus: Bus, tmp_path: Path) -> None:
    """A download may begin before the upload, and outlasts garbage that comes first."""
    waiting = asyncio.create_task(bus.get_blob("ALICE", digest_of(WHOLE), tmp_path / "target", WAIT_MS))
    await chunks(ground, bus, digest_of(WHOLE), [("0/3", b"xxx"), ("1/3", b"yyy"), ("2/3", b"zzz")])
    await asyncio.sleep(0.05)
    await chunks(ground, bus, digest_of(WHOLE), PARTS)
    assert await waiting == len(WHOLE)


async def test_blob_above_the_limit(ground: Ground, tmp_path: Path) -> None:
    """A file above the limit is refused before anything is sent; stored chunks above it are not downloaded."""
    bus = await ground.connect(Limits(blob_bytes=8, blob_chunk_bytes=1_000))
    await bus.set_up(GENESIS, VALIDATORS)
    with pytest.raises(MessageTooLarge):
        await bus.put_blob("ALICE", file_of(tmp_path, WHOLE))
    await chunks(ground, bus, digest_of(WHOLE), PARTS)
    with pytest.raises(BlobMismatch):
        await bus.get_blob("ALICE", digest_of(WHOLE), tmp_path / "target", 150)


async def test_full_store_refuses_and_keeps(ground: Ground, tmp_path: Path) -> None:
    """A full store refuses the next blob; those that are there are not pushed out."""
    bus = await ground.connect(Limits(blobs_total_bytes=6_000, blob_chunk_bytes=1_000))
    await bus.set_up(GENESIS, VALIDATORS)
    first = await bus.put_blob("ALICE", file_of(tmp_path, b"a" * 4_000))
    with pytest.raises(BusError, match="full"):
        await bus.put_blob("BOB", file_of(tmp_path, b"b" * 4_000))
    assert await bus.get_blob("ALICE", first, tmp_path / "target", WAIT_MS) == 4_000


async def test_file_that_is_not_there(bus: Bus, tmp_path: Path) -> None:
    """A source that cannot be read is bad input."""
    with pytest.raises(AssayError, match="cannot be read"):
        await bus.put_blob("ALICE", tmp_path / "missing")


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_closed_connection(bus: Bus) -> None:
    """After closing, everything says so instead of waiting."""
    reader = await bus.read_chain(0)
    await bus.close()
    with pytest.raises(Unreachable):
        await bus.submit("SENDER", b"late")
    with pytest.raises(Unreachable):
        await bus.append("vote", b"late")
    with pytest.raises(Unreachable):
        await bus.query("account", b"")
    await reader.close()
    await bus.close()
