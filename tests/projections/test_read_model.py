"""The read model: rows that follow from the log, a state that comes back, answers and their proofs."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.blocks import decode_vote, hash_of, sign_vote, vote_signature_holds
from events.canonical import canonical
from events.errors import BadInput, NotAllowed, NotFound, Unreachable, VerificationFailed, WrongNetwork
from events.receipts import receipt_signature_holds
from projections import read_model_queries as queries
from projections.chain import Chain, Final
from projections.proofs import verify_block, verify_bundle
from projections.read_model import ReadModel
from projections.read_model_feed import feed_messages
from projections.read_model_kept import kept_blocks
from schemas.blocks import Applied, Failed, SignedVote, TimerFired, Vote
from schemas.messages import FeedMessage
from schemas.state import Job, situation_of
from tests.projections.small_network import SmallNetwork, digest_of, key_of, make_genesis
from tests.projections.story import story

LOCAL_TABLES = ("votes", "marks", "kept")


def vote_for(block: str, height: int) -> SignedVote:
    """By the first validator."""
    key = key_of("validator 0")
    return sign_vote(Vote(block=block, chain=story().genesis.chain, height=height, validator=key.address), key)


async def write(model: ReadModel, finals: list[Final], batch: int = 1) -> None:
    for start in range(0, len(finals), batch):
        part = finals[start : start + batch]
        await model.write(part, part[-1].commit_sequence, part[-1].sequence)


@pytest.fixture
async def model(tmp_path: Path) -> AsyncIterator[ReadModel]:
    """A read model with the whole story."""
    opened = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    await opened.restore()
    await write(opened, story().finals, batch=4)
    yield opened
    await opened.close()


def dump(path: Path) -> list[str]:
    """Every row that follows from the log, as SQL."""
    with sqlite3.connect(path) as db:
        lines = [line for line in db.iterdump() if not any(f'"{table}"' in line for table in LOCAL_TABLES)]
    db.close()
    return lines


async def dumped(path: Path, batch: int) -> list[str]:
    opened = await ReadModel.open(path, story().genesis)
    await opened.restore()
    await write(opened, story().finals, batch)
    await opened.close()
    return dump(path)


async def test_batches_leave_no_trace_in_the_rows(tmp_path: Path) -> None:
    """Replaying the log gives the same rows, byte for byte, in whatever batches the blocks are written."""
    once = await dumped(tmp_path / "once.sqlite", batch=1)
    assert len(once) > 100
    assert await dumped(tmp_path / "batches.sqlite", batch=5) == once
    assert await dumped(tmp_path / "whole.sqlite", batch=1_000) == once


@pytest.mark.parametrize("stops", [(1,), (0, 3, 4), tuple(range(1, 18))])
async def test_the_rows_go_on_where_they_stopped(tmp_path: Path, stops: tuple[int, ...]) -> None:
    """A read model that is closed and opened again, anywhere, restores the state there and ends with the same rows."""
    path = tmp_path / "stops.sqlite"
    finals = story().finals
    done = 0
    for stop in (*stops, len(finals)):
        opened = await ReadModel.open(path, story().genesis)
        restored = await opened.restore()
        assert opened.height == done
        assert restored.position == (finals[done - 1].commit_sequence if done else 0)
        assert restored.last_block == (finals[done - 1].sequence if done else 0)
        assert restored.head == (finals[done - 1].header if done else None)
        assert restored.votes == (finals[done - 1].votes if done else ())
        await write(opened, finals[done:stop], batch=2)
        done = stop
        await opened.close()
    assert dump(path) == await dumped(tmp_path / "once.sqlite", batch=1)


async def test_addresses_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgetting the numbers of addresses, as is done to bound the memory, changes no row."""
    once = await dumped(tmp_path / "once.sqlite", batch=1)
    monkeypatch.setattr("projections.read_model_rows.MAX_NUMBERS", 1)
    assert await dumped(tmp_path / "forgetful.sqlite", batch=1) == once


async def test_a_chain_goes_on_from_restored_rows(tmp_path: Path) -> None:
    """A fold that starts from the rows at any height ends with the same state root as the fold from the genesis."""
    finals = story().finals
    for stop in (0, 4, 9, len(finals)):
        opened = await ReadModel.open(tmp_path / f"{stop}.sqlite", story().genesis)
        await opened.restore()
        await write(opened, finals[:stop], batch=3)
        restored = await opened.restore()
        await opened.close()
        chain = Chain(story().genesis, state=restored.state, head=restored.head, commit=restored.votes)
        found = [chain.add(*message, None) for message in story().log[restored.position :]]
        assert [final.hash for final in found if final] == [final.hash for final in finals[stop:]]
        assert chain.state.root() == finals[-1].header.state_root


