"""``assay miner retire``: no new jobs for a miner that shall be stopped, without breaking off those that it has."""

import asyncio
from typing import Annotated, Final

from cyclopts import Parameter
from msgspec import Struct

from actors.command_line.network import Line, connect
from actors.command_line.options import CONSENT, DISPLAY, NETWORK, SIGNER, Consent, Display, Network, Signer
from actors.command_line.output import Output, asy
from actors.command_line.saying import say, unsigned
from actors.command_line.secrets import confirm, own_address, signing_key
from projections.execute import fee_of
from schemas import queries
from schemas.events import MinerRegistered
from schemas.state import Miner

LOOK_S: Final = 0.25
BACK: Final = "It takes jobs again when its process starts again; capacity = 0 in its settings keeps it from that."


class Running(Struct, frozen=True):
    """How many of the miner's jobs have not ended."""

    running: int


async def retire(
    *,
    wait: Annotated[bool, Parameter(negative=(), help="Return when the last of its jobs has ended.")] = False,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Take no new jobs, as a registered miner, and go on with those that you have: register anew, with capacity 0.
    The miner's process runs on, and takes jobs again, as its settings say, when it starts anew. With --wait you can
    stop it when this returns. A miner that has retired already is told nothing.
    """
    output = Output(display)
    async with connect(network) as line:
        sender = own_address(signer)
        miner, height = await _look(line, sender, 0)
        facts: dict[str, object] = {"miner": miner.name, "capacity": f"{miner.capacity} now, 0 then"}
        value: dict[str, object] = {"miner": sender, "capacity": 0}
        if miner.capacity:
            offered = {"name": miner.name, "devices": miner.devices, "offers": miner.offers}
            event = await unsigned(line, sender, MinerRegistered, consent, capacity=0, **offered)
            facts["fee"] = asy(fee_of(event))
            if consent.dry_run:
                facts |= {"running": miner.running, "sent": "no, --dry-run"}
                output.one({"dry_run": True, "event": event, "fee": fee_of(event), "running": miner.running}, facts)
                return
            confirm(f"Retire the miner {miner.name} (fee {asy(fee_of(event))})?", consent)
            said = await say(line, event, signing_key(signer))
            height = said.answer.height
            facts |= {"capacity": 0, "event": said.signed.id, "height": height}
            value |= {"event": said.signed.id, "height": height, "body": event, "fee": fee_of(event)}
        else:
            facts["capacity"] = "0 already, nothing was sent"
        running = await _running(line, output, sender, height, wait=wait and not consent.dry_run)
    output.one({**value, "running": running}, {**facts, "running": running})
    if output.is_for_people:
        output.note(BACK)


async def _look(line: Line, address: str, height: int) -> tuple[Miner, int]:
    question = queries.MinerQuestion(miner=address, min_height=height)
    entry, found = await line.ask_at("miner", question, queries.MinerEntry)
    return entry.miner, found


async def _running(line: Line, output: Output, address: str, height: int, *, wait: bool) -> int:
    """How many jobs are left; with ``wait`` none, and each that ends is told."""
    told: int | None = None
    while True:
        running = (await _look(line, address, height))[0].running
        if not (running and wait):
            return running
        if running != told:
            output.event(Running(running), f"{running} {'job has' if running == 1 else 'jobs have'} not ended yet")
            told = running
        await asyncio.sleep(LOOK_S)
