"""The JSON Schemas and the AsyncAPI document of everything that travels, generated from the records.

`generate` gives the files that lie in ``schemas/json``, byte for byte. Each schema stands alone: what it refers to is
in its own ``$defs``.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from schemas import asyncapi
from schemas.blocks import Block, Header, Outcome, SignedVote
from schemas.events import EVENT_TYPES, Envelope, Event
from schemas.genesis import Genesis
from schemas.messages import (
    BlockProof,
    EventRefused,
    FeedMessage,
    InclusionProof,
    Problem,
    Progress,
    ProofBundle,
    QueryAnswer,
    QueryRefused,
    StateProof,
    WalletAnswer,
    WalletRequest,
)
from schemas.queries import (
    AccountAnswer,
    AccountQuestion,
    AttestationAnswer,
    AttestationQuestion,
    BlockAnswer,
    BlockQuestion,
    BlocksAnswer,
    BlocksQuestion,
    EventAnswer,
    EventQuestion,
    EventsAnswer,
    EventsQuestion,
    HeadersQuestion,
    JobAnswer,
    JobQuestion,
    JobsAnswer,
    JobsQuestion,
    MinerEntry,
    MinerQuestion,
    MinersAnswer,
    MinersQuestion,
    NonceAnswer,
    ProofQuestion,
    Question,
    ReceiptAnswer,
    StatusAnswer,
)
from schemas.receipts import Receipt, SignedReceipt
from schemas.refusals import HINTS, REFUSALS, AnyRefusal
from schemas.state import Account, Attestation, Job, Miner, Supply

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PREFIX: Final = "#/$defs/"

# Every question by its name, with what is asked and what ``value`` of the answer holds.
QUERIES: Final[Mapping[str, tuple[Any, Any]]] = {
    "account": (AccountQuestion, AccountAnswer),
    "nonce": (AccountQuestion, NonceAnswer),
    "job": (JobQuestion, JobAnswer),
    "jobs": (JobsQuestion, JobsAnswer),
    "receipt": (JobQuestion, ReceiptAnswer),
    "block": (BlockQuestion, BlockAnswer),
    "blocks": (BlocksQuestion, BlocksAnswer),
    "headers": (HeadersQuestion, tuple[BlockProof, ...]),
    "event": (EventQuestion, EventAnswer),
    "events": (EventsQuestion, EventsAnswer),
    "proof": (ProofQuestion, ProofBundle),
    "miner": (MinerQuestion, MinerEntry),
    "miners": (MinersQuestion, MinersAnswer),
    "attestation": (AttestationQuestion, AttestationAnswer),
    "status": (Question, StatusAnswer),
    "genesis": (Question, Genesis),
}

# What cannot be one record stands under a name of its own: (title, description).
_UNIONS: Final[Mapping[str, tuple[str, str]]] = {
    "event": ("Event", "The body of any event, told apart by `type`."),
    "outcome": ("Outcome", "What came of an event in its block, or a timer that fired, told apart by `result`."),
    "refusal": ("Refusal", "Why something was not done, told apart by `code`."),
    "wallet_answer": ("WalletAnswer", "A wallet's answer to a request, told apart by `answer`."),
    "query_answer": ("QueryAnswer", "A node's answer to a question, told apart by `answer`."),
}

_RECORDS: Final[Mapping[str, Any]] = {
    "event": Event,
    "envelope": Envelope,
    "header": Header,
    "block": Block,
    "vote": SignedVote,
    "outcome": Outcome,
    "refusal": AnyRefusal,
    "genesis": Genesis,
    "receipt": Receipt,
    "signed_receipt": SignedReceipt,
    "feed_message": FeedMessage,
    "event_refused": EventRefused,
    "progress": Progress,
    "problem": Problem,
    "wallet_request": WalletRequest,
    "wallet_answer": WalletAnswer,
    "query_answer": QueryAnswer | QueryRefused,
    "state_proof": StateProof,
    "inclusion_proof": InclusionProof,
    "block_proof": BlockProof,
    "proof_bundle": ProofBundle,
    "account": Account,
    "supply": Supply,
    "miner": Miner,
    "attestation": Attestation,
    "job": Job,
}

_ENVELOPE: Final = {"$ref": f"{_PREFIX}Envelope"}
_UNSIGNED: Final = {
    "description": "`type` and the fields of that type; the wallet adds what is missing.",
    "type": "object",
    "properties": {"type": {"type": "string"}},
    "required": ["type"],
}
_STATE_RECORD: Final = {
    "description": "The state's record under `key`.",
    "anyOf": [{"$ref": f"{_PREFIX}{record.__name__}"} for record in (Account, Attestation, Job, Miner, Supply)],
}
_HINTS: Final[Mapping[str, str]] = {record.__name__: HINTS[str(record.__struct_config__.tag)] for record in REFUSALS}

# The records take these as raw bytes, to copy them unchanged or to read them later. This is what the bytes hold.
_RAW: Final[Mapping[tuple[str, str], Any]] = {
    ("Block", "events"): {"type": "array", "items": _ENVELOPE},
    ("FeedEntry", "event"): _ENVELOPE,
    ("ProofBundle", "event"): _ENVELOPE,
    ("EventAnswer", "envelope"): _ENVELOPE,
    ("WalletRequest", "event"): _UNSIGNED,
    ("StateProof", "value"): _STATE_RECORD,
    ("QueryAnswer", "value"): {"description": "The answer to the question, by the schema of its name."},
}


def generate() -> dict[str, bytes]:
    """The files by name: one JSON Schema (2020-12) per record that travels, and ``asyncapi.json``."""
    roots = dict(_roots())
    schemas, components = msgspec.json.schema_components(roots.values(), ref_template=_PREFIX + "{name}")
    definitions = {name: _mended(name, components[name]) for name in sorted(components)}
    files = {
        f"{stem}.json": _schema_file(stem, schema, definitions) for stem, schema in zip(roots, schemas, strict=True)
    }
    files["asyncapi.json"] = asyncapi.document(tuple(QUERIES))
    return {name: msgspec.json.format(msgspec.json.encode(files[name]), indent=2) + b"\n" for name in sorted(files)}


def _roots() -> Iterator[tuple[str, Any]]:
    """Stem and type of every schema file. An event's file has its type's name, with a dot before a version."""
    for record in EVENT_TYPES:
        yield str(record.__struct_config__.tag).replace("/", "."), record
    yield from _RECORDS.items()
    for name, (question, answer) in QUERIES.items():
        yield f"query.{name}.question", question
        yield f"query.{name}.answer", answer


def _schema_file(stem: str, schema: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    head: dict[str, Any] = {"$schema": DIALECT, "$id": f"{stem}.json"}
    if stem in _UNIONS:
        head["title"], head["description"] = _UNIONS[stem]
    schema = _for_any_language(schema)
    reached: dict[str, Any] = {}
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached[name] = definitions[name]
            waiting += _references(definitions[name])
    if list(schema) == ["$ref"] and stem not in _UNIONS:
        described = definitions[schema["$ref"].removeprefix(_PREFIX)]
        head |= {key: described[key] for key in ("title", "description") if key in described}
    return {**head, **schema, "$defs": {name: reached[name] for name in sorted(reached)}}


def _mended(name: str, component: Any) -> dict[str, Any]:
    """A definition with what the records alone do not say: the contents of raw bytes, and the hints of refusals."""
    mended: dict[str, Any] = _for_any_language(component)
    properties = mended.get("properties", {})
    for field in properties:
        if (name, field) in _RAW:
            properties[field] = _RAW[name, field]
    parts = (inspect.cleandoc(mended.pop("description", "")).replace("``", "`"), _HINTS.get(name, ""))
    text = " ".join(part for part in parts if part)
    return {"title": name, **({"description": text} if text else {}), **mended}


def _for_any_language(schema: Any) -> Any:
    """A copy in which patterns end as ECMA's do: Python's ``\\Z`` is their ``$``."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\Z", "$") if key == "pattern" and isinstance(value, str) else _for_any_language(value)
            for key, value in schema.items()
        }
    return [_for_any_language(element) for element in schema] if isinstance(schema, list) else schema


def _references(schema: Any) -> Iterator[str]:
    """The names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        if isinstance(target := schema.get("$ref"), str):
            yield target.removeprefix(_PREFIX)
        schema = list(schema.values())
    if isinstance(schema, list):
        for element in schema:
            yield from _references(element)
