"""Fixtures of the bus tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from bus.port import Bus, Limits
from bus.server import EmbeddedServer
from tests.bus.grounds import GENESIS, VALIDATORS, Ground, JetStreamGround, SimulatedGround


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """One server for the whole session; each test has a chain of its own on it."""
    embedded = EmbeddedServer()
    with asyncio.Runner() as runner:
        runner.run(embedded.start())
        yield embedded
        runner.run(embedded.stop())


@pytest.fixture(params=["simulated", "jetstream"])
def kind_of_ground(request: pytest.FixtureRequest) -> Ground:
    """Apart from `ground`, because a session's server cannot be started from within a test's loop."""
    return SimulatedGround() if request.param == "simulated" else JetStreamGround(request.getfixturevalue("server").url)


@pytest.fixture
async def ground(kind_of_ground: Ground) -> AsyncIterator[Ground]:
    """The contract suite runs on both."""
    yield kind_of_ground
    await kind_of_ground.close()


@pytest.fixture
async def jetstream(server: EmbeddedServer) -> AsyncIterator[JetStreamGround]:
    """For what only a real server can show."""
    chosen = JetStreamGround(server.url)
    yield chosen
    await chosen.close()


@pytest.fixture
async def bus(ground: Ground) -> Bus:
    """Set up with small limits, so that tests reach them."""
    small = Limits(
        inbox_per_sender=5, inbox_messages=12, event_bytes=1_000, block_bytes=100_000, blob_chunk_bytes=1_000
    )
    chosen = await ground.connect(small)
    await chosen.set_up(GENESIS, VALIDATORS)
    return chosen
