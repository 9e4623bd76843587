"""The power of a machine on which everything runs is cut: what was final is there again."""

import asyncio
import os
import signal
from pathlib import Path
from random import Random

import pytest
from msgspec import Struct

from actors.devnet import NATS, Devnet
from bus.jetstream import JetStreamBus
from bus.server import SYNC_INTERVAL, EmbeddedServer
from tests.faults.cluster import SmallDisk
from tests.faults.single_server import check, loaded, plan, put_back, until, watched

DISK_MIB = 512
SYNC_S = float(SYNC_INTERVAL.removesuffix("s"))
# The server syncs everything from time to time; a cut right after that takes nothing.
CUTS = 10


class Cut(Struct, frozen=True):
    """What somebody had read of the log, and what a cut has left: messages, and final blocks."""

    messages: int
    messages_left: int
    blocks: int
    blocks_left: int
    put_back: int


async def cut(directory: Path, proposers: int, random: Random) -> Cut:
    """Cuts the power of a network under load, some time after the server's first sync, and starts it again."""
    directory.mkdir()
    with SmallDisk(directory, DISK_MIB) as disk:
        async with Devnet(disk.path / "net", plan(proposers)) as devnet:
            os.sync()  # settings and keys are older than the last minute, elsewhere
            async with loaded(devnet) as (pulse, _):
                await asyncio.sleep(random.uniform(2 * SYNC_S, 3 * SYNC_S))
                pids = [pid for pid in devnet.pids().values() if pid is not None]
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                disk.cut_power()
                for name in devnet.plan.actors():
                    await devnet.kill(name, for_good=True)
                await devnet.kill(NATS, for_good=True)
            before, position = dict(pulse.hashes), pulse.position
            await devnet.stop()
        disk.restart()
        async with EmbeddedServer(disk.path / "net" / "nats") as alone:
            bus = await JetStreamBus.connect(alone.url, devnet.chain, name="end")
            end = await bus.chain_end()
            await bus.close()
            async with watched(devnet, url=alone.url) as left:
                await until(left, lambda: left.position >= end)
        async with Devnet(disk.path / "net", plan(proposers)) as devnet:
            await check(devnet, before, directory)
            return Cut(position, end, max(before), left.height, put_back(devnet))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.skipif(not SmallDisk.possible(), reason="needs root, for a disk whose power can be cut")
@pytest.mark.parametrize("proposers", [1, 3])
async def test_a_power_cut_takes_nothing_that_was_final(tmp_path: Path, proposers: int) -> None:
    """Everything runs on one disk; at a moment under load only what was synced remains of it. What somebody has seen
    final is there again after the restart: also where the cut has taken it from the log."""
    random = Random(proposers)
    cuts: list[Cut] = []
    while not cuts or cuts[-1].blocks - cuts[-1].blocks_left < 2:
        assert len(cuts) < CUTS, f"no cut has taken two final blocks: {cuts}"
        cuts.append(await cut(tmp_path / str(len(cuts)), proposers, random))
        print(cuts[-1])
    last = cuts[-1]
    assert 0 < last.messages_left < last.messages
    # Of the first that is not final any more the block may be there, and only votes are gone.
    assert last.put_back >= last.blocks - last.blocks_left - 1
