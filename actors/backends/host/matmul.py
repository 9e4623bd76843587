"""Exact products on a GPU, by the widest kernel that the card has instructions for; a launch per band of rows."""

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from actors.backends.base import DeviceFault, Float16Array, Float32Array, Int8Array, Int32Array, Progress, no_progress
from actors.backends.gpu import Buffer, Extent, Gpu
from actors.backends.host.bands import bands
from schemas.services import MAX_EXACT_SUM

# Both operands are padded to multiples of it, in both dimensions; rows are of so many bytes.
TILE: Final = 128
_SQUARE: Final = 32
_STAGES_BYTES: Final = 3 * 2 * TILE * 80
# Elements of the product in a band: 128 of the largest tiles, so that nearly all of an H200's 132 multiprocessors have
# one.
_BAND_ELEMENTS: Final = 1 << 22
# The product that a kernel has to show: more than a tile in each dimension, and more steps than a pipeline has stages.
_SHOWN_SHAPE: Final = (140, 700, 270)
# By UUID of the card and name of the kernel.
_SHOWN: Final[dict[tuple[str, str], bool]] = {}


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


def fastest(gpu: Gpu, kernels: Mapping[str, Kernel]) -> str:
    """The fastest kernel that the card can run and that has multiplied rightly on it; each is tried once in a process.

    A miner answers for its results with its bond, and instructions differ between generations of cards: so a kernel is
    not believed before it has shown a product, with sums as large as its elements allow. Raises `DeviceFault` where
    none is right.
    """
    card = gpu.properties
    for name in usable(kernels, card.capability):
        key = (card.uuid, name)
        if key not in _SHOWN:
            _SHOWN[key] = _is_right(gpu, name, kernels)
            if not _SHOWN[key]:
                warnings.warn(f"{name} multiplies wrongly on {card.name} and is not used", RuntimeWarning, stacklevel=2)
        if _SHOWN[key]:
            return name
    raise DeviceFault(f"no kernel multiplies rightly on {card.name} {card.uuid}")


def _is_right(gpu: Gpu, name: str, kernels: Mapping[str, Kernel]) -> bool:
    """Whether a small product is that of 64-bit floats, which hold all its sums."""
    rows, inner, columns = _SHOWN_SHAPE
    generator = np.random.default_rng(0)
    whole = kernels is INT8_KERNELS
    element: np.dtype[Any] = np.dtype(np.int8 if whole else np.float16)
    result: np.dtype[Any] = np.dtype(np.int32 if whole else np.float32)
    limit = 127 if whole else int((MAX_EXACT_SUM // inner) ** 0.5)
    a = generator.integers(-limit, limit + 1, (rows, inner)).astype(element)
    b = generator.integers(-limit, limit + 1, (inner, columns)).astype(element)
    a[0], b[:, 0], b[:, 1] = limit, limit, -limit
    found = _multiply(gpu, a, b, kernels, name, result, no_progress)
    return bool(np.array_equal(found, a.astype(np.float64) @ b.astype(np.float64)))


def multiply(
    gpu: Gpu, a: Int8Array, b: Int8Array, progress: Progress = no_progress, kernel: str | None = None
) -> Int32Array:
    """The exact product of ``a`` (m × K) and ``b`` (K × n), for K up to `schemas.services.MAX_INNER`.

    ``kernel`` is one that is `usable`; without it, the `fastest` is taken.
    """
    return _multiply(gpu, a, b, INT8_KERNELS, kernel or fastest(gpu, INT8_KERNELS), np.dtype(np.int32), progress)


def multiply_fp16(
    gpu: Gpu, a: Float16Array, b: Float16Array, progress: Progress = no_progress, kernel: str | None = None
) -> Float32Array:
    """The exact product of matrices of integers, sums of products at most 2**23 in magnitude; no zero is negative."""
    product = _multiply(gpu, a, b, FP16_KERNELS, kernel or fastest(gpu, FP16_KERNELS), np.dtype(np.float32), progress)
    product += np.float32(0)
    return product


def _multiply(
    gpu: Gpu,
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    kernels: Mapping[str, Kernel],
    name: str,
    result: np.dtype[Any],
    progress: Progress,
) -> npt.NDArray[Any]:
    kernel = kernels[name]
    rows, columns = a.shape[0], b.shape[1]
    right = packed(gpu, "columns", b, kernel)
    found = np.empty((rows, columns), dtype=result)
    for band in bands(rows, -(-_BAND_ELEMENTS // columns), TILE, progress):
        count = band.stop - band.start
        product = gpu.zeros(count * columns * 4)
        left = packed(gpu, "rows", a[band], kernel)
        launch_product(gpu, name, kernel, left, right, product, (count, inner_bytes(a), columns), a.itemsize)
        found[band] = gpu.get(product, result, (count, columns))
        progress(band.stop, rows)
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
