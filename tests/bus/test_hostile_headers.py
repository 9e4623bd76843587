"""Headers that mean something to a NATS server, put on messages by those who hope that they mean it here."""

from typing import Any

import nats
import nats.js.errors
import pytest

from bus.jetstream import JetStreamBus
from bus.port import Limits
from events import subjects
from tests.bus.grounds import GENESIS, VALIDATORS, JetStreamGround

WAIT_MS = 5_000
HEADERS: dict[str, dict[str, str]] = {
    "an id for de-duplication": {"Nats-Msg-Id": "ID"},
    "where a stream's source is": {"Nats-Stream-Source": "ASSAY_OTHER_CHAIN 99 > > >"},
    "where a mirror's message was": {
        "Nats-Stream": "ASSAY_OTHER_CHAIN",
        "Nats-Sequence": "1",
        "Nats-Last-Sequence": "9",
    },
    "another subject and time": {"Nats-Subject": "assay.x.chain.block", "Nats-Time-Stamp": "2001-01-01T00:00:00Z"},
    "a time to live": {"Nats-TTL": "1s"},
    "a roll-up of all": {"Nats-Rollup": "all"},
    "a roll-up of the subject": {"Nats-Rollup": "sub"},
    "a marker of a purge": {"Nats-Marker-Reason": "Purge", "KV-Operation": "PURGE"},
    "the stream that it expects": {"Nats-Expected-Stream": "ASSAY_OTHER_CHAIN"},
    "the sequence that it expects": {"Nats-Expected-Last-Sequence": "0"},
    "the id that it expects": {"Nats-Expected-Last-Msg-Id": "nobody's"},
    "the sequence of another subject": {
        "Nats-Expected-Last-Subject-Sequence": "0",
        "Nats-Expected-Last-Subject-Sequence-Subject": "assay.nobody",
    },
    "a part of a batch": {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1"},
    "a schedule": {"Nats-Schedule": "@at 2001-01-01T00:00:00Z", "Nats-Schedule-Target": "assay.x.chain.block"},
    "a counter": {"Nats-Incr": "1"},
    "a status": {"Status": "409", "Description": "Consumer Deleted"},
    "a service's error": {"Nats-Service-Error": "500", "Nats-Service-Error-Code": "500"},
    "a chunk": {"Assay-Chunk": "9/3"},
}


async def set_up(ground: JetStreamGround) -> JetStreamBus:
    # The server sets the room for blobs aside, and has not enough of it for the chains of so many tests.
    bus = await ground.connect(Limits(blobs_total_bytes=2**20, blob_bytes=2**16))
    await bus.set_up(GENESIS, VALIDATORS)
    return bus


async def forge(ground: JetStreamGround, subject: str, data: bytes, headers: dict[str, str]) -> bool:
    """Whether the server has stored a stranger's message."""
    client = await nats.connect(ground.url)
    try:
        stored = await client.jetstream().publish(subject, data, headers=headers, timeout=5)
    except nats.js.errors.APIError:
        return False
    finally:
        await client.close()
    return not stored.duplicate


async def state(bus: JetStreamBus, kind: str) -> dict[str, Any]:
    info: dict[str, Any] = await bus._connection.api(f"STREAM.INFO.{subjects.stream(bus.chain, kind)}")
    found: dict[str, Any] = info["state"]
    return found


@pytest.mark.parametrize("name", HEADERS)
async def test_no_header_changes_the_log(jetstream: JetStreamGround, name: str) -> None:
    """Whatever stands in a forged message's headers, it removes nothing from the log and holds nothing off it: the
    reader gets everything in order, the forged message, where the server takes it, as the garbage that it is."""
    bus = await set_up(jetstream)
    first = await bus.append("block", b"first", after_block=0)
    stored = [
        await forge(jetstream, subject(bus.chain), b"forged", HEADERS[name])
        for subject in (subjects.block, subjects.vote)
    ]
    after = first + stored[0]
    assert await bus.append("block", b"second", after_block=after) == first + sum(stored) + 1
    assert await bus.append("vote", b"vote") == first + sum(stored) + 2
    wanted = [b"first", *[b"forged"] * sum(stored), b"second", b"vote"]
    reader = await bus.read_chain(0)
    read: list[bytes] = []
    while len(read) < len(wanted):
        messages = await reader.next(10, WAIT_MS)
        assert messages, read
        read += [message.data for message in messages]
    assert read == wanted
    await reader.close()
    found = await state(bus, "CHAIN")
    assert (found["first_seq"], found["messages"]) == (1, len(wanted))


@pytest.mark.parametrize("name", HEADERS)
async def test_no_header_holds_off_an_event(jetstream: JetStreamGround, name: str) -> None:
    """What is submitted after a forged message, even the very same bytes, reaches the validators."""
    bus = await set_up(jetstream)
    inbox = await bus.read_inboxes(VALIDATORS[0])
    stored = await forge(jetstream, subjects.inbox(bus.chain, "ALICE"), b"event", HEADERS[name])
    await bus.submit("ALICE", b"event")
    read: list[bytes] = []
    while len(read) < 1 + stored:
        messages = await inbox.next(10, WAIT_MS)
        assert messages, read
        read += [message.data for message in messages]
    assert read == [b"event"] * (1 + stored)
    await inbox.close()
