"""What a hostile job tries, and what comes of it. Each case runs code in a job's process, behind the jail's walls."""

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import jail
from actors.roles import keep_secrets_from_jobs
from actors.sandbox import JobFailed, Limits, Sandbox, _checked, _last_words, _size_of, _watched, _word
from actors.sandbox_child import LINES_AT_ONCE
from actors.sandbox_messages import (
    ERRORS_NAME,
    LINE_BYTES,
    RESULT_NAME,
    Completed,
    Exited,
    FailureCode,
    Ready,
    Said,
    decode_reply,
    encode_line,
)
from actors.settings import Settings
from events.errors import NotAllowed
from tests.actors.test_sandbox import TINY, run_tiny

ROOT = Path(__file__).parents[2]
MEMORY = 200 << 20
OUTPUT = 1 << 20

# argv: the walls (and ``compiler`` for its kind of jail), the directory, what to do. Prints what the code leaves in
# ``said``, as JSON.
HARNESS = """
import json, os, sys
from functools import partial
from pathlib import Path
from actors import jail
from actors.sandbox_child import _confine, _exit_code
from actors.sandbox_messages import Job
from schemas.services import MatmulInt8, SeededMatrix

walls, directory, code = sys.argv[1:]
matrix = SeededMatrix(rows=1, columns=1, seed="00" * 32)
job = Job(work=MatmulInt8(a=matrix, b=matrix), blobs={}, directory=directory, threads=1, memory_bytes=%d,
          output_bytes=%d, cpu_seconds=20)

def work():
    _confine(job)
    if "filter" in walls:
        jail.forbid(processes="compiler" in walls)
    said = {}
    def attempt(name, action):
        try:
            said[name] = repr(action())
        except BaseException as error:
            said[name] = type(error).__name__
    exec(code, {"attempt": attempt, "said": said, "os": os, "directory": directory, "Path": Path, "sys": sys})
    os.write(1, json.dumps(said).encode() + b"\\n")
    os._exit(0)

inside = Path(directory) if "namespaces" in walls else None
only = ()
if "compiler" in walls:
    only = ("own", "stderr.txt")
    for name in only:
        Path(directory, name).touch()
sys.exit(_exit_code(work, inside, (), only=only) %% 256)
""" % (MEMORY, OUTPUT)  # noqa: UP031  it has braces


@pytest.fixture(scope="module", params=["namespaces", "filter", "namespaces filter"])
def walls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Each layer by itself, and both, as jobs have them."""
    wanted: str = request.param
    trial = attack(wanted, tmp_path_factory.mktemp("trial"), "")
    if trial.code:
        pytest.skip(f"this host does not allow {wanted}: {trial.errors}")
    return wanted


class Attack:
    """How it ended and what it said."""

    def __init__(self, walls: str, directory: Path, code: str) -> None:
        # The process that forks jobs ends its whole session when something happens on stdin.
        quiet, end = os.pipe()
        done = subprocess.run(
            [sys.executable, "-c", HARNESS, walls, str(directory), code],
            cwd=ROOT,
            stdin=quiet,
            capture_output=True,
            timeout=60,
            check=False,
            start_new_session=True,
        )
        os.close(quiet)
        os.close(end)
        self.code = done.returncode
        replies = [decode_reply(line) for line in done.stdout.splitlines()]
        self.lines = [reply.line for reply in replies if isinstance(reply, Said)]
        assert len(self.lines) == len(replies)
        last = self.lines[-1] if self.lines else b""
        self.said: dict[str, Any] = json.loads(last) if last.startswith(b"{") else {}
        errors = directory / "stderr.txt"
        self.errors = done.stderr.decode() + (errors.read_text() if errors.exists() else "")


def attack(walls: str, directory: Path, code: str) -> Attack:
    return Attack(walls, directory, code)


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of a server on this host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_network_cannot_be_reached(walls: str, tmp_path: Path, listening: int) -> None:
    """Neither another host nor this one, by TCP, UDP, or a local socket of the host."""
    found = attack(
        walls,
        tmp_path,
        f"""
