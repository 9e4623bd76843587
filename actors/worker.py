"""The miner's effects: asking a node about a job, fetching inputs, computing in the sandbox, delivering results."""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec
import structlog
from msgspec import Struct

from actors.fetching import abandoned, fetch, host_faults
from actors.miner import Computed, Delivered, Described, Impossible, LookedUp, Registration
from actors.sandbox import Finished, Limits, Outcome
from actors.sandbox import Progress as Progressing
from actors.sandbox_messages import RESULT_NAME
from actors.services.registry import service_for
from bus.port import Bus, Clock
from events.canonical import UNREADABLE, canonical
from events.errors import BlobMismatch, BlobUnavailable, BusError, TimedOut, Unreachable
from schemas.messages import Progress, QueryAnswer, QueryRefused
from schemas.queries import JobQuestion, MinerQuestion, Question
from schemas.services import Work, blobs_of
from schemas.state import Job

INPUT_TIMEOUT_MS: Final = 20_000
DESCRIBE_TRIES: Final = 100
PROGRESS_EVERY_MS: Final = 250

log = structlog.get_logger()
Answer = TypeVar("Answer")
_answers = msgspec.json.Decoder(QueryAnswer | QueryRefused)


class _Described(Struct):
    job: Job


class _Registered(Struct):
    miner: Registration


_described = msgspec.json.Decoder(_Described)
_registered = msgspec.json.Decoder(_Registered)


class Computer(Protocol):
    """What the worker needs of a sandbox."""

    async def run(
        self, work: Work, blobs: Mapping[str, Path], directory: Path, limits: Limits, progress: Progressing
    ) -> Outcome:
        """See `actors.sandbox.Sandbox.run`."""


class SandboxWorker:
    """Works below ``directory``, one folder per job. ``memory_bytes`` and ``threads`` are what one job may use."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        sandbox: Computer,
        address: str,
        directory: Path,
        memory_bytes: int,
        threads: int = 1,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._sandbox = sandbox
        self._address = address
        self._directory = directory
        self._memory_bytes = memory_bytes
        self._threads = threads
        self._background: set[asyncio.Task[None]] = set()

    async def describe(self, job_id: str, height: int) -> Described:
        """Asks nodes until one answers from ``height`` or later. Raises Unreachable, TimedOut."""
        found = await self._ask("job", JobQuestion(job=job_id, min_height=height), height)
        return Described(job_id, _decoded(found, _described).job)

    async def look_up(self, height: int) -> LookedUp:
        """Asks nodes until one answers from ``height`` or later. Raises Unreachable, TimedOut."""
        found = await self._ask("miner", MinerQuestion(miner=self._address, min_height=height), height)
        return LookedUp(_decoded(found, _registered).miner)

    async def _ask(self, what: str, question: Question, height: int) -> msgspec.Raw:
        for attempt in range(DESCRIBE_TRIES):
            answer = _decoded(await self._bus.query(what, canonical(question)), _answers)
            if answer.height >= height:
                if isinstance(answer, QueryRefused):
                    raise Unreachable(f"no node knows the {what}", why=answer.problem.detail)
                value: msgspec.Raw = answer.value
                return value
            await self._clock.sleep_ms(min(5 << min(attempt, 6), 200))
        raise TimedOut(f"no node has reached block {height}", hint="Look at the nodes: `assay doctor`.")

    async def compute(self, job_id: str, job: Job) -> Computed | Impossible:
        """Fetches the inputs and does the work within the job's time. Raises BusError, TimedOut."""
        place = self._directory / job_id
        try:
            with host_faults("the work"):
                # Nothing that an earlier try has left is believed, nor written through.
                await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
                place.mkdir(mode=0o700, parents=True)
                blobs = {digest: place / digest for digest in blobs_of(job.work)}
                for digest, path in blobs.items():
                    await fetch(self._bus, job.owner, digest, path, INPUT_TIMEOUT_MS)
                return await self._compute(job_id, job, blobs, place)
        except BlobUnavailable:
            return Impossible(job_id, "BLOB_UNAVAILABLE")
        except BlobMismatch:
            return Impossible(job_id, "BAD_INPUT")

    async def _compute(self, job_id: str, job: Job, blobs: dict[str, Path], place: Path) -> Computed | Impossible:
        limits = Limits(
            wall_ms=job.timeout_ms,
            memory_bytes=self._memory_bytes,
            output_bytes=service_for(job.work).result_sizes(job.work).stop,
            threads=self._threads,
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
            progress = Progress(job=job_id, stage="compute", done_bps=min(done, total) * 10_000 // max(total, 1))
            task = asyncio.create_task(self._publish(canonical(progress)))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

        return tell

    async def _publish(self, data: bytes) -> None:
        try:
            await self._bus.publish_live(self._address, "progress", data)
        except BusError:
            log.debug("nobody was told of the progress")

    async def deliver(self, job_id: str, result: str) -> Delivered:
        """Uploads the result. Raises BusError, BlobMismatch when it is no longer what was committed."""
        with host_faults("the delivery of a result"):
            stored = await self._bus.put_blob(self._address, self._directory / job_id / RESULT_NAME)
        if stored != result:
            raise BlobMismatch(f"the result of {job_id} has changed on disk", why=f"it is {stored} instead of {result}")
        return Delivered(job_id)

    async def forget(self, job_id: str) -> None:
        """Removes the job's files."""
        await asyncio.to_thread(shutil.rmtree, self._directory / job_id, ignore_errors=True)

    async def sweep(self, unfinished: frozenset[str]) -> None:
        """Removes the files of all other jobs: what a crash has left behind."""
        with host_faults("the tidying of files"):
            for folder in abandoned(self._directory, unfinished):
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _decoded(data: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Answer]) -> Answer:
    try:
        return decoder.decode(data)
    except UNREADABLE as error:
        raise Unreachable("a node's answer cannot be read", why=str(error)) from error
