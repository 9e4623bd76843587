"""The processes: each role of the network put together from its parts, for one host.

    stop_event; await run_role("miner", settings, environment, stop)

Every role has its own key, its own directory, its own connection; they meet only on the bus.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import structlog
from msgspec import Meta, Struct, UnsetType
from msgspec.structs import replace

from actors import jail
from actors.attestation.lists import load as load_lists
from actors.attester import HostAttester
from actors.backends.base import Backend
from actors.backends.choice import BackendName, choose
from actors.backends.prepare import prepare
from actors.clock import SystemClock
from actors.coordinator import Coordinator, NewBlock, Tick
from actors.exam_judge import BlobExamJudge, BlockFacts
from actors.examiner import BlobExaminer
from actors.ledger import AccountAt, EventAt, QueriedLedger
from actors.miner import LookAgain, Miner, Registration
from actors.node import Node
from actors.proposer import Proposer
from actors.readiness import say_ready
from actors.runtime import Runtime, Speaking, every, own_feed, supervise
from actors.sandbox import Sandbox
from actors.services.registry import SERVICES, verify
from actors.settings import Settings, load_key
from actors.speaker import Used
from actors.store import Store, alone_with
from actors.together import until_first_ends
from actors.verdict import Verify
from actors.wallet import run_wallet
from actors.wallet_policy import load_policy
from actors.worker import Computer, SandboxWorker
from bus.jetstream import JetStreamBus
from bus.port import Bus, Clock, Limits
from events.blocks import decode_genesis, genesis_hash
from events.errors import BadInput, NotAllowed, NotFound, VerificationFailed
from events.keys import Key
from projections import read_model_queries
from schemas.blocks import TimerFired
from schemas.events import Device, Offer
from schemas.genesis import Genesis
from schemas.services import KernelCustom, service_of
from schemas.values import Amount

ROLES: Final = ("proposer", "coordinator", "miner", "wallet")
TICK_MS: Final = 1_000
LOOK_AGAIN_MS: Final = 30_000
WHOLE_JAIL: Final = frozenset({"namespaces", "filter"})

log = structlog.get_logger()


class MinerTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The section ``[miner]`` of the settings.

    It offers all verified services there are, or only ``services``; each for ``unit_price`` micro-ASY per unit of the
    service, or for what ``prices`` says of it. ``backend`` computes, on the GPU with the UUID ``gpu`` where that is
    given. ``custom_kernels``: it also runs programs that clients bring, which takes a GPU and a host that allows the
    whole jail. ``attest`` says what the miner has attested: ``auto`` the GPUs, where ``backend`` is one of a GPU;
    ``processor`` the processor, which no profile but a devnet's takes; ``off`` nothing.
    In an exam ``fill_mib`` of a GPU's memory are filled, by default as much as the chain asks of a miner; the network
    counts a quarter more, and no more.
    """

    name: str = "miner"
    capacity: int = 1
    unit_price: Amount = 10
    services: tuple[str, ...] = ()
    prices: dict[str, Amount] = {}
    memory_mib: int = 4_096
    threads: int = 1
    backend: BackendName = "cpu"
    gpu: str = ""
    custom_kernels: bool = False
    attest: Literal["auto", "processor", "off"] = "auto"
    fill_mib: Annotated[int, Meta(ge=0, le=16_777_216)] | None = None


class WalletTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The section ``[wallet]``: the file with the policy."""

    policy: str


class Host(Struct, frozen=True):
    """What every role is given."""

    settings: Settings
    genesis: Genesis
    key: Key
    bus: Bus
    clock: Clock
    up: Callable[[], None]

    @property
    def gas_price(self) -> int:
        """The price that the settings name, else the chain's minimum."""
        chosen = self.settings.gas_price
        return self.genesis.parameters.min_gas_price if chosen is None else chosen

    def directory(self, role: str) -> Path:
        """Where a role keeps its files."""
        path = Path(self.settings.data_dir) / f"{role}-{self.key.address}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    async def store(self, role: str) -> Store:
        """The memory of the role. Raises StoreInUse, ForeignStore."""
        identity = f"{genesis_hash(self.genesis)} {self.key.address}"
        return await Store.open(self.directory(role) / "store.db", identity)


