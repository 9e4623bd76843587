"""Rules of attestation: a miner's claim, the exam that a coordinator opens, the miner's answers, and the verdict.

    attestation.claimed ┐
                        └ exam.opened → exam.committed → exam.revealed → exam.judged
                               └ the deadline passes ───────────────────↗ (absent, or late)

A missed deadline needs no timer: only coordinators hand out jobs, and it is they who say that an answer is missing,
which the rules let them say only once it is true. The score follows from the record that all this leaves behind
(`projections.attestation`); its sum stands in the miner's standing.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from projections.attestation import attested
from projections.bonds import first_repeated, put_standing, standing_of, trust_of
from projections.state import Context, Draft
from schemas.attestation import ExamAnswer, ExamShape, ExamVerdict, GpuVerdict, HostEvidence
from schemas.events import AttestationClaimed, ExamCommitted, ExamJudged, ExamOpened, ExamRevealed
from schemas.refusals import (
    DuplicateEntry,
    ExamOver,
    ExamUnderway,
    NotCoordinator,
    NotEnabled,
    NothingClaimed,
    Refusal,
    UnknownExam,
    UnknownMiner,
    WrongAnswers,
    WrongExamStage,
)
from schemas.state import Attestation, ExamCommitment, Examination, Examined

UNANSWERED: Final = ("absent", "late")
OPERATIONS_PER_ENTRY: Final = 2
GIGA: Final = 10**9
SPOT_DOMAIN: Final = b"assay:spot-check:v1\0"


def spot_number(block_hash: str, job_id: str) -> int:
    """What a settled job draws, below 10,000, from the block that settled it; nobody knew it before."""
    return int.from_bytes(sha256(SPOT_DOMAIN + bytes.fromhex(block_hash) + bytes.fromhex(job_id)).digest()) % 10_000


def performance_of(answer: ExamAnswer, shape: ExamShape, duration_ms: int) -> int:
    """Giga-operations per second of a GPU that made so many rows of the product in this time."""
    operations = OPERATIONS_PER_ENTRY * answer.rows * shape.inner * shape.columns
    return operations * 1_000 // (GIGA * max(duration_ms, 1))


def _put(draft: Draft, address: str, attestation: Attestation) -> None:
    """Keeps the record, and its sum in the miner's standing."""
    draft.put_attestation(address, attestation)
    miner = draft.miner(address)
    if miner is None:
        raise AssertionError(f"{address} has an attestation and is no miner")
    standing, found = standing_of(miner), attested(attestation)
    if standing.attested != found:
        put_standing(draft, address, miner, msgspec.structs.replace(standing, attested=found))


def _same_gpus(first: HostEvidence, second: HostEvidence) -> bool:
    """Whether it is the same host, what changes by itself aside."""
    return _lasting(first) == _lasting(second)


def _lasting(evidence: HostEvidence) -> HostEvidence:
    gpus = tuple(msgspec.structs.replace(gpu, live=UNSET) for gpu in evidence.gpus)
    return msgspec.structs.replace(evidence, height=0, block="", lists=UNSET, gpus=gpus)


def attestation_claimed(draft: Draft, event: AttestationClaimed, context: Context, event_id: str) -> Refusal | None:
    """Replaces what the miner has said of its host. The verdict on the same host stays, that on another one goes."""
    if trust_of(draft) is None:
        return NotEnabled(feature="attestation")
    if draft.miner(event.sender) is None:
        return UnknownMiner(miner=event.sender)
    repeated = first_repeated(gpu.uuid for gpu in event.evidence.gpus)
    if repeated is not None:
        return DuplicateEntry(entry=repeated)
    known = draft.attestation(event.sender)
    if known is not None and isinstance(known.examination, Examination):
        return ExamUnderway(miner=event.sender, exam=known.examination.exam)
    claimed = Attestation(
        evidence=event.evidence,
        since_ms=context.time_ms,
        claimed_ms=context.time_ms,
        claimed_height=context.height,
    )
    if known is not None and _same_gpus(known.evidence, event.evidence):
        claimed = msgspec.structs.replace(
            claimed, since_ms=known.since_ms, examined=known.examined, previous=known.previous
        )
    _put(draft, event.sender, claimed)
    return None


