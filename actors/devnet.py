"""A whole network on one machine: a NATS server and one process per actor, watched, and gone when its owner is.

    async with Devnet(Path("net")) as devnet:
        devnet.url, devnet.chain, devnet.key("client")
        await devnet.kill("miner-1")            # as a crash would; it is started again
        await devnet.kill("proposer-2", for_good=True)
        await devnet.restart("proposer-2")
        await devnet.kill("nats")

Processes are named nats, proposer-1 …, coordinator, miner-1 …, wallet.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct

from actors.clock import backoff_ms
from actors.devnet_files import CHAIN, CLIENT, WALLET, Files, Plan
from actors.readiness import VARIABLE, ReadinessListener
from bus.bound_process import BoundProcess
from bus.jetstream import JetStreamBus
from bus.server import EmbeddedServer, Server
from events.blocks import genesis_hash
from events.canonical import canonical
from events.errors import AssayError, BusError, NotFound, TimedOut
from events.keys import Key
from schemas.genesis import Genesis
from schemas.messages import QueryAnswer, QueryRefused
from schemas.queries import MinerQuestion

NATS: Final = "nats"
START_S: Final = 60.0
STOP_S: Final = 1.0
LOOK_S: Final = 0.02
# An actor that has run for so long is restarted at once; one that dies again and again, after growing pauses.
CALM_S: Final = 10.0
LAST_LINES: Final = 12
PACKAGES: Final = Path(__file__).resolve().parents[1]

_answers = msgspec.json.Decoder(QueryAnswer | QueryRefused)
Tell = Callable[[str], None]


class ActorFailed(AssayError):
    """A process ended before it was ready."""

    code = "ACTOR_FAILED"


class Child(Struct):
    """One actor's process. ``wanted`` is False while it shall stay down."""

    name: str
    process: BoundProcess | None = None
    ready: asyncio.Event | None = None
    wanted: bool = True
    starts: int = 0
    failures: int = 0
    started_s: float = 0.0
    again_s: float = 0.0


