"""The read model: final blocks as rows of one SQLite file, owned by one process.

Rows and the height they are at are written in one transaction. Everything but four small tables (the votes that this
node has cast, the round of its newest block, marks of how far others have read, and `projections.read_model_kept`)
follows from the log: deleting the file and replaying gives the same rows, in whatever batches the blocks are written.
The file runs with ``synchronous=NORMAL``: a crash of the process loses nothing, and a loss of power may lose the newest
transactions, which are then read from the log again. A vote is synced to the disk before it is said, with the block
that it is for, for the log might lose both; and the round of a block before the block is appended.

What a node believes of its file: the state, once its root is that of the newest block's header, which is compared when
the file is opened; and a header or an envelope, once it has the hash or id that names it, which is compared whenever
it is read. Nothing else in the file changes the ledger. Outcomes, histories and counts are served as they are stored;
`projections.read_model_check` derives all of it again.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite
import msgspec
from msgspec import Struct

from events.blocks import genesis_hash
from events.canonical import canonical
from events.errors import AssayError, NotAllowed, Unreachable, VerificationFailed, WrongNetwork
from projections.chain import Final as FinalBlock
from projections.concerns import Concerns
from projections.read_model_kept import keep_lost, keep_voted
from projections.read_model_rows import Rows, write_rows
from projections.read_model_stored import REBUILD, damaged, stored_bytes, stored_header, stored_number, stored_record
from projections.read_model_tables import DERIVED_TABLES, FORMAT, SCHEMA
from projections.state import State
from schemas.blocks import Commit, Header, SignedVote
from schemas.genesis import Genesis

Answer = TypeVar("Answer")

# Pages of the write-ahead log between two checkpoints, 16 MiB: a page that many blocks touch is copied back less often.
LARGE_LOG: Final = "PRAGMA wal_autocheckpoint=4000"
_votes_decoder = msgspec.json.Decoder(Commit)


# Of a damaged schema SQLite tells in words that hold its bytes, which may be no text.
UNUSABLE: Final = (sqlite3.Error, UnicodeDecodeError)


class Restored(Struct, frozen=True):
    """Where the read model stands: no ``head`` and no ``votes`` at height 0.

    ``position`` is the sequence in CHAIN to go on after, ``last_block`` that of the last message up to there which is a
    block, valid or not: the fence for the next one.
    """

    state: State
    head: Header | None
    votes: Commit
    position: int
    last_block: int


class Connection(aiosqlite.Connection):
    """Runs whole functions in the connection's thread, so that a transaction costs one change of threads.

    A process that fails does not wait for the thread: what is not committed is as if it had never been begun.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=64)
        self._thread.daemon = True
        self._closing = False

    async def open(self) -> None:
        """Starts the thread and connects. After an error the thread has ended."""
        try:
            await self
        except UNUSABLE:
            await asyncio.to_thread(self._thread.join)
            raise

    async def apply(self, function: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Calls ``function`` with the connection, in its thread. Raises Unreachable once it is being closed."""
        if self._closing:
            raise Unreachable("the read model is closed", why="its node is stopping", hint="Ask again in a moment.")
        answer: Answer = await self._execute(function, self._conn)  # type: ignore[no-untyped-call]
        return answer

    async def close(self) -> None:
        """Ends the thread after all that was asked for before."""
        self._closing = True
        await super().close()


class ReadModel:
    """Made by `open`. One writer; any number of `read` calls run beside it, each on one consistent height."""

    def __init__(self, path: Path, genesis: Genesis, writer: Connection, reader: Connection) -> None:
        self.path: Final = path
        self.genesis: Final = genesis
        self._writer = writer
        self._reader = reader
        self._concerns: Concerns | None = None
        self._height = 0
        self._numbers: dict[str, int] = {}

    @classmethod
    async def open(cls, path: Path, genesis: Genesis) -> "ReadModel":
        """Opens the file, or makes it. Rows of another format version are thrown away, to be rebuilt from the log.

        Raises WrongNetwork when the file belongs to another genesis, VerificationFailed when it is damaged.
        """
        async with AsyncExitStack() as opened:
            writer = await _connect(path, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", LARGE_LOG)
            opened.push_async_callback(writer.close)
            await _guarded(path, writer, lambda db: _prepare(db, path, genesis))
            reader = await _connect(path, "PRAGMA query_only=ON")
            opened.pop_all()
        return cls(path, genesis, writer, reader)

    async def close(self) -> None:
        """Waits for what is being written."""
        await self._reader.close()
        await self._writer.close()

    @property
    def height(self) -> int:
        """The height of the newest block that is written. Known after `restore`."""
        return self._height

    async def restore(self) -> Restored:
        """Reads the state back and compares its root with the head's. Raises VerificationFailed when they differ.

        Comes before the first `write`.
        """
        rows, head, votes, (position, last_block) = await _guarded(
            self.path, self._writer, lambda db: _read(db, _stored)
        )
        state = State.from_rows(self.genesis, rows)
        stored_root = head.state_root if head is not None else State.from_genesis(self.genesis).root()
        if state.root() != stored_root:
            raise VerificationFailed(
                f"the read model {self.path} is damaged",
                why=f"its rows give the state root {state.root()}, its head says {stored_root}",
                hint=REBUILD,
            )
        self._concerns = Concerns(state.unfinished_jobs())
        self._height = head.height if head is not None else 0
        return Restored(state, head, votes, position, last_block)

    async def write(self, finals: Sequence[FinalBlock], position: int, last_block: int) -> None:
        """Writes blocks in one transaction, together with the place in CHAIN to go on from (see `Restored`).

        The blocks follow on those written before; AssertionError when they do not. After any error nothing of them is
        written, and the read model has to be opened again.
        """
        if self._concerns is None:
            raise AssertionError("restore comes before the first write")
        rows = Rows(self.genesis.chain, position, last_block)
        for final in finals:
            if final.header.height != self._height + 1:
                raise AssertionError(f"block {final.header.height} cannot be written after {self._height}")
            rows.add(final, self._concerns.of_block(final.executed, final.events))
            self._height += 1
        await _guarded(self.path, self._writer, lambda db: write_rows(db, rows, self._numbers))

    async def read(self, query: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Runs a query of `projections.read_model_queries` on a snapshot of one height."""
        return await _guarded(self.path, self._reader, lambda db: _snapshot(db, query))

    async def remember_vote(self, signed: SignedVote, block: bytes) -> None:
        """Keeps a vote, and the block that it is for, before it is said: safe from a loss of power. The same again
        changes nothing.

        Raises NotAllowed when another vote for this height has been kept: nobody votes twice.
        """
        height, voted = signed.vote.height, signed.vote.block

        def remember(db: sqlite3.Connection) -> str:
            with _synced(db):
                db.execute("INSERT OR IGNORE INTO votes VALUES (?, ?, ?)", (height, voted, canonical(signed)))
                row: tuple[str] = db.execute("SELECT block FROM votes WHERE height = ?", (height,)).fetchone()
                if row[0] == voted and height > _height(db):
                    keep_voted(db, signed, block)
            return row[0]

        found = await _guarded(self.path, self._writer, remember)
        if found != voted:
            raise NotAllowed(
                f"this node has voted at height {height} already",
                why=f"for {found}, not for {voted}",
                hint="Two votes for one height are evidence against the validator; run it once, on one data directory.",
                height=height,
            )

    async def remember_proposal(self, height: int, round_number: int) -> None:
        """Keeps the round of an own block before it is appended: safe from a loss of power."""

        def remember(db: sqlite3.Connection) -> None:
            with _synced(db):
                db.execute("INSERT OR REPLACE INTO proposals VALUES (1, ?, ?)", (height, round_number))

        await _guarded(self.path, self._writer, remember)

    async def newest_proposal(self) -> tuple[int, int]:
        """The height and the round that were kept last; zeros: none."""
        row = await _guarded(
            self.path, self._writer, lambda db: db.execute("SELECT height, round FROM proposals").fetchone()
        )
        return (0, 0) if row is None else (stored_number(row[0], "proposals"), stored_number(row[1], "proposals"))

    async def start_over(self, lost: int) -> None:
        """Throws all rows away, to be rebuilt from a log that has lost the blocks from height ``lost`` on.

        They are kept, see `projections.read_model_kept`, and who reads the rows is to begin at them again. Comes before
        `restore`.
        """

        def begin(db: sqlite3.Connection) -> None:
            with _synced(db):
                keep_lost(db, lost)
                db.execute("UPDATE marks SET height = min(height, ?)", (lost - 1,))
                _make_tables(db, self.genesis)

        self._numbers.clear()
        await _guarded(self.path, self._writer, begin)

    async def vote_of(self, height: int) -> bytes | None:
        """The vote that was kept for this height."""
        row = await _guarded(
            self.path,
            self._writer,
            lambda db: db.execute("SELECT data FROM votes WHERE height = ?", (height,)).fetchone(),
        )
        return None if row is None else stored_bytes(row[0], f"the vote at height {height}")

    async def mark(self, name: str) -> int | None:
        """How far a reader of the rows (the feed) has come, where it has said so."""
        row = await _guarded(
            self.path,
            self._writer,
            lambda db: db.execute("SELECT height FROM marks WHERE name = ?", (name,)).fetchone(),
        )
        return None if row is None else int(row[0])

    async def set_mark(self, name: str, height: int) -> None:
        """Notes how far a reader of the rows has come."""
        await _guarded(
            self.path,
            self._writer,
            lambda db: db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, height)),
        )


