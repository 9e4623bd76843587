"""Disks of simulated processes: SQLite in a folder of its own per host, without threads.

Within `inline_databases` every aiosqlite connection runs its functions in the loop of the simulation, some of them a
little later. `Disk.crash` leaves what was committed: SIGKILL loses a transaction that was under way, a loss of power
also what had not been synced, which may end in the middle of a write.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self._loop = loop
        self._random = random
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
        folder.mkdir(parents=True, exist_ok=True)

    def crash(self, random: Random, *, power: bool = False) -> None:
        """The processes are gone; the files stay as they are at this moment, less what ``power`` takes."""
        kept = {path: path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}
        self.close()
        shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        for path, data in kept.items():
            if path.suffix in {".lock", ".part"} or path.name.endswith("-shm"):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def close(self) -> None:
        """Nobody reads or writes any more; what was under way is rolled back."""
        for connection in self.open:
            raw, connection._connection = connection._connection, None
            if raw is not None:
                raw.close()
        self.open.clear()

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


@contextmanager
def inline_databases(loop: VirtualLoop, random: Random, disks: dict[str, Disk]) -> Iterator[None]:
    """Within, aiosqlite has no threads, and each connection belongs to the disk of the process that opens it."""
    begin = aiosqlite.core.Connection.__init__

    def init(connection: aiosqlite.core.Connection, *arguments: Any, **settings: Any) -> None:
        begin(connection, *arguments, **settings)
        process = CURRENT.get()
        if process is not None and process.name in disks:
            disks[process.name].open.append(connection)

    with (
        patch.object(aiosqlite.core, "Thread", _NoThread),
        patch.object(aiosqlite.core, "SimpleQueue", lambda: _InlineQueue(loop, random)),
        patch.object(aiosqlite.core.Connection, "__init__", init),
    ):
        yield
