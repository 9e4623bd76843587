"""The records of work on pictures and on points: their bounds, their units, what contradicts itself."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.services import (
    MAX_BLOB_BYTES,
    BlobPoints,
    ImageConvolve,
    KMeans,
    Mandelbrot,
    Picture,
    SeededPoints,
    ServiceWork,
    Work,
    blobs_of,
    service_of,
    unit_type_of,
    units_of,
)
from schemas.services.clusters import MAX_POINT_BYTES
from schemas.services.pictures import MAX_COORDINATE, MAX_PICTURE_BYTES

DIGEST = "ab" * 32
PICTURE = Picture(digest=DIGEST, width=640, height=480, channels=3)
CONVOLVE = ImageConvolve(picture=PICTURE, kernel=((1, 2, 1),), divisor=4, offset=0)
MANDELBROT = Mandelbrot(width=640, height=480, re=0, im=0, step=1 << 47, max_iterations=1_000)
KMEANS = KMeans(points=BlobPoints(rows=10_000, columns=8, digest=DIGEST), clusters=16, iterations=20, seed="cd" * 32)


def changed(work: ServiceWork, **fields: Any) -> Any:
    """The work with other fields; those of a picture or of points by their own names."""
    own = {name: value for name, value in fields.items() if name in work.__struct_fields__}
    inner = {name: value for name, value in fields.items() if name not in own}
    for holder in ("picture", "points"):
        if inner and holder in work.__struct_fields__:
            own[holder] = msgspec.structs.replace(getattr(work, holder), **inner)
    return msgspec.structs.replace(work, **own)


@pytest.mark.parametrize(
    ("work", "service", "unit", "units", "blobs"),
    [
        (CONVOLVE, "image.convolve", "million_multiplications", 3, (DIGEST,)),
        (MANDELBROT, "mandelbrot", "million_iterations", 308, ()),
        (KMEANS, "kmeans", "million_multiplications", 27, (DIGEST,)),
        (
            changed(KMEANS, points=SeededPoints(rows=16, columns=1, seed=DIGEST)),
            "kmeans",
            "million_multiplications",
            1,
            (),
        ),
    ],
)
def test_records_travel(work: ServiceWork, service: str, unit: str, units: int, blobs: tuple[str, ...]) -> None:
    """Each record is read back as it was, knows its names, its units and its blobs, and says its sizes."""
    assert msgspec.json.decode(msgspec.json.encode(work), type=Work) == work
    assert (service_of(work), unit_type_of(work), units_of(work)) == (service, unit, units)
    assert blobs_of(work) == blobs
    assert work.inconsistency() is None
    assert work.in_words()


OUTSIDE: list[tuple[ServiceWork, dict[str, Any]]] = [
    (CONVOLVE, {"kernel": []}),
    (CONVOLVE, {"kernel": [[]]}),
    (CONVOLVE, {"kernel": [[0] * 16]}),
    (CONVOLVE, {"kernel": [[0]] * 16}),
    (CONVOLVE, {"kernel": [[32_768]]}),
    (CONVOLVE, {"kernel": [[-32_768]]}),
    (CONVOLVE, {"kernel": [[0.5]]}),
    (CONVOLVE, {"divisor": 0}),
    (CONVOLVE, {"divisor": 16_777_216}),
    (CONVOLVE, {"offset": 65_536}),
    (CONVOLVE, {"picture": {"digest": DIGEST, "width": 0, "height": 1, "channels": 1}}),
    (CONVOLVE, {"picture": {"digest": DIGEST, "width": 16_385, "height": 1, "channels": 1}}),
    (CONVOLVE, {"picture": {"digest": DIGEST, "width": 1, "height": 1, "channels": 5}}),
    (CONVOLVE, {"edge": "wrap"}),
    (MANDELBROT, {"width": 0}),
    (MANDELBROT, {"height": 16_385}),
    (MANDELBROT, {"re": (4 << 50) + 1}),
    (MANDELBROT, {"im": -(4 << 50) - 1}),
    (MANDELBROT, {"step": 0}),
    (MANDELBROT, {"step": 1 << 53}),
    (MANDELBROT, {"max_iterations": 0}),
    (MANDELBROT, {"max_iterations": 65_536}),
    (KMEANS, {"clusters": 0}),
    (KMEANS, {"clusters": 257}),
    (KMEANS, {"iterations": 0}),
    (KMEANS, {"iterations": 1_001}),
    (KMEANS, {"seed": "cd"}),
    (KMEANS, {"points": {"kind": "seed", "rows": 1_000_001, "columns": 1, "seed": DIGEST}}),
    (KMEANS, {"points": {"kind": "seed", "rows": 1, "columns": 65, "seed": DIGEST}}),
    (KMEANS, {"points": {"kind": "file", "rows": 1, "columns": 1, "digest": DIGEST}}),
]


@pytest.mark.parametrize(("work", "change"), OUTSIDE)
def test_values_outside_their_bounds_are_not_read(work: ServiceWork, change: dict[str, Any]) -> None:
    """A field that is out of bounds, of another type, or unknown makes the record unreadable."""
    changed = msgspec.to_builtins(work) | change
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(changed), type=Work)


CONTRADICTIONS: list[tuple[ServiceWork, dict[str, Any], str]] = [
    (CONVOLVE, {"channels": 2}, "2 channels"),
    (CONVOLVE, {"width": 16_384, "height": 1_025}, f"at most {MAX_PICTURE_BYTES}"),
    (CONVOLVE, {"kernel": ((1,), (1, 1), (1,))}, "differ in length"),
    (CONVOLVE, {"kernel": ((1, 1),)}, "both must be odd"),
    (CONVOLVE, {"kernel": ((1,), (1,))}, "both must be odd"),
    (MANDELBROT, {"width": 8_192, "height": 2_049}, "at most 16777216"),
    (MANDELBROT, {"re": 4 << 50}, "re and step"),
    (MANDELBROT, {"im": -(4 << 50)}, "im and step"),
    (MANDELBROT, {"step": 1 << 51}, "re and step"),
    (KMEANS, {"rows": 15}, "15 points"),
    (KMEANS, {"rows": 500_000, "columns": 64}, f"at most {MAX_POINT_BYTES}"),
    (KMEANS, {"clusters": 256, "columns": 64, "iterations": 62}, f"at most {MAX_BLOB_BYTES}"),
]


@pytest.mark.parametrize(("work", "change", "words"), CONTRADICTIONS)
def test_contradictions_are_said(work: ServiceWork, change: dict[str, Any], words: str) -> None:
    """What single bounds do not catch is said in a sentence."""
    assert words in (changed(work, **change).inconsistency() or "nothing")


@pytest.mark.parametrize(
    ("work", "change"),
    [
        (CONVOLVE, {"width": 16_384, "height": 1_024}),
        (CONVOLVE, {"kernel": ((1,) * 15,) * 15}),
        (MANDELBROT, {"width": 4_096, "height": 4_096, "step": 1 << 46}),
        (MANDELBROT, {"width": 2, "height": 2, "re": (4 << 50) - 1, "im": 1 - (4 << 50), "step": 63}),
        (KMEANS, {"rows": 16}),
        (KMEANS, {"rows": 1_000_000, "columns": 25, "clusters": 256}),
        (KMEANS, {"clusters": 256, "columns": 64, "iterations": 61}),
    ],
)
def test_what_just_fits_is_fine(work: ServiceWork, change: dict[str, Any]) -> None:
    """The largest sizes that the text names are possible."""
    assert changed(work, **change).inconsistency() is None


@given(
    width=st.integers(1, 4_096),
    re=st.integers(-(4 << 50), 4 << 50),
    step=st.integers(1, (1 << 53) - 1),
)
def test_no_coordinate_is_too_large(width: int, re: int, step: int) -> None:
    """Of a picture that is possible, all coordinates are below 4 in magnitude."""
    work = changed(MANDELBROT, width=width, height=1, re=re, step=step)
    if work.inconsistency() is None:
        ends = [64 * re + ((2 * column + 1 - width) * step >> 1) for column in (0, width - 1)]
        assert max(abs(end) for end in ends) <= MAX_COORDINATE < 4 << 56


@given(rows=st.integers(1, 1_000_000))
def test_chunks_hold_all_points(rows: int) -> None:
    """There are at most 16 chunks, none of which is empty or has more points than the sums of int16 can take."""
    work = changed(KMEANS, rows=rows)
    assert work.chunks <= 16
    assert (work.chunks - 1) * work.chunk_points < rows <= work.chunks * work.chunk_points
    assert work.chunk_points * 2**15 < 2**31
