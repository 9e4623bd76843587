"""Files that are not the matrix of int8 with 8 rows and 8 columns that a job says they are."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Booby:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def npy(array: np.ndarray[Any, Any]) -> bytes:
    """As `numpy.save` writes it, objects too."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


GOOD = np.arange(64, dtype=np.int8).reshape(8, 8)
BAD_FILES: dict[str, Callable[[Path], bytes]] = {
    "an empty file": lambda trap: b"",
    "no .npy": lambda trap: b"PK\x03\x04" + bytes(200),
    "cut short": lambda trap: npy(GOOD)[:-1],
    "a byte too many": lambda trap: npy(GOOD) + b"\0",
    "a header that is cut short": lambda trap: npy(GOOD)[:20],
    "a header of 4 GiB": lambda trap: b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + npy(GOOD),
    "a header that is code": lambda trap: npy(GOOD).replace(b"False", b"exit("),
    "another shape": lambda trap: npy(GOOD.reshape(4, 16)),
    "one dimension": lambda trap: npy(GOOD.reshape(64)),
    "three dimensions": lambda trap: npy(GOOD.reshape(8, 8, 1)),
    "a shape that overflows": lambda trap: npy(GOOD).replace(b"(8, 8), }         ", b"(4294967296, 8), }"),
    "another type": lambda trap: npy(GOOD.astype(np.float64)),
    "unsigned": lambda trap: npy(GOOD.astype(np.uint8)),
    "column by column": lambda trap: npy(np.asfortranarray(np.arange(64, dtype=np.int8).reshape(8, 8))),
    "a pickle in .npy": lambda trap: npy(np.array([[Booby(trap)]], dtype=object)),
    "a bare pickle": lambda trap: pickle.dumps(Booby(trap)),
}
