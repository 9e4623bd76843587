"""The two networks that the contract suite runs on: one in memory, one a real NATS server."""

import asyncio
import time
from itertools import count
from typing import Protocol

from bus.jetstream import JetStreamBus
from bus.port import Bus, Limits
from bus.simulated import SimulatedBus, SimulatedNetwork
from events import subjects

GENESIS = "ab" * 32
VALIDATORS = ("VALIDATOR1", "VALIDATOR2")
_chains = count(1)


class RealClock:
    """The system's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1000)


class Ground(Protocol):
    """A network with one chain of its own, and what an outsider or an operator may do to it."""

    chain: str

    async def connect(self, limits: Limits | None = None, name: str = "test") -> Bus: ...

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None: ...

    async def prune_log(self) -> None:
        """Removes all messages of the log but the last."""

    async def close(self) -> None: ...


class SimulatedGround:
    def __init__(self) -> None:
        self.chain = "simulated-1"
        self.network = SimulatedNetwork(RealClock())
        self._buses: list[SimulatedBus] = []

    async def connect(self, limits: Limits | None = None, name: str = "test") -> Bus:
        bus = SimulatedBus(self.network, self.chain, limits, name)
        self._buses.append(bus)
        return bus

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.network.publish(subject, data, headers)

    async def prune_log(self) -> None:
        stream = self.network.stream(self.chain, "CHAIN")
        for sequence in list(stream.messages)[:-1]:
            stream.drop(sequence)

    async def close(self) -> None:
        for bus in self._buses:
            await bus.close()


class JetStreamGround:
    def __init__(self, url: str) -> None:
        self.chain = f"test-{next(_chains)}"
        self.url = url
        self.buses: list[JetStreamBus] = []

    async def connect(self, limits: Limits | None = None, name: str = "test") -> JetStreamBus:
        bus = await JetStreamBus.connect(self.url, self.chain, limits, name)
        self.buses.append(bus)
        return bus

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        bus = self.buses[0] if self.buses else await self.connect()
        await bus._connection.client.request(subject, data, timeout=5, headers=headers)

    async def prune_log(self) -> None:
        api = self.buses[0]._connection.api
        name = subjects.stream(self.chain, "CHAIN")
        settings = (await api(f"STREAM.INFO.{name}"))["config"]
        await api(f"STREAM.UPDATE.{name}", settings | {"max_msgs": 1, "discard": "old"})

    async def close(self) -> None:
        for bus in self.buses:
            await bus.close()
