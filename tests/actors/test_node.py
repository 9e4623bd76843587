"""The full node: what it folds, writes, tells and answers, with crashes and lies in between."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from actors import node as node_module
from actors.feed import MARK
from actors.milestone import Milestone
from actors.node import Node
from actors.queries import MAX_QUESTION_BYTES, MAX_WAITING, Queries
from bus.port import ChainMessage, Limits
from bus.simulated import Faults, SimulatedBus, SimulatedNetwork
from events.canonical import canonical
from events.errors import Divergence, SequenceGap, Unreachable, VerificationFailed, WrongNetwork
from events.receipts import receipt_signature_holds
from projections.chain import Final
from projections.contest import Candidate
from projections.proofs import ProvenEvent, ProvenState, verify_block, verify_bundle
from projections.read_model import ReadModel
from projections.read_model_kept import kept_blocks
from schemas.genesis import Genesis
from schemas.messages import BlockProof, FeedMessage, ProofBundle, QueryAnswer, QueryRefused
from schemas.queries import (
    AccountAnswer,
    BlockAnswer,
    BlocksAnswer,
    EventAnswer,
    EventsAnswer,
    JobAnswer,
    JobsAnswer,
    MinerEntry,
    MinersAnswer,
    NonceAnswer,
    ReceiptAnswer,
    StatusAnswer,
)
from schemas.state import Account, Settled
from tests.projections.small_network import CHAIN, LogEntry, SmallNetwork, key_of, make_genesis
from tests.projections.story import story

Answer = TypeVar("Answer")


class LogClock:
    """Stands at the time of the log; waits are short."""

    def __init__(self, time_ms: int) -> None:
        self.time_ms = time_ms

    def now_ms(self) -> int:
        return self.time_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(min(duration_ms, 5_000) / 20_000)


class Flaky(Faults):
    """Cuts off whoever is named in ``cut``."""

    def __init__(self) -> None:
        self.cut: list[str] = []

    def cut_off(self, name: str) -> bool:
        return name in self.cut


class Place:
    """A simulated network for one chain, whose log is written by hand, and the nodes on it."""

    def __init__(self, folder: Path, genesis: Genesis) -> None:
        self.folder = folder
        self.genesis = genesis
        self.clock = LogClock(genesis.time_ms)
        self.faults = Flaky()
        self.network = SimulatedNetwork(self.clock, self.faults)
        self.bus = self.connect("tester")
        self.nodes: list[Node] = []

    def connect(self, name: str) -> SimulatedBus:
        return SimulatedBus(self.network, CHAIN, Limits(), name)

    async def append(self, log: list[LogEntry]) -> None:
        for sequence, kind, data in log:
            if kind == "block":
                self.clock.time_ms = msgspec.json.decode(data)["header"]["time_ms"]
            assert await self.bus.append("block" if kind == "block" else "vote", data) == sequence

    async def node(self, name: str = "node", **options: Any) -> Node:
        """Started, not caught up."""
        made = Node(self.connect(name), self.clock, self.genesis, self.folder / f"{name}.sqlite", **options)
        await made.start()
        self.nodes.append(made)
        return made

    async def kill(self, node: Node) -> None:
        """What `kill -9` leaves: the rows that were committed."""
        assert node._running is not None
        node._running.cancel()
        await asyncio.wait([node._running])
        await node.read_model.close()
        self.nodes.remove(node)

    async def ask(self, what: str, kind: type[Answer], **question: Any) -> tuple[int, Answer]:
        """The height and the value of the answer."""
        data = await self.bus.query(what, canonical(question))
        answer = msgspec.json.decode(data, type=QueryAnswer | QueryRefused)
        assert isinstance(answer, QueryAnswer), answer
        return answer.height, msgspec.json.decode(answer.value, type=kind)

    async def refused(self, what: str, data: bytes) -> str:
        """The code of the problem."""
        answer = msgspec.json.decode(await self.bus.query(what, data), type=QueryAnswer | QueryRefused)
        assert isinstance(answer, QueryRefused), answer
        assert answer.problem.detail
        return answer.problem.code


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path, story().genesis)
    await made.connect("setter").set_up(story().chain.genesis_hash, story().chain.validators.addresses)
    yield made
    for node in made.nodes:
        await node.stop()


@pytest.fixture
async def answering(place: Place) -> Place:
    """With the whole story in the log and in the rows of a node that answers questions."""
    await place.append(story().log)
    node = await place.node(serve_queries=True)
    await node.wait_written(len(story().finals))
    return place


LAST = len(story().finals)


# Following the log.


async def test_a_node_follows_the_log(place: Place) -> None:
    """A node that starts on a log folds all of it, one that is there already follows block by block: same state."""
    early = await place.node("early")
    await place.append(story().log)
    late = await place.node("late")
    for node in (early, late):
        await node.wait_height(LAST)
        await node.catch_up()
        assert (node.height, node.head) == (LAST, story().finals[-1].header)
        assert node.state.root() == story().chain.state.root()
        assert node.position == len(story().log)


@pytest.mark.parametrize("seed", range(6))
async def test_a_node_that_is_killed_goes_on_where_its_rows_are(place: Place, seed: int) -> None:
    """Killed at random moments and started again, a node ends with the state of one that was never killed."""
    chance = random.Random(seed)
    log = story().log
    done = 0
    while done < len(log):
        node = await place.node()
        step = chance.randint(1, 25)
        await place.append(log[done : done + step])
        done += step
        for _ in range(chance.randint(0, 30)):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            await node.catch_up()
        await place.kill(node)
    node = await place.node()
    await node.wait_written(LAST)
    assert node.state.root() == story().chain.state.root()


async def test_stopping_writes_what_is_folded(place: Place) -> None:
    """After `stop` nothing has to be folded again, and whoever waits learns that the node is gone."""
    await place.append(story().log)
    node = await place.node()
    await node.wait_height(LAST)
    waiting = asyncio.create_task(node.wait_height(LAST + 1))
    await asyncio.sleep(0)
    await node.stop()
    await node.join()
    with pytest.raises(Unreachable, match="stopped"):
        await waiting
    again = await place.node()
    assert (again.written.value, again.height) == (LAST, LAST)


async def test_what_the_proposer_needs_survives_a_restart(place: Place) -> None:
    """The fence, the sequence of the last message with a block, valid or not, is known after a restart."""
    nonsense = (len(story().log) + 1, "block", b"nonsense")
    await place.append([*story().log])
    node = await place.node()
    await node.wait_written(LAST)
    assert node.last_block == story().finals[-1].sequence
    await place.kill(node)
    place.clock.time_ms += 1
    assert await place.bus.append("block", nonsense[2]) == nonsense[0]
    again = await place.node()
    await again.catch_up()
    assert again.last_block == nonsense[0]
    assert again.chain.rejected[-1].sequence == nonsense[0]


async def test_a_lost_connection_is_taken_up_again(place: Place) -> None:
    """A node that was cut off goes on after its last message once the network is back."""
    node = await place.node()
    await place.append(story().log[:20])
    await node.catch_up()
    place.faults.cut.append("node")
    await place.append(story().log[20:])
    place.faults.cut.clear()
    await node.wait_height(LAST)
    assert node.state.root() == story().chain.state.root()


async def test_observers_and_followers_hear_everything(place: Place) -> None:
    """Every candidate comes before its final block, in order; a follower that is slow holds the node back, no more."""

    class Ears:
        def __init__(self) -> None:
            self.heard: list[tuple[str, int, str]] = []

        async def on_candidate(self, candidate: Candidate) -> None:
            self.heard.append(("candidate", candidate.header.height, candidate.hash))

        async def on_final(self, final: Final) -> None:
            self.heard.append(("final", final.header.height, final.hash))

    ears = Ears()
    node = Node(place.connect("node"), place.clock, place.genesis, place.folder / "node.sqlite")
    node.observe(ears)
    blocks = node.follow(capacity=2)
    idle = node.follow(capacity=1)
    await node.start()
    place.nodes.append(node)
    # Each block while its time is the server's: a candidate must be near it.
    for final in story().finals:
        before = story().finals[final.header.height - 2].commit_sequence if final.header.height > 1 else 0
        await place.append(story().log[before : final.commit_sequence])
        if final.header.height == 3:
            node.unfollow(idle)
        assert (await blocks.get()).hash == final.hash
        if final.header.height <= 2:
            idle.get_nowait()
    await node.wait_height(LAST)
    assert ears.heard == [
        (kind, final.header.height, final.hash) for final in story().finals for kind in ("candidate", "final")
    ]


async def test_the_fold_waits_for_the_rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little room for unwritten blocks the fold waits for the writer, and gets through all the same."""
    monkeypatch.setattr(node_module, "MAX_UNWRITTEN_BYTES", 1)
    monkeypatch.setattr(node_module, "MAX_TRANSACTION_BYTES", 1)
    await place.append(story().log)
    node = await place.node()
    await node.wait_written(LAST)
    assert node.state.root() == story().chain.state.root()


