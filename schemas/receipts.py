"""The receipt of a settled job: derived from the log, signed by its miner and its coordinator."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.values import Address, Amount, ChainId, Count, Digest, ServiceName, Signature, TimeMs

RECEIPT_VERSION = "1.1"


class Receipt(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was done for whom, by whom, at which price. Every field follows from the log.

    ``started_at`` and ``completed_at`` are the block times of the assignment and of the commitment, in milliseconds;
    ``artifact_hash`` is the digest of the result's blob and ``root`` the Merkle root that the miner committed to.
    """

    version: Literal["1.1"]
    receipt_id: Digest
    job_id: Digest
    chain_id: ChainId
    provider: Address
    client: Address
    coordinator_id: Address
    service: ServiceName
    units: Count
    unit_type: str
    price: Amount
    started_at: TimeMs
    completed_at: TimeMs
    artifact_hash: Digest
    root: Digest


class ReceiptSignature(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One signature over the domain tag ``assay:receipt:v1``, a zero byte and the receipt's canonical bytes."""

    alg: Literal["Ed25519"]
    signer_role: Literal["miner", "coordinator"]
    key_id: Address
    sig: Signature


class SignedReceipt(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The receipt with the signatures of miner and coordinator, in this order."""

    receipt: Receipt
    signatures: Annotated[tuple[ReceiptSignature, ...], Meta(min_length=2, max_length=2)]
