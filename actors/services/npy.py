"""``.npy`` files of matrices, read strictly: two dimensions, row by row, one of a few types of elements, nothing else.

The format is NumPy's (NEP 1; documentation of ``numpy.lib.format``), versions 1.0 and 2.0: magic, version, length of
the header, header, data. The header is a Python literal in the format; here a small grammar reads it, so nothing in a
file is ever evaluated or unpickled, and whatever the grammar does not know is refused.

Every refusal is a `BadInput` whose ``data["reason"]`` is one of

- ``MALFORMED``: not such a file, or its bytes are too few or too many;
- ``TYPE``: another type of element, or another order of elements in memory;
- ``SHAPE``: not two dimensions, or not the ones asked for.
"""

import hashlib
import mmap
import re
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from events.errors import BadInput

ElementType: TypeAlias = Literal["int8", "int16", "int32", "int64", "float16", "float32"]
MatrixArray: TypeAlias = npt.NDArray[np.signedinteger[Any]] | npt.NDArray[np.floating[Any]]

# Bytes before the header, and in it.
MAX_PREFIX: Final = 12
MAX_HEADER: Final = 4_096

_MAGIC: Final = b"\x93NUMPY"
_ALIGNMENT: Final = 64
_CHUNK: Final = 1 << 20
_DTYPES: Final[dict[ElementType, str]] = {
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "float32": "<f4",
}
_DESCRIPTIONS: Final = {**{description: element for element, description in _DTYPES.items()}, "<i1": "int8"}
_ELEMENTS: Final = {np.dtype(description): element for element, description in _DTYPES.items()}
_KEYS: Final = frozenset({"descr", "fortran_order", "shape"})
_SPACE: Final = r"[ \t\r\n]*"
_VALUE: Final = r"""'[^'"\\]{0,64}'|"[^'"\\]{0,64}"|True|False|\([0-9, ]{0,200}\)|\[[^\]]{0,2000}\]"""
_ENTRY: Final = re.compile(
    rf"{_SPACE}(?P<quote>['\"])(?P<key>[a-z_]{{1,20}})(?P=quote){_SPACE}:{_SPACE}(?P<value>{_VALUE}){_SPACE}(?P<end>,|\Z)"
)
# As in Python, no number has zeros in front: numpy.load would not read the file.
_MATRIX_SHAPE: Final = re.compile(r"\( *([1-9][0-9]{0,9}) *, *([1-9][0-9]{0,9}) *,? *\)")


class Header(Struct, frozen=True, kw_only=True):
    """What the beginning of a file says; the data begins at byte ``offset``."""

    element: ElementType
    rows: int
    columns: int
    offset: int

    @property
    def size(self) -> int:
        """Bytes that the whole file must have."""
        return self.offset + self.rows * self.columns * np.dtype(_DTYPES[self.element]).itemsize


def read_literal(data: bytes | memoryview | mmap.mmap) -> tuple[dict[str, str], int]:
    """``descr``, ``fortran_order`` and ``shape`` as they are written at the beginning of ``data``, which need not be
    the whole file, and the byte at which the elements begin. Raises `BadInput`."""
    start = bytes(data[:MAX_PREFIX])
    if start[:6] != _MAGIC:
        _refuse("MALFORMED", "it does not begin with the magic bytes of .npy")
    version = start[6:8]
    if version == b"\x01\x00" and len(start) >= 10:
        prefix, length = 10, int.from_bytes(start[8:10], "little")
    elif version == b"\x02\x00" and len(start) == 12:
        prefix, length = 12, int.from_bytes(start[8:12], "little")
    elif version in {b"\x01\x00", b"\x02\x00"}:
        _refuse("MALFORMED", "it ends within the header")
    else:
        _refuse("MALFORMED", f"version {'.'.join(map(str, version))} is not 1.0 or 2.0")
    if length > MAX_HEADER:
        _refuse("MALFORMED", f"the header has {length} bytes, more than {MAX_HEADER}")
    text = bytes(data[prefix : prefix + length])
    if len(text) < length:
        _refuse("MALFORMED", "it ends within the header")
    return _entries(text), prefix + length


def _entries(text: bytes) -> dict[str, str]:
    """The values of the header's literal, each by its key."""
    if not text.isascii():
        _refuse("MALFORMED", "the header is not ASCII")
    literal = text.decode("ascii")
    body = literal.lstrip(" ").rstrip(" \n")
    if not (literal.endswith("\n") and body.startswith("{") and body.endswith("}")):
        _refuse("MALFORMED", "the header is not one dictionary and a line end")
    entries: dict[str, str] = {}
    body = body[1:-1].rstrip()
    position = 0
    while position < len(body):
        match = _ENTRY.match(body, position)
        if match is None or match["key"] in entries or match["key"] not in _KEYS:
            _refuse("MALFORMED", "the header is not a dictionary of exactly descr, fortran_order and shape")
        entries[match["key"]] = match["value"]
        position = match.end()
    if entries.keys() != _KEYS:
        _refuse("MALFORMED", "the header is not a dictionary of exactly descr, fortran_order and shape")
    return entries


