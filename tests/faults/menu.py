"""The faults: what is done, to whom, for how long, and how it is mended."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from msgspec import Struct

from actors.devnet import Devnet
from tests.faults.cluster import SERVERS, Cluster

LONGEST_S = 3.0
KINDS = ("INBOX", "CHAIN", "FEED", "BLOBS")


class Fault(Struct):
    """What was done. Times are of the monotonic clock; ``mended_s`` is when the last trace of it was removed.

    ``recovery_s`` is from the moment when servers and quorum were all reachable to the next final block, ``pause_s``
    the longest time without a final block that lies between its beginning and that moment, in part at least.
    """

    kind: str
    target: str
    of_servers: bool
    began_s: float
    mended_s: float = 0.0
    recovery_s: float = 0.0
    pause_s: float = 0.0


class Menu:
    """Chooses by ``random``. Every kind comes once before any comes again."""

    def __init__(self, cluster: Cluster, devnet: Devnet, random: Random) -> None:
        self._cluster = cluster
        self._devnet = devnet
        self._random = random
        self._kinds: dict[str, Callable[[], Coroutine[Any, Any, str]]] = {
            "kill -9 of a server": self._kill,
            "kill -9 of the log's leader": self._kill_leader,
            "kill -9 of all servers": self._kill_all,
            "SIGSTOP of a server": self._pause,
            "SIGSTOP of the log's leader": self._pause_leader,
            "partition of a server from the others": self._partition,
            "partition of clients from a server": self._cut_clients,
            "connections of clients to a server reset": self._reset_clients,
            "isolation of a server": self._isolate,
            "leader steps down": self._step_down,
            "corrupted block file": self._corrupt,
        }
        if cluster.small_disk is not None:
            self._kinds["full disk"] = self._full_disk
        self._bad_disk = random.choice(SERVERS)
        self._deck: list[str] = []
        self._actors: list[str] = []
        self.faults: list[Fault] = []

    async def next(self) -> None:
        """Brings about the next fault of the network, and mends it."""
        if not self._deck:
            self._deck = self._random.sample(list(self._kinds), len(self._kinds))
        await self.bring_about(self._deck.pop())

    async def bring_about(self, kind: str) -> Fault:
        """A fault of the network, and what mends it."""
        fault = Fault(kind, "", True, time.monotonic())
        self.faults.append(fault)
        fault.target = await self._kinds[kind]()
        fault.mended_s = time.monotonic()
        return fault

    async def next_actor(self) -> None:
        """Kills the next actor, or stops it for a while; every one comes before any comes again."""
        if not self._actors:
            names = list(self._devnet.plan.actors())
            self._actors = self._random.sample(names, len(names))
        name = self._actors.pop()
        if self._devnet.pid(name) is None or self._random.random() >= 0.25:
            await self.kill_actor(name)
            return
        fault = Fault("SIGSTOP of an actor", name, False, time.monotonic())
        self.faults.append(fault)
        with contextlib.suppress(ProcessLookupError):
            self._devnet.signal(name, signal.SIGSTOP)
            await self._for_a_while()
            self._devnet.signal(name, signal.SIGCONT)
        fault.mended_s = time.monotonic()

    async def kill_actor(self, name: str) -> Fault:
        """Until it is ready again."""
        fault = Fault("kill -9 of an actor", name, False, time.monotonic())
        self.faults.append(fault)
        await self._devnet.kill(name)
        await self._devnet.ready(name)
        fault.mended_s = time.monotonic()
        return fault

    async def _for_a_while(self) -> None:
        await asyncio.sleep(self._random.uniform(0.3, LONGEST_S))

    def _any(self) -> int:
        return self._random.choice(SERVERS)

    async def _leader(self) -> int:
        return await self._cluster.leader(self._devnet.chain) or self._any()

    async def _kill(self) -> str:
        return await self._kill_one(self._any())

    async def _kill_leader(self) -> str:
        return await self._kill_one(await self._leader())

    async def _kill_one(self, server: int) -> str:
        await self._cluster.end(server)
        await self._for_a_while()
        self._cluster.spawn(server)
        return f"nats-{server}"

    async def _kill_all(self) -> str:
        for server in SERVERS:
            await self._cluster.end(server)
        await asyncio.sleep(self._random.uniform(0.0, 1.0))
        for server in SERVERS:
            self._cluster.spawn(server)
        return "all"

    async def _pause(self) -> str:
        return await self._pause_one(self._any())

    async def _pause_leader(self) -> str:
        return await self._pause_one(await self._leader())

    async def _pause_one(self, server: int) -> str:
        self._cluster.signal(server, signal.SIGSTOP)
        await self._for_a_while()
        self._cluster.signal(server, signal.SIGCONT)
        return f"nats-{server}"

    async def _dark(self, server: int, *, routes: bool, clients: bool) -> str:
        lines = [line for pair, line in self._cluster.routes.items() if routes and server in pair]
        lines += [self._cluster.to_clients[server]] if clients else []
        for line in lines:
            line.darken()
        await self._for_a_while()
        for line in lines:
            line.mend()
        return f"nats-{server}"

    async def _partition(self) -> str:
        return await self._dark(self._any(), routes=True, clients=False)

    async def _cut_clients(self) -> str:
        return await self._dark(self._any(), routes=False, clients=True)

    async def _isolate(self) -> str:
        return await self._dark(self._any(), routes=True, clients=True)

    async def _reset_clients(self) -> str:
        server = self._any()
        self._cluster.to_clients[server].break_off()
        await self._for_a_while()
        self._cluster.to_clients[server].mend()
        return f"nats-{server}"

    async def _step_down(self) -> str:
        kind = self._random.choice(KINDS)
        await self._cluster.step_down(self._devnet.chain, kind)
        return kind

    async def _corrupt(self) -> str:
        """One server has the bad disk: NATS does not heal what it loses, so nobody may lose another copy meanwhile."""
        server = self._bad_disk
        await self._cluster.end(server)
        where = self._cluster.flip_bytes(server, self._devnet.chain, self._random)
        await self._for_a_while()
        self._cluster.spawn(server)
        return f"nats-{server} {where}"

    async def _full_disk(self) -> str:
        """The server cannot store any more, until its operator makes room and starts it again."""
        disk, server = self._cluster.small_disk, SERVERS[-1]
        if disk is None:
            raise AssertionError("no server has a small disk")
        await asyncio.to_thread(disk.fill)
        await self._for_a_while()
        disk.clear()
        await self._cluster.end(server)
        self._cluster.spawn(server)
        return f"nats-{server}"
