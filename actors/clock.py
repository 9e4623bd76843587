"""The time of the host, for those that may know it: actors, never rules."""

import asyncio
import time


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