def read_header(data: bytes | memoryview | mmap.mmap) -> Header:
    """Read the header at the beginning of ``data``, which need not be the whole file. Raises `BadInput`."""
    entries, offset = read_literal(data)
    description = entries["descr"]
    element = _DESCRIPTIONS.get(description[1:-1]) if description[0] in "'\"" else None
    if element is None:
        known = ", ".join(_DTYPES)
        _refuse("TYPE", f"elements of type {description} are not {known}, little-endian", type=description)
    if entries["fortran_order"] != "False":
        _refuse("TYPE", "the elements are stored column by column (Fortran order)")
    shape = _MATRIX_SHAPE.fullmatch(entries["shape"])
    if shape is None:
        _refuse("SHAPE", f"shape {entries['shape']} does not have two dimensions", shape=entries["shape"])
    return Header(element=element, rows=int(shape[1]), columns=int(shape[2]), offset=offset)


def matrix_from_bytes(
    data: bytes | memoryview | mmap.mmap, element: ElementType, rows: int, columns: int
) -> npt.NDArray[Any]:
    """The matrix of a whole file, as a read-only array over ``data``. Raises `BadInput` unless it is just that."""
    header = read_header(data)
    if header.element != element:
        _refuse("TYPE", f"the elements are {header.element}, not {element}", type=header.element)
    if (header.rows, header.columns) != (rows, columns):
        found = f"{header.rows} × {header.columns}"
        _refuse("SHAPE", f"the matrix is {found}, not {rows} × {columns}", shape=found)
    if header.size != len(data):
        _refuse("MALFORMED", f"the file has {len(data)} bytes and should have {header.size}")
    array = np.frombuffer(data, dtype=_DTYPES[element], count=rows * columns, offset=header.offset)
    array.flags.writeable = False
    return array.reshape(rows, columns)


def open_matrix(path: Path, element: ElementType, rows: int, columns: int) -> npt.NDArray[Any]:
    """The matrix of a file, memory-mapped. Raises `BadInput`, and `OSError` when the file cannot be opened.

    The file must not be cut short while the array lives.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            _refuse("MALFORMED", "the file is empty")
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return matrix_from_bytes(mapping, element, rows, columns)


def header_bytes(element: ElementType, rows: int, columns: int) -> bytes:
    """The header of version 1.0 for such a matrix: the data that follows begins at a multiple of 64 bytes."""
    return literal_bytes(_DTYPES[element], f"({rows}, {columns})")


def literal_bytes(description: str, shape: str) -> bytes:
    """The header of version 1.0 with these values of ``descr`` and ``shape``."""
    literal = f"{{'descr': '{description}', 'fortran_order': False, 'shape': {shape}, }}"
    length = -(-(len(literal) + 11) // _ALIGNMENT) * _ALIGNMENT - 10
    return _MAGIC + b"\x01\x00" + length.to_bytes(2, "little") + literal.ljust(length - 1).encode("ascii") + b"\n"


def write_matrix(path: Path, matrix: MatrixArray) -> tuple[str, int]:
    """Write a new file; return the SHA-256 of its bytes in hexadecimal, and their number. Raises `OSError`."""
    element = _ELEMENTS[matrix.dtype]
    rows, columns = matrix.shape
    ordered = np.ascontiguousarray(matrix, dtype=_DTYPES[element])
    return write_file(path, header_bytes(element, rows, columns), ordered.data.cast("B"))


def write_file(path: Path, header: bytes, content: memoryview) -> tuple[str, int]:
    """Write both into a new file; return the SHA-256 of its bytes in hexadecimal, and their number.

    Raises `OSError`.
    """
    digest = hashlib.sha256(header)
    with path.open("xb") as file:
        file.write(header)
        for start in range(0, len(content), _CHUNK):
            chunk = content[start : start + _CHUNK]
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest(), len(header) + len(content)


def _refuse(reason: Literal["MALFORMED", "TYPE", "SHAPE"], why: str, **data: str) -> NoReturn:
    raise BadInput(
        "the .npy file is refused",
        why=why,
        hint="Write it with numpy.save from a two-dimensional, C-ordered array of the right dtype.",
        reason=reason,
        **data,
    )
