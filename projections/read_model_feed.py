"""Feed messages out of the read model: all that one block holds for each address that it concerns."""

import sqlite3

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from events.canonical import canonical
from projections.read_model_queries import outcome_of
from projections.read_model_stored import stored_envelope, stored_header, stored_record
from projections.read_model_tables import place_of
from schemas.blocks import Applied
from schemas.messages import FeedEntry, FeedMessage


class _Body(Struct):
    sender: str
    to: str | UnsetType = UNSET


class _Named(Struct):
    """Those whom an envelope itself names."""

    body: _Body


_named_decoder = msgspec.json.Decoder(_Named)


def feed_messages(db: sqlite3.Connection, height: int) -> tuple[int, list[tuple[str, bytes]]] | None:
    """The block's time in milliseconds and (address, message) pairs; None above the newest block."""
    block = db.execute("SELECT hash, header FROM blocks WHERE height = ?", (height,)).fetchone()
    if block is None:
        return None
    header = stored_header(block[1], block[0])
    entries: dict[str, list[FeedEntry]] = {}
    rows = db.execute(
        "SELECT place, id, fee, raw, outcome, beyond FROM events WHERE place BETWEEN ? AND ? ORDER BY place",
        (place_of(height, 0), place_of(height + 1, 0) - 1),
    )
    for index, (_, event_id, fee, raw, stored, beyond) in enumerate(rows):
        outcome = outcome_of(event_id, fee, stored)
        event = Raw(stored_envelope(raw, event_id)) if raw is not None else UNSET
        entry = FeedEntry(index=index, outcome=outcome, event=event)
        addresses = beyond.split() if beyond else []
        if raw is not None:
            named = stored_record(_named_decoder, raw, "an envelope").body
            addresses.append(named.sender)
            if isinstance(outcome, Applied) and named.to is not UNSET:
                addresses.append(named.to)
        for address in dict.fromkeys(addresses):
            entries.setdefault(address, []).append(entry)
    block_hash = block[0].hex()
    return header.time_ms, [
        (
            address,
            canonical(
                FeedMessage(
                    chain=header.chain, height=height, block=block_hash, time_ms=header.time_ms, entries=tuple(of)
                )
            ),
        )
        for address, of in entries.items()
    ]
