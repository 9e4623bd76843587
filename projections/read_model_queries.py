"""Questions to the read model, each a function of a connection for `ReadModel.read`.

All raise NotFound for what the final blocks do not hold. Lists are pages: bounded in entries by the question and in
bytes here, so that every answer fits into one message.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from events.blocks import genesis_hash
from events.canonical import canonical
from events.errors import BadInput, NotFound
from events.merkle import inclusion_path, leaf_hash, root_of_hashes
from projections.read_model_stored import (
    damaged,
    stored_bytes,
    stored_envelope,
    stored_header,
    stored_number,
    stored_record,
)
from projections.read_model_tables import MAX_HEIGHT, MAX_INDEX, height_and_index, place_of
from schemas.blocks import Applied, Commit, Outcome
from schemas.genesis import Genesis
from schemas.messages import BlockProof, InclusionProof, ProofBundle
from schemas.queries import (
    MAX_PAGE,
    AccountAnswer,
    BlockAnswer,
    BlockEntry,
    BlocksAnswer,
    EventAnswer,
    EventsAnswer,
    JobAnswer,
    JobEntry,
    JobsAnswer,
    MinerEntry,
    MinersAnswer,
    StatusAnswer,
)
from schemas.receipts import SignedReceipt
from schemas.state import Account, Job, Miner, Supply

# NATS carries 1 MiB by default; the rest is for what surrounds the entries.
MAX_PAGE_BYTES: Final = 786_432

_votes_decoder: Final = msgspec.json.Decoder(Commit)
_outcome_decoder: Final[msgspec.json.Decoder[Outcome]] = msgspec.json.Decoder(Outcome)
_account_decoder: Final = msgspec.json.Decoder(Account)
_job_decoder: Final = msgspec.json.Decoder(Job)
_miner_decoder: Final = msgspec.json.Decoder(Miner)
_supply_decoder: Final = msgspec.json.Decoder(Supply)
_receipt_decoder: Final = msgspec.json.Decoder(SignedReceipt)

# The slash is followed by the zero in ASCII: these are the keys that begin with "miner/".
_MINERS: Final = "SELECT key, CAST(value AS BLOB) FROM records WHERE key >= ? AND key < 'miner0' ORDER BY key LIMIT ?"
_COUNT_MINERS: Final = "SELECT count(*) FROM records WHERE key >= 'miner/' AND key < 'miner0'"
# By whether an owner and a situation are given.
_JOBS: Final = {
    (False, False): "SELECT place, id FROM jobs WHERE place <= ? ORDER BY place DESC LIMIT ?",
    (True, False): "SELECT place, id FROM jobs WHERE owner = ? AND place <= ? ORDER BY place DESC LIMIT ?",
    (False, True): "SELECT place, id FROM jobs WHERE situation = ? AND place <= ? ORDER BY place DESC LIMIT ?",
    (True, True): """SELECT place, id FROM jobs WHERE owner = ? AND situation = ? AND place <= ?
        ORDER BY place DESC LIMIT ?""",
}
_BLOCK: Final = "SELECT hash, header, votes, timers, events FROM blocks"
_EVENT: Final = "SELECT e.place, e.id, e.fee, e.raw, e.outcome, b.header, b.hash FROM events e JOIN blocks b"


def height(db: sqlite3.Connection) -> int:
    """The height that all answers of one `ReadModel.read` are at."""
    return _meta(db, "height")


def _meta(db: sqlite3.Connection, key: str) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return stored_number(row[0] if row else None, key)


def _record(db: sqlite3.Connection, key: str) -> bytes | None:
    row: tuple[bytes] | None = db.execute("SELECT CAST(value AS BLOB) FROM records WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def status(db: sqlite3.Connection, genesis: Genesis) -> StatusAnswer:
    """Where the read model stands, with counts."""
    counts: dict[str, int] = dict(db.execute("SELECT name, number FROM counts").fetchall())
    supply = stored_record(_supply_decoder, _record(db, "supply"), "supply")
    newest = db.execute(f"{_BLOCK} ORDER BY height DESC LIMIT 1").fetchone()
    head = _block_entry(newest) if newest else None
    identity = genesis_hash(genesis)
    (genesis_root,) = db.execute("SELECT value FROM meta WHERE key = 'state_root'").fetchone()
    (miners_count,) = db.execute(_COUNT_MINERS).fetchone()
    return StatusAnswer(
        chain=genesis.chain,
        genesis=identity,
        height=head.header.height if head else 0,
        head=head.hash if head else identity,
        state_root=head.header.state_root if head else genesis_root,
        time_ms=head.header.time_ms if head else genesis.time_ms,
        position=_meta(db, "position"),
        supply=supply,
        events=counts.get("events", 0),
        failed=counts.get("failed", 0),
        timers=counts.get("timers", 0),
        miners=miners_count,
        jobs={name[4:]: number for name, number in sorted(counts.items()) if name.startswith("job/") and number},
    )


def account(db: sqlite3.Connection, address: str) -> AccountAnswer:
    """The account of an address; empty where the log does not name it."""
    stored = _record(db, f"account/{address}")
    found = stored_record(_account_decoder, stored, address) if stored is not None else Account()
    return AccountAnswer(address=address, **msgspec.structs.asdict(found))


def _block_entry(row: Sequence[Any]) -> BlockEntry:
    block_hash, stored, votes, timers, events = row
    header = stored_header(stored, block_hash)
    what = f"block {header.height}"
    return BlockEntry(
        hash=block_hash.hex(),
        header=header,
        votes=stored_record(_votes_decoder, votes, what),
        timers=stored_number(timers, what),
        events=stored_number(events, what),
    )


def block_entry(db: sqlite3.Connection, which: int | str) -> BlockEntry:
    """One block by height or by hash."""
    if isinstance(which, int):
        row = db.execute(f"{_BLOCK} WHERE height = ?", (which,)).fetchone()
    else:
        row = db.execute(f"{_BLOCK} WHERE hash = ?", (bytes.fromhex(which),)).fetchone()
    if row is None:
        raise NotFound(f"there is no block {which}", hint=f"The newest block here is {height(db)}.", block=which)
    return _block_entry(row)


def block(
    db: sqlite3.Connection, which: int | str, limit: int = MAX_PAGE, cursor: str | UnsetType = UNSET
) -> BlockAnswer:
    """One block with the outcomes from ``cursor`` on."""
    entry = block_entry(db, which)
    first = _place(cursor) if cursor is not UNSET else place_of(entry.header.height, 0)
    if height_and_index(first)[0] != entry.header.height:
        raise BadInput("the cursor is of another block", hint="Use the `next` of this block's last answer.")
    rows = db.execute(
        "SELECT place, id, fee, outcome, length(outcome) FROM events"
        " WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
        (first, place_of(entry.header.height + 1, 0) - 1, limit + 1),
    ).fetchall()
    kept = _fitting(rows, limit, 4, 160)
    outcomes = tuple(outcome_of(row[1], row[2], row[3]) for row in rows[:kept])
    return BlockAnswer(block=entry, outcomes=outcomes, next=_cursor(rows[kept][0]) if kept < len(rows) else UNSET)


def blocks(db: sqlite3.Connection, limit: int, cursor: str | UnsetType = UNSET) -> BlocksAnswer:
    """Blocks, newest first."""
    last = height_and_index(_place(cursor))[0] if cursor is not UNSET else height(db)
    rows = db.execute(f"{_BLOCK} WHERE height <= ? ORDER BY height DESC LIMIT ?", (last, limit + 1)).fetchall()
    kept = _fitting(rows, limit, None, 64)
    entries = tuple(_block_entry(row) for row in rows[:kept])
    return BlocksAnswer(blocks=entries, next=str(last - kept) if kept < len(rows) else UNSET)


def headers(db: sqlite3.Connection, first: int, limit: int) -> tuple[BlockProof, ...]:
    """Headers upwards from a height, each with the votes that made it final: as many as fit into one answer."""
    rows = db.execute(f"{_BLOCK} WHERE height >= ? ORDER BY height LIMIT ?", (first, limit)).fetchall()
    return tuple(block_proof(_block_entry(row)) for row in rows[: _fitting(rows, limit, None, 64)])


def block_proof(entry: BlockEntry) -> BlockProof:
    """The part of a proof that shows the header to be final."""
    return BlockProof(header=entry.header, votes=tuple((vote.validator, vote.sig) for vote in entry.votes))


def outcome_of(event_id: bytes | None, fee: int, stored: bytes | None) -> Outcome:
    """The outcome as the row holds it."""
    if stored is not None:
        return stored_record(_outcome_decoder, stored, "an outcome")
    return Applied(event=stored_bytes(event_id, "the id of an event").hex(), fee=stored_number(fee, "a fee"))


def _event_answer(row: Sequence[Any]) -> EventAnswer:
    place, event_id, fee, raw, outcome, header, block_hash = row
    at_height, index = height_and_index(place)
    return EventAnswer(
        height=at_height,
        index=index,
        time_ms=stored_header(header, block_hash).time_ms,
        block=block_hash.hex(),
        outcome=outcome_of(event_id, fee, outcome),
        envelope=Raw(stored_envelope(raw, event_id)) if raw is not None else UNSET,
    )


def event(db: sqlite3.Connection, event_id: str) -> EventAnswer:
    """One event by its id."""
    row = db.execute(f"{_EVENT} ON b.height = e.place >> 24 WHERE e.id = ?", (bytes.fromhex(event_id),)).fetchone()
    if row is None:
        raise NotFound(
            f"no final block holds the event {event_id}",
            hint="It may still wait in the inbox, or have been refused: listen to the sender's live subject.",
            event=event_id,
        )
    return _event_answer(row)


def events(db: sqlite3.Connection, address: str, limit: int, cursor: str | UnsetType = UNSET) -> EventsAnswer:
    """What concerns an address, newest first."""
    last = _place(cursor) if cursor is not UNSET else place_of(height(db) + 1, 0)
    number = db.execute("SELECT number FROM addresses WHERE address = ?", (address,)).fetchone()
    if number is None:
        return EventsAnswer(events=())
    rows = db.execute(
        f"{_EVENT} ON b.height = e.place >> 24 JOIN participants p ON p.place = e.place"
        " WHERE p.address = ? AND p.place <= ? ORDER BY p.place DESC LIMIT ?",
        (number[0], last, limit + 1),
    ).fetchall()
    kept = _fitting(rows, limit, None, 512)
    answers = tuple(_event_answer(row) for row in rows[:kept])
    return EventsAnswer(events=answers, next=_cursor(rows[kept][0]) if kept < len(rows) else UNSET)


def job(db: sqlite3.Connection, job_id: str) -> JobAnswer:
    """A job and how it came to where it is."""
    rows = db.execute(
        f"{_EVENT} ON b.height = e.place >> 24 JOIN job_events j ON j.place = e.place"
        " WHERE j.job = ? ORDER BY j.place LIMIT ?",
        (bytes.fromhex(job_id), MAX_PAGE),
    ).fetchall()
    history = tuple(_event_answer(row) for row in rows[: _fitting(rows, MAX_PAGE, None, 512)])
    return JobAnswer(id=job_id, job=_job(db, job_id), history=history)


def _job(db: sqlite3.Connection, job_id: str) -> Job:
    stored = _record(db, f"job/{job_id}")
    if stored is None:
        raise NotFound(
            f"there is no job {job_id}",
            hint="A job's id is the id of its job.submitted event, once that is in a block.",
            job=job_id,
        )
    return stored_record(_job_decoder, stored, f"job {job_id}")


def jobs(
    db: sqlite3.Connection,
    owner: str | UnsetType,
    situation: str | UnsetType,
    limit: int,
    cursor: str | UnsetType = UNSET,
) -> JobsAnswer:
    """Jobs, newest first, of an owner or in a situation or both."""
    last = _place(cursor) if cursor is not UNSET else place_of(height(db) + 1, 0)
    given = [value for value in (owner, situation) if value is not UNSET]
    query = _JOBS[owner is not UNSET, situation is not UNSET]
    rows = db.execute(query, (*given, last, limit + 1)).fetchall()
    entries = tuple(JobEntry(id=job_id.hex(), job=_job(db, job_id.hex())) for _, job_id in rows[:limit])
    kept = _fitting([(canonical(entry),) for entry in entries], limit, None, 0)
    return JobsAnswer(jobs=entries[:kept], next=_cursor(rows[kept][0]) if kept < len(rows) else UNSET)


def miner(db: sqlite3.Connection, address: str) -> MinerEntry:
    """One registered miner."""
    stored = _record(db, f"miner/{address}")
    if stored is None:
        raise NotFound(f"{address} is not a registered miner", hint="A miner registers itself when it starts.")
    return MinerEntry(address=address, miner=stored_record(_miner_decoder, stored, address))


def miners(db: sqlite3.Connection, limit: int, cursor: str | UnsetType = UNSET) -> MinersAnswer:
    """Miners in order of address."""
    first = f"miner/{cursor}" if cursor is not UNSET else "miner/"
    rows = db.execute(_MINERS, (first, limit + 1)).fetchall()
    kept = _fitting(rows, limit, None, 0)
    entries = tuple(
        MinerEntry(address=key[6:], miner=stored_record(_miner_decoder, value, key)) for key, value in rows[:kept]
    )
    return MinersAnswer(miners=entries, next=rows[kept][0][6:] if kept < len(rows) else UNSET)


def receipt(db: sqlite3.Connection, job_id: str) -> tuple[SignedReceipt, ProofBundle]:
    """The receipt of a settled job, and the proof that its job.settled event is in a final block."""
    row = db.execute("SELECT place, receipt FROM receipts WHERE job = ?", (bytes.fromhex(job_id),)).fetchone()
    if row is None:
        situation = db.execute("SELECT situation FROM jobs WHERE id = ?", (bytes.fromhex(job_id),)).fetchone()
        why = f"the job is {situation[0]}" if situation else "there is no such job"
        raise NotFound(f"there is no receipt of job {job_id}", why=why, hint="Only a settled job has one.", job=job_id)
    return stored_record(_receipt_decoder, row[1], f"the receipt of {job_id}"), _event_proof(db, row[0])


def event_proof(db: sqlite3.Connection, event_id: str) -> ProofBundle:
    """The proof that an event is in a final block. It says nothing about what came of the event."""
    found = event(db, event_id)
    return _event_proof(db, place_of(found.height, found.index))


def _event_proof(db: sqlite3.Connection, place: int) -> ProofBundle:
    at_height, index = height_and_index(place)
    entry = block_entry(db, at_height)
    rows = db.execute(
        "SELECT raw FROM events WHERE place BETWEEN ? AND ? ORDER BY place",
        (place_of(at_height, entry.timers), place_of(at_height + 1, 0) - 1),
    ).fetchall()
    leaves = [leaf_hash(stored_bytes(raw, "an envelope")) for (raw,) in rows]
    position = index - entry.timers
    if root_of_hashes(leaves).hex() != entry.header.event_root:
        raise damaged(f"block {at_height}", "its events do not give its event root")
    inclusion = InclusionProof(
        index=position, size=len(leaves), path=tuple(step.hex() for step in inclusion_path(leaves, position))
    )
    return ProofBundle(kind="event", block=block_proof(entry), event=Raw(rows[position][0]), inclusion=inclusion)


def _place(cursor: str) -> int:
    at_height, _, index = cursor.partition(".")
    if int(at_height) > MAX_HEIGHT or int(index or 0) > MAX_INDEX:
        raise BadInput(f"{cursor!r} is no cursor", hint="Use the `next` of the last answer as it is.")
    return place_of(int(at_height), int(index or 0))


def _cursor(place: int) -> str:
    at_height, index = height_and_index(place)
    return f"{at_height}.{index}"


def _fitting(rows: Sequence[Sequence[Any]], limit: int, column: int | None, overhead: int) -> int:
    """How many of the rows go into one page: at least one, at most ``limit``, and no more bytes than a message holds.

    The size of a row is that of its texts and bytes, or, where ``column`` is given, the number there.
    """
    used = 0
    for count, row in enumerate(rows[:limit]):
        used += overhead
        used += (row[column] or 0) if column is not None else sum(len(v) for v in row if isinstance(v, bytes | str))
        if used > MAX_PAGE_BYTES and count:
            return count
    return min(len(rows), limit)
