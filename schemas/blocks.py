"""Blocks, votes and outcomes: what the log consists of."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from schemas.refusals import AnyRefusal
from schemas.values import Address, Amount, ChainId, Count, Digest, Height, Round, Signature, TimeMs


class CommitSignature(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One validator's vote inside a commit."""

    validator: Address
    sig: Signature


Commit = Annotated[tuple[CommitSignature, ...], Meta(max_length=7)]


class Header(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the block hash covers, and with it everything in the block.

    ``genesis`` is the digest of the chain's genesis, so that what holds under one header holds on no other chain of
    that name. ``parent`` is the hash of the header before (at height 1 the genesis digest), ``commit`` the quorum of
    votes for that parent, sorted by validator (empty at height 1). ``event_root`` and ``outcome_root`` are RFC 9162
    trees over the raw events and the canonical outcomes, ``state_root`` is the state after the block.
    """

    chain: ChainId
    genesis: Digest
    height: Height
    parent: Digest
    time_ms: TimeMs
    proposer: Address
    round: Round
    rules: Annotated[int, Meta(ge=1, le=1_000_000)]
    event_root: Digest
    outcome_root: Digest
    state_root: Digest
    gas: Count
    commit: Commit


class Block(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A header, the envelopes of its events byte for byte, and the proposer's signature of the header."""

    events: tuple[Raw, ...]
    header: Header
    sig: Signature


class Vote(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A validator holds ``block`` to be the one valid block at ``height``."""

    block: Digest
    chain: ChainId
    height: Height
    validator: Address


class SignedVote(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A vote as it travels."""

    sig: Signature
    vote: Vote


class Applied(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="applied", tag_field="result"):
    """The event did what it says."""

    event: Digest
    fee: Amount


class Failed(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="failed", tag_field="result"):
    """The event used its nonce and paid its fee, and did nothing else."""

    event: Digest
    fee: Amount
    refusal: AnyRefusal


class TimerFired(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="timer", tag_field="result"):
    """A deadline of a job passed, without anyone saying so; ``refunded`` went back to its owner."""

    job: Digest
    reason: str
    refunded: Amount


Outcome = Applied | Failed | TimerFired
