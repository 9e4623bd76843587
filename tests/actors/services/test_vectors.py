"""Strict reading and writing of .npy files of vectors."""

import io
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.services.npy import MAX_HEADER, literal_bytes
from actors.services.vectors import (
    CHUNK_BYTES,
    DTYPES,
    open_vector,
    read_vector,
    vector_from_bytes,
    vector_header,
    vector_root,
    vector_sizes,
    write_vector,
)
from events.errors import BadInput
from events.merkle import root


def saved(array: Any) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 70_001])
def test_reads_what_numpy_writes_and_the_other_way_round(tmp_path: Path, element: str, length: int) -> None:
    """A file of numpy.save is read, a file of ours is loaded by numpy.load; digest and size are those of the file."""
    limits = np.iinfo(element)
    array = np.random.default_rng(1).integers(limits.min, limits.max, length, dtype=element, endpoint=True)
    np.testing.assert_array_equal(vector_from_bytes(saved(array), element, length), array)
    path = tmp_path / "ours.npy"
    digest, size = write_vector(path, array)
    content = path.read_bytes()
    assert (digest, size) == (sha256(content).hexdigest(), len(content))
    assert size in vector_sizes(element, length)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), array)
    for file in (path, content):
        found = read_vector(file, element, length)
        np.testing.assert_array_equal(found, array)
        assert not found.flags.writeable


HEADER = vector_header("int32", 4)
DATA = bytes(16)
RECORDS = HEADER.replace(b"'<i4'", b"[('a','<i4')]").replace(b" " * 8 + b"\n", b"\n")
REFUSED = [
    ("empty", b"", "MALFORMED"),
    ("no magic", b"PK\x03\x04" + bytes(200), "MALFORMED"),
    ("cut in the header", HEADER[:40], "MALFORMED"),
    ("a byte too few", HEADER + DATA[:-1], "MALFORMED"),
    ("a byte too many", HEADER + DATA + b"\0", "MALFORMED"),
    ("header only", HEADER, "MALFORMED"),
    ("header too long", b"\x93NUMPY\x01\x00" + (MAX_HEADER + 1).to_bytes(2, "little") + bytes(9_000), "MALFORMED"),
    ("other type", vector_header("uint32", 4) + DATA, "TYPE"),
    ("floats", literal_bytes("<f4", "(4,)") + DATA, "TYPE"),
    ("objects", literal_bytes("|O", "(4,)") + DATA, "TYPE"),
    ("big-endian", literal_bytes(">i4", "(4,)") + DATA, "TYPE"),
    ("records", RECORDS + DATA, "TYPE"),
    ("Fortran order", HEADER.replace(b"False", b"True ") + DATA, "TYPE"),
    ("one value more", vector_header("int32", 5) + DATA + bytes(4), "SHAPE"),
    ("one value fewer", vector_header("int32", 3) + DATA[:12], "SHAPE"),
    ("a number", literal_bytes("<i4", "()") + DATA, "SHAPE"),
    ("a matrix", literal_bytes("<i4", "(4, 1)") + DATA, "SHAPE"),
    ("huge", literal_bytes("<i4", "(9999999999,)") + DATA, "SHAPE"),
]


@pytest.mark.parametrize(("content", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_files(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that is not just this vector is refused with a reason, from a path and from memory."""
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        open_vector(path, "int32", 4)
    assert caught.value.data["reason"] == reason
    with pytest.raises(BadInput) as caught:
        read_vector(content, "int32", 4)
    assert caught.value.data["reason"] == reason


@pytest.mark.parametrize("length", [1, CHUNK_BYTES // 8, CHUNK_BYTES // 8 + 1, 50_000])
def test_root_is_over_chunks_of_the_bytes(length: int) -> None:
    """The root is that of RFC 9162 over 64 KiB of elements at a time, whatever the number of threads."""
    values = np.arange(length, dtype=np.int64)
    content = values.tobytes()
    expected = root(content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)).hex()
    for threads in (1, 3):
        with ThreadPoolExecutor(threads) as executor:
            assert vector_root(values, executor) == expected
