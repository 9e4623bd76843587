"""The records of work on data: their bounds, their units, what contradicts itself."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.services import (
    MAX_BINS,
    MAX_BLOB_BYTES,
    VALUE_BYTES,
    Histogram,
    ServiceWork,
    Sha256Tree,
    Sort,
    Work,
    blobs_of,
    service_of,
    unit_type_of,
    units_of,
)

DIGEST = "ab" * 32
TREE = Sha256Tree(digest=DIGEST, size=1, chunk_bytes=1_024)
HISTOGRAM = Histogram(digest=DIGEST, element="int32", length=1, low=0, width=1, count=1)
SORT = Sort(digest=DIGEST, element="int64", length=1)


@pytest.mark.parametrize(
    ("work", "service", "unit"),
    [
        (TREE, "sha256.tree", "mebibytes"),
        (HISTOGRAM, "histogram", "million_values"),
        (SORT, "sort", "million_values"),
    ],
)
def test_records_travel(work: ServiceWork, service: str, unit: str) -> None:
    """Each record is read back as it was, knows its names and its blob, and says its sizes."""
    assert msgspec.json.decode(msgspec.json.encode(work), type=Work) == work
    assert (service_of(work), unit_type_of(work)) == (service, unit)
    assert blobs_of(work) == (DIGEST,)
    assert work.inconsistency() is None
    assert units_of(work) == 1
    assert "1" in work.in_words()


OUTSIDE = [
    (TREE, {"size": 0}),
    (TREE, {"size": MAX_BLOB_BYTES + 1}),
    (TREE, {"chunk_bytes": 512}),
    (TREE, {"chunk_bytes": 2_097_152}),
    (TREE, {"digest": DIGEST[:-1]}),
    (HISTOGRAM, {"element": "uint32"}),
    (HISTOGRAM, {"length": 0}),
    (HISTOGRAM, {"low": -(2**31) - 1}),
    (HISTOGRAM, {"low": 2**31}),
    (HISTOGRAM, {"width": 0}),
    (HISTOGRAM, {"width": 2**32}),
    (HISTOGRAM, {"count": 0}),
    (HISTOGRAM, {"count": MAX_BINS + 1}),
    (HISTOGRAM, {"low": 0.5}),
    (SORT, {"element": "uint8"}),
    (SORT, {"element": "float32"}),
    (SORT, {"length": MAX_BLOB_BYTES + 1}),
    (SORT, {"order": "descending"}),
]


@pytest.mark.parametrize(("work", "change"), OUTSIDE)
def test_values_outside_their_bounds_are_not_read(work: ServiceWork, change: dict[str, Any]) -> None:
    """A field that is out of bounds, of another type, or unknown makes the record unreadable."""
    changed = msgspec.to_builtins(work) | change
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(changed), type=Work)


def test_chunks_are_powers_of_two() -> None:
    """Only powers of two can be asked for."""
    sizes = range(1_024, 20_000)
    fine = [size for size in sizes if msgspec.structs.replace(TREE, chunk_bytes=size).inconsistency() is None]
    assert fine == [1_024, 2_048, 4_096, 8_192, 16_384]
    assert "no power of two" in str(msgspec.structs.replace(TREE, chunk_bytes=1_536).inconsistency())


@pytest.mark.parametrize(
    ("work", "elements"),
    [(HISTOGRAM, ("uint8", "uint16", "int16", "int32")), (SORT, ("int32", "int64", "uint32"))],
    ids=["histogram", "sort"],
)
def test_vectors_fit_a_blob(work: ServiceWork, elements: tuple[str, ...]) -> None:
    """As many values as a blob can hold can be asked for, and not one more."""
    for element in elements:
        most = MAX_BLOB_BYTES // VALUE_BYTES[element]
        assert msgspec.structs.replace(work, element=element, length=most).inconsistency() is None
        refused = msgspec.structs.replace(work, element=element, length=most + 1).inconsistency()
        assert refused is not None
        assert f"at most {MAX_BLOB_BYTES}" in refused


@given(size=st.integers(1, MAX_BLOB_BYTES))
def test_units_are_started(size: int) -> None:
    """A tree is paid by started mebibytes, vectors by started millions of values."""
    assert (units_of(msgspec.structs.replace(TREE, size=size)) - 1) * 2**20 < size
    assert size <= units_of(msgspec.structs.replace(TREE, size=size)) * 2**20
    for work in (HISTOGRAM, SORT):
        units = units_of(msgspec.structs.replace(work, length=size))
        assert (units - 1) * 1_000_000 < size <= units * 1_000_000
