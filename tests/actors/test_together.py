"""Work that begins and ends together, and waits that have an end."""

import asyncio

import pytest

from actors.clock import wait_at_most
from actors.together import until_first_ends
from events.errors import BusError, Unreachable
from tests.actors.virtual_time import START_MS, VirtualClock, run


def test_the_first_that_ends_ends_all() -> None:
    """The others are cancelled, and have cleaned up when it returns."""

    async def scenario() -> None:
        cleaned: list[str] = []

        async def endless(name: str) -> None:
            try:
                await asyncio.sleep(10**6)
            finally:
                await asyncio.sleep(0)
                cleaned.append(name)

        await until_first_ends(endless("a"), asyncio.sleep(1), endless("b"))
        assert cleaned == ["a", "b"]
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    run(scenario)


def test_what_the_first_fails_with_is_raised() -> None:
    """Of several that fail at once, the one that is named first."""

    async def scenario() -> None:
        async def failing(error: BusError) -> None:
            await asyncio.sleep(1)
            raise error

        with pytest.raises(Unreachable):
            await until_first_ends(asyncio.sleep(2), failing(Unreachable("first")), failing(BusError("second")))

    run(scenario)


def test_being_cancelled_cancels_the_work() -> None:
    """Nothing goes on behind the back of whoever has stopped waiting."""

    async def scenario() -> None:
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.sleep(10**6)
            finally:
                ended.set()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await until_first_ends(work(), asyncio.sleep(10**6))
        assert ended.is_set()

    run(scenario)


@pytest.mark.parametrize(("after_s", "waited_ms"), [(0.0, 0), (0.5, 500), (7.0, 3_000)])
def test_a_wait_ends_with_what_happens_or_with_its_time(after_s: float, waited_ms: int) -> None:
    """Whichever is first."""

    async def scenario() -> None:
        clock, happening = VirtualClock(), asyncio.Event()
        asyncio.get_running_loop().call_later(after_s, happening.set)
        await wait_at_most(clock, 3_000, happening.wait())
        assert clock.now_ms() == START_MS + waited_ms
        assert len(asyncio.all_tasks()) == 1

    run(scenario)