def load_genesis(path: str) -> Genesis:
    """Reads the genesis file. Raises BadInput."""
    try:
        return decode_genesis(Path(path).read_bytes())
    except (OSError, VerificationFailed) as error:
        raise BadInput(
            f"the genesis {path!r} cannot be read",
            why=str(error),
            hint="Set ASSAY_GENESIS to the chain's genesis file.",
        ) from error


def check_table(role: str, settings: Settings) -> None:
    """Raises BadInput for a section that the role cannot use: at once, and not when a server at last answers."""
    if role == "miner":
        offers_of(settings.table(role, MinerTable))
    elif role == "wallet":
        settings.table(role, WalletTable)


async def run_role(role: str, settings: Settings, environment: Mapping[str, str], stop: asyncio.Event) -> None:
    """Runs one role until ``stop`` is set, starting it again after what passes. Raises what does not pass."""
    genesis = load_genesis(settings.genesis)
    if genesis.chain != settings.chain:
        raise BadInput(f"the genesis is of chain {genesis.chain}", why=f"the settings say {settings.chain}")
    check_table(role, settings)
    key = load_key(settings, environment)
    run = _RUNS[role]
    clock = SystemClock()

    async def once(stop: asyncio.Event) -> None:
        limits = Limits(replicas=settings.replicas)
        bus = await JetStreamBus.connect(settings.url, genesis.chain, limits, name=f"assay {role} {key.address[:8]}")
        try:
            await run(Host(settings, genesis, key, bus, clock, partial(say_ready, environment)), stop)
        finally:
            await bus.close()

    await supervise(role, once, stop, clock)


async def _run_proposer(host: Host, stop: asyncio.Event) -> None:
    if host.key.address not in [validator.address for validator in host.genesis.validators]:
        raise NotAllowed(
            f"{host.key.address} is not a validator of {host.genesis.chain}",
            hint="Use the seed of an address that the genesis lists as a validator.",
        )
    path = host.directory("proposer") / "read-model.db"
    with alone_with(path):
        await Proposer(host.bus, host.clock, host.key, host.genesis, path).run(stop, host.up)


class NodeLedger:
    """A full node's own account, from its own state and rows."""

    def __init__(self, node: Node, address: str) -> None:
        self._node = node
        self._address = address

    async def account(self) -> AccountAt:
        return AccountAt(self._node.state.account(self._address).nonce, self._node.height)

    async def event(self, event_id: str) -> EventAt:
        height = self._node.height
        await self._node.wait_written(height)
        try:
            found = await self._node.read_model.read(partial(read_model_queries.event, event_id=event_id))
        except NotFound:
            return EventAt(None, height)
        return EventAt(found.outcome, height)


async def _run_coordinator(host: Host, stop: asyncio.Event) -> None:
    await run_coordinator(host, stop, verify)


async def run_coordinator(host: Host, stop: asyncio.Event, verdict: Verify) -> None:
    """Runs a coordinator whose opinion of a result is that of ``verdict``."""
    if host.key.address not in host.genesis.coordinators:
        raise NotAllowed(
            f"{host.key.address} is not a coordinator of {host.genesis.chain}",
            hint="Use the seed of an address that the genesis lists as a coordinator.",
        )
    directory = host.directory("coordinator")
    node = Node(host.bus, host.clock, host.genesis, directory / "read-model.db", threads=2, serve_queries=True)
    await node.start()
    try:
        await until_first_ends(stop.wait(), node.join(), node.catch_up())
        if stop.is_set():
            return

        async def block_hash(height: int) -> str:
            await node.wait_written(height)
            entry = await node.read_model.read(partial(read_model_queries.block_entry, which=height))
            return entry.hash

        examiner = BlobExaminer(host.bus, directory / "jobs", block_hash, verdict=verdict)
        exam_judge = _exam_judge(host, node, directory)
        coordinator = Coordinator(host.key, host.genesis.chain, lambda: node.state, examiner, exam_judge)
        async with await host.store("coordinator") as store:
            speaking = Speaking(host.key, host.gas_price, NodeLedger(node, host.key.address))
            runtime = await Runtime.start(coordinator, store, host.bus, host.clock, speaking=speaking)
            log.info("up", role="coordinator", address=host.key.address, height=node.height)
            host.up()
            await until_first_ends(
                runtime.run(stop, [partial(_finals, node, host.key.address), partial(_ticks, host.clock)]), node.join()
            )
    finally:
        await node.stop()


