"""Rules of coins: transfers, the faucet, and the writes that every rule of money shares.

No sum can pass 2^53 - 1: genesis and faucet keep the whole supply below it, and nothing else makes coins.
"""

from typing import Final

from msgspec import UnsetType

from events.keys import is_address
from projections.state import Context, Draft
from schemas.events import FaucetRequested, TransferSent
from schemas.refusals import (
    AmountOverflow,
    FaucetLimit,
    InsufficientBalance,
    Malformed,
    Refusal,
    SelfTransfer,
)
from schemas.state import Account, Supply
from schemas.values import MAX_SAFE_INTEGER

DAY_MS: Final = 86_400_000


def add_balance(draft: Draft, address: str, amount: int) -> None:
    """Gives (or, negative, takes) coins. The caller has made sure that they are there."""
    account = draft.account(address)
    balance = account.balance + amount
    if not 0 <= balance <= MAX_SAFE_INTEGER:
        raise AssertionError(f"the balance of {address} would become {balance}")
    draft.put_account(
        address,
        Account(balance=balance, nonce=account.nonce, faucet_day=account.faucet_day, faucet_used=account.faucet_used),
    )


def change_supply(draft: Draft, *, minted: int = 0, burned: int = 0, escrowed: int = 0, bonded: int = 0) -> None:
    """Adds to the counters of the whole supply."""
    supply = draft.supply()
    bonds = supply.bonded
    if bonded:
        bonds = (0 if isinstance(bonds, UnsetType) else bonds) + bonded
    draft.put_supply(
        Supply(
            genesis=supply.genesis,
            minted=supply.minted + minted,
            burned=supply.burned + burned,
            escrowed=supply.escrowed + escrowed,
            bonded=bonds,
        )
    )


def transfer_sent(draft: Draft, event: TransferSent, context: Context, event_id: str) -> Refusal | None:
    """Moves ``amount``. The recipient has to be an address that somebody can sign for."""
    available = draft.account(event.sender).balance
    if event.to == event.sender:
        return SelfTransfer(address=event.to)
    if not is_address(event.to):
        return Malformed(detail="to: no user NKey with a right checksum")
    if event.amount > available:
        return InsufficientBalance(needed=event.amount, available=available)
    add_balance(draft, event.sender, -event.amount)
    add_balance(draft, event.to, event.amount)
    return None


def faucet_requested(draft: Draft, event: FaucetRequested, context: Context, event_id: str) -> Refusal | None:
    """Makes new coins within three limits: per request, per account and day of block time, and over all time.

    Where there is no faucet at all a request is not even admitted.
    """
    parameters, supply, account = draft.parameters, draft.supply(), draft.account(event.sender)
    day = context.time_ms // DAY_MS
    used = account.faucet_used if account.faucet_day == day else 0
    limits = (
        ("request", parameters.faucet_request, 0),
        ("day", parameters.faucet_day, used),
        ("total", parameters.faucet_total, supply.minted),
    )
    for per, limit, taken in limits:
        if event.amount > limit - taken:
            return FaucetLimit(per=per, limit=limit, left=max(0, limit - taken))
    if supply.genesis + supply.minted + event.amount > MAX_SAFE_INTEGER:
        return AmountOverflow(limit=MAX_SAFE_INTEGER)
    draft.put_account(
        event.sender,
        Account(
            balance=account.balance + event.amount,
            nonce=account.nonce,
            faucet_day=day,
            faucet_used=used + event.amount,
        ),
    )
    change_supply(draft, minted=event.amount)
    return None
