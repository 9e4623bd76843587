"""What goes wrong: the menu of a seed, and a bus that serves it.

`Menu.draw` chooses for each seed which kinds of fault there are and how often. Faults of single messages happen in
`UnreliableBus`; faults of processes, hosts and the server are brought about by `tests.simulation.trouble`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from hashlib import sha256
from random import Random
from typing import Any, TypeVar

from msgspec import Struct

from bus.port import ChainKind, Handler, Limits
from bus.simulated import SimulatedBus, SimulatedNetwork
from bus.simulated_network import Faults
from bus.simulated_readers import SimulatedDoor
from events.errors import InboxFull, Unreachable
from tests.simulation.loop import Process, VirtualClock, VirtualLoop
from tests.simulation.losses import id_of

Result = TypeVar("Result")
_ROLES = ("proposer", "coordinator", "miner", "wallet", "observer", "signer", "asker")
# Every kind of fault, under the name that it is counted by.
KINDS = {
    "messages": (
        "delay",
        "lost request",
        "lost answer",
        "duplicate",
        "refusal: full inbox",
        "refusal: 503",
        "slow reader",
        "partition",
        "one-way partition",
    ),
    "processes": (
        *(f"crash: {role}" for role in _ROLES),
        *(f"power cut: {role}" for role in _ROLES),
        "crash at the disk",
        "crash at the bus",
        "lost or torn write",
        "pause",
        "clock skew",
        "clock jump",
    ),
    "server": (
        "server restart",
        "leader change",
        "lost tail of CHAIN",
        "lost tail of INBOX",
        "lost tail of FEED",
        "lost tail of BLOBS",
        "bit flip: final block",
        "bit flip: rest of the log",
        "bit flip: read model",
    ),
    "keys used twice": ("two proposers with one key", "two coordinators with one key"),
    "byzantine proposer": (
        "byzantine: equivocates",
        "byzantine: censors",
        "byzantine: invents",
        "byzantine: wrong root",
        "byzantine: wrong outcomes",
        "byzantine: from the future",
        "byzantine: out of turn",
        "byzantine: silent",
        "byzantine: garbage",
        "byzantine: votes twice",
        "byzantine: votes wrong",
        "byzantine: votes stale",
        "byzantine: votes ahead",
        "byzantine: votes forged",
        "byzantine: votes never",
    ),
    "hostile client": (
        "hostile: flood",
        "hostile: replay",
        "hostile: contradict",
        "hostile: forge",
        "hostile: overspend",
        "hostile: wrong turns",
        "hostile: pollute the log",
        "hostile: lie",
        "hostile: bother the wallet",
    ),
}


class Menu(Struct, frozen=True, kw_only=True):
    """Rates of single messages are in 1 of 10,000 operations; ``every_ms`` of a fault is its mean distance in time, 0:
    never."""

    delay: int = 0
    longest_delay_ms: int = 0
    lost_request: int = 0
    lost_answer: int = 0
    duplicate: int = 0
    refusal: int = 0
    slow_reader: int = 0
    longest_read_ms: int = 0
    partition_every_ms: int = 0
    one_way_every_ms: int = 0
    longest_partition_ms: int = 0
    crash_every_ms: int = 0
    power_every_ms: int = 0
    longest_down_ms: int = 0
    pause_every_ms: int = 0
    longest_pause_ms: int = 0
    clock_skew_ms: int = 0
    clock_jump_every_ms: int = 0
    longest_jump_ms: int = 0
    leader_change_every_ms: int = 0
    longest_step_back_ms: int = 0
    server_restart_every_ms: int = 0
    crash_at_disk: int = 0
    crash_at_bus: int = 0

    @classmethod
    def draw(cls, random: Random) -> "Menu":
        """Each kind is on the menu of half of the seeds; one seed in twenty has none at all."""
        if random.random() < 0.05:
            return cls()

        def maybe(least: int, most: int) -> int:
            chosen = random.randint(least, most)
            return chosen if random.random() < 0.5 else 0

        return cls(
            delay=maybe(500, 5_000),
            longest_delay_ms=random.choice((5, 50, 500)),
            lost_request=maybe(20, 500),
            lost_answer=maybe(20, 500),
            duplicate=maybe(50, 1_000),
            refusal=maybe(50, 500),
            slow_reader=maybe(100, 2_000),
            longest_read_ms=random.choice((50, 500, 3_000)),
            partition_every_ms=maybe(2_000, 15_000),
            one_way_every_ms=maybe(2_000, 15_000),
            longest_partition_ms=random.choice((500, 3_000, 10_000)),
            crash_every_ms=maybe(1_000, 8_000),
            power_every_ms=maybe(3_000, 15_000),
            longest_down_ms=random.choice((200, 2_000, 8_000)),
            pause_every_ms=maybe(2_000, 15_000),
            longest_pause_ms=random.choice((300, 3_000, 8_000)),
            clock_skew_ms=maybe(50, 1_500),
            clock_jump_every_ms=maybe(3_000, 15_000),
            longest_jump_ms=random.choice((200, 1_500)),
            leader_change_every_ms=maybe(3_000, 15_000),
            longest_step_back_ms=random.choice((50, 1_000)),
            server_restart_every_ms=maybe(5_000, 20_000),
            crash_at_disk=maybe(10, 120),
            crash_at_bus=maybe(10, 80),
        )


class Trouble(Faults):
    """The state of what goes wrong now. ``counts`` says how often each kind of fault has happened."""

    def __init__(self, menu: Menu, random: Random) -> None:
        self.menu = menu
        self.random = random
        self.counts: Counter[str] = Counter()
        self.calm = False
        self.server_down = False
        # Names of processes that cannot send, and that hear nothing.
        self.mute: dict[str, int] = {}
        self.deaf: dict[str, int] = {}
        # When the last of the slow reads is over that have begun.
        self.slow_until_ms = 0

    def happens(self, rate: int, kind: str) -> bool:
        """Draws whether a fault of one message happens."""
        if self.calm or not rate or self.random.random() * 10_000 >= rate:
            return False
        self.counts[kind] += 1
        return True

    def cut_off(self, name: str) -> bool:
        return self.server_down or bool(self.mute.get(name) and self.deaf.get(name))


class UnreliableBus(SimulatedBus):
    """One process's connection. It dies with its process, and serves questions in that process's name."""

    _network: SimulatedNetwork

    def __init__(
        self,
        network: SimulatedNetwork,
        chain: str,
        limits: Limits,
        process: Process,
        loop: VirtualLoop,
        tell: Callable[..., None],
        heard: Callable[[str, str, bytes], None],
        may_crash: Callable[[Process, int, str], bool],
    ) -> None:
        super().__init__(network, chain, limits, process.name)
        self._may_crash = may_crash
        self._process = process
        self._loop = loop
        self._tell = tell
        self._heard = heard
        self._trouble: Trouble = network.faults  # type: ignore[assignment]
        self._clock = VirtualClock(loop)
        # What the process knows from before that is gone, but for its disk.
        self.since_ms = loop.now_ms()

    async def _do(self, operation: str, action: Callable[[], Result]) -> Result:
        trouble, menu, random = self._trouble, self._trouble.menu, self._trouble.random
        if trouble.happens(menu.delay, "delay"):
            await self._clock.sleep_ms(random.randint(1, menu.longest_delay_ms))
        elif random.random() < 0.5:
            await self._clock.sleep_ms(1)
        if self._closed:
            raise Unreachable("the connection is closed")
        mute = trouble.server_down or trouble.mute.get(self.name)
        if mute or trouble.happens(menu.lost_request, "lost request"):
            await self._clock.sleep_ms(random.choice((1, 200, 1_000)))
            raise Unreachable("the network does not answer", operation=operation)
        if operation == "submit" and trouble.happens(menu.refusal, "refusal: full inbox"):
            raise InboxFull("the stream takes no more", why="planned")
        if operation != "submit" and trouble.happens(menu.refusal, "refusal: 503"):
            raise Unreachable("the network does not answer", why="503", operation=operation)
        result = action()
        self._tell(operation, self.name, str(result)[:80] if isinstance(result, int | str) else "")
        if self._may_crash(self._process, menu.crash_at_bus, "crash at the bus"):
            await asyncio.Event().wait()
        if operation in {"submit", "publish_feed", "put_blob"} and trouble.happens(menu.duplicate, "duplicate"):
            action()
        if trouble.deaf.get(self.name) or trouble.happens(menu.lost_answer, "lost answer"):
            await self._clock.sleep_ms(random.choice((1, 200, 1_000)))
            raise Unreachable("the network does not answer", operation=operation)
        if trouble.happens(menu.delay, "delay"):
            await self._clock.sleep_ms(random.randint(1, menu.longest_delay_ms))
        return result

    def _connected(self) -> bool:
        trouble = self._trouble
        return not self._closed and not trouble.server_down and not trouble.deaf.get(self.name)

    # Whoever reads is slow at times.

    async def read_inboxes(self, validator: str) -> Any:
        return _SlowReader(await super().read_inboxes(validator), self)

    async def read_chain(self, after: int) -> Any:
        return _SlowReader(await super().read_chain(after), self)

    async def read_feed(self, address: str, after: int) -> Any:
        return _SlowReader(await super().read_feed(address, after), self)

    async def submit(self, owner: str, data: bytes) -> None:
        name = id_of(data)
        self._heard(name, "sent", data)
        await super().submit(owner, data)
        self._heard(name, "acknowledged", data)

    async def publish_live(self, owner: str, topic: str, data: bytes) -> None:
        self._tell("live", self.name, owner[:8], topic, data[:200])
        if topic == "refused" and self.name.startswith("proposer"):
            told = json.loads(data)
            self._heard(told.get("event", sha256(b"").hexdigest()), told["refusal"]["code"], data)
        if not self._trouble.mute.get(self.name):
            await super().publish_live(owner, topic, data)

    async def append(self, kind: ChainKind, data: bytes, after_block: int | None = None) -> int:
        if kind == "vote":
            self._heard(self.name, "vote", data)
        return await super().append(kind, data, after_block)

    # Who serves does it in its own process, so that what kills the process silences the door.

    async def _serve(self, handlers: dict[str, Handler]) -> SimulatedDoor:
        return await super()._serve({subject: self._inside(handler) for subject, handler in handlers.items()})

    def _inside(self, handler: Handler) -> Handler:
        def answer(data: bytes) -> Awaitable[bytes]:
            return self._loop.spawn(self._process, _call(handler, data))

        return answer

    def abandon(self) -> None:
        """The process is gone: the server notices."""
        self._closed = True
        for opened in self._open:
            if isinstance(opened, SimulatedDoor):
                for subject in opened.handlers:
                    if opened in self._network.doors[subject]:
                        self._network.doors[subject].remove(opened)
            elif opened in self._network.listeners:
                self._network.listeners.remove(opened)


async def _call(handler: Handler, data: bytes) -> bytes:
    return await handler(data)


class _SlowReader:
    """Hands over late, at times, what it has read."""

    def __init__(self, reader: Any, bus: UnreliableBus) -> None:
        self._reader = reader
        self._bus = bus

    async def next(self, limit: int, wait_ms: int) -> Any:
        trouble = self._bus._trouble
        limit = min(limit, trouble.random.choice((1, 3, limit)))
        items = await self._reader.next(limit, wait_ms)
        if items:
            late_ms = trouble.random.choice((0, 0, 1, 3))
            if trouble.happens(trouble.menu.slow_reader, "slow reader"):
                late_ms = trouble.random.randint(1, trouble.menu.longest_read_ms)
                trouble.slow_until_ms = max(trouble.slow_until_ms, self._bus._clock.now_ms() + late_ms)
            if late_ms:
                await self._bus._clock.sleep_ms(late_ms)
        return items

    async def settle(self, tokens: list[str]) -> None:
        if not self._bus._trouble.mute.get(self._bus.name):
            await self._reader.settle(tokens)

    async def close(self) -> None:
        await self._reader.close()
