"""The tables of docs/protocol.md say what the code says."""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from events import subjects
from events.envelope import MAX_DEPTH, MAX_EVENT_BYTES
from events.keys import BLOCK_DOMAIN, EVENT_DOMAIN, MULTISIG_PREFIX, RECEIPT_DOMAIN, USER_PREFIX, VOTE_DOMAIN
from projections.execute import ACTIONS, GAS
from projections.receipts import CHALLENGE_DOMAIN
from schemas.events import EVENT_TYPES, REASONS, Body
from schemas.generate import QUERIES
from schemas.receipts import RECEIPT_VERSION, Receipt
from schemas.refusals import HINTS, REFUSALS
from schemas.services import MAX_INNER, MAX_MATRIX_BYTES, MAX_SIDE, WORK_TYPES

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
TEXT = " ".join(DOCUMENT.split())
COMMON = [field.name for field in msgspec.structs.fields(Body)]


def fields_of(record: type[msgspec.Struct], without: list[str] | None = None) -> str:
    """The fields of a record as a cell, optional ones with a question mark."""
    names = [
        f"`{field.name}`{'' if field.required else '?'}"
        for field in msgspec.structs.fields(record)
        if field.name not in (without or [])
    ]
    return ", ".join(names)


def events_table() -> str:
    """One row per event type."""
    rows = ["| type | gas | fields |", "|---|---|---|"]
    for record in EVENT_TYPES:
        tag = str(record.__struct_config__.tag)
        free = ", free" if ACTIONS[record].free else ""
        rows.append(f"| `{tag}` | {GAS[tag]:,}{free} | {fields_of(record, COMMON)} |")
    return "\n".join(rows)


def queries_table() -> str:
    """One row per question."""
    rows = ["| question | fields | schema of `value` |", "|---|---|---|"]
    rows += [
        f"| `{name}` | {fields_of(question, ['min_height'])} | `query.{name}.answer.json` |"
        for name, (question, _) in QUERIES.items()
    ]
    return "\n".join(rows)


def refusals_table() -> str:
    """One row per code."""
    rows = ["| code | fields | how to mend it |", "|---|---|---|"]
    for record in REFUSALS:
        code = str(record.__struct_config__.tag)
        rows.append(f"| `{code}` | {fields_of(record)} | {HINTS[code]} |")
    return "\n".join(rows)


@pytest.mark.parametrize("table", [events_table, queries_table, refusals_table], ids=lambda table: table.__name__)
def test_tables_are_those_of_the_code(table: object) -> None:
    """Event types with gas and fields, questions, and refusals with their hints are listed in full."""
    assert callable(table)
    assert table() in DOCUMENT


def subject_names() -> Iterator[str]:
    """Every subject, with the document's placeholders."""
    chain, address = "<c>", "<a>"
    yield subjects.inbox(chain, address)
    yield subjects.block(chain)
    yield subjects.vote(chain)
    yield subjects.feed(chain, address)
    yield subjects.live(chain, address, "<topic>")
    yield subjects.query(chain, "<what>")
    yield subjects.wallet(chain, address)
    yield subjects.blob(chain, address, "<digest>")


def test_the_subjects_are_those_of_the_code() -> None:
    """The table of subjects has a row for each, and no other."""
    found = re.findall(r"^\| `(assay\.[^`]+)` \|", DOCUMENT, re.MULTILINE)
    assert found == list(subject_names())
    assert f"`{subjects.stream('<c>', 'INBOX')}`" in DOCUMENT


def test_the_domains_are_those_of_the_code() -> None:
    """Each domain tag is written out."""
    for domain in (EVENT_DOMAIN, BLOCK_DOMAIN, VOTE_DOMAIN, RECEIPT_DOMAIN, CHALLENGE_DOMAIN):
        assert f"`{domain.decode().removesuffix(chr(0))}` ‖ 0 ‖" in TEXT


def test_the_numbers_are_those_of_the_code() -> None:
    """Limits and prefix bytes are the ones in force."""
    assert f"at most {MAX_EVENT_BYTES:,} bytes, and brackets in its body nest at most {MAX_DEPTH} deep" in TEXT
    assert f"K is at most {MAX_INNER:,}; rows of a and columns of b are at most {MAX_SIDE:,} each" in TEXT
    assert f"also of one made from a seed, take at most {MAX_MATRIX_BYTES:,} bytes" in TEXT
    assert f"`0x{USER_PREFIX:02X}` for an address" in DOCUMENT
    assert f"(prefix byte `0x{MULTISIG_PREFIX:02X}`)" in DOCUMENT


def test_the_receipt_is_described_in_full() -> None:
    """Each field of a receipt, its version, and its unit are named."""
    section = DOCUMENT.split("## Receipts")[1].split("## ")[0]
    assert [field for field in Receipt.__struct_fields__ if f"`{field}`" not in section] == []
    assert f"`{RECEIPT_VERSION}`" in section
    assert [work.unit_type for work in WORK_TYPES if f"`{work.unit_type}`" not in section] == []


def test_the_reasons_are_those_of_the_code() -> None:
    """The known reasons of failures are listed."""
    assert ", ".join(f"`{reason}`" for reason in REASONS) in TEXT


def test_lines_are_readable() -> None:
    """Outside of tables no line is longer than 130 characters."""
    assert [line for line in DOCUMENT.splitlines() if len(line) > 130 and not line.startswith("|")] == []