# What stops a node.


async def test_a_wrong_log_stops_the_node(place: Place) -> None:
    """When a quorum votes for a block that the log does not hold the node stops, and tells everyone who waits."""
    other = SmallNetwork(place.genesis)
    await place.append(story().log[: story().finals[0].commit_sequence])
    node = await place.node(serve_queries=True)
    await node.wait_height(1)
    waiting = asyncio.create_task(node.wait_height(5))
    for key in other.validators:
        vote = other.sign_vote_for("d" * 64, key, height=2)
        await place.bus.append("vote", canonical(vote))
    with pytest.raises(Divergence, match="height 2"):
        await node.join()
    with pytest.raises(Divergence):
        await waiting
    with pytest.raises(Divergence):
        await node.wait_height(5)
    await node.stop()
    assert node.height == 1


# A log that has lost its newest messages.


async def lose(place: Place, after: int) -> None:
    """All nodes are killed, and the log's messages behind this one are gone."""
    for node in list(place.nodes):
        await place.kill(node)
        if node._service is not None:
            await node._service.close()
    stream = place.network.stream(CHAIN, "CHAIN")
    for sequence in range(stream.last_sequence, after, -1):
        stream.drop(sequence)
    stream.last_sequence = after


@pytest.mark.parametrize("what", ["a vote", "a block", "several blocks", "everything"])
async def test_a_node_keeps_what_the_log_has_lost(place: Place, what: str) -> None:
    """It begins again with the log that there is, answers nothing, and is as before when the log is whole again."""
    await place.append(story().log)
    await (await place.node(serve_queries=True)).wait_written(LAST)
    newest = story().finals[-1]
    after = {
        "a vote": newest.commit_sequence - 1,
        "a block": newest.sequence - 1,
        "several blocks": story().finals[-4].sequence - 1,
        "everything": 0,
    }[what]
    await lose(place, after)
    height = sum(final.commit_sequence <= after for final in story().finals)

    node = await place.node(serve_queries=True)
    await node.read_up()
    assert node.height == height
    lost = [final.hash for final in story().finals[height:]]
    assert [kept.hash for kept in node.kept.values() if kept.height > height] == lost
    with pytest.raises(Unreachable):
        await place.bus.query("status", b"{}", 100)
    waiting = asyncio.create_task(node.catch_up())
    place.clock.time_ms += 3_600_000
    for _, kind, data in story().log[after:]:
        await place.bus.append("block" if kind == "block" else "vote", data)
    await waiting
    assert (node.height, node.chain.head_hash) == (LAST, newest.hash)
    await node.wait_written(LAST)
    assert (node.kept, await node.read_model.read(kept_blocks)) == ({}, {})
    while not place.network.doors.get(f"assay.{CHAIN}.query.status"):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert (await place.ask("status", StatusAnswer))[1].head == newest.hash


