"""The query that a proposer asks at its start."""

import sqlite3


def recent_events(db: sqlite3.Connection, limit: int) -> tuple[str, ...]:
    """The ids of up to ``limit`` events of the newest blocks, oldest first."""
    rows = db.execute("SELECT id FROM events WHERE id IS NOT NULL ORDER BY place DESC LIMIT ?", (limit,)).fetchall()
    return tuple(row[0].hex() for row in reversed(rows))
