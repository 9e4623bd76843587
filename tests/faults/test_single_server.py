"""One NATS server with the settings that we ship: what a crash and a power cut may take, and how it is mended."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.devnet import NATS, Devnet
from actors.devnet_files import Plan
from bus.jetstream import JetStreamBus
from bus.server import EmbeddedServer
from projections.audit import audit_file
from tests.end_to_end.client import Client, ask_wallet, seeded_work
from tests.faults.cluster import SmallDisk
from tests.faults.load import Load
from tests.faults.pulse import Pulse
from tests.faults.verdict import export

RATE = 400.0
SENDERS = 8
AGAIN_S = 60.0


@contextlib.asynccontextmanager
async def watched(devnet: Devnet, load: Load | None = None) -> AsyncIterator[Pulse]:
    """Reads the log from its beginning."""
    bus = await JetStreamBus.connect(devnet.url, devnet.chain, name="pulse")
    note = load.note_final if load is not None else lambda sender, nonce: None
    async with Pulse(bus, devnet.genesis_hash, devnet.plan.proposers, note) as pulse:
        yield pulse
    await bus.close()


async def until_height(pulse: Pulse, height: int) -> None:
    """Returns when the block of this height is in the log, and final."""
    async with asyncio.timeout(AGAIN_S):
        while pulse.height < height:
            if (failure := pulse.failure()) is not None:
                raise failure
            await asyncio.sleep(0.05)


async def work(devnet: Devnet, number: int) -> None:
    """One job from a client, one through the wallet, until both are settled."""
    bus = await JetStreamBus.connect(devnet.url, devnet.chain, name="client")
    nonce = json.loads(await bus.query("nonce", json.dumps({"address": devnet.key().address}).encode()))["value"][
        "nonce"
    ]
    client = Client(bus, devnet.key(), nonce)
    job = client.job(seeded_work(2 * number))
    await client.submit(job)
    wallet = devnet.key("wallet").address
    other = await ask_wallet(bus, wallet, f"job {number}", seeded_work(2 * number + 1))
    async with asyncio.timeout(AGAIN_S):
        for name in (job.id, other):
            situation = ""
            while situation != "settled":
                await asyncio.sleep(0.1)
                found = json.loads(await bus.query("job", json.dumps({"job": name}).encode()))
                situation = found["value"]["job"]["situation"]["situation"] if found["answer"] == "found" else ""
    await bus.close()


async def check(devnet: Devnet, before: dict[int, str], directory: Path) -> None:
    """Every block that somebody has seen final is in the log, as it was; the network works; the audit passes."""
    async with watched(devnet) as pulse:
        await until_height(pulse, max(before))
        assert {height: pulse.hashes[height] for height in before} == before
        await work(devnet, max(before))
    bus = await JetStreamBus.connect(devnet.url, devnet.chain, name="audit")
    await export(bus, devnet, directory / "log.ndjson")
    await bus.close()
    assert audit_file(directory / "log.ndjson").passed


def put_back(devnet: Devnet) -> int:
    """How many blocks validators say to have put back into the log."""
    names = [name for name in devnet.plan.actors() if name.startswith("proposer-")]
    return sum(devnet.files.log_file(name).read_text().count("put a block back") for name in names)


def plan(proposers: int = 3) -> Plan:
    return Plan(proposers=proposers, miners=1, extra_clients=SENDERS)


@contextlib.asynccontextmanager
async def loaded(devnet: Devnet) -> AsyncIterator[Pulse]:
    """Transfers are on their way, and somebody watches."""
    load = Load(devnet, list(devnet.plan.clients()[1:]), RATE)
    async with watched(devnet, load) as pulse:
        loading = asyncio.create_task(load.run())
        try:
            await until_height(pulse, pulse.height + 10)
            yield pulse
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("proposers", "nodes"), [(1, "die too"), (3, "die too"), (3, "live on")])
async def test_a_server_that_has_lost_its_newest_messages_gets_them_back(
    tmp_path: Path, proposers: int, nodes: str
) -> None:
    """The server's files are put back to an earlier moment: what was final comes back from the validators' disks."""
    async with Devnet(tmp_path / "net", plan(proposers)) as devnet:
        assert isinstance(devnet.server, EmbeddedServer)
        store = devnet.server.directory / "jetstream"
        async with loaded(devnet) as pulse:
            os.kill(devnet.server.pid, signal.SIGSTOP)
            shutil.copytree(store, tmp_path / "earlier")
            at = pulse.height
            os.kill(devnet.server.pid, signal.SIGCONT)
            await until_height(pulse, at + 10)
            await devnet.kill(NATS, for_good=True)
            if nodes == "die too":
                for name in devnet.plan.actors():
                    await devnet.kill(name, for_good=True)
            before = dict(pulse.hashes)
        shutil.rmtree(store)
        (tmp_path / "earlier").rename(store)
        await devnet.restart(NATS)
        if nodes == "die too":
            await asyncio.gather(*(devnet.restart(name) for name in devnet.plan.actors()))
        await check(devnet, before, tmp_path)
        # Ten came after the copy as far as the pulse had heard; the stopped server may have been a few ahead of it.
        assert put_back(devnet) >= 5


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not SmallDisk.possible(), reason="needs root, for a disk whose power can be cut")
@pytest.mark.parametrize("proposers", [1, 3])
async def test_a_power_cut_takes_nothing_that_was_final(tmp_path: Path, proposers: int) -> None:
    """Everything runs on one disk; at a moment under load only what was synced remains of it. What somebody has seen
    final is there again after the restart."""
    with SmallDisk(tmp_path, 512) as disk:
        async with Devnet(disk.path / "net", plan(proposers)) as devnet:
            os.sync()  # settings and keys are older than the last minute, elsewhere
            async with loaded(devnet) as pulse:
                pids = [pid for pid in devnet.pids().values() if pid is not None]
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                disk.cut_power()
                for name in devnet.plan.actors():
                    await devnet.kill(name, for_good=True)
                await devnet.kill(NATS, for_good=True)
                before = dict(pulse.hashes)
            await devnet.stop()
        disk.restart()
        async with Devnet(disk.path / "net", plan(proposers)) as devnet:
            await check(devnet, before, tmp_path)
            print(f"{len(before)} blocks were final, {put_back(devnet)} had to be put back")


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_kill_9_of_everything_loses_nothing(tmp_path: Path) -> None:
    """The operating system has what a killed server and killed nodes have written: not even a message is lost."""
    async with Devnet(tmp_path / "net", plan()) as devnet:
        async with loaded(devnet) as pulse:
            for name in (NATS, *devnet.plan.actors()):
                await devnet.kill(name, for_good=True)
            before, position = dict(pulse.hashes), pulse.position
        await devnet.restart(NATS)
        bus = await JetStreamBus.connect(devnet.url, devnet.chain, name="end")
        assert await bus.chain_end() >= position
        await bus.close()
        await asyncio.gather(*(devnet.restart(name) for name in devnet.plan.actors()))
        await check(devnet, before, tmp_path)