async def test_a_vote_said_again_does_not_stand_for_the_votes_that_are_gone(place: Place) -> None:
    """After a loss the same vote may come to stand where it stood, before the votes that stood before it are back."""
    await place.append(story().log)
    await (await place.node()).wait_written(LAST)
    newest = story().finals[-1]
    await lose(place, newest.sequence)
    for _ in range(newest.sequence, newest.commit_sequence):
        await place.bus.append("vote", story().log[newest.commit_sequence - 1][2])

    node = await place.node()
    await node.read_up()
    assert node.height == LAST - 1
    assert node.kept[LAST].hash == newest.hash


async def test_another_block_in_the_place_of_a_lost_one_stops_the_node(place: Place) -> None:
    """What was final here is not replaced: the node says at which height the log says something else."""
    await place.append(story().log)
    await (await place.node()).wait_written(LAST)
    after = story().finals[2].commit_sequence
    await lose(place, after)
    other = SmallNetwork(place.genesis)
    for _, kind, data in story().log[:after]:
        other.append(kind, data)
    other.block(other.transfer(sender="carol"))
    await place.append(other.log[after:])
    for _ in range(2):
        node = await place.node()
        with pytest.raises(Divergence, match="was final here") as caught:
            await node.join()
        assert caught.value.height == 4
        await node.stop()
        place.nodes.remove(node)


