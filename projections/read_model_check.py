"""Checking a read model: everything in it is derived again from its own signed blocks, and compared.

`projections.read_model` compares the state with its root when it opens a file, and a block and an event with the digest
that names it whenever it reads one. What else it serves (outcomes, histories, counts) it takes for granted; whoever has
a reason to doubt the file asks here. Nothing but the genesis is believed: every block is checked and executed again,
which takes as long as a replay of the log, and gives what the rows have to be.
"""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw

from events.blocks import decode_vote, genesis_hash, vote_signature_holds
from events.canonical import canonical
from events.errors import AssayError, Divergence, VerificationFailed
from projections.chain import Chain
from projections.chain import Final as FinalBlock
from projections.concerns import Concerns
from projections.proofs import verify_block
from projections.read_model_rows import Rows, write_rows
from projections.read_model_stored import REBUILD, stored_number
from projections.read_model_tables import DERIVED_TABLES, FORMAT, SCHEMA, place_of
from schemas.blocks import Block, Commit, Header, SignedVote, Vote
from schemas.genesis import Genesis
from schemas.messages import BlockProof

_BATCH: Final = 64
_headers: Final = msgspec.json.Decoder(Header)
_commits: Final = msgspec.json.Decoder(Commit)


def check_rows(path: Path, genesis: Genesis, beside: Path, progress: Callable[[int], None] | None = None) -> int:
    """Returns the height up to which everything in the file at ``path`` is right.

    ``beside`` is a new file that is needed for a while; ``progress`` is told the heights. Raises VerificationFailed
    with the first thing that is not right.
    """
    db = sqlite3.connect(path)
    try:
        return _checked(db, genesis, beside, progress)
    except (sqlite3.Error, TypeError, ValueError, LookupError, OverflowError, RecursionError) as error:
        # Values of another type than the column's come from damaged pages; a decoder of theirs may raise any of these.
        raise _wrong(f"it cannot be read: {error}") from error
    finally:
        db.close()


def _wrong(why: str) -> VerificationFailed:
    return VerificationFailed("the read model is not what follows from its blocks", why=why, hint=REBUILD)


def _checked(db: sqlite3.Connection, genesis: Genesis, beside: Path, progress: Callable[[int], None] | None) -> int:
    for (finding,) in db.execute("PRAGMA integrity_check(1)"):
        if finding != "ok":
            raise _wrong(str(finding))
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    for key, wanted in (("format", FORMAT), ("genesis", genesis_hash(genesis))):
        if meta.get(key) != wanted:
            raise _wrong(f"its {key} is {meta.get(key)}, not {wanted}")
    _rebuild(db, genesis, beside, progress)
    db.execute("ATTACH ? AS rebuilt", (str(beside),))
    try:
        for table in DERIVED_TABLES:
            _compare(db, table)
    finally:
        db.execute("DETACH rebuilt")
    height, newest = db.execute("SELECT count(*), coalesce(max(sequence), 0) FROM blocks").fetchone()
    last_block, position = (stored_number(meta.get(name), name) for name in ("last_block", "position"))
    if not newest <= last_block <= position:
        raise _wrong(f"its place in the log is {position}, the newest block's {newest}")
    _check_local(db, genesis, height)
    return int(height)


def _rebuild(db: sqlite3.Connection, genesis: Genesis, beside: Path, progress: Callable[[int], None] | None) -> None:
    """Executes the stored blocks and writes the rows that follow from them into the file ``beside``."""
    chain = Chain(genesis)
    concerns = Concerns(chain.state.unfinished_jobs())
    numbers: dict[str, int] = {}
    new = sqlite3.connect(beside, isolation_level=None)
    try:
        new.execute("PRAGMA synchronous=OFF")
        for statement in SCHEMA:
            new.execute(statement)
        places = ("height", "position", "last_block")
        fixed = {"format": FORMAT, "genesis": chain.genesis_hash, "state_root": chain.state.root()}
        new.executemany("INSERT INTO meta VALUES (?, ?)", [*fixed.items(), *((name, 0) for name in places)])
        new.executemany("INSERT INTO records VALUES (?, ?)", chain.state.rows())
        rows = Rows(genesis.chain, 0, 0)
        for final in _finals(db, chain):
            rows.add(final, concerns.of_block(final.executed, final.events))
            if len(rows.blocks) >= _BATCH:
                write_rows(new, rows, numbers)
                rows = Rows(genesis.chain, 0, 0)
            if progress is not None:
                progress(final.header.height)
        if rows.blocks:
            write_rows(new, rows, numbers)
    finally:
        new.close()


