"""``assay job submit``: the plan, the uploads, the event, and the way to the receipt."""

import re
import secrets
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter, validators
from msgspec import UNSET, Struct

from actors.command_line.amounts import micro_of
from actors.command_line.follow import follow
from actors.command_line.jobs import finish
from actors.command_line.ledger import all_miners
from actors.command_line.network import Line, connect
from actors.command_line.options import CONSENT, DISPLAY, NETWORK, SIGNER, Consent, Display, Network, Signer
from actors.command_line.output import Output, asy
from actors.command_line.saying import say, unsigned
from actors.command_line.secrets import confirm, own_address, signing_key
from actors.command_line.sentences import short, work_in_words
from actors.matching import Wanted, eligible, why_unmatched
from events.errors import BadInput, Refused
from events.keys import public_key_of
from projections.execute import fee_of
from projections.jobs import shape_refusal
from schemas.events import JobSubmitted, Requirement
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix, units_of
from schemas.state import Miner

MATMUL: Final = "matmul.int8"
HOW_VERIFIED: Final = "all entries, by Freivalds' check in exact arithmetic with a challenge drawn after the commitment"
_SEEDED: Final = re.compile(r"seed:(?P<seed>[0-9a-f]{64}):(?P<rows>[0-9]{1,6})x(?P<columns>[0-9]{1,6})")
_RANDOM: Final = re.compile(r"random:(?P<rows>[0-9]{1,6})x(?P<columns>[0-9]{1,6})")
LARGEST_HEADER: Final = 8_192
POSITIVE: Final = validators.Number(gte=1)


class Operand(Struct, frozen=True):
    """A matrix as the job names it, and the file to upload, if any."""

    matrix: BlobMatrix | SeededMatrix
    file: Path | None = None


class Candidate(Struct, frozen=True):
    """A miner that could do it, and its price."""

    miner: str
    price: int


class Plan(Struct, frozen=True, kw_only=True):
    """What would happen now: who could do it, in order, and what it would cost."""

    work: str
    units: int
    escrow: int
    fee: int
    candidates: list[Candidate]
    code: str
    sentence: str
    verified: str = HOW_VERIFIED


