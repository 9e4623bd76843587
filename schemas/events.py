"""The events: everything that anyone can say, as frozen records told apart by the field ``type``.

A type name is for ever. A changed shape is a new record whose name ends in ``/2`` and so on, registered with an
upcaster in ``events.registry``. Optional fields are absent, never null.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.attestation import (
    MAX_GPUS,
    ExamAnswer,
    ExamCause,
    ExamOpening,
    ExamVerdict,
    Grade,
    HostEvidence,
    Points,
)
from schemas.services import Work
from schemas.values import (
    Address,
    Amount,
    ChainId,
    Count,
    Digest,
    DurationMs,
    Memo,
    Name,
    Nonce,
    PositiveAmount,
    ServiceName,
    Signature,
)

REASONS = (
    "BAD_INPUT",
    "BLOB_UNAVAILABLE",
    "MINER_FAILED",
    "NO_MINER",
    "RESULT_MALFORMED",
    "RESULT_UNAVAILABLE",
    "RESULT_WRONG",
)
Reason = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]{1,47}\Z", description="why, as a code")]


class Body(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every event says: on which chain, who, the sender's running number, and the price per unit of gas."""

    chain: ChainId
    sender: Address
    nonce: Nonce
    gas_price: Amount


class TransferSent(Body, frozen=True, tag="transfer.sent", tag_field="type"):
    """The sender gives ``amount`` to ``to``."""

    to: Address
    amount: PositiveAmount
    memo: Memo | UnsetType = UNSET


class FaucetRequested(Body, frozen=True, tag="faucet.requested", tag_field="type"):
    """The sender asks for new coins. Possible where the genesis sets faucet limits; the fee comes out of the amount."""

    amount: PositiveAmount


