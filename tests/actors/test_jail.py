"""What a hostile job tries, and what comes of it. Each case runs code in a job's process, behind the jail's walls."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import jail
from actors.sandbox import JobFailed, Limits, Sandbox, _watched
from actors.sandbox_messages import Completed, FailureCode
from tests.actors.test_sandbox import TINY, run_tiny

ROOT = Path(__file__).parents[2]
MEMORY = 200 << 20
OUTPUT = 1 << 20

# argv: the walls, the directory, what to do. Prints what the code leaves in ``said``, as JSON.
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
        jail.forbid(processes=False)
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
sys.exit(_exit_code(work, inside, ()) %% 256)
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
    """How it ended, what it said, and the seconds it took."""

    def __init__(self, walls: str, directory: Path, code: str) -> None:
        began = time.monotonic()
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
        self.took_s = time.monotonic() - began
        self.code = done.returncode
        self.said: dict[str, Any] = json.loads(done.stdout or b"{}")
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
import time
count = 0
try:
    while True:
        if os.fork() == 0:
            open("/proc/self/comm", "w").write({marker[:15]!r})
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
    assert found.took_s < 30
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
