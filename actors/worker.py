"""The miner's effects: asking a node about a job, fetching inputs, computing in the sandbox, delivering results."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from actors.miner import Computed, Delivered, Described, Impossible
from actors.sandbox import Finished, Limits, Sandbox
from actors.sandbox_messages import RESULT_NAME
from actors.services.matmul import result_size
from bus.port import Bus, Clock
from events.canonical import canonical
from events.errors import BlobMismatch, BlobUnavailable, TimedOut, Unreachable
from schemas.messages import Progress, QueryAnswer, QueryRefused
from schemas.services import blobs_of
from schemas.state import Job

INPUT_TIMEOUT_MS: Final = 20_000
DESCRIBE_TRIES: Final = 100
PROGRESS_EVERY_MS: Final = 250

log = structlog.get_logger()
_answers = msgspec.json.Decoder(QueryAnswer | QueryRefused)


class _Described(Struct):
    job: Job


class SandboxWorker:
    """Works below ``directory``, one folder per job. ``memory_bytes`` is what one job may use."""

    def __init__(
        self, bus: Bus, clock: Clock, sandbox: Sandbox, address: str, directory: Path, memory_bytes: int
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._sandbox = sandbox
        self._address = address
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._background: set[asyncio.Task[None]] = set()

    async def describe(self, job_id: str, height: int) -> Described:
        """Asks nodes until one answers from ``height`` or later. Raises Unreachable, TimedOut."""
        for attempt in range(DESCRIBE_TRIES):
            answer = _answers.decode(await self._bus.query("job", canonical({"job": job_id})))
            if answer.height >= height:
                if isinstance(answer, QueryRefused):
                    raise Unreachable("no node knows the job", why=answer.problem.detail)
                return Described(job_id, msgspec.json.decode(answer.value, type=_Described).job)
            await self._clock.sleep_ms(min(5 << min(attempt, 6), 200))
        raise TimedOut(f"no node has reached block {height}", hint="Look at the nodes: `assay doctor`.")

    async def compute(self, job_id: str, job: Job) -> Computed | Impossible:
        """Fetches the inputs and does the work within the job's time."""
        place = self._directory / job_id
        place.mkdir(parents=True, exist_ok=True)
        blobs = {}
        try:
            for digest in blobs_of(job.work):
                path = place / digest
                if not path.exists():
                    await self._bus.get_blob(job.owner, digest, path, INPUT_TIMEOUT_MS)
                blobs[digest] = path
        except BlobUnavailable:
            return Impossible(job_id, "BLOB_UNAVAILABLE")
        except BlobMismatch:
            return Impossible(job_id, "BAD_INPUT")
        limits = Limits(
            wall_ms=job.timeout_ms, memory_bytes=self._memory_bytes, output_bytes=result_size(job.work) + 4_096
        )
        outcome = await self._sandbox.run(job.work, blobs, place, limits, self._teller(job_id))
        if isinstance(outcome, Finished):
            return Computed(job_id, outcome.root, outcome.digest, outcome.size)
        log.warning("the job failed here", job=job_id, code=outcome.code, detail=outcome.detail)
        return Impossible(job_id, "BAD_INPUT" if outcome.code == "BAD_INPUT" else "MINER_FAILED")

    def _teller(self, job_id: str) -> Callable[[int, int], None]:
        """Tells the progress on the live subject, a few times a second at most."""
        last_ms = 0

        def tell(done: int, total: int) -> None:
            nonlocal last_ms
            now_ms = self._clock.now_ms()
            if now_ms - last_ms < PROGRESS_EVERY_MS:
                return
            last_ms = now_ms
            progress = Progress(job=job_id, stage="compute", done_bps=done * 10_000 // max(total, 1))
            task = asyncio.create_task(self._publish(canonical(progress)))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

        return tell

    async def _publish(self, data: bytes) -> None:
        try:
            await self._bus.publish_live(self._address, "progress", data)
        except Unreachable:
            log.debug("nobody was told of the progress")

    async def deliver(self, job_id: str, result: str) -> Delivered:
        """Uploads the result. Raises BusError, BlobMismatch when it is no longer what was committed."""
        stored = await self._bus.put_blob(self._address, self._directory / job_id / RESULT_NAME)
        if stored != result:
            raise BlobMismatch(f"the result of {job_id} has changed on disk", why=f"it is {stored} instead of {result}")
        return Delivered(job_id)

    async def forget(self, job_id: str) -> None:
        """Removes the job's files."""
        await asyncio.to_thread(shutil.rmtree, self._directory / job_id, ignore_errors=True)