class Devnet:
    """``directory`` None: everything is thrown away at the end. ``port`` None: a free one. ``tell`` hears what happens
    to the processes. ``server`` None: an embedded one."""

    def __init__(
        self,
        directory: Path | None = None,
        plan: Plan | None = None,
        *,
        port: int | None = None,
        tell: Tell | None = None,
        server: Server | None = None,
    ) -> None:
        self.plan: Final = plan or Plan()
        self.thrown_away: Final = directory is None
        self._wanted_directory = directory
        self._port = port
        self._tell = tell or (lambda _: None)
        self._given_server = server
        self._children = {name: Child(name) for name in self.plan.actors()}
        self._run_directory: Path | None = None
        self._listener: asyncio.DatagramTransport | None = None
        self._watching: asyncio.Task[None] | None = None
        self._server_wanted = True
        self.files: Files
        self.server: Server

    @property
    def url(self) -> str:
        """Of the NATS server."""
        return self.server.url

    @property
    def chain(self) -> str:
        return CHAIN

    @property
    def directory(self) -> Path:
        """Where everything lies, see `actors.devnet_files`."""
        return self.files.directory

    @property
    def genesis(self) -> Genesis:
        return self.files.genesis

    @property
    def genesis_hash(self) -> str:
        return genesis_hash(self.files.genesis)

    def key(self, name: str = CLIENT) -> Key:
        """The key of an actor or a client."""
        return self.files.keys[name]

    def pid(self, name: str) -> int | None:
        """The process id, None while it is down."""
        if name == NATS:
            return self.server.pid if self.server.running() else None
        process = self._child(name).process
        return process.pid if process is not None and process.running() else None

    def pids(self) -> dict[str, int | None]:
        """Of all processes by name."""
        return {name: self.pid(name) for name in (NATS, *self._children)}

    def starts(self, name: str) -> int:
        """How often the actor has been started."""
        return self._child(name).starts

    async def start(self) -> None:
        """Returns when every process is ready, the miners are in the ledger, and the wallet answers.

        Raises ActorFailed, TimedOut, and what the server raises.
        """
        directory = self._wanted_directory or Path(tempfile.mkdtemp(prefix="assay-devnet-"))
        async with contextlib.AsyncExitStack() as unless_all_is_well:
            unless_all_is_well.push_async_callback(self.stop)
            self.files = Files(directory, self.plan)
            # Short, because the path of a socket has little room.
            self._run_directory = Path(tempfile.mkdtemp(prefix="assay-"))
            self._listener = await ReadinessListener.open(self._run_directory / "notify", self._is_ready)
            self.server = self._given_server or EmbeddedServer(self.files.directory / "nats", port=self._port)
            await self.server.start()
            self._tell(f"NATS server at {self.url}")
            self.files.write_settings(self.url)
            for child in self._children.values():
                self._spawn(child)
            await self._all_ready()
            await self._all_known()
            unless_all_is_well.pop_all()
        self._watching = asyncio.create_task(self._watch(), name="devnet")

    async def stop(self) -> None:
        """Ends everything in order, by force what has not ended in a second. May be called twice."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        await self._end([child.process for child in self._children.values() if child.process is not None])
        if hasattr(self, "server"):
            await self.server.stop()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._run_directory is not None:
            shutil.rmtree(self._run_directory, ignore_errors=True)
        if self.thrown_away and hasattr(self, "files"):
            shutil.rmtree(self.files.directory, ignore_errors=True)

    async def kill(self, name: str, *, for_good: bool = False) -> None:
        """As ``kill -9`` does. The process is started again by itself, unless ``for_good``: until `restart`."""
        if name == NATS:
            self._server_wanted = not for_good
            await self.server.kill()
            return
        child = self._child(name)
        child.wanted = not for_good
        if child.process is not None:
            child.process.signal(signal.SIGKILL)
            await _ended(child.process, STOP_S)

    def signal(self, name: str, number: int) -> None:
        """Sends an actor's process a signal, if it is up."""
        process = self._child(name).process
        if process is not None:
            process.signal(number)

    async def restart(self, name: str) -> None:
        """Starts it again, and returns when it is ready. Raises ActorFailed, TimedOut."""
        if name == NATS:
            await self.kill(NATS, for_good=True)
            await self.server.start()
            self._server_wanted = True
            return
        await self.kill(name, for_good=True)
        child = self._child(name)
        child.wanted = True
        self._spawn(child)
        await self.ready(name)

    async def ready(self, name: str) -> None:
        """Returns when the actor is ready; after a crash, when it is ready again. Raises TimedOut."""
        child = self._child(name)
        try:
            async with asyncio.timeout(START_S):
                while not self._runs_ready(child):  # noqa: ASYNC110  another process may take its place meanwhile
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            raise TimedOut(f"{name} is not ready after {START_S:.0f} s", why=self._last_words(name)) from error

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _child(self, name: str) -> Child:
        try:
            return self._children[name]
        except KeyError as error:
            hint = f"There are {NATS}, {', '.join(self._children)}."
            raise NotFound(f"there is no process {name!r}", hint=hint) from error

    def _spawn(self, child: Child) -> None:
        kind = child.name.partition("-")[0]
        settings = str(self.files.settings_file(child.name))
        command = [sys.executable, "-m", "actors.command_line", "run", kind, "--settings", settings]
        if self._run_directory is None:
            raise AssertionError("a process is started before the devnet")
        # Only what a process needs: neither the settings of whoever starts a devnet nor their secrets.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ASSAY_")}
        # The same sources as here, whether or not they are installed.
        path = os.pathsep.join(filter(None, (str(PACKAGES), environment.get("PYTHONPATH"))))
        environment |= {VARIABLE: str(self._run_directory / "notify"), "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        child.ready = asyncio.Event()
        child.starts += 1
        child.started_s = asyncio.get_running_loop().time()
        with self.files.log_file(child.name).open("ab") as output:
            child.process = BoundProcess(command, output=output, environment=environment)

    def _is_ready(self, pid: int) -> None:
        for child in self._children.values():
            if child.process is not None and child.process.pid == pid and child.ready is not None:
                child.ready.set()

    def _runs_ready(self, child: Child) -> bool:
        running = child.process is not None and child.process.running()
        return running and child.ready is not None and child.ready.is_set()

    async def _all_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + START_S
        while missing := [child for child in self._children.values() if not self._runs_ready(child)]:
            for child in missing:
                if child.process is not None and not child.process.running():
                    raise ActorFailed(
                        f"{child.name} ended before it was ready, with exit code {child.process.exit_code}",
                        why=self._last_words(child.name),
                        hint="Its whole log: " + str(self.files.log_file(child.name)),
                    )
            if asyncio.get_running_loop().time() > deadline:
                names = ", ".join(child.name for child in missing)
                raise TimedOut(f"not ready after {START_S:.0f} s: {names}", why=self._last_words(missing[0].name))
            await asyncio.sleep(LOOK_S)

    async def _all_known(self) -> None:
        """Returns when the network can do a job: it knows all miners, and the wallet is open. Raises TimedOut."""
        bus = await JetStreamBus.connect(self.url, self.chain, name="assay devnet")
        missing = "the miners"
        try:
            async with asyncio.timeout(START_S):
                for name in self._children:
                    missing = name
                    if name.startswith("miner-"):
                        await self._until_answered(bus, name)
                    elif name == WALLET:
                        await self._until_open(bus)
        except TimeoutError as error:
            raise TimedOut(f"{missing} is not known after {START_S:.0f} s", why=self._last_words(missing)) from error
        finally:
            await bus.close()

    async def _until_open(self, bus: JetStreamBus) -> None:
        while True:
            try:
                await bus.ask_wallet(self.key(WALLET).address, b"")
                return
            except (BusError, TimedOut):
                await asyncio.sleep(LOOK_S)

    async def _until_answered(self, bus: JetStreamBus, miner: str) -> None:
        question = canonical(MinerQuestion(miner=self.key(miner).address))
        while True:
            with contextlib.suppress(BusError, TimedOut):
                if isinstance(_answers.decode(await bus.query("miner", question)), QueryAnswer):
                    return
            await asyncio.sleep(LOOK_S)

    def _last_words(self, name: str) -> str:
        path = self.files.log_file(name)
        if not path.exists():
            return ""
        return "\n".join(path.read_text(errors="replace").splitlines()[-LAST_LINES:])

    async def _watch(self) -> None:
        """Starts again what has died."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            if self._server_wanted and not self.server.running():
                self._tell("the NATS server has died; it is started again")
                with contextlib.suppress(AssayError):
                    await self.server.start()
            for child in self._children.values():
                process = child.process
                if not child.wanted or process is None or process.running():
                    continue
                if not child.again_s:
                    calm = loop.time() - child.started_s > CALM_S
                    child.failures = 0 if calm else child.failures + 1
                    wait_ms = 0 if calm else backoff_ms(child.failures - 1)
                    child.again_s = loop.time() + wait_ms / 1_000
                    self._tell(f"{child.name} has ended with exit code {process.exit_code}; it is started again")
                if loop.time() >= child.again_s:
                    child.again_s = 0.0
                    self._spawn(child)

    async def _end(self, processes: list[BoundProcess]) -> None:
        for process in processes:
            process.signal(signal.SIGTERM)
        await asyncio.gather(*(_ended(process, STOP_S) for process in processes))
        for process in processes:
            if process.running():
                process.signal(signal.SIGKILL)
        await asyncio.gather(*(_ended(process, STOP_S) for process in processes))
        for process in processes:
            process.released()


async def _ended(process: BoundProcess, within_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while process.running() and loop.time() < deadline:  # noqa: ASYNC110  a process has no event
        await asyncio.sleep(0.005)
