"""`assay miner earnings`: sums from the settled jobs of a chain, for people and for programs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from actors.keystore import write_seed_file
from schemas import queries
from schemas.blocks import Applied
from schemas.events import Device, JobSubmitted, MinerRegistered, Offer, Requirement
from schemas.services import Mandelbrot
from schemas.state import Settled
from tests.actors.command_line.conftest import Run
from tests.actors.command_line.one_node import OneNode, one_node
from tests.projections.small_network import SmallNetwork, key_of, make_genesis

MINER, OTHER = key_of("miner 0").address, key_of("miner 1").address
DAY_MS = 86_400_000
# 3.33 percent: of a price of 100 or 300 micro-ASY not a whole number.
BPS = 333


class Trade(SmallNetwork):
    """Two miners with two services; jobs of 1 and 10 units of one, and of 3 of the other, on two days."""

    def __init__(self) -> None:
        super().__init__(make_genesis(coordinator_bps=BPS))
        self.block(*(self.offer(name) for name in ("miner 0", "miner 1")))
        for side in (100, 100, 215):
            self.job(side=side)
        self.job("miner 1")
        self.block(self.transfer(), time_ms=self.chain.head.time_ms + DAY_MS)  # type: ignore[union-attr]
        self.job()
        picture = Mandelbrot(width=300, height=100, re=0, im=0, step=1 << 40, max_iterations=100)
        submitted = self.say(
            "alice",
            JobSubmitted,
            work=picture,
            escrow=1_000_000,
            lifetime_ms=60_000,
            timeout_ms=10_000,
            requirement=Requirement(memory_mib=0),
        )
        self.end(submitted)
        self.block(self.submit())

    def offer(self, name: str) -> Any:
        offers = tuple(Offer(service=service, unit_price=100) for service in ("mandelbrot", "matmul.int8"))
        devices = (Device(model="H200", memory_mib=144_384),)
        return self.say(name, MinerRegistered, name=name, capacity=4, devices=devices, offers=offers)

    def job(self, miner: str = "miner 0", **fields: Any) -> None:
        self.end(self.submit(**fields), miner)

    def end(self, submitted: Any, miner: str = "miner 0") -> None:
        self.block(submitted)
        for step in (self.assign, self.commit, self.reveal):
            self.block(step(submitted.id, miner))
        self.block(self.settle(submitted.id))


@pytest.fixture
def node(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OneNode:
    return one_node(Trade(), tmp_path, monkeypatch)


def answer(ended: Any) -> Any:
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_earnings_by_service(assay: Run, node: OneNode) -> None:
    """Jobs, units, price, the coordinators' share rounded down for each job, and what the miner got, in micro-ASY."""
    found = answer(assay("miner", "earnings", MINER, "-o", "json"))
    matmul = {"jobs": 4, "units": 13, "unit_type": "million_multiplications", "price": 1_300}
    assert found["earnings"] == [
        {
            "service": "mandelbrot",
            "jobs": 1,
            "units": 3,
            "unit_type": "million_iterations",
            "price": 300,
            "coordinators_share": 9,
            "earned": 291,
        },
        {"service": "matmul.int8", **matmul, "coordinators_share": 42, "earned": 1_258},
    ]
    assert found["total"] == {"jobs": 5, "price": 1_600, "coordinators_share": 51, "earned": 1_549}
    assert (found["address"], found["height"]) == (MINER, node.network.chain.height)


def test_they_are_what_the_settlements_have_paid(assay: Run, node: OneNode) -> None:
    """The sums are the changes of balances, and the counters of the state."""
    total = answer(assay("miner", "earnings", MINER, "-o", "json"))["total"]
    state = node.network.chain.state
    miner = state.miner(MINER)
    assert miner is not None
    assert (total["jobs"], total["earned"]) == (miner.settled, miner.earned)
    registration = 10_000
    assert state.account(MINER).balance == 1_000_000_000 - registration + total["earned"]
    other = answer(assay("miner", "earnings", OTHER, "-o", "json"))["total"]
    assert total["coordinators_share"] + other["coordinators_share"] == (
        state.account(key_of("coordinator").address).balance - 1_000_000_000
    )


def test_earnings_by_day(assay: Run, node: OneNode) -> None:
    """A line for each day in UTC and service; the sums stay."""
    found = answer(assay("miner", "earnings", MINER, "--by", "day", "-o", "json"))
    rows = [(row["day"], row["service"], row["jobs"], row["earned"]) for row in found["earnings"]]
    assert rows == [
        ("2025-06-15", "matmul.int8", 3, 1_200 - 3 - 3 - 33),
        ("2025-06-16", "mandelbrot", 1, 291),
        ("2025-06-16", "matmul.int8", 1, 97),
    ]
    assert found["total"] == answer(assay("miner", "earnings", MINER, "-o", "json"))["total"]


def test_earnings_since_a_day(assay: Run, node: OneNode) -> None:
    """What was paid before it is left out; nothing is left of days to come."""
    since = answer(assay("miner", "earnings", MINER, "--since", "2025-06-16", "-o", "json"))
    assert (since["since"], since["total"]["jobs"], since["total"]["earned"]) == ("2025-06-16", 2, 388)
    whole = answer(assay("miner", "earnings", MINER, "--since", "2025-06-15", "-o", "json"))
    assert whole["total"]["jobs"] == 5
    later = assay("miner", "earnings", MINER, "--since", "2025-06-17")
    assert later.code == 0
    assert "No job of this miner has been settled since 2025-06-17." in later.err


