"""From final blocks to rows: prepared beside the fold, written in the connection's thread in one transaction."""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from events.canonical import canonical
from events.receipts import with_signatures
from projections.chain import Final as FinalBlock
from projections.concerns import Concern
from projections.read_model_stored import damaged
from projections.read_model_tables import place_of
from projections.receipts import receipt_of
from schemas.blocks import Applied, Failed
from schemas.events import JobSettled, JobSubmitted
from schemas.state import Job, Settled, situation_of

# Above so many the numbers of addresses are forgotten and read again, to bound the memory.
MAX_NUMBERS: Final = 262_144
_SIG_LENGTH = 86


class JobRow(Struct, frozen=True):
    """A job as a block left it; ``place`` only where the block submitted it."""

    id: str
    job: Job
    place: int | None


class Rows:
    """The rows of some blocks in a row. Of a record that several of them changed, the last version is kept."""

    def __init__(self, chain: str, position: int, last_block: int) -> None:
        self.chain: Final = chain
        self.position: Final = position
        self.last_block: Final = last_block
        self.height = 0
        self.blocks: list[tuple[object, ...]] = []
        self.events: list[tuple[int, bytes | None, int, bytes | None, bytes | None, str | None]] = []
        self.participants: list[tuple[str, int]] = []
        self.records: dict[str, bytes] = {}
        self.jobs: dict[str, JobRow] = {}
        self.job_events: list[tuple[bytes, int]] = []
        self.receipts: list[tuple[bytes, int, bytes]] = []
        self.counts: Counter[str] = Counter()

    def add(self, final: FinalBlock, concerns: list[Concern]) -> None:
        """Prepares one block; the blocks come in order."""
        executed, header = final.executed, final.header
        self.height = header.height
        self._add_block(final)
        self._add_outcomes(final, concerns)
        self.records.update(executed.draft.changed_rows())
        for job_id, job in executed.draft.jobs_changed.items():
            before = self.jobs.get(job_id)
            self.jobs[job_id] = JobRow(job_id, job, before.place if before else None)
        base = place_of(header.height, executed.timers)
        for index, signed in enumerate(final.events):
            if isinstance(signed.event, JobSubmitted) and signed.id in self.jobs:
                self.jobs[signed.id] = JobRow(signed.id, self.jobs[signed.id].job, base + index)
            elif isinstance(signed.event, JobSettled) and concerns[executed.timers + index].job is not None:
                self._add_receipt(signed.event, base + index)

    def _add_block(self, final: FinalBlock) -> None:
        # The block's canonical bytes end in "sig":"…"}: the signature need not be decoded once more.
        sig = final.block_bytes[-_SIG_LENGTH - 2 : -2].decode()
        executed = final.executed
        self.blocks.append(
            (
                final.header.height,
                bytes.fromhex(final.hash),
                canonical(final.header),
                sig,
                canonical(final.votes),
                executed.timers,
                len(final.events),
                final.sequence,
            )
        )
        self.counts["events"] += len(final.events)
        self.counts["timers"] += executed.timers

    def _add_outcomes(self, final: FinalBlock, concerns: list[Concern]) -> None:
        executed = final.executed
        place = place_of(final.header.height, 0)
        fromhex = bytes.fromhex
        events, participants = self.events, self.participants
        for index, outcome in enumerate(executed.outcomes):
            concern = concerns[index]
            beyond = " ".join(concern.beyond) if concern.beyond else None
            if index < executed.timers:
                events.append((place, None, 0, None, canonical(outcome), beyond))
            else:
                signed = final.events[index - executed.timers]
                if isinstance(outcome, Applied):
                    events.append((place, fromhex(signed.id), outcome.fee, signed.raw, None, beyond))
                elif isinstance(outcome, Failed):
                    events.append((place, fromhex(signed.id), outcome.fee, signed.raw, canonical(outcome), beyond))
                    self.counts["failed"] += 1
                else:
                    raise AssertionError("a timer stands among the outcomes of events")
            for address in concern.addresses:
                participants.append((address, place))
            if concern.job is not None:
                self.job_events.append((fromhex(concern.job), place))
            place += 1

    def _add_receipt(self, event: JobSettled, place: int) -> None:
        job = self.jobs[event.job].job
        if not isinstance(job.situation, Settled):
            raise AssertionError(f"job {event.job} is not settled after its job.settled")
        receipt = receipt_of(event.job, job, self.chain)
        signed = with_signatures(receipt, job.situation.miner_sig, event.sender, event.receipt_sig)
        self.receipts.append((bytes.fromhex(event.job), place, canonical(signed)))


def write_rows(db: sqlite3.Connection, rows: Rows, numbers: dict[str, int]) -> None:
    """Writes all of it or nothing. ``numbers`` remembers the numbers of addresses from call to call."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        _write(db, rows, numbers)


def _write(db: sqlite3.Connection, rows: Rows, numbers: dict[str, int]) -> None:
    db.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows.blocks)
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows.events)
    number_addresses(db, (address for address, _ in rows.participants), numbers)
    db.executemany(
        "INSERT INTO participants VALUES (?, ?)", [(numbers[address], place) for address, place in rows.participants]
    )
    db.executemany(
        "INSERT INTO records VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", rows.records.items()
    )
    for row in rows.jobs.values():
        _write_job(db, row, rows.counts)
    db.executemany("INSERT INTO job_events VALUES (?, ?)", rows.job_events)
    db.executemany("INSERT INTO receipts VALUES (?, ?, ?)", rows.receipts)
    db.executemany(
        "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET number = number + excluded.number",
        [(name, number) for name, number in sorted(rows.counts.items()) if number],
    )
    db.execute("DELETE FROM counts WHERE number = 0")
    db.execute("DELETE FROM kept WHERE height <= ?", (rows.height,))
    db.executemany(
        "UPDATE meta SET value = ? WHERE key = ?",
        [(rows.height, "height"), (rows.position, "position"), (rows.last_block, "last_block")],
    )


def _write_job(db: sqlite3.Connection, row: JobRow, counts: Counter[str]) -> None:
    situation = situation_of(row.job)
    if row.place is not None:
        db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?)", (row.place, bytes.fromhex(row.id), row.job.owner, situation))
    else:
        key = (bytes.fromhex(row.id),)
        before: tuple[str] | None = db.execute("SELECT situation FROM jobs WHERE id = ?", key).fetchone()
        if before is None:
            raise damaged("jobs", f"there is no job {row.id}")
        counts[f"job/{before[0]}"] -= 1
        db.execute("UPDATE jobs SET situation = ? WHERE id = ?", (situation, *key))
    counts[f"job/{situation}"] += 1


def number_addresses(db: sqlite3.Connection, addresses: Iterable[str], numbers: dict[str, int]) -> None:
    """Completes ``numbers`` for these addresses; new ones get the next numbers in their order."""
    if len(numbers) > MAX_NUMBERS:
        numbers.clear()
    for address in addresses:
        if address in numbers:
            continue
        row = db.execute("SELECT number FROM addresses WHERE address = ?", (address,)).fetchone()
        if row is None:
            row = (db.execute("INSERT INTO addresses (address) VALUES (?)", (address,)).lastrowid,)
        numbers[address] = row[0]