def _finals(db: sqlite3.Connection, chain: Chain) -> Iterator[FinalBlock]:
    """The stored blocks, each checked, executed, and made final by the votes that are stored with it."""
    stored = db.execute("SELECT header, sig, votes, timers, sequence FROM blocks ORDER BY height")
    before = 0
    for header_bytes, sig, votes_bytes, timers, sequence in stored:
        if sequence <= before:
            raise _wrong(f"block {chain.height + 1}: it is message {sequence} of the log, and follows {before}")
        before = sequence
        header, votes = _headers.decode(header_bytes), _commits.decode(votes_bytes)
        place = place_of(chain.height + 1, 0)
        raws = db.execute(
            "SELECT raw FROM events WHERE place BETWEEN ? AND ? ORDER BY place",
            (place + timers, place_of(chain.height + 2, 0) - 1),
        ).fetchall()
        block = Block(events=tuple(Raw(bytes(raw)) for (raw,) in raws), header=header, sig=sig)
        yield _final(chain, block, votes, sequence)


def _final(chain: Chain, block: Block, votes: Commit, sequence: int) -> FinalBlock:
    header, height = block.header, chain.height + 1
    try:
        block_hash = verify_block(
            BlockProof(header=header, votes=tuple((v.validator, v.sig) for v in votes)), chain.genesis
        )
        final = chain.add(sequence, "block", canonical(block), None)
        for each in votes:
            vote = Vote(block=block_hash, chain=header.chain, height=header.height, validator=each.validator)
            final = final or chain.add(sequence, "vote", canonical(SignedVote(sig=each.sig, vote=vote)), None)
    except Divergence as error:
        raise _wrong(f"block {height}: {error.difference}") from error
    except AssayError as error:
        raise _wrong(f"block {height}: {error}") from error
    if final is None:
        faults = [str(each.fault) for each in chain.rejected if each.sequence == sequence]
        raise _wrong(f"block {height}: {faults[-1] if faults else 'it is not final'}")
    # The quorum may be complete before the last of the votes that were there when it was.
    return msgspec.structs.replace(final, votes=votes)


def _compare(db: sqlite3.Connection, table: str) -> None:
    """Raises VerificationFailed for a row that is there and should not be, or the other way round."""
    kept = " WHERE key NOT IN ('position', 'last_block')" if table == "meta" else ""
    for one, other, words in (("main", "rebuilt", "should not be there"), ("rebuilt", "main", "is missing")):
        query = f"SELECT * FROM {one}.{table}{kept} EXCEPT SELECT * FROM {other}.{table}{kept} LIMIT 1"  # noqa: S608
        row: Any = db.execute(query).fetchone()
        if row is not None:
            raise _wrong(f"{table}: the row that begins with {row[0]!r:.100} {words}")


def _check_local(db: sqlite3.Connection, genesis: Genesis, height: int) -> None:
    """What no block gives again must at least make sense: the node's own votes, the round of its newest
    block, and how far others have read."""
    for at, block, data in db.execute("SELECT height, block, data FROM votes"):
        try:
            signed = decode_vote(bytes(data))
        except VerificationFailed as error:
            raise _wrong(f"votes: what is stored at height {at} is no vote: {error.why}") from error
        if (signed.vote.height, signed.vote.block, signed.vote.chain) != (at, block, genesis.chain):
            raise _wrong(f"votes: the vote at height {at} is for another block than it says")
        if not vote_signature_holds(signed):
            raise _wrong(f"votes: the vote at height {at} is not signed by its validator")
    for row in db.execute("SELECT height, round FROM proposals"):
        for number in row:
            stored_number(number, "proposals")
    for name, at in db.execute("SELECT name, height FROM marks"):
        if not 0 <= at <= height:
            raise _wrong(f"marks: {name} is at {at}, the newest block is {height}")
