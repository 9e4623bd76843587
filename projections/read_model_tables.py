"""The tables of the read model.

A *place* is one number for a height and an index among the block's outcomes: ``height << 24 | index``. Digests are
stored as their 32 bytes. Addresses stand in `participants` as numbers, given in the order in which the log first
names them.
"""

from typing import Final

FORMAT: Final = 3
INDEX_BITS: Final = 24
MAX_INDEX: Final = (1 << INDEX_BITS) - 1
# SQLite's integers have 63 bits beside the sign.
MAX_HEIGHT: Final = (1 << 63 - INDEX_BITS) - 2

_TABLES: Final = {
    # Format, genesis hash, height, position in CHAIN.
    "meta": "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    # The state: every record's canonical bytes under its key (accounts, jobs, miners, supply).
    "records": "CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "blocks": """CREATE TABLE blocks (height INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, header BLOB NOT NULL,
        sig TEXT NOT NULL, votes BLOB NOT NULL, timers INTEGER NOT NULL, events INTEGER NOT NULL,
        sequence INTEGER NOT NULL)""",
    # `raw` is the envelope, `outcome` the canonical outcome where it is not Applied, `beyond` the addresses concerned
    # that the envelope does not name. Timers have neither id nor raw.
    "events": """CREATE TABLE events (place INTEGER PRIMARY KEY, id BLOB, fee INTEGER NOT NULL, raw BLOB, outcome BLOB,
        beyond TEXT)""",
    "addresses": "CREATE TABLE addresses (number INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE)",
    "participants": """CREATE TABLE participants (address INTEGER NOT NULL, place INTEGER NOT NULL,
        PRIMARY KEY (address, place)) WITHOUT ROWID""",
    "jobs": """CREATE TABLE jobs (place INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, owner TEXT NOT NULL,
        situation TEXT NOT NULL)""",
    "job_events": """CREATE TABLE job_events (job BLOB NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (job, place))
        WITHOUT ROWID""",
    "receipts": """CREATE TABLE receipts (job BLOB PRIMARY KEY, place INTEGER NOT NULL, receipt BLOB NOT NULL)
        WITHOUT ROWID""",
    "counts": "CREATE TABLE counts (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
}

# What the log gives again. The other four outlive a change of format.
DERIVED_TABLES: Final = tuple(_TABLES)

SCHEMA: Final = (
    *_TABLES.values(),
    "CREATE UNIQUE INDEX events_by_id ON events (id) WHERE id IS NOT NULL",
    "CREATE INDEX jobs_by_owner ON jobs (owner, place)",
    "CREATE INDEX jobs_by_situation ON jobs (situation, place)",
    "CREATE TABLE IF NOT EXISTS votes (height INTEGER PRIMARY KEY, block TEXT NOT NULL, data BLOB NOT NULL)",
    # The height and the round of the newest own block.
    """CREATE TABLE IF NOT EXISTS proposals (only INTEGER PRIMARY KEY CHECK (only = 1), height INTEGER NOT NULL,
        round INTEGER NOT NULL)""",
    # See `projections.read_model_kept`: `final` 0 for a block that was voted for, 1 for one that the log has lost.
    """CREATE TABLE IF NOT EXISTS kept (height INTEGER NOT NULL, hash TEXT NOT NULL, data BLOB NOT NULL,
        votes BLOB NOT NULL, final INTEGER NOT NULL, PRIMARY KEY (height, hash))""",
    "CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, height INTEGER NOT NULL) WITHOUT ROWID",
)


def place_of(height: int, index: int) -> int:
    """The place of an outcome in the log."""
    return height << INDEX_BITS | index


def height_and_index(place: int) -> tuple[int, int]:
    """The other way."""
    return place >> INDEX_BITS, place & MAX_INDEX
