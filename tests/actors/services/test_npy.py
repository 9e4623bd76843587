"""Strict reading and writing of .npy files."""

import io
import os
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.services.npy import MAX_HEADER, header_bytes, matrix_from_bytes, open_matrix, read_header, write_matrix
from events.errors import BadInput

MATRIX = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)


def saved(array: Any, **options: Any) -> bytes:
    """What numpy.save writes."""
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def file_with(header: str, data: bytes = MATRIX.tobytes(), version: bytes = b"\x01\x00") -> bytes:
    """A file with a header of one's own."""
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + length + header.encode("latin-1") + data


HEADER = "{'descr': '|i1', 'fortran_order': False, 'shape': (3, 4), }\n"


@pytest.mark.parametrize("dtype", ["int8", "int32"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (1, 131_071), (5_000, 2)])
def test_reads_what_numpy_writes_and_the_other_way_round(tmp_path: Path, dtype: str, shape: tuple[int, int]) -> None:
    """A file of numpy.save is read, a file of ours is loaded by numpy.load; digest and size are those of the file."""
    array = np.random.default_rng(1).integers(-128, 128, shape).astype(dtype)
    np.testing.assert_array_equal(matrix_from_bytes(saved(array), dtype, *shape), array)
    path = tmp_path / "ours.npy"
    digest, size = write_matrix(path, array)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), array)
    np.testing.assert_array_equal(open_matrix(path, dtype, *shape), array)
    content = path.read_bytes()
    assert (digest, size) == (sha256(content).hexdigest(), len(content))
    assert read_header(content).size == size
    assert read_header(content).offset % 64 == 0


@pytest.mark.parametrize(
    "content",
    [
        file_with(HEADER),
        file_with(HEADER, version=b"\x02\x00"),
        file_with('{"shape":(3,4),"descr":"<i1","fortran_order":False}\n'),
        file_with("{ 'fortran_order' : False , 'shape' : ( 3 , 4 , ) , 'descr' : '|i1' , }        \n"),
    ],
    ids=["version-1", "version-2", "double-quotes-other-order", "spaces"],
)
def test_reads_headers_of_other_writers(content: bytes) -> None:
    """The header is a literal: the order of its keys, the kind of quotes and white space are free."""
    np.testing.assert_array_equal(matrix_from_bytes(content, "int8", 3, 4), MATRIX)