async def submit(
    service: Annotated[str, Parameter(help="What shall be done: matmul.int8.")],
    a: Annotated[str, Parameter(help="The first matrix: FILE.npy, random:ROWSxCOLUMNS or seed:HEX:ROWSxCOLUMNS.")],
    b: Annotated[str, Parameter(help="The second matrix.")],
    /,
    *,
    escrow: Annotated[
        str | None, Parameter(help="The most to pay, in ASY; else the price of the cheapest miner that could do it.")
    ] = None,
    memory: Annotated[
        int, Parameter(validator=validators.Number(gte=0), help="MiB that one device of the miner must have.")
    ] = 0,
    miner: Annotated[list[str] | None, Parameter(negative=(), help="Only these miners; repeat it.")] = None,
    attempt_seconds: Annotated[int, Parameter(name="--attempt", validator=POSITIVE, help="Seconds per attempt.")] = 60,
    lifetime_seconds: Annotated[
        int, Parameter(name="--lifetime", validator=POSITIVE, help="Seconds to wait for a miner.")
    ] = 600,
    no_wait: Annotated[bool, Parameter(negative=(), help="Print the job's id and do not follow it.")] = False,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Show the plan, upload the inputs, submit the job, and follow it to its receipt. A matrix is a .npy file of int8;
    or seed:…, made from the seed, so that nothing is uploaded; or random:…, the same with a new seed."""
    if service != MATMUL:
        raise BadInput(f"{service!r} is not a service", hint=f"There is {MATMUL}.")
    output = Output(display)
    operands = (operand_of(a), operand_of(b))
    work = MatmulInt8(a=operands[0].matrix, b=operands[1].matrix)
    if refusal := shape_refusal(work):
        raise Refused(refusal)
    for address in miner or ():
        public_key_of(address)
    requirement = Requirement(memory_mib=memory, miners=tuple(miner) if miner else UNSET)
    async with connect(network) as line:
        sender = own_address(signer)
        registered = {entry.address: entry.miner for entry in await all_miners(line)}
        amount = micro_of(escrow) if escrow is not None else _cheapest(work, requirement, registered)
        wanted = Wanted(work=work, escrow=amount, requirement=requirement)
        fields: dict[str, Any] = {
            "work": work,
            "escrow": amount,
            "lifetime_ms": lifetime_seconds * 1_000,
            "timeout_ms": attempt_seconds * 1_000,
            "requirement": requirement,
        }
        event = await unsigned(line, sender, JobSubmitted, consent, **fields)
        plan = _plan(wanted, registered, fee_of(event))
        if consent.dry_run:
            output.one({"dry_run": True, "event": event, "plan": plan}, _plan_facts(plan) | {"sent": "no, --dry-run"})
            return
        for label, fact in _plan_facts(plan).items():
            output.note(f"{label:<10}  {fact}")
        confirm(f"Lock {asy(amount)} for this job?", consent)
        key = signing_key(signer)
        for operand in operands:
            await _upload(line, output, sender, operand)
        # Uploading takes a while; another event of this sender may have used the nonce meanwhile.
        event = await unsigned(line, sender, JobSubmitted, consent, **fields)
        said = await say(line, event, key)
        if no_wait:
            output.one({"job": said.signed.id, "height": said.answer.height}, {"job": said.signed.id})
            return
        output.note(f"job {said.signed.id}")
        finish(output, await follow(line, output, said.signed.id))


def operand_of(text: str) -> Operand:
    """A matrix from its word on the command line. Raises BadInput."""
    if match := _SEEDED.fullmatch(text):
        return Operand(SeededMatrix(rows=int(match["rows"]), columns=int(match["columns"]), seed=match["seed"]))
    if match := _RANDOM.fullmatch(text):
        seed = secrets.token_bytes(32).hex()
        return Operand(SeededMatrix(rows=int(match["rows"]), columns=int(match["columns"]), seed=seed))
    if text.startswith(("seed:", "random:")):
        raise BadInput(
            f"{text!r} is not a matrix", hint="Write seed:HEX:ROWSxCOLUMNS with 64 digits, or random:ROWSxCOLUMNS."
        )
    return _operand_in(Path(text))


def _operand_in(file: Path) -> Operand:
    from hashlib import file_digest

    from actors.services.npy import open_matrix, read_header

    try:
        with file.open("rb") as opened:
            header = read_header(opened.read(LARGEST_HEADER))
            opened.seek(0)
            digest = file_digest(opened, "sha256").hexdigest()
        open_matrix(file, "int8", header.rows, header.columns)
    except BadInput as error:
        raise BadInput(f"{file} cannot be an operand", why=error.why, hint=error.hint) from error
    return Operand(BlobMatrix(rows=header.rows, columns=header.columns, digest=digest), file)


def _cheapest(work: MatmulInt8, requirement: Requirement, miners: dict[str, Miner]) -> int:
    """The lowest price among the miners that could do it. Raises BadInput when there is none to set the price."""
    from schemas.values import MAX_SAFE_INTEGER

    anything = Wanted(work=work, escrow=MAX_SAFE_INTEGER, requirement=requirement)
    idle = {address: _idle(miner) for address, miner in miners.items()}
    ranked = eligible(anything, idle)
    if not ranked:
        waiting = why_unmatched(anything, idle)
        raise BadInput(
            "there is no price to go by",
            why=f"{waiting.code}: {waiting.sentence}",
            hint="Name the most you would pay with --escrow; the job then waits for a miner.",
        )
    return max(1, ranked[0][1])


def _idle(miner: Miner) -> Miner:
    from msgspec.structs import replace

    return replace(miner, running=0)


def _plan(wanted: Wanted, miners: dict[str, Miner], fee: int) -> Plan:
    waiting = why_unmatched(wanted, miners)
    return Plan(
        work=work_in_words(wanted.work),
        units=units_of(wanted.work),
        escrow=wanted.escrow,
        fee=fee,
        candidates=[Candidate(address, price) for address, price in eligible(wanted, miners)],
        code=waiting.code,
        sentence=waiting.sentence,
    )


def _plan_facts(plan: Plan) -> dict[str, object]:
    who = ", ".join(f"{short(found.miner)} for {asy(found.price)}" for found in plan.candidates[:3])
    more = len(plan.candidates) - 3
    return {
        "work": f"{plan.work}, {plan.units:,} unit{'s' if plan.units > 1 else ''}",
        "escrow": f"{asy(plan.escrow)}, fee {asy(plan.fee)}",
        "miners": (who + (f" and {more} more" if more > 0 else "")) or f"none now. {plan.code}: {plan.sentence}",
        "verified": plan.verified,
    }


async def _upload(line: Line, output: Output, owner: str, operand: Operand) -> None:
    if operand.file is None or not isinstance(operand.matrix, BlobMatrix):
        return
    with output.progress(f"upload {operand.file.name}", operand.file.stat().st_size) as advance:
        digest = await line.bus.put_blob(owner, operand.file, advance)
    if digest != operand.matrix.digest:
        raise BadInput(f"{operand.file} has changed while it was uploaded", hint="Submit again.")
