"""The coordinator's effects in exams: fetching what miners have opened, and the verdict on it.

A verdict depends on the log, the blobs and the lists alone; `actors.attestation.judge` makes it, and `assay verify
exam` repeats it.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import Struct, UnsetType

from actors.attestation.exam_check import ExamSetup
from actors.attestation.judge import Exam, Submission, judge
from actors.attestation.lists import Lists
from actors.examinations import ExamFound, SpotDrawn
from actors.fetching import fetch, host_faults
from bus.port import Bus
from events.errors import BlobMismatch, BlobUnavailable
from projections.exams import spot_number
from schemas.state import Attestation, Examination

OPENING_TIMEOUT_MS: Final = 10_000
MAX_OPENING_BYTES: Final = 8 << 20
# Evidence must name a block that was about the newest when it was claimed: by height, or where many came, by time.
FRESH_BLOCKS: Final = 100
FRESH_MS: Final = 600_000
_UNKNOWN: Final = "0" * 64


class BlockFacts(Struct, frozen=True):
    """Of a final block; of the genesis at height 0."""

    hash: str
    time_ms: int


# Reads the facts of a final block by its height; a blob by its digest, None where it is not to be had.
Block = Callable[[int], Awaitable[BlockFacts]]
Read = Callable[[str], Awaitable[bytes | None]]


class BlobExamJudge:
    """Judges with the blobs that ``bus`` has and by ``lists``."""

    def __init__(self, bus: Bus, directory: Path, block: Block, lists: Lists) -> None:
        self._bus = bus
        self._directory = directory
        self._block = block
        self._lists = lists
        self._one = asyncio.Semaphore(1)
        self._setup: ExamSetup | None = None

    async def judge(self, miner: str, attestation: Attestation) -> ExamFound:
        """See `actors.examinations.ExamJudge`. Raises BusError, TimedOut or HostFault when it cannot be done now."""
        examination = attestation.examination
        if not isinstance(examination, Examination):
            raise AssertionError(f"{miner} is in no exam, there is nothing to judge")
        place = self._directory / f"{miner}-{examination.exam}"
        with host_faults("the judging of an exam"):
            try:
                place.mkdir(parents=True, exist_ok=True)
                submissions = await submissions_of(examination, partial(self._read, miner, place))
            finally:
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            exam = await exam_of(examination, self._block)
            fresh = await is_fresh(attestation, self._block)
            async with self._one:
                setup = await asyncio.to_thread(self._set_up, exam)
                look = partial(judge, miner, exam, setup, attestation.evidence, submissions, self._lists, fresh=fresh)
                return ExamFound(await asyncio.to_thread(look))

    async def draw(self, job_id: str, miner: str, height: int) -> SpotDrawn:
        """See `actors.examinations.ExamJudge`."""
        return SpotDrawn(job_id, miner, spot_number((await self._block(height)).hash, job_id))

    def _set_up(self, exam: Exam) -> ExamSetup:
        """What an exam's miners share is made once."""
        setup, shape = self._setup, exam.shape
        if setup is None or (setup.epoch, setup.inner, setup.columns) != (exam.seed, shape.inner, shape.columns):
            setup = self._setup = ExamSetup(exam.seed, shape.inner, shape.columns)
        return setup

    async def _read(self, miner: str, place: Path, digest: str) -> bytes | None:
        """The blob; None where it is not to be had. One that no opening can be is cut."""
        path = place / digest
        try:
            await fetch(self._bus, miner, digest, path, OPENING_TIMEOUT_MS)
        except (BlobUnavailable, BlobMismatch):
            return None
        return b"" if path.stat().st_size > MAX_OPENING_BYTES else await asyncio.to_thread(path.read_bytes)


async def exam_of(examination: Examination, block: Block) -> Exam:
    """What the log says of the exam that a miner is in."""
    challenge = _UNKNOWN
    if not isinstance(examination.commitment, UnsetType):
        challenge = (await block(examination.commitment.committed_height)).hash
    seed = (await block(examination.opened_height)).hash
    return Exam(id=examination.exam, seed=seed, shape=examination.shape, challenge=challenge)


async def submissions_of(examination: Examination, read: Read) -> dict[str, Submission]:
    """By GPU, what was answered, with what was opened of it."""
    commitment = examination.commitment
    if isinstance(commitment, UnsetType):
        return {}
    if isinstance(examination.openings, UnsetType):
        return {answer.gpu: Submission(answer=answer, late=True) for answer in commitment.answers}
    openings = {opening.gpu: opening for opening in examination.openings}
    found = {}
    for answer in commitment.answers:
        opening = openings.get(answer.gpu)
        if opening is not None:
            rows = await read(opening.rows)
            fill = None if isinstance(opening.fill, UnsetType) else await read(opening.fill)
            found[answer.gpu] = Submission(answer=answer, opening=rows, fill_opening=fill)
    return found


async def is_fresh(attestation: Attestation, block: Block) -> bool:
    """Whether the evidence names a block of this chain that was young when it was claimed."""
    evidence = attestation.evidence
    if evidence.height >= attestation.claimed_height:
        return False
    named = await block(evidence.height)
    young = (
        attestation.claimed_height - evidence.height <= FRESH_BLOCKS
        or attestation.claimed_ms - named.time_ms <= FRESH_MS
    )
    return named.hash == evidence.block and young
