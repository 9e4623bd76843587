"""``assay verify job``: the verdict on a result, repeated by whoever wants to know."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter
from msgspec import Struct

from actors.command_line.amounts import check_digest
from actors.command_line.checks import Checks
from actors.command_line.logs import say_whose_genesis
from actors.command_line.network import connect
from actors.command_line.options import DISPLAY, NETWORK, Display, JobId, Network
from actors.command_line.output import Output
from actors.command_line.sentences import work_in_words
from actors.command_line.verify import GenesisFile, load_genesis, with_list
from events.canonical import digest
from events.errors import BadInput, NotFound, VerificationFailed
from projections.log_file import LogReader
from projections.proofs import ProvenState, verify_block, verify_bundle
from projections.receipts import challenge_seed
from schemas.genesis import Genesis
from schemas.messages import BlockProof, ProofBundle
from schemas.queries import HeadersQuestion, ProofQuestion
from schemas.services import blobs_of
from schemas.state import Commitment, Committed, Job, Revealed, Settled, situation_of

if TYPE_CHECKING:
    from actors.services.base import Accepted


class Case(Struct, frozen=True):
    """A job with a commitment, and the hash of the block that included it, whence the challenge comes."""

    id: str
    job: Job
    commitment: Commitment
    miner: str
    block: str


async def verify_job(
    job: JobId,
    /,
    *,
    log: Annotated[Path | None, Parameter(help="An exported log; everything in it is executed again first.")] = None,
    blobs: Annotated[Path | None, Parameter(help="Directory with blobs, each named by its digest.")] = None,
    genesis: GenesisFile = None,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """Repeat the verdict on a job's result: draw the challenge from the chain and check the result with it.
    Offline with --log and --blobs; what is not given comes from the network, with proofs against the genesis."""
    check_digest(job, "the id of a job")
    output = Output(display)
    known = load_genesis(genesis)
    case = _case_in_log(log, job, known, output) if log else await _case_of_network(network, job, known)
    with tempfile.TemporaryDirectory(prefix="assay-verify-") as folder:
        directory = blobs or Path(folder)
        if blobs is None:
            await _download(network, case, directory, output)
        checks = Checks()
        about: dict[str, object] = {"job": job, "work": work_in_words(case.job.work), "miner": case.miner}
        with_list(checks, output, about, lambda: _check(checks, about, case, directory))


def _case_in_log(log: Path, job_id: str, known: Genesis | None, output: Output) -> Case:
    from events.blocks import genesis_hash
    from projections.audit import Auditor

    blocks: dict[int, str] = {}
    expected = genesis_hash(known) if known else None
    with log.open("rb") as file, output.progress("audit", log.stat().st_size) as advance:
        reader = LogReader(file)
        auditor = Auditor(reader.genesis, expected_genesis_hash=expected)
        for sequence, kind, data in reader.messages():
            if (final := auditor.add(sequence, kind, data)) is not None:
                blocks[final.header.height] = final.hash
            advance(reader.bytes_read)
        auditor.finish(reader.trailer)
    if known is None:
        say_whose_genesis(output, auditor.chain.genesis_hash)
    found = auditor.chain.state.job(job_id)
    if found is None:
        raise NotFound(f"the log has no job {job_id}", hint="Export the log again, after the job.")
    commitment, miner = _commitment_of(job_id, found)
    return Case(job_id, found, commitment, miner, blocks[commitment.committed_height])


async def _case_of_network(network: Network, job_id: str, known: Genesis | None) -> Case:
    if known is None:
        raise BadInput(
            "no genesis", why="a node's word is no proof", hint="Name the chain's genesis with --genesis FILE."
        )
    async with connect(network) as line:
        bundle = await line.ask("proof", ProofQuestion(key=f"job/{job_id}"), ProofBundle)
        proven = verify_bundle(bundle, known)
        if not isinstance(proven, ProvenState) or proven.key != f"job/{job_id}":
            raise VerificationFailed("the node has proved something else than the job")
        if proven.value is None:
            raise NotFound(f"there is no job {job_id}", hint="See `assay job list`.")
        found = msgspec.json.decode(proven.value, type=Job)
        commitment, miner = _commitment_of(job_id, found)
        question = HeadersQuestion(first=commitment.committed_height, limit=1)
        headers = await line.ask("headers", question, tuple[BlockProof, ...])
    if not headers or headers[0].header.height != commitment.committed_height:
        raise VerificationFailed(f"the node has no block {commitment.committed_height}")
    return Case(job_id, found, commitment, miner, verify_block(headers[0], known))


def _commitment_of(job_id: str, job: Job) -> tuple[Commitment, str]:
    situation = job.situation
    if not isinstance(situation, Committed | Revealed | Settled):
        raise NotFound(
            "the job has no result to verify",
            why=f"it is {situation_of(job)}",
            hint=f"See `assay job why {job_id}`.",
        )
    return situation.commitment, situation.assignment.miner


async def _download(network: Network, case: Case, directory: Path, output: Output) -> None:
    wanted = [(case.job.owner, name) for name in dict.fromkeys(blobs_of(case.job.work))]
    wanted.append((case.miner, case.commitment.result))
    async with connect(network) as line:
        for owner, name in wanted:
            output.note(f"download {name}")
            await line.bus.get_blob(owner, name, directory / name, line.timeout_ms)


def _check(checks: Checks, about: dict[str, object], case: Case, directory: Path) -> None:
    from actors.services.base import Accepted
    from actors.services.registry import findings, verify

    inputs = {name: directory / name for name in blobs_of(case.job.work)}
    result = directory / case.commitment.result
    for path in (*inputs.values(), result):
        if not path.is_file():
            hint = (
                f"`assay job result {case.id} {path}` fetches it: it is the result."
                if path == result
                else "It is an input of the job: copy the file there, named by its SHA-256."
            )
            raise NotFound(f"{directory} has no blob {path.name}", hint=hint)
        found = digest(path.read_bytes())
        checks.hold(f"blob {path.name} has its digest", holds=found == path.name, difference=f"its bytes have {found}")
    seed = challenge_seed(case.block, case.id).hex()
    about["challenge"] = seed
    verdict = verify(case.job.work, inputs, result, case.commitment.root, seed)
    checks.hold(
        f"the result is right{_HOW[verdict.method] if isinstance(verdict, Accepted) else ''}",
        holds=isinstance(verdict, Accepted),
        difference="" if isinstance(verdict, Accepted) else f"{verdict.code}: {verdict.detail}",
    )
    if isinstance(verdict, Accepted):
        about["error"] = _error(verdict)
        about.update(findings(case.job.work, inputs, result))
    settled = isinstance(case.job.situation, Settled)
    checks.hold(
        "the ledger has paid for a right result" if settled else "the ledger has not given its verdict yet",
        holds=True,
        difference="",
    )


_HOW: Final[Mapping[str, str]] = {
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
