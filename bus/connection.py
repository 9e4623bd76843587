"""One connection to a NATS server: it comes back by itself, and asks JetStream's API with retries.

Everything that nats-py and the server raise is translated here to `events.errors`; nothing else leaves the package.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from bus.client import TolerantClient
from events.errors import BusError, TimedOut, Unreachable

OLDEST_SERVER = (2, 14)  # consumers can be reset since then
CONNECT_TIMEOUT_S = 10.0
API_TIMEOUT_S = 10.0
API_ATTEMPT_S = 2.0
LEADERLESS_WAIT_S = 0.1
RECONNECT_WAIT_S = 0.1
PING_INTERVAL_S = 2
STATUS = "Status"
NO_RESPONDERS = "503"
RETRIED = frozenset({10008, 10009, 10023, 10041})  # starting up, no leader yet, or short of something for a moment

log = structlog.get_logger(__name__)


class ApiError(Exception):
    """JetStream's own refusal. Never leaves this package: its callers know what ``number`` means for them."""

    def __init__(self, subject: str, code: int, number: int, description: str) -> None:
        super().__init__(f"{subject}: {description} ({code}/{number})")
        self.code = code
        self.number = number
        self.description = description


@contextmanager
def translated(what: str) -> Iterator[None]:
    """What nats-py raises becomes Unreachable or TimedOut."""
    try:
        yield
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise TimedOut(f"{what}: no answer in time") from error
    except nats.errors.NoRespondersError as error:
        raise Unreachable(
            f"{what}: nobody answers", hint="Check the name of the chain; does a node of it run?"
        ) from error
    except (nats.errors.Error, OSError) as error:
        raise Unreachable(f"{what}: the NATS server does not answer", why=str(error)) from error


def stay_cancelled() -> None:
    """Raises CancelledError in a task that was cancelled and does not know.

    nats-py waits by `asyncio.wait_for`, which until Python 3.12 forgets a cancellation that comes together with the
    answer. The task would go on for ever, and whoever cancelled it would wait as long.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Connection:
    """``client`` is nats-py's. Those in ``on_disconnect`` are called when the line breaks, before it comes back."""

    def __init__(self, client: TolerantClient, name: str) -> None:
        self.client = client
        self.name = name
        self.on_disconnect: list[Callable[[], None]] = []
        self._up = asyncio.Event()
        self._last_error = ""

    @classmethod
    async def open(cls, url: str, name: str, *, seed: str | None = None, inbox_prefix: str = "_INBOX") -> "Connection":
        """``url`` may name several servers of one cluster, separated by commas. ``seed`` is the NKey to authenticate
        with.

        Raises Unreachable after ten seconds, BusError for an old server.
        """
        connection = cls(TolerantClient(), name)
        client = connection.client
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    [each.strip() for each in url.split(",")],
                    name=name,
                    error_cb=connection._failed,
                    disconnected_cb=connection._disconnected,
                    reconnected_cb=connection._reconnected,
                    closed_cb=connection._closed,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # typed int, used as seconds
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=2,
                    connect_timeout=2,
                    nkeys_seed_str=seed,
                    inbox_prefix=inbox_prefix,
                )
        except (TimeoutError, nats.errors.Error, OSError) as error:
            await client.close()
            hint = "Start a network with `assay devnet`, or check the address."
            raise Unreachable(f"no NATS server answers at {url}", why=str(error), hint=hint, url=url) from error
        connection._up.set()
        version = client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            await client.close()
            wanted = ".".join(map(str, OLDEST_SERVER))
            raise BusError(
                f"the NATS server at {url} is version {version}", hint=f"Install {wanted} or newer.", url=url
            )
        return connection

    async def _failed(self, error: Exception) -> None:
        if repr(error) != self._last_error:  # one line per outage, not per attempt to end it
            log.debug("nats_error", connection=self.name, error=repr(error))
        self._last_error = repr(error)

    async def _disconnected(self) -> None:
        self._up.clear()
        # What still waits to be sent would go out after the reconnection, behind the back of senders that were told
        # that it is lost, and ahead of what they then send again. nats-py replays subscriptions by itself.
        self.client._pending.clear()
        self.client._pending_data_size = 0
        if not self.client.is_closed:
            log.warning("nats_disconnected", connection=self.name)
        for callback in tuple(self.on_disconnect):
            callback()

    async def _reconnected(self) -> None:
        log.info("nats_reconnected", connection=self.name)
        self._up.set()

    async def _closed(self) -> None:
        self._up.clear()

    async def wait_until_up(self, timeout_s: float) -> None:
        """Raises Unreachable when the line is not up after ``timeout_s``, at once when it was closed for good."""
        if self._up.is_set():
            return
        if self.client.is_closed:
            raise Unreachable("the connection is closed")
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError as error:
            hint = "It is tried again for ever; is the server running?"
            raise Unreachable("the NATS server does not answer", hint=hint, timeout_s=timeout_s) from error

    async def request(self, subject: str, data: bytes, timeout_s: float) -> Msg:
        """One question, one answer. Raises Unreachable, TimedOut."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await self.wait_until_up(timeout_s)
        with translated(subject):
            answer = await self.client.request(subject, data, timeout=max(0.001, deadline - loop.time()))
        stay_cancelled()
        return answer

    async def api(self, subject: str, body: Any = None, timeout_s: float = API_TIMEOUT_S) -> dict[str, Any]:
        """Asks ``$JS.API.<subject>``; tries again while the server starts. Raises ApiError, Unreachable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        data = b"" if body is None else msgspec.json.encode(body)
        wait_s = 0.01
        while True:
            left = deadline - loop.time()
            try:
                message = await self.request(f"$JS.API.{subject}", data, min(API_ATTEMPT_S, max(0.001, left)))
                answer: dict[str, Any] = msgspec.json.decode(message.data)
                if "error" not in answer:
                    return answer
                error = answer["error"]
                failure = ApiError(subject, error["code"], error.get("err_code", 0), error.get("description", ""))
                if failure.number not in RETRIED or loop.time() + wait_s >= deadline:
                    raise failure
            except (TimedOut, Unreachable) as error:
                if self.client.is_closed or loop.time() + wait_s >= deadline:
                    raise Unreachable("JetStream does not answer", why=str(error), subject=subject) from error
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, 0.25)

    async def describe(self, stream: str, body: Any = None, timeout_s: float = API_TIMEOUT_S) -> dict[str, Any]:
        """STREAM.INFO, from the server that leads the stream. Raises ApiError, Unreachable.

        While the servers of a cluster elect one, any may answer from its own copy, which may be behind, or empty.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            info = await self.api(f"STREAM.INFO.{stream}", body, max(0.001, deadline - loop.time()))
            if "cluster" not in info or info["cluster"].get("leader"):
                return info
            if loop.time() + LEADERLESS_WAIT_S >= deadline:
                raise Unreachable(f"no server leads the stream {stream}", hint="Two of three servers have to be up.")
            await asyncio.sleep(LEADERLESS_WAIT_S)

    async def close(self) -> None:
        """Sends what is still buffered, then hangs up."""
        if not self.client.is_closed:
            if self.client.is_connected:
                try:
                    await self.client.flush(timeout=1)
                except (nats.errors.Error, OSError) as error:
                    log.debug("nats_not_flushed", connection=self.name, error=repr(error))
            await self.client.close()