async def _connect(path: Path, *pragmas: str) -> Connection:
    def connect() -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        for pragma in ("PRAGMA busy_timeout=5000", "PRAGMA cache_size=-65536", *pragmas):
            db.execute(pragma)
        return db

    try:
        connection = Connection(connect)
        await connection.open()
        return connection
    except UNUSABLE as error:
        raise _unusable(path, error) from error


async def _guarded(path: Path, connection: Connection, function: Callable[[sqlite3.Connection], Answer]) -> Answer:
    try:
        return await connection.apply(function)
    except sqlite3.IntegrityError as error:
        raise AssertionError(f"{path} has been written by somebody else too: {error}") from error
    except UNUSABLE as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> AssayError:
    return VerificationFailed(f"the read model {path} cannot be used", why=str(error), hint=REBUILD)


def _snapshot(db: sqlite3.Connection, query: Callable[[sqlite3.Connection], Answer]) -> Answer:
    db.execute("BEGIN")
    try:
        return _read(db, query)
    finally:
        db.execute("ROLLBACK")


def _read(db: sqlite3.Connection, query: Callable[[sqlite3.Connection], Answer]) -> Answer:
    try:
        return query(db)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        # SQLite finds no fault with a damaged page in which a number stands where a text was, or a row is missing.
        raise damaged("a value is not what its column holds", repr(error)) from error


