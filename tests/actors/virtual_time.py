"""Time that passes only when nobody has anything left to do: hours in a moment, and the same run again and again.

    run(scenario, tmp_path)      # `async def scenario(directory)`; asyncio.sleep and all time-outs are virtual

The loop's own clock is virtual. When all tasks wait, it jumps to the next timer; while a thread works (SQLite, or an
executor), it stands still.
"""

import asyncio
import queue
import selectors
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch

import aiosqlite.core

START_MS = 1_750_000_100_000
LONGEST_REAL_WAIT_S = 0.02
MOST_IDLE_WAITS = 500


class _Selector(selectors.DefaultSelector):
    """Never waits for time to pass."""

    loop: "VirtualLoop"
    idle = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            self.idle = 0
            return ready
        if self.loop.threads_at_work == 0 and timeout is not None:
            self.idle = 0
            self.loop.jump(timeout)
            return []
        self.idle += 1
        if self.idle > MOST_IDLE_WAITS:
            raise AssertionError("everybody waits, and no timer is set: nothing will ever happen again")
        return super().select(LONGEST_REAL_WAIT_S)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self._virtual_s = 0.0
        self.threads_at_work = 0
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual_s

    def jump(self, seconds: float) -> None:
        self._virtual_s += seconds

    def count(self, future: "asyncio.Future[Any]") -> None:
        """Time stands still until this is done."""
        self.threads_at_work += 1
        future.add_done_callback(self._uncount)

    def _uncount(self, _: object) -> None:
        self.threads_at_work -= 1

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        future = super().run_in_executor(executor, func, *args)
        self.count(future)
        return future


class _CountedQueue(queue.SimpleQueue):  # type: ignore[type-arg]
    """What aiosqlite hands to its threads."""

    def put_nowait(self, item: tuple["asyncio.Future[Any] | None", Callable[[], object]]) -> None:
        future = item[0]
        if future is not None and isinstance(loop := future.get_loop(), VirtualLoop):
            loop.count(future)
        super().put_nowait(item)


class VirtualClock:
    """`bus.port.Clock` by the running loop. ``ahead_ms`` is how wrong it is."""

    def __init__(self, ahead_ms: int = 0) -> None:
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        return START_MS + self.ahead_ms + round(asyncio.get_running_loop().time() * 1_000)

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(max(duration_ms, 0) / 1_000)


def run(scenario: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
    """Runs a scenario in virtual time."""
    with patch.object(aiosqlite.core, "SimpleQueue", _CountedQueue), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario(*arguments))