REFUSED = [
    ("empty", b"", "MALFORMED"),
    ("no magic", b"PK\x03\x04" + bytes(200), "MALFORMED"),
    ("magic only", b"\x93NUMPY", "MALFORMED"),
    ("cut in the length", b"\x93NUMPY\x02\x00\x10\x00", "MALFORMED"),
    ("cut in the header", file_with(HEADER)[:30], "MALFORMED"),
    ("version 3.0", file_with(HEADER, version=b"\x03\x00"), "MALFORMED"),
    ("version 1.1", file_with(HEADER, version=b"\x01\x01"), "MALFORMED"),
    ("header too long", file_with(HEADER[:-1] + " " * MAX_HEADER + "\n"), "MALFORMED"),
    ("header says 4 GiB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(64), "MALFORMED"),
    ("no line end", file_with(HEADER[:-1]), "MALFORMED"),
    ("not a dictionary", file_with("[1, 2]\n"), "MALFORMED"),
    ("key twice", file_with(HEADER.replace("{", "{'descr': '|i1', ")), "MALFORMED"),
    ("key missing", file_with(HEADER.replace("'fortran_order': False, ", "")), "MALFORMED"),
    ("unknown key", file_with(HEADER.replace("{", "{'more': True, ")), "MALFORMED"),
    ("code in the header", file_with(HEADER.replace("False", "exit()")), "MALFORMED"),
    ("not ASCII", file_with(HEADER.replace("|i1", "\xe9")), "MALFORMED"),
    ("null byte", file_with(HEADER.replace("False", "Fa\0se")), "MALFORMED"),
    ("negative shape", file_with(HEADER.replace("3, 4", "-3, -4")), "MALFORMED"),
    ("a byte too few", file_with(HEADER)[:-1], "MALFORMED"),
    ("a byte too many", file_with(HEADER) + b"\0", "MALFORMED"),
    ("no data", file_with(HEADER, data=b""), "MALFORMED"),
    ("object", saved(np.array([[{}]], dtype=object), allow_pickle=True), "TYPE"),
    ("uint8", saved(MATRIX.astype(np.uint8)), "TYPE"),
    ("int16", saved(MATRIX.astype(np.int16)), "TYPE"),
    ("int32 in place of int8", saved(MATRIX.astype(np.int32)), "TYPE"),
    ("big-endian int32", saved(MATRIX.astype(">i4")), "TYPE"),
    ("int64", saved(MATRIX.astype(np.int64)), "TYPE"),
    ("float32", saved(MATRIX.astype(np.float32)), "TYPE"),
    ("record", saved(np.zeros((3, 4), dtype=[("a", "i1")])), "TYPE"),
    ("Fortran order", saved(np.asfortranarray(MATRIX)), "TYPE"),
    ("one dimension", saved(MATRIX.reshape(-1)), "SHAPE"),
    ("three dimensions", saved(MATRIX.reshape(3, 2, 2)), "SHAPE"),
    ("no dimension", saved(np.int8(1)), "SHAPE"),
    ("transposed", saved(MATRIX.reshape(4, 3)), "SHAPE"),
    ("a row too many", saved(np.zeros((4, 4), dtype=np.int8)), "SHAPE"),
    ("shape of 10^18 bytes", file_with(HEADER.replace("3, 4", "1000000000, 1000000000")), "SHAPE"),
    ("zeros in front, which NumPy does not read", file_with(HEADER.replace("3, 4", "03, 4")), "SHAPE"),
    ("a vertical tab, which NumPy does not read", file_with(HEADER.replace(", 's", ",\x0b 's")), "MALFORMED"),
    ("a separator, which NumPy does not read", file_with(HEADER.replace(", 's", "\x1c, 's")), "MALFORMED"),
    ("a line in front, which NumPy does not read", file_with("\n" + HEADER), "MALFORMED"),
    ("digits without end", file_with(HEADER.replace("3, 4", "9" * 100 + ", 4")), "SHAPE"),
]


@pytest.mark.parametrize(("content", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refusals(tmp_path: Path, content: bytes, reason: str) -> None:
    """Whatever is not exactly the expected file is refused, from memory and from disk, with why and a hint."""
    path = tmp_path / "given.npy"
    path.write_bytes(content)
    for read in (lambda: matrix_from_bytes(content, "int8", 3, 4), lambda: open_matrix(path, "int8", 3, 4)):
        with pytest.raises(BadInput) as caught:
            read()
        assert caught.value.data["reason"] == reason
        assert caught.value.why
        assert caught.value.hint


class Exploit:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_file_is_never_executed(tmp_path: Path) -> None:
    """A pickled array is refused by its type; the code in it does not run."""
    trap = tmp_path / "trap"
    content = saved(np.array([[Exploit(trap)]], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="not int8"):
        matrix_from_bytes(content, "int8", 1, 1)
    assert not trap.exists()


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """Whatever follows the magic bytes, the only error is a refusal."""
    for given_bytes in (content, b"\x93NUMPY\x01\x00" + content, file_with(HEADER)[:10] + content):
        with pytest.raises(BadInput):
            matrix_from_bytes(given_bytes, "int8", 3, 4)


@given(st.integers(0, len(file_with(HEADER)) * 8 - 1))
def test_a_flipped_bit_is_refused_or_changes_one_element(bit: int) -> None:
    """A flipped bit in the header is refused or without meaning; one in the data changes just that element."""
    content = bytearray(file_with(HEADER))
    content[bit // 8] ^= 1 << bit % 8
    try:
        matrix = matrix_from_bytes(bytes(content), "int8", 3, 4)
    except BadInput:
        assert bit // 8 < len(content) - MATRIX.size
    else:
        assert np.count_nonzero(matrix != MATRIX) == (bit // 8 >= len(content) - MATRIX.size)


def test_array_cannot_be_written_to() -> None:
    """The array is a view of the file and read-only."""
    matrix = matrix_from_bytes(bytearray(saved(MATRIX)), "int8", 3, 4)
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1


def test_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    """A file that is not there is no refusal of its content."""
    with pytest.raises(FileNotFoundError):
        open_matrix(tmp_path / "none.npy", "int8", 3, 4)
    with pytest.raises(FileExistsError):
        write_matrix(Path(__file__), MATRIX)


def test_header_is_what_the_format_says() -> None:
    """Magic, version 1.0, little-endian length, literal, spaces, line end; 128 bytes in all."""
    header = header_bytes("int32", 1_000, 1_000)
    assert header.startswith(
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i4', 'fortran_order': False, 'shape': (1000, 1000), }"
    )
    assert header.endswith(b" \n")
    assert len(header) == 128
