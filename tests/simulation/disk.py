"""Disks of simulated processes: SQLite in a folder of its own per host, without threads.

Within `inline_databases` every aiosqlite connection runs its functions in the loop of the simulation, some of them a
little later. `Disk.crash` leaves what was committed: SIGKILL loses a transaction that was under way, a loss of power
also what had not been synced, which may end in the middle of a write.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import aiosqlite.core

from tests.simulation.loop import CURRENT, VirtualLoop, resolve


class _NoThread:
    """Stands for the thread of a connection, which does nothing here."""

    daemon = True

    def __init__(self, **_: Any) -> None:
        return

    def start(self) -> None:
        return

    def join(self) -> None:
        return


class _InlineQueue:
    """Stands for the queue to that thread: what is put into it is done, in order, within the loop."""

    def __init__(self, loop: VirtualLoop, random: Random, may_crash: Callable[[], bool]) -> None:
        self._loop = loop
        self._random = random
        self._may_crash = may_crash
        self._free_at = 0.0

    def put_nowait(self, item: tuple[Any, Callable[[], Any]]) -> None:
        # One access in ten takes a while; those behind it wait.
        delay = self._random.random() * 0.004 if self._random.random() < 0.1 else 0.0
        at = max(self._loop.time() + delay, self._free_at)
        if at <= self._loop.time():
            self._do(item)
            return
        self._free_at = at
        self._loop.call_at(at, self._do, item)

    def _do(self, item: tuple[Any, Callable[[], Any]]) -> None:
        future, function = item
        if self._may_crash():
            return
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - as the thread does, it hands over whatever it is
            self._loop.call_soon(resolve, future, None, error)
        else:
            self._loop.call_soon(resolve, future, result, None)


class Disk:
    """The files of one host below ``folder``, and the connections that are open to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[aiosqlite.core.Connection] = []
        # Of each read model, how long its write-ahead log was when it was last synced.
        self._synced: dict[Path, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def crash(self, random: Random, *, power: bool = False) -> int:
        """The processes are gone; the files stay as they are at this moment, less what ``power`` takes: of how many
        files."""
        kept = {path: path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}
        self.close()
        shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        cut = 0
        for path, data in kept.items():
            if path.suffix in {".lock", ".part"} or path.name.endswith("-shm"):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            least = self._synced.get(path)
            left = random.randint(least, len(data)) if power and least is not None and least < len(data) else len(data)
            path.write_bytes(data[:left])
            cut += left < len(data)
        self._synced.clear()
        return cut

    def watch(self, raw: sqlite3.Connection) -> None:
        """Notes when a read model is synced: where it says that a vote is to be safe. All else syncs every commit."""
        path = raw.execute("PRAGMA database_list").fetchone()[2]
        if not path.endswith("read-model.db"):
            return
        log = Path(path + "-wal")

        def note(statement: str) -> None:
            if statement == "PRAGMA synchronous=NORMAL":
                self._synced[log] = log.stat().st_size if log.exists() else 0

        raw.set_trace_callback(note)

    def flip_a_bit(self, random: Random, name: str) -> str:
        """Changes one bit of a file; says where."""
        path = random.choice(sorted(path for path in self.folder.rglob(name) if path.stat().st_size))
        data = bytearray(path.read_bytes())
        place = random.randrange(len(data) * 8)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        return f"bit {place} of {path.name}"

    def close(self) -> None:
        """Nobody reads or writes any more; what was under way is rolled back."""
        for connection in self.open:
            raw, connection._connection = connection._connection, None
            if raw is not None:
                raw.close()
        self.open.clear()

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def _watched(disk: Disk, connect: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
    raw = connect()
    disk.watch(raw)
    return raw


@contextmanager
def inline_databases(
    loop: VirtualLoop, random: Random, disks: dict[str, Disk], may_crash: Callable[[], bool]
) -> Iterator[None]:
    """Within, aiosqlite has no threads, and each connection belongs to the disk of the process that opens it.

    ``may_crash`` is asked before each access; when it says yes, the process that wanted it is dead.
    """
    begin = aiosqlite.core.Connection.__init__

    def init(connection: aiosqlite.core.Connection, connect: Any, *arguments: Any, **settings: Any) -> None:
        process = CURRENT.get()
        disk = None if process is None else disks.get(process.name)
        begin(connection, connect if disk is None else partial(_watched, disk, connect), *arguments, **settings)
        if disk is not None:
            disk.open.append(connection)

    with (
        patch.object(aiosqlite.core, "Thread", _NoThread),
        patch.object(aiosqlite.core, "SimpleQueue", lambda: _InlineQueue(loop, random, may_crash)),
        patch.object(aiosqlite.core.Connection, "__init__", init),
    ):
        yield
