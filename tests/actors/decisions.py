"""Given a ledger, when a message comes, then these commands: what tests of deciding actors share."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from actors.decision import Cancel, Command, Decision, Done, Heard, Keep, NeverAgain, Say, Start, complete
from events.envelope import SignedEvent, sign
from events.keys import Key
from projections.chain import Final
from schemas.blocks import TimerFired
from schemas.messages import FeedEntry, FeedMessage
from tests.projections.small_network import SmallNetwork

AnyCommand = TypeVar("AnyCommand")


def commands_of(decision: Decision) -> tuple[Command, ...]:
    assert isinstance(decision, Done | NeverAgain)
    return decision.commands


def only(decision: Decision, kind: type[AnyCommand]) -> list[AnyCommand]:
    return [command for command in commands_of(decision) if isinstance(command, kind)]


def said(decision: Decision) -> list[tuple[str, dict[str, Any]]]:
    """Keys and fields of what is said."""
    return [(say.key, msgspec.json.decode(say.draft.fields)) for say in only(decision, Say)]


def started(decision: Decision) -> list[str]:
    return [start.name for start in only(decision, Start)]


def cancelled(decision: Decision) -> list[str]:
    return [cancel.name for cancel in only(decision, Cancel)]


class Kept:
    """The rows of an actor, as its store would hold them."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    def take(self, decision: Decision) -> Decision:
        """Keeps and drops what the decision says; returns it."""
        for command in commands_of(decision):
            if isinstance(command, Keep):
                self.rows[command.name] = command.value
            elif type(command).__name__ == "Drop":
                self.rows.pop(command.name, None)
        return decision


def signed_by(network: SmallNetwork, name: str, key: Key, say: Say) -> SignedEvent:
    """What the voice would make of it; ``name`` has this key."""
    nonce = network.chain.state.account(key.address).nonce
    body = complete(say.draft, chain=network.genesis.chain, sender=key.address, gas_price=1, nonce=nonce)
    network._nonces[name] = nonce + 1
    return sign(body, key)


def heard(final: Final, signed: SignedEvent, key: str) -> Heard:
    """What the actor hears of its event in this block."""
    events = [outcome for outcome in final.executed.outcomes if not isinstance(outcome, TimerFired)]
    outcome = next(outcome for outcome in events if outcome.event == signed.id)
    return Heard(key, signed.id, signed.event.nonce, outcome, final.header.height)


def feed_of(final: Final, events: Iterable[SignedEvent] = (), timers: Iterable[str] = ()) -> FeedMessage:
    """What a feed says of a block: these of its events, and the timers of these jobs."""
    wanted = {signed.id: msgspec.Raw(signed.raw) for signed in events}
    jobs = set(timers)
    entries = []
    for index, outcome in enumerate(final.executed.outcomes):
        if isinstance(outcome, TimerFired):
            if outcome.job in jobs:
                entries.append(FeedEntry(index=index, outcome=outcome))
        elif outcome.event in wanted:
            entries.append(FeedEntry(index=index, outcome=outcome, event=wanted[outcome.event]))
    header = final.header
    return FeedMessage(
        chain=header.chain, height=header.height, block=final.hash, time_ms=header.time_ms, entries=tuple(entries)
    )
