"""``assay miner explain``: the score of a miner, level by level, and whether the chain's terms let it work."""

from typing import cast

from msgspec import Struct, UnsetType

from actors.command_line.amounts import moment
from actors.command_line.levels import level_rows
from actors.command_line.network import Line, connect
from actors.command_line.options import DISPLAY, NETWORK, Address, Display, Network
from actors.command_line.output import Output, asy
from actors.command_line.refusals import reason
from events.errors import NotFound
from events.keys import public_key_of
from projections.attestation import GpuScore, scores_of
from projections.bonds import attested_of, standing_of, untrustworthy
from schemas import queries
from schemas.attestation import Grade
from schemas.genesis import Trust
from schemas.refusals import AnyRefusal, Refusal, code_of
from schemas.state import Attestation, Miner, Standing


class Terms(Struct, frozen=True, kw_only=True):
    """What the chain asks for."""

    min_score: int = 0
    min_memory_mib: int = 0
    min_performance: int = 0
    min_bond: int = 0


class Explained(Struct, frozen=True, kw_only=True):
    """The whole answer: what the log gives the miner, what the chain asks for, and why that is not enough, if so."""

    address: str
    admitted: bool
    score: int
    grade: Grade
    memory_mib: int
    performance: int
    gpus: tuple[GpuScore, ...]
    standing: Standing
    terms: Terms
    refusal: AnyRefusal | None


async def explain(address: Address, /, *, network: Network = NETWORK, display: Display = DISPLAY) -> int:
    """A miner's score, level by level, with what was found and what was asked for; all of it follows from the log.

    Exit code 1 when the chain's terms give it no jobs.
    """
    public_key_of(address)
    output = Output(display)
    async with connect(network) as line:
        entry = await line.ask("miner", queries.MinerQuestion(miner=address), queries.MinerEntry)
        attestation = await _attestation(line, address)
        trust = (await line.genesis()).parameters.trust
    found = explained(address, entry.miner, attestation, trust)
    if output.is_for_people:
        _show(output, found, attestation)
    else:
        output.one(found, {})
    return 0 if found.admitted else 1


async def _attestation(line: Line, address: str) -> Attestation | None:
    question = queries.AttestationQuestion(miner=address)
    try:
        return (await line.ask("attestation", question, queries.AttestationAnswer)).attestation
    except NotFound:
        return None


def explained(address: str, miner: Miner, attestation: Attestation | None, trust: Trust | UnsetType) -> Explained:
    """The answer, from what the state holds."""
    found = attested_of(miner)
    refusal: Refusal | None = untrustworthy(trust, address, miner)
    terms = (
        Terms()
        if isinstance(trust, UnsetType)
        else Terms(
            min_score=trust.min_score,
            min_memory_mib=trust.min_memory_mib,
            min_performance=trust.min_performance,
            min_bond=trust.min_bond,
        )
    )
    return Explained(
        address=address,
        admitted=refusal is None,
        score=found.score,
        grade=found.grade,
        memory_mib=found.memory_mib,
        performance=found.performance,
        gpus=() if attestation is None else scores_of(attestation),
        standing=standing_of(miner),
        terms=terms,
        refusal=cast("AnyRefusal | None", refusal),
    )


def _show(output: Output, found: Explained, attestation: Attestation | None) -> None:
    for gpu in found.gpus:
        output.note(f"{gpu.gpu}: {gpu.score} points, grade {gpu.grade}")
        output.many(found.gpus, level_rows(gpu))
    if attestation is None:
        output.note("This miner has claimed no GPUs; its score is 0. `assay miner selftest` on its host says why.")
    output.one(found, facts_of(found, attestation))


def facts_of(found: Explained, attestation: Attestation | None) -> dict[str, object]:
    """What people read below the levels."""
    terms, standing = found.terms, found.standing
    filled = min((gpu.filled_mib for gpu in found.gpus), default=0)
    facts: dict[str, object] = {
        "score": f"{found.score} of 100, grade {found.grade}; the chain asks for {terms.min_score}",
        "memory": f"{found.memory_mib} MiB count, {filled} MiB filled in the exam; the chain asks for "
        f"{terms.min_memory_mib}",
        "speed": f"{found.performance} giga-operations/s measured; the chain asks for {terms.min_performance}",
        "bond": f"{asy(standing.bond)}; the chain asks for {asy(terms.min_bond)}; burned {asy(standing.slashed)}",
        "results": f"{standing.submitted} submitted, {standing.verified} verified, {standing.on_time} on time, "
        f"{standing.late} late, {standing.wrong} wrong",
    }
    if standing.unlocked:
        facts["unlocked"] = f"{asy(standing.unlocked)}, to withdraw from {moment(standing.withdrawable_ms)} on"
    if attestation is not None and not isinstance(attestation.examined, UnsetType):
        exam = attestation.examined.verdict.exam
        facts["examined"] = f"{moment(attestation.examined.judged_ms)}; `assay verify exam {exam}` repeats the verdict"
    if attestation is not None and not isinstance(attestation.examination, UnsetType):
        facts["exam"] = f"in one since {moment(attestation.examination.opened_ms)}"
    refusal = found.refusal
    facts["admitted"] = "yes" if refusal is None else f"no, {code_of(refusal)}: {reason(refusal)}"
    return facts
