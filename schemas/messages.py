"""What travels beside the log: feed entries, live messages, wallet requests, queries and their answers."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from schemas.blocks import Header, Outcome
from schemas.refusals import AnyRefusal
from schemas.values import Address, BasisPoints, ChainId, Count, Digest, Height, Nonce, Signature, TimeMs


class FeedEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One final event (or timer) that concerns the feed's owner; ``index`` is the place among the block's outcomes.

    ``event`` is the envelope byte for byte; a timer has none.
    """

    index: Count
    outcome: Outcome
    event: Raw | UnsetType = UNSET


class FeedMessage(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that one final block holds for one address."""

    chain: ChainId
    height: Height
    block: Digest
    time_ms: TimeMs
    entries: Annotated[tuple[FeedEntry, ...], Meta(min_length=1)]


class EventRefused(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Live topic ``refused``: a mempool turned an event away. ``event`` is its id where the bytes could be read."""

    refusal: AnyRefusal
    hint: str
    event: Digest | UnsetType = UNSET


class Progress(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Live topic ``progress``: how far a miner is with a job, in basis points of its work."""

    job: Digest
    stage: str
    done_bps: BasisPoints


class Problem(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An error as an answer: what, why, and how to mend it."""

    code: str
    detail: str
    hint: str
    data: dict[str, Any] | UnsetType = UNSET


class WalletRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An unsigned event for a wallet to complete and sign: ``event`` has ``type`` and the fields of that type.

    The same ``key`` is the same request: asked again, the answer is the same and nothing is signed twice.
    """

    key: Annotated[str, Meta(min_length=1, max_length=128)]
    event: Raw


class WalletSigned(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="signed", tag_field="answer"):
    """The wallet has signed and published it."""

    event: Digest
    nonce: Nonce
    sender: Address


class WalletRefused(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="refused", tag_field="answer"):
    """The wallet has not signed it."""

    problem: Problem


WalletAnswer = WalletSigned | WalletRefused


class QueryAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="found", tag_field="answer"):
    """What was asked for, at the height of the answering node's last final block."""

    height: Height
    value: Raw


class QueryRefused(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="problem", tag_field="answer"):
    """The question could not be answered."""

    height: Height
    problem: Problem


class StateProof(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shows that ``key`` has ``value`` (or none: absent) under ``state_root`` of a block.

    ``siblings`` are the hashes beside the path, from the root down, an empty subtree as 64 zeros. ``neighbour`` is
    the other leaf that an absent key's path ends at: its key hash and value hash.
    """

    key: str
    siblings: Annotated[tuple[Digest, ...], Meta(max_length=256)]
    value: Raw | UnsetType = UNSET
    neighbour: tuple[Digest, Digest] | UnsetType = UNSET


class InclusionProof(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """RFC 9162 audit path of leaf ``index`` among ``size`` leaves, from the leaf up."""

    index: Count
    size: Count
    path: Annotated[tuple[Digest, ...], Meta(max_length=64)]


class BlockProof(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A header with the signatures that made it final: enough to check against a genesis without the chain's state."""

    header: Header
    votes: tuple[tuple[Address, Signature], ...]


class ProofBundle(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A proof that can be checked offline: of a state record, or of an event in a block."""

    kind: Literal["state", "event"]
    block: BlockProof
    state: StateProof | UnsetType = UNSET
    event: Raw | UnsetType = UNSET
    inclusion: InclusionProof | UnsetType = UNSET
