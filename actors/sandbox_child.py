"""The process in which jobs run; started by `actors.sandbox`, never by hand.

It loads NumPy and the services once, and then forks a fresh process for each job: a fork takes milliseconds, an
interpreter with NumPy a quarter of a second. The loaded process itself reads nothing of a job's data, and of what a job
says only where a line ends; it holds no key and no connection, and runs no second thread (its BLAS is told to use one),
so forking is safe. A job's process goes behind the walls of `actors.jail` and limits itself before it opens any file of
the job, and ends with the job.

Both die with the process that started them: by the kernel's signal at the parent's death where there is one (Linux),
and by the end of stdin everywhere.
"""

import contextlib
import ctypes
import errno
import gc
import os
import resource
import select
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import numpy as np

from actors import jail
from actors.backends.base import DeviceFault
from actors.backends.choice import choose
from actors.backends.cpu import CpuBackend
from actors.sandbox_messages import (
    ERRORS_BYTES,
    ERRORS_NAME,
    LINE_BYTES,
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
    Wall,
    decode_job,
    encode_line,
)
from actors.services import kernel_custom
from actors.services.registry import service_for
from events.errors import BadInput, DeviceUnavailable
from schemas.services import service_of
from schemas.services.custom import KernelCustom

# What a job opens on the CPU: its inputs, its result, a module or two.
OPEN_FILES: Final = 64
# CUDA opens the nodes of every GPU that it sees several times, and pipes and events of its own: more than 64 of them
# where there are eight GPUs. 1,024 is what a Linux program has by default, and all that select() can name; the pipes
# that a job could fill with them hold 32 MiB.
GPU_OPEN_FILES: Final = 1_024
PROGRESS_INTERVAL_S: Final = 0.05
MAX_DETAIL: Final = 500
# How often a job may say something, and how often at once: far more than any has to.
LINES_PER_S: Final = 100
LINES_AT_ONCE: Final = 1_000

# The exit code of a process that has said why it does not go on.
REFUSED: Final = 3

