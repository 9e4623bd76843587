"""Signing and checking of receipts."""

from typing import Any

import msgspec
import pytest

from events.canonical import canonical, digest
from events.keys import EVENT_DOMAIN
from events.receipts import receipt_digest, receipt_signature_holds, sign_receipt, with_signatures
from schemas.receipts import Receipt, SignedReceipt
from tests.golden.samples import ALICE, COORDINATOR, JOB, MINER, receipt, signed_receipt


def test_both_signatures_hold() -> None:
    """Miner and coordinator sign the same bytes, and each signature holds for its signer alone."""
    signed = signed_receipt()
    miner, coordinator = signed.signatures
    assert (miner.signer_role, miner.key_id) == ("miner", signed.receipt.provider)
    assert (coordinator.signer_role, coordinator.key_id) == ("coordinator", COORDINATOR.address)
    assert receipt_signature_holds(signed.receipt, miner.key_id, miner.sig)
    assert receipt_signature_holds(signed.receipt, coordinator.key_id, coordinator.sig)
    assert not receipt_signature_holds(signed.receipt, coordinator.key_id, miner.sig)
    assert not receipt_signature_holds(signed.receipt, ALICE.address, miner.sig)


@pytest.mark.parametrize("field", [name for name in Receipt.__struct_fields__ if name != "version"])
def test_the_signature_covers_every_field(field: str) -> None:
    """A receipt that differs in any field is not the one that was signed, and has another digest."""
    value: Any = getattr(receipt(), field)
    changed = msgspec.structs.replace(receipt(), **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert not receipt_signature_holds(changed, MINER.address, sign_receipt(receipt(), MINER))
    assert receipt_digest(changed) != receipt_digest(receipt())


def test_the_digest_is_that_of_the_canonical_bytes() -> None:
    """The digest leaves the signatures out."""
    assert receipt_digest(receipt()) == digest(canonical(receipt()))


def test_another_domain_does_not_count() -> None:
    """The miner's signature over the same bytes as an event is no signature of a receipt."""
    assert not receipt_signature_holds(receipt(), MINER.address, MINER.sign(EVENT_DOMAIN + canonical(receipt())))


def test_a_receipt_survives_the_wire() -> None:
    """Written and read again, a signed receipt is the same."""
    assert msgspec.json.decode(canonical(signed_receipt()), type=SignedReceipt) == signed_receipt()


def test_the_coordinator_that_settles_may_be_another() -> None:
    """A second coordinator may settle what the first assigned: its own key stands beside its signature."""
    signed = with_signatures(receipt(), sign_receipt(receipt(), MINER), ALICE.address, sign_receipt(receipt(), ALICE))
    assert signed.receipt.coordinator_id == COORDINATOR.address
    assert signed.signatures[1].key_id == ALICE.address
    assert signed.receipt.job_id == JOB


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_receipt_has_two_signatures(count: int) -> None:
    """Neither fewer nor more signatures make a receipt."""
    signed = msgspec.to_builtins(signed_receipt())
    signed["signatures"] = [signed["signatures"][0]] * count
    with pytest.raises(msgspec.ValidationError, match="length"):
        msgspec.convert(signed, SignedReceipt)
