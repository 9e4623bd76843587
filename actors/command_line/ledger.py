"""``assay account``, ``transfer``, ``miner list``, ``block``, ``receipt``."""

from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import UNSET

from actors.command_line.amounts import check_digest, duration, micro_of, moment
from actors.command_line.network import Line, connect
from actors.command_line.options import (
    CONSENT,
    DISPLAY,
    NETWORK,
    SIGNER,
    Address,
    Consent,
    Display,
    JobId,
    Network,
    Signer,
)
from actors.command_line.output import Output, asy, plain
from actors.command_line.saying import say, unsigned
from actors.command_line.secrets import confirm, own_address, signing_key
from actors.command_line.sentences import short
from events.keys import public_key_of
from projections.bonds import attested_of, standing_of
from projections.execute import fee_of
from schemas import queries
from schemas.blocks import Applied, Failed, Outcome, TimerFired
from schemas.events import TransferSent
from schemas.receipts import SignedReceipt
from schemas.refusals import code_of


async def account(
    address: Address | None = None,
    /,
    *,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    display: Display = DISPLAY,
) -> None:
    """Balance and nonce of an address; without one, of your own."""
    owner = own_address(signer) if address is None else address
    public_key_of(owner)
    async with connect(network) as line:
        found, height = await line.ask_at("account", queries.AccountQuestion(address=owner), queries.AccountAnswer)
    facts = {
        "address": found.address,
        "balance": asy(found.balance),
        "nonce": found.nonce,
        "height": height,
    }
    Output(display).one({"height": height} | plain(found), facts)


async def transfer(
    to: Address,
    amount: Annotated[str, Parameter(help="ASY, as 1.5, or micro-ASY, as 1500000u.")],
    /,
    *,
    memo: Annotated[str | None, Parameter(help="A remark of at most 256 characters; anyone can read it.")] = None,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Send AMOUNT (ASY, as 1.5, or micro-ASY, as 1500000u) and wait for the block."""
    public_key_of(to)
    micro = micro_of(amount)
    output = Output(display)
    async with connect(network) as line:
        sender = own_address(signer)
        event = await unsigned(
            line, sender, TransferSent, consent, to=to, amount=micro, memo=UNSET if memo is None else memo
        )
        facts: dict[str, object] = {"from": sender, "to": to, "amount": asy(micro), "fee": asy(fee_of(event))}
        if consent.dry_run:
            output.one({"dry_run": True, "event": event, "fee": fee_of(event)}, facts | {"sent": "no, --dry-run"})
            return
        confirm(f"Send {asy(micro)} to {to} (fee {asy(fee_of(event))})?", consent)
        said = await say(line, event, signing_key(signer))
    value = {"event": said.signed.id, "height": said.answer.height, "body": event, "fee": fee_of(event)}
    output.one(value, facts | {"event": said.signed.id, "height": said.answer.height})


async def all_miners(line: Line) -> list[queries.MinerEntry]:
    """Every registered miner, by address."""
    entries: list[queries.MinerEntry] = []
    question = queries.MinersQuestion(limit=queries.MAX_PAGE)
    while True:
        page = await line.ask("miners", question, queries.MinersAnswer)
        entries += page.miners
        if page.next is UNSET:
            return entries
        question = queries.MinersQuestion(limit=queries.MAX_PAGE, cursor=page.next)


async def miners(*, network: Network = NETWORK, display: Display = DISPLAY) -> None:
    """Miners with their services, prices and free places."""
    output = Output(display)
    async with connect(network) as line:
        entries = await all_miners(line)
    rows = [
        {
            "address": entry.address,
            "name": entry.miner.name,
            "service": offer.service,
            "price per unit": asy(offer.unit_price),
            "free": f"{max(0, entry.miner.capacity - entry.miner.running)}/{entry.miner.capacity}",
            "memory": f"{max(device.memory_mib for device in entry.miner.devices)} MiB",
            "score": f"{attested_of(entry.miner).score} {attested_of(entry.miner).grade}",
            "settled": entry.miner.settled,
            "failed": entry.miner.failed,
            "wrong": f"{standing.wrong}, banned" if (standing := standing_of(entry.miner)).banned else standing.wrong,
        }
        for entry in entries
        for offer in entry.miner.offers
    ]
    output.many(entries, rows)
    if not entries:
        output.note("No miner has registered yet.")


async def block(
    which: Annotated[str | None, Parameter(help="Height or hash.")] = None,
    /,
    *,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """One block, by height or hash; without either, the newest."""
    if which is not None:
        _block_question(which)
    async with connect(network) as line:
        if which is None:
            status = await line.ask("status", queries.Question(), queries.StatusAnswer)
            which = str(status.height)
        found = await line.ask("block", _block_question(which), queries.BlockAnswer)
        outcomes = list(found.outcomes)
        while found.next is not UNSET:
            found = await line.ask("block", _block_question(which, found.next), queries.BlockAnswer)
            outcomes += found.outcomes
    header = found.block.header
    facts = {
        "height": header.height,
        "hash": found.block.hash,
        "parent": header.parent,
        "time": moment(header.time_ms),
        "proposer": f"{header.proposer} (round {header.round})",
        "state root": header.state_root,
        "events": f"{found.block.events}, timers {found.block.timers}, gas {header.gas}",
        "votes": "\n".join(vote.validator for vote in found.block.votes),
        "outcomes": "\n".join(_outcome_in_words(outcome) for outcome in outcomes),
    }
    Output(display).one({"block": found.block, "outcomes": outcomes}, facts)


def _block_question(which: str, cursor: Any = UNSET) -> queries.BlockQuestion:
    if which.isdecimal() and len(which) <= 16:
        return queries.BlockQuestion(height=int(which), cursor=cursor)
    check_digest(which, "a height, nor the hash of a block", "Name a height, as 12, or copy the hash whole.")
    return queries.BlockQuestion(hash=which, cursor=cursor)


def _outcome_in_words(outcome: Outcome) -> str:
    match outcome:
        case Applied():
            return f"{outcome.event}  applied"
        case Failed():
            return f"{outcome.event}  failed: {code_of(outcome.refusal)}"
        case TimerFired():
            return f"{outcome.job}  deadline: {outcome.reason}"


async def receipt(job: JobId, /, *, network: Network = NETWORK, display: Display = DISPLAY) -> None:
    """The receipt of a settled job. With -o json it comes with its proofs: keep it in a file, and `assay verify receipt
    FILE` checks it offline."""
    check_digest(job, "the id of a job")
    async with connect(network) as line:
        found = await line.ask("receipt", queries.JobQuestion(job=job), queries.ReceiptAnswer)
    Output(display).one(found, receipt_facts(found.receipt))


def receipt_facts(signed: SignedReceipt) -> dict[str, object]:
    """A receipt for people."""
    receipt = signed.receipt
    span = receipt.completed_at - receipt.started_at
    return {
        "job": receipt.job_id,
        "service": f"{receipt.service}, {receipt.units} × {receipt.unit_type}",
        "client": receipt.client,
        "miner": receipt.provider,
        "coordinator": receipt.coordinator_id,
        "price": asy(receipt.price),
        "time": f"{moment(receipt.started_at)}, {duration(span)}",
        "result": receipt.artifact_hash,
        "root": receipt.root,
        "signed by": ", ".join(f"{entry.signer_role} {short(entry.key_id)}" for entry in signed.signatures),
    }
