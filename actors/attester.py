"""The miner's effects in attestation: probing the host, sitting exams on its devices, uploading what it has to open."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog
from msgspec import UNSET, Struct

from actors.attestation.devices import examinee_on, fill_for, measured_rate, memory_on
from actors.attestation.exam import Examinee, Sitting, rows_for
from actors.attestation.fill import Fill
from actors.attestation.lists import Lists
from actors.attestation.live import watched
from actors.attestation.probe import HostProbe, Places, probe
from actors.attestation.selftest import processor_id
from actors.attesting import Answered, Claimed, Shown
from actors.backends.base import Backend, DeviceFault
from actors.fetching import host_faults
from bus.port import Bus
from events.canonical import UNREADABLE, canonical, digest
from events.errors import AssayError, DeviceUnavailable, Unreachable
from schemas.attestation import ExamAnswer, ExamOpening, ExamShape, Liveness
from schemas.messages import QueryAnswer, QueryRefused
from schemas.queries import Question
from schemas.values import Digest

WORK_MS: Final = 3_000
WATCHED_MS: Final = 1_500

log = structlog.get_logger()
Value = TypeVar("Value")
_answers: Final = msgspec.json.Decoder(QueryAnswer | QueryRefused)


class _Status(Struct):
    height: int
    head: str


_status: Final = msgspec.json.Decoder(_Status)


class HostAttester:
    """Attests this host for ``address``. ``backend`` makes what computes on the device with a UUID, in the thread where
    it is used; None stands for the processor, which is claimed only where ``processor`` says so.

    With ``only`` no other GPU than that is claimed. ``window_ms`` is how long the chain gives for an exam of this
    ``shape``; a third of it is worked, at most. Then so much memory of each GPU is filled that ``min_memory_mib``
    count; or ``fill_mib``, where that is given.
    """

    def __init__(
        self,
        bus: Bus,
        address: str,
        directory: Path,
        shape: ExamShape,
        window_ms: int,
        lists: Lists,
        backend: Callable[[str | None], Backend],
        *,
        processor: bool = False,
        only: str = "",
        min_memory_mib: int = 0,
        fill_mib: int | None = None,
        places: Places | None = None,
    ) -> None:
        self._bus = bus
        self._address = address
        self._directory = directory
        self._shape = shape
        self._work_ms = min(WORK_MS, window_ms // 3)
        self._lists = lists
        self._backend = backend
        self._processor = processor
        self._only = only
        self._min_memory_mib = min_memory_mib
        self._fill_mib = fill_mib
        self._to_fill: dict[str, int] = {}
        self._places = places or Places()
        # A device's own thread: what computes on a GPU stays in the thread that it was made in.
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._backends: dict[str, Backend] = {}
        self._sittings: dict[tuple[Digest, str], Sitting] = {}
        self._fills: dict[tuple[Digest, str], Fill] = {}
        self._gpus: tuple[str, ...] = ()

    async def claim(self) -> Claimed:
        """Looks at the host, and at its GPUs while they work. Raises BusError, TimedOut."""
        looked = await asyncio.to_thread(probe, self._places)
        if self._processor:
            looked = msgspec.structs.replace(looked, gpus=())
        elif self._only:
            there = tuple(gpu.uuid for gpu in looked.gpus)
            looked = looked.only(self._only)
            if not looked.gpus:
                log.warning("the GPU of the settings is not there", gpu=self._only, there=there)
        if not looked.gpus and not self._processor:
            return Claimed(None)
        live = await self._live(looked)
        status = await self._ask_status()
        evidence = looked.evidence(
            status.height,
            status.head,
            self._lists.digest(),
            live,
            processor=processor_id(self._address) if self._processor else None,
        )
        self._gpus = tuple(gpu.uuid for gpu in evidence.gpus)
        self._to_fill = {gpu.uuid: fill_for(gpu, self._min_memory_mib) for gpu in evidence.gpus}
        return Claimed(evidence)

    async def sit(self, exam: Digest, seed: Digest) -> Answered:
        """Does the work on every device at once. Raises BusError, TimedOut, and HostFault or DeviceUnavailable when no
        device can."""
        if not self._gpus:
            await self.claim()
        if not self._gpus:
            hint = "Bring back the GPU that was claimed, or set `gpu` to one that is there and start the miner again."
            raise DeviceUnavailable("no device can sit the exam", why="this host shows none to claim", hint=hint)
        answers = await asyncio.gather(
            *(self._on(gpu, partial(self._work, exam, seed, gpu)) for gpu in self._gpus), return_exceptions=True
        )
        for gpu, answer in zip(self._gpus, answers, strict=True):
            if isinstance(answer, BaseException):
                log.warning("a device cannot sit the exam", gpu=gpu, why=repr(answer))
        found = tuple(answer for answer in answers if isinstance(answer, ExamAnswer))
        if not found:
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        return Answered(exam, found)

    async def show(self, exam: Digest, seed: Digest, answers: tuple[ExamAnswer, ...], challenge: Digest) -> Shown:
        """Uploads the challenged rows of each device. Raises BusError, TimedOut, HostFault, DeviceUnavailable."""
        openings = [await self._open(exam, seed, answer, challenge) for answer in answers]
        return Shown(exam, tuple(openings))

    async def forget(self, exam: Digest) -> None:
        """Lets go of what was kept of the exam."""
        self._sittings = {key: sitting for key, sitting in self._sittings.items() if key[0] != exam}
        self._fills = {key: fill for key, fill in self._fills.items() if key[0] != exam}

    def close(self) -> None:
        """Ends the devices' threads."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    async def _on(self, gpu: str, work: Callable[[], Value]) -> Value:
        """In the device's thread. Raises HostFault, DeviceUnavailable for what a device has not or cannot."""
        thread = self._threads.get(gpu)
        if thread is None:
            thread = self._threads[gpu] = ThreadPoolExecutor(1, thread_name_prefix=f"exam {gpu[:12]}")
        with host_faults("the work for an exam"):
            try:
                return await asyncio.get_running_loop().run_in_executor(thread, work)
            except DeviceFault as error:
                hint = "Look at the GPU with nvidia-smi, and start the miner again."
                raise DeviceUnavailable(f"{gpu} has failed", why=str(error), hint=hint) from error

    def _backend_of(self, gpu: str) -> Backend:
        """In the device's thread."""
        backend = self._backends.get(gpu)
        if backend is None:
            backend = self._backends[gpu] = self._backend(None if gpu.startswith("CPU-") else gpu)
        return backend

    def _examinee(self, seed: Digest, gpu: str) -> Examinee:
        """In the device's thread."""
        return examinee_on(self._backend_of(gpu), self._shape, seed, self._address, gpu)

    def _work(self, exam: Digest, seed: Digest, gpu: str, done: ExamAnswer | None = None) -> ExamAnswer:
        """In the device's thread. As many rows as it does in the time; or what was ``done`` once, again."""
        examinee = self._examinee(seed, gpu)
        if done is None:
            rows = rows_for(self._shape, measured_rate(examinee, self._shape), self._work_ms)
            fill_mib = self._to_fill.get(gpu, 0) if self._fill_mib is None else self._fill_mib
        else:
            rows, fill_mib = done.rows, done.memory_mib if isinstance(done.memory_mib, int) else 0
        sitting = Sitting(examinee, rows)
        answer = ExamAnswer(gpu=gpu, rows=rows, root=sitting.work())
        self._sittings[exam, gpu] = sitting
        if not fill_mib:
            return answer
        try:
            fill = Fill(memory_on(self._backend_of(gpu), seed, self._address, gpu, fill_mib), fill_mib)
            memory_root = fill.work()
        except MemoryError as error:
            # The rows are right all the same; only that no memory counts.
            log.warning("a device has not so much memory free", gpu=gpu, fill_mib=fill_mib, why=str(error))
            return answer
        self._fills[exam, gpu] = fill
        return msgspec.structs.replace(answer, memory_mib=fill_mib, memory_root=memory_root)

    async def _open(self, exam: Digest, seed: Digest, answer: ExamAnswer, challenge: Digest) -> ExamOpening:
        if (exam, answer.gpu) not in self._sittings:
            await self._on(answer.gpu, partial(self._work, exam, seed, answer.gpu, answer))
        opening = await self._on(answer.gpu, partial(self._sittings[exam, answer.gpu].open, challenge))
        opened = ExamOpening(gpu=answer.gpu, rows=await self._upload(exam, opening), size=len(opening))
        filled = self._fills.get((exam, answer.gpu))
        if filled is None or answer.memory_root is UNSET:
            return opened
        walks = await self._on(answer.gpu, partial(filled.open, challenge))
        return msgspec.structs.replace(opened, fill=await self._upload(exam, walks), fill_size=len(walks))

    async def _upload(self, exam: Digest, opening: bytes) -> Digest:
        with host_faults("the opening of an exam"):
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._directory / f"{exam}-{digest(opening)[:16]}"
            await asyncio.to_thread(path.write_bytes, opening)
            try:
                return await self._bus.put_blob(self._address, path)
            finally:
                path.unlink(missing_ok=True)

    async def _live(self, looked: HostProbe) -> Mapping[str, Liveness]:
        """What the GPUs' counters show while each of them works for a moment."""
        found: dict[str, Liveness] = {}
        for gpu in looked.gpus:
            work = partial(self._keep_busy, gpu.uuid)
            try:
                found |= {
                    uuid: live
                    for uuid, live in (await self._on(gpu.uuid, partial(watched, self._places, work))).items()
                    if uuid == gpu.uuid
                }
            except AssayError as error:
                log.warning("a device cannot work", gpu=gpu.uuid, why=repr(error))
        return found

    def _keep_busy(self, gpu: str) -> None:
        examinee = self._examinee("0" * 64, gpu)
        until = time.monotonic_ns() + WATCHED_MS * 1_000_000
        while time.monotonic_ns() < until:
            examinee.root(0, examinee.segment)

    async def _ask_status(self) -> _Status:
        """Where a node stands: which block is the newest."""
        data = await self._bus.query("status", canonical(Question()))
        try:
            found = _answers.decode(data)
            if isinstance(found, QueryAnswer):
                return _status.decode(found.value)
        except UNREADABLE as error:
            raise Unreachable("a node's answer cannot be read", why=str(error)) from error
        raise Unreachable("no node says where it stands", why=found.problem.detail)
