"""The devnet as a whole: processes that die, are started again, and end with their owner."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from actors.command_line.local import banner, stay
from actors.command_line.options import DISPLAY
from actors.command_line.output import Output
from actors.devnet import ActorFailed, Devnet
from actors.devnet_files import Files, Plan
from bus.jetstream import JetStreamBus
from events.canonical import canonical
from events.errors import NotFound, Unreachable
from schemas.messages import QueryAnswer
from tests.actors.command_line.devnet_process import (
    DevnetProcess,
    alive,
    command,
    environment,
    wait_until_dead,
)

SMALL = Plan(proposers=1, miners=1, wallet=False)


async def status(devnet: Devnet) -> dict[str, object]:
    bus = await JetStreamBus.connect(devnet.url, devnet.chain)
    try:
        answer = json.loads(await bus.query("status", canonical({}), 10_000))
    finally:
        await bus.close()
    assert answer["answer"] == QueryAnswer.__struct_config__.tag
    found: dict[str, object] = answer["value"]
    return found


async def when_answered(devnet: Devnet) -> dict[str, object]:
    """The status as soon as a node has found the server again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await status(devnet)
            except Unreachable:
                await asyncio.sleep(0.02)


async def test_killed_processes_come_back_and_the_chain_with_them(tmp_path: Path) -> None:
    """After `kill -9` an actor is started again; killed for good it stays down until `restart`; so does the server."""
    told: list[str] = []
    async with Devnet(tmp_path, SMALL, tell=told.append) as devnet:
        before = devnet.pids()
        assert all(before.values())
        assert (await status(devnet))["genesis"] == devnet.genesis_hash

        await devnet.kill("proposer-1")
        await devnet.ready("proposer-1")
        assert devnet.pid("proposer-1") not in {None, before["proposer-1"]}
        assert devnet.starts("proposer-1") == 2
        assert any("proposer-1 has ended with exit code -9" in line for line in told)

        await devnet.kill("miner-1", for_good=True)
        await devnet.restart("proposer-1")
        assert devnet.pid("miner-1") is None
        await devnet.restart("miner-1")
        assert devnet.pid("miner-1") is not None

        await devnet.restart("nats")
        found = await when_answered(devnet)
        assert found["height"] == found["events"] == 1
        with pytest.raises(NotFound):
            await devnet.kill("nobody")
        last = devnet.pids()
    assert wait_until_dead([pid for pid in last.values() if pid], 2) == []
    assert (tmp_path / "genesis.json").exists()


async def test_an_actor_that_cannot_start_is_named_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends before it is ready ends the devnet, with what it said."""
    monkeypatch.setattr(Files, "write_settings", lambda files, _url: [_spoil(files, name) for name in SMALL.actors()])
    with pytest.raises(ActorFailed, match="exit code 2") as raised:
        await Devnet(tmp_path, SMALL).start()
    assert "cannot be" in raised.value.why


def _spoil(files: Files, name: str) -> None:
    files.settings_file(name).write_text("nonsense")


def test_ctrl_c_ends_a_devnet_in_order(tmp_path: Path) -> None:
    """SIGINT ends every process before the devnet itself ends, with exit code 0, and throws the state away."""
    devnet = DevnetProcess(tmp_path, "--proposers", "3", "--miners", "2")
    try:
        pids, directory = devnet.pids, Path(devnet.banner["directory"])
        assert all(alive(pid) for pid in pids)
        assert (devnet.home / "context.json").exists()
        assert devnet.interrupt() == 0
        assert wait_until_dead(pids, 0) == []
        assert not directory.exists()
        assert not (devnet.home / "context.json").exists()
    finally:
        devnet.close()


async def test_ctrl_c_while_the_banner_is_printed_ends_it_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads the first line may interrupt before the rest of it is written."""
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Output, "one", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    async with Devnet(None, SMALL) as devnet:
        async with asyncio.timeout(10):
            await stay(devnet, Output(DISPLAY), *banner(devnet))
        assert not (tmp_path / "home" / "context.json").exists()


def test_the_processes_die_with_a_killed_devnet(tmp_path: Path) -> None:
    """After `kill -9` of the devnet itself none of its processes stays."""
    devnet = DevnetProcess(tmp_path, "--proposers", "1", "--miners", "1", "--directory", tmp_path / "net")
    try:
        pids = devnet.pids
        os.kill(devnet.process.pid, signal.SIGKILL)
        devnet.process.wait(timeout=10)
        assert wait_until_dead(pids, 5) == []
    finally:
        devnet.close()


async def test_a_kept_devnet_goes_on_where_it_was(tmp_path: Path) -> None:
    """Started again on its directory, it is the same chain at the same height, even after `kill -9` of everything."""
    async with Devnet(tmp_path, SMALL) as devnet:
        first = await status(devnet)
        for name in devnet.pids():
            await devnet.kill(name, for_good=True)
    async with Devnet(tmp_path, SMALL) as devnet:
        second = await status(devnet)
    assert (first["genesis"], first["height"], first["state_root"]) == (
        second["genesis"],
        second["height"],
        second["state_root"],
    )


def test_the_demo_ends_well(tmp_path: Path) -> None:
    """`assay demo` runs a stranger's client to a verified result and an audited log, in under a minute, exit code 0."""
    done = subprocess.run(
        command("demo", "-o", "json"),
        cwd=tmp_path,
        env=environment(tmp_path / ".assay"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["equals_numpy"] is True
    assert found["audit"]["passed"] is True
    before, after = found["balances"]["before"], found["balances"]["after"]
    assert after["client"] < before["client"]
    assert sum(after.values()) <= sum(before.values())
    for state in ("submitted", "assigned", "committed", "revealed", "settled"):
        assert f"job.{state}, applied" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_the_demo_can_leave_its_network_up(tmp_path: Path) -> None:
    """With --keep the demo's report has the network's banner, commands find the network, and Ctrl-C ends it."""
    demo = DevnetProcess(tmp_path, "--keep", verb="demo")
    try:
        found = demo.banner
        assert found["equals_numpy"] is True
        assert found["receipt"]["receipt"]["job_id"] == found["job"]
        height = found["block"]["header"]["height"]
        assert set(found["network"]["processes"]) == {
            *("nats", "proposer-1", "proposer-2", "proposer-3", "coordinator", "miner-1", "miner-2", "wallet")
        }
        pids = list(found["network"]["processes"].values())
        assert all(alive(pid) for pid in pids)
        words = command("block", str(height), "-o", "json")
        shown = subprocess.run(words, cwd=tmp_path, env=environment(demo.home), capture_output=True, check=True)
        assert json.loads(shown.stdout)["block"] == found["block"]
        assert demo.interrupt() == 0
        assert wait_until_dead(pids, 0) == []
    finally:
        demo.close()


async def test_two_networks_on_one_machine_do_not_meet(tmp_path: Path) -> None:
    """Two devnets run side by side, each with its own port and genesis."""
    async with Devnet(tmp_path / "a", SMALL) as first, Devnet(tmp_path / "b", SMALL) as second:
        assert first.url != second.url
        found = await asyncio.gather(status(first), status(second))
    assert found[0]["genesis"] != found[1]["genesis"]
