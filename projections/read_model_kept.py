"""What a node holds although the log may not: blocks that it has voted for, and final blocks that the log has lost.

A vote is said only when the block it is for is safe on the voter's disk, beside the vote. So a final block is on the
disks of a quorum, and a log that loses its newest messages can be given them again. A row goes when the block of its
height is among the rows that follow from the log.
"""

import sqlite3
from typing import Final

import msgspec
from msgspec import Struct

from events.canonical import canonical
from projections.read_model_stored import stored_bytes, stored_number, stored_record
from projections.read_model_tables import place_of
from schemas.blocks import Commit, CommitSignature, SignedVote, Vote

_commits: Final = msgspec.json.Decoder(Commit)


class Kept(Struct, frozen=True, kw_only=True):
    """A block as it stood in the log, with votes for it: all of them where it was ``final`` here, else the own one."""

    height: int
    hash: str
    data: bytes
    votes: Commit
    final: bool

    def said(self, chain: str) -> list[bytes]:
        """The votes as messages of the log."""
        vote = [Vote(block=self.hash, chain=chain, height=self.height, validator=each.validator) for each in self.votes]
        return [canonical(SignedVote(sig=each.sig, vote=cast)) for each, cast in zip(self.votes, vote, strict=True)]


def keep_voted(db: sqlite3.Connection, signed: SignedVote, block: bytes) -> None:
    """Keeps a block together with one's vote for it."""
    vote = signed.vote
    votes = canonical((CommitSignature(validator=vote.validator, sig=signed.sig),))
    db.execute("INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?, 0)", (vote.height, vote.block, block, votes))


def keep_lost(db: sqlite3.Connection, height: int) -> None:
    """Keeps the final blocks of the rows from this height on."""
    rows = db.execute(
        "SELECT height, hash, header, sig, votes FROM blocks WHERE height >= ? ORDER BY height", (height,)
    ).fetchall()
    for at, block_hash, header, sig, votes in rows:
        raws = db.execute(
            "SELECT raw FROM events WHERE place BETWEEN ? AND ? AND raw IS NOT NULL ORDER BY place",
            (place_of(at, 0), place_of(at + 1, 0) - 1),
        ).fetchall()
        # The canonical form of a block, whose parts are stored in theirs.
        events = b",".join(bytes(raw) for (raw,) in raws)
        data = b'{"events":[' + events + b'],"header":' + bytes(header) + b',"sig":"' + sig.encode() + b'"}'
        db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, 1)", (at, block_hash.hex(), data, votes))


def kept_blocks(db: sqlite3.Connection) -> dict[int, Kept]:
    """By height; where another block than the one voted for was final, that one. Raises VerificationFailed."""
    found: dict[int, Kept] = {}
    for height, block_hash, data, votes, final in db.execute("SELECT * FROM kept ORDER BY height, final"):
        what = f"the block kept for height {height}"
        found[stored_number(height, "kept")] = Kept(
            height=height,
            hash=str(block_hash),
            data=stored_bytes(data, what),
            votes=stored_record(_commits, votes, what),
            final=bool(final),
        )
    return found


def block_sequence(db: sqlite3.Connection, height: int) -> tuple[int, str]:
    """Which message of the log a final block of the rows was, and its hash."""
    sequence, block_hash = db.execute("SELECT sequence, hash FROM blocks WHERE height = ?", (height,)).fetchone()
    return int(sequence), stored_bytes(block_hash, "the hash of a block").hex()
