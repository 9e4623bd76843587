"""The memory of one actor: a SQLite file that survives `kill -9` and loss of power.

It holds what the actor has said (the outbox), how far it has read, the rows it keeps for itself, and the messages that
nobody could use. All that one step changes is one `Batch`, written in one transaction and on disk when `commit`
returns. One process at a time has the file open, and the file belongs to one identity for ever: the chain and the
address that it speaks for.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import aiosqlite
from msgspec import Struct, field

from events.errors import BadInput, NotAllowed

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (only INTEGER PRIMARY KEY CHECK (only = 1), name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
    key TEXT PRIMARY KEY, nonce INTEGER NOT NULL, id TEXT NOT NULL, draft BLOB NOT NULL, raw BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'final', 'refused')),
    outcome BLOB NOT NULL, height INTEGER NOT NULL, traceparent TEXT NOT NULL, said_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox (nonce) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS positions (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    number INTEGER PRIMARY KEY, code TEXT NOT NULL, detail TEXT NOT NULL, message BLOB NOT NULL, at_ms INTEGER NOT NULL
);
"""
MOST_DEAD_LETTERS = 10_000
_COLUMNS = "key, nonce, id, draft, raw, state, outcome, height, traceparent, said_ms"


class StoreInUse(NotAllowed):
    """Another process has this store open."""

    code = "STORE_IN_USE"


class ForeignStore(BadInput):
    """The store belongs to another chain or address."""

    code = "FOREIGN_STORE"


class OutboxRow(Struct, frozen=True, kw_only=True):
    """Something said. ``draft`` is what it was made of, ``raw`` the envelope, which is empty once the log has it.

    ``outcome`` is canonical JSON once the row is final, or the refusal once it is refused, else empty.
    """

    key: str
    nonce: int
    id: str
    draft: bytes
    raw: bytes
    state: Literal["waiting", "final", "refused"]
    traceparent: str
    said_ms: int
    outcome: bytes = b""
    height: int = 0


class DeadLetter(Struct, frozen=True):
    """A message that was given up, and why. The store holds the latest 10,000."""

    code: str
    detail: str
    message: bytes
    at_ms: int


class Batch(Struct):
    """What one step changes. A kept value of None drops the row."""

    outbox: list[OutboxRow] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    kept: dict[str, bytes | None] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)

    def is_empty(self) -> bool:
        return not (self.outbox or self.positions or self.kept or self.dead_letters)

    def only_moves(self) -> bool:
        """Whether nothing but positions changes: losing that costs only reading again."""
        return not (self.outbox or self.kept or self.dead_letters)