async def test_a_log_that_was_rewritten_meanwhile_stops_the_node(place: Place) -> None:
    """A node that goes on reading after a break compares what it has read last with what is there now."""
    await place.append(story().log[:10])
    node = await place.node()
    await node.read_up()
    node._newest = b"something else"
    await node._open_log()
    with pytest.raises(SequenceGap, match="rewritten"):
        await node._take(ChainMessage(10, "vote", story().log[9][2], 0))


async def test_a_hole_in_the_log_stops_the_node(place: Place) -> None:
    """A reader that skips a message is not believed."""

    class Skipping:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def next(self, limit: int, wait_ms: int) -> list[Any]:
            found: list[Any] = await self.inner.next(limit, wait_ms)
            return [message for message in found if message.sequence != 7]

        async def close(self) -> None:
            await self.inner.close()

    class SkippingBus(SimulatedBus):
        async def read_chain(self, after: int) -> Any:
            return Skipping(await super().read_chain(after))

    await place.append(story().log)
    bus = SkippingBus(place.network, CHAIN, Limits(), "skipping")
    node = Node(bus, place.clock, place.genesis, place.folder / "node.sqlite")
    await node.start()
    with pytest.raises(SequenceGap, match="hole after message 6"):
        await node.join()
    await node.stop()


async def test_another_genesis_is_refused(place: Place) -> None:
    """A node with another genesis starts neither on these streams nor on this file."""
    other = make_genesis(validators=2)
    stranger = Node(place.connect("node"), place.clock, other, place.folder / "other.sqlite")
    with pytest.raises(WrongNetwork):
        await stranger.start()
    await stranger.stop()
    await (await ReadModel.open(place.folder / "node.sqlite", other)).close()
    with pytest.raises(WrongNetwork):
        await place.node()


async def test_a_damaged_file_stops_the_node_at_its_start(place: Place) -> None:
    """Rows that are not the state of their head are not gone on from."""
    model = await ReadModel.open(place.folder / "node.sqlite", place.genesis)
    await model._writer.apply(lambda db: db.execute("DELETE FROM records WHERE key = 'supply'").fetchall())
    await model.close()
    with pytest.raises(VerificationFailed):
        await place.node()


async def test_a_node_that_was_not_started_can_be_stopped(place: Place) -> None:
    """Stopping needs no start; joining does."""
    node = Node(place.connect("node"), place.clock, place.genesis, place.folder / "node.sqlite")
    await node.stop()
    with pytest.raises(AssertionError, match="not been started"):
        await node.join()


# What it answers.


async def test_questions_about_accounts(answering: Place) -> None:
    """Balance and nonce by final blocks, at the height of the answer."""
    alice = key_of("alice").address
    expected = story().chain.state.account(alice)
    height, account = await answering.ask("account", AccountAnswer, address=alice)
    assert height == LAST
    assert account == AccountAnswer(address=alice, **msgspec.structs.asdict(expected))
    assert await answering.ask("nonce", NonceAnswer, address=alice) == (
        LAST,
        NonceAnswer(address=alice, nonce=expected.nonce),
    )
    _, nobody = await answering.ask("account", AccountAnswer, address=key_of("stranger").address)
    assert (nobody.balance, nobody.nonce) == (0, 0)


