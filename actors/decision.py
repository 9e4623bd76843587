"""What an actor decides: the outcome of one message, and the commands that an outcome consists of.

An actor is a class with a name and two pure, synchronous methods:

    class Greeter:
        name = "greeter"

        def begin(self, rows: Mapping[str, bytes], now_ms: int) -> Done:
            return Done()  # take up again what the kept rows say was going on

        def decide(self, message: object, now_ms: int) -> Decision:
            match message:
                case FeedMessage():  # from the actor's own feed
                    return done(
                        Say(f"thanks/{message.block}", draft(TransferSent, to=friend, amount=1)),
                        Start("image/1", lambda: fetch(url)),  # what it returns comes back as a message
                        Keep("image/1", b"wanted"),  # so that `begin` knows of it after a crash
                    )
                case Heard(key=key, outcome=Failed(refusal=refusal)):
                    return NeverAgain("NOT_THANKED", f"{key}: {refusal}")
                case _:
                    return Done()

`actors.runtime` carries the commands out: what is said and kept and the position of the message are one transaction,
the rest follows it. A message may come again after a crash, so the key of a `Say` follows from what it is about, never
from chance or time.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Struct

from events.canonical import UNREADABLE, canonical
from events.envelope import parse, wrap
from events.errors import Refused
from schemas.blocks import Outcome
from schemas.events import Body
from schemas.refusals import AnyRefusal, Malformed

ADDED_BY_VOICE = ("chain", "nonce", "sender")
_LONGEST_NONCE = 2**53 - 1


class Draft(Struct, frozen=True):
    """An event without chain, sender and nonce; the gas price may be missing too. ``fields`` is canonical JSON."""

    fields: bytes


def draft(record: type[Body], **fields: Any) -> Draft:
    """A draft of the record's type. A field that is UNSET is left out."""
    present = {name: value for name, value in fields.items() if value is not UNSET}
    return Draft(canonical({"type": record.__struct_config__.tag, **present}))


def draft_from_json(data: bytes) -> Draft:
    """A draft from the JSON object that a stranger sent. Raises Refused(Malformed); `complete` checks the fields."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        for name in ADDED_BY_VOICE:
            if name in fields:
                raise Refused(Malformed(detail=f"the signer adds `{name}`: leave it out"))
        return Draft(canonical(fields))
    except UNREADABLE as error:
        raise Refused(Malformed(detail=str(error)[:300])) from error


def complete(unfinished: Draft, *, chain: str, sender: str, gas_price: int, nonce: int = _LONGEST_NONCE) -> Body:
    """The whole event; ``gas_price`` is used where the draft has none.

    Raises Refused(UnknownType, Malformed, TooLarge): what this accepts, every node can read.
    """
    fields = msgspec.json.decode(unfinished.fields, type=dict[str, Any])
    whole = {"gas_price": gas_price, **fields, "chain": chain, "nonce": nonce, "sender": sender}
    return parse(wrap(canonical(whole), "A" * 86)).event


# Commands.


class Say(Struct, frozen=True):
    """Sign the draft with the next nonce and get it into a block. The same key is said once, whatever happens.

    What became of it comes back as `Heard`. ``about`` is the id of the event or job that the trace belongs to.
    """

    key: str
    draft: Draft
    about: str = ""


class Start(Struct, frozen=True):
    """Run an effect beside the mailbox; what it returns, unless None, comes back as a message.

    BusError and TimedOut are tried again with growing delays, ``tries`` times in all; then, and at any other error,
    `EffectFailed` comes back. While an effect of this name runs, a second is not started. An effect is not remembered:
    keep a row for what has to go on after a crash, and start it again in `begin`.
    """

    name: str
    run: Callable[[], Awaitable[object]]
    tries: int = 5
    about: str = ""


class Cancel(Struct, frozen=True):
    """Cancel the running effect of this name, if there is one; no message comes back."""

    name: str


class Later(Struct, frozen=True):
    """Deliver a message to oneself after a while. Not remembered, like an effect."""

    delay_ms: int
    message: object


class Tell(Struct, frozen=True):
    """Publish on the own live subject; lost when nobody listens or the bus is away."""

    topic: str
    data: bytes


class Keep(Struct, frozen=True):
    """Keep a row of the actor's own, which `begin` gets after a restart. The same name replaces it."""

    name: str
    value: bytes


class Drop(Struct, frozen=True):
    """Forget a kept row."""

    name: str


class Answer(Struct, frozen=True):
    """Answer the question that is being decided (`Runtime.ask`), after all else of this decision is on disk."""

    data: bytes


class AnswerSaid(Struct, frozen=True):
    """Like `Answer`, with what `make` makes of the event that is said under ``key`` in this decision or was before."""

    key: str
    make: Callable[["Spoken"], bytes]


Command = Say | Start | Cancel | Later | Tell | Keep | Drop | Answer | AnswerSaid


# Outcomes of a message.


class Done(Struct, frozen=True):
    """Decided: carry the commands out."""

    commands: tuple[Command, ...] = ()


class AgainLater(Struct, frozen=True):
    """Nothing is decided; deliver the message again after ``delay_ms``. Ends as `NeverAgain` after many tries."""

    delay_ms: int
    why: str


class NeverAgain(Struct, frozen=True):
    """The message is kept among the dead letters with this reason; ``commands`` are carried out."""

    code: str
    detail: str
    commands: tuple[Command, ...] = ()


Decision = Done | AgainLater | NeverAgain


def done(*commands: Command) -> Done:
    """Decided, with these commands."""
    return Done(commands)


# Messages that the runtime itself brings.


class Spoken(Struct, frozen=True):
    """An event that the actor has said: its key, id and nonce, and the draft that it was made of."""

    key: str
    event: str
    nonce: int
    draft: Draft


class Heard(Struct, frozen=True):
    """What one has said is in a final block, with this outcome. Comes once, in one transaction with what it causes."""

    key: str
    event: str
    nonce: int
    outcome: Outcome
    height: int


class TurnedAway(Struct, frozen=True):
    """A mempool says that it turned an own event away: unsigned hearsay. ``given_up`` when our own check agrees."""

    key: str
    event: str
    refusal: AnyRefusal
    given_up: bool


class EffectFailed(Struct, frozen=True):
    """An effect ended with an error, after all of its tries."""

    name: str
    error: Exception


class Actor(Protocol):
    """What the runtime drives. Both methods are pure: no clock, no input or output, no await."""

    @property
    def name(self) -> str:
        """Names the actor in logs and spans: `miner`, `wallet`, …"""

    def begin(self, rows: Mapping[str, bytes], now_ms: int) -> Done:
        """Called once, before the first message, with all kept rows."""

    def decide(self, message: object, now_ms: int) -> Decision:
        """Decides one message. An AssayError that it raises is `NeverAgain`, an AssertionError stops the process."""
