"""Hashes, signatures and the reading of blocks, votes and the genesis."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from events.blocks import (
    block_signature_holds,
    commit_signature_holds,
    decode_block,
    decode_genesis,
    decode_vote,
    genesis_hash,
    hash_of,
    sign_block,
    sign_vote,
    vote_signature_holds,
)
from events.canonical import canonical, digest
from events.errors import VerificationFailed
from events.keys import BLOCK_DOMAIN, EVENT_DOMAIN
from schemas.blocks import CommitSignature, Vote
from tests.golden import samples

BLOCK = samples.block()
BLOCK_BYTES = canonical(BLOCK)
VOTE = samples.vote_of(samples.VALIDATORS[0])
VOTE_BYTES = canonical(VOTE)
GENESIS_BYTES = canonical(samples.genesis())
Decode = Callable[[bytes], Any]


def test_the_hash_covers_every_field_of_the_header() -> None:
    """A header that differs in any field has another hash."""
    header = samples.header()
    changes: dict[str, Any] = {
        name: value + 1 if isinstance(value, int) else () if isinstance(value, tuple) else value[::-1]
        for name, value in msgspec.structs.asdict(header).items()
    }
    changed = [hash_of(msgspec.structs.replace(header, **{name: value})) for name, value in changes.items()]
    assert len({hash_of(header), *changed}) == len(changes) + 1


def test_the_genesis_has_one_hash_however_it_is_spaced() -> None:
    """White space and the order of keys in the file do not count: the hash is that of the canonical bytes."""
    spaced = json.dumps(dict(reversed(json.loads(GENESIS_BYTES).items())), indent=4).encode()
    assert spaced != GENESIS_BYTES
    assert genesis_hash(decode_genesis(spaced)) == genesis_hash(samples.genesis()) == digest(GENESIS_BYTES)


def test_another_parameter_is_another_chain() -> None:
    """The genesis hash covers the parameters."""
    genesis = samples.genesis()
    other = msgspec.structs.replace(
        genesis,
        parameters=msgspec.structs.replace(genesis.parameters, fee_burn_bps=genesis.parameters.fee_burn_bps - 1),
    )
    assert genesis_hash(other) != genesis_hash(genesis)


def test_a_block_keeps_the_bytes_of_its_events() -> None:
    """Written and read again, a block is the same to the byte, its events' envelopes included."""
    read = decode_block(BLOCK_BYTES)
    assert canonical(read) == BLOCK_BYTES
    assert [bytes(raw) for raw in read.events] == [signed.raw for signed in samples.signed_events().values()]
    assert hash_of(read.header) == hash_of(samples.header())


def test_a_block_may_be_empty_of_events() -> None:
    """A block of timers alone has no events."""
    block = sign_block(samples.header(), (), samples.VALIDATORS[2])
    assert canonical(block).startswith(b'{"events":[],"header":{')
    assert decode_block(canonical(block)) == block


def test_a_block_is_its_proposers() -> None:
    """The signature is that of the header's proposer over the header; any other is none."""
    header = samples.header()
    assert block_signature_holds(BLOCK)
    assert not block_signature_holds(sign_block(header, (), samples.VALIDATORS[1]))
    changed = msgspec.structs.replace(header, gas=header.gas + 1)
    assert not block_signature_holds(msgspec.structs.replace(BLOCK, header=changed))
    as_event = samples.VALIDATORS[2].sign(EVENT_DOMAIN + canonical(header))
    assert not block_signature_holds(msgspec.structs.replace(BLOCK, sig=as_event))


def test_a_vote_is_its_validators() -> None:
    """A vote holds for its validator, block, height and chain, and for no other."""
    assert vote_signature_holds(VOTE)
    other = samples.VALIDATORS[1].address
    for change in ({"validator": other}, {"height": 3}, {"block": samples.JOB}, {"chain": "other-chain"}):
        changed = msgspec.structs.replace(VOTE.vote, **change)
        assert not vote_signature_holds(msgspec.structs.replace(VOTE, vote=changed))
    assert not vote_signature_holds(sign_vote(VOTE.vote, samples.ALICE))
    as_block = samples.VALIDATORS[0].sign(BLOCK_DOMAIN + canonical(VOTE.vote))
    assert not vote_signature_holds(msgspec.structs.replace(VOTE, sig=as_block))