def test_earnings_for_people(assay: Run, node: OneNode) -> None:
    """A table, the sums below it, amounts in ASY, and nothing else on stdout."""
    ended = assay("miner", "earnings", MINER)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].split() == ["SERVICE", "JOBS", "UNITS", "OF", "PRICE", "COORDINATORS", "EARNED"]
    assert re.sub(" +", " ", lines[1]) == "mandelbrot 1 3 million_iterations 0.0003 ASY 0.000009 ASY 0.000291 ASY"
    assert len(lines) == 3 + 5
    assert "earned               0.001549 ASY" in lines
    assert assay("miner", "earnings", MINER, "--by", "day").out.startswith("DAY ")


def test_ndjson_is_the_same_on_one_line(assay: Run, node: OneNode) -> None:
    """One document."""
    ended = assay("miner", "earnings", MINER, "-o", "ndjson")
    assert ended.out.count("\n") == 1
    assert json.loads(ended.out) == answer(assay("miner", "earnings", MINER, "-o", "json"))


def test_without_an_address_they_are_ones_own(assay: Run, node: OneNode, home: Path) -> None:
    """The key names the miner."""
    seed = home / "miner.seed"
    write_seed_file(seed, key_of("miner 1"))
    found = answer(assay("miner", "earnings", "--seed-file", seed, "-o", "json"))
    assert (found["address"], found["total"]["jobs"]) == (OTHER, 1)


def test_the_history_comes_in_pages(assay: Run, node: OneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small they are, each job counts once, and blocks that come meanwhile do not count."""
    whole = answer(assay("miner", "earnings", MINER, "-o", "json"))
    monkeypatch.setattr(queries, "MAX_PAGE", 3)
    ask, network = node.query, node.network

    async def query(what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        if what == "events" and "events" not in node.asked:
            network.run_job()
            await node.write()
        return await ask(what, data, timeout_ms)

    node.asked.clear()
    monkeypatch.setattr(node, "query", query)
    assert answer(assay("miner", "earnings", MINER, "-o", "json")) == whole
    assert node.asked.count("events") > 5


def test_a_miner_that_is_a_client_too(assay: Run, node: OneNode) -> None:
    """What it has paid to others is not what it has earned."""
    before = answer(assay("miner", "earnings", MINER, "-o", "json"))["total"]
    network = node.network
    submitted = network.submit("miner 0")
    network.block(submitted)
    for step in (network.assign, network.commit, network.reveal):
        network.block(step(submitted.id, "miner 1"))
    network.block(network.settle(submitted.id))
    assert answer(assay("miner", "earnings", MINER, "-o", "json"))["total"] == before


def test_a_new_miner_has_earned_nothing_yet(assay: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros, and a sentence on stderr."""
    network = SmallNetwork()
    network.block(network.register("miner 0"))
    one_node(network, home, monkeypatch)
    ended = assay("miner", "earnings", MINER, "-o", "json")
    assert answer(ended)["total"] == {"jobs": 0, "price": 0, "coordinators_share": 0, "earned": 0}
    assert answer(ended)["earnings"] == []
    assert "No job of this miner has been settled yet." in ended.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((key_of("alice").address,), 3, "is not a registered miner"),
        (("not-an-address",), 2, "address"),
        ((), 4, "no key to sign with"),
        ((MINER, "--since", "2025-6-1"), 2, "is not a day"),
        ((MINER, "--since", "2025-02-30"), 2, "is not a day"),
        ((MINER, "--since", "yesterday"), 2, "Write it as 2026-01-31."),
        ((MINER, "--by", "week"), 2, "week"),
    ],
)
def test_what_earnings_cannot_be_asked(assay: Run, node: OneNode, words: tuple[str, ...], code: int, said: str) -> None:
    """Each with its exit code, and nothing on stdout."""
    ended = assay("miner", "earnings", *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_a_node_that_hides_a_job_is_found_out(assay: Run, node: OneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs have to add up to the miner's record in the state: exit code 7 where they do not."""
    hide(monkeypatch, lambda page: replace(page, events=page.events[4:]))
    ended = assay("miner", "earnings", MINER, "-o", "json")
    problem = json.loads(ended.err.splitlines()[-1])
    assert (ended.code, ended.out) == (7, "")
    assert "do not add up" in problem["title"] + problem["detail"]


def test_nodes_that_contradict_each_other_are_found_out(
    assay: Run, node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that one node has settled, and another one not."""
    from projections import read_model_queries

    ask = read_model_queries.job

    def job(db: Any, job_id: str) -> queries.JobAnswer:
        found = ask(db, job_id)
        assert isinstance(found.job.situation, Settled)
        unfinished = node.network.chain.state.unfinished_jobs()
        return replace(found, job=next(iter(unfinished.values())))

    monkeypatch.setattr(read_model_queries, "job", job)
    ended = assay("miner", "earnings", MINER)
    assert (ended.code, "contradict each other" in ended.err) == (7, True)


def hide(patch: pytest.MonkeyPatch, change: Any) -> None:
    """The node's answers about a history are changed on the way."""
    from projections import read_model_queries

    ask = read_model_queries.events

    def events(*question: Any) -> queries.EventsAnswer:
        found = ask(*question)
        assert isinstance(found.events[0].outcome, Applied)
        changed: queries.EventsAnswer = change(found)
        return changed

    patch.setattr(read_model_queries, "events", events)
