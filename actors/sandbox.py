"""Runs each job in a process of its own, with limits; whatever happens in there, the caller gets a typed outcome.

The process has its own session, an empty environment, no inherited descriptors, no core dumps, and limits on time,
memory, output and open files; it stands behind the walls of `actors.jail`, as many as the host allows. Nothing is
pickled in either direction. When the caller's process dies, even by ``kill -9``, so do the sandbox's.

Start a sandbox from a thread that lives as long as the sandbox does, such as the main thread: Linux counts the end of
the thread that started a process as the death of its parent.
"""

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from msgspec import Struct

from actors import jail
from actors.sandbox_messages import (
    ERRORS_BYTES,
    ERRORS_NAME,
    RESULT_NAME,
    Completed,
    Devices,
    Exited,
    Failed,
    FailureCode,
    Job,
    Progressed,
    Ready,
    Reply,
    Said,
    Word,
    decode_reply,
    decode_word,
    encode_line,
)
from actors.services.kernel_custom import COMPILER_FILE_BYTES
from events.canonical import UNREADABLE
from schemas.events import Device
from schemas.services import Work
from schemas.services.custom import KernelCustom
from schemas.values import Digest

START_TIMEOUT_S: Final = 30.0
WATCH_S: Final = 0.25

_ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",  # an arena for each thread would count as address space
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_SEARCH_PATH: Final = "LD_LIBRARY_PATH"
_PACKAGES: Final = Path(__file__).resolve().parents[1]
_LAST_WORDS: Final = 2_048
_LEAST_FILE: Final = 4_096

Progress: TypeAlias = Callable[[int, int], None]


