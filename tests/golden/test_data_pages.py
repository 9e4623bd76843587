"""The pages of the services on data say what their records say."""

import re
from pathlib import Path

import msgspec
import pytest

from actors.services.fingerprint import PRIME, error_bits
from actors.services.registry import service_for
from actors.services.vectors import CHUNK_BYTES
from schemas.services import Histogram, ServiceWork, Sha256Tree, Sort, service_of, units_of

PAGES = Path(__file__).parents[2] / "docs" / "services"
RECORDS: tuple[type[ServiceWork], ...] = (Sha256Tree, Histogram, Sort)
EXAMPLES: dict[type[ServiceWork], dict[str, int]] = {
    Sha256Tree: {"size": 1_000_000},
    Histogram: {"length": 2_500_000},
    Sort: {"length": 2_500_000},
}


def page_of(record: type[ServiceWork]) -> str:
    return (PAGES / f"{service_of(record)}.md").read_text(encoding="utf-8")


def numbers_in(text: str) -> set[int]:
    """The integers in a text, as people write them."""
    return {int(found.replace(",", "").replace("−", "-")) for found in re.findall(r"[-−]?\d[\d,]*", text)}


def example_in(page: str) -> ServiceWork:
    """The record that the page shows, with a digest in the place of its dots."""
    line = next(line for line in page.splitlines() if line.startswith('    {"service"'))
    records = Sha256Tree | Histogram | Sort
    return msgspec.json.decode(line.strip().replace("…", "ab" * 32).encode(), type=records)


@pytest.mark.parametrize("record", RECORDS)
def test_parameters_are_those_of_the_record(record: type[ServiceWork]) -> None:
    """The table of parameters has the fields in their order, with the bounds and the choices of the schema."""
    page = page_of(record)
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page.split("## Parameters")[1].split("\n## ")[0], re.MULTILINE)
    schema = msgspec.json.schema(record)["$defs"][record.__name__]["properties"]
    assert [name for name, _ in rows] == list(record.__struct_fields__)
    for name, text in rows:
        bounds = {schema[name][bound] for bound in ("minimum", "maximum") if bound in schema[name]}
        assert bounds <= numbers_in(text)
        assert set(schema[name].get("enum", ())) == set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("record", RECORDS)
def test_the_example_is_work(record: type[ServiceWork]) -> None:
    """The example can be submitted as it is, and holds every field."""
    work = example_in(page_of(record))
    assert type(work) is record
    assert work.inconsistency() is None
    shown = msgspec.to_builtins(work)
    assert set(shown) == {"service", *record.__struct_fields__}


@pytest.mark.parametrize("record", RECORDS)
def test_unit_price_and_result_are_those_of_the_code(record: type[ServiceWork]) -> None:
    """The unit has its name, the price example is right, and the file of the result ends as it says."""
    page = page_of(record)
    section = page.split("## Unit and price")[1].split("\n## ")[0]
    assert f"`{record.unit_type}`" in section
    work = msgspec.structs.replace(example_in(page), **EXAMPLES[record])
    per_unit, total = (int(float(price) * 1_000) for price in re.findall(r"(\d\.\d{3}) ASY", section)[:2])
    assert total == per_unit * units_of(work)
    assert f"(`.{service_for(work).SUFFIX}`)" in page


def test_checks_are_those_of_the_code() -> None:
    """Chunks, prime and error bounds are the ones in force."""
    sort = page_of(Sort)
    assert f"mod {PRIME:,}" in sort
    assert f"2^−{error_bits(4)} for 32 bits, 2^−{error_bits(8)} for 64" in sort
    for page in (sort, page_of(Histogram)):
        assert f"chunks of {CHUNK_BYTES:,}" in page


@pytest.mark.parametrize("record", RECORDS)
def test_lines_are_readable(record: type[ServiceWork]) -> None:
    """Outside of tables no line is longer than 130 characters."""
    assert [line for line in page_of(record).splitlines() if len(line) > 130 and not line.startswith("|")] == []