def _exam_judge(host: Host, node: Node, directory: Path) -> BlobExamJudge | None:
    """None on a chain without exams. Raises BadInput, NotAllowed and VerificationFailed for lists that are none."""
    if isinstance(host.genesis.parameters.trust, UnsetType):
        return None

    async def block(height: int) -> BlockFacts:
        if height == 0:
            return BlockFacts(genesis_hash(host.genesis), host.genesis.time_ms)
        await node.wait_written(height)
        entry = await node.read_model.read(partial(read_model_queries.block_entry, which=height))
        return BlockFacts(entry.hash, entry.header.time_ms)

    return BlobExamJudge(host.bus, directory / "exams", block, load_lists(directory / "lists.json"))


async def _finals(node: Node, address: str, runtime: Runtime) -> None:
    """Tells a coordinator of each final block, and of its own events in it."""
    queue = node.follow()
    try:
        while True:
            final = await queue.get()
            outcomes = [outcome for outcome in final.executed.outcomes if not isinstance(outcome, TimerFired)]
            for signed, outcome in zip(final.events, outcomes, strict=True):
                if signed.event.sender == address:
                    await runtime.tell(Used(signed.id, signed.event.nonce, outcome, final.header.height))
            await runtime.tell(NewBlock(final.header.height))
    finally:
        node.unfollow(queue)


async def _ticks(clock: Clock, runtime: Runtime) -> None:
    while True:
        await clock.sleep_ms(TICK_MS)
        await runtime.tell(Tick())


async def _run_miner(host: Host, stop: asyncio.Event) -> None:
    table = host.settings.table("miner", MinerTable)
    offers = offers_of(table)
    jobs = host.directory("miner") / "jobs"
    jobs.mkdir(exist_ok=True)
    if table.backend != "cpu":
        log.info("compiling what the GPU lacks")
        await asyncio.to_thread(prepare, table.gpu)
    # One that takes no new jobs still ends those that it has.
    async with Sandbox(max(table.capacity, 1), jobs, backend=table.backend, device=table.gpu) as sandbox:
        log.info("jobs are jailed", walls=sandbox.walls)
        if table.custom_kernels and not set(sandbox.walls) >= WHOLE_JAIL:
            raise NotAllowed(
                "this host does not run the programs of strangers",
                why=f"of the jail's walls it has {', '.join(sandbox.walls) or 'none'}",
                hint="Allow unprivileged user namespaces (Linux 5.12 or later), or set custom_kernels = false.",
            )
        keep_secrets_from_jobs(host.settings)
        devices = devices_of(table, sandbox.devices)
        registration = Registration(name=table.name, capacity=table.capacity, devices=devices, offers=offers)
        await run_miner(host, stop, registration, sandbox)


def keep_secrets_from_jobs(settings: Settings) -> None:
    """Raises NotAllowed when the miner's secrets lie where jobs find their programs."""
    secrets = (settings.data_dir, settings.seed_file, settings.keystore, settings.password_file)
    shown = [path for path in secrets if path and jail.shows(Path(path))]
    if shown:
        raise NotAllowed(
            "jobs could read the miner's secrets",
            why=f"{shown[0]} lies among the programs and libraries that every job sees: {', '.join(jail.visible())}",
            hint="Move it to a directory of its own, such as /var/lib/assay.",
        )


