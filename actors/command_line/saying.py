"""Saying one event and waiting for what becomes of it."""

import asyncio
import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.command_line.network import Line
from actors.command_line.options import Consent
from actors.decision import complete, draft
from bus.port import LiveListener
from events.canonical import UNREADABLE
from events.envelope import SignedEvent, sign
from events.errors import BadInput, NotFound, Refused, TimedOut
from events.keys import Key
from schemas.blocks import Failed
from schemas.events import Body
from schemas.messages import EventRefused
from schemas.queries import AccountQuestion, EventAnswer, EventQuestion, NonceAnswer
from schemas.refusals import Malformed

FIRST_LOOK_S: Final = 0.02
LONGEST_LOOK_S: Final = 0.25
# As the decoder names a misfit, and as people read it.
_MISFIT: Final = re.compile(r"^E(?P<what>xpected .*) - at `\$\.(?P<field>.*)`$")


class Said(Struct, frozen=True):
    """An event that is in a final block and did what it says."""

    signed: SignedEvent
    answer: EventAnswer


async def unsigned(line: Line, sender: str, record: type[Body], consent: Consent, **fields: Any) -> Body:
    """The event with chain, the sender's next nonce and the gas price filled in. Raises BadInput where a value
    is out of its bounds."""
    found = await line.ask("nonce", AccountQuestion(address=sender), NonceAnswer)
    gas_price = consent.gas_price
    if gas_price is None:
        gas_price = (await line.genesis()).parameters.min_gas_price
    try:
        return complete(
            draft(record, **fields), chain=line.place.chain, sender=sender, gas_price=gas_price, nonce=found.nonce
        )
    except Refused as error:
        if not isinstance(error.refusal, Malformed):
            raise
        why = _MISFIT.sub(r"\g<field>: e\g<what>", error.refusal.detail)
        raise BadInput(
            "what was asked for does not fit into an event", why=why, hint="See --help of this command."
        ) from error


async def say(line: Line, event: Body, key: Key) -> Said:
    """Signs, publishes, and waits for the final block. Raises Refused when a mempool turns it away or its action
    fails, BusError, TimedOut."""
    signed = sign(event, key)
    listener = line.bus.listen_live(key.address, "refused")
    await listener.ready()
    refused = asyncio.create_task(_first_refusal(listener, signed))
    try:
        await line.bus.submit(key.address, signed.raw)
        answer = await _outcome(line, signed.id, refused)
    finally:
        refused.cancel()
        await asyncio.gather(refused, return_exceptions=True)
        await listener.close()
    if isinstance(answer.outcome, Failed):
        raise Refused(answer.outcome.refusal)
    return Said(signed, answer)


async def _outcome(line: Line, event_id: str, refused: asyncio.Task[EventRefused]) -> EventAnswer:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + line.timeout_ms / 1_000
    pause_s = FIRST_LOOK_S
    while True:
        try:
            return await line.ask("event", EventQuestion(event=event_id), EventAnswer)
        except NotFound:
            if refused.done():
                raise Refused(refused.result().refusal) from None
        if loop.time() >= deadline:
            raise TimedOut(
                "the event is in no block yet",
                why=f"{line.timeout_ms // 1_000} s have passed; it is published and may still be included",
                hint="See `assay doctor` for whether blocks are being made, or wait longer with --timeout.",
                event=event_id,
            )
        await asyncio.wait({refused}, timeout=pause_s)
        pause_s = min(2 * pause_s, LONGEST_LOOK_S)


async def _first_refusal(listener: LiveListener, signed: SignedEvent) -> EventRefused:
    """What a mempool says against this event. Hearsay: the log is asked first."""
    async for message in listener:
        try:
            found = msgspec.json.decode(message.data, type=EventRefused)
        except UNREADABLE:
            continue
        if found.event == signed.id:
            return found
    raise TimedOut("the live subject was closed")
