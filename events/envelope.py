"""The envelope: a body, canonical to the byte, and the sender's signature over it.

    {"body":{…},"sig":"<86 characters of base64url>"}

The signature covers ``assay:event:v1``, a zero byte and the body's bytes. The event's id is the SHA-256 of the body's
bytes. Nothing else about an event counts: not the subject it arrived on, not its headers.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from events.canonical import canonical, digest
from events.errors import Refused
from events.keys import EVENT_DOMAIN, Key, is_account, is_signature, verify
from events.registry import REGISTRY, Registry
from schemas.events import Body, JobAssigned, JobFailed, JobSubmitted, TransferSent
from schemas.refusals import BadSignature, Malformed, NotCanonical, Refusal, TooLarge, UnknownType

MAX_EVENT_BYTES = 65_536
# Deeper than any record; stops nesting bombs before the decoder sees them.
MAX_DEPTH = 16

_HEAD = b'{"body":'
_MIDDLE = b',"sig":"'
_TAIL = b'"}'
_SIG_LENGTH = 86
_SIG_FIELD = len(_MIDDLE) + _SIG_LENGTH + len(_TAIL)
# A string (one without an end runs to the end of the data), or a bracket outside of strings.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


class _Typed(Struct):
    """Only the type's name, whatever else a body holds."""

    type: str


_any_decoder = msgspec.json.Decoder()
_type_decoder = msgspec.json.Decoder(_Typed)


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
    sig = raw[-_SIG_LENGTH - len(_TAIL) : -len(_TAIL)].decode("latin-1")
    if not is_signature(sig) or wrap(body_bytes, sig) != raw:
        raise Refused(
            NotCanonical(
                detail='the envelope is not exactly {"body":…,"sig":"…"} with a signature of 86 characters of base64url'
            )
        )
    event = registry.newest(_decode_body(body_bytes, registry))
    for address in _addresses_of(event):
        if not is_account(address):
            raise Refused(Malformed(detail=f"{address} is no address: its checksum or its prefix is wrong"))
    return SignedEvent(id=digest(body_bytes), event=event, body_bytes=body_bytes, sig=sig, raw=raw)


def _decode_body(body_bytes: bytes, registry: Registry) -> Body:
    if _is_deep(body_bytes):
        raise Refused(Malformed(detail=f"nested deeper than {MAX_DEPTH}"))
    try:
        event = registry.decode(body_bytes)
        again = canonical(event)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeError) as error:
        raise Refused(_why_undecodable(body_bytes, registry, str(error)[:300])) from error
    if again != body_bytes:
        raise Refused(
            NotCanonical(detail="the body is not canonical JSON: key order, white space, a repeated key or an escape")
        )
    return event


def _why_undecodable(body_bytes: bytes, registry: Registry, detail: str) -> Refusal:
    """The first that holds: no JSON at all, an unknown type, a value that no record may hold, a wrong field."""
    try:
        value = _any_decoder.decode(body_bytes)
    except (msgspec.DecodeError, UnicodeError) as error:
        return Malformed(detail=str(error)[:300])
    try:
        name = _type_decoder.decode(body_bytes).type
    except msgspec.ValidationError as error:
        return Malformed(detail=str(error)[:300])
    if name not in registry.records:
        return UnknownType(type=name[:64])
    return NotCanonical(detail=detail) if _holds_float_or_null(value) else Malformed(detail=detail)


def _holds_float_or_null(value: Any) -> bool:
    match value:
        case dict():
            return any(_holds_float_or_null(member) for member in value.values())
        case list():
            return any(_holds_float_or_null(element) for element in value)
    return value is None or not isinstance(value, str | int)


def _is_deep(data: bytes) -> bool:
    """Whether brackets outside of strings nest deeper than MAX_DEPTH. Looks no further than that."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(data):
        if (bracket := token[0]) in {b"{", b"["}:
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif bracket in {b"}", b"]"}:
            depth -= 1
    return False


def _addresses_of(event: Body) -> tuple[str, ...]:
    """Every address that an event names. Their shape is known, their checksums are not."""
    match event:
        case TransferSent(to=to):
            return (event.sender, to)
        case JobAssigned(miner=miner) | JobFailed(miner=miner):
            return (event.sender, miner)
        case JobSubmitted(requirement=requirement) if requirement.miners is not msgspec.UNSET:
            return (event.sender, *requirement.miners)
    return (event.sender,)


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