class Limits(Struct, frozen=True, kw_only=True):
    """What one job may use; ``memory_bytes`` is address space beyond the empty process's, mapped inputs included."""

    wall_ms: int
    memory_bytes: int
    output_bytes: int
    threads: int = 1

    @property
    def cpu_seconds(self) -> int:
        """Processor time: as much as the threads can use within the wall-clock time, and a second to be told apart."""
        return -(-self.wall_ms * self.threads // 1_000) + 1


class Finished(Struct, frozen=True, kw_only=True):
    """The job is done: the file with the result, its SHA-256 and bytes, and the root to commit to."""

    result: Path
    root: Digest
    digest: Digest
    size: int


class JobFailed(Struct, frozen=True, kw_only=True):
    """The job ended without a result. ``exit_code``, where known, is minus the signal's number if one killed it."""

    code: FailureCode
    detail: str
    exit_code: int | None = None


Outcome: TypeAlias = Finished | JobFailed


class SandboxBroken(Exception):
    """The sandbox's own process does not start, which is a fault of the installation."""


class Sandbox:
    """Runs up to ``capacity`` jobs at once; further ones wait. Each place has a process, loaded ahead of time.

    With ``writable``, below which every job's directory and inputs must lie, the processes run in bubblewrap where that
    is installed. ``backend`` and ``device`` are as `actors.backends.choose` takes them.
    """

    def __init__(
        self, capacity: int = 1, writable: Path | None = None, *, backend: str = "cpu", device: str = ""
    ) -> None:
        self._writable = None if writable is None else writable.resolve()
        self._backend = backend
        self._device = device
        self._places: asyncio.Queue[_Process | None] = asyncio.Queue()
        for _ in range(capacity):
            self._places.put_nowait(None)
        self._capacity = capacity
        self._processes: set[_Process] = set()

    async def start(self) -> None:
        """Load the processes, so that the first jobs begin at once. Raises `SandboxBroken`."""
        for _ in range(self._capacity):
            self._places.put_nowait(self._places.get_nowait() or await self._start_process())

    async def run(
        self,
        work: Work,
        blobs: Mapping[Digest, Path],
        directory: Path,
        limits: Limits,
        progress: Progress | None = None,
    ) -> Outcome:
        """Do the work in ``directory``, which belongs to this job alone; the result is a file in it.

        ``blobs`` has the input files by digest. Cancelling the call kills the job. Raises `SandboxBroken`.
        """
        job = Job(
            work=work,
            blobs={digest: str(path.resolve()) for digest, path in blobs.items()},
            directory=str(directory.resolve()),
            threads=limits.threads,
            memory_bytes=limits.memory_bytes,
            output_bytes=limits.output_bytes,
            cpu_seconds=limits.cpu_seconds,
            backend=self._backend,
            device=self._device,
        )
        (directory / RESULT_NAME).unlink(missing_ok=True)
        process = await self._places.get()
        try:
            if process is None or not process.alive:
                process = await self._start_process()
            async with asyncio.timeout(limits.wall_ms / 1_000):
                ended = await _watched(process.run(job, progress), directory, limits, _beside_the_result(work))
                return _checked(ended, directory, limits)
        except TimeoutError:
            return JobFailed(code=FailureCode.TIMEOUT, detail=f"not done within {limits.wall_ms} ms")
        finally:
            if process is not None and not process.idle:
                process.kill()
                process = None
            self._places.put_nowait(process)

    async def close(self) -> None:
        """Kill whatever runs, and wait until it is gone."""
        processes, self._processes = self._processes, set()
        for process in processes:
            process.kill()
        for process in processes:
            await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def walls(self) -> tuple[str, ...]:
        """The layers between jobs and the host, once it has started: what the loaded processes have found possible."""
        return next((process.walls for process in self._processes if process.alive), ())

    @property
    def devices(self) -> tuple[Device, ...]:
        """What jobs run on, once it has started."""
        return next((process.devices for process in self._processes if process.alive), ())

    async def _start_process(self) -> "_Process":
        prefix = [] if self._writable is None else await _bubblewrap(self._writable)
        process = await _Process.start(prefix, self._backend, self._device)
        self._processes = {known for known in self._processes if known.alive} | {process}
        return process


class _Process:
    """One loaded process and the jobs that it forks, one at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the process was started without pipes")
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.idle = False
        self.walls: tuple[str, ...] = ()
        self.devices: tuple[Device, ...] = ()

    @classmethod
    async def start(cls, prefix: list[str], backend: str, device: str) -> "_Process":
        """Start it, as the end of the command that begins with ``prefix``, and wait until it is loaded.

        Raises `SandboxBroken`.
        """
        # Within bubblewrap the parent is its init.
        parent = 1 if prefix else os.getpid()
        arguments = (*prefix, sys.executable, "-m", "actors.sandbox_child", str(parent), backend, device)
        pipe = asyncio.subprocess.PIPE
        started = cls(
            await asyncio.create_subprocess_exec(
                *arguments, stdin=pipe, stdout=pipe, cwd=_PACKAGES, env=environment(backend), start_new_session=True
            )
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                said = await started._receive()
                if isinstance(said, Devices):
                    started.devices = said.devices
                    said = await started._receive()
            if isinstance(said, Failed):
                raise SandboxBroken(said.detail)
            if isinstance(said, Ready):
                started.idle = True
                started.walls = ("bubblewrap", *said.walls) if prefix else said.walls
        except TimeoutError as error:
            raise SandboxBroken(f"no sign of life within {START_TIMEOUT_S} s") from error
        finally:
            if not started.idle:
                started.kill()
        if not started.idle:
            raise SandboxBroken(f"`{' '.join(arguments)}` ended at its start; its stderr says why")
        return started

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def run(self, job: Job, progress: Progress | None) -> Completed | JobFailed:
        """Run one job. Unless the process is `idle` again afterwards, it must be killed."""
        self.idle = False
        self._stdin.write(encode_line(job))
        said: Completed | Failed | None = None
        while True:
            match await self._receive():
                case Said(line):
                    word = _word(line)
                    if not isinstance(word, Progressed):
                        said = word
                    elif progress is not None:
                        progress(word.done, word.total)
                case Exited(exit_code):
                    self.idle = True
                    return _judge(said, exit_code, Path(job.directory))
                case _:
                    return JobFailed(code=FailureCode.CRASHED, detail="the sandbox's process broke off")

    def kill(self) -> None:
        """Kill it with everything in its session."""
        self._stdin.close()
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> None:
        """Wait until it has ended, and all that it has said is read."""
        await self._process.wait()
        while not self._stdout.at_eof():
            try:
                await self._stdout.read(_LAST_WORDS)
            except RuntimeError:  # `run` reads, and will read the end
                await asyncio.sleep(0.001)

    async def _receive(self) -> Reply | None:
        """The next thing said; None when that is not a message, or when nothing more will come."""
        try:
            return decode_reply(await self._stdout.readline())
        except (ValueError, *UNREADABLE):  # a line without end, or one that is no message
            return None


def environment(backend: str) -> dict[str, str]:
    """What the process finds. In some containers only the search path of the miner's own environment leads to the
    driver of a GPU."""
    path = os.environ.get(_SEARCH_PATH)
    return {**_ENVIRONMENT, **({_SEARCH_PATH: path} if path and backend != "cpu" else {})}


def _beside_the_result(work: Work) -> int:
    """Bytes that the work writes to disk but for its result: a compiler's program."""
    return COMPILER_FILE_BYTES if isinstance(work, KernelCustom) else 0


async def _watched(
    running: Coroutine[Any, Any, Completed | JobFailed], directory: Path, limits: Limits, beside: int = 0
) -> Completed | JobFailed:
    """The job's end, or that it has filled its directory: the kernel limits each file, not how many there are."""
    most = _size_of(directory) + max(limits.output_bytes, ERRORS_BYTES) + ERRORS_BYTES + beside
    job = asyncio.create_task(running)
    try:
        while not (await asyncio.wait((job,), timeout=WATCH_S))[0]:
            if _size_of(directory) > most:
                detail = f"its files have more than {limits.output_bytes} bytes"
                return JobFailed(code=FailureCode.OUTPUT_TOO_LARGE, detail=detail)
        return job.result()
    finally:
        if not job.done():
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)


