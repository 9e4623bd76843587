"""Three NATS servers on loopback, each with its own store, every line between them and to their clients cuttable."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any, Self

import nats.errors

from bus.bound_process import BoundProcess
from bus.client import TolerantClient
from bus.server import MAX_PAYLOAD, find_binary
from events.subjects import stream
from tests.faults.copies import Copy, read_copy
from tests.faults.proxy import Line

SERVERS = (1, 2, 3)
# Also on a machine that is busy with others.
START_S = 90.0
# Below those that systems give to outgoing connections.
PORTS = range(20_000, 32_000)
API_S = 5.0
COPY_TRIES = 3


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses at this moment, and that the system gives to nobody while their server is down."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in Random().sample(PORTS, 1_000):
            each = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                each.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no port is free")


class SmallDisk:
    """A file system of its own in a file, for a server whose disk shall be full. Needs root. ``with``."""

    def __init__(self, directory: Path, mebibytes: int) -> None:
        self.path = directory / "small-disk"
        self._image = directory / "small-disk.img"
        self._mebibytes = mebibytes

    @staticmethod
    def possible() -> bool:
        return os.geteuid() == 0 and Path("/dev/loop-control").exists()

    def __enter__(self) -> Self:
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(self._mebibytes * 2**20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(self._image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.path)], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=False)
        self._image.unlink(missing_ok=True)

    def fill(self) -> None:
        """Takes all room that is left."""
        with (self.path / "filler").open("wb", buffering=0) as filler:
            end = 0
            for size in (2**24, 2**20, 4_096):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(filler.fileno(), end, size)
                        end += size

    def clear(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)

    def cut_power(self) -> None:
        """What only the memory of this machine held is gone; the disk is as it would be found after a restart.

        Every process that has open files there must have been stopped, and killed by ``kill`` afterwards.
        """
        left = self._image.with_suffix(".left")
        shutil.copyfile(self._image, left)
        self._left = left

    def restart(self) -> None:
        """Mounts what `cut_power` has left. No process may be using the disk."""
        subprocess.run(["umount", str(self.path)], check=True)
        self._left.replace(self._image)
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.path)], check=True)


class Cluster:
    """A `bus.server.Server` of three processes. ``async with``; clients connect through lines to `url`."""

    def __init__(self, directory: Path, small_disk: SmallDisk | None = None) -> None:
        self.directory = directory
        self.small_disk = small_disk
        self._processes: dict[int, BoundProcess] = {}
        ports = free_ports(6)
        self._client_ports = dict(zip(SERVERS, ports[:3], strict=True))
        self._route_ports = dict(zip(SERVERS, ports[3:], strict=True))
        self.to_clients = {server: Line(self._client_ports[server]) for server in SERVERS}
        self.routes = {(one, other): Line(self._route_ports[other]) for one, other in permutations(SERVERS, 2)}
        self._lines = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{line.port}" for line in self.to_clients.values())

    @property
    def pid(self) -> int:
        return self._processes[1].pid

    def running(self) -> bool:
        """Whoever watches has nothing to do: servers are started again by those who end them."""
        return True

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def kill(self) -> None:
        raise AssertionError("say which server")

    async def __aenter__(self) -> Self:
        for line in (*self.to_clients.values(), *self.routes.values()):
            await self._lines.enter_async_context(line)
        for server in SERVERS:
            self.spawn(server)
        await self.until_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in SERVERS:
            await self.end(server)
        await self._lines.aclose()

    def store(self, server: int) -> Path:
        """Where a server keeps its streams. The last one's disk is the small one."""
        if self.small_disk is not None and server == SERVERS[-1]:
            return self.small_disk.path / "store"
        return self.directory / f"nats-{server}" / "store"

    def log_file(self, server: int) -> Path:
        return self.directory / f"nats-{server}" / "nats-server.log"

    def spawn(self, server: int) -> None:
        """Starts a server on what its store holds, unless it runs."""
        if server in self._processes:
            return
        home = self.directory / f"nats-{server}"
        home.mkdir(parents=True, exist_ok=True)
        routes = [f'"nats-route://127.0.0.1:{line.port}"' for (one, _), line in self.routes.items() if one == server]
        # The advertised address answers nobody: servers that hear of each other by gossip would go around the lines.
        (home / "nats-server.conf").write_text(f"""
server_name: nats-{server}
listen: "127.0.0.1:{self._client_ports[server]}"
max_payload: {MAX_PAYLOAD}
log_file: {json.dumps(str(self.log_file(server)))}
cluster {{
  name: assay
  listen: "127.0.0.1:{self._route_ports[server]}"
  advertise: "127.0.0.1:1"
  no_advertise: true
  routes: [{", ".join(routes)}]
}}
jetstream {{
  store_dir: {json.dumps(str(self.store(server)))}
  sync_interval: always
  max_file_store: 1TB
  max_memory_store: 256MB
}}
""")
        self._processes[server] = BoundProcess([str(find_binary()), "--config", str(home / "nats-server.conf")])

    async def end(self, server: int, number: int = signal.SIGKILL) -> None:
        """``kill -9``, or an orderly end."""
        process = self._processes.pop(server, None)
        if process is None:
            return
        process.signal(number)
        while process.running():  # noqa: ASYNC110  a process has no event
            await asyncio.sleep(0.002)
        process.released()

    def signal(self, server: int, number: int) -> None:
        """Does nothing to a server that is down."""
        if server in self._processes:
            self._processes[server].signal(number)

    # What an operator does. Not through the lines.

    @contextlib.asynccontextmanager
    async def operator(self, server: int | None = None) -> Any:
        """A plain connection: to one server, or to any that runs."""
        ports = [port for each, port in self._client_ports.items() if each == server or server is None]
        urls = [f"nats://127.0.0.1:{port}" for port in ports]

        async def quiet(_: Exception) -> None:
            return

        client = TolerantClient()
        try:
            await client.connect(urls, connect_timeout=1, max_reconnect_attempts=3, error_cb=quiet)
            yield client
        finally:
            await client.close()

    async def ask(self, subject: str, body: Any = None, server: int | None = None) -> dict[str, Any]:
        """JetStream's API."""
        async with self.operator(server) as client:
            data = b"" if body is None else json.dumps(body).encode()
            answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{subject}", data, API_S)).data)
            return answer

    async def leader(self, chain: str, kind: str = "CHAIN") -> int:
        """The server that leads a stream; 0 while none does."""
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            info = await self.ask(f"STREAM.INFO.{stream(chain, kind)}")
            return int(info.get("cluster", {}).get("leader", "nats-0").removeprefix("nats-"))
        return 0

    async def step_down(self, chain: str, kind: str) -> None:
        """The stream's leader leaves office."""
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await self.ask(f"STREAM.LEADER.STEPDOWN.{stream(chain, kind)}")

    async def until_ready(self) -> None:
        """Returns when JetStream answers. Raises TimeoutError."""
        async with asyncio.timeout(START_S):
            while True:
                with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                    if "error" not in await self.ask("INFO"):
                        return
                await asyncio.sleep(0.1)

    async def until_whole(self, chain: str) -> None:
        """Returns when every replica of the log is up to date. Raises TimeoutError."""
        async with asyncio.timeout(START_S):
            while True:
                with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                    cluster = (await self.ask(f"STREAM.INFO.{stream(chain, 'CHAIN')}"))["cluster"]
                    replicas = cluster.get("replicas", [])
                    if cluster.get("leader") and len(replicas) == 2 and all(each.get("current") for each in replicas):
                        return
                await asyncio.sleep(0.2)

    # What a disk does.

    def flip_bytes(self, server: int, chain: str, random: Random) -> str:
        """Changes bytes of the log in the store of a server that is down. Says where, if there is a file."""
        folder = self.store(server) / "jetstream" / "$G" / "streams" / stream(chain, "CHAIN") / "msgs"
        blocks = sorted((path for path in folder.glob("*.blk") if path.stat().st_size), key=lambda path: path.name)
        if not blocks:
            return ""
        path = random.choice(blocks)
        data = bytearray(path.read_bytes())
        place = random.randrange(len(data))
        for index in range(place, min(place + 8, len(data))):
            data[index] ^= 0xFF
        path.write_bytes(data)
        return f"{path.name} at {place} of {len(data)}"

    async def empty(self, server: int) -> None:
        """What an operator does with a server whose copy is damaged: it starts with nothing, and gets all anew."""
        await self.end(server)
        shutil.rmtree(self.store(server))
        self.spawn(server)
        await self.until_ready()

    async def led_by(self, chain: str, servers: list[int]) -> None:
        """Has one of these servers lead the log. Raises TimeoutError."""
        async with asyncio.timeout(START_S):
            while await self.leader(chain) not in servers:
                with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                    body = {"placement": {"preferred": f"nats-{servers[0]}"}}
                    await self.ask(f"STREAM.LEADER.STEPDOWN.{stream(chain, 'CHAIN')}", body)
                await asyncio.sleep(0.5)

    async def copies(self, chain: str) -> dict[int, Copy]:
        """The log as each server has it."""
        await self.until_whole(chain)
        last = (await self.ask(f"STREAM.INFO.{stream(chain, 'CHAIN')}"))["state"]["last_seq"]
        log = stream(chain, "CHAIN")
        async with self.operator() as client:
            return {server: await self._copy(client, log, f"nats-{server}", last) for server in SERVERS}

    async def _copy(self, client: Any, log: str, server: str, last: int) -> Copy:
        """A busy server may deliver late: only what it lacks each time is missing."""
        tries = [await read_copy(client, log, server, last)]
        while tries[-1].missing and len(tries) < COPY_TRIES:
            tries.append(await read_copy(client, log, server, last))
        return min(tries, key=lambda copy: len(copy.missing))

    async def heal(self, chain: str) -> tuple[dict[int, list[int]], dict[int, Copy]]:
        """Which messages servers' copies lack, and all copies when those were made anew from a whole one."""
        copies = await self.copies(chain)
        whole = [server for server, copy in copies.items() if not copy.missing]
        damaged = {server: copy.missing for server, copy in copies.items() if copy.missing}
        if not damaged or not whole:
            return damaged, copies
        for server in damaged:
            await self.led_by(chain, whole)
            await self.empty(server)
            async with asyncio.timeout(START_S):
                while (copies := await self.copies(chain))[server].missing:  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
        return damaged, copies