_CODES: Final[Mapping[type[Exception], FailureCode]] = {
    BadInput: FailureCode.BAD_INPUT,
    DeviceUnavailable: FailureCode.NO_DEVICE,
    DeviceFault: FailureCode.DEVICE_FAULT,
}
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def main(parent: int, backend: str, device: str) -> None:
    """Serve jobs until stdin ends. ``parent`` is the process id of whoever started this; ``backend`` and ``device``
    are those of the jobs to come."""
    _die_with(parent)
    # Also where no namespace hides it, a job of the same user can neither write its memory nor open its pipes.
    _show_to_its_user(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_files(backend)
    ones = np.ones((64, 64), dtype=np.int8)
    CpuBackend().multiply(ones, ones)
    gc.collect()
    gc.freeze()
    if _exit_code(partial(_tell_devices, backend, device), None, (), speaks_itself=True) != 0:
        return
    walls = _walls()
    _send(Ready(walls))
    while line := _read_line():
        _send(Exited(_fork_job(decode_job(line), walls)))


def _walls() -> tuple[Wall, ...]:
    """The layers that this host allows, found by trying."""
    with tempfile.TemporaryDirectory(prefix="assay-jail-") as folder:
        trials: tuple[tuple[Wall, Callable[[], NoReturn]], ...] = (
            ("namespaces", _end_well),
            ("filter", _try_filter),
        )
        return tuple(
            wall for wall, trial in trials if _exit_code(trial, Path(folder) if wall == "namespaces" else None, ()) == 0
        )


def _limit_files(backend: str) -> None:
    """The descriptors of this process and all that it forks: those that ask the device what it is, and jobs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if backend == "cpu" else GPU_OPEN_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tell_devices(backend: str, device: str) -> NoReturn:
    """In a process of its own: CUDA, once begun, does not survive a fork."""
    try:
        found = choose(backend, 1, device or None).devices()
    except (BadInput, DeviceUnavailable, DeviceFault) as error:
        _send(Failed(_CODES[type(error)], str(error)[:MAX_DETAIL]))
        os._exit(REFUSED)
    _send(Devices(found))
    os._exit(0)


def _end_well() -> NoReturn:
    os._exit(0)


def _try_filter() -> NoReturn:
    try:
        jail.forbid(processes=False)
    except jail.NoJail:
        os._exit(1)
    os._exit(0)


def _fork_job(job: Job, walls: tuple[Wall, ...]) -> int:
    """Run the job in a process of its own; return its exit code."""
    inside = Path(job.directory) if "namespaces" in walls else None
    if isinstance(job.work, KernelCustom):
        # A compiler starts processes and reads what the source includes: it has a jail of its own, before the job's.
        # It writes these two files alone: what it would leave beside them the limits of the job do not count.
        written = (kernel_custom.CODE_NAME, ERRORS_NAME)
        for name in written:
            Path(job.directory, name).touch(mode=0o600)
        compiled = _exit_code(partial(_compile, job, walls), inside, job.blobs.values(), only=written)
        if compiled != 0:
            return 0 if compiled == REFUSED else compiled
    return _exit_code(partial(_run_job, job, walls), inside, job.blobs.values())


def _exit_code(
    work: Callable[[], NoReturn],
    inside: Path | None,
    readable: Iterable[str],
    *,
    only: tuple[str, ...] = (),
    speaks_itself: bool = False,
) -> int:
    """Run ``work`` in a forked process, behind namespaces where ``inside`` is the directory that it may write to, or
    the files ``only`` in it.

    Who ``speaks_itself`` has this process's stdout; what others say there is passed on as theirs.
    """
    template = os.getpid()
    ended, alive = os.pipe()
    told, status_end = os.pipe()
    words, speaking = os.pipe()
    child = os.fork()
    if child == 0:
        if not speaks_itself:
            os.dup2(speaking, _STDOUT)
        for descriptor in (ended, told, words, speaking):
            os.close(descriptor)
        _die_with(template)
        _show_to_its_user(1)  # as the kernel wants it of whoever maps users
        _go_first()
        if inside is not None:
            _behind_namespaces(work, inside, readable, status_end, only)
        os.close(status_end)
        work()
    for descriptor in (alive, status_end, speaking):
        os.close(descriptor)
    relay = _Relay(words)
    listening = [words, ended, _STDIN]
    while True:
        ready, _, _ = select.select(listening, [], [])
        if _STDIN in ready:
            # Nothing may be said while a job runs: the parent is gone, or not in its senses. This process ends too.
            os.killpg(os.getpgid(0), signal.SIGKILL)
        if words in ready and not relay.pass_on():
            listening.remove(words)
        elif ended in ready:
            break
    _, status = os.waitpid(child, 0)
    while relay.pass_on():
        pass
    said = os.read(told, 4)
    for descriptor in (ended, told, words):
        os.close(descriptor)
    if len(said) == 4:
        status = struct.unpack("<i", said)[0]
    return os.waitstatus_to_exitcode(status)


class _Relay:
    """Passes on what a job says, line by line, and reads nothing in it."""

    def __init__(self, words: int) -> None:
        os.set_blocking(words, False)
        self._words = words
        self._rest = b""
        self._heeded = True
        self._lines = 0
        self._began = time.monotonic()

    def pass_on(self) -> bool:
        """What was said since the last time; whether there may be more already."""
        try:
            chunk = os.read(self._words, 65_536)
        except BlockingIOError:
            return False
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._lines += len(lines)
        most = LINES_AT_ONCE + LINES_PER_S * (time.monotonic() - self._began)
        # Whoever says something so long, or so much, is not listened to any more.
        self._heeded = self._heeded and self._lines <= most and max(map(len, (rest, *lines))) <= LINE_BYTES
        self._rest = rest if self._heeded else b""
        for line in lines if self._heeded else ():
            _send(Said(line))
        return bool(chunk)


def _behind_namespaces(
    work: Callable[[], NoReturn], inside: Path, readable: Iterable[str], ended: int, only: tuple[str, ...]
) -> NoReturn:
    try:
        jail.run(work, inside, readable, ended, only)
    except jail.NoJail as error:
        _complain(f"{error}\n")
        os._exit(1)


def _compile(job: Job, walls: tuple[Wall, ...]) -> NoReturn:
    """In a process before the job's: compile what the client has brought. Ends with `REFUSED` once it has said why
    not."""
    if not isinstance(job.work, KernelCustom):
        raise AssertionError(f"{service_of(job.work)} brings nothing to compile")
    if set(walls) != {"namespaces", "filter"}:
        _send(Failed(FailureCode.NO_JAIL, "a stranger's program runs only where the host allows a whole jail"))
        os._exit(REFUSED)
    # What a compiler needs has nothing to do with what the job does.
    larger = {"memory_bytes": kernel_custom.COMPILER_BYTES, "output_bytes": kernel_custom.COMPILER_FILE_BYTES}
    _confine(msgspec.structs.replace(job, **larger))
    jail.forbid(processes=True)
    blobs = {digest: Path(path) for digest, path in job.blobs.items()}
    try:
        kernel_custom.compile_source(job.work, blobs, Path(kernel_custom.CODE_NAME))
    except (BadInput, DeviceUnavailable) as error:
        _send(Failed(_CODES[type(error)], str(error)[:MAX_DETAIL]))
        os._exit(REFUSED)
    os._exit(0)


def _run_job(job: Job, walls: tuple[Wall, ...]) -> NoReturn:
    """In the job's process: do it, say how it went, end. What nobody foresaw ends the process with a traceback."""
    _confine(job)
    if "filter" in walls:
        jail.forbid(processes=False)
    _send(_perform(job))
    os._exit(0)


def _confine(job: Job) -> None:
    """Take up the job's limits."""
    os.chdir(job.directory)
    nothing = os.open(os.devnull, os.O_RDONLY)
    errors = os.open(ERRORS_NAME, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(nothing, _STDIN)
    os.dup2(errors, _STDERR)
    os.close(nothing)
    os.close(errors)
    # The limit of a file holds for stderr too, which needs room for a traceback; the caller compares the result's size.
    largest_file = max(job.output_bytes, ERRORS_BYTES)
    limits = {resource.RLIMIT_CPU: job.cpu_seconds, resource.RLIMIT_FSIZE: largest_file}
    used = _address_space()
    if used is not None:
        # CUDA reserves far more addresses than it uses; what can be written is counted as data.
        kind = resource.RLIMIT_AS if job.backend == "cpu" else resource.RLIMIT_DATA
        limits[kind] = used + job.memory_bytes
    for limit, value in limits.items():
        # At the soft limit of processor time the kernel sends SIGXCPU, at the hard one SIGKILL, which tells nothing.
        resource.setrlimit(limit, (value, value + 1 if limit == resource.RLIMIT_CPU else value))


def _perform(job: Job) -> Completed | Failed:
    said = 0.0

    def report(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= PROGRESS_INTERVAL_S:
            said = now
            _send(Progressed(done, total))

    service = service_for(job.work)
    needed = service.memory_needed(job.work, job.threads)
    if needed > job.memory_bytes:
        # Running into the limit is safe but not tidy: a BLAS that gets no memory ends the process in its own way.
        return Failed(FailureCode.MEMORY, f"the job needs {needed} bytes of memory and may use {job.memory_bytes}")
    blobs = {digest: Path(path) for digest, path in job.blobs.items()}
    try:
        backend = choose(job.backend, job.threads, job.device or None)
        computed = service.compute(job.work, blobs, backend, Path(RESULT_NAME), report, job.threads)
    except (BadInput, DeviceUnavailable, DeviceFault) as error:
        return Failed(_CODES[type(error)], str(error)[:MAX_DETAIL])
    except MemoryError as error:
        return Failed(FailureCode.MEMORY, str(error)[:MAX_DETAIL] or "out of memory")
    except OSError as error:
        if error.errno == errno.EFBIG:
            return Failed(FailureCode.OUTPUT_TOO_LARGE, f"the result has more than {job.output_bytes} bytes")
        if error.errno == errno.ENOMEM:
            return Failed(FailureCode.MEMORY, str(error))
        raise
    return Completed(computed.root, computed.digest, computed.size)


def _address_space() -> int | None:
    """Bytes of address space in use; None where the kernel does not say (there RLIMIT_AS has no effect either)."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * _PAGE
    except OSError:
        return None


def _die_with(parent: int) -> None:
    """Be killed when the parent ends, and end now if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _show_to_its_user(shown: int) -> None:
    """Whether other processes of the same user may look into this one, by /proc or by tracing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, shown, 0, 0, 0)


def _go_first() -> None:
    """Where the host runs out of memory, a job is ended before the miner and all else."""
    with contextlib.suppress(OSError):  # there is no such thing but on Linux
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _read_line() -> bytes:
    """One line from stdin; empty when stdin has ended. The parent never writes ahead: a line comes alone."""
    received = b""
    while not received.endswith(b"\n"):
        chunk = os.read(_STDIN, 65_536)
        if not chunk:
            return b""
        received += chunk
    return received


def _complain(text: str) -> None:
    os.write(_STDERR, text.encode())


def _send(reply: Reply) -> None:
    """One line to stdout, far below the size up to which a pipe takes a write whole."""
    os.write(_STDOUT, encode_line(reply))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
