"""Building a block out of waiting events, under the same checks that a reader applies."""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from events.blocks import sign_block
from events.canonical import canonical, digest
from events.envelope import SignedEvent, signature_holds
from events.keys import Key
from projections import blocks
from projections.execute import BlockExecution, Executed, gas_of
from projections.state import Context, State
from schemas.blocks import Block, Commit, Header
from schemas.refusals import BadSignature, Refusal, TooLarge
from schemas.values import MAX_SAFE_INTEGER

_UNKNOWN = "0" * 64
_UNSIGNED = "A" * 86


class Built(Struct, frozen=True, kw_only=True):
    """A new block, its bytes, and what its execution gave."""

    block: Block
    block_bytes: bytes
    events: tuple[SignedEvent, ...]
    executed: Executed


def header_in_place(parent: blocks.Parent, commit: Commit, proposer: str, time_ms: int, round: int) -> Header | None:  # noqa: A002
    """The next block's header as far as it is known before execution; None where it would not stand in its place."""
    header = Header(
        chain=parent.genesis.chain,
        genesis=parent.genesis_hash,
        height=parent.height + 1,
        parent=parent.hash,
        time_ms=time_ms,
        proposer=proposer,
        round=round,
        rules=parent.genesis.rules,
        event_root=_UNKNOWN,
        outcome_root=_UNKNOWN,
        state_root=_UNKNOWN,
        gas=MAX_SAFE_INTEGER,
        commit=commit,
    )
    return None if blocks.place_fault(header, parent) else header


class _Picking:
    """Fills a block in the given order, up to the first event that does not fit any more."""

    def __init__(self, state: State, header: Header) -> None:
        self.execution = BlockExecution(
            state, Context(height=header.height, time_ms=header.time_ms, proposer=header.proposer)
        )
        self.picked: list[SignedEvent] = []
        self.refused: list[tuple[SignedEvent, Refusal]] = []
        parameters = state.parameters
        # The gas is yet unknown and stands here with all its possible digits, so the size is an upper bound.
        self._bytes_left = parameters.max_block_bytes - len(canonical(Block(events=(), header=header, sig=_UNSIGNED)))
        self._gas_left = parameters.max_block_gas
        self._events_left = parameters.max_block_events

    def take(self, signed: SignedEvent) -> bool:
        """Includes or refuses the event. False: the block is full."""
        size, gas = len(signed.raw) + 1, gas_of(signed.event)
        if size > self._bytes_left or gas > self._gas_left or self._events_left == 0:
            if self.picked:
                return False
            # It would never fit into any block, and must not keep the others waiting.
            self.refused.append((signed, TooLarge(limit=self._bytes_left, size=size)))
            return True
        refusal = self.execution.include(signed)
        if refusal is not None:
            self.refused.append((signed, refusal))
            return True
        self.picked.append(signed)
        self._bytes_left -= size
        self._gas_left -= gas
        self._events_left -= 1
        return True


def build(
    state: State, header: Header, key: Key, events: Sequence[SignedEvent], verified: Callable[[str], bool]
) -> tuple[Built | None, list[tuple[SignedEvent, Refusal]]]:
    """The block, None where it would be empty, and the events that cannot be included, each with its refusal.

    ``header`` is from `header_in_place`. Events of a sender must come in the order of their nonces.
    """
    picking = _Picking(state, header)
    for signed in events:
        if not verified(digest(signed.raw)) and not signature_holds(signed):
            picking.refused.append((signed, BadSignature(sender=signed.event.sender)))
        elif not picking.take(signed):
            break
    executed = picking.execution.finish()
    if not picking.picked and executed.timers == 0:
        return None, picking.refused
    header = msgspec.structs.replace(
        header,
        event_root=executed.event_root,
        outcome_root=executed.outcome_root,
        state_root=executed.state_root,
        gas=executed.gas,
    )
    block = sign_block(header, tuple(signed.raw for signed in picking.picked), key)
    built = Built(block=block, block_bytes=canonical(block), events=tuple(picking.picked), executed=executed)
    return built, picking.refused
