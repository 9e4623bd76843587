"""The checks of the long form can fail."""

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from events.envelope import SignedEvent, sign
from events.keys import Key
from schemas.events import TransferSent
from tests.faults.load import Ledger
from tests.faults.run import stopped
from tests.faults.verdict import Verdict, _check_jobs, _check_nodes, _check_promises

HASHES = {1: ("11" * 32, "aa" * 32), 2: ("22" * 32, "bb" * 32)}
NODES = ("coordinator", "proposer-1")


def transfer(nonce: int) -> SignedEvent:
    key = Key(bytes([nonce]) * 32)
    return sign(TransferSent(chain="c", sender=key.address, nonce=nonce, gas_price=1, to=key.address, amount=1), key)


def test_an_acknowledged_event_in_no_block_is_lost() -> None:
    """And one that was refused although it was good is told apart from it."""
    events = [transfer(number) for number in range(4)]
    ledger, verdict = Ledger(), Verdict()
    ledger.acknowledged = {event.id: event for event in events}
    ledger.refused = {events[0].id: "STALE", events[1].id: "STALE"}
    _check_promises(verdict, ledger, {events[0].id: 1, events[2].id: 1})
    assert (verdict.lost, verdict.refused) == (1, 1)
    assert verdict.violations == [
        f"acknowledged, and in no block: {events[3].id[:12]} of {events[3].event.sender[:8]}, 3",
        f"a good event was refused: {events[1].id[:12]}: STALE",
    ]


def test_a_job_without_an_end_or_with_two_is_found() -> None:
    """One that has one is counted by how it ended."""
    verdict = Verdict()
    books: Any = SimpleNamespace(ends={"one": ["settled"], "two": ["settled", "refunded"]})
    _check_jobs(verdict, books, ["one", "two", "none"])
    assert verdict.jobs == {"settled": 1, "2 ends": 1, "0 ends": 1}
    assert verdict.violations == ["job two has 2 ends", "job none has 0 ends"]


def devnet_of(directory: Path, rows: dict[str, dict[int, tuple[str, str]]]) -> Any:
    for name, blocks in rows.items():
        home = directory / "data" / name / f"{name}-UABC"
        home.mkdir(parents=True)
        with sqlite3.connect(home / "read-model.db") as db:
            db.execute("CREATE TABLE blocks (height INTEGER, hash BLOB, header BLOB)")
            for height, (block, root) in blocks.items():
                header = b'{"state_root":"%s"}' % root.encode()
                db.execute("INSERT INTO blocks VALUES (?, ?, ?)", (height, bytes.fromhex(block), header))
        db.close()
    return SimpleNamespace(directory=directory, plan=SimpleNamespace(proposers=1))


@pytest.mark.parametrize(
    ("rows", "divergent", "violations"),
    [
        pytest.param(dict.fromkeys(NODES, HASHES), 0, [], id="the same"),
        pytest.param({NODES[0]: HASHES}, 0, ["only ['coordinator'] have rows"], id="no rows"),
        pytest.param(
            {NODES[0]: HASHES, NODES[1]: {1: HASHES[1]}}, 0, ["proposer-1 holds 1 of 2 blocks"], id="a block less"
        ),
        pytest.param(
            {NODES[0]: HASHES, NODES[1]: HASHES | {2: (HASHES[2][0], "cc" * 32)}},
            1,
            ["proposer-1 holds other blocks than the log at heights [2]"],
            id="another root",
        ),
        pytest.param(
            {NODES[0]: HASHES, NODES[1]: HASHES | {1: ("33" * 32, HASHES[1][1])}},
            1,
            ["proposer-1 holds other blocks than the log at heights [1]"],
            id="another block",
        ),
    ],
)
def test_rows_that_are_not_those_of_the_log_are_found(
    tmp_path: Path, rows: dict[str, dict[int, tuple[str, str]]], divergent: int, violations: list[str]
) -> None:
    """In number, hash, and state root."""
    verdict = Verdict()
    _check_nodes(verdict, devnet_of(tmp_path, rows), HASHES)
    assert (verdict.divergent, verdict.violations) == (divergent, violations)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("[info] up", 0),
        ("error: no NATS server answers at nats://127.0.0.1:4222", 0),
        ("error: the log ends at 7: 9 was read before", 1),
        ("[critical] the actor stops  actor=wallet", 1),
        ("Traceback (most recent call last):", 1),
    ],
)
def test_an_actor_that_gave_up_is_found(tmp_path: Path, line: str, found: int) -> None:
    """By what its log says."""
    (tmp_path / "miner-1.log").write_text(f"[info] up\n{line}\n")
    files = SimpleNamespace(log_file=lambda name: tmp_path / f"{name}.log")
    devnet: Any = SimpleNamespace(plan=SimpleNamespace(actors=lambda: ["miner-1"]), files=files)
    assert len(stopped(devnet)) == found
