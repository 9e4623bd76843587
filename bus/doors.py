"""Core NATS: questions and answers, wallets' doors, and live messages. Nothing here is stored."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import nats.errors
import nats.micro
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Request
from nats.micro.service import Service as MicroService

from bus.connection import Connection, translated
from bus.port import Handler, LiveMessage
from events import subjects
from events.errors import Unreachable

SERVICE = "assay"
SERVICE_ERROR = "Nats-Service-Error"
LIVE_KEPT = 1_024
REQUESTS_AT_ONCE = 64

log = structlog.get_logger(__name__)


class QueryService:
    """One instance of the NATS service ``assay``: found by ``nats micro ls``, one endpoint per query.

    Answers many questions at once: one that waits must not hold up the others. More than that wait at the door. The
    instances of a chain share the questions as a queue group.
    """

    def __init__(self, connection: Connection, service: MicroService) -> None:
        self._connection = connection
        self._service = service
        self._places = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls, connection: Connection, chain: str, handlers: dict[str, Handler], version: str
    ) -> "QueryService":
        with translated("serving queries"):
            service = await nats.micro.add_service(
                connection.client,
                name=SERVICE,
                version=version,
                description="Assay: reads of the ledger",
                metadata={"chain": chain},
            )
            opened = cls(connection, service)
            for what, handler in handlers.items():
                await service.add_endpoint(
                    name=what,
                    subject=subjects.query(chain, what),
                    queue_group=SERVICE,
                    handler=opened._endpoint(what, handler),
                )
            await connection.client.flush()
        return opened

    def _endpoint(self, what: str, handler: Handler) -> Callable[[Request], Awaitable[None]]:
        async def arrived(request: Request) -> None:
            await self._places.acquire()
            task = asyncio.create_task(self._answer(what, handler, request))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

        return arrived

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._places.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("query_answer_lost", exc_info=error)

    async def _answer(self, what: str, handler: Handler, request: Request) -> None:
        """Whatever the handler fails with is logged, told to whoever asked, and ends nothing."""
        (answer,) = await asyncio.gather(handler(request.data), return_exceptions=True)
        if isinstance(answer, BaseException):
            log.error("query_failed", what=what, exc_info=answer)
        if not request._msg.reply:
            return
        try:
            if isinstance(answer, BaseException):
                await request.respond_error("500", repr(answer))
            elif len(answer) > self._connection.client.max_payload:
                log.error("query_answer_too_large", what=what, size=len(answer))
                await request.respond_error("500", f"an answer of {len(answer)} bytes is more than a message may have")
            else:
                await request.respond(answer)
        except (nats.errors.Error, OSError) as error:
            log.debug("query_answer_lost", what=what, error=repr(error))

    async def close(self) -> None:
        if self._connection.client.is_connected:
            with translated("closing queries"):
                await self._service.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class WalletDoor:
    """Answers requests on one wallet's subject, many at once; more than that wait at the door."""

    def __init__(self, connection: Connection, handler: Handler) -> None:
        self._connection = connection
        self._handler = handler
        self._places = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None

    async def start(self, subject: str) -> None:
        with translated("opening a wallet's door"):
            self._subscription = await self._connection.client.subscribe(subject, cb=self._arrived)
            await self._connection.client.flush()

    async def _arrived(self, message: Msg) -> None:
        if not message.reply:
            return
        await self._places.acquire()
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._places.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("wallet_request_failed", exc_info=error)

    async def _answer(self, message: Msg) -> None:
        answer = await self._handler(message.data)
        try:
            await self._connection.client.publish(message.reply, answer)
        except (nats.errors.Error, OSError) as error:
            log.warning("wallet_answer_lost", error=repr(error))

    async def close(self) -> None:
        await _unsubscribe(self._connection, self._subscription)
        self._subscription = None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def ask(connection: Connection, subject: str, data: bytes, timeout_ms: int) -> bytes:
    """Raises Unreachable when nobody listens or the answer is a service error, TimedOut."""
    message = await connection.request(subject, data, timeout_ms / 1000)
    if message.headers is not None and SERVICE_ERROR in message.headers:
        raise Unreachable(f"{subject}: the node failed to answer", why=message.headers[SERVICE_ERROR])
    return message.data


class JetStreamLiveListener:
    """See `bus.port.LiveListener`. Keeps the newest messages until they are taken."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._kept: deque[LiveMessage] = deque(maxlen=LIVE_KEPT)
        self._arrival = asyncio.Event()
        self._closed = False
        self._subscription: Subscription | None = None
        self._opening = asyncio.create_task(self._open(subject))

    async def _open(self, subject: str) -> None:
        with translated("listening"):
            self._subscription = await self._connection.client.subscribe(subject, cb=self._arrived)
            await self._connection.client.flush()

    async def ready(self) -> None:
        await asyncio.shield(self._opening)

    async def _arrived(self, message: Msg) -> None:
        _, owner, topic = message.subject.rsplit(".", 2)
        self._kept.append(LiveMessage(owner, topic, message.data))
        self._arrival.set()

    def __aiter__(self) -> "JetStreamLiveListener":
        return self

    async def __anext__(self) -> LiveMessage:
        await self.ready()
        while not self._kept:
            if self._closed:
                raise StopAsyncIteration
            self._arrival.clear()
            await self._arrival.wait()
        return self._kept.popleft()

    async def close(self) -> None:
        self._closed = True
        self._arrival.set()
        self._opening.cancel()
        await asyncio.gather(self._opening, return_exceptions=True)
        await _unsubscribe(self._connection, self._subscription)
        self._subscription = None


async def _unsubscribe(connection: Connection, subscription: Subscription | None) -> None:
    """Returns when the server knows, so that whoever asks then learns that nobody answers."""
    if subscription is not None and not connection.client.is_closed:
        try:
            await subscription.unsubscribe()
            if connection.client.is_connected:
                await connection.client.flush(timeout=1)
        except (nats.errors.Error, OSError) as error:
            log.debug("not_unsubscribed", error=repr(error))
