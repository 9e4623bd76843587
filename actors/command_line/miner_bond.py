"""``assay miner bond deposit|unlock|withdraw``: the coins that a miner loses in part for wrong results."""

from typing import Any

from actors.command_line.amounts import micro_of
from actors.command_line.network import connect
from actors.command_line.options import CONSENT, DISPLAY, NETWORK, SIGNER, Consent, Display, Network, Signer
from actors.command_line.output import Output, asy
from actors.command_line.saying import say, unsigned
from actors.command_line.secrets import confirm, own_address, signing_key
from projections.execute import fee_of
from schemas.events import Body, BondDeposited, BondUnlocked, BondWithdrawn


async def deposit(
    amount: str,
    /,
    *,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Lock coins of your own in your bond, as a registered miner. AMOUNT is in ASY, or in micro-ASY as 1500000u."""
    micro = micro_of(amount)
    await _say(f"Lock {asy(micro)} in your bond", BondDeposited, network, signer, consent, display, amount=micro)


async def unlock(
    amount: str,
    /,
    *,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Take coins out of your bond. They wait for the chain's time, and can be slashed until you withdraw them."""
    micro = micro_of(amount)
    await _say(f"Take {asy(micro)} out of your bond", BondUnlocked, network, signer, consent, display, amount=micro)


async def withdraw(
    *,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Get back what you have unlocked, once it has waited."""
    await _say("Withdraw what you have unlocked", BondWithdrawn, network, signer, consent, display)


async def _say(
    question: str,
    record: type[Body],
    network: Network,
    signer: Signer,
    consent: Consent,
    display: Display,
    **fields: Any,
) -> None:
    output = Output(display)
    async with connect(network) as line:
        event = await unsigned(line, own_address(signer), record, consent, **fields)
        facts: dict[str, object] = {"does": question[0].lower() + question[1:], "fee": asy(fee_of(event))}
        if consent.dry_run:
            output.one({"dry_run": True, "event": event, "fee": fee_of(event)}, facts | {"sent": "no, --dry-run"})
            return
        confirm(f"{question} (fee {asy(fee_of(event))})?", consent)
        said = await say(line, event, signing_key(signer))
    value = {"event": said.signed.id, "height": said.answer.height, "body": event, "fee": fee_of(event)}
    output.one(value, facts | {"event": said.signed.id, "height": said.answer.height})
