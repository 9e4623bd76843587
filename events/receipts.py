"""Signing and checking of receipts: one record, signed by miner and coordinator over the same bytes."""

from events.canonical import canonical, digest
from events.keys import RECEIPT_DOMAIN, Key, verify
from schemas.receipts import Receipt, ReceiptSignature, SignedReceipt


def receipt_digest(receipt: Receipt) -> str:
    """SHA-256 of the receipt's canonical bytes, without signatures."""
    return digest(canonical(receipt))


def sign_receipt(receipt: Receipt, key: Key) -> str:
    """The signature that miner and coordinator put into their events."""
    return key.sign(RECEIPT_DOMAIN + canonical(receipt))


def receipt_signature_holds(receipt: Receipt, signer: str, sig: str) -> bool:
    """Whether ``signer`` signed this receipt."""
    return verify(signer, RECEIPT_DOMAIN + canonical(receipt), sig)


def with_signatures(receipt: Receipt, miner_sig: str, coordinator: str, coordinator_sig: str) -> SignedReceipt:
    """The receipt as it is handed out. ``coordinator`` is the one that settled."""
    return SignedReceipt(
        receipt=receipt,
        signatures=(
            ReceiptSignature(alg="Ed25519", signer_role="miner", key_id=receipt.provider, sig=miner_sig),
            ReceiptSignature(alg="Ed25519", signer_role="coordinator", key_id=coordinator, sig=coordinator_sig),
        ),
    )
