"""Bytes that a NATS server passes on and that no honest client sends."""

import asyncio

import pytest

from bus.server import EmbeddedServer
from events import subjects
from tests.bus.grounds import GENESIS, VALIDATORS, JetStreamGround

WAIT_MS = 5_000
HEADER_END = b"\r\n\r\n"


async def publish_raw(server: EmbeddedServer, subject: bytes, reply: bytes, headers: bytes) -> None:
    """As a program without any client library; returns when the server has taken it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        await reader.readline()
        writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
        sizes = b"%d %d" % (len(headers), len(headers) + 7) if headers else b"7"
        words = [b"HPUB" if headers else b"PUB", subject, *([reply] if reply else []), sizes]
        writer.write(b" ".join(words) + b"\r\n" + headers + b"hostile\r\nPING\r\n")
        async with asyncio.timeout(5):
            while (line := await reader.readline()) != b"PONG\r\n":
                assert line, "the server has closed the connection"
                assert not line.startswith(b"-ERR"), line
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("owner", "reply", "headers"),
    [
        (b"\xff\xfe", b"", b""),
        (b"a\x0bb", b"", b""),
        (b"a\x0cb", b"", b""),
        (b"a\x00b", b"", b""),
        (b"*", b"", b""),
        (b">", b"", b""),
        (b"x" * 3_000, b"", b""),
        (b"MALLORY", b"", b"NATS/1.0"),
        (b"MALLORY", b"", b"NATS/1.0\r\nno colon" + HEADER_END),
        (b"MALLORY", b"", b"NATS/1.0\r\n\xff: \xfe" + HEADER_END),
        (b"MALLORY", b"", b"NATS/1.0 \xff\xff\xff" + HEADER_END),
        (b"MALLORY", b"", b"NATS/1.0 100 \xff" + HEADER_END),
        (b"MALLORY", b"", b"NATS/1.0 409 Consumer Deleted" + HEADER_END),
        (b"MALLORY", b"", b"nonsense" + HEADER_END),
        # The server's acknowledgement is published under the reply: here into an inbox that nobody may write to.
        (b"MALLORY", b"assay.{chain}.inbox.\xff", b""),
        (b"MALLORY", b"assay.{chain}.inbox.VICTIM", b""),
    ],
)
async def test_no_bytes_stop_a_reader_of_inboxes(
    server: EmbeddedServer, jetstream: JetStreamGround, owner: bytes, reply: bytes, headers: bytes
) -> None:
    """After hostile subjects, replies and headers an inbox reader goes on at once, and can settle what it has read."""
    bus = await jetstream.connect()
    await bus.set_up(GENESIS, VALIDATORS)
    reader = await bus.read_inboxes(VALIDATORS[0])
    subject = subjects.inbox(jetstream.chain, "").encode() + owner
    await publish_raw(server, subject, reply.replace(b"{chain}", jetstream.chain.encode()), headers)
    await bus.submit("ALICE", b"good")
    read = []
    while not any(message.data == b"good" for message in read):
        messages = await reader.next(10, WAIT_MS)
        assert messages, f"nothing more than {read}"
        read += messages
    assert b"hostile" in [message.data for message in read]
    await reader.settle([message.token for message in read])
    await reader.close()


async def test_no_bytes_stop_a_node_that_answers_questions(server: EmbeddedServer, jetstream: JetStreamGround) -> None:
    """Questions with replies and headers that make no sense do not keep a node from answering the next."""
    bus = await jetstream.connect()
    await bus.set_up(GENESIS, VALIDATORS)

    async def answer(question: bytes) -> bytes:
        return question

    service = await bus.serve_queries({"echo": answer}, "0.0.1")
    subject = subjects.query(jetstream.chain, "echo").encode()
    for reply in (b"\xff", b">", b"a\x0bb", b"x" * 3_000, subject + b".no"):
        await publish_raw(server, subject, reply, b"NATS/1.0 503 \xff" + HEADER_END)
    assert await bus.query("echo", b"still there") == b"still there"
    await service.close()
