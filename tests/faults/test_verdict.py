"""The checks of the long form can fail."""

import sqlite3
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from events.canonical import canonical
from events.envelope import SignedEvent, sign
from events.keys import Key
from schemas.events import TransferSent
from schemas.state import Account
from tests.faults.load import Ledger
from tests.faults.run import stopped
from tests.faults.verdict import Verdict, _check_accounts, _check_jobs, _check_nodes, _check_promises

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


def test_a_job_without_an_end_or_that_nobody_wanted_is_found() -> None:
    """One that has one is counted by how it ended."""
    verdict = Verdict()
    books: Any = SimpleNamespace(ends={"one": ["settled"], "two": [], "more": ["refunded"]})
    _check_jobs(verdict, books, ["one", "two", "none"])
    assert verdict.jobs == {"settled": 1, "no end": 2}
    assert verdict.violations == ["job two has no end", "job none has no end", "nobody asked for job more"]


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


A, B = ("U" + letter * 55 for letter in "AB")
JOB = "ab" * 32


@pytest.mark.parametrize(
    ("accounts", "jobs", "violations"),
    [
        pytest.param({A: (90, 1), B: (10, 0)}, {JOB: "settled"}, [], id="the same"),
        pytest.param(
            {A: (80, 1), B: (20, 0)},
            {JOB: "settled"},
            [
                "proposer-1: UAAAAAAA has 80, nonce 1; by the books 90, 1",
                "proposer-1: UBBBBBBB has 20, nonce 0; by the books 10, 0",
            ],
            id="a transfer that took effect twice",
        ),
        pytest.param(
            {A: (90, 2), B: (10, 0)},
            {JOB: "settled"},
            ["proposer-1: UAAAAAAA has 90, nonce 2; by the books 90, 1"],
            id="a nonce that was used twice",
        ),
        pytest.param(
            {A: (90, 1)},
            {JOB: "settled"},
            ["proposer-1: UBBBBBBB has 0, nonce 0; by the books 10, 0"],
            id="an account that is not there",
        ),
        pytest.param(
            {A: (90, 1), B: (10, 0)},
            {JOB: "refunded"},
            ["proposer-1: job abababababab is not as in the books"],
            id="a job that ended otherwise",
        ),
        pytest.param(
            {A: (90, 1), B: (10, 0)},
            {},
            ["proposer-1: job abababababab is not as in the books"],
            id="a job that is not there",
        ),
    ],
)
def test_coins_that_are_not_those_of_the_books_are_found(
    tmp_path: Path, accounts: dict[str, tuple[int, int]], jobs: dict[str, str], violations: list[str]
) -> None:
    """At any node, by account."""
    home = tmp_path / "data" / "proposer-1" / "proposer-UABC"
    home.mkdir(parents=True)
    with sqlite3.connect(home / "read-model.db") as db:
        db.execute("CREATE TABLE records (key TEXT, value BLOB)")
        db.execute("CREATE TABLE jobs (id BLOB, situation TEXT)")
        for address, (balance, nonce) in accounts.items():
            record = canonical(Account(balance=balance, nonce=nonce))
            db.execute("INSERT INTO records VALUES (?, ?)", (f"account/{address}", record))
        for job, situation in jobs.items():
            db.execute("INSERT INTO jobs VALUES (?, ?)", (bytes.fromhex(job), situation))
    db.close()
    books: Any = SimpleNamespace(
        balances=Counter({A: 90, B: 10, "burned": 5, JOB: 0}), nonces=Counter({A: 1}), jobs={JOB: {"state": "settled"}}
    )
    verdict = Verdict()
    devnet: Any = SimpleNamespace(directory=tmp_path)
    _check_accounts(verdict, devnet, books)
    assert (verdict.accounts, verdict.violations) == (2, violations)


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
