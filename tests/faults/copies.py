"""What each server of a cluster has of the log: its own copy, not what the leader says."""

import asyncio
import json
from hashlib import sha256
from typing import Any

import nats.errors
from msgspec import Struct

from bus.pulling import position_of

API_S = 5.0
# Chance says which server a consumer is on.
CONSUMERS_TRIED = 200
BATCH = 50
# So long a server may take, twice in a row, to deliver the next messages that it has.
SILENCE_S = 3.0


class Copy(Struct, frozen=True):
    """A server's copy of the log: a digest of what is there, and which messages are not."""

    digest: str
    missing: list[int]


async def read_copy(client: Any, stream: str, server: str, last: int) -> Copy:
    """The messages up to ``last``, through a consumer on this server. ``client`` is nats-py's. Raises TimeoutError."""
    consumer = await _consumer_on(client, stream, server)
    inbox = client.new_inbox()
    deliveries = await client.subscribe(inbox, pending_msgs_limit=0, pending_bytes_limit=0)
    found: dict[int, bytes] = {}
    digest = sha256()
    silences = 0
    try:
        while len(found) < last and silences < 2:
            wanted = min(BATCH, last - len(found))
            request = {"batch": wanted, "expires": int(SILENCE_S * 1_000_000_000)}
            await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", json.dumps(request).encode(), inbox)
            messages = await _until_over(deliveries, wanted)
            silences = 0 if messages else silences + 1
            for message in messages:
                sequence = position_of(message.reply).sequence
                content = sha256(message.data).hexdigest()
                found[sequence] = json.dumps([sequence, message.subject, content]).encode()
    finally:
        await deliveries.unsubscribe()
        await _ask(client, f"CONSUMER.DELETE.{stream}.{consumer}")
    for sequence in sorted(found):
        digest.update(found[sequence])
    return Copy(digest.hexdigest(), [sequence for sequence in range(1, last + 1) if sequence not in found])


async def _until_over(deliveries: Any, wanted: int) -> list[Any]:
    """What comes until there is as much as was wanted, or nothing comes any more."""
    messages: list[Any] = []
    while len(messages) < wanted:
        try:
            message = await deliveries.next_msg(timeout=2 * SILENCE_S)
        except nats.errors.TimeoutError:
            break
        if not message.reply:
            break  # a status: the request is over
        messages.append(message)
    return messages


async def _consumer_on(client: Any, stream: str, server: str) -> str:
    config = {
        "deliver_policy": "all",
        "ack_policy": "none",
        "replay_policy": "instant",
        "inactive_threshold": 60_000_000_000,
        "mem_storage": True,
        "num_replicas": 1,
    }
    for _ in range(CONSUMERS_TRIED):
        info = await _ask(client, f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        name: str = info.get("name", "")
        if info.get("cluster", {}).get("leader") == server:
            return name
        if name:
            await _ask(client, f"CONSUMER.DELETE.{stream}.{name}")
        else:
            await asyncio.sleep(0.1)  # a cluster that has just lost a leader refuses for a moment
    raise TimeoutError(f"no consumer of {stream} was put on {server}")


async def _ask(client: Any, subject: str, body: Any = None) -> dict[str, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{subject}", data, API_S)).data)
    return answer