async def test_questions_about_the_chain(answering: Place) -> None:
    """Status, blocks, headers and the genesis."""
    last = story().finals[-1]
    _, status = await answering.ask("status", StatusAnswer)
    assert (status.chain, status.height, status.head) == (CHAIN, LAST, last.hash)
    _, block = await answering.ask("block", BlockAnswer, height=LAST)
    assert (_, block) == await answering.ask("block", BlockAnswer, hash=last.hash)
    assert (block.block.hash, block.outcomes) == (last.hash, last.executed.outcomes)
    _, blocks = await answering.ask("blocks", BlocksAnswer, limit=2)
    assert [entry.header.height for entry in blocks.blocks] == [LAST, LAST - 1]
    _, older = await answering.ask("blocks", BlocksAnswer, limit=2, cursor=blocks.next)
    assert [entry.header.height for entry in older.blocks] == [LAST - 2, LAST - 3]
    _, headers = await answering.ask("headers", tuple[BlockProof, ...], first=1, limit=3)
    assert [verify_block(proof, answering.genesis) for proof in headers] == [final.hash for final in story().finals[:3]]
    assert await answering.ask("genesis", Genesis) == (LAST, answering.genesis)


async def test_questions_about_jobs_miners_and_events(answering: Place) -> None:
    """A job with its history, lists of jobs, miners, one event, and all events of an address."""
    _, job = await answering.ask("job", JobAnswer, job=story().settled)
    assert isinstance(job.job.situation, Settled)
    assert len(job.history) == 5
    _, jobs = await answering.ask("jobs", JobsAnswer, owner=key_of("alice").address, situation="settled")
    assert [entry.id for entry in jobs.jobs] == [story().settled]
    _, miners = await answering.ask("miners", MinersAnswer, limit=1)
    _, miner = await answering.ask("miner", MinerEntry, miner=miners.next)
    assert (len(miners.miners), miner.address) == (1, miners.next)
    _, event = await answering.ask("event", EventAnswer, event=story().failing.id)
    assert isinstance(event.envelope, msgspec.Raw)
    assert bytes(event.envelope) == story().failing.raw
    _, events = await answering.ask("events", EventsAnswer, address=key_of("carol").address)
    assert len(events.events) == 1


async def test_a_receipt_checks_offline(answering: Place) -> None:
    """With nothing but the genesis: both signatures, the final block with the settling event, and the settled job."""
    _, answer = await answering.ask("receipt", ReceiptAnswer, job=story().settled)
    for signature in answer.receipt.signatures:
        assert receipt_signature_holds(answer.receipt.receipt, signature.key_id, signature.sig)
    event = verify_bundle(answer.inclusion, answering.genesis)
    assert isinstance(event, ProvenEvent)
    assert event.event.event.job == story().settled
    state = verify_bundle(answer.settlement, answering.genesis)
    assert isinstance(state, ProvenState)
    assert state.key == f"job/{story().settled}"
    assert state.value == canonical(story().chain.state.job(story().settled))


async def test_proofs_check_offline(answering: Place) -> None:
    """A record, the absence of one, and an event are each proven by the genesis alone; a changed value is not."""
    alice = key_of("alice").address
    _, present = await answering.ask("proof", ProofBundle, key=f"account/{alice}")
    proven = verify_bundle(present, answering.genesis)
    assert isinstance(proven, ProvenState)
    assert proven.value == canonical(story().chain.state.account(alice))
    _, absent = await answering.ask("proof", ProofBundle, key="job/" + "0" * 64)
    nothing = verify_bundle(absent, answering.genesis)
    assert isinstance(nothing, ProvenState)
    assert nothing.value is None
    _, included = await answering.ask("proof", ProofBundle, event=story().failing.id)
    event = verify_bundle(included, answering.genesis)
    assert isinstance(event, ProvenEvent)
    assert event.event == story().failing
    assert not isinstance(present.state, msgspec.UnsetType)
    forged = msgspec.structs.replace(present.state, value=msgspec.Raw(canonical(Account(balance=10**15))))
    with pytest.raises(VerificationFailed):
        verify_bundle(msgspec.structs.replace(present, state=forged), answering.genesis)


