"""What the log says about a job's work: its receipt and its challenge. Both are derived, nobody sends them."""

from hashlib import sha256
from typing import Final

from schemas.receipts import Receipt
from schemas.services import service_of, unit_type_of, units_of
from schemas.state import Committed, Job, Revealed, Settled, situation_of

CHALLENGE_DOMAIN: Final = b"assay:challenge:v1\x00"


def receipt_of(job_id: str, job: Job, chain: str) -> Receipt:
    """The receipt that miner and coordinator sign. Raises AssertionError for a job without a commitment."""
    situation = job.situation
    if not isinstance(situation, Committed | Revealed | Settled):
        raise AssertionError(f"job {job_id} is {situation_of(job)} and has no receipt")
    assignment, commitment = situation.assignment, situation.commitment
    return Receipt(
        version="1.1",
        receipt_id=job_id,
        job_id=job_id,
        chain_id=chain,
        provider=assignment.miner,
        client=job.owner,
        coordinator_id=assignment.coordinator,
        service=service_of(job.work),
        units=units_of(job.work),
        unit_type=unit_type_of(job.work),
        price=assignment.price,
        started_at=assignment.assigned_ms,
        completed_at=commitment.committed_ms,
        artifact_hash=commitment.result,
        root=commitment.root,
    )


def challenge_seed(block_hash: str, job_id: str) -> bytes:
    """32 bytes that nobody knew before the block that included the job's commitment: the seed of its verification.

    SHA-256 over the domain tag, a zero byte, and the 32 bytes each of that block's hash and the job's id.
    """
    return sha256(CHALLENGE_DOMAIN + bytes.fromhex(block_hash) + bytes.fromhex(job_id)).digest()
