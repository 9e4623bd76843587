"""Tampering with the read model of a node that then starts again and goes on."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from actors.queries import Queries
from events.canonical import canonical
from events.errors import AssayError, SequenceGap
from projections.chain import Chain
from projections.read_model import ReadModel
from projections.read_model_check import check_rows
from projections.read_model_feed import feed_messages
from schemas.genesis import Genesis
from tests.projections.small_network import SmallNetwork, key_of
from tests.projections.story import story
from tests.tampering.changes import BYTES
from tests.tampering.logs import other_chain
from tests.tampering.verdicts import Target, Verdict, found, harmless, silent

# When the node stops, so many blocks of the story are written; the last of all comes only after it has started again.
WRITTEN = len(story().finals) - 3
LOG_BEFORE_LAST = len(story().log) - 4

WHOLE = ("a page of another chain", "a page from earlier", "another chain's file", "an earlier file", "a foreign WAL")


async def _write(path: Path, network: SmallNetwork, blocks: int) -> None:
    model = await ReadModel.open(path, network.genesis)
    await model.restore()
    finals = network.finals[:blocks]
    await model.write(finals, finals[-1].commit_sequence, finals[-1].sequence)
    await model.set_mark("feed", 3)
    await model.close()
    vote = network.sign_vote_for(finals[-1].hash, key_of("validator 0"), finals[-1].header.height)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO votes VALUES (?, ?, ?)", (vote.vote.height, vote.vote.block, canonical(vote)))
    db.close()


def _file(network: SmallNetwork, blocks: int) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "node.db"
        asyncio.run(_write(path, network, blocks))
        return path.read_bytes()


@cache
def honest() -> bytes:
    return _file(story(), WRITTEN)


@cache
def foreign() -> bytes:
    return _file(other_chain(), 15)


@cache
def earlier() -> bytes:
    return _file(story(), 4)


def _pages(data: bytes, other: bytes, chance: Random) -> bytes:
    """A page of another file in the place of one."""
    size = 4_096
    page = size * chance.randrange(len(data) // size)
    start = size * chance.randrange(len(other) // size)
    return data[:page] + other[start : start + size] + data[page + size :]


def _edit(path: Path, chance: Random) -> str:
    """Changes a row by SQL: a value, a row less, a row more. What the tables forbid is tried in another way."""
    with sqlite3.connect(path) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        way = ""
        while not way:
            try:
                way = _edit_row(db, chance.choice(tables), chance)
            except sqlite3.IntegrityError:
                db.rollback()
    db.close()
    return way


def _edit_row(db: sqlite3.Connection, table: str, chance: Random) -> str:
    """Returns nothing for a table without rows."""
    rows = db.execute(f"SELECT * FROM {table}").fetchall()
    if not rows:
        return ""
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    row, index = list(chance.choice(rows)), chance.randrange(len(columns))
    way = chance.choice(("a value", "a value", "a value", "a row less", "a row more"))
    if way != "a row more":
        db.execute(f"DELETE FROM {table} WHERE " + " AND ".join(f"{name} IS ?" for name in columns), row)
    if way != "a row less":
        row[index] = _another(row[index], chance)
        db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    return f"{way} of {table}"


def _another(value: Any, chance: Random) -> Any:
    match value:
        case int():
            return value + chance.choice((1, -1, 1 << 24, 1 << 40))
        case str() | bytes():
            data = value.encode() if isinstance(value, str) else value
            place = chance.randrange(len(data) or 1)
            byte = bytes((chance.choice(b"0123456789abcdefABCDEF"),))
            byte = byte if data[place : place + 1] != byte else b"z"
            changed = data[:place] + byte + data[place + 1 :]
            return changed.decode(errors="replace") if isinstance(value, str) else changed
    return chance.choice((0, b"", "x"))


def attempt(chance: Random, directory: Path) -> tuple[str, Verdict]:
    """The file changed, exchanged, or edited by hand while the node is down."""
    path = directory / "node.db"
    way = chance.choice((*BYTES, *["a bit of content"] * 4, *["edited"] * 8, *WHOLE))
    data = honest()
    if way in BYTES:
        data = BYTES[way](data, chance)
    elif way == "a bit of content":
        place = chance.choice([index for index, byte in enumerate(data) if byte])
        data = data[:place] + bytes((data[place] ^ 1 << chance.randrange(8),)) + data[place + 1 :]
    elif way.startswith("a page"):
        data = _pages(data, foreign() if "another" in way else earlier(), chance)
    elif way == "another chain's file":
        data = foreign()
    elif way == "an earlier file":
        data = earlier()
    path.write_bytes(data)
    if way == "edited":
        way = _edit(path, chance)
    elif way == "a foreign WAL":
        path.with_name("node.db-wal").write_bytes(chance.choice((foreign(), chance.randbytes(9_000))))
    return way, asyncio.run(_judged(path))


async def _judged(path: Path) -> Verdict:
    """Starts a node on the file: opens it, asks everything, goes on with the log; then lets the check look at it."""
    copy = Path(shutil.copy(path, path.with_name("copy.db")))
    try:
        model = await ReadModel.open(path, story().genesis)
    except AssayError as error:
        return found(f"at the start: {type(error).__name__}")
    try:
        try:
            restored = await model.restore()
        except AssayError as error:
            return found(f"at the start: {type(error).__name__}")
        chain = Chain(story().genesis, state=restored.state, head=restored.head, commit=restored.votes)
        read = await _read_all(model, chain)
        ledger = await _gone_on(model, chain, restored.position, restored.last_block)
    finally:
        await model.close()
    if ledger is not None:
        return ledger
    if read is not None:
        return found(f"when it is read: {read}")
    return _check(copy)


def _check(path: Path) -> Verdict:
    try:
        check_rows(path, story().genesis, path.with_suffix(".rebuilt"))
    except AssayError as error:
        return found("by the check, and the ledger goes on as it should" if error.why else "")
    return harmless("the ledger goes on as it should, and so do the answers")


async def _gone_on(model: ReadModel, chain: Chain, position: int, last_block: int) -> Verdict | None:
    """Follows the log from where the file says it is, as a node does, and writes. None: the ledger is the right one."""
    if position > LOG_BEFORE_LAST:
        return found(f"by the reader of the log: {SequenceGap.__name__}")
    try:
        for sequence, kind, data in story().log[position:]:
            if kind == "block":
                last_block = sequence
            final = chain.add(sequence, kind, data, None)
            if final is not None:
                await model.write([final], final.commit_sequence, last_block)
    except AssayError as error:
        return found(f"by what comes next in the log: {type(error).__name__}")
    except AssertionError as error:
        if "written by somebody else" not in str(error):
            raise
        return found("when the next block is written")
    if chain.state.root() != story().chain.state.root():
        return silent(f"the ledger goes on at height {chain.height} with another root")
    return None


class _Node:
    """What `Queries` needs."""

    def __init__(self, model: ReadModel, chain: Chain, genesis: Genesis) -> None:
        self.read_model = model
        self.genesis = genesis
        self.chain = chain
        self.written = self

    @property
    def value(self) -> int:
        return self.chain.height


def _questions() -> Iterator[tuple[str, dict[str, object]]]:
    for final in story().finals[:WRITTEN]:
        yield "block", {"height": final.header.height}
        yield "block", {"hash": final.hash}
    for name in ("alice", "bob", "miner 0"):
        yield "events", {"address": key_of(name).address, "limit": 500}
        yield "account", {"address": key_of(name).address}
    for job in (story().settled, story().expired, story().cancelled, story().retried):
        yield "job", {"job": job}
    for what in ("status", "jobs", "miners", "blocks"):
        yield what, {}
    yield "headers", {"first": 1}
    yield "receipt", {"job": story().settled}
    yield "proof", {"event": story().failing.id}


async def _read_all(model: ReadModel, chain: Chain) -> str | None:
    """Asks for everything, as clients and the feed do; the kind of the first error that tells of damage."""
    handlers = Queries(_Node(model, chain, story().genesis)).handlers()  # type: ignore[arg-type]
    for what, fields in _questions():
        answer = await handlers[what](canonical(fields))
        if b'"code":"VERIFICATION_FAILED"' in answer:
            return "VerificationFailed"
    for height in range(1, WRITTEN + 1):
        try:
            await model.read(lambda db, height=height: feed_messages(db, height))  # type: ignore[misc]
        except AssayError as error:
            return type(error).__name__
    return None


ROWS = Target(name="read model", attempt=attempt, share=8)