def offers_of(table: MinerTable) -> tuple[Offer, ...]:
    """What the miner sells, in the order of the services' names. Raises BadInput for a service that does not exist, and
    for strangers' programs without a GPU."""
    custom = service_of(KernelCustom)
    known = {service_of(record) for record in SERVICES} - {custom}
    if table.custom_kernels:
        if table.backend == "cpu":
            raise BadInput(
                "the settings [miner] cannot be used",
                why="custom_kernels needs a GPU, and the backend is cpu",
                hint='Set backend = "pycuda".',
            )
        known.add(custom)
    if unknown := sorted({*table.services, *table.prices} - known):
        raise BadInput(
            "the settings [miner] cannot be used",
            why=f"{unknown[0]!r} is not a service",
            hint=f"There are {', '.join(sorted(known))}.",
        )
    offered = sorted(set(table.services) or known)
    return tuple(Offer(service=name, unit_price=table.prices.get(name, table.unit_price)) for name in offered)


def devices_of(table: MinerTable, found: Sequence[Device]) -> tuple[Device, ...]:
    """What the miner says it has. A processor's memory is the host's, of which a job gets no more than the settings
    allow; a GPU's own memory is not limited."""
    if table.backend != "cpu":
        return tuple(found)
    return tuple(replace(device, memory_mib=min(device.memory_mib, table.memory_mib)) for device in found)


async def run_miner(host: Host, stop: asyncio.Event, registration: Registration, sandbox: Computer) -> None:
    """Runs a miner that computes in ``sandbox``."""
    table = host.settings.table("miner", MinerTable)
    async with await host.store("miner") as store:
        worker = SandboxWorker(
            host.bus,
            host.clock,
            sandbox,
            host.key.address,
            host.directory("miner") / "jobs",
            table.memory_mib * 2**20,
            table.threads,
        )
        attester = attester_of(host, table)
        miner = Miner(host.key, host.genesis.chain, registration, worker, attester)
        speaking = Speaking(host.key, host.gas_price, QueriedLedger(host.bus, host.key.address))
        runtime = await Runtime.start(miner, store, host.bus, host.clock, speaking=speaking)
        log.info("up", role="miner", address=host.key.address)
        host.up()
        again = every(host.clock, LOOK_AGAIN_MS, LookAgain())
        try:
            await runtime.run(stop, [own_feed(host.bus, host.key.address), again])
        finally:
            if attester is not None:
                attester.close()


def attester_of(host: Host, table: MinerTable) -> HostAttester | None:
    """None where there are no exams, or nothing to attest. Raises as `_exam_judge`."""
    trust = host.genesis.parameters.trust
    processor = table.attest == "processor"
    if isinstance(trust, UnsetType):
        return None
    if table.attest == "off" or not (processor or table.backend != "cpu"):
        if trust.min_score > 0:
            why = "attest is off" if table.attest == "off" else "the backend is cpu, so there is nothing to attest"
            log.warning("this chain gives the miner no jobs", asked_points=trust.min_score, why=why)
        return None

    def backend(device: str | None) -> Backend:
        return choose("cpu" if device is None else "pycuda", table.threads, device)

    directory = host.directory("miner")
    return HostAttester(
        host.bus,
        host.key.address,
        directory / "exams",
        trust.exam,
        trust.exam_window_ms,
        load_lists(directory / "lists.json"),
        backend,
        processor=processor,
        only=table.gpu,
        min_memory_mib=trust.min_memory_mib,
        fill_mib=table.fill_mib,
    )


async def _run_wallet(host: Host, stop: asyncio.Event) -> None:
    table = host.settings.table("wallet", WalletTable)
    policy = load_policy(Path(table.policy))
    async with await host.store("wallet") as store:
        log.info("up", role="wallet", address=host.key.address)
        host.up()
        await run_wallet(host.bus, host.clock, store, host.key, policy, host.gas_price, stop)


_RUNS: Final[Mapping[str, Callable[[Host, asyncio.Event], Awaitable[None]]]] = {
    "proposer": _run_proposer,
    "coordinator": _run_coordinator,
    "miner": _run_miner,
    "wallet": _run_wallet,
}
