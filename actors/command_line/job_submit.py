"""``assay job submit``: the plan, the uploads, the event, and the way to the receipt, for whatever work was asked for.

The words of each service are in `actors.command_line.work`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter, validators
from msgspec import UNSET, Struct
from msgspec.structs import replace

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
from actors.command_line.work.files import check_files
from actors.matching import Wanted, eligible, why_unmatched
from events.errors import BadInput, Refused
from events.keys import public_key_of
from projections.execute import fee_of
from projections.jobs import shape_refusal
from schemas.events import JobSubmitted, Requirement
from schemas.services import Work, units_of
from schemas.state import Miner
from schemas.values import MAX_SAFE_INTEGER

POSITIVE: Final = validators.Number(gte=1)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Terms:
    """On which terms the work shall be done, and what every verb that signs is told."""

    escrow: Annotated[
        str | None, Parameter(help="The most to pay, in ASY; else the price of the cheapest miner that could do it.")
    ] = None
    memory: Annotated[
        int, Parameter(validator=validators.Number(gte=0), help="MiB that one device of the miner must have.")
    ] = 0
    miner: Annotated[list[str] | None, Parameter(negative=(), help="Only these miners; repeat it.")] = None
    score: Annotated[
        int | None, Parameter(validator=validators.Number(gte=0, lte=100), help="Points of attestation, at least.")
    ] = None
    grade: Annotated[
        Literal["C", "M", "H"] | None,
        Parameter(help="Grade of attestation, at least: C claimed, M measured, H rooted in the hardware."),
    ] = None
    attempt_seconds: Annotated[int, Parameter(name="--attempt", validator=POSITIVE, help="Seconds per attempt.")] = 60
    lifetime_seconds: Annotated[
        int, Parameter(name="--lifetime", validator=POSITIVE, help="Seconds to wait for a miner.")
    ] = 600
    no_wait: Annotated[bool, Parameter(negative=(), help="Print the job's id and do not follow it.")] = False
    network: Network = NETWORK
    signer: Signer = SIGNER
    consent: Consent = CONSENT
    display: Display = DISPLAY


TERMS: Final = Terms()


class Asked(Struct, frozen=True, kw_only=True):
    """Work as the job names it, the files to upload by their digests, and how its result will be verified."""

    work: Work
    files: Mapping[str, Path]
    verified: str


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
    verified: str


async def submit(asked: Asked, terms: Terms) -> None:
    """Show the plan, upload the inputs, submit the job, and follow it to its receipt."""
    output, work = Output(terms.display), asked.work
    if refusal := shape_refusal(work):
        raise Refused(refusal)
    check_files(work, asked.files)
    for address in terms.miner or ():
        public_key_of(address)
    requirement = Requirement(
        memory_mib=terms.memory,
        miners=tuple(terms.miner) if terms.miner else UNSET,
        score=UNSET if terms.score is None else terms.score,
        grade=UNSET if terms.grade is None else terms.grade,
    )
    async with connect(terms.network) as line:
        sender = own_address(terms.signer)
        registered = {entry.address: entry.miner for entry in await all_miners(line)}
        trust = (await line.genesis()).parameters.trust
        wanted = Wanted(work=work, escrow=MAX_SAFE_INTEGER, requirement=requirement, trust=trust)
        amount = micro_of(terms.escrow) if terms.escrow is not None else _cheapest(wanted, registered)
        wanted = replace(wanted, escrow=amount)
        fields: dict[str, Any] = {
            "work": work,
            "escrow": amount,
            "lifetime_ms": terms.lifetime_seconds * 1_000,
            "timeout_ms": terms.attempt_seconds * 1_000,
            "requirement": requirement,
        }
        event = await unsigned(line, sender, JobSubmitted, terms.consent, **fields)
        plan = _plan(wanted, registered, fee_of(event), asked.verified)
        if terms.consent.dry_run:
            output.one({"dry_run": True, "event": event, "plan": plan}, _plan_facts(plan) | {"sent": "no, --dry-run"})
            return
        for label, fact in _plan_facts(plan).items():
            output.note(f"{label:<10}  {fact}")
        confirm(f"Lock {asy(amount)} for this job?", terms.consent)
        key = signing_key(terms.signer)
        for digest, file in asked.files.items():
            await _upload(line, output, sender, digest, file)
        # Uploading takes a while; another event of this sender may have used the nonce meanwhile.
        event = await unsigned(line, sender, JobSubmitted, terms.consent, **fields)
        said = await say(line, event, key)
        if terms.no_wait:
            output.one({"job": said.signed.id, "height": said.answer.height}, {"job": said.signed.id})
            return
        output.note(f"job {said.signed.id}")
        finish(output, await follow(line, output, said.signed.id))


def _cheapest(anything: Wanted, miners: dict[str, Miner]) -> int:
    """The lowest price among the miners that could do it. Raises BadInput when there is none to set the price."""
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
    return replace(miner, running=0)


def _plan(wanted: Wanted, miners: dict[str, Miner], fee: int, verified: str) -> Plan:
    waiting = why_unmatched(wanted, miners)
    return Plan(
        work=work_in_words(wanted.work),
        units=units_of(wanted.work),
        escrow=wanted.escrow,
        fee=fee,
        candidates=[Candidate(address, price) for address, price in eligible(wanted, miners)],
        code=waiting.code,
        sentence=waiting.sentence,
        verified=verified,
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


async def _upload(line: Line, output: Output, owner: str, digest: str, file: Path) -> None:
    with output.progress(f"upload {file.name}", file.stat().st_size) as advance:
        found = await line.bus.put_blob(owner, file, advance)
    if found != digest:
        raise BadInput(f"{file} has changed while it was uploaded", hint="Submit again.")