def test_an_entry_of_a_commit_is_a_vote() -> None:
    """The signature in a commit is that of the whole vote, rebuilt from where the commit stands."""
    vote = VOTE.vote
    entry = CommitSignature(validator=vote.validator, sig=VOTE.sig)
    assert commit_signature_holds(entry, vote.chain, vote.height, vote.block)
    assert not commit_signature_holds(entry, "other-chain", vote.height, vote.block)
    assert not commit_signature_holds(entry, vote.chain, vote.height + 1, vote.block)
    assert not commit_signature_holds(entry, vote.chain, vote.height, samples.JOB)
    stolen = CommitSignature(validator=samples.VALIDATORS[1].address, sig=VOTE.sig)
    assert not commit_signature_holds(stolen, vote.chain, vote.height, vote.block)


def test_a_vote_can_be_read() -> None:
    """Written and read again, a vote is the same."""
    assert decode_vote(VOTE_BYTES) == VOTE
    assert isinstance(decode_vote(VOTE_BYTES).vote, Vote)


@pytest.mark.parametrize(
    ("decode", "data", "why"),
    [
        (decode_block, b"", "truncated"),
        (decode_block, b"[]", "object"),
        (decode_block, BLOCK_BYTES[:-1], "truncated"),
        (decode_block, BLOCK_BYTES + b" ", "not canonical"),
        (decode_block, b" " + BLOCK_BYTES, "not canonical"),
        (decode_block, BLOCK_BYTES + b"}", "malformed"),
        (decode_block, BLOCK_BYTES.replace(b',"header"', b', "header"'), "not canonical"),
        (decode_block, BLOCK_BYTES.replace(b'"events":[', b'"events":[ '), "not canonical"),
        (decode_block, BLOCK_BYTES.replace(b'"round":0', b'"round":0,"round":0'), "not canonical"),
        (decode_block, BLOCK_BYTES.replace(b'"round":0', b'"round":0.0'), "float"),
        (decode_block, BLOCK_BYTES.replace(b'"round":0', b'"round":null'), "null"),
        (decode_block, BLOCK_BYTES.replace(b'"round":0', b'"round":-1'), ">= 0"),
        (decode_block, BLOCK_BYTES.replace(b'"round":0', b'"rounds":0'), "unknown field"),
        (decode_block, BLOCK_BYTES.replace(b'"round":0', b'"r\\u006fund":0'), "not canonical"),
        (decode_block, b'{"events":[' + b"[" * 200_000, "nested too deeply"),
        (decode_block, b'{"events":[' + b'{"a":' * 200_000, "nested too deeply"),
        (decode_block, BLOCK_BYTES.replace(b"assay-test", b"assay\xfftest"), "utf-8"),
        (decode_block, VOTE_BYTES, "unknown field"),
        (decode_vote, BLOCK_BYTES, "unknown field"),
        (decode_vote, VOTE_BYTES + b"\n", "not canonical"),
        (decode_vote, VOTE_BYTES.replace(b'"height":2', b'"height":9007199254740992'), "<= 9007199254740991"),
        (decode_vote, VOTE_BYTES.replace(b'"height":2', b'"height":"2"'), "str"),
        (decode_vote, b"\xff", "malformed"),
        (decode_genesis, b"{}", "missing"),
        (decode_genesis, GENESIS_BYTES.replace(b'"rules":1', b'"rules":0'), ">= 1"),
        (decode_genesis, GENESIS_BYTES.replace(b'"rules":1', b'"rules":1,"more":1'), "unknown field"),
        (decode_genesis, GENESIS_BYTES.replace(b'"fee_burn_bps":5000', b'"fee_burn_bps":10001'), "<= 10000"),
    ],
)
def test_what_is_no_record_of_the_log_is_refused(decode: Decode, data: bytes, why: str) -> None:
    """Bytes that are not exactly one block, vote or genesis are refused with the reason and a hint."""
    with pytest.raises(VerificationFailed, match=why) as caught:
        decode(data)
    assert caught.value.hint
    assert caught.value.exit_code == 7
