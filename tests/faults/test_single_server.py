"""One NATS server with the settings that we ship: what a crash may take, and what a server that forgets gets back."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from actors.devnet import NATS, Devnet
from bus.server import EmbeddedServer
from tests.faults.single_server import AGAIN_S, check, loaded, plan, put_back, reading, until, until_height, watched

# Always the smallest of each; all of them when asked for.
LONG = bool(os.environ.get("ASSAY_FAULTS"))
ROLLBACKS = [(1, "die too"), (3, "die too"), (3, "live on")]
PROPOSERS = [1, 3]


@pytest.fixture
def believing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes believe at once that the log is shorter than it was. (In a cluster a server that is cut off may say so for
    a while and be wrong; a single one is always right.)"""
    if not LONG:
        (tmp_path / "sitecustomize.py").write_text("from actors import lost_tail\n\nlost_tail.PATIENCE_MS = 0\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


async def kill_all(devnet: Devnet) -> None:
    """The server and every actor, for good."""
    for name in (NATS, *devnet.plan.actors()):
        await devnet.kill(name, for_good=True)


async def restart_actors(devnet: Devnet) -> None:
    await asyncio.gather(*(devnet.restart(name) for name in devnet.plan.actors()))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("proposers", "nodes"), ROLLBACKS if LONG else ROLLBACKS[:1])
@pytest.mark.usefixtures("believing")
async def test_a_server_that_has_lost_its_newest_messages_gets_them_back(
    tmp_path: Path, proposers: int, nodes: str
) -> None:
    """The server's files are put back to an earlier moment: what was final comes back from the validators' disks."""
    async with Devnet(tmp_path / "net", plan(proposers)) as devnet:
        assert isinstance(devnet.server, EmbeddedServer)
        store = devnet.server.directory / "jetstream"
        async with loaded(devnet) as (pulse, _):
            os.kill(devnet.server.pid, signal.SIGSTOP)
            shutil.copytree(store, tmp_path / "earlier")
            at = pulse.height
            os.kill(devnet.server.pid, signal.SIGCONT)
            await until_height(pulse, at + 10)
            await (kill_all(devnet) if nodes == "die too" else devnet.kill(NATS, for_good=True))
            before = dict(pulse.hashes)
        shutil.rmtree(store)
        (tmp_path / "earlier").rename(store)
        await devnet.restart(NATS)
        if nodes == "die too":
            await restart_actors(devnet)
        await check(devnet, before, tmp_path)
        # Ten came after the copy as far as the pulse had heard; the stopped server may have been a few ahead of it.
        assert put_back(devnet) >= 5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("proposers", PROPOSERS if LONG else PROPOSERS[:1])
async def test_kill_9_of_everything_loses_nothing(tmp_path: Path, proposers: int) -> None:
    """The operating system has what a killed server and killed nodes have written: what the log and the feeds have
    told is there as it was, and every event that the server has acknowledged becomes final."""
    async with Devnet(tmp_path / "net", plan(proposers)) as devnet:
        async with loaded(devnet) as (pulse, ledger), reading(devnet) as told:
            await until(pulse, lambda: all(told.values()))
            await kill_all(devnet)
        before, promised = dict(pulse.hashes), [each.event for each in ledger.acknowledged.values()]
        await devnet.restart(NATS)
        async with reading(devnet) as found, asyncio.timeout(AGAIN_S):
            for name, messages in told.items():
                while messages.keys() - found[name].keys():  # noqa: ASYNC110  readers in the background add to it
                    await asyncio.sleep(0.05)
                assert {sequence: found[name][sequence] for sequence in messages} == messages
        await restart_actors(devnet)
        final: set[tuple[str, int]] = set()
        async with watched(devnet, lambda sender, nonce: final.add((sender, nonce))) as pulse:
            await until(pulse, lambda: all((event.sender, event.nonce) in final for event in promised))
        await check(devnet, before, tmp_path)
