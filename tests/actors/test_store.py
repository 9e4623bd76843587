"""The memory of an actor."""

import asyncio
import os
import sqlite3
import sys
from pathlib import Path

import msgspec
import pytest

from actors.store import MOST_DEAD_LETTERS, Batch, DeadLetter, ForeignStore, OutboxRow, Store, StoreInUse, alone_with

ROW = OutboxRow(
    key="job/1",
    nonce=4,
    id="a" * 64,
    draft=b"{}",
    raw=b"raw",
    state="waiting",
    traceparent="00-1-2-01",
    said_ms=7,
)


async def open_store(path: Path, identity: str = "chain/address") -> Store:
    return await Store.open(path / "deep" / "actor.db", identity)


async def test_what_is_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    """A batch with all kinds of changes survives closing and opening."""
    async with await open_store(tmp_path) as store:
        await store.commit(
            Batch(
                outbox=[ROW],
                positions={"feed": 12},
                kept={"b": b"2", "a": b"1", "gone": b"x"},
                dead_letters=[DeadLetter("CODE", "why", b"message", 3)],
            )
        )
        await store.commit(Batch(kept={"gone": None}, positions={"feed": 13}))
    async with await open_store(tmp_path) as store:
        assert await store.waiting() == [ROW]
        assert await store.find("job/1") == ROW
        assert await store.find("job/2") is None
        assert await store.last_nonce() == 4
        assert await store.positions() == {"feed": 13}
        assert await store.position("feed") == 13
        assert await store.position("other") == 0
        assert list((await store.kept()).items()) == [("a", b"1"), ("b", b"2")]
        assert await store.dead_letters() == [DeadLetter("CODE", "why", b"message", 3)]


async def test_an_own_word_survives_power_loss(tmp_path: Path) -> None:
    """The file is in WAL mode and every commit is synced."""
    async with await open_store(tmp_path) as store:
        async with store._database.execute("PRAGMA journal_mode") as rows:
            assert await rows.fetchone() == ("wal",)
        async with store._database.execute("PRAGMA synchronous") as rows:
            assert await rows.fetchone() == (2,)


async def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """When the last statement of a batch fails, the first has done nothing, and the store goes on."""
    unreadable = DeadLetter("CODE", "why", None, 3)  # type: ignore[arg-type]
    async with await open_store(tmp_path) as store:
        with pytest.raises(sqlite3.IntegrityError):
            await store.commit(Batch(outbox=[ROW], positions={"feed": 1}, dead_letters=[unreadable]))
        assert await store.waiting() == []
        assert await store.positions() == {}
        await store.commit(Batch(outbox=[ROW]))
        assert await store.waiting() == [ROW]


async def test_a_row_is_replaced_under_its_key(tmp_path: Path) -> None:
    """A final row no longer waits, keeps its place in the nonces, and a refused one loses it."""
    async with await open_store(tmp_path) as store:
        final = msgspec.structs.replace(ROW, state="final", raw=b"", outcome=b"{}", height=9)
        refused = msgspec.structs.replace(ROW, key="job/2", nonce=5, state="refused")
        await store.commit(Batch(outbox=[ROW]))
        await store.commit(Batch(outbox=[final, refused]))
        assert await store.waiting() == []
        assert await store.find("job/1") == final
        assert await store.last_nonce() == 4


def test_two_cannot_have_one_path_for_themselves(tmp_path: Path) -> None:
    """The second is told so, as long as the first goes on."""
    path = tmp_path / "read-model.db"
    with alone_with(path), pytest.raises(StoreInUse, match="another process has it open"), alone_with(path):
        pass
    with alone_with(path):
        pass


async def test_two_cannot_open_one_store(tmp_path: Path) -> None:
    """The second opener is told so, in this process and in another; closing lets it in."""
    store = await open_store(tmp_path)
    with pytest.raises(StoreInUse, match="another process has it open"):
        await open_store(tmp_path)
    program = (
        "import asyncio, sys; from pathlib import Path; from actors.store import Store\n"
        "asyncio.run(Store.open(Path(sys.argv[1]), 'chain/address'))"
    )
    command = [sys.executable, "-c", program, str(store.path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    second = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environment)
    _, complaint = await second.communicate()
    assert b"StoreInUse" in complaint
    await store.close()
    await (await open_store(tmp_path)).close()


async def test_a_store_belongs_to_one_chain_and_address(tmp_path: Path) -> None:
    """Opened for somebody else it refuses, names both, and leaves no lock behind."""
    await (await open_store(tmp_path)).close()
    with pytest.raises(ForeignStore, match="made for chain/address, this is other/address"):
        await open_store(tmp_path, "other/address")
    await (await open_store(tmp_path)).close()


async def test_dead_letters_are_bounded(tmp_path: Path) -> None:
    """Only the latest ten thousand are kept."""
    async with await open_store(tmp_path) as store:
        letters = [DeadLetter("CODE", str(number), b"", number) for number in range(MOST_DEAD_LETTERS + 5)]
        await store.commit(Batch(dead_letters=letters))
        kept = await store.dead_letters()
        assert len(kept) == MOST_DEAD_LETTERS
        assert kept[0].detail == "5"
