"""`assay miner retire`: no new jobs, and those at hand go on."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.keystore import write_seed_file
from schemas.events import MinerRegistered
from schemas.state import Miner
from tests.actors.command_line.conftest import Run
from tests.actors.command_line.one_node import OneNode, one_node
from tests.projections.small_network import SmallNetwork, key_of

FEE = 10_000


@pytest.fixture
def node(home: Path, monkeypatch: pytest.MonkeyPatch) -> OneNode:
    """Two registered miners, and an assigned job of the first one, whose key is at hand as ``miner.seed``."""
    network = SmallNetwork()
    network.block(network.register("miner 0"), network.register("miner 1"))
    submitted = network.submit()
    network.block(submitted)
    network.block(network.assign(submitted.id))
    for name in ("miner 0", "alice"):
        write_seed_file(home / f"{name}.seed", key_of(name))
    return one_node(network, home, monkeypatch)


OWN = ("--seed-file", "miner 0.seed", "--yes")


def registered(node: OneNode) -> Miner:
    miner = node.network.chain.state.miner(key_of("miner 0").address)
    assert miner is not None
    return miner


def answer(ended: Any) -> Any:
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def finish(node: OneNode) -> None:
    """The miner ends the job that it has."""
    network = node.network
    (job_id,) = network.chain.state.unfinished_jobs()
    for step in (network.commit, network.reveal):
        network.block(step(job_id))
    network.block(network.settle(job_id))


def test_a_retired_miner_keeps_everything_but_its_capacity(assay: Run, node: OneNode) -> None:
    """Name, devices, prices, counters and the job at hand stay as they are; the answer has the event and its fee."""
    before = registered(node)
    found = answer(assay("miner", "retire", *OWN, "-o", "json"))
    (said,) = node.said
    assert isinstance(said.event, MinerRegistered)
    after = registered(node)
    assert (before.capacity, after.capacity, after.running) == (4, 0, 1)
    assert (after.name, after.devices, after.offers) == (before.name, before.devices, before.offers)
    assert after.registered_ms == before.registered_ms
    assert (found["event"], found["height"], found["fee"]) == (said.id, node.network.chain.height, FEE)
    assert (found["capacity"], found["running"], found["body"]["capacity"]) == (0, 1, 0)


def test_retiring_for_people(assay: Run, node: OneNode) -> None:
    """What it does, what it costs, how many jobs are left, and how to come back."""
    ended = assay("miner", "retire", *OWN)
    assert ended.code == 0, ended.err
    lines = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    assert lines[:3] == [["miner", "miner 0"], ["capacity", "0"], ["fee", "0.01 ASY"]]
    assert lines[-1] == ["running", "1"]
    assert "takes jobs again when its process starts again" in ended.err


def test_a_dry_run_changes_nothing(assay: Run, node: OneNode) -> None:
    """The event and its fee are shown; nothing is signed or sent."""
    found = answer(assay("miner", "retire", *OWN, "--dry-run", "--wait", "-o", "json"))
    assert (found["dry_run"], found["fee"], found["running"]) == (True, FEE, 1)
    assert (found["event"]["type"], found["event"]["capacity"]) == ("miner.registered", 0)
    assert node.said == []
    assert "no, --dry-run" in assay("miner", "retire", *OWN, "--dry-run").out
    assert registered(node).capacity == 4


def test_who_has_retired_already_is_told_so(assay: Run, node: OneNode) -> None:
    """No second event, no second fee."""
    assert assay("miner", "retire", *OWN).code == 0
    found = answer(assay("miner", "retire", *OWN, "-o", "json"))
    assert found == {"miner": key_of("miner 0").address, "capacity": 0, "running": 1}
    again = assay("miner", "retire", *OWN)
    assert (again.code, "0 already, nothing was sent" in again.out) == (0, True)
    assert len(node.said) == 1


def test_waiting_until_the_last_job_has_ended(assay: Run, node: OneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells how many are left, asks again, and returns with none."""
    ask = node.query

    async def query(what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        if what == "miner" and node.said and node.asked.count("miner") == 3:
            finish(node)
            await node.write()
        return await ask(what, data, timeout_ms)

    monkeypatch.setattr(node, "query", query)
    ended = assay("miner", "retire", *OWN, "--wait", "-o", "ndjson")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert (ended.code, lines[0], len(lines)) == (0, {"running": 1}, 2)
    assert (lines[1]["running"], lines[1]["body"]["capacity"]) == (0, 0)
    assert registered(node).settled == 1
    assert answer(assay("miner", "retire", *OWN, "--wait", "-o", "json"))["running"] == 0


def test_for_people_the_waiting_is_told_on_stderr(assay: Run, node: OneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number once."""
    ask = node.query

    async def query(what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        if what == "miner" and node.asked.count("miner") == 3:
            finish(node)
            await node.write()
        return await ask(what, data, timeout_ms)

    monkeypatch.setattr(node, "query", query)
    ended = assay("miner", "retire", *OWN, "--wait")
    assert ended.err.count("1 job has not ended yet") == 1
    assert ended.out.splitlines()[-1].split() == ["running", "0"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--seed-file", "alice.seed", "--yes"), 3, "is not a registered miner"),
        (("--seed-file", "nobody.seed"), 3, "no seed file"),
        ((), 4, "no key to sign with"),
        ((*OWN, "extra"), 2, "extra"),
    ],
)
def test_who_cannot_retire(assay: Run, node: OneNode, words: tuple[str, ...], code: int, said: str) -> None:
    """Each with its exit code, and nothing on stdout."""
    ended = assay("miner", "retire", *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert registered(node).capacity == 4
