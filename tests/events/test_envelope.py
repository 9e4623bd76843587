"""Envelopes: exactly one sequence of bytes for each signed event, and a typed refusal for everything else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.canonical import canonical, digest
from events.envelope import (
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    SignedEvent,
    parse,
    read,
    sign,
    signature_holds,
    verify_event,
    wrap,
)
from events.errors import Refused
from events.keys import BLOCK_DOMAIN, EVENT_DOMAIN
from schemas.events import TransferSent
from schemas.refusals import AnyRefusal, BadSignature, Malformed, NotCanonical, TooLarge, UnknownType, code_of
from schemas.values import MAX_SAFE_INTEGER
from tests.golden import samples
from tests.golden.refused_envelopes import BODY, SIG, refused_envelopes
from tests.golden.samples import ALICE, BOB, CHAIN, transfer

amounts = st.integers(1, MAX_SAFE_INTEGER)
transfers = st.builds(
    TransferSent,
    chain=st.just(CHAIN),
    sender=st.just(ALICE.address),
    nonce=st.integers(0, MAX_SAFE_INTEGER),
    gas_price=st.integers(0, MAX_SAFE_INTEGER),
    to=st.just(BOB.address),
    amount=amounts,
    memo=st.text(max_size=256),
)


def refusal_of(call: Callable[[bytes], Any], raw: bytes) -> AnyRefusal:
    """The refusal that reading these bytes gives."""
    with pytest.raises(Refused) as caught:
        call(raw)
    return caught.value.refusal  # type: ignore[return-value]


@given(transfers)
def test_what_is_signed_can_be_read(event: TransferSent) -> None:
    """Signed and read again, an event is the same to the byte, and its signature holds."""
    signed = sign(event, ALICE)
    assert read(signed.raw) == signed
    assert signed.event == event
    assert json.loads(signed.raw) == {"body": json.loads(canonical(event)), "sig": signed.sig}


@pytest.mark.parametrize("name", samples.signed_events())
def test_every_type_can_be_read(name: str) -> None:
    """An envelope of each type is read whole; its id is the SHA-256 of the body's bytes."""
    signed = samples.signed_events()[name]
    assert read(signed.raw) == signed
    assert signed.id == digest(signed.body_bytes)
    assert signed.raw == wrap(signed.body_bytes, signed.sig)


@pytest.mark.parametrize(("raw", "code"), [pytest.param(raw, code, id=name) for name, raw, code in refused_envelopes()])
def test_what_is_no_envelope_is_refused(raw: bytes, code: str) -> None:
    """Each of these is turned away with its code, and the refusal can itself be told as JSON."""
    refusal = refusal_of(parse, raw)
    assert code_of(refusal) == code
    assert json.loads(canonical(refusal))["code"] == code
    assert len(canonical(refusal)) < 1_000


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """Whatever arrives, nothing but Refused is raised."""
    assert isinstance(refusal_of(parse, raw), NotCanonical)


@given(st.binary(max_size=300))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """Whatever stands for a body in a right envelope, nothing but Refused is raised."""
    assert isinstance(refusal_of(parse, wrap(body, SIG)), NotCanonical | Malformed)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


def outcome_of(body: bytes) -> str:
    """`READ` when a body is read to the same bytes, otherwise the code of the refusal."""
    try:
        signed = parse(wrap(body, SIG))
    except Refused as error:
        return code_of(error.refusal)
    return "READ" if canonical(signed.event) == body else "CHANGED"


@given(field=st.sampled_from(sorted(json.loads(BODY))), value=json_values)
def test_any_value_in_a_field_is_read_or_refused(field: str, value: Any) -> None:
    """Whatever JSON stands in a field, the event is refused or read to the same bytes."""
    body = json.dumps(json.loads(BODY) | {field: value}, sort_keys=True, separators=(",", ":")).encode()
    assert outcome_of(body) in {"READ", "NOT_CANONICAL", "MALFORMED", "UNKNOWN_TYPE"}


