"""``assay job show|list|watch|why|cancel|result``."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter, validators
from msgspec import UNSET, UnsetType

from actors.command_line.amounts import check_digest, moment
from actors.command_line.follow import Ending, follow
from actors.command_line.ledger import all_miners, receipt_facts
from actors.command_line.network import Line, connect
from actors.command_line.options import CONSENT, DISPLAY, NETWORK, SIGNER, Consent, Display, JobId, Network, Signer
from actors.command_line.output import Output, asy, check_target
from actors.command_line.saying import say, unsigned
from actors.command_line.secrets import confirm, own_address, signing_key
from actors.command_line.sentences import happened, short, work_in_words
from actors.matching import why_waiting
from events.errors import BadInput, JobUnsuccessful, NotAllowed, NotFound
from events.keys import public_key_of
from projections.execute import fee_of
from schemas import queries
from schemas.events import JobCancelled
from schemas.services import blobs_of
from schemas.state import Assigned, Committed, Job, Open, Revealed, Settled, situation_of

# Digits of a job's id in the name of its result's file.
SHORT_NAME: Final = 12
Situation = Literal["open", "assigned", "committed", "revealed", "settled", "refunded", "cancelled"]


async def find_job(line: Line, job: str) -> queries.JobAnswer:
    """The job with its history. Raises NotFound, and BadInput for what is no id."""
    check_digest(job, "the id of a job")
    return await line.ask("job", queries.JobQuestion(job=job), queries.JobAnswer)


async def show(job: JobId, /, *, network: Network = NETWORK, display: Display = DISPLAY) -> None:
    """One job with its history."""
    async with connect(network) as line:
        found = await find_job(line, job)
    Output(display).one(found, job_facts(found))


def job_facts(found: queries.JobAnswer) -> dict[str, object]:
    """A job for people."""
    job = found.job
    facts: dict[str, object] = {
        "job": found.id,
        "situation": situation_of(job),
        "work": work_in_words(job.work),
        "inputs": "\n".join(f"blob {digest}" for digest in blobs_of(job.work)) or "none to upload",
        "owner": job.owner,
        "escrow": asy(job.escrow),
        "submitted": f"{moment(job.submitted_ms)}, height {job.submitted_height}",
    }
    if isinstance(job.situation, Assigned | Committed | Revealed | Settled):
        facts["miner"] = f"{job.situation.assignment.miner} for {asy(job.situation.assignment.price)}"
    if isinstance(job.situation, Committed | Revealed | Settled):
        facts["result"] = f"{job.situation.commitment.result}, {job.situation.commitment.size:,} bytes"
    facts["history"] = "\n".join(f"height {entry.height}  {happened(entry)}" for entry in found.history)
    return facts


async def list_jobs(
    *,
    owner: Annotated[str | None, Parameter(help="Only those of this address.")] = None,
    mine: Annotated[bool, Parameter(negative=(), help="Only your own.")] = False,
    situation: Annotated[Situation | None, Parameter(help="Only those in this situation.")] = None,
    limit: Annotated[
        int, Parameter(validator=validators.Number(gte=1), help="No more than this many.")
    ] = queries.DEFAULT_PAGE,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    display: Display = DISPLAY,
) -> None:
    """Jobs, newest first."""
    output = Output(display)
    if owner is not None:
        public_key_of(owner)
    wanted: Any = own_address(signer) if mine else owner or UNSET
    entries: list[queries.JobEntry] = []
    cursor: str | UnsetType = UNSET
    async with connect(network) as line:
        while len(entries) < limit:
            question = queries.JobsQuestion(
                owner=wanted,
                situation=situation or UNSET,
                limit=min(queries.MAX_PAGE, limit - len(entries)),
                cursor=cursor,
            )
            page = await line.ask("jobs", question, queries.JobsAnswer)
            entries += page.jobs
            if isinstance(page.next, UnsetType):
                break
            cursor = page.next
    output.many(entries, [_row(entry.id, entry.job) for entry in entries])
    if not entries:
        output.note("No jobs." if wanted is UNSET and situation is None else "No such jobs.")


def _row(job_id: str, job: Job) -> dict[str, object]:
    return {
        "job": job_id,
        "situation": situation_of(job),
        "work": work_in_words(job.work),
        "owner": short(job.owner),
        "escrow": asy(job.escrow),
        "submitted": moment(job.submitted_ms),
    }


async def watch(
    job: JobId,
    /,
    *,
    for_seconds: Annotated[
        int | None,
        Parameter(validator=validators.Number(gte=1), help="Give up after this many seconds, with exit code 6."),
    ] = None,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """Follow a job until it ends, then print its receipt; exit code 1 when it ended without a result."""
    check_digest(job, "the id of a job")
    output = Output(display)
    async with connect(network) as line:
        finish(output, await follow(line, output, job, for_seconds))


def finish(output: Output, ending: Ending) -> None:
    """Prints the receipt, and how to come by the result. Raises JobUnsuccessful when there is none."""
    if ending.receipt is None:
        waiting = why_waiting(ending.job, {})
        raise JobUnsuccessful(
            f"the job ended {situation_of(ending.job)}",
            why=waiting.sentence,
            hint=f"See all that happened with `assay job show {ending.id}`.",
            job=ending.id,
            situation=situation_of(ending.job),
        )
    output.one(ending.receipt, receipt_facts(ending.receipt.receipt))
    if output.is_for_people:
        output.note(f"`assay job result {ending.id}` fetches the result.")


async def why(job: JobId, /, *, network: Network = NETWORK, display: Display = DISPLAY) -> None:
    """Why a job is where it is, as a code and a sentence."""
    async with connect(network) as line:
        found = await find_job(line, job)
        registered = {entry.address: entry.miner for entry in await all_miners(line)}
        genesis = await line.genesis()
    waiting = why_waiting(found.job, registered, genesis.parameters.trust)
    value = {"job": job, "situation": situation_of(found.job), "code": waiting.code, "sentence": waiting.sentence}
    Output(display).one(value, {"code": waiting.code, "why": waiting.sentence})


async def cancel(
    job: JobId,
    /,
    *,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    consent: Consent = CONSENT,
    display: Display = DISPLAY,
) -> None:
    """Withdraw a job that no miner has yet; the escrow comes back."""
    output = Output(display)
    async with connect(network) as line:
        found = await find_job(line, job)
        sender = own_address(signer)
        _check_cancellable(found, sender)
        event = await unsigned(line, sender, JobCancelled, consent, job=job)
        facts: dict[str, object] = {
            "job": job,
            "situation": situation_of(found.job),
            "comes back": asy(found.job.escrow),
            "fee": asy(fee_of(event)),
        }
        if consent.dry_run:
            output.one({"dry_run": True, "event": event, "fee": fee_of(event)}, facts | {"sent": "no, --dry-run"})
            return
        confirm(f"Cancel job {job}?", consent)
        said = await say(line, event, signing_key(signer))
    value = {"event": said.signed.id, "height": said.answer.height, "body": event, "fee": fee_of(event)}
    output.one(value, facts | {"situation": "cancelled", "height": said.answer.height})


def _check_cancellable(found: queries.JobAnswer, sender: str) -> None:
    """Raises NotAllowed where the rules would refuse, which costs the fee all the same."""
    if not isinstance(found.job.situation, Open):
        raise NotAllowed(
            "the job cannot be cancelled",
            why=f"it is {situation_of(found.job)}; only an open one can",
            hint=f"See `assay job why {found.id}`.",
            situation=situation_of(found.job),
        )
    if found.job.owner != sender:
        raise NotAllowed(
            "only its owner can cancel a job",
            why=f"that is {found.job.owner}, the key is that of {sender}",
            hint="Choose the owner's key with --wallet or --seed-file.",
        )


async def result(
    job: JobId,
    file: Annotated[
        Path | None,
        Parameter(help="Where the result goes, replacing a file of this name; else one named after the job, here."),
    ] = None,
    /,
    *,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """Download the result of a job into FILE; its digest is checked on the way."""
    from actors.services.registry import FINDINGS, service_for

    output = Output(display)
    if file is not None:
        check_target(file)
    async with connect(network) as line:
        found = (await find_job(line, job)).job
        if not isinstance(found.situation, Revealed | Settled):
            raise NotFound(
                "the job has no result to fetch",
                why=f"it is {situation_of(found)}",
                hint=f"See `assay job why {job}`.",
                situation=situation_of(found),
            )
        commitment, miner = found.situation.commitment, found.situation.assignment.miner
        if file is None:
            file = Path(f"{job[:SHORT_NAME]}.{service_for(found.work).SUFFIX}")
        with output.progress("download", commitment.size) as advance:
            size = await line.bus.get_blob(miner, commitment.result, file, line.timeout_ms, advance)
        said = await _findings(line, found, file) if type(found.work) in FINDINGS else {}
    value = {"job": job, "file": str(file), "digest": commitment.result, "size": size, **said}
    output.one(value, {"file": file, "digest": commitment.result, "size": f"{size:,} bytes", **said})


async def _findings(line: Line, job: Job, result: Path) -> dict[str, str]:
    """What the result says, by its inputs, which are fetched for that."""
    from actors.services.registry import findings

    with TemporaryDirectory(prefix="assay-result-") as folder:
        inputs = {digest: Path(folder) / digest for digest in blobs_of(job.work)}
        for digest, path in inputs.items():
            await line.bus.get_blob(job.owner, digest, path, line.timeout_ms)
        try:
            return findings(job.work, inputs, result)
        except BadInput as error:
            # Until somebody has verified it, it may be anything.
            return {"it says": f"nothing that can be read: {error.why}"}
