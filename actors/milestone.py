"""A number that only grows, and those who wait for it."""

import asyncio
from typing import Final


class Milestone:
    """Made at a value. Ends with an error for whoever waits when what drives it fails."""

    def __init__(self, value: int) -> None:
        self.value = value
        self._failure: BaseException | None = None
        self._waiting: Final[dict[asyncio.Future[None], int]] = {}

    def advance(self, value: int) -> None:
        """Moves on, and wakes those whose value is reached."""
        self.value = max(self.value, value)
        for future in [future for future, wanted in self._waiting.items() if wanted <= self.value]:
            del self._waiting[future]
            if not future.done():
                future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """It will not move any more: whoever waits, now or later, gets the error."""
        self._failure = error
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()

    async def reached(self, value: int) -> None:
        """Returns once the value is reached."""
        if self.value >= value:
            return
        if self._failure is not None:
            raise self._failure
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = value
        try:
            await future
        finally:
            self._waiting.pop(future, None)