async def test_another_genesis_is_refused(tmp_path: Path) -> None:
    """A file of another chain is not touched: opening it names both genesis hashes."""
    path = tmp_path / "node.sqlite"
    await (await ReadModel.open(path, story().genesis)).close()
    with pytest.raises(WrongNetwork, match="belongs to another chain") as caught:
        await ReadModel.open(path, make_genesis(validators=2))
    assert caught.value.data["found"] == story().chain.genesis_hash


async def test_another_format_is_rebuilt_and_keeps_the_votes(tmp_path: Path) -> None:
    """Rows of another format version are thrown away; the votes, which no log gives back, stay."""
    path = tmp_path / "node.sqlite"
    opened = await ReadModel.open(path, story().genesis)
    await opened.restore()
    await write(opened, story().finals)
    await opened.remember_vote(vote_for("a" * 64, 3), b"block")
    await opened.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = 999 WHERE key = 'format'")
    db.close()
    opened = await ReadModel.open(path, story().genesis)
    restored = await opened.restore()
    assert (opened.height, restored.position) == (0, 0)
    assert await opened.vote_of(3) == canonical(vote_for("a" * 64, 3))
    await write(opened, story().finals, batch=7)
    await opened.close()
    assert dump(path) == await dumped(tmp_path / "once.sqlite", batch=1)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET value = replace(value, '\"balance\":', '\"balance\":1') WHERE key LIKE 'account/%'",
        "DELETE FROM records WHERE key = 'supply'",
        "UPDATE records SET value = 'nonsense' WHERE key = 'supply'",
    ],
)
async def test_damaged_rows_are_not_believed(tmp_path: Path, damage: str) -> None:
    """Rows that do not give the head's state root stop the node, which says how to mend it."""
    path = tmp_path / "node.sqlite"
    opened = await ReadModel.open(path, story().genesis)
    await opened.restore()
    await write(opened, story().finals)
    await opened.close()
    with sqlite3.connect(path) as db:
        db.execute(damage)
    db.close()
    opened = await ReadModel.open(path, story().genesis)
    with pytest.raises(VerificationFailed) as caught:
        await opened.restore()
    await opened.close()
    assert "elete the file" in caught.value.hint


async def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    """A file that SQLite cannot read gives a typed error with a way out."""
    path = tmp_path / "node.sqlite"
    path.write_bytes(b"this is not a database" * 500)
    with pytest.raises(VerificationFailed, match="cannot be used") as caught:
        await ReadModel.open(path, story().genesis)
    assert "delete the file" in caught.value.hint
    with pytest.raises(VerificationFailed, match="cannot be used"):
        await ReadModel.open(tmp_path / "no such folder" / "node.sqlite", story().genesis)


async def test_blocks_are_written_in_order(model: ReadModel) -> None:
    """A block that does not follow on the rows is a broken invariant, and changes nothing."""
    with pytest.raises(AssertionError, match="cannot be written after"):
        await model.write([story().finals[2]], 1, 1)
    assert await model.read(queries.height) == len(story().finals)


async def test_two_writers_of_one_file_are_noticed(tmp_path: Path) -> None:
    """A second process on the same file does not get its rows in twice."""
    first = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    second = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    for opened in (first, second):
        await opened.restore()
    await write(first, story().finals[:1])
    with pytest.raises(AssertionError, match="somebody else"):
        await write(second, story().finals[:1])
    for opened in (first, second):
        await opened.close()


async def test_writing_comes_after_restoring(tmp_path: Path) -> None:
    """Without `restore` nobody knows what the rows hold: writing is a broken invariant."""
    opened = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    with pytest.raises(AssertionError, match="restore comes before"):
        await opened.write([], 0, 0)
    await opened.close()


async def test_a_closed_one_says_so(tmp_path: Path) -> None:
    """Who asks while it is being closed is told to ask again; it is neither damaged nor a fault of the code."""
    opened = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    await opened.restore()
    await opened.close()
    with pytest.raises(Unreachable, match="closed"):
        await opened.read(queries.status)
    with pytest.raises(Unreachable, match="closed"):
        await opened.vote_of(1)