def _prepare(db: sqlite3.Connection, path: Path, genesis: Genesis) -> None:
    """Makes the tables where there are none, or where they are of another format; checks the genesis."""
    identity = genesis_hash(genesis)
    stored: dict[str, Any] = {}
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone():
        stored = _read(db, lambda db: dict(db.execute("SELECT key, value FROM meta").fetchall()))
    if stored and stored.get("genesis") != identity:
        raise WrongNetwork(
            f"the read model {path} belongs to another chain",
            why=f"its genesis is {stored.get('genesis')}, this chain's is {identity}",
            hint="Choose another data directory for this chain, or delete the file if the old chain is gone.",
            expected=identity,
            found=stored.get("genesis"),
        )
    if stored.get("format") == FORMAT:
        return
    with db:
        db.execute("BEGIN IMMEDIATE")
        _make_tables(db, genesis)


def _make_tables(db: sqlite3.Connection, genesis: Genesis) -> None:
    """The tables as at the genesis, in the transaction that is open. What the log does not give again stays."""
    state = State.from_genesis(genesis)
    meta = {
        "format": FORMAT,
        "genesis": genesis_hash(genesis),
        "state_root": state.root(),
        "height": 0,
        "position": 0,
        "last_block": 0,
    }
    for table in DERIVED_TABLES:
        db.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in SCHEMA:
        db.execute(statement)
    db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    db.executemany("INSERT INTO records VALUES (?, ?)", state.rows())


@contextmanager
def _synced(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction that is on the disk when it is over, with all those before it."""
    db.execute("PRAGMA synchronous=FULL")
    try:
        with db:
            db.execute("BEGIN IMMEDIATE")
            yield
    finally:
        db.execute("PRAGMA synchronous=NORMAL")


def _height(db: sqlite3.Connection) -> int:
    return stored_number(db.execute("SELECT value FROM meta WHERE key = 'height'").fetchone()[0], "height")


def _stored(db: sqlite3.Connection) -> tuple[list[tuple[str, bytes]], Header | None, Commit, tuple[int, int]]:
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    height, position, last_block = (stored_number(meta.get(key), key) for key in ("height", "position", "last_block"))
    rows = db.execute("SELECT key, CAST(value AS BLOB) FROM records").fetchall()
    if any(type(key) is not str or type(value) is not bytes for key, value in rows):
        raise damaged("records", "a key or a value has another type")
    count, newest = db.execute("SELECT count(*), max(height) FROM blocks").fetchone()
    if (count, newest or 0) != (height, height):
        raise damaged("blocks", f"there are {count} up to height {newest}, and there should be {height}")
    if height == 0:
        return rows, None, (), (position, last_block)
    block_hash, stored, votes, sequence = db.execute(
        "SELECT hash, header, votes, sequence FROM blocks WHERE height = ?", (height,)
    ).fetchone()
    header = stored_header(stored, block_hash)
    if header.height != height:
        raise damaged(f"block {height}", f"its header is that of block {header.height}")
    if not stored_number(sequence, "blocks") <= last_block <= position:
        raise damaged("meta", f"message {position} comes after message {last_block}, and both after {sequence}")
    return rows, header, stored_record(_votes_decoder, votes, f"block {height}"), (position, last_block)
