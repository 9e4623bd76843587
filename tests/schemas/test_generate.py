"""The generated files are current, closed, and say the same as the records."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import schemas.queries
from events import subjects
from events.canonical import canonical
from schemas.events import EVENT_TYPES, type_of
from schemas.generate import QUERIES, generate
from schemas.messages import EventRefused, FeedEntry, FeedMessage, WalletRequest
from schemas.refusals import HINTS, UnknownJob
from schemas.state import Account
from tests.golden import samples
from tests.schemas.json_schema import faults

DIRECTORY = Path(__file__).parents[2] / "schemas" / "json"
FILES = {name: json.loads(data) for name, data in generate().items()}
SCHEMAS = {name: content for name, content in FILES.items() if name != "asyncapi.json"}
DOCUMENT = FILES["asyncapi.json"]


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a JSON value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for element in value:
            yield from parts(element)


def as_json(record: Any) -> Any:
    """A record as another language reads it."""
    return json.loads(canonical(record))


def test_committed_files_are_current() -> None:
    """The files in schemas/json are those that the records give; `assay schemas export schemas/json` renews them."""
    committed = {path.name: path.read_bytes() for path in DIRECTORY.iterdir()}
    assert sorted(committed) == sorted(generate())
    assert [name for name, data in generate().items() if committed[name] != data] == []


def test_generation_is_repeatable() -> None:
    """Generating twice gives the same bytes."""
    assert generate() == generate()


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_stands_alone(name: str) -> None:
    """A schema file names its dialect and itself, and refers to nothing outside of itself."""
    schema = SCHEMAS[name]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == name
    wanted = {part["$ref"] for part in parts(schema) if isinstance(part.get("$ref"), str)}
    assert wanted == {f"#/$defs/{definition}" for definition in schema["$defs"]}


def test_patterns_are_those_of_other_languages() -> None:
    """No pattern uses Python's own end-of-text, and each is anchored at both ends."""
    patterns = {part["pattern"] for part in parts(list(FILES.values())) if isinstance(part.get("pattern"), str)}
    assert len(patterns) > 5
    assert [pattern for pattern in patterns if "\\Z" in pattern or pattern[0] != "^" or pattern[-1] != "$"] == []


def test_no_field_is_left_open() -> None:
    """No field may be just anything: what the records keep as raw bytes has its schema here."""
    empty = [
        f"{name}: {field}"
        for name, schema in SCHEMAS.items()
        for part in parts(schema)
        for field, value in part.get("properties", {}).items()
        if value == {} or value.get("items") == {}
    ]
    assert empty == []


@pytest.mark.parametrize("name", ["event", "envelope", "block", "genesis", "signed_receipt", "transfer.sent"])
def test_files_carry_titles_and_descriptions(name: str) -> None:
    """A schema file says at its top what it describes, in clean Markdown."""
    schema = SCHEMAS[f"{name}.json"]
    assert schema["title"]
    assert schema["description"]
    assert "``" not in schema["description"]
    assert "\n    " not in schema["description"]


def test_every_refusal_says_how_to_mend_it() -> None:
    """The schema of a refusal ends with the hint of its code."""
    found = {
        definition["properties"]["code"]["enum"][0]: definition["description"]
        for definition in SCHEMAS["refusal.json"]["$defs"].values()
    }
    assert found.keys() == HINTS.keys()
    assert [code for code, text in found.items() if not text.endswith(HINTS[code])] == []


def test_every_event_type_has_its_file() -> None:
    """Each event type has a schema file under its name, and `event.json` takes each of them."""
    tags = [str(record.__struct_config__.tag) for record in EVENT_TYPES]
    assert all(f"{tag.replace('/', '.')}.json" in SCHEMAS for tag in tags)
    assert list(SCHEMAS["event.json"]["discriminator"]["mapping"]) == tags


def test_every_record_of_the_queries_is_described() -> None:
    """No question and no answer is missing from the schema files."""
    records = {
        name
        for name, value in vars(schemas.queries).items()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == "schemas.queries"
    }
    described = {
        definition for name, schema in SCHEMAS.items() if name.startswith("query.") for definition in schema["$defs"]
    }
    assert records - described == set()


@pytest.mark.parametrize("name", samples.signed_events())
def test_valid_events_fit_their_schemas(name: str) -> None:
    """A valid event fits the schema of its type, of any event, and of the envelope."""
    signed = samples.signed_events()[name]
    envelope = json.loads(signed.raw)
    assert faults(SCHEMAS[f"{type_of(signed.event)}.json"], envelope["body"]) == []
    assert faults(SCHEMAS["event.json"], envelope["body"]) == []
    assert faults(SCHEMAS["envelope.json"], envelope) == []