async def test_nobody_votes_twice(model: ReadModel) -> None:
    """A vote is kept once; the same again is nothing new, another one for the height is refused."""
    vote = vote_for("b" * 64, 7)
    assert await model.vote_of(7) is None
    await model.remember_vote(vote, b"block")
    await model.remember_vote(vote, b"block")
    with pytest.raises(NotAllowed, match="voted at height 7 already"):
        await model.remember_vote(vote_for("c" * 64, 7), b"other")
    assert await model.vote_of(7) == canonical(vote)


async def test_the_round_of_the_newest_proposal_is_kept(tmp_path: Path) -> None:
    """The last one that was kept is there after a start, also when the rows begin again; none: zeros."""
    model = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    assert await model.newest_proposal() == (0, 0)
    for height, turn in ((3, 0), (3, 4), (5, 1)):
        await model.remember_proposal(height, turn)
        assert await model.newest_proposal() == (height, turn)
    await model.start_over(1)
    await model.close()
    model = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    assert await model.newest_proposal() == (5, 1)
    await model.close()


async def test_a_vote_is_kept_with_its_block_until_the_block_is_written(tmp_path: Path) -> None:
    """What a validator votes for is on its disk before it says so, and as long as no rows have taken its place."""
    model = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    await model.restore()
    first, second = story().finals[:2]
    votes = [vote_for(final.hash, final.header.height) for final in (first, second)]
    for final, vote in zip((first, second), votes, strict=True):
        await model.remember_vote(vote, final.block_bytes)
    await model.close()

    model = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    await model.restore()
    kept = await model.read(kept_blocks)
    assert [(each.height, each.hash, each.final) for each in kept.values()] == [
        (1, first.hash, False),
        (2, second.hash, False),
    ]
    assert kept[1].data == first.block_bytes
    assert kept[1].said(story().genesis.chain) == [canonical(votes[0])]
    await write(model, [first])
    assert list(await model.read(kept_blocks)) == [2]
    await model.remember_vote(votes[0], first.block_bytes)
    assert list(await model.read(kept_blocks)) == [2]
    await model.close()


async def test_lost_blocks_are_kept_when_the_rows_begin_again(tmp_path: Path) -> None:
    """A log that has lost its end: the rows go, the lost blocks stay as they stood in the log, with all their votes."""
    model = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    await model.restore()
    finals = story().finals
    await write(model, finals, batch=4)
    await model.set_mark("feed", len(finals))
    lost = len(finals) - 3
    await model.start_over(lost)
    restored = await model.restore()
    assert (restored.head, restored.position, model.height) == (None, 0, 0)
    assert await model.mark("feed") == lost - 1
    kept = await model.read(kept_blocks)
    assert list(kept) == [final.header.height for final in finals[lost - 1 :]]
    for final in finals[lost - 1 :]:
        each = kept[final.header.height]
        assert (each.hash, each.data, each.votes, each.final) == (final.hash, final.block_bytes, final.votes, True)
        signed = [decode_vote(data) for data in each.said(story().genesis.chain)]
        assert all(vote_signature_holds(vote) and vote.vote.block == final.hash for vote in signed)
        assert len(signed) == len(final.votes)
    await write(model, finals, batch=4)
    assert await model.read(kept_blocks) == {}
    await model.close()
    assert dump(tmp_path / "node.sqlite") == await dumped(tmp_path / "once.sqlite", batch=1)


async def test_marks_are_kept(model: ReadModel) -> None:
    """What reads the rows can note how far it has come."""
    assert await model.mark("feed") is None
    await model.set_mark("feed", 3)
    await model.set_mark("feed", 4)
    assert await model.mark("feed") == 4


# What can be asked.


async def test_status_counts_what_the_log_holds(model: ReadModel) -> None:
    """Height, head and counts are those of the log."""
    found = await model.read(lambda db: queries.status(db, story().genesis))
    last = story().finals[-1]
    outcomes = [outcome for final in story().finals for outcome in final.executed.outcomes]
    assert (found.height, found.head, found.state_root) == (last.header.height, last.hash, last.header.state_root)
    assert (found.time_ms, found.position) == (last.header.time_ms, last.commit_sequence)
    assert found.events == sum(len(final.events) for final in story().finals)
    assert found.failed == sum(isinstance(outcome, Failed) for outcome in outcomes) > 0
    assert found.timers == sum(isinstance(outcome, TimerFired) for outcome in outcomes) > 0
    assert found.miners == 2
    situations = [situation_of(job) for job in story().chain.state.jobs.values()]
    assert found.jobs == {name: situations.count(name) for name in sorted(dict.fromkeys(situations))}
    assert found.supply == story().chain.state.supply()


