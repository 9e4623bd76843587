"""A devnet as people start it: `assay devnet` in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

import actors

ROOT: Final = Path(actors.__file__).parents[1]


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a person without settings, in which our sources can be imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASSAY_")}
    return kept | {"PYTHONPATH": str(ROOT), "ASSAY_HOME": str(home), **more}


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "actors.command_line", *(str(word) for word in words)]


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_dead(pids: list[int], within_s: float) -> list[int]:
    """The processes that are still alive after the time."""
    deadline = time.monotonic() + within_s
    while (living := [pid for pid in pids if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return living


class DevnetProcess:
    """Started when made; ``banner`` is what it prints. ``verb`` may be another one that stays: demo."""

    def __init__(self, work: Path, *options: str | Path, verb: str = "devnet") -> None:
        self.work = work
        self.home = work / ".assay"
        self.home.mkdir(exist_ok=True)
        self.errors = work / "devnet.err"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command(verb, "-o", "ndjson", *options),
                cwd=work,
                env=environment(self.home),
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        if self.process.stdout is None:
            raise AssertionError("started without a pipe")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(timeout=20)
            self.process.stdout.close()
            raise AssertionError(f"no banner: {self.errors.read_text()}")
        self.banner: dict[str, Any] = msgspec.json.decode(line)

    @property
    def pids(self) -> list[int]:
        return list(self.banner.get("network", self.banner)["processes"].values())

    def address(self, name: str) -> str:
        return next(entry["address"] for entry in self.banner["accounts"] if entry["name"] == name)

    def interrupt(self) -> int:
        """Ctrl-C: the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.interrupt()
        wait_until_dead(self.pids, 10)
        if self.process.stdout is not None:
            self.process.stdout.close()
