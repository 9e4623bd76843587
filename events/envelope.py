"""The envelope: a body, canonical to the byte, and the sender's signature over it.

    {"body":{…},"sig":"<86 characters of base64url>"}

The signature covers ``assay:event:v1``, a zero byte and the body's bytes. The event's id is the SHA-256 of the body's
bytes. Nothing else about an event counts: not the subject it arrived on, not its headers.
"""

import re

import msgspec
from msgspec import Struct

from events.canonical import canonical, digest
from events.errors import Refused
from events.keys import EVENT_DOMAIN, Key, verify
from events.registry import REGISTRY, Registry
from schemas.events import Body
from schemas.refusals import BadSignature, Malformed, NotCanonical, TooLarge, UnknownType

MAX_EVENT_BYTES = 65_536
# Deeper than any record; stops nesting bombs before the decoder sees them.
MAX_DEPTH = 16

_HEAD = b'{"body":'
_MIDDLE = b',"sig":"'
_TAIL = b'"}'
_SIG_LENGTH = 86
_SIG_FIELD = len(_MIDDLE) + _SIG_LENGTH + len(_TAIL)
_TYPE_PATTERN = re.compile(rb'"type":"([^"\\]{1,64})"')


class SignedEvent(Struct, frozen=True):
    """A parsed envelope. ``raw`` are the bytes that travelled, ``body_bytes`` those that are signed."""

    id: str
    event: Body
    body_bytes: bytes
    sig: str
    raw: bytes


def wrap(body_bytes: bytes, sig: str) -> bytes:
    """The envelope's bytes."""
    return _HEAD + body_bytes + _MIDDLE + sig.encode() + _TAIL


def sign(event: Body, key: Key) -> SignedEvent:
    """Signs an event with the key of its sender. Raises AssertionError when the key is another's."""
    if event.sender != key.address:
        raise AssertionError(f"the key of {key.address} cannot sign for {event.sender}")
    body_bytes = canonical(event)
    sig = key.sign(EVENT_DOMAIN + body_bytes)
    return SignedEvent(id=digest(body_bytes), event=event, body_bytes=body_bytes, sig=sig, raw=wrap(body_bytes, sig))


def parse(raw: bytes, registry: Registry = REGISTRY) -> SignedEvent:
    """Reads an envelope; the signature is not checked here (`verify_event`).

    Raises Refused with TooLarge, NotCanonical, UnknownType or Malformed.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise Refused(TooLarge(limit=MAX_EVENT_BYTES, size=len(raw)))
    body_bytes = raw[len(_HEAD) : -_SIG_FIELD]
    sig_bytes = raw[-_SIG_LENGTH - len(_TAIL) : -len(_TAIL)]
    if wrap(body_bytes, sig_bytes.decode("latin-1")) != raw:
        raise Refused(
            NotCanonical(detail='the envelope is not exactly {"body":…,"sig":"…"} with a signature of 86 characters')
        )
    event = _decode_body(body_bytes, registry)
    return SignedEvent(
        id=digest(body_bytes), event=registry.newest(event), body_bytes=body_bytes, sig=sig_bytes.decode(), raw=raw
    )


def _decode_body(body_bytes: bytes, registry: Registry) -> Body:
    if max(body_bytes.count(b"{"), body_bytes.count(b"[")) > MAX_DEPTH and _depth(body_bytes) > MAX_DEPTH:
        raise Refused(Malformed(detail=f"nested deeper than {MAX_DEPTH}"))
    try:
        event = registry.decode(body_bytes)
        again = canonical(event)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeError) as error:
        found = _TYPE_PATTERN.search(body_bytes)
        if found and (name := found[1].decode("utf-8", "replace")) not in registry.records:
            raise Refused(UnknownType(type=name)) from error
        raise Refused(Malformed(detail=str(error)[:300])) from error
    if again != body_bytes:
        raise Refused(
            NotCanonical(detail="the body is not canonical JSON: key order, white space, a repeated key or an escape")
        )
    return event


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for byte in data:
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest


def signature_holds(signed: SignedEvent) -> bool:
    """Whether the signature is the sender's."""
    return verify(signed.event.sender, EVENT_DOMAIN + signed.body_bytes, signed.sig)


def verify_event(signed: SignedEvent) -> None:
    """Raises Refused(BadSignature) unless the signature is the sender's."""
    if not signature_holds(signed):
        raise Refused(BadSignature(sender=signed.event.sender))


def read(raw: bytes, registry: Registry = REGISTRY) -> SignedEvent:
    """Parses and verifies. Raises Refused."""
    signed = parse(raw, registry)
    verify_event(signed)
    return signed
