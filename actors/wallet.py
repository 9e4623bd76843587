"""The wallet: signs what others ask for, within its owner's policy, once per request.

Clients publish a `WalletRequest` on the wallet's subject and get `WalletSigned` or `WalletRefused`. Requests of any
number of clients are decided one after the other, so nonces follow each other and limits are never passed together.
The key of a request is the key of the event in the outbox: asked again, also after a crash, the answer is the same.
A refused request has left nothing behind and may be asked again. Who may ask at all is a matter of NATS permissions.

Should this key sign elsewhere too, an event that lost its nonce to another is signed anew; asked again, the wallet then
names the event that carries the request now.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from actors.decision import (
    Answer,
    AnswerSaid,
    Decision,
    Done,
    Draft,
    Heard,
    Keep,
    Say,
    Spoken,
    TurnedAway,
    complete,
    done,
    draft_from_json,
)
from actors.ledger import QueriedLedger
from actors.runtime import Runtime, Speaking, own_feed
from actors.store import Store
from actors.wallet_policy import Allowed, Denied, Policy, Spending, decide
from bus.port import Bus, Clock
from events.canonical import UNREADABLE, canonical
from events.envelope import MAX_EVENT_BYTES
from events.errors import AssayError, Refused
from events.keys import Key
from projections.execute import gas_of
from schemas.blocks import Failed
from schemas.messages import Problem, WalletRefused, WalletRequest, WalletSigned
from schemas.refusals import HINTS, Refusal, code_of

MOST_WAITING = 10_000
MOST_ASKING = 1_000
# A request is an event without signature and three fields, and its key.
LARGEST_REQUEST = MAX_EVENT_BYTES + 512
SPENDING = "spending"

log = structlog.get_logger()
_requests = msgspec.json.Decoder(WalletRequest)


class Asked(Struct, frozen=True):
    """A request, what was signed under its key before, and how many events wait for a block."""

    request: WalletRequest
    earlier: Spoken | None
    waiting: int


class Wallet:
    """The decisions of the wallet of one address."""

    name = "wallet"

    def __init__(self, address: str, chain: str, gas_price: int, policy: Policy) -> None:
        self._address = address
        self._chain = chain
        self._gas_price = gas_price
        self._policy = policy
        self._spending = Spending()

    def begin(self, rows: Mapping[str, bytes], now_ms: int) -> Done:
        """Takes up the spending of the last day."""
        if SPENDING in rows:
            self._spending = msgspec.json.decode(rows[SPENDING], type=Spending).pruned(now_ms)
        return Done()

    def decide(self, message: object, now_ms: int) -> Decision:
        """Signs or refuses a request; writes down what became of the earlier ones."""
        match message:
            case Asked():
                return self._answer(message, now_ms)
            case Heard(key=key, event=event, outcome=Failed(refusal=refusal)):
                log.warning("a signed request failed", key=key, id=event, code=code_of(refusal))
            case Heard(key=key, event=event, height=height):
                log.info("a signed request is final", key=key, id=event, height=height)
            case TurnedAway(key=key, given_up=True, refusal=refusal):
                log.error("a signed request was given up", key=key, code=code_of(refusal))
        return Done()

    def _answer(self, asked: Asked, now_ms: int) -> Done:
        key = outbox_key(asked.request.key)
        try:
            unsigned = draft_from_json(bytes(asked.request.event))
            if asked.earlier is not None:
                return self._same(asked.earlier, unsigned)
            event = complete(unsigned, chain=self._chain, sender=self._address, gas_price=self._gas_price)
        except Refused as error:
            return done(Answer(canonical(WalletRefused(problem=problem_of_refusal(error.refusal)))))
        if asked.waiting >= MOST_WAITING:
            return _refuse("WALLET_BUSY", f"{asked.waiting} signed events wait for a block", "Ask again later.")
        verdict = decide(self._policy, self._spending, event, gas=gas_of(event), now_ms=now_ms)
        match verdict:
            case Denied():
                return done(Answer(canonical(WalletRefused(problem=_problem_of_denial(verdict)))))
            case Allowed(amount=amount):
                self._spending = self._spending.with_amount(amount, now_ms)
                return done(
                    Say(key, unsigned),
                    Keep(SPENDING, canonical(self._spending)),
                    AnswerSaid(key, self._signed),
                )

    def _same(self, earlier: Spoken, unsigned: Draft) -> Done:
        if earlier.draft != unsigned:
            return _refuse(
                "IDEMPOTENCY_CONFLICT",
                f"event {earlier.event} was signed under this key, and says something else",
                "Use a new key for a new event.",
            )
        return done(Answer(self._signed(earlier)))

    def _signed(self, said: Spoken) -> bytes:
        return canonical(WalletSigned(event=said.event, nonce=said.nonce, sender=self._address))


def outbox_key(request_key: str) -> str:
    """The key in the outbox of what a request asks for."""
    return f"request/{request_key}"


def problem_of_refusal(refusal: Refusal) -> Problem:
    """A refusal of the rules as an answer."""
    facts = _facts(refusal)
    detail = ", ".join(f"{name}={value}" for name, value in facts.items())
    return Problem(code=code_of(refusal), detail=detail, hint=HINTS[code_of(refusal)], data=facts)


def _problem_of_denial(denial: Denied) -> Problem:
    facts = _facts(denial)
    detail = ", ".join(f"{name}={value}" for name, value in facts.items())
    return Problem(code=denial.code, detail=detail, hint=denial.hint, data=facts)


def _facts(record: Struct) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(record)
    return {name: value for name, value in facts.items() if name != "code"}


def _refuse(code: str, detail: str, hint: str) -> Done:
    return done(Answer(canonical(WalletRefused(problem=Problem(code=code, detail=detail, hint=hint)))))


async def look_up(message: object, runtime: Runtime) -> object:
    """Reads what the decision about a request needs."""
    if not isinstance(message, WalletRequest):
        return message
    waiting = 0 if runtime.voice is None else runtime.voice.waiting
    return Asked(message, await runtime.find(outbox_key(message.key)), waiting)


class Door:
    """What stands at the wallet's subject: bytes in, bytes out, never an error."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._asking = 0

    async def answer(self, data: bytes) -> bytes:
        """The answer to one request, as canonical JSON of a WalletAnswer."""
        if len(data) > LARGEST_REQUEST:
            return _closed("TOO_LARGE", f"{len(data)} bytes, the limit is {LARGEST_REQUEST}", HINTS["TOO_LARGE"])
        try:
            request = _requests.decode(data)
        except UNREADABLE as error:
            return _closed("MALFORMED", str(error)[:300], 'Send {"event":{"type":…},"key":"…"}, the key your own.')
        if self._asking >= MOST_ASKING:
            return _closed("WALLET_BUSY", f"{self._asking} requests are being answered", "Ask again later.")
        self._asking += 1
        try:
            return await self._runtime.ask(request)
        except AssayError as error:
            return _closed(error.code, str(error), error.hint or "Ask again with the same key.")
        finally:
            self._asking -= 1


def _closed(code: str, detail: str, hint: str) -> bytes:
    return canonical(WalletRefused(problem=Problem(code=code, detail=detail, hint=hint)))


async def run_wallet(
    bus: Bus, clock: Clock, store: Store, key: Key, policy: Policy, gas_price: int, stop: asyncio.Event
) -> None:
    """Serves requests for the key's address until ``stop`` is set. Raises what `Runtime.run` raises."""
    wallet = Wallet(key.address, bus.chain, gas_price, policy)
    speaking = Speaking(key, gas_price, QueriedLedger(bus, key.address))
    runtime = await Runtime.start(wallet, store, bus, clock, speaking=speaking, prepare=look_up)
    door = await bus.serve_wallet(key.address, Door(runtime).answer)
    try:
        await runtime.run(stop, [own_feed(bus, key.address)])
    finally:
        await door.close()
