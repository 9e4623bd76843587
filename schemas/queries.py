"""Questions that nodes answer and the answers to them: the values inside `schemas.messages.QueryAnswer`.

Every question may carry ``min_height``: the node then answers only once its read model has reached that height, so
that whoever was told of an event at height *h* can ask about its effects anywhere. Lists come in pages: ``next``,
where present, is the ``cursor`` to ask for the next page with.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from schemas.blocks import Commit, Header, Outcome
from schemas.messages import ProofBundle
from schemas.receipts import SignedReceipt
from schemas.state import Account, Attestation, Job, Miner, Supply
from schemas.values import Address, ChainId, Count, Digest, Height, Nonce, TimeMs

MAX_PAGE = 500
DEFAULT_PAGE = 50

Cursor = Annotated[str, Meta(pattern=r"^[0-9]{1,16}(\.[0-9]{1,8})?\Z", description="where the next page begins")]
AddressCursor = Address
Page = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="entries wanted at most")]
SituationName = Annotated[str, Meta(pattern=r"^(open|assigned|committed|revealed|settled|refunded|cancelled)\Z")]
StateKey = Annotated[
    str, Meta(pattern=r"^((account|attestation|miner)/[UM][A-Z2-7]{55}|job/[0-9a-f]{64}|supply)\Z", max_length=128)
]


class Question(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all questions, and the whole of those that need no argument (``status``, ``genesis``)."""

    min_height: Height | UnsetType = UNSET


class AccountQuestion(Question, frozen=True):
    """``account`` and ``nonce``."""

    address: Address


class JobQuestion(Question, frozen=True):
    """``job`` and ``receipt``."""

    job: Digest


class JobsQuestion(Question, frozen=True):
    """``jobs``: newest first, of one owner, in one situation, both, or all."""

    owner: Address | UnsetType = UNSET
    situation: SituationName | UnsetType = UNSET
    limit: Page = DEFAULT_PAGE
    cursor: Cursor | UnsetType = UNSET


class BlockQuestion(Question, frozen=True):
    """``block``: by height or by hash, exactly one. ``cursor`` is for the outcomes beyond the first page of a block."""

    height: Height | UnsetType = UNSET
    hash: Digest | UnsetType = UNSET
    limit: Page = MAX_PAGE
    cursor: Cursor | UnsetType = UNSET


class BlocksQuestion(Question, frozen=True):
    """``blocks``: newest first."""

    limit: Page = DEFAULT_PAGE
    cursor: Cursor | UnsetType = UNSET


class EventQuestion(Question, frozen=True):
    """``event``: by its id."""

    event: Digest


class EventsQuestion(Question, frozen=True):
    """``events``: what concerns one address, newest first."""

    address: Address
    limit: Page = DEFAULT_PAGE
    cursor: Cursor | UnsetType = UNSET


class ProofQuestion(Question, frozen=True):
    """``proof``: of a state record under the newest block, or of an event in its block; exactly one."""

    key: StateKey | UnsetType = UNSET
    event: Digest | UnsetType = UNSET


class MinerQuestion(Question, frozen=True):
    """``miner``."""

    miner: Address


class AttestationQuestion(Question, frozen=True):
    """``attestation``: what a miner has claimed of its host, and what exams found."""

    miner: Address


class MinersQuestion(Question, frozen=True):
    """``miners``: in order of address."""

    limit: Page = DEFAULT_PAGE
    cursor: AddressCursor | UnsetType = UNSET


class HeadersQuestion(Question, frozen=True):
    """``headers``: upwards from one height, each with the votes that made it final."""

    first: Height
    limit: Page = DEFAULT_PAGE


class AccountAnswer(Account, frozen=True, kw_only=True):
    """The account's record with its address. An address that was never seen has an empty account."""

    address: Address


class NonceAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The nonce that the next event of ``address`` must carry, by final blocks alone."""

    address: Address
    nonce: Nonce


class EventAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One final event, or timer, and what came of it. ``index`` is its place among the outcomes of the block.

    ``envelope`` holds the bytes that were signed; a timer has none.
    """

    height: Height
    index: Count
    time_ms: TimeMs
    block: Digest
    outcome: Outcome
    envelope: Raw | UnsetType = UNSET


class EventsAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    events: tuple[EventAnswer, ...]
    next: Cursor | UnsetType = UNSET


class JobAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job as it stands, with every event and timer that brought it there, oldest first.

    ``history`` is cut at `MAX_PAGE` entries, far above what the chain's limit of attempts allows.
    """

    id: Digest
    job: Job
    history: tuple[EventAnswer, ...]


class JobEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: Digest
    job: Job


class JobsAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    jobs: tuple[JobEntry, ...]
    next: Cursor | UnsetType = UNSET


class BlockEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One block in a list. ``timers`` and ``events`` are counts."""

    hash: Digest
    header: Header
    votes: Commit
    timers: Count
    events: Count


class BlocksAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    blocks: tuple[BlockEntry, ...]
    next: Cursor | UnsetType = UNSET


class BlockAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One block with the outcomes of its timers and events, in order; an outcome names its event by id."""

    block: BlockEntry
    outcomes: tuple[Outcome, ...]
    next: Cursor | UnsetType = UNSET


class ReceiptAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A receipt and what proves it offline.

    ``inclusion`` shows the job.settled event in its final block; ``settlement`` shows the settled job, with both
    signatures, in the state under the answering node's newest block.
    """

    receipt: SignedReceipt
    inclusion: ProofBundle
    settlement: ProofBundle


class MinerEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    address: Address
    miner: Miner


class AttestationAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The record that a miner's score follows from."""

    address: Address
    attestation: Attestation


class MinersAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    miners: tuple[MinerEntry, ...]
    next: AddressCursor | UnsetType = UNSET


class StatusAnswer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a node stands. At height 0 the head is the genesis: its hash, its time, the root of its state.

    ``jobs`` counts jobs by situation; ``position`` is the sequence in CHAIN that the node has followed the log to.
    """

    chain: ChainId
    genesis: Digest
    height: Height
    head: Digest
    state_root: Digest
    time_ms: TimeMs
    position: Count
    supply: Supply
    events: Count
    failed: Count
    timers: Count
    miners: Count
    jobs: dict[str, Count]