@given(place=st.integers(0, len(BODY) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_passes(place: int, bit: int) -> None:
    """An envelope with one wrong bit is refused, by its form or by its signature."""
    raw = bytearray(sign(transfer(nonce=1, memo="é"), ALICE).raw)
    raw[place % len(raw)] ^= 1 << bit
    with pytest.raises(Refused):
        read(bytes(raw))


def test_a_refusal_of_a_field_names_its_place() -> None:
    """Who sends a wrong field learns which."""
    refusal = refusal_of(parse, wrap(canonical(transfer(amount=0)), SIG))
    assert isinstance(refusal, Malformed)
    assert "$.amount" in refusal.detail


def test_a_float_is_told_with_its_place() -> None:
    """A float is not canonical, and the refusal says where it stands."""
    refusal = refusal_of(parse, wrap(BODY.replace(b'"nonce":1', b'"nonce":1.5'), SIG))
    assert isinstance(refusal, NotCanonical)
    assert "$.nonce" in refusal.detail


def test_an_unknown_type_is_told_by_name() -> None:
    """The refusal names the type, cut to what a reader can use."""
    assert refusal_of(parse, wrap(b'{"type":"nobody.knows"}', SIG)) == UnknownType(type="nobody.knows")
    assert refusal_of(parse, wrap(b'{"type":"' + b"x" * 500 + b'"}', SIG)) == UnknownType(type="x" * 64)


def test_only_the_type_of_the_body_counts() -> None:
    """A field `type` deeper inside the body is not taken for the body's own."""
    body = b'{"a":{"type":"nobody.knows"},"type":"somebody.else"}'
    assert refusal_of(parse, wrap(body, SIG)) == UnknownType(type="somebody.else")


def test_the_limit_of_bytes_is_exact() -> None:
    """An envelope of the largest size is read as far as its form; one byte more is not looked at."""
    largest = wrap(b" " * (MAX_EVENT_BYTES - len(wrap(b"", SIG))), SIG)
    assert len(largest) == MAX_EVENT_BYTES
    assert isinstance(refusal_of(parse, largest), Malformed)
    assert refusal_of(parse, largest + b" ") == TooLarge(limit=MAX_EVENT_BYTES, size=MAX_EVENT_BYTES + 1)


def test_brackets_inside_a_text_are_not_nesting() -> None:
    """A memo may hold any number of brackets, escaped quotation marks between them."""
    for memo in ("[" * 200, "{" * 200, '"[' * 60, "\\" * 9 + '"' + "[" * 50, '\\"[{' * 50):
        signed = sign(transfer(memo=memo), ALICE)
        assert read(signed.raw) == signed


def test_brackets_side_by_side_are_not_nesting() -> None:
    """Many shallow arrays are looked into, and refused for what they are."""
    body = BODY[:-1] + b',"x":[' + b",".join([b"{}"] * 100) + b"]}"
    refusal = refusal_of(parse, wrap(body, SIG))
    assert isinstance(refusal, Malformed)
    assert "unknown field" in refusal.detail


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2])
def test_the_limit_of_depth_is_exact(depth: int) -> None:
    """Nesting up to the limit is looked into; deeper is refused before anything is decoded."""
    body = b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b',"type":"nobody.knows"}'
    refusal = refusal_of(parse, wrap(body, SIG))
    assert code_of(refusal) == ("UNKNOWN_TYPE" if depth <= MAX_DEPTH else "MALFORMED")


def test_a_wrong_signature_is_refused() -> None:
    """An envelope whose form is right is refused when another key signed it."""
    event = transfer()
    body = canonical(event)
    forged = wrap(body, BOB.sign(EVENT_DOMAIN + body))
    assert parse(forged).event == event
    assert refusal_of(read, forged) == BadSignature(sender=ALICE.address)


def test_a_signature_of_another_domain_is_refused() -> None:
    """The sender's own signature over the same bytes as a block's header, or over the bytes alone, does not count."""
    body = canonical(transfer())
    for signature in (ALICE.sign(BLOCK_DOMAIN + body), ALICE.sign(body)):
        assert not signature_holds(parse(wrap(body, signature)))


def test_a_changed_body_is_refused() -> None:
    """A signature does not carry over to another amount."""
    signature = sign(transfer(amount=1), ALICE).sig
    with pytest.raises(Refused, match="BAD_SIGNATURE"):
        verify_event(parse(wrap(canonical(transfer(amount=2)), signature)))


def test_nobody_signs_for_another() -> None:
    """Signing with a key that is not the sender's is a mistake of the caller."""
    with pytest.raises(AssertionError, match="cannot sign for"):
        sign(transfer(), BOB)


def test_equal_events_have_equal_ids() -> None:
    """Said again, an event is the same event: the same bytes, the same id."""
    assert sign(transfer(), ALICE) == sign(transfer(), ALICE)
    assert isinstance(sign(transfer(), ALICE), SignedEvent)
    assert sign(transfer(nonce=1), ALICE).id != sign(transfer(), ALICE).id
