"""What the parsers under test need around them: a small chain with a bit of everything, stand-ins for the network."""

from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

import msgspec

from events.canonical import canonical
from events.envelope import sign
from events.keys import Key
from projections.chain import Chain
from schemas.blocks import Header
from schemas.events import TransferSent
from schemas.genesis import Genesis
from schemas.messages import FeedEntry, FeedMessage
from tests.projections.small_network import SmallNetwork, key_of
from tests.projections.story import story

Answer = TypeVar("Answer")


def run_now(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Runs a coroutine that never has to wait, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer
    coroutine.close()
    raise AssertionError("a coroutine that should not wait has waited")


def genesis() -> Genesis:
    """That of the story's chain, which the corpus is made from too."""
    return story().genesis


@cache
def head_of_story() -> tuple[Header, Any]:
    """The story's last header and the votes for it."""
    final = story().finals[-1]
    return final.header, final.votes


def chain_at_head() -> Chain:
    """A fold that stands at the end of the story, cheap to make: the state is shared, so it must not move on."""
    header, votes = head_of_story()
    return Chain(genesis(), state=story().chain.state, head=header, commit=votes)


@cache
def validator_keys() -> dict[str, Key]:
    """By address."""
    keys = [key_of(f"validator {index}") for index in range(len(genesis().validators))]
    return {key.address: key for key in keys}


@cache
def next_messages() -> dict[str, tuple[str, bytes]]:
    """Messages that could be the next in the story's log: kind and bytes, by what they are."""
    chain = chain_at_head()
    keys = validator_keys()
    transfer = sign(
        TransferSent(
            chain=chain.genesis.chain,
            sender=key_of("carol").address,
            nonce=0,
            gas_price=1,
            to=key_of("bob").address,
            amount=1,
        ),
        key_of("carol"),
    )
    alice = chain.state.account(key_of("alice").address)
    payment = sign(
        msgspec.structs.replace(transfer.event, sender=key_of("alice").address, nonce=alice.nonce), key_of("alice")
    )
    proposed = chain.propose(keys[chain.proposer_for(chain.height + 1, 0)], [payment], chain.earliest_ms(0), 0)
    if proposed is None or proposed[0] is None:
        raise AssertionError("there is no next block")
    block = canonical(proposed[0])
    chain.add(1, "block", block, None)
    vote = chain.vote(next(iter(keys.values())))
    return {"block": ("block", block), "vote": ("vote", canonical(vote))}


def feed_message() -> bytes:
    """What FEED holds for one block."""
    final = story().finals[3]
    entries = tuple(
        FeedEntry(index=index, outcome=outcome, event=msgspec.Raw(final.events[index - final.executed.timers].raw))
        for index, outcome in enumerate(final.executed.outcomes)
        if index >= final.executed.timers
    )
    return canonical(
        FeedMessage(
            chain=final.header.chain,
            height=final.header.height,
            block=final.hash,
            time_ms=final.header.time_ms,
            entries=entries,
        )
    )


class OneAnswer:
    """A bus on which every question gets the same answer, and every listener hears the same message."""

    def __init__(self) -> None:
        self.data = b""
        self.chain = genesis().chain

    async def query(self, what: str, data: bytes, timeout_ms: int = 0) -> bytes:
        return self.data


class OneMessage:
    """A listener that hears one message."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._heard = False

    def __aiter__(self) -> "OneMessage":
        return self

    async def __anext__(self) -> "OneMessage":
        if self._heard:
            raise StopAsyncIteration
        self._heard = True
        return self


def small_network() -> type[SmallNetwork]:
    return SmallNetwork


Check = Callable[[bytes], object]
