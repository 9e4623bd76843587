"""What `make gpu-check` computes on the GPU: small, to be compared with the CPU, and large, for the clock."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from msgspec import Struct

from actors.backends.base import Backend, Motion, Walk
from actors.backends.gpu import Gpu
from actors.backends.host import matmul
from actors.backends.on_gpu import GpuBackend


class Case(Struct, frozen=True, kw_only=True):
    """One computation. ``amount`` of ``unit`` is what the kernels named in ``kernels`` do, all launches together.

    ``moved_bytes`` is the least that has to be read and written, where that is what bounds the speed. ``holds`` judges
    a result that would take a CPU too long to compute.
    """

    name: str
    kernels: tuple[str, ...]
    unit: str
    amount: float
    run: Callable[[Backend], Any]
    moved_bytes: int = 0
    holds: Callable[[Any], bool] | None = None


def products(gpu: Gpu, size: int) -> Iterator[Case]:
    """Square products, by each kernel that the card can run."""
    generator = np.random.default_rng(1)
    a, b = (generator.integers(-128, 128, (size, size), dtype=np.int8) for _ in range(2))
    for kernel in matmul.usable(matmul.INT8_KERNELS, gpu.properties.capability):
        yield Case(
            name=kernel,
            kernels=(kernel,),
            unit="TOPS",
            amount=2 * size**3 / 1e12,
            run=lambda backend, kernel=kernel: (
                matmul.multiply(backend.gpu, a, b, kernel=kernel)
                if isinstance(backend, GpuBackend)
                else backend.multiply(a, b)
            ),
            holds=lambda product: projects(a, b, product),
        )
    limit = int((matmul_most() // size) ** 0.5)
    halves = [(generator.integers(-limit, limit + 1, (size, size))).astype(np.float16) for _ in range(2)]
    for kernel in matmul.usable(matmul.FP16_KERNELS, gpu.properties.capability):
        yield Case(
            name=kernel,
            kernels=(kernel,),
            unit="TFLOP/s",
            amount=2 * size**3 / 1e12,
            run=lambda backend, kernel=kernel: (
                matmul.multiply_fp16(backend.gpu, *halves, kernel=kernel)
                if isinstance(backend, GpuBackend)
                else backend.multiply_fp16(*halves)
            ),
            holds=lambda product: projects(*halves, product),
        )


def projects(a: np.ndarray, b: np.ndarray, product: np.ndarray) -> bool:
    """Whether the product agrees with its factors on some random vectors; in 64-bit floats nothing is rounded here."""
    vectors = np.random.default_rng().integers(-1_024, 1_025, (b.shape[1], 8)).astype(np.float64)
    expected = a.astype(np.float64) @ (b.astype(np.float64) @ vectors)
    return bool(np.array_equal(product.astype(np.float64) @ vectors, expected))


def matmul_most() -> int:
    """The largest sum that is exact in halves."""
    from schemas.services import MAX_EXACT_SUM

    return MAX_EXACT_SUM


def others(*, large: bool) -> Iterator[Case]:
    """All other computations, in the order of their bounds: memory, then arithmetic."""
    generator = np.random.default_rng(2)
    bytes_in = 1 << (28 if large else 22)
    data = generator.integers(0, 256, bytes_in, dtype=np.uint8)
    yield Case(
        name="pack (int8 rows)",
        kernels=("pack_rows_8",),
        unit="GB/s",
        amount=2 * bytes_in / 1e9,
        run=lambda backend: _packed(backend, data),
        moved_bytes=2 * bytes_in,
    )
    yield Case(
        name="histogram",
        kernels=("histogram_uint8",),
        unit="GB/s",
        amount=bytes_in / 1e9,
        run=lambda backend: backend.histogram(data, 0, 1, 256),
        moved_bytes=bytes_in,
    )
    keys = generator.integers(-(2**31), 2**31, 1 << (26 if large else 18), dtype=np.int32)
    yield Case(
        name="sort",
        kernels=("radix_count_32", "radix_scan", "radix_scatter_32"),
        unit="Gkeys/s",
        amount=keys.size / 1e9,
        run=lambda backend: backend.sort(keys),
        moved_bytes=4 * 3 * keys.nbytes,
    )
    side = 8_192 if large else 512
    picture = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
    weights = generator.integers(-9, 10, (5, 5), dtype=np.int32)
    yield Case(
        name="image.convolve 5×5",
        kernels=("convolve",),
        unit="GB/s",
        amount=2 * picture.nbytes / 1e9,
        run=lambda backend: backend.convolve(picture, weights, 7, 3),
        moved_bytes=2 * picture.nbytes,
    )
    yield Case(
        name="sha256.tree",
        kernels=("sha256_leaves",),
        unit="GB/s",
        amount=bytes_in / 1e9,
        run=lambda backend: backend.leaf_hashes(data, 4_096),
    )
    points = generator.integers(-(2**15), 2**15, ((1 << 22) if large else 1 << 14, 16), dtype=np.int16)
    yield Case(
        name="kmeans, 64 clusters",
        kernels=("nearest", "sum_chunks"),
        unit="G distances/s",
        amount=points.shape[0] * 64 * 4 / 1e9,
        run=lambda backend: tuple(backend.cluster(points, points[:64].copy(), 3, 4_096)),
    )
    yield from _arithmetic(large=large)


def _arithmetic(*, large: bool) -> Iterator[Case]:
    side = 2_048 if large else 128
    axis = (np.linspace(-2.0, 2.0, side) * 2.0**56).astype(np.int64)
    axis = np.clip(axis, -(2**57) + 1, 2**57 - 1)
    most = 1_000 if large else 200
    yield Case(
        name="mandelbrot",
        kernels=("escape_counts",),
        unit="Mpoints/s",
        amount=side * side / 1e6,
        run=lambda backend: backend.escape_counts(axis, axis, most),
    )
    chunks = 4_096 if large else 16
    walk = Walk(
        spot=100_000_000,
        strike=105_000_000,
        drift=15_862_599_727 // 16,
        diffusion=1_239_000_000 // 4,
        steps=16,
        paths=chunks * 4_096,
        chunk_paths=4_096,
        asian=True,
        put=False,
        key=(1, 2, 3, 4),
    )
    yield Case(
        name="montecarlo.option",
        kernels=("payoff_sums",),
        unit="G steps/s",
        amount=walk.paths * walk.steps / 1e9,
        run=lambda backend: backend.payoff_sums(walk, 0, chunks),
    )
    count, steps = (65_536, 4) if large else (1_024, 2)
    generator = np.random.default_rng(3)
    state = generator.uniform(-1, 1, (count, 6)).astype(np.float32)
    masses = generator.uniform(0, 1 / count, count).astype(np.float32)
    yield Case(
        name="nbody",
        kernels=("leapfrog",),
        unit="G interactions/s",
        amount=count**2 * steps / 1e9,
        run=lambda backend: backend.leapfrog(state, masses, MOTION, steps),
    )


MOTION: Final = Motion(dt=float(np.float32(0.001)), softening_squared=float(np.float32(0.05) ** 2))


def _packed(backend: Backend, data: np.ndarray) -> np.ndarray:
    """The rows of a matrix that need no padding: as they were."""
    rows = data.view(np.int8).reshape(-1, 1_024)
    if not isinstance(backend, GpuBackend):
        return rows
    buffer = matmul.packed(backend.gpu, "rows", rows, matmul.INT8_KERNELS["matmul_dp4a"])
    return backend.gpu.get(buffer, np.int8, rows.shape)
