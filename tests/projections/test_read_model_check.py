"""Damage to a read model: found when the file is opened, when a row is read, or by the check that derives all of it."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from events.canonical import canonical
from events.errors import VerificationFailed
from projections import read_model_queries as queries
from projections.read_model import ReadModel
from projections.read_model_check import check_rows
from projections.read_model_feed import feed_messages
from tests.projections.small_network import key_of, make_genesis
from tests.projections.story import story

ALICE = key_of("alice").address


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A right file with the whole story, with a vote and a mark of its node. Copy it."""
    path = tmp_path_factory.mktemp("rows") / "whole.sqlite"

    async def write() -> None:
        model = await ReadModel.open(path, story().genesis)
        await model.restore()
        finals = story().finals
        await model.write(finals, finals[-1].commit_sequence, finals[-1].sequence)
        await model.set_mark("feed", 3)
        await model.close()

    asyncio.run(write())
    final = story().finals[-1]
    vote = story().sign_vote_for(final.hash, key_of("validator 0"), final.header.height)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO votes VALUES (?, ?, ?)", (vote.vote.height, vote.vote.block, canonical(vote)))
    db.close()
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "node.sqlite"))


def edit(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        assert db.execute(statement).rowcount != 0
    db.close()


def checked(path: Path) -> int:
    return check_rows(path, story().genesis, path.with_suffix(".rebuilt"))


def test_an_honest_file_passes(path: Path) -> None:
    """Everything in it follows from its blocks; the check tells how far it is."""
    heights: list[int] = []
    beside = path.with_suffix(".rebuilt")
    height = story().chain.height
    assert check_rows(path, story().genesis, beside, heights.append) == height
    assert heights == list(range(1, height + 1))


async def test_a_file_at_the_genesis_passes(tmp_path: Path) -> None:
    """Before the first block there is nothing to derive but the genesis' own records."""
    path = tmp_path / "node.sqlite"
    await (await ReadModel.open(path, story().genesis)).close()
    assert checked(path) == 0


EDITS = {
    "an outcome": "UPDATE events SET outcome = CAST(replace(outcome, 'INS', 'ins') AS BLOB) WHERE outcome IS NOT NULL",
    "a fee": "UPDATE events SET fee = fee + 1 WHERE place = (SELECT max(place) FROM events)",
    "an address concerned": "UPDATE events SET beyond = NULL WHERE beyond IS NOT NULL",
    "an envelope's signature": "UPDATE events SET raw = CAST(replace(raw, '\"}', 'A\"}') AS BLOB) WHERE raw NOT NULL",
    "an event lost": "DELETE FROM events WHERE place = (SELECT max(place) FROM events)",
    "an event too many": "INSERT INTO events SELECT max(place) + 1, NULL, 0, NULL, NULL, NULL FROM events",
    "a header": "UPDATE blocks SET header = CAST(replace(header, '\"gas\":', '\"gas\":1') AS BLOB) WHERE height = 2",
    "a hash": "UPDATE blocks SET hash = zeroblob(32) WHERE height = 2",
    "a block's signature": "UPDATE blocks SET sig = replace(sig, 'A', 'B') WHERE height = 1",
    "votes": "UPDATE blocks SET votes = CAST('[]' AS BLOB) WHERE height = 3",
    "a place in the log": "UPDATE blocks SET sequence = 1 WHERE height = 4",
    "a count of timers": "UPDATE blocks SET timers = timers + 1 WHERE height = 5",
    "a history": "DELETE FROM participants WHERE place = (SELECT min(place) FROM participants)",
    "a history too long": "INSERT INTO participants SELECT 1, max(place) FROM events",
    "an address": "UPDATE addresses SET address = 'nobody' WHERE number = 1",
    "a job's owner": "UPDATE jobs SET owner = 'nobody'",
    "a job's history": "DELETE FROM job_events",
    "a receipt": "UPDATE receipts SET receipt = CAST(replace(receipt, '\"price\":', '\"price\":1') AS BLOB)",
    "a counter": "UPDATE counts SET number = number + 1 WHERE name = 'events'",
    "a record": "DELETE FROM records WHERE key = 'supply'",
    "the genesis": "UPDATE meta SET value = 'x' WHERE key = 'genesis'",
    "the format": "UPDATE meta SET value = 0 WHERE key = 'format'",
    "the place": "UPDATE meta SET value = 1 WHERE key = 'position'",
    "no place": "DELETE FROM meta WHERE key = 'position'",
    "another type": "UPDATE blocks SET header = 5 WHERE height = 2",
    "an own vote": "UPDATE votes SET height = height + 1",
    "an own vote's signature": 'UPDATE votes SET data = CAST(replace(data, \'"sig":"\', \'"sig":"A\') AS BLOB)',
    "an own block": "INSERT INTO proposals VALUES (1, 5, -1)",
    "a mark": "UPDATE marks SET height = 1000",
    "a lost table": "DROP TABLE counts",
}


@pytest.mark.parametrize("name", EDITS)
def test_every_edited_row_is_found(path: Path, name: str) -> None:
    """A row that was changed, lost or added by hand does not pass the check, in whatever table it is."""
    edit(path, EDITS[name])
    with pytest.raises(VerificationFailed, match="the read model is") as caught:
        checked(path)
    assert caught.value.why
    assert "elete the file" in caught.value.hint


def test_a_file_of_another_chain_does_not_pass(path: Path) -> None:
    """The check is against one genesis."""
    with pytest.raises(VerificationFailed, match="its genesis is"):
        check_rows(path, make_genesis(validators=2), path.with_suffix(".rebuilt"))


@pytest.mark.parametrize(
    "statement",
    [
        EDITS["no place"],
        EDITS["the place"],
        "UPDATE meta SET value = 'x' WHERE key = 'height'",
        "UPDATE meta SET value = value - 1 WHERE key = 'height'",
        "DELETE FROM blocks WHERE height = 2",
        "UPDATE blocks SET height = 1000 WHERE height = (SELECT max(height) FROM blocks)",
        "UPDATE blocks SET hash = zeroblob(32) WHERE height = (SELECT max(height) FROM blocks)",
        "UPDATE blocks SET header = 5",
        "UPDATE blocks SET height = -height WHERE height IN (1, (SELECT max(height) FROM blocks))",
        "UPDATE blocks SET votes = CAST('{}' AS BLOB)",
        "UPDATE records SET key = x'41' WHERE key = 'supply'",
        "UPDATE records SET value = x'41' WHERE key = 'supply'",
    ],
)
async def test_a_damaged_head_is_found_at_the_start(path: Path, statement: str) -> None:
    """What a node goes on from is looked at before it goes on: its place, and its newest block."""
    edit(path, statement)
    model = await ReadModel.open(path, story().genesis)
    with pytest.raises(VerificationFailed, match="damaged") as caught:
        await model.restore()
    await model.close()
    assert "elete the file" in caught.value.hint


async def test_a_damaged_schema_is_told_in_words(path: Path) -> None:
    """SQLite quotes the damaged words in its error; that they are no text does not matter."""
    data = path.read_bytes()
    assert data.count(b"CREATE TABLE counts") == 1
    path.write_bytes(data.replace(b"CREATE TABLE counts", b"CREATE T\xa9BLE counts"))
    with pytest.raises(VerificationFailed, match="cannot be used"):
        await ReadModel.open(path, story().genesis)


SETTLED, FAILING = story().settled, story().failing.id
READ: dict[str, tuple[str, Callable[[sqlite3.Connection], Any]]] = {
    "a header": (EDITS["a header"], lambda db: queries.block(db, 2)),
    "a hash": (EDITS["a hash"], lambda db: queries.blocks(db, 100)),
    "the headers": (EDITS["a hash"], lambda db: queries.headers(db, 1, 100)),
    "votes": ("UPDATE blocks SET votes = CAST('{' AS BLOB)", lambda db: queries.block(db, 1)),
    "a count": ("UPDATE blocks SET events = 'x'", lambda db: queries.block(db, 1)),
    "an envelope": (
        "UPDATE events SET raw = CAST(replace(raw, 'amount', 'Amount') AS BLOB)",
        lambda db: queries.event(db, FAILING),
    ),
    "the id of an event": (
        "UPDATE events SET id = zeroblob(32) WHERE place = (SELECT max(place) FROM events WHERE id NOT NULL)",
        lambda db: queries.events(db, key_of("bob").address, 50),
    ),
    "a neighbour": (
        "UPDATE events SET raw = CAST(replace(raw, 'amount', 'Amount') AS BLOB) WHERE place & 16777215 = 1",
        lambda db: queries.event_proof(db, FAILING),
    ),
    "an outcome": ("UPDATE events SET outcome = CAST('{}' AS BLOB)", lambda db: queries.event(db, FAILING)),
    "a fee": ("UPDATE events SET fee = 'x', outcome = NULL", lambda db: queries.event(db, FAILING)),
    "an account": ("UPDATE records SET value = 'x'", lambda db: queries.account(db, ALICE)),
    "a job": ("UPDATE records SET value = 5", lambda db: queries.job(db, SETTLED)),
    "a miner": ("UPDATE records SET value = 5.5", lambda db: queries.miners(db, 5)),
    "the supply": ("DELETE FROM records", lambda db: queries.status(db, story().genesis)),
    "a receipt": ("UPDATE receipts SET receipt = '{}'", lambda db: queries.receipt(db, SETTLED)),
    "the place of a receipt": (
        "UPDATE receipts SET place = place + 1",
        lambda db: queries.receipt(db, SETTLED),
    ),
    "a name of a count": (
        "UPDATE counts SET name = CAST(name AS BLOB)",
        lambda db: queries.status(db, story().genesis),
    ),
    "the height": ("DELETE FROM meta", queries.height),
    "a message of the feed": (
        "UPDATE events SET raw = CAST(replace(raw, 'amount', 'Amount') AS BLOB)",
        lambda db: feed_messages(db, 1),
    ),
    "a block of the feed": (EDITS["a header"], lambda db: feed_messages(db, 2)),
}


@pytest.mark.parametrize("name", READ)
async def test_what_has_a_digest_is_compared_when_it_is_read(path: Path, name: str) -> None:
    """A node does not hand out a header or an envelope that is another than its hash or id says, nor what is no
    record: whoever asks gets the error."""
    statement, query = READ[name]
    model = await ReadModel.open(path, story().genesis)
    await model.restore()
    await model.read(query)
    edit(path, statement)
    with pytest.raises(VerificationFailed, match="damaged") as caught:
        await model.read(query)
    await model.close()
    assert "elete the file" in caught.value.hint


async def test_a_block_is_not_written_over_damaged_rows(tmp_path: Path) -> None:
    """Where the row of a job that goes on is gone, nothing is written."""
    path = tmp_path / "node.sqlite"
    finals = story().finals
    model = await ReadModel.open(path, story().genesis)
    await model.restore()
    await model.write(finals[:4], finals[3].commit_sequence, finals[3].sequence)
    edit(path, "DELETE FROM jobs")
    with pytest.raises(VerificationFailed, match="there is no job"):
        await model.write(finals[4:], finals[-1].commit_sequence, finals[-1].sequence)
    await model.close()
