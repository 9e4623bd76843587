"""``assay verify job``: the verdicts on the results of a job, repeated by whoever wants to know."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter, validators
from msgspec import Struct, UnsetType

from actors.command_line.amounts import check_address, check_digest
from actors.command_line.attempts import SETTLED, Attempt, Attempts
from actors.command_line.blobs import Blobs, blobs_in, hold_digest
from actors.command_line.checks import SHOW_OTHERS, Checks
from actors.command_line.log_blocks import each_block, no_genesis
from actors.command_line.network import connect
from actors.command_line.options import DISPLAY, NETWORK, Display, JobId, Network
from actors.command_line.output import Output
from actors.command_line.sentences import work_in_words
from actors.command_line.verify import GenesisFile, load_genesis, with_list
from events.errors import NotFound, VerificationFailed
from projections.proofs import ProvenState, verify_block, verify_bundle
from projections.receipts import challenge_seed
from schemas.genesis import Genesis
from schemas.messages import BlockProof, ProofBundle
from schemas.queries import HeadersQuestion, ProofQuestion
from schemas.services import blobs_of
from schemas.state import Committed, Job, Refunded, Revealed, Settled, situation_of

if TYPE_CHECKING:
    from actors.services.base import Accepted
    from actors.verdict import Finding

# Ends without a word on the result: it can be looked at all the same.
NO_VERDICT: Final = ("", "NOT_VERIFIED")
# Said of a result that was looked at.
FAULTS: Final[Mapping[str, str]] = {
    "RESULT_WRONG": "wrong",
    "RESULT_MALFORMED": "malformed",
    "BAD_INPUT": "not to be judged, for an input is bad",
}


class Case(Struct, frozen=True, kw_only=True):
    """A job with its attempts; ``slashes``: on its chain a wrong result costs the miner a part of its bond."""

    id: str
    job: Job
    attempts: tuple[Attempt, ...]
    slashes: bool = False


async def verify_job(
    job: JobId,
    /,
    *,
    log: Annotated[Path | None, Parameter(help="An exported log; everything in it is executed again first.")] = None,
    blobs: Blobs = None,
    attempt: Annotated[
        int | None, Parameter(validator=validators.Number(gte=1), help="Only this attempt, counted from 1.")
    ] = None,
    miner: Annotated[str | None, Parameter(help="Only the attempt of this miner.")] = None,
    genesis: GenesisFile = None,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """Repeat the verdict on every result that miners have committed to for a job, the wrong ones too: draw the
    challenge from the chain, check the result with it, and compare with what the log says of it.
    Offline with --log and --blobs; what is not given comes from the network, with proofs against the genesis."""
    check_digest(job, "the id of a job")
    if miner is not None:
        check_address(miner)
    output = Output(display)
    known = load_genesis(genesis)
    case = None if log else await _case_of_network(network, job, known)
    if case is None:
        case = await _case_in_log(log, network, job, known, output)
    chosen = choose(case, attempt, miner)
    wanted = [pair for each in chosen for pair in _wanted(case, each)]
    async with blobs_in(blobs, wanted, network, output) as directory:
        _must_have(case, chosen, directory, ours=blobs is not None)
        checks = Checks()
        found: list[dict[str, object]] = []
        about: dict[str, object] = {"job": job, "work": work_in_words(case.job.work), "attempts": found}
        words: dict[str, object] = {"job": job, "work": work_in_words(case.job.work)}

        def run() -> None:
            for each in chosen:
                try:
                    check_attempt(checks, found, case, each, directory)
                finally:
                    words[f"attempt {each.number}"] = _lines(found[-1])

        with_list(checks, output, about, run, words=words)


async def _case_in_log(log: Path | None, network: Network, job_id: str, known: Genesis | None, output: Output) -> Case:
    attempts, chain = await each_block(log, network, known, output, lambda _: Attempts(job_id))
    found = chain.state.job(job_id)
    if found is None:
        raise NotFound(f"the log has no job {job_id}", hint="Export the log again, after the job.")
    slashes = not isinstance(chain.genesis.parameters.trust, UnsetType)
    return Case(id=job_id, job=found, attempts=tuple(attempts.made), slashes=slashes)


async def _case_of_network(network: Network, job_id: str, known: Genesis | None) -> Case | None:
    """A job that its first miner has brought to a result is proved by a node in two answers. None where there has been
    more, which only the whole log shows."""
    if known is None:
        raise no_genesis()
    async with connect(network) as line:
        bundle = await line.ask("proof", ProofQuestion(key=f"job/{job_id}"), ProofBundle)
        proven = verify_bundle(bundle, known)
        if not isinstance(proven, ProvenState) or proven.key != f"job/{job_id}":
            raise VerificationFailed("the node has proved something else than the job")
        if proven.value is None:
            raise NotFound(f"there is no job {job_id}", hint="See `assay job list`.")
        found = msgspec.json.decode(proven.value, type=Job)
        situation = found.situation
        if found.attempts or isinstance(situation, Refunded):
            return None
        if not isinstance(situation, Committed | Revealed | Settled):
            return Case(id=job_id, job=found, attempts=())
        height = situation.commitment.committed_height
        headers = await line.ask("headers", HeadersQuestion(first=height, limit=1), tuple[BlockProof, ...])
    if not headers or headers[0].header.height != height:
        raise VerificationFailed(f"the node has no block {height}")
    only = Attempt(
        number=1,
        miner=situation.assignment.miner,
        commitment=situation.commitment,
        block=verify_block(headers[0], known),
        revealed=not isinstance(situation, Committed),
        ended=SETTLED if isinstance(situation, Settled) else "",
    )
    return Case(id=job_id, job=found, attempts=(only,))


def choose(case: Case, number: int | None, miner: str | None) -> tuple[Attempt, ...]:
    """The attempts to be looked at, of those that can be. Raises NotFound."""
    named = [
        each
        for each in case.attempts
        if (number is None or each.number == number) and (miner is None or each.miner == miner)
    ]
    if case.attempts and not named:
        made = "; ".join(f"{each.number} by {each.miner}" for each in case.attempts)
        raise NotFound("the job has no such attempt", why=f"it has {made}", hint="Name one of these, or none.")
    chosen = tuple(each for each in named if can_be_repeated(each))
    if not chosen:
        ends = [f"attempt {each.number} ended with {each.ended}" for each in named if each.ended]
        raise NotFound(
            "the job has no result to verify",
            why="; ".join(ends) or f"it is {situation_of(case.job)}",
            hint=f"See `assay job show {case.id}`, or `assay job why {case.id}` while it waits.",
        )
    return chosen


def can_be_repeated(attempt: Attempt) -> bool:
    """Whether somebody has bound itself to a result, and what was said of it depends on the result alone: whether a
    blob was there in time does not."""
    return attempt.commitment is not None and attempt.ended in (*NO_VERDICT, SETTLED, *FAULTS)


def _is_unseen(attempt: Attempt) -> bool:
    """Whether it was judged before anybody could see it."""
    return not attempt.revealed and attempt.ended in FAULTS


def _wanted(case: Case, attempt: Attempt) -> list[tuple[str, str]]:
    """Owner and digest of the blobs that the verdict needs."""
    from actors.verdict import impossible_size

    commitment, work = attempt.commitment, case.job.work
    if commitment is None or _is_unseen(attempt) or impossible_size(work, commitment.size) is not None:
        return []
    inputs = [(case.job.owner, name) for name in dict.fromkeys(blobs_of(work))]
    return [*inputs, (attempt.miner, commitment.result)]


def _must_have(case: Case, chosen: tuple[Attempt, ...], directory: Path, *, ours: bool) -> None:
    """Raises NotFound for the first blob that is not there."""
    for attempt in chosen:
        for _, name in _wanted(case, attempt):
            path = directory / name
            if path.is_file():
                continue
            if not ours:
                why, hint = "it is kept for a while only", "Name a directory that has it with --blobs."
            elif attempt.commitment is None or name != attempt.commitment.result:
                why, hint = "it is an input of the job", "Copy the file there, named by its SHA-256."
            elif attempt.ended == SETTLED:
                why, hint = "it is the result", f"`assay job result {case.id} {path}` fetches it."
            else:
                why = f"it is the result of attempt {attempt.number}"
                hint = "Without --blobs it is fetched from the network, as long as that keeps it."
            if len(chosen) > 1:
                hint += " --attempt N looks at another attempt alone."
            where = directory if ours else "the network"
            raise NotFound(f"{where} has no blob {name}", why=why, hint=hint, blob=name, attempt=attempt.number)


def check_attempt(
    checks: Checks, found: list[dict[str, object]], case: Case, attempt: Attempt, directory: Path
) -> None:
    """Repeats one verdict; what it is goes to ``found``. Raises VerificationFailed where the log says another."""
    from actors.services.registry import findings
    from actors.verdict import finding_on

    commitment, work, name = attempt.commitment, case.job.work, f"attempt {attempt.number}"
    if commitment is None:
        raise AssertionError(f"{name} has no commitment")
    about: dict[str, object] = {"attempt": attempt.number, "miner": attempt.miner}
    about["on_record"] = attempt.ended or "no verdict yet"
    found.append(about)
    if _is_unseen(attempt):
        difference = f"{attempt.said_by} has said {attempt.ended} before anything was revealed"
        checks.hold(f"{name} was judged by what could be seen", holds=False, difference=difference, hint=SHOW_OTHERS)
    for _, blob in _wanted(case, attempt):
        hold_digest(checks, directory / blob)
    inputs, result = {blob: directory / blob for blob in blobs_of(work)}, directory / commitment.result
    seed = challenge_seed(attempt.block, case.id).hex()
    finding = finding_on(work, inputs, result, commitment, seed)
    about["challenge"] = seed
    about["repeated"] = _in_words(finding)
    if finding.accepted is not None:
        about["risk"] = _error(finding.accepted)
        about.update(findings(work, inputs, result))
    _compare(checks, case, attempt, finding)


def _compare(checks: Checks, case: Case, attempt: Attempt, finding: "Finding") -> None:
    recorded = attempt.ended if attempt.ended in FAULTS else ""
    slashed = case.slashes and attempt.ended == "RESULT_WRONG"
    if recorded:
        claim = f"the result is {FAULTS[recorded]}, as the log says" + (", and the slash was right" if slashed else "")
    elif attempt.ended == SETTLED:
        claim = f"the result is right{_how(finding)}, and was paid"
    else:
        claim = f"the result is right{_how(finding)}; the ledger has no verdict"
    claim = f"attempt {attempt.number}: {claim}"
    if recorded == "BAD_INPUT" and finding.reason != recorded:
        # What its owner had uploaded under the digest may have been other bytes.
        checks.skip(claim, "the inputs that are here are good")
        return
    difference = _in_words(finding)
    if attempt.said_by:
        difference += f"; coordinator {attempt.said_by} has said {attempt.ended}"
    if slashed and finding.reason != recorded:
        difference += f", and miner {attempt.miner} was slashed for it"
    hint = SHOW_OTHERS if attempt.ended in (SETTLED, *FAULTS) else "Do not rely on the result."
    checks.hold(claim, holds=finding.reason == recorded, difference=difference, hint=hint)


def _lines(about: Mapping[str, object]) -> str:
    return "\n".join(f"{name.replace('_', ' ')}: {text}" for name, text in about.items() if name != "attempt")


def _in_words(finding: "Finding") -> str:
    return f"{finding.reason}: {finding.detail}" if finding.reason else f"the result is right{_how(finding)}"


def _how(finding: "Finding") -> str:
    return "" if finding.accepted is None else _HOW[finding.accepted.method]


_HOW: Final[Mapping[Any, str]] = {
    "freivalds": ", by Freivalds' check of all of its entries",
    "recomputed": ", all of it computed again",
    "permutation": ", by order and by a fingerprint of all elements",
    "unverified": " in its form: nobody can know what a client's own kernel computes",
    "sampled": ", by chunks drawn after the commitment and computed again",
}


def _error(verdict: "Accepted") -> str:
    if verdict.method == "sampled":
        sampled = f"{verdict.samples} of {verdict.chunks} chunks were computed again"
        return f"{sampled}; a result with a share p of wrong chunks would pass with (1 - p)^{verdict.samples}"
    if verdict.method == "unverified":
        return "any bytes of the right size would pass"
    if verdict.method == "recomputed":
        return "a wrong result cannot pass"
    return f"a wrong result would pass once in 2^{verdict.error_bits}"
