"""What an actor must be able to ask the ledger about itself: its next nonce, and what became of an event.

A full node answers from its own read model; a light actor asks any node (`QueriedLedger`).
"""

from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from bus.port import Bus
from events.canonical import UNREADABLE, canonical
from events.errors import NotFound, Unreachable
from schemas.blocks import Outcome
from schemas.messages import QueryAnswer, QueryRefused
from schemas.queries import AccountQuestion, EventAnswer, EventQuestion, NonceAnswer, Question

Value = TypeVar("Value")


class AccountAt(Struct, frozen=True):
    """The nonce that the next event must carry, after the block of this height."""

    nonce: int
    height: int


class EventAt(Struct, frozen=True):
    """What is known of an event after the block of this height: its outcome, or None: it is in no block so far."""

    outcome: Outcome | None
    height: int


class Ledger(Protocol):
    """Either method may raise BusError or TimedOut: ask again later."""

    async def account(self) -> AccountAt:
        """The actor's own account."""

    async def event(self, event_id: str) -> EventAt:
        """One of the actor's own events."""


_answers = msgspec.json.Decoder(QueryAnswer | QueryRefused)


class QueriedLedger:
    """Asks nodes by the queries `nonce` and `event`.

    Each question may meet another node. So the second says from which height on it wants the answer: that of the last
    answer to the first. What a node does not know then is in no block up to there.
    """

    def __init__(self, bus: Bus, address: str) -> None:
        self._bus = bus
        self._address = address
        self._height = 0

    async def account(self) -> AccountAt:
        answer = await self._ask("nonce", AccountQuestion(address=self._address))
        if isinstance(answer, QueryRefused):
            raise Unreachable("no node knows the account", why=answer.problem.detail, hint=answer.problem.hint)
        nonce = _decoded(answer, NonceAnswer).nonce
        self._height = max(self._height, answer.height)
        return AccountAt(nonce, answer.height)

    async def event(self, event_id: str) -> EventAt:
        height = self._height
        answer = await self._ask("event", EventQuestion(event=event_id, min_height=height))
        if isinstance(answer, QueryAnswer):
            return EventAt(_decoded(answer, EventAnswer).outcome, answer.height)
        if answer.problem.code == NotFound.code:
            # Not the height of the answer: the node may have moved on after it looked.
            return EventAt(None, height)
        raise Unreachable("no node knows the event", why=answer.problem.detail, hint=answer.problem.hint)

    async def _ask(self, what: str, question: Question) -> QueryAnswer | QueryRefused:
        try:
            answer: QueryAnswer | QueryRefused = _answers.decode(await self._bus.query(what, canonical(question)))
        except UNREADABLE as error:
            raise Unreachable(f"the answer to the query {what} cannot be read", why=str(error)) from error
        return answer


def _decoded(answer: QueryAnswer, kind: type[Value]) -> Value:
    """What a node has found. Raises Unreachable where that is no such record: anyone may answer."""
    try:
        return msgspec.json.decode(answer.value, type=kind)
    except UNREADABLE as error:
        raise Unreachable("a node's answer cannot be read", why=str(error)) from error
