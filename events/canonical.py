"""Canonical JSON: one byte sequence per value.

Equal to RFC 8785 on the subset that Assay uses: ASCII keys, strings, booleans, integers below 2**53, arrays, objects.
No floats and no nulls exist in any record, so none can be encoded.
"""

from hashlib import sha256
from typing import Any, Final

import msgspec

# What msgspec's JSON decoders raise for a stranger's bytes: no JSON or another record, no UTF-8, nested too deeply.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)

_encoder = msgspec.json.Encoder(order="sorted")


def canonical(record: Any) -> bytes:
    """The canonical bytes of a record. ``msgspec.Raw`` fields are copied as they are."""
    return _encoder.encode(record)


def digest(data: bytes) -> str:
    """SHA-256 as 64 lower-case hexadecimal digits."""
    return sha256(data).hexdigest()
