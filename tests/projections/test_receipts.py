"""What the log says about a job's work."""

from hashlib import sha256

import pytest

from events.canonical import digest
from projections.receipts import challenge_seed, receipt_of
from schemas.receipts import RECEIPT_VERSION, Receipt
from schemas.state import Settled
from tests.projections.ledger import (
    CHAIN,
    CLIENT,
    COORDINATOR,
    MINER,
    SECOND_COORDINATOR,
    START_MS,
    assigned,
    committed,
    given,
    registered,
    revealed,
    settled,
    submitted,
)


def test_every_field_of_a_receipt_follows_from_the_log() -> None:
    """Parties, price, size, times and digests are those of the job's events."""
    ledger = given(registered(), submitted(), assigned(), committed())

    assert receipt_of(ledger.job_id, ledger.job(), CHAIN) == Receipt(
        version="1.1",
        receipt_id=ledger.job_id,
        job_id=ledger.job_id,
        chain_id=CHAIN,
        provider=MINER.address,
        client=CLIENT.address,
        coordinator_id=COORDINATOR.address,
        service="matmul.int8",
        units=8,
        unit_type="million_multiplications",
        price=800,
        started_at=START_MS + 3_000,
        completed_at=START_MS + 4_000,
        artifact_hash=digest(b"blob"),
        root=digest(b"root"),
    )
    assert RECEIPT_VERSION == "1.1"


def test_a_receipt_is_the_same_from_commitment_to_settlement() -> None:
    """Miner and coordinator sign the same bytes, whichever coordinator settles."""
    ledger = given(registered(), submitted(), assigned(), committed())
    receipts = [receipt_of(ledger.job_id, ledger.job(), CHAIN)]
    for saying in (revealed(), settled(SECOND_COORDINATOR)):
        ledger.when(saying).then()
        receipts.append(receipt_of(ledger.job_id, ledger.job(), CHAIN))

    assert isinstance(ledger.job().situation, Settled)
    assert receipts == [receipts[0]] * 3


def test_a_job_without_a_commitment_has_no_receipt() -> None:
    """Asking for one is a broken invariant that names the situation."""
    ledger = given(registered(), submitted())
    with pytest.raises(AssertionError, match="is open and has no receipt"):
        receipt_of(ledger.job_id, ledger.job(), CHAIN)


def test_the_challenge_is_a_hash_of_block_and_job() -> None:
    """Anyone can draw the same 32 bytes from the block that included the commitment."""
    block, job = digest(b"block"), digest(b"job")
    expected = sha256(b"assay:challenge:v1\x00" + bytes.fromhex(block) + bytes.fromhex(job)).digest()

    assert challenge_seed(block, job) == expected
    assert challenge_seed(job, block) != expected
