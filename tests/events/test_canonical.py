"""Canonical JSON, with rfc8785 as the oracle."""

import json
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from events.canonical import canonical, digest
from schemas.values import MAX_SAFE_INTEGER
from tests.golden import samples

texts = st.text()
keys = st.text(st.characters(codec="ascii"), max_size=12)
numbers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(texts, numbers, st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(keys, inner, max_size=5)),
    max_leaves=20,
)


@given(values)
def test_our_bytes_are_those_of_rfc_8785(value: Any) -> None:
    """On texts, integers, booleans, arrays and objects with ASCII keys, our bytes are those of RFC 8785."""
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("name", samples.signed_events())
def test_events_are_canonical(name: str) -> None:
    """The bytes of every event type are those that RFC 8785 gives for what they say."""
    body = samples.signed_events()[name].body_bytes
    assert rfc8785.dumps(json.loads(body)) == body


@pytest.mark.parametrize(
    "record",
    [samples.genesis(), samples.header(), samples.receipt(), samples.signed_receipt(), *samples.outcomes()],
    ids=lambda record: type(record).__name__,
)
def test_other_records_are_canonical(record: Any) -> None:
    """What is hashed and signed beside events is RFC 8785 too."""
    assert rfc8785.dumps(json.loads(canonical(record))) == canonical(record)


@given(st.binary())
def test_a_digest_is_sha_256_in_lower_case(data: bytes) -> None:
    """A digest is 64 lower-case hexadecimal digits of SHA-256."""
    assert digest(data) == sha256(data).hexdigest()
    assert len(digest(data)) == 64
