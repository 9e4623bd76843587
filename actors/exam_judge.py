"""The coordinator's effects in exams: fetching what miners have opened, and the verdict on it.

A verdict depends on the log, the blobs and the lists alone; `actors.attestation.judge` makes it.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from actors.attestation.exam_check import ExamSetup
from actors.attestation.judge import Exam, Submission, judge
from actors.attestation.lists import Lists
from actors.examinations import ExamFound, SpotDrawn
from actors.fetching import fetch, host_faults
from bus.port import Bus
from events.errors import BlobMismatch, BlobUnavailable
from projections.exams import spot_number
from schemas.attestation import ExamOpening
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


class BlobExamJudge:
    """Judges with the blobs that ``bus`` has and by ``lists``. ``block`` reads the facts of a final block."""

    def __init__(self, bus: Bus, directory: Path, block: Callable[[int], Awaitable[BlockFacts]], lists: Lists) -> None:
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
                submissions = await self._submissions(miner, examination, place)
            finally:
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        exam = Exam(
            id=examination.exam,
            seed=(await self._block(examination.opened_height)).hash,
            shape=examination.shape,
            challenge=await self._challenge(examination),
        )
        fresh = await self._is_fresh(attestation)
        async with self._one:
            setup = await asyncio.to_thread(self._set_up, exam)
            look = partial(judge, miner, exam, setup, attestation.evidence, submissions, self._lists, fresh=fresh)
            return ExamFound(await asyncio.to_thread(look))

    async def draw(self, job_id: str, miner: str, height: int) -> SpotDrawn:
        """See `actors.examinations.ExamJudge`."""
        return SpotDrawn(miner, spot_number((await self._block(height)).hash, job_id))

    def _set_up(self, exam: Exam) -> ExamSetup:
        """What an exam's miners share is made once."""
        setup, shape = self._setup, exam.shape
        if setup is None or (setup.epoch, setup.inner, setup.columns) != (exam.seed, shape.inner, shape.columns):
            setup = self._setup = ExamSetup(exam.seed, shape.inner, shape.columns)
        return setup

    async def _challenge(self, examination: Examination) -> str:
        if isinstance(examination.commitment, UnsetType):
            return _UNKNOWN
        return (await self._block(examination.commitment.committed_height)).hash

    async def _submissions(self, miner: str, examination: Examination, place: Path) -> dict[str, Submission]:
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
                rows = await self._read(miner, opening.rows, place)
                fill = await self._fill(miner, opening, place)
                found[answer.gpu] = Submission(answer=answer, opening=rows, fill_opening=fill)
        return found

    async def _fill(self, miner: str, opening: ExamOpening, place: Path) -> bytes | None:
        return None if opening.fill is UNSET else await self._read(miner, opening.fill, place)

    async def _read(self, miner: str, digest: str, place: Path) -> bytes | None:
        """The blob; None where it is not to be had. One that no opening can be is cut."""
        path = place / digest
        try:
            await fetch(self._bus, miner, digest, path, OPENING_TIMEOUT_MS)
        except (BlobUnavailable, BlobMismatch):
            return None
        return b"" if path.stat().st_size > MAX_OPENING_BYTES else await asyncio.to_thread(path.read_bytes)

    async def _is_fresh(self, attestation: Attestation) -> bool:
        evidence = attestation.evidence
        if evidence.height >= attestation.claimed_height:
            return False
        named = await self._block(evidence.height)
        young = (
            attestation.claimed_height - evidence.height <= FRESH_BLOCKS
            or attestation.claimed_ms - named.time_ms <= FRESH_MS
        )
        return named.hash == evidence.block and young
