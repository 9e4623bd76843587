"""The coordinator's effects: fetching inputs and results, and the verdict on a result.

Files of a job lie in a directory of their own below ``directory`` until the job has ended. A verdict depends on the
work, the blobs and the challenge alone, so `assay verify job` repeats it.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from actors.coordinator import InputsChecked, Judged
from actors.fetching import abandoned, fetch, host_faults
from actors.services.registry import service_for, verify
from actors.verdict import BAD_INPUT, Verify, finding_on, impossible_size
from bus.port import Bus
from events.errors import BadInput, BlobMismatch, BlobUnavailable
from projections.receipts import challenge_seed
from schemas.services import blobs_of
from schemas.state import Job, Revealed, situation_of

INPUT_TIMEOUT_MS: Final = 20_000
RESULT_TIMEOUT_MS: Final = 10_000
VERDICTS_AT_ONCE: Final = 2
READINGS_AT_ONCE: Final = 2
KEPT_BYTES: Final = 4 * 2**30


class BlobExaminer:
    """Judges with the blobs that ``bus`` has. ``block_hash`` reads the hash of a final block by its height.

    Of jobs that nobody works on right now it keeps up to ``kept_bytes``; what it has removed it fetches again.
    """

    def __init__(
        self,
        bus: Bus,
        directory: Path,
        block_hash: Callable[[int], Awaitable[str]],
        kept_bytes: int = KEPT_BYTES,
        verdict: Verify = verify,
    ) -> None:
        self._bus = bus
        self._directory = directory
        self._block_hash = block_hash
        self._kept_bytes = kept_bytes
        self._verdict = verdict
        self._verdicts = asyncio.Semaphore(VERDICTS_AT_ONCE)
        # Inputs wait for each other, so that verdicts, which have a deadline, do not wait for them.
        self._readings = asyncio.Semaphore(READINGS_AT_ONCE)
        self._at_work: Counter[str] = Counter()

    async def check_inputs(self, job_id: str, job: Job) -> InputsChecked:
        """Fetches the inputs and reads them as the work describes them. Raises BusError, TimedOut, HostFault;
        BlobUnavailable only when it is the owner's fault."""
        with host_faults("the check of inputs"), self._working_on(job_id):
            await self._tidy()
            try:
                blobs = await self._inputs(job_id, job)
                async with self._readings:
                    await asyncio.to_thread(service_for(job.work).check_inputs, job.work, blobs)
            except (BadInput, BlobMismatch):
                return InputsChecked(job_id, BAD_INPUT)
        return InputsChecked(job_id)

    async def judge(self, job_id: str, job: Job) -> Judged:
        """Fetches the result and verifies all of it. Raises BusError, TimedOut or HostFault when that cannot be done
        now."""
        revealed = job.situation
        if not isinstance(revealed, Revealed):
            raise AssertionError(f"job {job_id} is {situation_of(job)}, there is nothing to judge")
        with host_faults("the verification of a result"), self._working_on(job_id):
            await self._tidy()
            reason = await self._judge(job_id, job, revealed)
        return Judged(job_id, revealed.assignment.miner, revealed.commitment.root, reason)

    async def _judge(self, job_id: str, job: Job, revealed: Revealed) -> str:
        """The reason why the result is no good, or nothing."""
        commitment = revealed.commitment
        if (impossible := impossible_size(job.work, commitment.size)) is not None:
            return impossible.reason
        try:
            blobs = await self._inputs(job_id, job)
        except BlobMismatch:
            return BAD_INPUT
        result = self._place(job_id) / commitment.result
        try:
            await fetch(self._bus, revealed.assignment.miner, commitment.result, result, RESULT_TIMEOUT_MS)
        except (BlobUnavailable, BlobMismatch):
            return "RESULT_UNAVAILABLE"
        seed = challenge_seed(await self._block_hash(commitment.committed_height), job_id).hex()
        look = partial(finding_on, job.work, blobs, result, commitment, seed, self._verdict)
        async with self._verdicts:
            return (await asyncio.to_thread(look)).reason

    async def forget(self, job_id: str) -> None:
        """Removes the job's files."""
        await asyncio.to_thread(shutil.rmtree, self._directory / job_id, ignore_errors=True)

    async def sweep(self, unfinished: frozenset[str]) -> None:
        """Removes the files of all other jobs: what a crash has left behind."""
        with host_faults("the tidying of files"):
            left = abandoned(self._directory, unfinished)
            await asyncio.to_thread(_remove, left)

    @contextmanager
    def _working_on(self, job_id: str) -> Iterator[None]:
        self._at_work[job_id] += 1
        try:
            yield
        finally:
            self._at_work[job_id] -= 1
            if not self._at_work[job_id]:
                del self._at_work[job_id]

    async def _tidy(self) -> None:
        """Removes the files of jobs that have been left alone the longest, as far as they are too many."""
        idle = abandoned(self._directory, frozenset(self._at_work))
        await asyncio.to_thread(_trim, idle, self._kept_bytes)

    def _place(self, job_id: str) -> Path:
        place = self._directory / job_id
        place.mkdir(parents=True, exist_ok=True)
        return place

    async def _inputs(self, job_id: str, job: Job) -> dict[str, Path]:
        blobs = {}
        for digest in blobs_of(job.work):
            blobs[digest] = self._place(job_id) / digest
            await fetch(self._bus, job.owner, digest, blobs[digest], INPUT_TIMEOUT_MS)
        return blobs


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _trim(folders: list[Path], kept_bytes: int) -> None:
    """Keeps those that changed last."""
    measured = []
    for folder in folders:
        try:
            size = sum(file.lstat().st_size for file in folder.iterdir())
            measured.append((folder.stat().st_mtime_ns, size, folder))
        except FileNotFoundError:
            continue  # removed meanwhile
    left = kept_bytes
    for _, size, folder in sorted(measured, reverse=True):
        left -= size
        if left < 0:
            _remove([folder])
