"""A log that has lost its newest messages, as a server without replicas does when its power is cut, and a node that
still holds what was in them.

When a node starts, it compares the message that made its head final with what the log has there now. Where they differ,
it begins anew from the log that there is, but keeps the blocks that the log has lost: proposers put them back, and
nobody believes another block in their place.
"""

from functools import partial
from typing import Final

from bus.port import Bus, ChainMessage, Clock
from events.blocks import decode_block, decode_vote, hash_of
from events.errors import Unreachable, VerificationFailed
from projections.read_model import ReadModel, Restored
from projections.read_model_kept import block_sequence

# A server that was cut off from the others of its cluster answers for so long as if it still led the log.
PATIENCE_MS: Final = 12_000
LOOK_MS: Final = 500
READ_MS: Final = 5_000
READ_AT_ONCE: Final = 256


async def first_lost(bus: Bus, clock: Clock, model: ReadModel, restored: Restored, head_hash: str) -> int | None:
    """The height from which on the log may have lost final blocks of the rows; None when it is as it was.

    Raises SequenceGap for a log whose beginning is gone, Unreachable.
    """
    if restored.head is None:
        return None
    waited_ms = 0
    while await bus.chain_end() < restored.position and waited_ms < PATIENCE_MS:
        await clock.sleep_ms(LOOK_MS)
        waited_ms += LOOK_MS
    if await _is_still_final(bus, model, restored, restored.head.height, head_hash):
        return None
    await (await bus.read_chain(0)).close()
    # What was lost is an end, so the blocks that are still there are a beginning.
    there, height = 0, restored.head.height
    while there < height:
        middle = (there + height + 1) // 2
        sequence, block_hash = await model.read(partial(block_sequence, height=middle))
        message = await _message(bus, sequence)
        if message is not None and _is_block(message, block_hash):
            there = middle
        else:
            height = middle - 1
    # Of the last block that is there the votes may be gone.
    return max(there, 1)


async def _is_still_final(bus: Bus, model: ReadModel, restored: Restored, height: int, head_hash: str) -> bool:
    """Whether the log makes the head final at the same place as before, with the same votes.

    One message does not tell: who says a vote again after the loss may put it where another vote was.
    """
    if await bus.chain_end() < restored.position:
        return False
    # Votes may come before their block, but not before the block of the height before.
    at = (await model.read(partial(block_sequence, height=height - 1)))[0] if height > 1 else 0
    said: list[str] = []
    reader = await bus.read_chain(at)
    try:
        while at < restored.position:
            messages = await reader.next(min(READ_AT_ONCE, restored.position - at), READ_MS)
            if not messages:
                raise Unreachable(f"the NATS server does not give message {at + 1} of the log")
            said += [decode_vote(each.data).sig for each in messages if is_vote_for(each, head_hash)]
            at = messages[-1].sequence
    finally:
        await reader.close()
    return is_vote_for(messages[-1], head_hash) and all(vote.sig in said for vote in restored.votes)


async def _message(bus: Bus, sequence: int) -> ChainMessage | None:
    """The message that the log has under this sequence, None where it ends before."""
    if await bus.chain_end() < sequence:
        return None
    reader = await bus.read_chain(sequence - 1)
    try:
        found = await reader.next(1, READ_MS)
    finally:
        await reader.close()
    if not found:
        raise Unreachable(f"the NATS server does not give message {sequence} of the log")
    return found[0]


def is_vote_for(message: ChainMessage, block_hash: str) -> bool:
    """Whether it is a vote for this block."""
    try:
        return message.kind == "vote" and decode_vote(message.data).vote.block == block_hash
    except VerificationFailed:
        return False


def _is_block(message: ChainMessage, block_hash: str) -> bool:
    try:
        return message.kind == "block" and hash_of(decode_block(message.data).header) == block_hash
    except VerificationFailed:
        return False