def _word(line: bytes) -> Word | None:
    """What a job has said; None for what is no word of a job's."""
    try:
        return decode_word(line)
    except UNREADABLE:
        return None


def _size_of(directory: Path) -> int:
    """Bytes that all that lies below takes on the disk; what has none has a name and an inode."""
    total = 0
    for folder, folders, names in os.walk(directory):
        for name in (*folders, *names):
            with contextlib.suppress(OSError):
                total += max((Path(folder) / name).lstat().st_blocks * 512, _LEAST_FILE)
    return total


async def _bubblewrap(writable: Path) -> list[str]:
    """The beginning of a command in bubblewrap; empty where that is not installed or may not make its namespaces."""
    prefix = jail.bubblewrap(writable)
    if not prefix:
        return []
    nowhere = asyncio.subprocess.DEVNULL
    trial = await asyncio.create_subprocess_exec(*prefix, "true", stdin=nowhere, stdout=nowhere, stderr=nowhere)
    return prefix if await trial.wait() == 0 else []


def _judge(said: Completed | Failed | None, exit_code: int, directory: Path) -> Completed | JobFailed:
    """What a job's last message and its exit code amount to."""
    if exit_code == -signal.SIGXCPU:
        return JobFailed(code=FailureCode.TIMEOUT, detail="the processor time is used up", exit_code=exit_code)
    if isinstance(said, Failed):
        return JobFailed(code=said.code, detail=said.detail, exit_code=exit_code)
    if said is None or exit_code != 0:
        return JobFailed(code=FailureCode.CRASHED, detail=_last_words(directory), exit_code=exit_code)
    return said


def _checked(ended: Completed | JobFailed, directory: Path, limits: Limits) -> Outcome:
    """The outcome, once the file that the job claims is there."""
    if isinstance(ended, JobFailed):
        return ended
    result = directory / RESULT_NAME
    try:
        status = result.lstat()
    except OSError:
        return JobFailed(code=FailureCode.CRASHED, detail="there is no file with the result")
    if status.st_size > limits.output_bytes:
        detail = f"the result has {status.st_size} bytes, more than {limits.output_bytes}"
        return JobFailed(code=FailureCode.OUTPUT_TOO_LARGE, detail=detail)
    if not stat.S_ISREG(status.st_mode) or status.st_size != ended.size:
        return JobFailed(code=FailureCode.CRASHED, detail="the file with the result is not the one that was reported")
    return Finished(result=result, root=ended.root, digest=ended.digest, size=ended.size)


def _last_words(directory: Path) -> str:
    """The last line that the job wrote to stderr; none where it has put something else in the file's place."""
    try:
        opened = os.open(directory / ERRORS_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(opened, "rb") as file:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                return ""
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
            lines = file.read(_LAST_WORDS).decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "")
