"""What goes wrong with processes, hosts and the server, at moments that the seed chooses, and how it ends."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.simulation.world import SimulatedHost, World

# Clocks go wrong by no more than honest operators let them: well within the drift that blocks may have.
MOST_OFFSET_MS = 2_000


class Chaos:
    """Runs until `end`; then everything is mended but the hosts that stay dead."""

    def __init__(self, world: World, mortal: list[str], reachable: list[str]) -> None:
        self._world = world
        self._random = world.random("chaos")
        self._mortal = mortal
        self._reachable = reachable
        self._tasks: list[asyncio.Task[None]] = []
        self.dead_for_good: list[str] = []

    def begin(self) -> None:
        menu = self._world.plan.menu
        kinds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (menu.crash_every_ms, self._crash),
            (menu.power_every_ms, self._power_cut),
            (menu.pause_every_ms, self._pause),
            (menu.partition_every_ms, self._partition),
            (menu.one_way_every_ms, self._one_way),
            (menu.clock_jump_every_ms, self._clock_jump),
            (menu.leader_change_every_ms, self._leader_change),
            (menu.server_restart_every_ms, self._server_restart),
        ]
        for every_ms, cause in kinds:
            if every_ms:
                self._tasks.append(asyncio.create_task(self._again_and_again(every_ms, cause)))
        if menu.clock_skew_ms:
            for host in self._world.hosts.values():
                self._set_clock("clock skew", host, self._random.randint(-menu.clock_skew_ms, menu.clock_skew_ms))

    def _count(self, kind: str) -> None:
        """A fault counts when it has met somebody."""
        self._world.trouble.counts[kind] += 1

    async def _again_and_again(self, every_ms: int, cause: Callable[[], Awaitable[None]]) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(self._random.expovariate(1_000 / every_ms))
            task = asyncio.create_task(_ended(cause()))
            under_way.add(task)
            self._tasks.append(task)

    def plan_loss(self, within_ms: int) -> None:
        """The server loses its unsynced tail once, of the log as well, or, up to three times, of all but the log."""
        times = 1 if self._world.plan.scenario == "lost tail" else self._random.randint(1, 3)
        lose = self._lose_tail if self._world.plan.scenario == "lost tail" else self._lose_mail
        for _ in range(times):
            self._tasks.append(asyncio.create_task(lose(self._random.randint(1_000, within_ms))))

    async def _lose_mail(self, after_ms: int) -> None:
        await asyncio.sleep(after_ms / 1_000)
        self._world.trouble.server_down = True
        self._world.lose_mail(self._random)
        await self._for_a_while(2_000)
        self._world.trouble.server_down = False

    async def _lose_tail(self, after_ms: int) -> None:
        await asyncio.sleep(after_ms / 1_000)
        world, hosts = self._world, [self._world.hosts[name] for name in self._mortal]
        count = self._random.randint(1, self._random.choice((12, 12, 12, 100)))
        least = self._random.choice((0, 1, 2))  # at best while a block waits for its votes, or for the rest of them
        for _ in range(5_000 if least else 0):
            if (since := world.messages_since_open_block()) >= least:
                count = since
                break
            await asyncio.sleep(0.001)
        world.trouble.server_down = True
        everything = self._random.random() < 0.5  # one power cut for the server and all the hosts
        for host in hosts if everything else []:
            host.crash(power=True)
        world.lose_tail(count)
        world.lose_mail(self._random)
        await self._for_a_while(2_000)
        world.trouble.server_down = False
        for host in hosts if everything else []:
            if not host.up and host.stopped is None:
                host.start()

    def end(self) -> None:
        """Nothing goes wrong any more, and what was wrong is mended."""
        world = self._world
        world.tell("calm")
        for task in self._tasks:
            task.cancel()
        world.trouble.calm = True
        world.gone.update(self.dead_for_good)
        world.trouble.server_down = False
        world.trouble.mute.clear()
        world.trouble.deaf.clear()
        world.server_clock.offset_ms = 0
        for host in world.hosts.values():
            host.clock.offset_ms = 0
            if host.process is not None and host.process.paused:
                world.loop.resume(host.process)
            if host.name in self.dead_for_good:
                host.crash()
            elif not host.up and host.stopped is None:
                host.start()

    def _host(self, names: list[str]) -> SimulatedHost:
        return self._world.hosts[self._random.choice(names)]

    async def _for_a_while(self, longest_ms: int) -> None:
        await asyncio.sleep(self._random.randint(1, max(longest_ms, 1)) / 1_000)

    async def _crash(self, *, power: bool = False) -> None:
        host = self._host(self._mortal)
        if not host.up:
            return
        host.crash(power=power)
        await self._for_a_while(self._world.plan.menu.longest_down_ms)
        if not host.up and host.stopped is None:
            host.start()

    async def _power_cut(self) -> None:
        await self._crash(power=True)

    async def _pause(self) -> None:
        process = self._host(self._reachable).process
        if process is None or process.paused:
            return
        self._count("pause")
        self._world.tell("pause", process.name)
        self._world.loop.pause(process)
        await self._for_a_while(self._world.plan.menu.longest_pause_ms)
        self._world.tell("resume", process.name)
        self._world.loop.resume(process)

    async def _partition(self) -> None:
        await self._cut("partition", mute=True, deaf=True)

    async def _one_way(self) -> None:
        mute = self._random.random() < 0.5
        await self._cut("one-way partition", mute=mute, deaf=not mute)

    async def _cut(self, kind: str, *, mute: bool, deaf: bool) -> None:
        trouble, name = self._world.trouble, self._random.choice(self._reachable)
        if not self._world.hosts[name].up:
            return
        self._count(kind)
        self._world.tell("cut", name, "mute" if mute else "", "deaf" if deaf else "")
        for cut, affected in ((mute, trouble.mute), (deaf, trouble.deaf)):
            if cut:
                affected[name] = affected.get(name, 0) + 1
        await self._for_a_while(self._world.plan.menu.longest_partition_ms)
        for cut, affected in ((mute, trouble.mute), (deaf, trouble.deaf)):
            if cut and affected.get(name):
                affected[name] -= 1
        self._world.tell("joined", name)

    async def _clock_jump(self) -> None:
        longest_ms = self._world.plan.menu.longest_jump_ms
        host = self._world.hosts[self._random.choice(list(self._world.hosts))]
        self._set_clock("clock jump", host, host.clock.offset_ms + self._random.randint(-longest_ms, longest_ms))

    def _set_clock(self, kind: str, host: SimulatedHost, offset_ms: int) -> None:
        before, host.clock.offset_ms = host.clock.offset_ms, min(max(offset_ms, -MOST_OFFSET_MS), MOST_OFFSET_MS)
        if host.clock.offset_ms != before:
            self._count(kind)
        self._world.tell("clock", host.name, host.clock.offset_ms)

    async def _leader_change(self) -> None:
        """The server stops for a moment, and the new leader's clock is behind, or ahead of, the old one's."""
        longest_ms = self._world.plan.menu.longest_step_back_ms
        self._count("leader change")
        self._world.trouble.server_down = True
        await self._for_a_while(500)
        self._world.trouble.server_down = False
        self._world.server_clock.offset_ms = self._random.randint(-longest_ms, longest_ms)
        self._world.tell("leader change", self._world.server_clock.offset_ms)

    async def _server_restart(self) -> None:
        self._count("server restart")
        self._world.tell("server down")
        self._world.trouble.server_down = True
        await self._for_a_while(3_000)
        self._world.trouble.server_down = False
        self._world.tell("server up")


async def _ended(cause: Awaitable[None]) -> None:
    await cause
