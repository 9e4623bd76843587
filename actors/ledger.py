"""What an actor must be able to ask the ledger about itself: its next nonce, and what became of an event.

A full node answers from its own read model; a light actor asks any node (`QueriedLedger`).
"""

from typing import Protocol

import msgspec
from msgspec import Struct

from bus.port import Bus
from events.canonical import canonical
from events.errors import NotFound, Unreachable
from schemas.blocks import Outcome
from schemas.messages import QueryAnswer, QueryRefused
from schemas.queries import AccountQuestion, EventAnswer, EventQuestion, NonceAnswer, Question


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
    """Asks nodes by the queries `nonce` and `event`."""

    def __init__(self, bus: Bus, address: str) -> None:
        self._bus = bus
        self._address = address

    async def account(self) -> AccountAt:
        answer = await self._ask("nonce", AccountQuestion(address=self._address))
        if isinstance(answer, QueryRefused):
            raise Unreachable("no node knows the account", why=answer.problem.detail, hint=answer.problem.hint)
        return AccountAt(msgspec.json.decode(answer.value, type=NonceAnswer).nonce, answer.height)

    async def event(self, event_id: str) -> EventAt:
        answer = await self._ask("event", EventQuestion(event=event_id))
        if isinstance(answer, QueryAnswer):
            return EventAt(msgspec.json.decode(answer.value, type=EventAnswer).outcome, answer.height)
        if answer.problem.code == NotFound.code:
            return EventAt(None, answer.height)
        raise Unreachable("no node knows the event", why=answer.problem.detail, hint=answer.problem.hint)

    async def _ask(self, what: str, question: Question) -> QueryAnswer | QueryRefused:
        try:
            answer: QueryAnswer | QueryRefused = _answers.decode(await self._bus.query(what, canonical(question)))
        except msgspec.MsgspecError as error:
            raise Unreachable(f"the answer to the query {what} cannot be read", why=str(error)) from error
        return answer
