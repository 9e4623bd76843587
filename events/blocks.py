"""Signing and reading of blocks and votes."""

from typing import TypeVar

import msgspec

from events.canonical import canonical, digest
from events.errors import VerificationFailed
from events.keys import BLOCK_DOMAIN, VOTE_DOMAIN, Key, verify
from schemas.blocks import Block, CommitSignature, Header, SignedVote, Vote
from schemas.genesis import Genesis

Record = TypeVar("Record")

_block_decoder = msgspec.json.Decoder(Block)
_vote_decoder = msgspec.json.Decoder(SignedVote)
_genesis_decoder = msgspec.json.Decoder(Genesis)


def hash_of(header: Header) -> str:
    """The block's hash: SHA-256 of the header's canonical bytes."""
    return digest(canonical(header))


def genesis_hash(genesis: Genesis) -> str:
    """The chain's identity, and the parent of block 1."""
    return digest(canonical(genesis))


def sign_block(header: Header, events: tuple[bytes, ...], key: Key) -> Block:
    """The block as it travels. ``events`` are envelopes, byte for byte."""
    return Block(
        events=tuple(msgspec.Raw(raw) for raw in events), header=header, sig=key.sign(BLOCK_DOMAIN + canonical(header))
    )


def block_signature_holds(block: Block) -> bool:
    """Whether the header's proposer signed it."""
    return verify(block.header.proposer, BLOCK_DOMAIN + canonical(block.header), block.sig)


def sign_vote(vote: Vote, key: Key) -> SignedVote:
    """The vote as it travels."""
    return SignedVote(sig=key.sign(VOTE_DOMAIN + canonical(vote)), vote=vote)


def vote_signature_holds(signed: SignedVote) -> bool:
    """Whether the named validator signed it."""
    return verify(signed.vote.validator, VOTE_DOMAIN + canonical(signed.vote), signed.sig)


def commit_signature_holds(signature: CommitSignature, chain: str, height: int, block: str) -> bool:
    """Whether one entry of a commit is its validator's vote for this block."""
    vote = Vote(block=block, chain=chain, height=height, validator=signature.validator)
    return verify(signature.validator, VOTE_DOMAIN + canonical(vote), signature.sig)


def decode_block(data: bytes) -> Block:
    """Raises VerificationFailed unless ``data`` is one block in canonical form. Events are not looked into."""
    return _decode(_block_decoder, data, "block")


def decode_vote(data: bytes) -> SignedVote:
    """Raises VerificationFailed unless ``data`` is one vote in canonical form."""
    return _decode(_vote_decoder, data, "vote")


def decode_genesis(data: bytes) -> Genesis:
    """Raises VerificationFailed unless ``data`` is one genesis. White space is allowed: people edit this file."""
    return _decode(_genesis_decoder, data, "genesis", exact=False)


def _decode(decoder: msgspec.json.Decoder[Record], data: bytes, what: str, *, exact: bool = True) -> Record:
    try:
        record = decoder.decode(data)
    except RecursionError as error:
        raise VerificationFailed(
            f"this is not a {what}", why="it is nested too deeply", hint=f"Compare it with the JSON Schema of a {what}."
        ) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise VerificationFailed(
            f"this is not a {what}", why=str(error), hint=f"Compare it with the JSON Schema of a {what}."
        ) from error
    if exact and canonical(record) != data:
        raise VerificationFailed(
            f"this is not a {what}",
            why="it is not canonical JSON",
            hint="Take the bytes as they are in the log: RFC 8785, keys sorted, no white space.",
        )
    return record