async def test_status_at_the_genesis(tmp_path: Path) -> None:
    """Before the first block the head is the genesis."""
    opened = await ReadModel.open(tmp_path / "node.sqlite", story().genesis)
    found = await opened.read(lambda db: queries.status(db, story().genesis))
    await opened.close()
    assert (found.height, found.head, found.time_ms) == (0, story().chain.genesis_hash, story().genesis.time_ms)
    assert found.state_root == Chain(story().genesis).state.root()


async def test_accounts_are_those_of_the_state(model: ReadModel) -> None:
    """Balance and nonce of an address; an unknown one is empty."""
    for name in ("alice", "bob", "carol", "coordinator", "stranger"):
        address = key_of(name).address
        found = await model.read(lambda db, address=address: queries.account(db, address))
        expected = msgspec.structs.asdict(story().chain.state.account(address))
        assert msgspec.structs.asdict(found) == {"address": address, **expected}


async def test_a_block_by_height_or_hash_in_pages(model: ReadModel) -> None:
    """Both ways give the same block, and its pages together all of its outcomes, which hash to the header's root."""
    final = story().finals[0]
    by_height = await model.read(lambda db: queries.block(db, 1))
    assert by_height == await model.read(lambda db: queries.block(db, final.hash))
    assert (by_height.block.header, by_height.block.votes) == (final.header, final.votes)
    outcomes, cursor = [], msgspec.UNSET
    while True:
        page = await model.read(lambda db, cursor=cursor: queries.block(db, 1, 3, cursor))
        outcomes += page.outcomes
        if page.next is msgspec.UNSET:
            break
        cursor = page.next
    assert tuple(outcomes) == final.executed.outcomes == by_height.outcomes
    with pytest.raises(BadInput, match="another block"):
        await model.read(lambda db: queries.block(db, 2, 3, "1.3"))


async def test_blocks_come_newest_first(model: ReadModel) -> None:
    """The pages together list every block once, from the head down."""
    found, cursor = [], msgspec.UNSET
    while True:
        page = await model.read(lambda db, cursor=cursor: queries.blocks(db, 4, cursor))
        found += [entry.hash for entry in page.blocks]
        if page.next is msgspec.UNSET:
            break
        cursor = page.next
    assert found == [final.hash for final in reversed(story().finals)]


async def test_headers_prove_themselves(model: ReadModel) -> None:
    """Headers upwards, each with the votes that make it final for whoever has the genesis."""
    found = await model.read(lambda db: queries.headers(db, 2, 5))
    assert [proof.header.height for proof in found] == [2, 3, 4, 5, 6]
    assert [verify_block(proof, story().genesis) for proof in found] == [hash_of(proof.header) for proof in found]


async def test_every_event_is_found_and_proven(model: ReadModel) -> None:
    """Each event has its bytes, its outcome, and a proof that holds without the chain."""
    for final in story().finals:
        for index, signed in enumerate(final.events):
            found = await model.read(lambda db, signed=signed: queries.event(db, signed.id))
            assert isinstance(found.envelope, msgspec.Raw)
            assert bytes(found.envelope) == signed.raw
            place = index + final.executed.timers
            assert (found.height, found.index) == (final.header.height, place)
            assert found.outcome == final.executed.outcomes[place]
            assert (found.time_ms, found.block) == (final.header.time_ms, final.hash)
            proof = await model.read(lambda db, signed=signed: queries.event_proof(db, signed.id))
            sent = msgspec.json.decode(canonical(proof), type=type(proof))
            assert verify_bundle(sent, story().genesis).event == signed


def history(network: SmallNetwork, address: str) -> list[tuple[int, int]]:
    """The naive way: applied events that name the address as sender, recipient or miner, and its own failed ones."""
    found = []
    for final in network.finals:
        for index, signed in enumerate(final.events, start=final.executed.timers):
            event = signed.event
            applied = isinstance(final.executed.outcomes[index], Applied)
            others = (getattr(event, "to", None), getattr(event, "miner", None)) if applied else ()
            if address in (event.sender, *others):
                found.append((final.header.height, index))
    return found[::-1]