class Store:
    """An open store; use `Store.open`. Any sqlite3.Error that leaves a method means that nothing of it was written."""

    def __init__(self, path: Path, database: aiosqlite.Connection, lock: int) -> None:
        self.path = path
        self._database = database
        self._lock = lock

    @classmethod
    async def open(cls, path: Path, identity: str) -> "Store":
        """Opens or creates the file. ``identity`` names the chain (its genesis hash) and the address.

        Raises StoreInUse, ForeignStore.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncExitStack() as cleanup:
            lock = _lock(path)
            cleanup.callback(os.close, lock)
            database = await aiosqlite.connect(path, isolation_level=None)
            cleanup.push_async_callback(database.close)
            store = cls(path, database, lock)
            await store._prepare(identity)
            cleanup.pop_all()
        return store

    async def _prepare(self, identity: str) -> None:
        await self._database.execute("PRAGMA journal_mode = WAL")
        # FULL: with NORMAL a commit in WAL mode may be lost with the power, and an own word with it.
        await self._database.execute("PRAGMA synchronous = FULL")
        await self._database.executescript(_SCHEMA)
        await self._database.execute("INSERT OR IGNORE INTO identity VALUES (1, ?)", (identity,))
        async with self._database.execute("SELECT name FROM identity") as rows:
            found = [name async for (name,) in rows]
        if found != [identity]:
            raise ForeignStore(
                f"{self.path} belongs to another actor",
                why=f"it was made for {found[0]}, this is {identity}",
                hint="Give each chain and key its own data directory.",
                found=found[0],
                expected=identity,
            )

    async def commit(self, batch: Batch) -> None:
        """Writes all of it or nothing; it is on disk when this returns."""
        database = self._database
        await database.execute("BEGIN IMMEDIATE")
        try:
            await self._many(
                f"INSERT OR REPLACE INTO outbox ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                [_values(row) for row in batch.outbox],
            )
            await self._many("INSERT OR REPLACE INTO positions VALUES (?, ?)", batch.positions.items())
            await self._many(
                "INSERT OR REPLACE INTO kept VALUES (?, ?)",
                [(name, value) for name, value in batch.kept.items() if value is not None],
            )
            await self._many(
                "DELETE FROM kept WHERE name = ?", [(name,) for name, value in batch.kept.items() if value is None]
            )
            await self._many(
                "INSERT INTO dead_letters (code, detail, message, at_ms) VALUES (?, ?, ?, ?)",
                [(letter.code, letter.detail, letter.message, letter.at_ms) for letter in batch.dead_letters],
            )
            if batch.dead_letters:
                await database.execute(
                    "DELETE FROM dead_letters WHERE number <= (SELECT max(number) FROM dead_letters) - ?",
                    (MOST_DEAD_LETTERS,),
                )
            await database.execute("COMMIT")
        finally:
            if database.in_transaction:  # something above was refused
                await database.execute("ROLLBACK")

    async def _many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        if rows := list(rows):
            await self._database.executemany(statement, rows)

    async def positions(self) -> dict[str, int]:
        """How far each source was read."""
        async with self._database.execute("SELECT name, value FROM positions") as rows:
            return {name: value async for name, value in rows}

    async def position(self, name: str) -> int:
        """How far a source was read, 0 at the start."""
        return (await self.positions()).get(name, 0)

    async def kept(self) -> dict[str, bytes]:
        """The actor's own rows, sorted by name."""
        async with self._database.execute("SELECT name, value FROM kept ORDER BY name") as rows:
            return {name: value async for name, value in rows}

    async def waiting(self) -> list[OutboxRow]:
        """What was said and is in no final block yet, by nonce."""
        return await self._outbox("state = 'waiting' ORDER BY nonce")

    async def find(self, key: str) -> OutboxRow | None:
        """What was said under a key."""
        found = await self._outbox("key = ?", key)
        return found[0] if found else None

    async def last_nonce(self) -> int | None:
        """The highest nonce that was ever given to something not refused, or None."""
        async with self._database.execute("SELECT max(nonce) FROM outbox WHERE state != 'refused'") as rows:
            found = await rows.fetchone()
        return found[0] if found else None

    async def _outbox(self, condition: str, *arguments: object) -> list[OutboxRow]:
        query = f"SELECT {_COLUMNS} FROM outbox WHERE {condition}"  # noqa: S608  conditions are those above
        async with self._database.execute(query, arguments) as rows:
            return [OutboxRow(**dict(zip(_COLUMNS.split(", "), row, strict=True))) async for row in rows]

    async def dead_letters(self) -> list[DeadLetter]:
        """The messages that were given up, oldest first."""
        query = "SELECT code, detail, message, at_ms FROM dead_letters ORDER BY number"
        async with self._database.execute(query) as rows:
            return [DeadLetter(*row) async for row in rows]

    async def close(self) -> None:
        """Closes the file and lets others open it."""
        try:
            await self._database.close()
        finally:
            os.close(self._lock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _values(row: OutboxRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in _COLUMNS.split(", "))


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """While it lasts, no other process can say the same of this path. Raises StoreInUse."""
    lock = _lock(path)
    try:
        yield
    finally:
        os.close(lock)


def _lock(path: Path) -> int:
    """Locks the file beside the store; the kernel unlocks it however the process ends."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreInUse(
            f"{path} is in use",
            why="another process has it open",
            hint="Stop that process first: never run two with one key.",
            path=str(path),
        ) from error
    return lock
