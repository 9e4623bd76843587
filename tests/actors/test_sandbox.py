"""The sandbox: what jobs give, what they may use, and what is left when something dies."""

import asyncio
import contextlib
import hashlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors.sandbox import Finished, JobFailed, Limits, Sandbox, SandboxBroken, environment
from actors.sandbox_messages import ERRORS_NAME, RESULT_NAME, FailureCode, Job
from actors.services.generator import seeded_matrix
from actors.services.matmul import memory_needed, result_size, row_root
from actors.services.npy import open_matrix, write_matrix
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def work_of(size: int) -> MatmulInt8:
    matrix = SeededMatrix(rows=size, columns=size, seed="aa" * 32)
    return MatmulInt8(a=matrix, b=matrix)


def limits_of(work: MatmulInt8, wall_ms: int = 60_000) -> Limits:
    return Limits(wall_ms=wall_ms, memory_bytes=memory_needed(work), output_bytes=result_size(work))


TINY = work_of(8)
LONG = work_of(8_000)  # seconds of work, hundreds of steps


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A sandbox with one place, loaded."""
    async with Sandbox() as sandbox:
        yield sandbox


async def run_tiny(sandbox: Sandbox, directory: Path) -> Finished:
    """A tiny job, which must succeed."""
    outcome = await sandbox.run(TINY, {}, directory, limits_of(TINY))
    assert isinstance(outcome, Finished)
    return outcome


def process_id(sandbox: Sandbox) -> int:
    """The loaded process of a sandbox with one place."""
    (process,) = (process for process in sandbox._processes if process.alive)
    return process._process.pid


def descendants(pid: int) -> list[int]:
    """The processes that come from a process, each after its parent: those between it and the job, then the job."""
    found = []
    generation = children(pid)
    while generation:
        found += generation
        generation = [child for parent in generation for child in children(parent)]
    return found


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


class Running:
    """A long job that has made its first step, and the process that runs it."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self.begun = asyncio.Event()
        self.sandbox = sandbox
        self.task = asyncio.create_task(
            sandbox.run(LONG, {}, directory, limits_of(LONG), lambda done, total: self.begun.set())
        )

    async def job(self) -> int:
        """The id of the job's process, once it has made a step."""
        await self.begun.wait()
        return descendants(process_id(self.sandbox))[-1]


async def gone(pids: list[int]) -> bool:
    """Whether all these processes end within ten seconds; they may be anybody's children."""

    def wait() -> bool:
        deadline = time.monotonic() + 10
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            with os.fdopen(descriptor):
                ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
                if not ready:
                    return False
        return True

    return await asyncio.to_thread(wait)