ENVELOPE = msgspec.Raw(samples.signed_events()["transfer"].raw)
FEED = FeedMessage(
    chain=samples.CHAIN,
    height=2,
    block=samples.JOB,
    time_ms=samples.TIME_MS,
    entries=(
        FeedEntry(index=0, outcome=samples.outcomes()[0]),
        FeedEntry(index=1, outcome=samples.outcomes()[1], event=ENVELOPE),
    ),
)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("block", samples.block()),
        ("header", samples.header()),
        ("vote", samples.vote_of(samples.VALIDATORS[0])),
        ("genesis", samples.genesis()),
        ("receipt", samples.receipt()),
        ("signed_receipt", samples.signed_receipt()),
        ("feed_message", FEED),
        ("account", Account()),
        ("wallet_request", WalletRequest(key="1", event=msgspec.Raw(b'{"type":"job.cancelled","job":"x"}'))),
        *[("outcome", outcome) for outcome in samples.outcomes()],
        ("event_refused", EventRefused(refusal=UnknownJob(job=samples.JOB), hint="Mend it.")),
    ],
)
def test_other_records_fit_their_schemas(name: str, record: Any) -> None:
    """What our encoder writes, the published schema takes."""
    assert faults(SCHEMAS[f"{name}.json"], as_json(record)) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"amount": 0}, "$.amount breaks minimum 1"),
        ({"amount": 2**53}, "$.amount breaks maximum 9007199254740991"),
        ({"amount": "1"}, "$.amount is no integer"),
        ({"amount": None}, "$.amount is no integer"),
        ({"memo": None}, "$.memo is no string"),
        ({"memo": "m" * 257}, "$.memo breaks maxLength 256"),
        ({"extra": 1}, "$.extra is unknown"),
        ({"type": "transfer.sent/2"}, "$.type breaks enum ['transfer.sent']"),
        ({"chain": "a\n"}, "$.chain breaks pattern ^[a-z][a-z0-9-]{1,30}[a-z0-9]$"),
    ],
)
def test_invalid_events_do_not_fit(change: dict[str, Any], fault: str) -> None:
    """The published schema turns away what the records turn away."""
    body = as_json(samples.transfer()) | change
    assert faults(SCHEMAS["transfer.sent.json"], body) == [fault]


def test_a_missing_field_does_not_fit() -> None:
    """A field that is not optional must be there."""
    body = as_json(samples.transfer())
    del body["nonce"]
    assert len(faults(SCHEMAS["transfer.sent.json"], body)) == 1


def test_channels_have_the_addresses_of_the_subjects() -> None:
    """The AsyncAPI document names exactly the subjects that the code uses."""
    chain, address = "{chain}", "{address}"
    wanted = [
        subjects.inbox(chain, address),
        subjects.block(chain),
        subjects.vote(chain),
        subjects.feed(chain, address),
        subjects.live(chain, address, "refused"),
        subjects.live(chain, address, "progress"),
        subjects.wallet(chain, address),
        subjects.blob(chain, "{owner}", "{digest}"),
        *[subjects.query(chain, name) for name in QUERIES],
    ]
    found = [channel["address"] for channel in DOCUMENT["channels"].values() if channel["address"] is not None]
    assert sorted(found) == sorted(wanted)


def test_channels_explain_their_parameters() -> None:
    """Each channel lists exactly the parameters in its address, each with a description."""
    for channel in DOCUMENT["channels"].values():
        address, parameters = channel["address"] or "", channel.get("parameters", {})
        assert sorted(parameters) == sorted(part[1:-1] for part in address.split(".") if part.startswith("{"))
        assert all(parameter["description"] for parameter in parameters.values())


def test_references_of_the_document_lead_somewhere() -> None:
    """Each reference leads to a part of the AsyncAPI document or to a schema file beside it."""
    references = [part["$ref"] for part in parts(DOCUMENT) if "$ref" in part]
    assert len(references) > 50
    for reference in references:
        if reference.startswith("./"):
            assert reference.removeprefix("./") in SCHEMAS
        else:
            found = DOCUMENT
            for step in reference.removeprefix("#/").split("/"):
                found = found[step]
            assert found


def test_requests_name_where_the_answer_comes() -> None:
    """Questions and wallet requests are answered; nothing else is."""
    replied = {name for name, operation in DOCUMENT["operations"].items() if "reply" in operation}
    assert replied == {"ask_wallet", *(f"ask_{name}" for name in QUERIES)}