def exam_opened(draft: Draft, event: ExamOpened, context: Context, event_id: str) -> Refusal | None:
    """Puts all of these miners into one exam, or none."""
    trust = trust_of(draft)
    if trust is None:
        return NotEnabled(feature="exams")
    if event.sender not in draft.genesis.coordinators:
        return NotCoordinator(sender=event.sender)
    if (repeated := first_repeated(event.miners)) is not None:
        return DuplicateEntry(entry=repeated)
    for address in event.miners:
        known = draft.attestation(address)
        if known is None or not known.evidence.gpus:
            return NothingClaimed(miner=address)
        if isinstance(known.examination, Examination):
            return ExamUnderway(miner=address, exam=known.examination.exam)
    for address in event.miners:
        known = draft.attestation(address)
        if known is None:
            raise AssertionError(f"the attestation of {address} is gone")
        examination = Examination(
            exam=event_id,
            cause=event.cause,
            shape=trust.exam,
            opened_ms=context.time_ms,
            opened_height=context.height,
            deadline_ms=context.time_ms + trust.exam_window_ms,
        )
        draft.put_attestation(address, msgspec.structs.replace(known, examination=examination))
    return None


def _examination(draft: Draft, address: str, exam: str) -> tuple[Attestation, Examination] | UnknownExam:
    known = draft.attestation(address)
    if known is None or isinstance(known.examination, UnsetType) or known.examination.exam != exam:
        return UnknownExam(miner=address, exam=exam)
    return known, known.examination


def _stage(examination: Examination) -> str:
    if examination.commitment is UNSET:
        return "opened"
    return "committed" if examination.openings is UNSET else "revealed"


def _misplaced(examination: Examination, stage: str, context: Context) -> Refusal | None:
    """Why the miner may not say this now."""
    found = _stage(examination)
    if found != stage:
        return WrongExamStage(exam=examination.exam, stage=found)
    if context.time_ms >= examination.deadline_ms:
        return ExamOver(exam=examination.exam, deadline_ms=examination.deadline_ms, now_ms=context.time_ms)
    return None


def _out_of_order(said: Sequence[str], expected: Sequence[str]) -> WrongAnswers | None:
    """Entries must be some of the expected GPUs, in their order, each once."""
    waiting = iter(expected)
    for gpu in said:
        if gpu not in waiting:  # reads on to where it stands
            return WrongAnswers(detail=f"{gpu} is not expected here")
    return None


def exam_committed(draft: Draft, event: ExamCommitted, context: Context, event_id: str) -> Refusal | None:
    """Binds the miner to its answers, within the exam's window."""
    trust = trust_of(draft)
    if trust is None:
        return NotEnabled(feature="exams")
    found = _examination(draft, event.sender, event.exam)
    if isinstance(found, UnknownExam):
        return found
    known, examination = found
    if (refusal := _misplaced(examination, "opened", context)) is not None:
        return refusal
    expected = [gpu.uuid for gpu in known.evidence.gpus]
    if (wrong := _out_of_order([answer.gpu for answer in event.answers], expected)) is not None:
        return wrong
    for answer in event.answers:
        if answer.rows < examination.shape.min_rows:
            return WrongAnswers(detail=f"{answer.rows} rows, at least {examination.shape.min_rows} are asked for")
        if (answer.memory_mib is UNSET) != (answer.memory_root is UNSET):
            return WrongAnswers(detail="memory_mib and memory_root go together")
    commitment = ExamCommitment(answers=event.answers, committed_ms=context.time_ms, committed_height=context.height)
    committed = msgspec.structs.replace(
        examination, commitment=commitment, deadline_ms=context.time_ms + trust.exam_reveal_ms
    )
    draft.put_attestation(event.sender, msgspec.structs.replace(known, examination=committed))
    return None


