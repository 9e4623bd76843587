"""What a light actor asks about itself."""

import msgspec
import pytest

from actors.ledger import AccountAt, EventAt, QueriedLedger
from bus.port import Bus
from events.canonical import canonical
from events.errors import NotFound, Unreachable
from events.keys import Key
from schemas.blocks import Applied
from schemas.messages import Problem, QueryAnswer, QueryRefused
from schemas.queries import EventAnswer, NonceAnswer
from tests.actors.small_network import SmallNetwork

ADDRESS = Key(b"k" * 32).address
EVENT = "e" * 64


class Node(SmallNetwork):
    """Gives the prepared answers, and keeps the questions."""

    def __init__(self, *answers: object) -> None:
        super().__init__()
        self.answers = [answer if isinstance(answer, bytes) else canonical(answer) for answer in answers]
        self.questions: list[tuple[str, dict[str, object]]] = []

    async def query(self, what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        self.questions.append((what, msgspec.json.decode(data)))
        return self.answers.pop(0)


def ledger_of(node: Node) -> QueriedLedger:
    bus: Bus = node
    return QueriedLedger(bus, ADDRESS)


def found(height: int, value: object) -> QueryAnswer:
    return QueryAnswer(height=height, value=msgspec.Raw(canonical(value)))


def refused(height: int, code: str) -> QueryRefused:
    return QueryRefused(height=height, problem=Problem(code=code, detail="why", hint=""))


NONCE = found(7, NonceAnswer(address=ADDRESS, nonce=3))


async def test_an_event_that_is_found_has_its_outcome() -> None:
    """The height is that of the block that holds it, or later."""
    outcome = Applied(event=EVENT, fee=1)
    answer = found(9, EventAnswer(height=4, index=0, time_ms=1, block="b" * 64, outcome=outcome))
    assert await ledger_of(Node(answer)).event(EVENT) == EventAt(outcome, 9)


async def test_an_event_is_missing_only_as_of_the_height_that_was_asked_for() -> None:
    """Another node may answer, and move on while it does: its own height proves nothing about what it did not find."""
    node = Node(NONCE, refused(12, NotFound.code))
    ledger = ledger_of(node)
    assert await ledger.account() == AccountAt(3, 7)
    assert await ledger.event(EVENT) == EventAt(None, 7)
    assert node.questions[1] == ("event", {"event": EVENT, "min_height": 7})


@pytest.mark.parametrize("answer", [b"garbage", refused(1, "TIMED_OUT")])
async def test_no_answer_is_no_knowledge(answer: object) -> None:
    """What cannot be read, or was refused for another reason, is a failure to ask, never an absence."""
    with pytest.raises(Unreachable):
        await ledger_of(Node(answer)).event(EVENT)
    with pytest.raises(Unreachable):
        await ledger_of(Node(answer)).account()
