"""A verb's line to a network: the bus, and questions to its nodes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from actors.command_line.context import Place, place_of
from actors.command_line.options import Network
from actors.command_line.output import only_errors
from bus.port import Bus
from events import errors
from events.canonical import UNREADABLE, canonical
from events.errors import AssayError, BusError, Unreachable
from schemas import queries
from schemas.genesis import Genesis
from schemas.messages import Problem, QueryAnswer, QueryRefused

Value = TypeVar("Value")

_answers: Final = msgspec.json.Decoder(QueryAnswer | QueryRefused)
_ERRORS: Final[dict[str, type[AssayError]]] = {
    error.code: error
    for error in (
        errors.BadInput,
        errors.InvalidAddress,
        errors.NotFound,
        errors.NotAllowed,
        errors.Unreachable,
        errors.TimedOut,
    )
}


CONNECT_S: Final = 3


class Line(Struct, frozen=True):
    """An open connection. ``timeout_ms`` is how long an answer may take."""

    bus: Bus
    place: Place
    timeout_ms: int

    async def ask(self, what: str, question: queries.Question, answer: type[Value]) -> Value:
        """One question to one node. Raises the AssayError that the node answers with, Unreachable, TimedOut."""
        value, _ = await self.ask_at(what, question, answer)
        return value

    async def ask_at(self, what: str, question: queries.Question, answer: type[Value]) -> tuple[Value, int]:
        """The answer, and the height that it holds at."""
        data = await self.bus.query(what, canonical(question), self.timeout_ms)
        try:
            found = _answers.decode(data)
            if isinstance(found, QueryAnswer):
                return msgspec.json.decode(found.value, type=answer), found.height
        except UNREADABLE as error:
            raise BusError(f"a node's answer to {what!r} cannot be read", why=str(error)) from error
        raise error_of(found.problem)

    async def genesis(self) -> Genesis:
        """The genesis as a node says it."""
        return await self.ask("genesis", queries.Question(), Genesis)


def error_of(problem: Problem) -> AssayError:
    """The error that a node or a wallet answers with, of the same kind as if it had happened here."""
    data: dict[str, Any] = problem.data if isinstance(problem.data, dict) else {}
    kind = _ERRORS.get(problem.code, errors.NotAllowed)
    error = kind(problem.detail, hint=problem.hint)
    error.data |= data  # not as arguments: the names in it are the node's
    if kind.code != problem.code:
        error.data["code"] = problem.code
    return error


@asynccontextmanager
async def connect(network: Network) -> AsyncIterator[Line]:
    """A line for one verb. Raises BadInput when no network is named, Unreachable."""
    from bus.jetstream import JetStreamBus

    place = place_of(network)
    only_errors()
    try:
        async with asyncio.timeout(min(network.timeout, CONNECT_S)):
            bus = await JetStreamBus.connect(place.url, place.chain, name="assay")
    except TimeoutError as error:
        hint = "Start a network with `assay devnet`, or check the address."
        raise Unreachable(f"no NATS server answers at {place.url}", hint=hint, url=place.url) from error
    try:
        yield Line(bus, place, network.timeout * 1_000)
    finally:
        await bus.close()
