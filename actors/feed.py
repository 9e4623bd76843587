"""The feed: tells every address what final blocks hold for it, behind the fold and never in its way.

Messages are made from the rows of the read model, one block after the other, and published before the mark in the
read model moves: so each is published at least once, in order of height, also after a crash. Whoever reads a feed
skips the heights that it has seen; several nodes may publish the same feed.
"""

from typing import Final

from actors.clock import backoff_ms
from actors.milestone import Milestone
from bus.port import Bus, Clock
from events.canonical import digest
from events.errors import TimedOut, Unreachable
from projections.read_model import ReadModel
from projections.read_model_feed import feed_messages

MARK: Final = "feed"
# A mark costs a transaction; behind by so many blocks, it is set less often.
BLOCKS_PER_MARK: Final = 16


class Feed:
    """Follows the rows of a read model. ``written`` is the height that they have reached."""

    def __init__(self, bus: Bus, clock: Clock, model: ReadModel, written: Milestone) -> None:
        self._bus = bus
        self._clock = clock
        self._model = model
        self._written = written
        self.published = Milestone(0)

    async def run(self) -> None:
        """Publishes until it is cancelled. Blocks that are older than FEED keeps messages are passed over."""
        height = await self._model.mark(MARK) or 0
        self.published.advance(height)
        marked = height
        while True:
            await self._written.reached(height + 1)
            height += 1
            await self._publish(height)
            self.published.advance(height)
            if height == self._written.value or height - marked >= BLOCKS_PER_MARK:
                await self._model.set_mark(MARK, height)
                marked = height

    async def _publish(self, height: int) -> None:
        found = await self._model.read(lambda db: feed_messages(db, height))
        if found is None:
            raise AssertionError(f"block {height} was written but cannot be read")
        time_ms, messages = found
        if time_ms < self._clock.now_ms() - self._bus.limits.feed_age_s * 1_000:
            return
        # The server drops what has a key that it has seen, whoever sent that: so nobody may know the key before the
        # block is there.
        keyed = [(address, digest(address.encode() + data), data) for address, data in messages]
        failures = 0
        while True:
            try:
                await self._bus.publish_feed(keyed)
            except (Unreachable, TimedOut):
                await self._clock.sleep_ms(backoff_ms(failures))
                failures += 1
            else:
                return