import socket
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", {listening}), 2))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 53)))
attempt("local", lambda: socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket"))
""",
    )
    assert found.code == 0, found.errors
    assert found.said["tcp"] in ("ConnectionRefusedError", "OSError", "PermissionError")
    assert found.said["udp"] in ("OSError", "PermissionError")
    assert found.said["local"] in ("FileNotFoundError", "PermissionError")
    with socket.create_connection(("127.0.0.1", listening), 2):
        pass  # from outside it can


@pytest.mark.parametrize("walls", ["namespaces", "namespaces filter"], indirect=True)
def test_the_files_of_the_host_are_not_there(walls: str, tmp_path: Path) -> None:
    """Keys, home directories and other jobs cannot be read, and nothing but the job's own directory can be written."""
    secret = tmp_path / "secret"
    secret.write_text("SU")
    (tmp_path / "other").mkdir()
    mine = tmp_path / "mine"
    mine.mkdir()
    found = attack(
        walls,
        mine,
        f"""
attempt("secret", lambda: open({str(secret)!r}).read())
attempt("other", lambda: os.listdir({str(tmp_path / "other")!r}))
attempt("home", lambda: os.listdir(os.path.expanduser("~")))
attempt("mine", lambda: Path("own").write_text("x"))
attempt("tmp", lambda: Path("/tmp/own").write_text("x"))
for place in ("/usr/x", "/x", "/dev/x", "/etc/x", sys.prefix + "/x", {str(ROOT / "actors" / "x")!r}):
    attempt(place, lambda: Path(place).write_text("x"))
attempt("program", lambda: Path("/proc/self/exe").open("r+b"))
attempt("up", lambda: sorted(os.listdir({str(tmp_path)!r})))
said["processes"] = [name for name in os.listdir("/proc") if name.isdigit()]
""",
    )
    assert found.code == 0, found.errors
    said = found.said
    assert (said["secret"], said["other"]) == ("FileNotFoundError", "FileNotFoundError")
    assert said["mine"] == said["tmp"] == "1"
    assert {said[name] for name in said if name.endswith("/x")} <= {"OSError", "FileNotFoundError", "PermissionError"}
    assert said["program"] in ("OSError", "PermissionError")
    assert said["up"] == "['mine']"
    assert "shadow" not in said["home"]
    assert len(said["processes"]) == 2
    assert (mine / "own").read_text() == "x"
    assert not Path("/tmp/own").exists()


def test_a_fork_bomb_goes_out(walls: str, tmp_path: Path) -> None:
    """It gets few processes or none, and none is left when the job has ended."""
    marker = f"bomb-{tmp_path.name}-{os.getpid()}"
    found = attack(
        walls,
        tmp_path,
        f"""
import ctypes, time
libc = ctypes.CDLL(None)
count = 0
try:
    while True:
        if os.fork() == 0:
            libc.prctl(15, {marker[:15].encode()!r})  # its name
            time.sleep(60)
            os._exit(0)
        count += 1
except OSError as error:
    said["stopped"] = type(error).__name__
said["count"] = count
""",
    )
    assert found.code == 0, found.errors
    assert found.said["stopped"] in ("PermissionError", "BlockingIOError")
    assert found.said["count"] <= jail.MOST_PROCESSES
    if "filter" in walls:
        assert found.said["count"] == 0
    left = [path for path in Path("/proc").glob("[0-9]*/comm") if _comm(path) == marker[:15]]
    assert left == []


def _comm(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def test_memory_is_limited(walls: str, tmp_path: Path) -> None:
    """What the job takes beyond its limit it does not get."""
    code = """
hoard = []
try:
    while True:
        hoard.append(bytes(1 << 20))
except MemoryError:
    said["mib"] = len(hoard)
    hoard.clear()
"""
    found = attack(walls, tmp_path, code)
    assert found.code == 0, found.errors
    assert 100 < found.said["mib"] <= MEMORY >> 20


def test_a_job_goes_before_others_where_memory_is_short(walls: str, tmp_path: Path) -> None:
    """The kernel is told so, by a number that a job cannot lower."""
    code = """
attempt("lower", lambda: Path("/proc/self/oom_score_adj").write_text("-1000"))
said["score"] = Path("/proc/self/oom_score_adj").read_text()
"""
    found = attack(walls, tmp_path, code)
    assert found.code == 0, found.errors
    if "namespaces" in walls or os.getuid() != 0:
        assert found.said == {"lower": found.said["lower"], "score": "1000\n"}
        assert found.said["lower"] in ("OSError", "PermissionError")


def test_an_endless_loop_ends(walls: str, tmp_path: Path) -> None:
    """Processor time runs out, also for one that ignores the signal."""
    code = """
import resource, signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
while True:
    pass
"""
    found = attack(walls, tmp_path, code)
    assert found.code == 256 - 9, found.errors


def test_output_is_limited(walls: str, tmp_path: Path) -> None:
    """No file grows beyond the limit, the job's /tmp is small, and limits cannot be raised."""
    code = f"""
import resource
def fill(place, size):
    with open(place, "wb") as file:
        for _ in range(size >> 16):
            file.write(bytes(1 << 16))
attempt("file", lambda: fill("big", {4 * OUTPUT}))
attempt("sparse", lambda: os.truncate("big", {4 * OUTPUT}))
attempt("raise", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40)))
said["size"] = os.path.getsize("big")
"""
    found = attack(walls, tmp_path, code)
    assert found.code == 0, found.errors
    assert (found.said["file"], found.said["sparse"]) == ("OSError", "OSError")
    assert found.said["size"] <= OUTPUT
    if "namespaces" in walls:
        # Whoever runs as root has no limit of its own but that of the namespace.
        assert found.said["raise"] in ("ValueError", "PermissionError")


def test_others_cannot_be_signalled(walls: str, tmp_path: Path) -> None:
    """Neither the process that forked it, nor that one's parent, nor everybody at once."""
    # Signal 0 only asks; what could send it could send SIGKILL.
    code = f"""
attempt("parent", lambda: os.kill(os.getppid(), 0))
attempt("test", lambda: os.kill({os.getpid()}, 0))
attempt("everybody", lambda: os.kill(-1, 0))
"""
    found = attack(walls, tmp_path, code)
    assert found.code == 0, found.errors
    if "filter" in walls:
        assert set(found.said.values()) == {"PermissionError"}
    else:
        # Its parent is the namespace's init, which no signal from inside ends; it sees nobody else.
        assert found.said == {"parent": "None", "test": "ProcessLookupError", "everybody": "ProcessLookupError"}


@pytest.mark.parametrize("walls", ["filter", "namespaces filter"], indirect=True)
def test_the_kernel_is_out_of_reach(walls: str, tmp_path: Path) -> None:
    """No tracing, no new namespaces, no mounts, no programs."""
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def errno_of(result):
    return ctypes.get_errno() if result else 0
attempt("trace", lambda: errno_of(libc.ptrace(16, os.getppid(), 0, 0)))
attempt("unshare", lambda: errno_of(libc.unshare(0x10000000)))
attempt("mount", lambda: errno_of(libc.mount(b"none", b"/", b"tmpfs", 0, None)))
attempt("program", lambda: os.execv("/bin/true", ["true"]))
attempt("thread", lambda: __import__("concurrent.futures").futures.ThreadPoolExecutor(1).submit(len, "abc").result())
"""
    found = attack(walls, tmp_path, code)
    assert found.code == 0, found.errors
    assert found.said == {"trace": "1", "unshare": "1", "mount": "1", "program": "PermissionError", "thread": "3"}


SYSTEM_CALLS = """
import ctypes, errno, fcntl, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *arguments):
    arguments = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return errno.errorcode[ctypes.get_errno()] if function(*arguments) < 0 else "done"
own = os.open("own", os.O_RDWR | os.O_CREAT)
receiving, _ = os.pipe()
said.update(
    socketpair=call(libc.socketpair, 1, 1, 0, ctypes.create_string_buffer(8)),
    memfd=call(libc.memfd_create, b"x", 0),
    shm=call(libc.shmget, 0, 1 << 33, 0o1600),
    beyond_the_end=call(libc.fallocate, own, 1, 0, 64 << 20),
    unnamed=call(libc.open, b".", os.O_TMPFILE | os.O_RDWR, 0o600),
    clone3=call(libc.syscall, 435, ctypes.create_string_buffer(88), 88),
    openat2=call(libc.syscall, 437, -100, b"own", ctypes.create_string_buffer(24), 24),
    namespace=call(libc.syscall, %d, 0x10000000 | 17, 0, 0, 0, 0),
    owner=call(libc.fcntl, receiving, fcntl.F_SETOWN, os.getppid()),
    limits_of_others=call(libc.prlimit, os.getppid(), 7, None, ctypes.create_string_buffer(16)),
    own_limits=call(libc.prlimit, 0, 7, None, ctypes.create_string_buffer(16)),
)
said["taken"] = os.fstat(own).st_blocks
""" % jail._CLONE[os.uname().machine == "aarch64"]  # noqa: UP031  it has braces

SAID_TO_THEM = {
    "socketpair": "EPERM",
    "memfd": "EPERM",
    "shm": "EPERM",
    "beyond_the_end": "ENOTSUP",
    "unnamed": "EPERM",
    "clone3": "ENOSYS",
    "openat2": "ENOSYS",
    "namespace": "EPERM",
    "owner": "EPERM",
    "limits_of_others": "EPERM",
    "own_limits": "done",
    "taken": 0,
}


@pytest.mark.parametrize("walls", ["filter", "namespaces filter"], indirect=True)
@pytest.mark.parametrize("kind", ["", " compiler"])
def test_no_call_leads_around_the_limits(walls: str, kind: str, tmp_path: Path) -> None:
    """Memory and disk that no limit counts, signals by another way, the limits of other processes, new namespaces."""
    found = attack(walls + kind, tmp_path, SYSTEM_CALLS)
    assert found.code == 0, found.errors
    assert found.said == SAID_TO_THEM


@pytest.mark.parametrize("walls", ["filter", "namespaces filter"], indirect=True)
def test_a_job_leaves_plain_files(walls: str, tmp_path: Path) -> None:
    """No links, pipes or folders that the parent would follow, wait for or not see, and nothing it could not remove."""
    code = """
Path("own").write_text("x")
attempt("symlink", lambda: os.symlink("/etc/passwd", "link"))
attempt("link", lambda: os.link("own", "link"))
attempt("pipe", lambda: os.mkfifo("pipe"))
attempt("folder", lambda: os.mkdir("folder"))
attempt("unlink", lambda: os.unlink("own"))
attempt("rename", lambda: os.rename("own", "other"))
attempt("mode", lambda: os.chmod("own", 0o4777))
attempt("own folder", lambda: os.chmod(".", 0))
attempt("list", lambda: os.setxattr("own", "user.x", b"x"))
"""
    found = attack(walls, tmp_path, code)
    assert found.code == 0, found.errors
    assert set(found.said.values()) == {"PermissionError"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", ERRORS_NAME]


@pytest.mark.parametrize("walls", ["namespaces", "namespaces filter"], indirect=True)
def test_the_settings_of_the_host_cannot_be_written(walls: str, tmp_path: Path) -> None:
    """Also where the miner runs as root: no setting of the kernel, no right of a device's node."""
    code = """
def is_open(path):
    os.close(os.open(path, os.O_WRONLY))
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/pid_max", "/proc/self/oom_score_adj"):
    attempt(path, lambda: is_open(path))
attempt("node", lambda: os.utime("/dev/null"))
attempt("null", lambda: is_open("/dev/null"))
attempt("init", lambda: os.readlink("/proc/1/fd/0"))
said["rights"] = [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs"))]
"""
    found = attack(walls, tmp_path, code)
    assert found.code == 0, found.errors
    assert found.said.pop("rights") == ["0000000000000000", "1"]
    assert found.said.pop("null") == "None"
    assert set(found.said.values()) <= {"OSError", "PermissionError"}


@pytest.mark.parametrize("walls", ["namespaces filter"], indirect=True)
def test_a_compiler_writes_its_files_alone(walls: str, tmp_path: Path) -> None:
    """What it is to write, and its /tmp; nothing beside them in the job's directory."""
    (tmp_path / "input").write_text("x")
    code = """
attempt("own", lambda: Path("own").write_text("x"))
attempt("tmp", lambda: Path("/tmp/other").write_text("x"))
attempt("other", lambda: Path("other").write_text("x"))
attempt("input", lambda: Path("input").write_text("y"))
attempt("remove", lambda: os.unlink("own"))
attempt("link", lambda: os.symlink("/etc/passwd", "result"))
"""
    found = attack(walls + " compiler", tmp_path, code)
    assert found.code == 0, found.errors
    assert (found.said.pop("own"), found.said.pop("tmp")) == ("1", "1")
    assert set(found.said.values()) == {"OSError"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "own", ERRORS_NAME]


def test_a_job_speaks_for_itself_alone(walls: str, tmp_path: Path) -> None:
    """What it says arrives as a job's words: it cannot end its own job, nor answer for one that comes after it."""
    forged = [encode_line(Exited(exit_code=0)), encode_line(Ready(walls=())), encode_line(Said(b"x")), b"\n", b"\xff\n"]
    found = attack(walls, tmp_path, f"os.write(1, {b''.join(forged)!r})")
    assert found.code == 0, found.errors
    assert found.lines[:-1] == [line[:-1] for line in forged]
    assert [_word(line) for line in found.lines] == [None] * 6


def test_who_says_too_much_is_not_listened_to(walls: str, tmp_path: Path) -> None:
    """A line without end takes no memory, and ends what the job has to say; so do lines without end."""
    found = attack(walls, tmp_path, f"os.write(1, b'a' * {LINE_BYTES} + b'\\n' + b'b' * {4 << 20} + b'\\nc\\n')")
    assert found.code == 0, found.errors
    assert found.lines in ([], [b"a" * LINE_BYTES])
    found = attack(walls, tmp_path, "os.write(1, b'a\\n' * 1_000_000)")
    assert found.code == 0, found.errors
    assert len(found.lines) < 2 * LINES_AT_ONCE


@pytest.mark.parametrize(
    "line",
    [
        b'{"message":"progressed","done":-1,"total":1}',
        b'{"message":"progressed","done":1' + b"0" * 40 + b',"total":1}',
        b'{"message":"completed","root":"","digest":"","size":1}',
        encode_line(Ready(walls=())),
    ],
)
def test_what_is_no_word_of_a_job_is_not_heard(line: bytes) -> None:
    """Neither other messages nor steps that nobody could pass on."""
    assert _word(line) is None


@pytest.mark.parametrize("kind", ["pipe", "symlink", "folder", "nothing"])
def test_what_lies_in_place_of_a_file_is_neither_waited_for_nor_followed(kind: str, tmp_path: Path) -> None:
    """The parent reads a job's errors and looks at its result from outside of the jail."""
    secret = tmp_path / "secret"
    secret.write_text("SU")
    place = tmp_path / "job"
    place.mkdir()
    for name in (ERRORS_NAME, RESULT_NAME):
        if kind == "pipe":
            os.mkfifo(place / name)
        elif kind == "symlink":
            (place / name).symlink_to(secret)
        elif kind == "folder":
            (place / name).mkdir()
    assert _last_words(place) == ""
    limits = Limits(wall_ms=1, memory_bytes=1, output_bytes=OUTPUT)
    claimed = Completed(root="00" * 32, digest="00" * 32, size=2)
    outcome = _checked(claimed, place, limits)
    assert isinstance(outcome, JobFailed)
    assert outcome.code is FailureCode.CRASHED
    assert isinstance(_checked(claimed, secret / "below", limits), JobFailed)


def test_names_count_as_disk(tmp_path: Path) -> None:
    """Files without content and folders take some, too."""
    for number in range(8):
        (tmp_path / f"file-{number}").touch()
        (tmp_path / f"folder-{number}").mkdir()
    assert _size_of(tmp_path) >= 16 * 4_096


async def test_a_job_that_fills_the_disk_with_small_files_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is too large, all together are."""
    monkeypatch.setattr("actors.sandbox.WATCH_S", 0.01)
    number = 0

    async def fill() -> Completed:
        nonlocal number
        while True:
            (tmp_path / f"{number}").write_bytes(bytes(OUTPUT // 2))
            number += 1
            await asyncio.sleep(0.001)

    limits = Limits(wall_ms=1, memory_bytes=1, output_bytes=OUTPUT)
    outcome = await _watched(fill(), tmp_path, limits)
    assert isinstance(outcome, JobFailed)
    assert outcome.code is FailureCode.OUTPUT_TOO_LARGE
    assert number < 10_000


async def test_jobs_run_behind_all_walls_that_the_host_allows(tmp_path: Path) -> None:
    """The sandbox says which: in bubblewrap where that is installed, and a job gives its result there."""
    async with Sandbox(1, tmp_path) as sandbox:
        expected = [wall for wall in ("namespaces", "filter") if not attack(wall, tmp_path, "").code]
        assert [wall for wall in sandbox.walls if wall != "bubblewrap"] == expected
        outcome = await run_tiny(sandbox, tmp_path)
        assert outcome.size > 0
    assert TINY.units() == 1


def test_what_lies_among_the_programs_is_shown(tmp_path: Path) -> None:
    """Below what a job can read, also behind a link; not what lies beside it."""
    (tmp_path / "link").symlink_to(ROOT / "actors")
    assert jail.shows(ROOT / "actors" / "keys")
    assert jail.shows(tmp_path / "link" / "keys")
    assert jail.shows(Path(sys.prefix) / "keys")
    assert not jail.shows(tmp_path / "keys")
    assert not jail.shows(ROOT)


@pytest.mark.parametrize("secret", ["data_dir", "seed_file", "keystore", "password_file"])
def test_a_miner_keeps_its_secrets_out_of_the_jail(secret: str, tmp_path: Path) -> None:
    """One whose settings name a place that jobs can read does not start."""
    good = {"data_dir": str(tmp_path), "seed_file": str(tmp_path / "seed")}
    keep_secrets_from_jobs(Settings(chain="devnet", **good))
    shown = str(Path(sys.prefix) / "assay")
    with pytest.raises(NotAllowed, match="could read") as caught:
        keep_secrets_from_jobs(Settings(chain="devnet", **(good | {secret: shown})))
    assert shown in caught.value.why


async def test_what_a_compiler_leaves_is_not_counted_as_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may be larger than the result of its job."""
    monkeypatch.setattr("actors.sandbox.WATCH_S", 0.001)
    end = Completed(root="00" * 32, digest="00" * 32, size=1)

    async def compile_slowly() -> Completed:
        (tmp_path / "program").write_bytes(bytes(OUTPUT))
        await asyncio.sleep(0.02)
        return end

    limits = Limits(wall_ms=1, memory_bytes=1, output_bytes=1)
    assert await _watched(compile_slowly(), tmp_path, limits, beside=OUTPUT) == end
    (tmp_path / "program").unlink()
    assert isinstance(await _watched(compile_slowly(), tmp_path, limits), JobFailed)


def verdict(program: bytes, *, nr: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would do with a call: the errno that the filter answers with, 0 where the call is made."""
    data = struct.pack("<IIQ6Q", nr, arch, 0, *(*arguments, *(0,) * (6 - len(arguments))))
    lines = list(struct.iter_unpack("<HBBI", program))
    at, value = 0, 0
    while True:
        code, if_true, if_false, operand = lines[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:
            assert operand == 0x7FFF0000 or operand >> 16 == 5
            return operand & 0xFFFF
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("processes", [False, True])
def test_the_filter_of_each_kind_of_machine(machine: str, processes: bool) -> None:
    """Every call of the tables is turned away, reading and threads are not, and no other numbering leads around it."""
    arch, column = jail._ARCHITECTURES[machine]
    program = jail._filter(arch, column, processes=processes)

    def answer(numbers: tuple[int | None, int | None], *arguments: int, arch: int = arch) -> int:
        number = numbers[column]
        return 1 if number is None else verdict(program, nr=number, arch=arch, arguments=arguments)

    assert {answer(numbers) for numbers in jail._FORBIDDEN} == {1}
    job_only = (*jail._MAKES_PROCESSES, *jail._CHANGES_FOLDERS)
    assert {answer(numbers) for numbers in job_only if numbers[column]} == {int(not processes)}
    assert (answer((435, 435)), answer((437, 437)), answer((285, 47))) == (38, 38, 95)
    read, other_arch, x32 = (0, 63), 0x40000003, 0x40000000
    assert (answer(read), answer(read, arch=other_arch), answer((x32, x32))) == (0, 1, 1)
    # A thread, a process, a process in a namespace of its own, by the flags that the C library gives.
    clone = jail._CLONE
    assert [answer(clone, flags) for flags in (0x3D0F00, 0x1200011, 0x10000011)] == [0, int(not processes), 1]
    tgkill, other = jail._TGKILL, os.getpid() + 1
    assert [answer(tgkill, pid) for pid in (os.getpid(), other)] == [0, int(not processes)]
    assert [answer(jail._FCNTL, 5, command) for command in (1, 3, 8, 15)] == [0, 0, 1, 1]
    assert [answer(jail._PRLIMIT, pid) for pid in (0, other)] == [0, 1]
    assert [answer((257, 56), 0, 0, flags) for flags in (0o102, 0o20200002)] == [0, 1]


def test_bubblewrap_shows_what_a_job_needs_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command names no home directory, and one place that can be written."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    words = jail.bubblewrap(tmp_path)
    assert words[0] == "/usr/bin/bwrap"
    assert words[-4:] == ["--bind", str(tmp_path), str(tmp_path), "--"]
    assert words.count("--bind") == 1
    assert "--unshare-all" in words
    assert str(Path.home()) not in words
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert jail.bubblewrap(tmp_path) == []
