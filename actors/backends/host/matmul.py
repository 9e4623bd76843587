"""Exact int8 products on a GPU: the widest kernel that the card has instructions for."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from actors.backends.base import Int8Array, Int32Array, Progress, no_progress
from actors.backends.gpu import Buffer, Gpu

# Both operands are padded to multiples of it, in both dimensions.
TILE: Final = 128
_SQUARE: Final = 32


def multiply(gpu: Gpu, a: Int8Array, b: Int8Array, progress: Progress = no_progress) -> Int32Array:
    """The exact product of ``a`` (m × K) and ``b`` (K × n), for K up to `schemas.services.MAX_INNER`."""
    rows, columns = a.shape[0], b.shape[1]
    left, right, inner = packed_operands(gpu, a, b)
    product = gpu.zeros(rows * columns * 4)
    gpu.launch(
        "matmul_dp4a",
        "matmul_dp4a",
        (_tiles(columns), _tiles(rows), 1),
        (256, 1, 1),
        left,
        right,
        product,
        np.int32(rows),
        np.int32(columns),
        np.int32(inner),
    )
    result = gpu.get(product, np.int32, (rows, columns))
    progress(1, 1)
    return result


def packed_operands(gpu: Gpu, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[Buffer, Buffer, int]:
    """Rows of ``a`` and columns of ``b``, both along the inner dimension and padded with zeros, and their length.

    Elements have one byte or two.
    """
    inner = _tiles(a.shape[1]) * TILE
    return _packed(gpu, "rows", a, a.shape[0], inner), _packed(gpu, "columns", b, b.shape[1], inner), inner


def _packed(gpu: Gpu, kind: str, matrix: npt.NDArray[Any], sides: int, inner: int) -> Buffer:
    rows, columns = matrix.shape
    packed = gpu.zeros(_tiles(sides) * TILE * inner * matrix.itemsize)
    gpu.launch(
        "pack",
        f"pack_{kind}_{8 * matrix.itemsize}",
        (-(-columns // _SQUARE), -(-rows // _SQUARE), 1),
        (_SQUARE, 8, 1),
        gpu.put(np.ascontiguousarray(matrix)),
        packed,
        np.int32(rows),
        np.int32(columns),
        np.int32(inner),
    )
    return packed


def _tiles(size: int) -> int:
    """Tiles that cover a dimension."""
    return -(-size // TILE)