@pytest.mark.parametrize("limit", [1, 3, 500])
async def test_the_history_of_an_address(model: ReadModel, limit: int) -> None:
    """An address' events come newest first, each once, whatever the size of the page."""
    address = key_of("carol").address
    assert await events_of(model, address, limit) == history(story(), address) != []
    address = key_of("bob").address
    assert await events_of(model, address, limit) == history(story(), address)
    assert await events_of(model, key_of("stranger").address, limit) == []


async def events_of(model: ReadModel, address: str, limit: int = 500) -> list[tuple[int, int]]:
    found, cursor = [], msgspec.UNSET
    while True:
        page = await model.read(lambda db, cursor=cursor: queries.events(db, address, limit, cursor))
        assert len(page.events) <= limit
        found += [(event.height, event.index) for event in page.events]
        if page.next is msgspec.UNSET:
            return found
        cursor = page.next


async def test_a_page_is_bounded_in_bytes(model: ReadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends before it outgrows a message, with at least one entry, and the next goes on there."""
    monkeypatch.setattr(queries, "MAX_PAGE_BYTES", 2_000)
    address = key_of("alice").address
    page = await model.read(lambda db: queries.events(db, address, 500))
    assert 0 < len(page.events) < 5
    assert await events_of(model, address) == await events_of(model, address, 1)


async def test_a_job_tells_how_it_came_there(model: ReadModel) -> None:
    """A job has its record and every event and timer that moved it, oldest first."""
    settled = await model.read(lambda db: queries.job(db, story().settled))
    assert settled.job == story().chain.state.job(story().settled)
    assert [kind_of(event) for event in settled.history] == [
        "job.submitted",
        "job.assigned",
        "job.committed",
        "job.revealed",
        "job.settled",
    ]
    retried = await model.read(lambda db: queries.job(db, story().retried))
    kinds = [kind_of(event) for event in retried.history]
    assert kinds == ["job.submitted", "job.assigned", "job.failed", "job.assigned", "timer"]
    expired = await model.read(lambda db: queries.job(db, story().expired))
    assert [kind_of(event) for event in expired.history] == ["job.submitted", "timer"]


def kind_of(event: Any) -> str:
    if isinstance(event.outcome, TimerFired):
        return "timer"
    return str(msgspec.json.decode(event.envelope)["body"]["type"])


@pytest.mark.parametrize("owner", [None, "alice", "bob"])
@pytest.mark.parametrize("situation", [None, "settled", "refunded", "cancelled", "open"])
async def test_jobs_by_owner_and_situation(model: ReadModel, owner: str | None, situation: str | None) -> None:
    """The list holds exactly the jobs asked for, newest first, in pages."""
    address = key_of(owner).address if owner else msgspec.UNSET
    wanted = situation or msgspec.UNSET

    def matches(job: Job) -> bool:
        return owner in (None, owner_name(job)) and situation in (None, situation_of(job))

    found, cursor = [], msgspec.UNSET
    while True:
        page = await model.read(lambda db, cursor=cursor: queries.jobs(db, address, wanted, 1, cursor))
        found += [(entry.id, entry.job) for entry in page.jobs]
        if page.next is msgspec.UNSET:
            break
        cursor = page.next
    jobs = {entry: job for entry, job in story().chain.state.jobs.items() if matches(job)}
    assert dict(found) == jobs
    assert len(found) == len(jobs)
    heights = [job.submitted_height for _, job in found]
    assert heights == sorted(heights, reverse=True)


def owner_name(job: Job) -> str:
    return "alice" if job.owner == key_of("alice").address else "bob"


async def test_a_receipt_holds_without_the_chain(model: ReadModel) -> None:
    """The receipt carries both signatures, and the event that settled the job is proven to be in a final block."""
    signed, proof = await model.read(lambda db: queries.receipt(db, story().settled))
    miner, coordinator = signed.signatures
    assert (miner.key_id, coordinator.key_id) == (key_of("miner 0").address, key_of("coordinator").address)
    for signature in signed.signatures:
        assert receipt_signature_holds(signed.receipt, signature.key_id, signature.sig)
    event = verify_bundle(proof, story().genesis).event.event
    assert (event.job, event.receipt_sig) == (story().settled, coordinator.sig)


async def test_miners_in_order_of_address(model: ReadModel) -> None:
    """All registered miners, in pages, and each by its address."""
    addresses = sorted(key_of(name).address for name in ("miner 0", "miner 1"))
    first = await model.read(lambda db: queries.miners(db, 1))
    assert [entry.address for entry in first.miners] == addresses[:1]
    assert first.next == addresses[1]
    second = await model.read(lambda db: queries.miners(db, 1, first.next))
    assert [entry.address for entry in second.miners] == addresses[1:]
    assert second.next is msgspec.UNSET
    found = await model.read(lambda db: queries.miner(db, addresses[0]))
    assert found.miner == story().chain.state.miner(addresses[0])


@pytest.mark.parametrize(
    "query",
    [
        lambda db: queries.block(db, 99),
        lambda db: queries.block(db, "a" * 64),
        lambda db: queries.event(db, "a" * 64),
        lambda db: queries.event_proof(db, "a" * 64),
        lambda db: queries.job(db, "a" * 64),
        lambda db: queries.miner(db, key_of("alice").address),
        lambda db: queries.receipt(db, "a" * 64),
        lambda db: queries.receipt(db, story().cancelled),
    ],
)
async def test_what_is_not_there_is_not_found(model: ReadModel, query: Callable[[sqlite3.Connection], Any]) -> None:
    """Asking for what no final block holds raises NotFound, and leaves the reader usable."""
    with pytest.raises(NotFound):
        await model.read(query)
    assert await model.read(queries.height) == len(story().finals)


# What the feed is made of.


async def test_the_feed_tells_everyone_concerned(model: ReadModel) -> None:
    """Each step of a job reaches its owner, miner and coordinator; a failed event reaches nobody but its sender."""
    names = {key_of(name).address: name for name in ("alice", "bob", "carol", "coordinator", "miner 0", "miner 1")}
    heard: dict[str, list[str]] = {}
    for height in range(1, len(story().finals) + 1):
        found = await model.read(lambda db, height=height: feed_messages(db, height))
        assert found is not None
        for address, data in found[1]:
            message = msgspec.json.decode(data, type=FeedMessage)
            final = story().finals[height - 1]
            assert (message.height, message.block, message.time_ms) == (height, final.hash, final.header.time_ms)
            for entry in message.entries:
                assert entry.outcome == final.executed.outcomes[entry.index]
                about = heard.setdefault(place(height, entry.index), [])
                about.append(names[address])
    story_of = {
        kind: sorted(heard[place(event.height, event.index)])
        for job in (story().settled, story().retried, story().expired)
        for event in (await model.read(lambda db, job=job: queries.job(db, job))).history
        for kind in [f"{name_of(job)} {kind_of(event)}"]
    }
    crowd = ["alice", "coordinator", "miner 0"]
    assert story_of == {
        "settled job.submitted": ["alice"],
        "settled job.assigned": crowd,
        "settled job.committed": crowd,
        "settled job.revealed": crowd,
        "settled job.settled": crowd,
        "retried job.submitted": ["alice"],
        "retried job.assigned": crowd,
        "retried job.failed": ["alice", "coordinator", "miner 1"],
        "retried timer": crowd,
        "expired job.submitted": ["alice"],
        "expired timer": ["alice"],
    }
    failing = await model.read(lambda db: queries.event(db, story().failing.id))
    assert heard[place(failing.height, failing.index)] == ["alice"]
    assert await model.read(lambda db: feed_messages(db, 99)) is None


def place(height: int, index: int) -> str:
    return f"{height}.{index}"


def name_of(job_id: str) -> str:
    return next(name for name in ("settled", "retried", "expired") if getattr(story(), name) == job_id)


async def test_feed_and_history_agree(model: ReadModel) -> None:
    """What an address' feed told it is what stands in its history."""
    told: dict[str, list[tuple[int, int]]] = {}
    for height in range(1, len(story().finals) + 1):
        found = await model.read(lambda db, height=height: feed_messages(db, height))
        assert found is not None
        for address, data in found[1]:
            entries = msgspec.json.decode(data, type=FeedMessage).entries
            told.setdefault(address, []).extend((height, entry.index) for entry in entries)
    assert len(told) >= 6
    for address, places in told.items():
        assert await events_of(model, address) == places[::-1]
    assert digest_of("a") not in told