BAD_QUESTIONS = [
    ("account", b"", "BAD_INPUT"),
    ("account", b"nonsense", "BAD_INPUT"),
    ("account", b"\xff\xfe", "BAD_INPUT"),
    ("account", b"[" * 4_000, "BAD_INPUT"),
    ("account", b'{"address":"U123"}', "BAD_INPUT"),
    ("account", b'{"address":1}', "BAD_INPUT"),
    ("status", b'{"unknown":1}', "BAD_INPUT"),
    ("status", b'{"min_height":-1}', "BAD_INPUT"),
    ("status", b" " * (MAX_QUESTION_BYTES + 1), "BAD_INPUT"),
    ("blocks", b'{"limit":0}', "BAD_INPUT"),
    ("blocks", b'{"limit":501}', "BAD_INPUT"),
    ("blocks", b'{"cursor":"a"}', "BAD_INPUT"),
    ("blocks", b'{"cursor":"1.2.3"}', "BAD_INPUT"),
    ("jobs", b'{"situation":"lost"}', "BAD_INPUT"),
    ("blocks", b'{"cursor":"9999999999999999"}', "BAD_INPUT"),
    ("events", b'{"address":"' + key_of("alice").address.encode() + b'","cursor":"1.99999999"}', "BAD_INPUT"),
    ("jobs", b'{"cursor":"9999999999999999.99999999"}', "BAD_INPUT"),
    ("block", b"{}", "BAD_INPUT"),
    ("block", b'{"height":1,"hash":"' + b"a" * 64 + b'"}', "BAD_INPUT"),
    ("block", b'{"height":99}', "NOT_FOUND"),
    ("block", b'{"hash":"' + b"a" * 64 + b'"}', "NOT_FOUND"),
    ("event", b'{"event":"' + b"a" * 64 + b'"}', "NOT_FOUND"),
    ("job", b'{"job":"' + b"a" * 64 + b'"}', "NOT_FOUND"),
    ("receipt", b'{"job":"' + b"a" * 64 + b'"}', "NOT_FOUND"),
    ("miner", b'{"miner":"' + key_of("alice").address.encode() + b'"}', "NOT_FOUND"),
    ("proof", b"{}", "BAD_INPUT"),
    ("proof", b'{"key":"secrets"}', "BAD_INPUT"),
    ("proof", b'{"event":"' + b"a" * 64 + b'"}', "NOT_FOUND"),
    ("status", b'{"min_height":99}', "TIMED_OUT"),
]