class Device(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device of a miner, as the miner claims it."""

    model: Name
    memory_mib: Annotated[int, Meta(ge=0, le=16_777_216)]


class Offer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A service that a miner sells, and its price per unit of that service."""

    service: ServiceName
    unit_price: Amount


class MinerRegistered(Body, frozen=True, tag="miner.registered", tag_field="type"):
    """The sender offers its devices. Said again, it replaces the earlier offer; ``capacity`` 0 takes no new jobs."""

    name: Name
    capacity: Annotated[int, Meta(ge=0, le=1_024)]
    devices: Annotated[tuple[Device, ...], Meta(min_length=1, max_length=64)]
    offers: Annotated[tuple[Offer, ...], Meta(min_length=1, max_length=64)]


class Requirement(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the miner must have: memory of one device, and, where given, being one of ``miners``, an attestation of
    ``score`` points or more, and of ``grade`` or better (C, M, H)."""

    memory_mib: Annotated[int, Meta(ge=0, le=16_777_216)]
    miners: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=16)] | UnsetType = UNSET
    score: Points | UnsetType = UNSET
    grade: Grade | UnsetType = UNSET


class BondDeposited(Body, frozen=True, tag="bond.deposited", tag_field="type"):
    """The sender, a miner, locks coins that it loses in part for every wrong result."""

    amount: PositiveAmount


class BondUnlocked(Body, frozen=True, tag="bond.unlocked", tag_field="type"):
    """The sender wants ``amount`` of its bond back. It has to wait, and whatever it unlocked before waits anew."""

    amount: PositiveAmount


class BondWithdrawn(Body, frozen=True, tag="bond.withdrawn", tag_field="type"):
    """The sender takes what it has unlocked and has waited for."""


class AttestationClaimed(Body, frozen=True, tag="attestation.claimed", tag_field="type"):
    """The sender, a miner, says what its host shows of itself and its GPUs. Said again, it replaces what was said
    before; where the GPUs are others, they have yet to be examined."""

    evidence: HostEvidence


class ExamOpened(Body, frozen=True, tag="exam.opened", tag_field="type"):
    """A coordinator examines these miners, all of them at the same time. The exam's id is that of this event, its seed
    the hash of the block that holds it, its shape that of the genesis."""

    miners: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=512)]
    cause: ExamCause


class ExamCommitted(Body, frozen=True, tag="exam.committed", tag_field="type"):
    """A miner binds itself to its answers, one per GPU that has one."""

    exam: Digest
    answers: Annotated[tuple[ExamAnswer, ...], Meta(min_length=1, max_length=MAX_GPUS)]


class ExamRevealed(Body, frozen=True, tag="exam.revealed", tag_field="type"):
    """The blobs with the challenged rows can be fetched. The rows are named by the hash of the block that holds the
    miner's exam.committed."""

    exam: Digest
    openings: Annotated[tuple[ExamOpening, ...], Meta(min_length=1, max_length=MAX_GPUS)]


class ExamJudged(Body, frozen=True, tag="exam.judged", tag_field="type"):
    """A coordinator's verdict on one miner, from which its score follows."""

    verdict: ExamVerdict


class JobSubmitted(Body, frozen=True, tag="job.submitted", tag_field="type"):
    """The sender wants ``work`` done and locks ``escrow``, the most that it will pay for it.

    ``timeout_ms`` bounds one attempt, ``lifetime_ms`` the wait for a miner; both in block time.
    """

    work: Work
    escrow: PositiveAmount
    lifetime_ms: DurationMs
    timeout_ms: DurationMs
    requirement: Requirement


class JobAssigned(Body, frozen=True, tag="job.assigned", tag_field="type"):
    """A coordinator gives the job to a miner at a total price."""

    job: Digest
    miner: Address
    price: Amount


class JobCommitted(Body, frozen=True, tag="job.committed", tag_field="type"):
    """The miner binds itself to one result: the Merkle root of its rows and the digest and size of its blob."""

    job: Digest
    root: Digest
    result: Digest
    size: Count


class JobRevealed(Body, frozen=True, tag="job.revealed", tag_field="type"):
    """The committed blob can be fetched; the miner signs the receipt."""

    job: Digest
    receipt_sig: Signature


class JobSettled(Body, frozen=True, tag="job.settled", tag_field="type"):
    """A coordinator has verified the result: pay. It signs the same receipt."""

    job: Digest
    receipt_sig: Signature


class JobFailed(Body, frozen=True, tag="job.failed", tag_field="type"):
    """This attempt has failed, said by a coordinator or by the miner that gives up: try another miner, or refund."""

    job: Digest
    miner: Address
    reason: Reason


class JobRefunded(Body, frozen=True, tag="job.refunded", tag_field="type"):
    """A coordinator gives the escrow back: the job cannot be done by anyone."""

    job: Digest
    reason: Reason


class JobCancelled(Body, frozen=True, tag="job.cancelled", tag_field="type"):
    """The client withdraws a job that no miner has yet."""

    job: Digest


Event = (
    TransferSent
    | FaucetRequested
    | MinerRegistered
    | BondDeposited
    | BondUnlocked
    | BondWithdrawn
    | AttestationClaimed
    | ExamOpened
    | ExamCommitted
    | ExamRevealed
    | ExamJudged
    | JobSubmitted
    | JobAssigned
    | JobCommitted
    | JobRevealed
    | JobSettled
    | JobFailed
    | JobRefunded
    | JobCancelled
)


class Envelope(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An event as it travels: its body, and the sender's signature over the body's exact bytes.

    Only its shape: what reads and writes the bytes is ``events.envelope``.
    """

    body: Event
    sig: Signature


EVENT_TYPES: tuple[type[Body], ...] = (
    TransferSent,
    FaucetRequested,
    MinerRegistered,
    BondDeposited,
    BondUnlocked,
    BondWithdrawn,
    AttestationClaimed,
    ExamOpened,
    ExamCommitted,
    ExamRevealed,
    ExamJudged,
    JobSubmitted,
    JobAssigned,
    JobCommitted,
    JobRevealed,
    JobSettled,
    JobFailed,
    JobRefunded,
    JobCancelled,
)


def type_of(event: Body) -> str:
    """The event's type name, as in the field ``type``."""
    return str(event.__struct_config__.tag)
