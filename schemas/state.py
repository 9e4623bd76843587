"""The records of the ledger's state, which the state root commits to.

The state is a map from a key to one such record: ``account/<address>``,
``attestation/<address>``, ``job/<id>``, ``miner/<address>``, ``supply``.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.attestation import (
    MAX_GPUS,
    ExamAnswer,
    ExamCause,
    ExamOpening,
    ExamShape,
    ExamVerdict,
    Grade,
    HostEvidence,
    Memory,
    Points,
)
from schemas.events import Device, Offer, Reason, Requirement
from schemas.services import Work
from schemas.values import Address, Amount, Count, Digest, DurationMs, Height, Name, Nonce, Signature, TimeMs


class Account(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Coins and the nonce that the next event must carry; faucet counters are per day of block time (day = ms //
    86,400,000)."""

    balance: Amount = 0
    nonce: Nonce = 0
    faucet_day: Count = 0
    faucet_used: Amount = 0


class Supply(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Coins ever minted after genesis and ever burned: balances + escrows + bonds = genesis + minted - burned after
    every block. ``bonded`` is absent until the first bond."""

    genesis: Amount
    minted: Amount = 0
    burned: Amount = 0
    escrowed: Amount = 0
    bonded: Amount | UnsetType = UNSET


class Attested(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sum of a miner's attestation: that of its worst GPU. ``performance`` is in giga-operations per second, and 0
    like ``memory_mib`` until an exam was passed."""

    score: Points
    grade: Grade
    memory_mib: Memory = 0
    performance: Count = 0
    examined_ms: TimeMs | UnsetType = UNSET


class Standing(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a miner is worth to others: its results, and its bond.

    Of the results that it committed to (``submitted``), ``on_time`` were revealed in time and ``verified`` were right;
    ``late`` counts the deadlines that it missed, ``wrong`` its wrong results. ``unlocked`` of the coins that it bonded
    can be withdrawn from ``withdrawable_ms`` on; ``bond`` are the others. ``slashed`` was burned. ``attested`` is
    absent until the miner has claimed GPUs.
    """

    submitted: Count = 0
    on_time: Count = 0
    verified: Count = 0
    late: Count = 0
    wrong: Count = 0
    banned: bool = False
    bond: Amount = 0
    unlocked: Amount = 0
    withdrawable_ms: TimeMs = 0
    slashed: Amount = 0
    attested: Attested | UnsetType = UNSET


class ExamCommitment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A miner's answers. Which rows it has to open follows from the hash of the block at ``committed_height``."""

    answers: Annotated[tuple[ExamAnswer, ...], Meta(max_length=MAX_GPUS)]
    committed_ms: TimeMs
    committed_height: Height


class Examination(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An exam that a miner is in: it has to commit, and then to reveal, until ``deadline_ms``, and waits for the
    verdict once there are ``openings``. Its seed is the hash of the block at ``opened_height``; ``exam`` is the id of
    the event that opened it."""

    exam: Digest
    cause: ExamCause
    shape: ExamShape
    opened_ms: TimeMs
    opened_height: Height
    deadline_ms: TimeMs
    commitment: ExamCommitment | UnsetType = UNSET
    openings: Annotated[tuple[ExamOpening, ...], Meta(max_length=MAX_GPUS)] | UnsetType = UNSET


class Examined(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The last verdict. ``performance`` has a GPU's giga-operations per second, from the block times of the exam's
    opening and its answer, in the order of the verdict; 0 where the result is not right. ``duration_ms`` is the time
    between these blocks. ``shared`` has the GPUs that another miner had claimed before and has shown to have.
    """

    verdict: ExamVerdict
    cause: ExamCause
    coordinator: Address
    opened_ms: TimeMs
    judged_ms: TimeMs
    judged_height: Height
    duration_ms: Count
    performance: Annotated[tuple[Count, ...], Meta(max_length=MAX_GPUS)]
    shared: Annotated[tuple[str, ...], Meta(max_length=MAX_GPUS)] = ()


class Attestation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a miner says of its host, and what exams found. ``since_ms`` is when it first claimed just these GPUs; its
    score follows from this record alone (`projections.attestation`). ``previous`` is the slowest GPU's performance in
    the exam before the last one."""

    evidence: HostEvidence
    since_ms: TimeMs
    claimed_ms: TimeMs
    claimed_height: Height
    examination: Examination | UnsetType = UNSET
    examined: Examined | UnsetType = UNSET
    previous: Count = 0


class Miner(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A registered miner; ``running`` counts its unfinished jobs. ``standing`` is absent until there is something to
    say, and on chains without trust parameters."""

    name: Name
    capacity: Count
    devices: tuple[Device, ...]
    offers: tuple[Offer, ...]
    registered_ms: TimeMs
    running: Count = 0
    settled: Count = 0
    failed: Count = 0
    earned: Amount = 0
    standing: Standing | UnsetType = UNSET


class Assignment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who does the job, for whom it was matched, and at which price."""

    miner: Address
    coordinator: Address
    price: Amount
    assigned_ms: TimeMs
    assigned_height: Height


class Commitment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the miner bound itself to. ``challenge`` is drawn from the block that included it."""

    root: Digest
    result: Digest
    size: Count
    committed_ms: TimeMs
    committed_height: Height


class Open(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="open", tag_field="situation"):
    """Waits for a miner, until its lifetime ends at ``deadline_ms``."""

    deadline_ms: TimeMs


class Assigned(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="assigned", tag_field="situation"):
    """A miner works on it and has until ``deadline_ms`` to commit."""

    deadline_ms: TimeMs
    assignment: Assignment


class Committed(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="committed", tag_field="situation"):
    """The result is fixed; the miner has until ``deadline_ms`` to reveal it."""

    deadline_ms: TimeMs
    assignment: Assignment
    commitment: Commitment


class Revealed(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="revealed", tag_field="situation"):
    """The result can be fetched; a coordinator has until ``deadline_ms`` to give its verdict."""

    deadline_ms: TimeMs
    assignment: Assignment
    commitment: Commitment
    miner_sig: Signature


class Settled(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="settled", tag_field="situation"):
    """Verified and paid."""

    assignment: Assignment
    commitment: Commitment
    miner_sig: Signature
    coordinator_sig: Signature
    ended_ms: TimeMs
    ended_height: Height


class Refunded(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="refunded", tag_field="situation"):
    """The whole escrow went back to the owner."""

    reason: Reason
    ended_ms: TimeMs
    ended_height: Height


class Cancelled(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="cancelled", tag_field="situation"):
    """Withdrawn by its owner before a miner had it; the escrow went back."""

    ended_ms: TimeMs
    ended_height: Height


Situation = Open | Assigned | Committed | Revealed | Settled | Refunded | Cancelled
UNFINISHED = (Open, Assigned, Committed, Revealed)


class Attempt(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A miner that had the job and did not bring it to the end."""

    miner: Address
    reason: Reason


class Job(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job with what was asked, what has been tried, and its present situation."""

    owner: Address
    work: Work
    escrow: Amount
    timeout_ms: DurationMs
    requirement: Requirement
    submitted_ms: TimeMs
    submitted_height: Height
    expires_ms: TimeMs
    attempts: Annotated[tuple[Attempt, ...], Meta(max_length=100)] = ()
    situation: Situation


Record = Account | Supply | Miner | Attestation | Job


def situation_of(job: Job) -> str:
    """The name of the job's situation, as in its field ``situation``."""
    return str(job.situation.__struct_config__.tag)
