"""The whole network of one seed: hosts and their processes, the server between them, and what is written down."""

import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from random import Random
from unittest.mock import patch

import msgspec
import nacl.bindings
import structlog

from actors import roles
from actors.miner import Registration
from actors.node import Node
from actors.runtime import supervise
from actors.settings import Settings
from bus.port import Limits
from bus.simulated import SimulatedNetwork
from bus.simulated_stream import SimulatedStream
from events import subjects
from events.errors import SequenceGap
from events.keys import Key
from projections import signatures
from projections.chain import Final
from schemas.events import Device, Offer
from tests.simulation.books import Books, FinalBlock
from tests.simulation.disk import Disk, inline_databases
from tests.simulation.faults import Trouble, UnreliableBus
from tests.simulation.loop import CURRENT, Process, VirtualClock, VirtualLoop
from tests.simulation.losses import Losses
from tests.simulation.plan import CHAIN, Plan, genesis_of, key_for
from tests.simulation.stand_in import Character, StandInComputer, verdict

MEMORY = Path("/dev/shm")
# After so long systemd starts a process again that has stopped by itself.
RESTART_S = 1.0
ENDED = frozenset({"settled", "refunded", "cancelled"})
Work = Callable[["SimulatedHost", asyncio.Event], Awaitable[None]]


