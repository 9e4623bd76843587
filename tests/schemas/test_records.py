"""What holds for the records of every module: frozen, closed, without nulls, and small helpers beside them."""

import types
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.canonical import canonical
from schemas import blocks, events, genesis, messages, queries, receipts, refusals, services, state
from schemas.events import EVENT_TYPES, Event, JobSubmitted, Requirement, TransferSent, type_of
from schemas.refusals import HINTS, REFUSALS, UnknownJob, code_of
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix, blobs_of, service_of, units_of
from schemas.services.matmul import MULTIPLICATIONS_PER_UNIT
from schemas.state import Cancelled, Job, Open, situation_of
from tests.golden import samples

MODULES = (blocks, events, genesis, messages, queries, receipts, refusals, services, state)
RECORDS = [
    value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__
]
DIGEST = samples.JOB


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.__module__}.{record.__name__}")
def test_records_are_frozen_and_closed(record: type[msgspec.Struct]) -> None:
    """No record can be changed, and none takes a field that it does not know."""
    assert record.__struct_config__.frozen
    assert record.__struct_config__.forbid_unknown_fields


def leaves(kind: Any) -> Iterator[Any]:
    """Every type inside a type, unions and annotations taken apart."""
    yield kind
    for part in get_args(kind):
        yield from leaves(part)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.__module__}.{record.__name__}")
def test_no_field_can_be_null_or_a_float(record: type[msgspec.Struct]) -> None:
    """Optional fields are absent, never null, and no record has a float."""
    for field in msgspec.structs.fields(record):
        assert not {types.NoneType, None, float} & {
            part for part in leaves(field.type) if isinstance(part, type | None)
        }


def test_absent_fields_are_not_written() -> None:
    """An optional field that is not given does not appear in the bytes at all."""
    assert b"memo" not in canonical(samples.transfer())
    assert b"null" not in canonical(samples.transfer())
    assert canonical(Requirement(memory_mib=0)) == b'{"memory_mib":0}'


def test_absent_fields_are_not_taken_as_null() -> None:
    """An explicit null is refused where the field may be absent."""
    body = canonical(samples.transfer()).replace(b'"nonce"', b'"memo":null,"nonce"')
    with pytest.raises(msgspec.ValidationError, match="got `null`"):
        msgspec.json.decode(body, type=TransferSent)


def test_the_event_types_are_the_union() -> None:
    """The tuple for loops and the union for types hold the same records in the same order."""
    assert get_args(Event) == EVENT_TYPES
    assert len({str(record.__struct_config__.tag) for record in EVENT_TYPES}) == len(EVENT_TYPES)


def test_samples_cover_every_event_type() -> None:
    """Each event type has an example, and its name is the one in its bytes."""
    examples = [signed.event for signed in samples.signed_events().values()]
    assert {type(event) for event in examples} == set(EVENT_TYPES)
    for event in examples:
        assert f'"type":"{type_of(event)}"'.encode() in canonical(event)


@pytest.mark.parametrize("name", samples.signed_events())
def test_events_survive_the_wire(name: str) -> None:
    """Written and read again, an event is the same record."""
    event = samples.signed_events()[name].event
    assert msgspec.json.decode(canonical(event), type=Event) == event


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("devices", []),
        ("devices", [{"model": "m", "memory_mib": 1}] * 65),
        ("offers", []),
        ("capacity", 1_025),
        ("capacity", -1),
        ("name", ""),
    ],
)
def test_a_miner_cannot_register_out_of_bounds(field: str, value: Any) -> None:
    """A registration holds 1 to 64 devices and offers, and takes at most 1,024 jobs at once."""
    body = msgspec.to_builtins(samples.signed_events()["miner"].event) | {field: value}
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(body, Event)


