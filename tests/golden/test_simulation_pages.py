"""The pages of the simulations say what their records and their code say."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.backends.reference.option import GREATEST_LOG, LEAST_LOG
from actors.services import nbody, option
from actors.services.registry import service_for
from actors.services.sampling import SAMPLES
from schemas.services import MonteCarloOption, NBody, ServiceWork, service_of, units_of
from schemas.services.base import MAX_BLOB_BYTES
from schemas.services.simulations import (
    BODIES_PER_SLICE,
    MAX_BLOB_SLACK,
    MAX_CHECKPOINTS_APART,
    MAX_CHUNK_INTERACTIONS,
    MAX_CHUNK_PATHS,
    MAX_CHUNK_STEPS,
    MAX_CHUNKS,
)

PAGES = Path(__file__).parents[2] / "docs" / "services"
RECORDS: tuple[type[ServiceWork], ...] = (MonteCarloOption, NBody)


def page_of(record: type[ServiceWork]) -> str:
    return (PAGES / f"{service_of(record)}.md").read_text(encoding="utf-8")


def example_in(page: str) -> ServiceWork:
    """The record that the page shows, with a digest in the place of its dots."""
    found = re.search(r'^    (\{"service".*?\})\n\n', page, re.MULTILINE | re.DOTALL)
    assert found is not None
    records = MonteCarloOption | NBody
    return msgspec.json.decode("".join(found[1].split()).replace("…", "ab" * 32).encode(), type=records)


@pytest.mark.parametrize("record", RECORDS)
def test_parameters_are_those_of_the_record(record: type[ServiceWork]) -> None:
    """The table of parameters has the fields in their order, with the bounds and the choices of the schema."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page_of(record), re.MULTILINE)
    schema: Any = msgspec.json.schema(record)["$defs"][record.__name__]["properties"]
    assert [name for name, _ in rows] == list(record.__struct_fields__)
    for name, text in rows:
        numbers = {int(n.replace(",", "").replace("−", "-")) for n in re.findall(r"−?\d[\d,]*", text)}
        assert {schema[name][bound] for bound in ("minimum", "maximum") if bound in schema[name]} <= numbers
        assert set(schema[name].get("enum", ())) <= set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("record", RECORDS)
def test_the_example_is_work(record: type[ServiceWork]) -> None:
    """The example can be submitted as it is, holds every field, and costs what the page says."""
    page = page_of(record)
    work = example_in(page)
    assert type(work) is record
    assert work.inconsistency() is None
    assert set(msgspec.to_builtins(work)) == {"service", *record.__struct_fields__}
    section = page.split("## Unit and price")[1].split("\n## ")[0]
    assert f"`{record.unit_type}`" in section
    per_unit, total = (round(float(price) * 1e6) for price in re.findall(r"(\d\.\d+)\s+ASY", section)[:2])
    assert total == per_unit * units_of(work)
    assert f"(`.{service_for(work).SUFFIX}`)" in page


@pytest.mark.parametrize("record", RECORDS)
def test_lines_are_readable(record: type[ServiceWork]) -> None:
    """Outside of tables no line is longer than 130 characters."""
    assert [line for line in page_of(record).splitlines() if len(line) > 130 and not line.startswith("|")] == []


def test_numbers_are_those_of_the_code() -> None:
    """Constants, domains and bounds beyond those of single fields are the ones in force."""
    texts = {record: " ".join(page_of(record).split()) for record in RECORDS}
    priced, moved = texts[MonteCarloOption], texts[NBody]
    assert f"Then {SAMPLES}" in priced
    assert f"(1 − p)^{SAMPLES}" in priced
    assert f"{nbody.BODIES_PER_STEP} bodies of every step" in moved
    assert f"(1 − f_t)^{nbody.BODIES_PER_STEP}" in moved
    assert f"at most {MAX_CHECKPOINTS_APART} checkpoints" in moved
    for text, domains in (
        (priced, (option.DOMAIN, option.PATHS_DOMAIN)),
        (moved, (nbody.DOMAIN, nbody.BODIES_DOMAIN)),
    ):
        assert all(f"`{domain[:-1].decode()}`" in text for domain in domains)
    for number in (option._SQUARED_SCALE, option._SCALE, MAX_CHUNKS, MAX_CHUNK_PATHS, MAX_CHUNK_STEPS):
        assert f"{number:,}" in priced
    assert str(option._DEVIATIONS) in priced
    assert (LEAST_LOG, GREATEST_LOG) == (-(2**37), 12 * 2**32 - 1)
    assert "at least −2^37 and at most 12 · 2^32 − 1" in priced
    for number in (MAX_CHUNK_INTERACTIONS, MAX_BLOB_BYTES - MAX_BLOB_SLACK, int(nbody.MOST_COORDINATE)):
        assert f"{number:,}" in moved
    assert f"masses from 0 to {nbody.MOST_MASS:g}" in moved
    assert f"`every` is 1, {BODIES_PER_SLICE} bodies" in moved
    assert nbody.MOST_STATE == 2**60
