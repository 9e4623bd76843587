"""What somebody with access to the streams may put there without any right to."""

from collections.abc import Callable
from typing import Any

import msgspec

from events import subjects
from events.blocks import sign_block, sign_vote
from events.canonical import canonical, digest
from events.keys import Key
from schemas.blocks import Header, Vote
from tests.end_to_end.strangers import (
    NOBODY,
    Ground,
)


async def next_header(ground: Ground, proposer: str) -> Header:
    """A header for the next block that looks right but for its roots."""
    block = (await ground.rich.last_block())["block"]
    header = msgspec.convert(block["header"], Header)
    commit = tuple({"validator": vote["validator"], "sig": vote["sig"]} for vote in block["votes"])
    fields = msgspec.structs.asdict(header) | {
        "height": header.height + 1,
        "parent": block["hash"],
        "time_ms": header.time_ms + 10,
        "proposer": proposer,
        "commit": commit,
    }
    return msgspec.convert(msgspec.to_builtins(fields), Header)


async def block_of_a_stranger(ground: Ground) -> bytes:
    header = await next_header(ground, NOBODY.address)
    return canonical(sign_block(header, (), NOBODY))


async def block_in_the_name_of_a_validator(ground: Ground) -> bytes:
    header = await next_header(ground, ground.devnet.genesis.validators[0].address)
    return canonical(sign_block(header, (), NOBODY))


def validator_keys(ground: Ground) -> list[Key]:
    names = [f"proposer-{number}" for number in (1, 2, 3)]
    return sorted((ground.devnet.key(name) for name in names), key=lambda key: key.address)


async def block_of_a_validator_with_wrong_roots(ground: Ground) -> bytes:
    """What a validator that breaks the rules could say."""
    header = await next_header(ground, NOBODY.address)
    key = validator_keys(ground)[header.height % 3]
    return canonical(sign_block(msgspec.structs.replace(header, proposer=key.address, round=0), (), key))


async def block_of_another_chain(ground: Ground) -> bytes:
    """Signed by the right validator, for another chain of the same name."""
    header = await next_header(ground, NOBODY.address)
    key = validator_keys(ground)[header.height % 3]
    other = msgspec.structs.replace(header, proposer=key.address, round=0, genesis=digest(b"another genesis"))
    return canonical(sign_block(other, (), key))


async def vote_of_another_chain(ground: Ground) -> bytes:
    """Signed by a validator, for a block of another chain of the same name."""
    header = await next_header(ground, NOBODY.address)
    key = validator_keys(ground)[0]
    vote = Vote(block=digest(b"another block"), chain="another", height=header.height, validator=key.address)
    return canonical(sign_vote(vote, key))


def said_before(kind: str, back: int) -> Callable[[Ground], Any]:
    """A message of the log once more: the last of its kind, or one that many followed."""

    async def replay(ground: Ground) -> bytes:
        subject = subjects.block(ground.chain) if kind == "block" else subjects.vote(ground.chain)
        stream = subjects.stream(ground.chain, "CHAIN")
        last = await ground.raw.jetstream().get_last_msg(stream, subject)
        sequence = last.seq or 0
        while back and sequence > back:
            found = await ground.raw.jetstream().get_msg(stream, sequence - back)
            if found.subject == subject:
                return found.data or b""
            sequence -= 1
        return last.data or b""

    return replay


async def vote_of_a_stranger(ground: Ground) -> bytes:
    header = await next_header(ground, NOBODY.address)
    vote = Vote(block=header.parent, chain=ground.chain, height=header.height, validator=NOBODY.address)
    return canonical(sign_vote(vote, NOBODY))


async def vote_in_the_name_of_a_validator(ground: Ground) -> bytes:
    header = await next_header(ground, NOBODY.address)
    validator = ground.devnet.genesis.validators[0].address
    vote = Vote(block=header.parent, chain=ground.chain, height=header.height, validator=validator)
    return canonical(sign_vote(vote, NOBODY))


def constant(data: bytes) -> Callable[[Ground], Any]:
    async def give(ground: Ground) -> bytes:
        return data

    return give


IN_THE_LOG: dict[str, tuple[str, Callable[[Ground], Any]]] = {
    "nothing as a block": ("block", constant(b"")),
    "garbage as a block": ("block", constant(b"\xff\x00garbage")),
    "nesting as a block": ("block", constant(b"[" * 500_000)),
    "five megabytes as a block": ("block", constant(b'{"events":[' + b"1," * 2_500_000 + b"1]}")),
    "a stranger's block": ("block", block_of_a_stranger),
    "a block in the name of a validator": ("block", block_in_the_name_of_a_validator),
    "a validator's block with wrong roots": ("block", block_of_a_validator_with_wrong_roots),
    "a validator's block of another chain": ("block", block_of_another_chain),
    "the last block again": ("block", said_before("block", 0)),
    "an old block again": ("block", said_before("block", 30)),
    "the last vote again": ("vote", said_before("vote", 0)),
    "an old vote again": ("vote", said_before("vote", 30)),
    "a block as a vote": ("vote", said_before("block", 0)),
    "a validator's vote of another chain": ("vote", vote_of_another_chain),
    "nothing as a vote": ("vote", constant(b"")),
    "garbage as a vote": ("vote", constant(b"\xff\x00garbage")),
    "nesting as a vote": ("vote", constant(b'{"a":' * 100_000)),
    "a stranger's vote": ("vote", vote_of_a_stranger),
    "a vote in the name of a validator": ("vote", vote_in_the_name_of_a_validator),
}


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "no text": b"\xff\xfe",
    "no text in JSON": b'{"hint":"\xff","chain":"\xff"}',
    "nesting": b"[" * 100_000,
    "nesting in a field": b'{"chain":' + b"[" * 100_000,
    "nesting in an entry": b'{"chain":"devnet","entries":[{"event":' + b"[" * 100_000,
    "an acknowledgement": b'{"stream":"ASSAY_devnet_INBOX","seq":1}',
}