@pytest.mark.parametrize("reason", ["", "A", "lower", "WITH SPACE", "1ST", "A" * 49, "OK_\n"])
def test_a_reason_is_a_code(reason: str) -> None:
    """The reason of a failure is a short code in capitals."""
    body = msgspec.to_builtins(samples.signed_events()["failed"].event) | {"reason": reason}
    with pytest.raises(msgspec.ValidationError, match="reason"):
        msgspec.convert(body, Event)


def test_the_known_reasons_are_codes() -> None:
    """Every reason that our actors give is one that the schema takes."""
    body = msgspec.to_builtins(samples.signed_events()["failed"].event)
    assert [msgspec.convert(body | {"reason": reason}, Event).reason for reason in events.REASONS] == list(
        events.REASONS
    )


def test_every_refusal_has_a_code_and_a_hint() -> None:
    """Codes are unique, and each has a sentence that says how to mend it."""
    codes = [str(record.__struct_config__.tag) for record in REFUSALS]
    assert len(set(codes)) == len(codes)
    assert sorted(HINTS) == sorted(codes)
    assert [code for code, hint in HINTS.items() if not hint.endswith(".") or len(hint) < 15] == []


def test_a_refusal_carries_its_code_and_data() -> None:
    """A refusal on the wire has its code and its facts, nothing to parse."""
    refusal = UnknownJob(job=DIGEST)
    assert code_of(refusal) == "UNKNOWN_JOB"
    assert canonical(refusal) == f'{{"code":"UNKNOWN_JOB","job":"{DIGEST}"}}'.encode()


sides = st.integers(1, services.MAX_INNER)


@given(rows=sides, inner=sides, columns=sides)
def test_units_are_started_millions_of_multiplications(rows: int, inner: int, columns: int) -> None:
    """Work is paid by started millions of scalar multiplications, in exact integers."""
    work = MatmulInt8(
        a=SeededMatrix(rows=rows, columns=inner, seed=DIGEST), b=SeededMatrix(rows=inner, columns=columns, seed=DIGEST)
    )
    units = units_of(work)
    assert (units - 1) * MULTIPLICATIONS_PER_UNIT < rows * inner * columns
    assert rows * inner * columns <= units * MULTIPLICATIONS_PER_UNIT


def test_the_longest_dot_product_fits_an_int32() -> None:
    """The largest inner side keeps every sum of int8 products inside an int32, and one more would not."""
    assert services.MAX_INNER * 128 * 128 <= 2**31 - 1 < (services.MAX_INNER + 1) * 128 * 128


def test_only_blobs_are_read() -> None:
    """A job reads the blobs that its work names, in their order; seeds need none."""
    seeded = SeededMatrix(rows=1, columns=1, seed=DIGEST)
    first, second = (BlobMatrix(rows=1, columns=1, digest=digest * 64) for digest in "ab")
    assert service_of(MatmulInt8(a=seeded, b=seeded)) == "matmul.int8"
    assert blobs_of(MatmulInt8(a=seeded, b=seeded)) == ()
    assert blobs_of(MatmulInt8(a=seeded, b=second)) == ("b" * 64,)
    assert blobs_of(MatmulInt8(a=first, b=second)) == ("a" * 64, "b" * 64)


def test_a_job_names_its_situation() -> None:
    """The situation's name is the one in its bytes."""
    submitted = samples.signed_events()["job with blobs"].event
    assert isinstance(submitted, JobSubmitted)
    job = Job(
        owner=submitted.sender,
        work=submitted.work,
        escrow=submitted.escrow,
        timeout_ms=submitted.timeout_ms,
        requirement=submitted.requirement,
        submitted_ms=samples.TIME_MS,
        submitted_height=1,
        expires_ms=samples.TIME_MS + submitted.lifetime_ms,
        situation=Open(deadline_ms=1),
    )
    assert situation_of(job) == "open"
    ended = msgspec.structs.replace(job, situation=Cancelled(ended_ms=1, ended_height=1))
    assert situation_of(ended) == "cancelled"
    assert b'"situation":"cancelled"' in canonical(ended)