async def test_job_gives_its_result(sandbox: Sandbox, tmp_path: Path) -> None:
    """A job with a blob and a seed gives the product as a file, with its root, digest and size."""
    a = np.random.default_rng(1).integers(-128, 128, (90, 40), dtype=np.int8)
    digest, _ = write_matrix(tmp_path / "a.npy", a)
    work = MatmulInt8(
        a=BlobMatrix(rows=90, columns=40, digest=digest), b=SeededMatrix(rows=40, columns=70, seed="bb" * 32)
    )
    directory = tmp_path / "job"
    directory.mkdir()
    outcome = await sandbox.run(work, {digest: tmp_path / "a.npy"}, directory, limits_of(work))
    assert isinstance(outcome, Finished)
    product = open_matrix(outcome.result, "int32", 90, 70)
    np.testing.assert_array_equal(product, a.astype(np.int64) @ seeded_matrix("bb" * 32, 40, 70).astype(np.int64))
    content = outcome.result.read_bytes()
    assert (outcome.digest, outcome.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert sorted(path.name for path in directory.iterdir()) == [RESULT_NAME, ERRORS_NAME]


async def test_jobs_follow_each_other_in_processes_of_their_own(sandbox: Sandbox, tmp_path: Path) -> None:
    """Many jobs, one after the other, leave one loaded process; a stale result in the way is replaced."""
    before = process_id(sandbox)
    outcomes = [await run_tiny(sandbox, tmp_path) for _ in range(30)]
    assert len({outcome.root for outcome in outcomes}) == 1
    assert process_id(sandbox) == before


async def test_two_places_run_two_jobs_at_once(tmp_path: Path) -> None:
    """With two places a tiny job ends while a long one runs; with one place it has to wait."""
    (tmp_path / "long").mkdir()
    async with Sandbox(capacity=2) as sandbox:
        begun = asyncio.Event()
        long = asyncio.create_task(
            sandbox.run(LONG, {}, tmp_path / "long", limits_of(LONG), lambda done, total: begun.set())
        )
        await begun.wait()
        await run_tiny(sandbox, tmp_path)
        assert not long.done()
        long.cancel()
        for name in ("first", "second", "third"):
            (tmp_path / name).mkdir()
        waiting = [run_tiny(sandbox, tmp_path / name) for name in ("first", "second", "third")]
        assert len(await asyncio.gather(*waiting)) == 3
    with pytest.raises(asyncio.CancelledError):
        await long


async def test_progress_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    """Progress grows and stays within the total."""
    said: list[tuple[int, int]] = []
    work = work_of(1_500)
    outcome = await sandbox.run(work, {}, tmp_path, limits_of(work), lambda *step: said.append(step))
    assert isinstance(outcome, Finished)
    assert said
    assert said == sorted(said)
    assert all(0 < done <= total for done, total in said)


@pytest.mark.parametrize(
    ("work", "change", "code"),
    [
        (LONG, {"wall_ms": 100}, FailureCode.TIMEOUT),
        (LONG, {"memory_bytes": 300 << 20}, FailureCode.MEMORY),
        (LONG, {"memory_bytes": 1}, FailureCode.MEMORY),
        (work_of(300), {"output_bytes": 1_000}, FailureCode.OUTPUT_TOO_LARGE),
        (work_of(2_000), {"output_bytes": result_size(work_of(2_000)) - 1}, FailureCode.OUTPUT_TOO_LARGE),
    ],
    ids=["too-slow", "too-little-memory", "no-memory", "large-output", "output-one-byte-too-large"],
)
async def test_limits(
    sandbox: Sandbox, tmp_path: Path, work: MatmulInt8, change: dict[str, int], code: FailureCode
) -> None:
    """A job that passes a limit fails with the limit's code, and the next job runs."""
    given = {"wall_ms": 60_000, "memory_bytes": memory_needed(work), "output_bytes": result_size(work)}
    outcome = await sandbox.run(work, {}, tmp_path, Limits(**{**given, **change}))
    assert isinstance(outcome, JobFailed)
    assert outcome.code is code
    assert outcome.detail
    await run_tiny(sandbox, tmp_path)


async def test_processor_time_is_limited(sandbox: Sandbox, tmp_path: Path) -> None:
    """A job that burns more processor time than it may is stopped by the kernel, and that is a timeout."""
    (process,) = sandbox._processes
    job = Job(
        work=LONG,
        blobs={},
        directory=str(tmp_path),
        threads=1,
        memory_bytes=memory_needed(LONG),
        output_bytes=result_size(LONG),
        cpu_seconds=1,
    )
    outcome = await process.run(job, None)
    assert isinstance(outcome, JobFailed)
    assert (outcome.code, outcome.exit_code) == (FailureCode.TIMEOUT, -signal.SIGXCPU)
    await run_tiny(sandbox, tmp_path)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|O'}\n"])
async def test_bad_input(sandbox: Sandbox, tmp_path: Path, content: bytes) -> None:
    """A blob that is no such matrix fails the job with what is wrong with it."""
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    matrix = BlobMatrix(rows=8, columns=8, digest="cc" * 32)
    work = MatmulInt8(a=matrix, b=matrix)
    outcome = await sandbox.run(work, {"cc" * 32: path}, tmp_path, limits_of(work))
    assert isinstance(outcome, JobFailed)
    assert outcome.code is FailureCode.BAD_INPUT
    assert "operand a" in outcome.detail
    await run_tiny(sandbox, tmp_path)


async def test_traceback_is_the_last_word(sandbox: Sandbox, tmp_path: Path) -> None:
    """What the child does not foresee, here a missing file, is a crash with the last line of its traceback."""
    matrix = BlobMatrix(rows=8, columns=8, digest="cc" * 32)
    work = MatmulInt8(a=matrix, b=matrix)
    outcome = await sandbox.run(work, {"cc" * 32: tmp_path / "none.npy"}, tmp_path, limits_of(work))
    assert isinstance(outcome, JobFailed)
    assert (outcome.code, outcome.exit_code) == (FailureCode.CRASHED, 1)
    assert outcome.detail.startswith("FileNotFoundError")
    await run_tiny(sandbox, tmp_path)


BOMB = """
import sys, msgspec
from actors.sandbox_child import _confine
from actors.sandbox_messages import Job
_confine(msgspec.json.decode(sys.argv[1], type=Job))
hoard = []
try:
    while True:
        hoard.append(bytes(1 << 20))
except MemoryError:
    sys.exit(len(hoard))
"""


@linux
async def test_memory_bomb_is_contained(tmp_path: Path) -> None:
    """Whatever a job does, the kernel gives it no more memory than it may use."""
    job = Job(
        work=TINY,
        blobs={},
        directory=str(tmp_path),
        threads=1,
        memory_bytes=100 << 20,
        output_bytes=1,
        cpu_seconds=10,
    )
    root = Path(__file__).parents[2]
    bomb = await asyncio.create_subprocess_exec(sys.executable, "-c", BOMB, msgspec.json.encode(job), cwd=root)
    assert 80 < await bomb.wait() < 120


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_killed_job_is_a_crash(sandbox: Sandbox, tmp_path: Path, number: signal.Signals) -> None:
    """A job that dies by a signal has crashed with that signal; the loaded process goes on with the next."""
    before = process_id(sandbox)
    running = Running(sandbox, tmp_path)
    os.kill(await running.job(), number)
    outcome = await running.task
    assert isinstance(outcome, JobFailed)
    assert (outcome.code, outcome.exit_code) == (FailureCode.CRASHED, -number)
    await run_tiny(sandbox, tmp_path)
    assert process_id(sandbox) == before


@linux
async def test_killed_sandbox_process_takes_its_job_along(sandbox: Sandbox, tmp_path: Path) -> None:
    """When the loaded process dies, its job dies too, the job has crashed, and the next job gets a new process."""
    before = process_id(sandbox)
    running = Running(sandbox, tmp_path)
    job = await running.job()
    os.kill(before, signal.SIGKILL)
    outcome = await running.task
    assert isinstance(outcome, JobFailed)
    assert outcome.code is FailureCode.CRASHED
    assert await gone([job])
    await run_tiny(sandbox, tmp_path)
    assert process_id(sandbox) != before


@linux
async def test_cancelled_job_is_killed(sandbox: Sandbox, tmp_path: Path) -> None:
    """Cancelling the call ends the job's process, and the place is free again."""
    running = Running(sandbox, tmp_path)
    job = await running.job()
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    assert await gone([job])
    await run_tiny(sandbox, tmp_path)


@linux
async def test_timeout_leaves_no_process(sandbox: Sandbox, tmp_path: Path) -> None:
    """After a timeout neither the job nor the process that it was forked from is left."""
    before = process_id(sandbox)
    running = asyncio.create_task(sandbox.run(LONG, {}, tmp_path, limits_of(LONG, 2_000)))
    while not (begun := descendants(before)):  # noqa: ASYNC110  nothing tells when the job's process is there
        await asyncio.sleep(0.001)
    outcome = await running
    assert isinstance(outcome, JobFailed)
    assert outcome.code is FailureCode.TIMEOUT
    assert await gone([before, *begun])


@linux
async def test_closing_ends_everything(tmp_path: Path) -> None:
    """Closing the sandbox fails the running job and leaves no process."""
    async with Sandbox() as sandbox:
        running = Running(sandbox, tmp_path)
        pids = [await running.job(), process_id(sandbox)]
    outcome = await running.task
    assert isinstance(outcome, JobFailed)
    assert outcome.code is FailureCode.CRASHED
    assert await gone(pids)


@linux
async def test_job_sees_nothing_of_its_surroundings(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job has a cleaned environment, no descriptors but its own, its own session, and its limits."""
    running = Running(sandbox, tmp_path)
    job = Path(f"/proc/{await running.job()}")
    names = {entry.partition("=")[0] for entry in (job / "environ").read_text().split("\0") if entry}
    assert names == {"LANG", "MALLOC_ARENA_MAX", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    files = {path.name: str(path.readlink()) for path in (job / "fd").iterdir()}
    assert files.pop("0") == os.devnull
    assert files.pop("1").startswith(("pipe:", "socket:"))
    assert files.pop("2") == str(tmp_path / ERRORS_NAME)
    assert [name for name in files.values() if not name.startswith("pipe:")] == []
    assert (job / "cwd").readlink() == tmp_path
    assert int((job / "stat").read_text().rpartition(")")[2].split()[3]) != os.getsid(0)
    limits = {line[:25].strip(): line[25:].split()[0] for line in (job / "limits").read_text().splitlines()[1:]}
    assert limits["Max core file size"] == "0"
    assert limits["Max file size"] == str(result_size(LONG))
    assert int(limits["Max address space"]) > memory_needed(LONG)
    assert limits["Max cpu time"] == "61"
    assert int(limits["Max open files"]) <= 64
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task


def test_only_jobs_on_a_gpu_find_its_driver_by_the_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the miner's environment nothing else reaches a job, and that only where the driver may need it."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/nvidia/lib64")
    monkeypatch.setenv("LD_PRELOAD_NOT", "1")
    assert "LD_LIBRARY_PATH" not in environment("cpu")
    assert environment("pycuda") == {**environment("cpu"), "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64"}
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert environment("pycuda") == environment("cpu")


@pytest.mark.parametrize(
    ("backend", "hard", "expected"),
    [("cpu", 4_096, 64), ("pycuda", 4_096, 1_024), ("pycuda", 256, 256), ("cpu", 40, 40)],
)
def test_open_files_are_limited_by_what_computes(backend: str, hard: int, expected: int) -> None:
    """CUDA opens many descriptors for each GPU, a job on the CPU few; never more than the host allows."""
    code = f"""
import resource
from actors.sandbox_child import _limit_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({min(hard, 200)}, {hard}))
_limit_files({backend!r})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    if hard > (allowed := resource.getrlimit(resource.RLIMIT_NOFILE)[1]) != resource.RLIM_INFINITY:
        pytest.skip(f"this host allows {allowed} descriptors")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected), str(expected)]