@pytest.mark.parametrize(("what", "question", "code"), BAD_QUESTIONS)
async def test_bad_questions_get_a_problem(
    answering: Place, what: str, question: bytes, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question that cannot be answered is answered with a code, and the node goes on."""
    monkeypatch.setattr("actors.queries.MAX_WAIT_MS", 10)
    assert await answering.refused(what, question) == code
    assert (await answering.ask("status", StatusAnswer))[1].height == LAST


async def test_nothing_is_proven_at_the_genesis(place: Place) -> None:
    """Before the first block there is no header to prove anything against."""
    await place.node(serve_queries=True)
    assert await place.refused("proof", b'{"key":"supply"}') == "NOT_FOUND"
    assert (await place.ask("status", StatusAnswer))[1].height == 0


async def test_a_question_can_wait_for_a_height(place: Place) -> None:
    """An answer with `min_height` is not older than that, on a node that is still behind when it is asked."""
    await place.node(serve_queries=True)
    asked = asyncio.create_task(place.ask("status", StatusAnswer, min_height=3))
    await asyncio.sleep(0)
    await place.append(story().log[: story().finals[3].commit_sequence])
    assert (await asked)[0] >= 3


async def test_questions_that_wait_are_bounded(answering: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for heights that never come takes no place from those who ask for what is there."""
    monkeypatch.setattr("actors.queries.MAX_WAIT_MS", 600_000)
    ask = Queries(answering.nodes[0]).handlers()["status"]
    hanging = [asyncio.ensure_future(ask(b'{"min_height":99}')) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    assert msgspec.json.decode(await ask(b'{"min_height":99}'), type=QueryRefused).problem.code == "TIMED_OUT"
    assert msgspec.json.decode(await ask(b'{"min_height":1}'), type=QueryAnswer).height == LAST
    assert not any(task.done() for task in hanging)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


# The feed.


async def feed_of(place: Place, name: str) -> list[FeedMessage]:
    reader = await place.bus.read_feed(key_of(name).address, 0)
    found = await reader.next(1_000, 0)
    await reader.close()
    return [msgspec.json.decode(record.data, type=FeedMessage) for record in found]


async def published(node: Node, height: int) -> None:
    assert node.feed is not None
    await node.feed.published.reached(height)


async def test_the_feed_is_published_once_by_several_nodes(place: Place) -> None:
    """Light actors hear, in order and once per block, what concerns them, though two nodes publish it."""
    await place.append(story().log)
    first, second = await place.node("first", publish_feed=True), await place.node("second", publish_feed=True)
    await published(first, LAST)
    await published(second, LAST)
    miner = [message.height for message in await feed_of(place, "miner 0")]
    assert miner == sorted(dict.fromkeys(miner))
    carol = await feed_of(place, "carol")
    assert [(message.height, len(message.entries)) for message in carol] == [(1, 1)]
    assert await feed_of(place, "stranger") == []


@pytest.mark.parametrize("seed", range(3))
async def test_the_feed_has_no_hole_after_crashes(place: Place, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is killed while it publishes says again what may be missing, and leaves nothing out."""
    monkeypatch.setattr("actors.feed.BLOCKS_PER_MARK", 2)
    chance = random.Random(seed)
    await place.append(story().log)
    height = 0
    while height < LAST:
        node = await place.node(publish_feed=True)
        assert node.feed is not None
        await published(node, min(LAST, height + chance.randint(1, 5)))
        height = node.feed.published.value
        await place.kill(node)
    expected = {final.header.height for final in story().finals if concerns(final, "alice")}
    assert {message.height for message in await feed_of(place, "alice")} >= expected
    model = await ReadModel.open(place.folder / "node.sqlite", place.genesis)
    assert await model.mark(MARK) is not None
    await model.close()


def concerns(final: Final, name: str) -> bool:
    address = key_of(name).address
    return any(address in (signed.event.sender, getattr(signed.event, "to", "")) for signed in final.events)


async def test_the_feed_waits_for_the_network(place: Place) -> None:
    """What cannot be published now is published later; the fold does not wait for it."""
    away = asyncio.Event()

    class AwayBus(SimulatedBus):
        async def publish_feed(self, messages: list[tuple[str, str, bytes]]) -> None:
            if not away.is_set():
                raise Unreachable("the network is away")
            await super().publish_feed(messages)

    await place.append(story().log)
    bus = AwayBus(place.network, CHAIN, Limits(), "node")
    node = Node(bus, place.clock, place.genesis, place.folder / "node.sqlite", publish_feed=True)
    await node.start()
    place.nodes.append(node)
    await node.wait_written(LAST)
    assert await feed_of(place, "carol") == []
    away.set()
    await published(node, LAST)
    assert [message.height for message in await feed_of(place, "carol")] == [1]


async def test_what_feed_keeps_no_more_is_not_published(place: Place) -> None:
    """Blocks older than FEED keeps messages are passed over."""
    await place.append(story().log)
    place.clock.time_ms += Limits().feed_age_s * 1_000 + 60_000
    node = await place.node(publish_feed=True)
    await published(node, LAST)
    assert await feed_of(place, "alice") == []


# The milestones that others wait at.


async def test_a_milestone_wakes_whoever_it_reaches() -> None:
    """Waits end when their value is reached, in any order; a failure ends those that are left, and later ones."""
    milestone = Milestone(3)
    await milestone.reached(2)
    waits = [asyncio.create_task(milestone.reached(value)) for value in (5, 4, 9)]
    abandoned = asyncio.create_task(milestone.reached(8))
    await asyncio.sleep(0)
    abandoned.cancel()
    milestone.advance(5)
    milestone.advance(4)
    assert milestone.value == 5
    await asyncio.gather(*waits[:2])
    milestone.fail(Unreachable("gone"))
    with pytest.raises(Unreachable):
        await waits[2]
    with pytest.raises(Unreachable):
        await milestone.reached(6)
    await milestone.reached(5)
