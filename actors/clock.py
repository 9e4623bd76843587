"""The time of the host, for those that may know it: actors, never rules."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from bus.port import Clock


class SystemClock:
    """`bus.port.Clock` by the clock of the host."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1_000_000

    async def sleep_ms(self, duration_ms: int) -> None:
        """Waits at least this long; 0 lets others run."""
        await asyncio.sleep(max(duration_ms, 0) / 1_000)


def backoff_ms(attempt: int, first_ms: int = 100, longest_ms: int = 5_000) -> int:
    """How long to wait after failure number ``attempt`` (0, 1, …): doubles until ``longest_ms``."""
    return min(first_ms << min(attempt, 30), longest_ms)


async def wait_at_most(clock: Clock, duration_ms: int, happening: Coroutine[Any, Any, object]) -> None:
    """Returns when it happens, or after this long by the clock."""
    tasks = [asyncio.create_task(happening), asyncio.create_task(clock.sleep_ms(duration_ms))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
