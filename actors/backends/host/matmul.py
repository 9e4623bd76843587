"""Exact products on a GPU: by the widest kernel that the card has instructions for."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from actors.backends.base import Float16Array, Float32Array, Int8Array, Int32Array, Progress, no_progress
from actors.backends.gpu import Buffer, Extent, Gpu

# Both operands are padded to multiples of it, in both dimensions; rows are of so many bytes.
TILE: Final = 128
_SQUARE: Final = 32
_STAGES_BYTES: Final = 3 * 2 * TILE * 80


class Kernel(Struct, frozen=True, kw_only=True):
    """How a kernel is launched; file and kernel have one name.

    A block makes a tile of ``tile_rows`` × ``tile_columns``. ``tiled``: the operands are laid out as the kernel's
    shared memory will be. ``in_bytes``: the inner dimension is told in bytes, not in elements. ``linear``: the blocks
    have one index.
    """

    least: tuple[int, int]
    most: tuple[int, int] = (99, 9)
    block: Extent
    tile_rows: int = TILE
    tile_columns: int = TILE
    shared_bytes: int = 0
    tiled: bool = False
    in_bytes: bool = False
    linear: bool = False


# The fastest first.
INT8_KERNELS: Final[Mapping[str, Kernel]] = MappingProxyType(
    {
        "matmul_wgmma": Kernel(
            least=(9, 0),
            most=(9, 0),
            block=(384, 1, 1),
            tile_columns=256,
            shared_bytes=4 * 3 * TILE * TILE + 2_048,
            tiled=True,
            in_bytes=True,
            linear=True,
        ),
        "matmul_mma": Kernel(least=(8, 0), block=(256, 1, 1), shared_bytes=_STAGES_BYTES, in_bytes=True),
        "matmul_dp4a": Kernel(least=(6, 1), block=(256, 1, 1)),
    }
)
FP16_KERNELS: Final[Mapping[str, Kernel]] = MappingProxyType(
    {
        "matmul_fp16": Kernel(least=(8, 0), block=(256, 1, 1), shared_bytes=_STAGES_BYTES, in_bytes=True),
        "matmul_fp16_plain": Kernel(least=(6, 1), block=(16, 16, 1), tile_rows=64, tile_columns=64),
    }
)


def usable(kernels: Mapping[str, Kernel], capability: tuple[int, int]) -> list[str]:
    """The kernels that a card can run, the fastest first."""
    return [name for name, kernel in kernels.items() if kernel.least <= capability <= kernel.most]


def multiply(
    gpu: Gpu, a: Int8Array, b: Int8Array, progress: Progress = no_progress, kernel: str | None = None
) -> Int32Array:
    """The exact product of ``a`` (m × K) and ``b`` (K × n), for K up to `schemas.services.MAX_INNER`.

    ``kernel`` is one that is `usable`; without it, the fastest is taken.
    """
    return _multiply(gpu, a, b, INT8_KERNELS, kernel, np.dtype(np.int32), progress)


def multiply_fp16(
    gpu: Gpu, a: Float16Array, b: Float16Array, progress: Progress = no_progress, kernel: str | None = None
) -> Float32Array:
    """The exact product of matrices of integers, sums of products at most 2**23 in magnitude; no zero is negative."""
    product = _multiply(gpu, a, b, FP16_KERNELS, kernel, np.dtype(np.float32), progress)
    positive: Float32Array = product + np.float32(0)
    return positive


def _multiply(
    gpu: Gpu,
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    kernels: Mapping[str, Kernel],
    name: str | None,
    result: np.dtype[Any],
    progress: Progress,
) -> npt.NDArray[Any]:
    name = name or usable(kernels, gpu.properties.capability)[0]
    kernel = kernels[name]
    rows, columns = a.shape[0], b.shape[1]
    product = gpu.zeros(rows * columns * 4)
    left = packed(gpu, "rows", a, kernel)
    right = packed(gpu, "columns", b, kernel)
    launch_product(gpu, name, kernel, left, right, product, (rows, inner_bytes(a), columns), a.itemsize)
    found = gpu.get(product, result, (rows, columns))
    progress(1, 1)
    return found


def launch_product(
    gpu: Gpu,
    name: str,
    kernel: Kernel,
    left: Buffer,
    right: Buffer,
    product: Buffer,
    shape: tuple[int, int, int],
    itemsize: int,
) -> None:
    """The multiplication alone, of packed operands; ``shape`` is rows, bytes of the inner dimension, columns."""
    rows, length, columns = shape
    wide, high = -(-columns // kernel.tile_columns), -(-rows // kernel.tile_rows)
    gpu.launch(
        name,
        name,
        (wide * high, 1, 1) if kernel.linear else (wide, high, 1),
        kernel.block,
        left,
        right,
        product,
        np.int32(rows),
        np.int32(columns),
        np.int32(length if kernel.in_bytes else length // itemsize),
        shared_bytes=kernel.shared_bytes,
    )


def inner_bytes(a: npt.NDArray[Any]) -> int:
    """Bytes of a packed row."""
    return _up(a.shape[1] * a.itemsize, TILE)


def packed(gpu: Gpu, kind: str, matrix: npt.NDArray[Any], kernel: Kernel) -> Buffer:
    """The ``rows`` or the ``columns`` of a matrix, one after the other, padded with zeros; see ``pack.cu``."""
    rows, columns = matrix.shape
    size = matrix.itemsize
    sides, length = (rows, columns) if kind == "rows" else (columns, rows)
    padded = _up(length * size, TILE)
    tile = max(TILE, kernel.tile_rows if kind == "rows" else kernel.tile_columns)
    buffer = gpu.zeros(_up(sides, tile) * padded)
    gpu.launch(
        "pack",
        f"pack_{kind}_{8 * size}",
        (-(-columns // _SQUARE), -(-rows // _SQUARE), 1),
        (_SQUARE, 8, 1),
        gpu.put(np.ascontiguousarray(matrix)),
        buffer,
        np.int32(rows),
        np.int32(columns),
        np.int32(padded // size),
        np.int32(kernel.tiled),
    )
    return buffer


def _up(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple
