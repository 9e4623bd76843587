"""``.npy`` files of vectors, read as strictly as those of matrices (`actors.services.npy`): one dimension, integers,
little-endian, nothing else. Every refusal is a `BadInput` with the same ``data["reason"]``.

The rows of a vector, over which a miner commits to one, are its elements in chunks of `CHUNK_BYTES`; the last may be
short.
"""

import mmap
import re
from collections.abc import Mapping
from concurrent.futures import Executor
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from actors.services.npy import MAX_HEADER, MAX_PREFIX, literal_bytes, read_literal, write_file
from events.errors import BadInput
from events.merkle import root_of_hashes
from schemas.values import Digest

Vector: TypeAlias = npt.NDArray[np.integer[Any]]

CHUNK_BYTES: Final = 65_536
DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"uint8": "|u1", "uint16": "<u2", "int16": "<i2", "int32": "<i4", "uint32": "<u4", "int64": "<i8"}
)
_ELEMENTS: Final = {**{description: element for element, description in DTYPES.items()}, "<u1": "uint8"}
_VECTOR_SHAPE: Final = re.compile(r"\( *([1-9][0-9]{0,9}) *, *\)")


def vector_from_bytes(data: bytes | memoryview | mmap.mmap, element: str, length: int) -> Vector:
    """The vector of a whole file, as a read-only array over ``data``. Raises `BadInput` unless it is just that.

    ``element`` is a key of `DTYPES`.
    """
    entries, offset = read_literal(data)
    description = entries["descr"]
    found = _ELEMENTS.get(description[1:-1]) if description[0] in "'\"" else None
    if found != element:
        _refuse("TYPE", f"the elements are {found or description}, not {element}", type=found or description)
    if entries["fortran_order"] != "False":
        _refuse("TYPE", "fortran_order is not False")
    shape = _VECTOR_SHAPE.fullmatch(entries["shape"])
    if shape is None or int(shape[1]) != length:
        _refuse("SHAPE", f"the shape is {entries['shape']}, not ({length},)", shape=entries["shape"])
    dtype = np.dtype(DTYPES[element])
    size = offset + length * dtype.itemsize
    if size != len(data):
        _refuse("MALFORMED", f"the file has {len(data)} bytes and should have {size}")
    array = np.frombuffer(data, dtype=dtype, count=length, offset=offset)
    array.flags.writeable = False
    return array


def open_vector(path: Path, element: str, length: int) -> Vector:
    """The vector of a file, memory-mapped. Raises `BadInput`, and `OSError` when the file cannot be opened.

    The file must not be cut short while the array lives.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            _refuse("MALFORMED", "the file is empty")
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return vector_from_bytes(mapping, element, length)


def read_vector(file: Path | bytes, element: str, length: int) -> Vector:
    """The vector of a file by its path, or by its bytes. Raises `BadInput`, `OSError`."""
    if isinstance(file, bytes):
        return vector_from_bytes(file, element, length)
    return open_vector(file, element, length)


def vector_header(element: str, length: int) -> bytes:
    """The header that `write_vector` writes."""
    return literal_bytes(DTYPES[element], f"({length},)")


def vector_sizes(element: str, length: int) -> range:
    """Bytes that a file of such a vector can have: other programs write other headers."""
    size = length * np.dtype(DTYPES[element]).itemsize
    return range(size, size + MAX_PREFIX + MAX_HEADER + 1)


def write_vector(path: Path, vector: Vector) -> tuple[Digest, int]:
    """Write a new file; return the SHA-256 of its bytes in hexadecimal, and their number. Raises `OSError`."""
    element = vector.dtype.name
    ordered = np.ascontiguousarray(vector, dtype=DTYPES[element])
    return write_file(path, vector_header(element, vector.size), ordered.data.cast("B"))


def vector_root(vector: Vector, executor: Executor) -> Digest:
    """The root over the chunks of the vector's little-endian bytes; the hashing runs in the executor's threads."""
    step = CHUNK_BYTES // vector.dtype.itemsize

    def chunk_hash(first: int) -> bytes:
        chunk = np.ascontiguousarray(vector[first : first + step], dtype=DTYPES[vector.dtype.name])
        leaf = sha256(b"\x00")
        leaf.update(chunk.data.cast("B"))
        return leaf.digest()

    return root_of_hashes(list(executor.map(chunk_hash, range(0, vector.size, step)))).hex()


def _refuse(reason: Literal["MALFORMED", "TYPE", "SHAPE"], why: str, **data: str) -> NoReturn:
    raise BadInput(
        "the .npy file is refused",
        why=why,
        hint="Write it with numpy.save from a one-dimensional array of the type and length that the work names.",
        reason=reason,
        **data,
    )
