"""``assay proof``: fetches what ``assay verify proof`` checks."""

import re
from typing import Annotated, Final

from cyclopts import Parameter

from actors.command_line.network import connect
from actors.command_line.options import DISPLAY, NETWORK, Display, Network
from actors.command_line.output import Output
from events.errors import BadInput
from schemas.messages import ProofBundle
from schemas.queries import ProofQuestion

_EVENT: Final = re.compile(r"[0-9a-f]{64}")
_KEY: Final = re.compile(r"(account|attestation|miner)/[UM][A-Z2-7]{55}|job/[0-9a-f]{64}|supply")


async def proof(
    what: Annotated[str, Parameter(help="The id of an event, or account/…, attestation/…, job/…, miner/… or supply.")],
    /,
    *,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """Fetch the proof that an event is in a final block, or of what the newest state says of an account, a job, a
    miner or the supply, its absence included. With -o json keep it in a file: `assay verify proof FILE` checks it."""
    if _EVENT.fullmatch(what):
        question = ProofQuestion(event=what)
    elif _KEY.fullmatch(what):
        question = ProofQuestion(key=what)
    else:
        raise BadInput(
            f"{what[:80]!r} is nothing that can be proved",
            hint="Name the id of an event, or account/ADDRESS, attestation/ADDRESS, job/ID, miner/ADDRESS or supply.",
        )
    async with connect(network) as line:
        bundle = await line.ask("proof", question, ProofBundle)
    header = bundle.block.header
    facts = {
        "of": what,
        "height": header.height,
        "state root": header.state_root,
        "signed by": "\n".join(validator for validator, _ in bundle.block.votes),
    }
    Output(display).one(bundle, facts)