def exam_revealed(draft: Draft, event: ExamRevealed, context: Context, event_id: str) -> Refusal | None:
    """Says where the challenged rows of each answer lie."""
    found = _examination(draft, event.sender, event.exam)
    if isinstance(found, UnknownExam):
        return found
    known, examination = found
    if (refusal := _misplaced(examination, "committed", context)) is not None:
        return refusal
    answers = [] if isinstance(examination.commitment, UnsetType) else list(examination.commitment.answers)
    expected = [answer.gpu for answer in answers]
    if (wrong := _out_of_order([opening.gpu for opening in event.openings], expected)) is not None:
        return wrong
    for opening in event.openings:
        if (opening.fill is UNSET) != (opening.fill_size is UNSET):
            return WrongAnswers(detail="fill and fill_size go together")
    revealed = msgspec.structs.replace(examination, openings=event.openings)
    draft.put_attestation(event.sender, msgspec.structs.replace(known, examination=revealed))
    return None


def _verdict_refusal(verdict: ExamVerdict, known: Attestation, examination: Examination) -> WrongAnswers | None:
    """A verdict names each claimed GPU; only what was revealed can be anything else than missing."""
    if [gpu.gpu for gpu in verdict.gpus] != [gpu.uuid for gpu in known.evidence.gpus]:
        return WrongAnswers(detail="the verdict has other GPUs than the claim")
    openings = () if isinstance(examination.openings, UnsetType) else examination.openings
    opened = {opening.gpu for opening in openings}
    for gpu in verdict.gpus:
        if gpu.result not in UNANSWERED and gpu.gpu not in opened:
            return WrongAnswers(detail=f"{gpu.gpu} has opened nothing and cannot be {gpu.result}")
    return None


def exam_judged(draft: Draft, event: ExamJudged, context: Context, event_id: str) -> Refusal | None:
    """Keeps the verdict with the speed that the block times give, and ends the exam."""
    if event.sender not in draft.genesis.coordinators:
        return NotCoordinator(sender=event.sender)
    verdict = event.verdict
    found = _examination(draft, verdict.miner, verdict.exam)
    if isinstance(found, UnknownExam):
        return found
    known, examination = found
    if examination.openings is UNSET and context.time_ms < examination.deadline_ms:
        return WrongExamStage(exam=examination.exam, stage=_stage(examination))
    if (wrong := _verdict_refusal(verdict, known, examination)) is not None:
        return wrong
    duration_ms, answers = 0, {}
    if isinstance(examination.commitment, ExamCommitment):
        duration_ms = examination.commitment.committed_ms - examination.opened_ms
        answers = {answer.gpu: answer for answer in examination.commitment.answers}
    performance = tuple(
        performance_of(answers[gpu.gpu], examination.shape, duration_ms) if gpu.result == "right" else 0
        for gpu in verdict.gpus
    )
    examined = Examined(
        verdict=verdict,
        cause=examination.cause,
        coordinator=event.sender,
        opened_ms=examination.opened_ms,
        judged_ms=context.time_ms,
        judged_height=context.height,
        duration_ms=duration_ms,
        performance=performance,
    )
    before = known.examined
    judged = msgspec.structs.replace(
        known,
        examination=UNSET,
        examined=examined,
        previous=known.previous if isinstance(before, UnsetType) else min(before.performance, default=0),
    )
    _put(draft, verdict.miner, _compared(draft, verdict.miner, judged))
    return None


def _right(gpus: Iterable[GpuVerdict]) -> set[str]:
    return {gpu.gpu for gpu in gpus if gpu.result == "right"}


def _compared(draft: Draft, address: str, judged: Attestation) -> Attestation:
    """Of two miners that have both shown to have one GPU, the one that claimed it first keeps it."""
    if isinstance(judged.examined, UnsetType):
        raise AssertionError(f"the verdict on {address} is gone")
    mine, lost = _right(judged.examined.verdict.gpus), set()
    for other, theirs in draft.attestations().items():
        if other == address or isinstance(theirs.examined, UnsetType):
            continue
        both = mine & _right(theirs.examined.verdict.gpus)
        if not both:
            continue
        if (theirs.since_ms, other) < (judged.since_ms, address):
            lost |= both
        else:
            shared = tuple(sorted(both.union(theirs.examined.shared)))
            examined = msgspec.structs.replace(theirs.examined, shared=shared)
            _put(draft, other, msgspec.structs.replace(theirs, examined=examined))
    examined = msgspec.structs.replace(judged.examined, shared=tuple(sorted(lost)))
    return msgspec.structs.replace(judged, examined=examined)
