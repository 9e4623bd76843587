"""The pages of image.convolve, mandelbrot and kmeans say what their records and their code say."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.services import image_convolve, kmeans, mandelbrot
from actors.services.registry import service_for
from actors.services.sampling import SAMPLES
from schemas.services import ImageConvolve, KMeans, Mandelbrot, Picture, SeededPoints, ServiceWork, service_of, units_of
from schemas.services.clusters import MAX_POINT_BYTES
from schemas.services.pictures import MAX_MANDELBROT_PIXELS, MAX_PICTURE_BYTES

PAGES = Path(__file__).parents[2] / "docs" / "services"
PROTOCOL = (PAGES.parent / "protocol.md").read_text(encoding="utf-8")
RECORDS: tuple[type[ServiceWork], ...] = (ImageConvolve, Mandelbrot, KMeans)


def page_of(record: type[ServiceWork]) -> str:
    return (PAGES / f"{service_of(record)}.md").read_text(encoding="utf-8")


def numbers_in(text: str) -> set[int]:
    """The integers in a text, as people write them."""
    return {int(found.replace(",", "").replace("−", "-")) for found in re.findall(r"[-−]?\d[\d,]*", text)}


def example_in(page: str) -> ServiceWork:
    """The record that the page shows, with a digest in the place of its dots."""
    block = page[page.index('    {"service"') :].split("\n\n", maxsplit=1)[0]
    work: ServiceWork = msgspec.json.decode(
        block.replace("…", "ab" * 32).encode(), type=ImageConvolve | Mandelbrot | KMeans
    )
    return work


def bounds_in(schema: Any, definitions: dict[str, Any]) -> set[int]:
    """All bounds of numbers and lists in a schema, those of what it refers to included."""
    if isinstance(schema, list):
        return {bound for part in schema for bound in bounds_in(part, definitions)}
    if not isinstance(schema, dict):
        return set()
    found = {value for name, value in schema.items() if name in {"minimum", "maximum", "minItems", "maxItems"}}
    if "$ref" in schema:
        found |= bounds_in(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return found | {bound for part in schema.values() for bound in bounds_in(part, definitions)}


@pytest.mark.parametrize("record", RECORDS)
def test_parameters_are_those_of_the_record(record: type[ServiceWork]) -> None:
    """The table of parameters has the fields in their order, with the bounds of the schema."""
    rows = re.findall(
        r"^\| `(\w+)` \| (.*) \|$", page_of(record).split("## Parameters")[1].split("\n## ")[0], re.MULTILINE
    )
    definitions = msgspec.json.schema(record)["$defs"]
    assert [name for name, _ in rows] == list(record.__struct_fields__)
    for name, text in rows:
        assert bounds_in(definitions[record.__name__]["properties"][name], definitions) <= numbers_in(text)


@pytest.mark.parametrize("record", [Picture, SeededPoints])
def test_inner_fields_are_named(record: type[msgspec.Struct]) -> None:
    """The form of a picture and of points is written out."""
    page = page_of(ImageConvolve) if record is Picture else page_of(KMeans)
    assert [name for name in record.__struct_fields__ if f'"{name}":' not in page] == []


@pytest.mark.parametrize("record", RECORDS)
def test_the_example_is_work(record: type[ServiceWork]) -> None:
    """The example can be submitted as it is, and holds every field."""
    work = example_in(page_of(record))
    assert type(work) is record
    assert work.inconsistency() is None
    assert set(msgspec.to_builtins(work)) == {"service", *record.__struct_fields__}


@pytest.mark.parametrize("record", RECORDS)
def test_unit_price_and_result_are_those_of_the_code(record: type[ServiceWork]) -> None:
    """The unit has its name, the price of the example is right, and the file of the result ends as it says."""
    page = page_of(record)
    section = " ".join(page.split("## Unit and price")[1].split("\n## ")[0].split())
    assert f"`{record.unit_type}`" in section
    units = units_of(example_in(page))
    assert f"{units:,} units" in section
    per_unit, total = (float(price) for price in re.findall(r"(\d\.\d+) ASY", section)[:2])
    assert total == pytest.approx(per_unit * units, rel=0.005)
    assert f"(`.{service_for(example_in(page)).SUFFIX}`)" in page


def test_checks_are_those_of_the_code() -> None:
    """Samples, sizes and domains are the ones in force, on the page and in the protocol."""
    for record, service in ((ImageConvolve, image_convolve), (Mandelbrot, mandelbrot), (KMeans, kmeans)):
        domain = service.DOMAIN.decode().removesuffix("\0")
        assert f"`{domain}`" in page_of(record)
        assert f"`{domain}`" in PROTOCOL
        samples = mandelbrot.PIXELS if record is Mandelbrot else SAMPLES
        assert f"(1 − p)^{samples:,}" in page_of(record)
    assert f"{kmeans.CENTRES_DOMAIN.decode().removesuffix(chr(0))}" in page_of(KMeans)
    assert f"2^{image_convolve.WHOLE.bit_length() - 1} multiplications" in page_of(ImageConvolve)
    assert f"at most {MAX_PICTURE_BYTES:,}" in page_of(ImageConvolve)
    assert f"at most {MAX_MANDELBROT_PIXELS:,} pixels" in page_of(Mandelbrot)
    assert f"at most {MAX_POINT_BYTES:,} bytes" in page_of(KMeans)


@pytest.mark.parametrize("record", RECORDS)
def test_lines_are_readable(record: type[ServiceWork]) -> None:
    """Outside of tables no line is longer than 130 characters."""
    assert [line for line in page_of(record).splitlines() if len(line) > 130 and not line.startswith("|")] == []
