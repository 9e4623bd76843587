"""Values as they come out of the file, which a disk or a hand may have changed: each of its type, and what is named by
a digest is what the digest says."""

from typing import Any, Final, TypeVar

import msgspec

from events.canonical import UNREADABLE, digest
from events.errors import VerificationFailed
from schemas.blocks import Header

REBUILD: Final = "Stop the node and delete the file: it is rebuilt from the log."

Record = TypeVar("Record")
_headers: Final = msgspec.json.Decoder(Header)
# Of an envelope, what stands before the body and after it.
_HEAD: Final = len(b'{"body":')
_TAIL: Final = len(b',"sig":""}') + 86


def damaged(what: str, why: str) -> VerificationFailed:
    """The error for a row that is not what was written."""
    return VerificationFailed(f"the read model is damaged: {what}", why=why, hint=REBUILD)


def stored_bytes(value: Any, what: str) -> bytes:
    """Raises VerificationFailed for what is no BLOB."""
    if not isinstance(value, bytes):
        raise damaged(what, f"there are no bytes but {type(value).__name__}")
    return value


def stored_number(value: Any, what: str) -> int:
    """Raises VerificationFailed for what is no integer, or a negative one."""
    if not isinstance(value, int) or value < 0:
        raise damaged(what, f"{value!r:.40} is not a number of anything")
    return value


def stored_record(decoder: "msgspec.json.Decoder[Record]", value: Any, what: str) -> Record:
    """Raises VerificationFailed for what is no such record."""
    data = stored_bytes(value, what)
    try:
        return decoder.decode(data)
    except UNREADABLE as error:
        raise damaged(what, str(error)) from error


def stored_header(value: Any, block_hash: Any) -> Header:
    """The header with this hash. Raises VerificationFailed."""
    data = stored_bytes(value, "the header of a block")
    found = digest(data)
    if found != stored_bytes(block_hash, "the hash of a block").hex():
        raise damaged(f"block {block_hash.hex()}", f"its header has the hash {found}")
    return stored_record(_headers, data, f"block {found}")


def stored_envelope(value: Any, event_id: Any) -> bytes:
    """The envelope of the event with this id. Raises VerificationFailed."""
    raw = stored_bytes(value, "an envelope")
    found = digest(raw[_HEAD:-_TAIL])
    if found != stored_bytes(event_id, "the id of an event").hex():
        raise damaged(f"event {event_id.hex()}", f"the body of its envelope has the id {found}")
    return raw