@linux
@pytest.mark.skipif(os.getuid() == 0, reason="root may look into every process")
async def test_jobs_cannot_look_into_the_process_that_forks_them(sandbox: Sandbox) -> None:
    """Not even where no wall hides it: another process of the same user has neither its memory nor its pipes."""
    process = Path(f"/proc/{process_id(sandbox)}")
    for name in ("mem", "fd/1", "environ"):
        with pytest.raises(PermissionError):
            (process / name).open("r+b")


PARENT = """
import asyncio, sys
from pathlib import Path
from actors.sandbox import Limits, Sandbox
from schemas.services import MatmulInt8, SeededMatrix

async def main():
    matrix = SeededMatrix(rows=6000, columns=6000, seed="aa" * 32)
    limits = Limits(wall_ms=60_000, memory_bytes=1 << 30, output_bytes=1 << 30)
    async with Sandbox() as sandbox:
        said = lambda done, total: print(*(p._process.pid for p in sandbox._processes), flush=True)
        await sandbox.run(MatmulInt8(a=matrix, b=matrix), {}, Path(sys.argv[1]), limits, said)

asyncio.run(main())
"""


@linux
async def test_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    """When the process that owns the sandbox is killed, the loaded process and the running job die with it."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", PARENT, str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    loaded = int(await parent.stdout.readline())
    job = descendants(loaded)[-1]
    parent.kill()
    await parent.wait()
    assert await gone([loaded, job])


async def test_sandbox_that_does_not_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends at its start is a fault of the installation; once mended, the same sandbox works."""
    sandbox = Sandbox()
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/bin/true")
        with pytest.raises(SandboxBroken):
            await sandbox.run(TINY, {}, tmp_path, limits_of(TINY))
    await run_tiny(sandbox, tmp_path)
    await sandbox.close()


def test_result_does_not_depend_on_the_sandbox(tmp_path: Path) -> None:
    """The root from the sandbox is that of the product computed here."""

    async def run() -> Finished:
        async with Sandbox() as sandbox:
            return await run_tiny(sandbox, tmp_path)

    a = seeded_matrix("aa" * 32, 8, 8).astype(np.int32)
    with ThreadPoolExecutor(1) as executor:
        expected = row_root(a @ a, executor)
    assert asyncio.run(run()).root == expected
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
