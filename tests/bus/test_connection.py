"""The connection, where nats-py needs watching."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.client import Client

from bus.client import TolerantClient
from bus.connection import Connection


async def test_a_cancellation_that_comes_with_the_answer_is_not_forgotten() -> None:
    """Whoever is cancelled while a question is answered ends, and does not go on."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def request(*_: Any, timeout: float) -> str:
        return await asyncio.wait_for(answer, timeout)

    client = cast(Any, SimpleNamespace(request=request, is_closed=False))
    connection = Connection(client, "test")
    connection._up.set()
    asking = asyncio.create_task(connection.request("subject", b"", 1.0))
    await asyncio.sleep(0)
    answer.set_result("here it is")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_line_that_broke_while_it_was_opened_is_closed_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server, or the proxy before it, may take a connection and hang up at once; nats-py then tries the next one."""
    closed: list[str] = []
    client = TolerantClient()
    client._transport = cast(Any, SimpleNamespace(close=lambda: closed.append("the old one")))

    async def connect(self: Any, server: Any) -> None:
        closed.append("now the new one")

    monkeypatch.setattr(Client, "_connect_to_server", connect)
    await client._connect_to_server(cast(Any, None))
    assert closed == ["the old one", "now the new one"]