class SimulatedHost:
    """A machine with a disk, a clock and one process, which it can lose and start again."""

    def __init__(self, world: "World", name: str, work: Work) -> None:
        self.world = world
        self.name = name
        self.key: Key = key_for(name)
        self.disk = Disk(world.folder / name.replace(" ", "-"))
        self.clock = VirtualClock(world.loop)
        self.process: Process | None = None
        self.bus: UnreliableBus
        self.stopped: BaseException | None = None
        self._work = work
        world.disks[name] = self.disk

    @property
    def up(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        """Starts the process on what the disk holds."""
        world = self.world
        self.process = Process(self.name)
        self._connect(self.process)
        self.stopped = None
        world.tell("start", self.name)
        world.loop.spawn(self.process, self._live(self.process))

    def _connect(self, process: Process) -> None:
        world = self.world
        self.bus = UnreliableBus(
            world.network, CHAIN, world.limits, process, world.loop, world.tell, world.heard, world.may_crash
        )

    async def _once(self, stop: asyncio.Event) -> None:
        """One try, on a connection of its own, as in `actors.roles.run_role`."""
        if self.process is None:
            raise AssertionError("a dead process runs")
        self._connect(self.process)
        try:
            await self._work(self, stop)
        finally:
            self.bus.abandon()

    async def _live(self, process: Process) -> None:
        try:
            await supervise(self.name, self._once, asyncio.Event(), self.clock)
        except Exception as error:  # noqa: BLE001 - the end of a process, whatever the reason
            if process.dead:
                return
            self.stopped = error
            self.world.tell("stopped", self.name, f"{type(error).__name__}: {error}")
            self.crash()
            if isinstance(error, SequenceGap) and self.world.losses.log:
                self.stopped = None
                self.world.loop.call_later(RESTART_S, self._start_again, context=Context())

    def _start_again(self) -> None:
        if not self.up and self.stopped is None and self.name not in self.world.gone:
            self.start()

    def crash(self, *, power: bool = False, fault: bool = True) -> None:
        """Loses the process; what it had written stays. No ``fault`` is what an operator does."""
        if self.process is None:
            return
        kind = "power cut" if power else "crash"
        self.world.tell(kind, self.name)
        if self.stopped is None and fault:
            self.world.trouble.counts[f"{kind}: {self.name.split(' ')[0]}"] += 1
        self.world.loop.kill(self.process)
        self.world.nodes.pop(self.name, None)
        self.bus.abandon()
        if self.disk.crash(self.world.random("disk"), power=power):
            self.world.trouble.counts["lost or torn write"] += 1
        self.process = None

    def role(self, tables: dict[str, object] | None = None) -> roles.Host:
        """What the roles want of their host."""
        settings = Settings(chain=CHAIN, data_dir=str(self.disk.folder), tables=tables or {})
        return roles.Host(settings, self.world.genesis, self.key, self.bus, self.clock, lambda: None)


class World:
    """Made for one plan; all that happens in it follows from the plan."""

    def __init__(self, plan: Plan, folder: Path, trace: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.folder = folder
        self.genesis = genesis_of(plan)
        self.limits = Limits(inbox_per_sender=plan.inbox_places, inbox_messages=5_000, inbox_age_s=plan.inbox_age_s)
        self.books = Books(msgspec.to_builtins(self.genesis))
        self.violations: list[str] = []
        self.disks: dict[str, Disk] = {}
        self.hosts: dict[str, SimulatedHost] = {}
        # Names of the hosts whose processes may crash.
        self.mortal: list[str] = []
        self.nodes: dict[str, Node] = {}
        # When each event was sent first: it waits in its oldest copy, which may be one whose answer was lost.
        self.sent: dict[str, int] = {}
        self.acknowledged: dict[str, tuple[bytes, int]] = {}
        self.votes: dict[tuple[str, int], set[str]] = {}
        self.refused: dict[str, str] = {}
        self.final: dict[int, tuple[str, str]] = {}
        # Of each job, in which ways it has ended as the nodes' own states say.
        self.ends: dict[str, list[str]] = {}
        self.losses = Losses()
        # Names of the hosts that stay dead.
        self.gone: set[str] = set()
        # The server's stamps of each block message.
        self.stamps: dict[bytes, list[int]] = {}
        self.digest = sha256()
        self.events = 0
        self.over = False
        self._randoms: dict[str, Random] = {}
        self._trace = trace
        self._read = 0
        self.loop = VirtualLoop(self.random("loop"))
        self.trouble = Trouble(plan.menu, self.random("trouble"))
        self.server_clock = VirtualClock(self.loop)
        self.network = SimulatedNetwork(self.server_clock, self.trouble)

    def random(self, name: str) -> Random:
        """A generator of its own for each matter, so that one does not disturb the other."""
        if name not in self._randoms:
            self._randoms[name] = Random(f"{self.plan.seed}:{name}")
        return self._randoms[name]

    def tell(self, what: str, *facts: object) -> None:
        """Writes a line into the trace. Only what follows from the seed may be in it."""
        if self._trace is None:
            self.digest.update(f"{self.loop.now_ms()} {what} {facts}\n".encode())
            return
        line = f"{self.loop.time():9.3f} {what:<14} {' '.join(map(str, facts))}"
        self.digest.update(f"{self.loop.now_ms()} {what} {facts}\n".encode())
        self._trace(line)

    def violate(self, checker: str, what: str) -> None:
        """Something happened that must not, as this checker has found."""
        self.tell("VIOLATION", checker, what)
        self.violations.append(f"{checker}: {what}")

    # What the checkers hear of.

    def logged(self, name: str, method: str, line: structlog.typing.EventDict, error: object) -> None:
        """A process wrote a line of an error: it met what it was not made for."""
        byzantine = self.plan.byzantine and name == f"proposer {self.plan.proposers - 1}"
        expected = {"the actor stops"} | ({"no second vote"} if self.plan.scenario == "lost tail" else set())
        found = error if isinstance(error, BaseException) else sys.exc_info()[1]
        # It may come to harm by what it does, but not by what has become of the code that it spoils.
        byzantine = byzantine and not isinstance(found, TypeError | AttributeError)
        if line["event"] not in expected and not byzantine:
            self.violate("errors", f"{name} logged: {line} {found!r}")

    def heard(self, name: str, fate: str, data: bytes) -> None:
        """An event was sent, acknowledged, or refused with a reason (``name`` is its id), or a process said a vote (its
        name)."""
        if fate == "vote":
            vote = json.loads(data)["vote"]
            # Who puts a block back says the others' votes for it again, whatever its own is.
            if vote["validator"] == key_for(name).address:
                self.votes.setdefault((name, vote["height"]), set()).add(vote["block"])
        elif fate == "sent":
            self.sent.setdefault(name, self.loop.now_ms())
            inboxes = self.network.streams.get(subjects.stream(CHAIN, "INBOX"))
            self.losses.sent(name, inboxes.last_sequence if inboxes is not None else 0)
        elif fate == "acknowledged":
            self.acknowledged[name] = (data, self.loop.now_ms())
        else:
            self.refused.setdefault(name, fate)

    def took_final(self, node: Node, name: str, final: Final) -> None:
        """A node holds a block for final."""
        self.nodes[name] = node
        header = final.header
        found = (final.hash, header.state_root)
        self.tell("final", name, header.height, final.hash[:12], header.state_root[:12])
        if final.executed.state_root != header.state_root:
            self.violate("agreement", f"{name} took block {header.height} with another state root than it has computed")
        if self.plan.may_fork:
            return
        if header.height not in self.final:
            self._note_ends(final)
        if self.final.setdefault(header.height, found) != found:
            self.violate("agreement", f"{name} holds another block or root at height {header.height}")

    def _note_ends(self, final: Final) -> None:
        for key, row in final.executed.draft.changed_rows().items():
            kind, _, job = key.partition("/")
            if kind == "job" and (situation := json.loads(row)["situation"]["situation"]) in ENDED:
                self.ends.setdefault(job, []).append(situation)

    def chain_log(self) -> SimulatedStream | None:
        """The log as the server has it."""
        return self.network.streams.get(subjects.stream(CHAIN, "CHAIN"))

    def messages_since_open_block(self) -> int:
        """How many messages of the log are a block that is not final and what follows it; 0 when there is none."""
        self.read_log()
        log = self.chain_log()
        if log is None or self.books.open_since is None:
            return 0
        return log.last_sequence - self.books.open_since + 1

    def lose_mail(self, random: Random) -> None:
        """The server has lost the newest messages of all streams but the log."""
        for kind in ("INBOX", "FEED", "BLOBS"):
            stream, count = self.network.streams.get(subjects.stream(CHAIN, kind)), random.choice((0, 1, 5, 20))
            if stream is None or not count:
                continue
            end = stream.last_sequence
            lost = [message for sequence, message in stream.messages.items() if sequence > end - count]
            stream.lose_tail(count)
            self.losses.lost_mail(kind, lost, end)
            self.trouble.counts[f"lost tail of {kind}"] += bool(lost)
            self.tell("lost tail", kind, count)

    def lose_tail(self, count: int, *, fault: bool = True) -> None:
        """The server has lost the newest messages of the log, and will use their sequences again. No ``fault`` is what
        an operator does."""
        log = self.chain_log()
        if log is None:
            return
        self.read_log()
        before = {block.header["height"]: block.hash for block in self.books.blocks}
        self.trouble.counts["lost tail of CHAIN"] += fault and log.last_sequence > 0
        log.lose_tail(count)
        self.losses.log = True
        self.tell("lost tail", log.last_sequence)
        # Somebody may have seen what was lost: two blocks of a round are evidence although the log holds one of them.
        signed = self.books.proposals
        self.books = Books(msgspec.to_builtins(self.genesis))
        self.books.proposals = signed
        self._read = 0
        self.events = 0
        self.read_log()
        self.losses.blocks.update(before)

    def flip_a_bit(self) -> int:
        """In a final block mostly, else anywhere in the log. Returns the height of the block, 0: it has another copy in
        the log, or it is another message."""
        self.read_log()
        log, random = self.chain_log(), self.random("flip")
        if log is None or not log.last_sequence:
            return 0
        final = {block.message: block.header["height"] for block in self.books.blocks}
        copies = Counter(message.data for message in log.messages.values())
        whole = [place for place, message in log.messages.items() if message.data in final]
        anything = [place for place, message in log.messages.items() if message.data]
        place = random.choice(whole if whole and random.random() < 0.8 else anything)
        message = log.messages[place]
        data = bytearray(message.data)
        bit = random.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        log.messages[place] = msgspec.structs.replace(message, data=bytes(data))
        hit = final.get(message.data, 0) if copies[message.data] == 1 else 0
        self.trouble.counts["bit flip: final block" if hit else "bit flip: rest of the log"] += 1
        self.tell("bit flip", place, bit, hit or "no final block")
        return hit

    def read_log(self) -> list[FinalBlock]:
        """Books what is new in the log."""
        log = self.chain_log()
        found: list[FinalBlock] = []
        while log is not None and self._read < log.last_sequence:
            self._read += 1
            message = log.messages[self._read]
            kind = "block" if message.subject == subjects.block(CHAIN) else "vote"
            if kind == "block":
                self.stamps.setdefault(message.data, []).append(message.time_ns // 1_000_000)
            block = self.books.add(kind, message.data)
            self._note_problems()
            if block is not None:
                self.books.open_since = None
            elif kind == "block" and self.books.open_since is None:
                self.books.open_since = self._read
            if block is not None:
                found.append(block)
                self.events += len(block.events)
        return found

    def _note_problems(self) -> None:
        """What no honest log may hold."""
        problems, self.books.problems = self.books.problems, []
        for problem in [] if self.plan.may_fork else problems:
            self.violate("books", problem)

    # Hosts.

    def may_crash(self, process: Process | None, rate: int, kind: str) -> bool:
        """Whether the process is dead from this very moment on, in the middle of what it does. It comes back later."""
        if process is None or process.dead or process.name not in self.mortal:
            return False
        if not self.trouble.happens(rate, kind):
            return False
        host, random = self.hosts[process.name], self.random("sudden")
        host.crash(power=random.random() < 0.3)
        down_s = random.randint(1, max(self.plan.menu.longest_down_ms, 1)) / 1_000
        self.loop.call_later(down_s, partial(self._revive, host), context=Context())
        return True

    def _may_crash_at_disk(self) -> bool:
        return self.may_crash(CURRENT.get(), self.plan.menu.crash_at_disk, "crash at the disk")

    def _revive(self, host: SimulatedHost) -> None:
        if not self.trouble.calm and not host.up and host.stopped is None:
            host.start()

    def bury(self) -> None:
        """The end: all power is cut."""
        self.over = True
        for host in self.hosts.values():
            if host.process is not None:
                self.loop.kill(host.process)
                host.bus.abandon()
                host.disk.close()
        self.loop.bury()

    def add(self, name: str, work: Work) -> SimulatedHost:
        """A host, not started yet."""
        self.hosts[name] = SimulatedHost(self, name, work)
        return self.hosts[name]


# The roles, put together as in `actors.roles`.


async def run_proposer(host: SimulatedHost, stop: asyncio.Event) -> None:
    await roles._run_proposer(host.role(), stop)


async def run_coordinator(host: SimulatedHost, stop: asyncio.Event) -> None:
    await roles.run_coordinator(host.role(), stop, verdict)


def miner_of(character: Character, unit_price: int) -> Work:
    """A miner that behaves like this."""

    async def run(host: SimulatedHost, stop: asyncio.Event) -> None:
        registration = Registration(
            name=host.name,
            capacity=2,
            devices=(Device(model="H200", memory_mib=144_384),),
            offers=(Offer(service="matmul.int8", unit_price=unit_price),),
        )
        computer = StandInComputer(character, host.world.random(f"{host.name} computes"))
        await roles.run_miner(host.role(), stop, registration, computer)

    return run


async def run_wallet(host: SimulatedHost, stop: asyncio.Event) -> None:
    policy = host.disk.folder / "policy.toml"
    policy.write_text("request_limit = 100000000\ndaily_limit = 900000000\n")
    await roles._run_wallet(host.role({"wallet": {"policy": str(policy)}}), stop)


async def run_observer(host: SimulatedHost, stop: asyncio.Event) -> None:
    """A node that nobody asks."""
    node = Node(host.bus, host.clock, host.world.genesis, host.disk.folder / "read-model.db")
    await node.start()
    try:
        await node.join()
    finally:
        await node.stop()


@contextmanager
def simulated(plan: Plan, trace: Callable[[str], None] | None = None) -> Iterator[World]:
    """A world in which no code meets threads, real time or real randomness. Cleans up behind it."""
    parent = MEMORY if MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="assay-simulation-", dir=parent))
    world = World(plan, folder, trace)
    take_final = Node._take_final

    async def taken(node: Node, final: Final) -> None:
        world.took_final(node, node.bus.name, final)  # type: ignore[attr-defined]
        await take_final(node, final)

    settings = structlog.get_config()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(structlog.configure, **settings)
        stack.enter_context(inline_databases(world.loop, world.random("disk"), world.disks, world._may_crash_at_disk))
        stack.enter_context(patch.object(Node, "_take_final", taken))
        stack.enter_context(patch.object(signatures, "_WORTH_A_THREAD", 1_000_000))
        # All nodes check the same signatures; whether one holds follows from its bytes.
        stack.enter_context(patch.object(nacl.bindings, "crypto_sign_open", cache(nacl.bindings.crypto_sign_open)))
        stack.callback(world.loop.close)
        stack.callback(world.bury)
        _listen_to_logs(world, verbose=trace is not None)
        yield world


def _listen_to_logs(world: World, *, verbose: bool) -> None:
    """Log lines go into the trace where it is read; a critical or unexpected one is a violation."""

    def note(_logger: object, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if world.over:
            raise structlog.DropEvent
        process = CURRENT.get()
        name = process.name if process is not None else "-"
        error = line.pop("exc_info", None)
        if verbose:
            facts = " ".join(f"{key}={value}" for key, value in line.items() if key != "event")
            world._trace(f"{world.loop.time():9.3f} {'log ' + method:<14} {name}: {line['event']} {facts[:400]}")  # type: ignore[misc]
        if method in {"error", "exception", "critical"}:
            world.logged(name, method, line, error)
        raise structlog.DropEvent

    structlog.configure(
        processors=[note],
        wrapper_class=structlog.make_filtering_bound_logger(10 if verbose else 40),
        cache_logger_on_first_use=False,
    )
