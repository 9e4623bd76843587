"""The coordinator's effects: fetching inputs and results, and the verdict on a result.

Files of a job lie in a directory of their own below ``directory`` until the job has ended. A verdict depends on the
work, the blobs and the challenge alone, so `assay verify job` repeats it.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from actors.coordinator import InputsChecked, Judged
from actors.services.matmul import Accepted, RejectionCode, operands, result_size, verify
from bus.port import Bus
from events.errors import BadInput, BlobMismatch, BlobUnavailable
from projections.receipts import challenge_seed
from schemas.services import blobs_of
from schemas.state import Job, Revealed, situation_of

INPUT_TIMEOUT_MS: Final = 20_000
RESULT_TIMEOUT_MS: Final = 15_000
VERDICTS_AT_ONCE: Final = 2

_MALFORMED: Final = (RejectionCode.MALFORMED, RejectionCode.TYPE, RejectionCode.SHAPE)


class BlobExaminer:
    """Judges with the blobs that ``bus`` has. ``block_hash`` reads the hash of a final block by its height."""

    def __init__(self, bus: Bus, directory: Path, block_hash: Callable[[int], Awaitable[str]]) -> None:
        self._bus = bus
        self._directory = directory
        self._block_hash = block_hash
        self._verdicts = asyncio.Semaphore(VERDICTS_AT_ONCE)

    async def check_inputs(self, job_id: str, job: Job) -> InputsChecked:
        """Fetches the inputs and reads them as the work describes them. Raises BlobUnavailable."""
        try:
            blobs = await self._inputs(job_id, job)
            await asyncio.to_thread(operands, job.work, blobs)
        except (BadInput, BlobMismatch):
            return InputsChecked(job_id, "BAD_INPUT")
        return InputsChecked(job_id)

    async def judge(self, job_id: str, job: Job) -> Judged:
        """Fetches the result and verifies all of it. Raises BusError when that cannot be done now."""
        revealed = job.situation
        if not isinstance(revealed, Revealed):
            raise AssertionError(f"job {job_id} is {situation_of(job)}, there is nothing to judge")
        commitment, miner = revealed.commitment, revealed.assignment.miner
        if commitment.size != result_size(job.work):
            return Judged(job_id, commitment.root, "RESULT_MALFORMED")
        result = self._place(job_id) / commitment.result
        try:
            blobs = await self._inputs(job_id, job)
        except BlobMismatch:
            return Judged(job_id, commitment.root, "BAD_INPUT")
        try:
            if not result.exists():
                await self._bus.get_blob(miner, commitment.result, result, RESULT_TIMEOUT_MS)
        except (BlobUnavailable, BlobMismatch):
            return Judged(job_id, commitment.root, "RESULT_UNAVAILABLE")
        seed = challenge_seed(await self._block_hash(commitment.committed_height), job_id).hex()
        async with self._verdicts:
            try:
                verdict = await asyncio.to_thread(verify, job.work, blobs, result, commitment.root, seed)
            except BadInput:
                return Judged(job_id, commitment.root, "BAD_INPUT")
        if isinstance(verdict, Accepted):
            return Judged(job_id, commitment.root)
        return Judged(job_id, commitment.root, "RESULT_MALFORMED" if verdict.code in _MALFORMED else "RESULT_WRONG")

    async def forget(self, job_id: str) -> None:
        """Removes the job's files."""
        await asyncio.to_thread(shutil.rmtree, self._directory / job_id, ignore_errors=True)

    def _place(self, job_id: str) -> Path:
        place = self._directory / job_id
        place.mkdir(parents=True, exist_ok=True)
        return place

    async def _inputs(self, job_id: str, job: Job) -> dict[str, Path]:
        blobs = {}
        for digest in blobs_of(job.work):
            path = self._place(job_id) / digest
            if not path.exists():
                await self._bus.get_blob(job.owner, digest, path, INPUT_TIMEOUT_MS)
            blobs[digest] = path
        return blobs
