"""What `make gpu-check` computes on the GPU: small, to be compared with the CPU, and large, for the clock.

Together the cases launch every kernel that there is.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from actors.attestation.devices import WALKS, examinee_on, memory_on
from actors.attestation.fill import STEPS, labels_in, walks_in
from actors.backends.base import Backend, Motion, Walk
from actors.backends.gpu import Gpu
from actors.backends.host import matmul
from actors.backends.on_gpu import GpuBackend
from schemas.attestation import ExamShape
from schemas.services import MAX_EXACT_SUM

# 32-bit instructions that the work takes at least, counted in the kernels' sources. Of SHA-256: 14 in each of 64
# rounds, 10 for each of 48 words of the schedule, 8 at the end. Of Philox: 2 wide products, which take two places each,
# and 2 logical operations, in ten rounds.
COMPRESSION: Final = 14 * 64 + 10 * 48 + 8
PHILOX: Final = 60
ORBIT: Final = 40
PATH_STEP: Final = PHILOX // 4 + 20 + 30
COORDINATE: Final = 2
COUNTED_VALUE: Final = 6
INTERACTION: Final = 31


class Case(Struct, frozen=True, kw_only=True):
    """One computation. ``amount`` of ``unit`` is what the kernels named in ``kernels`` do, all launches together.

    What bounds the speed: ``moved_bytes`` are the least that has to be read and written, the operations the least
    that have to be done, of integers (which may depend on the result) or of floats. A product has its ``factors``, to
    be multiplied by a library, and a sort its ``keys``. ``holds`` judges a result that would take a CPU too long.
    """

    name: str
    kernels: tuple[str, ...]
    unit: str
    amount: float
    run: Callable[[Backend], Any]
    moved_bytes: float = 0
    integer_operations: float | Callable[[Any], float] = 0
    float_operations: float = 0
    factors: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
    keys: npt.NDArray[Any] | None = None
    holds: Callable[[Any], bool] | None = None


class Sizes(Struct, frozen=True, kw_only=True):
    """How much there is to do; ``data`` bytes, ``keys`` to sort, the ``side`` of a product and of a picture."""

    product: int
    packed: int
    data: int
    keys: int
    side: int
    points: int
    orbits: int
    iterations: int
    chunks: int
    bodies: int
    exam: ExamShape
    rows: int
    memory_mib: int


# For an emulated GPU, for the comparison with the CPU, for the clock.
TINY: Final = Sizes(
    product=70,
    packed=128,
    data=1 << 13,
    keys=5_000,
    side=16,
    points=300,
    orbits=8,
    iterations=40,
    chunks=1,
    bodies=20,
    exam=ExamShape(inner=128, columns=16, min_rows=1),
    rows=40,
    memory_mib=1,
)
SMALL: Final = Sizes(
    product=1_000,
    packed=1_024,
    data=1 << 22,
    keys=1 << 18,
    side=512,
    points=1 << 14,
    orbits=128,
    iterations=200,
    chunks=16,
    bodies=1_024,
    exam=ExamShape(inner=1_024, columns=256, min_rows=1),
    rows=1_000,
    memory_mib=1,
)
LARGE: Final = Sizes(
    product=8_192,
    packed=16_384,
    data=1 << 28,
    keys=1 << 26,
    side=8_192,
    points=1 << 22,
    orbits=2_048,
    iterations=1_000,
    chunks=4_096,
    bodies=65_536,
    exam=ExamShape(inner=8_192, columns=2_048, min_rows=1),
    rows=65_536,
    memory_mib=8_192,
)


def cases(gpu: Gpu, sizes: Sizes) -> Iterator[Case]:
    """All of them, the products that this card has instructions for first."""
    yield from _products(gpu, sizes.product)
    yield from _packs(sizes.packed)
    yield from _data(sizes)
    yield from _pictures_and_points(sizes)
    yield from _simulations(sizes)
    # Small cards have less memory.
    yield from _attestation(sizes, min(sizes.memory_mib, gpu.properties.memory_bytes >> 22))


def projects(a: npt.NDArray[Any], b: npt.NDArray[Any], product: npt.NDArray[Any]) -> bool:
    """Whether the product agrees with its factors on some random vectors; in 64-bit floats nothing is rounded here."""
    vectors = np.random.default_rng().integers(-1_024, 1_025, (b.shape[1], 8)).astype(np.float64)
    expected = a.astype(np.float64) @ (b.astype(np.float64) @ vectors)
    return bool(np.array_equal(product.astype(np.float64) @ vectors, expected))


def _products(gpu: Gpu, size: int) -> Iterator[Case]:
    """Square products, by each kernel that the card can run."""
    generator = np.random.default_rng(1)
    bytes_of = [generator.integers(-128, 128, (size, size), dtype=np.int8) for _ in range(2)]
    limit = int((MAX_EXACT_SUM // size) ** 0.5)
    halves = [generator.integers(-limit, limit + 1, (size, size)).astype(np.float16) for _ in range(2)]
    for kernels, (a, b), unit in (
        (matmul.INT8_KERNELS, bytes_of, "TOPS"),
        (matmul.FP16_KERNELS, halves, "TFLOP/s"),
    ):
        for kernel in matmul.usable(kernels, gpu.properties.capability):
            yield Case(
                name=kernel,
                kernels=(kernel,),
                unit=unit,
                amount=2 * size**3 / 1e12,
                run=lambda backend, kernel=kernel, a=a, b=b: _product(backend, a, b, kernel),
                factors=(a, b),
                holds=lambda product, a=a, b=b: projects(a, b, product),
            )


def _product(backend: Backend, a: npt.NDArray[Any], b: npt.NDArray[Any], kernel: str) -> npt.NDArray[Any]:
    whole = a.dtype == np.int8
    if isinstance(backend, GpuBackend):
        multiply = matmul.multiply if whole else matmul.multiply_fp16
        return multiply(backend.gpu, a, b, kernel=kernel)
    return backend.multiply(a, b) if whole else backend.multiply_fp16(a, b)


def _packs(size: int) -> Iterator[Case]:
    """Matrices without padding, laid out for the simplest kernels: as they are, or turned."""
    generator = np.random.default_rng(4)
    for element, kernel in (
        (np.dtype(np.int8), matmul.INT8_KERNELS["matmul_dp4a"]),
        (np.dtype(np.float16), matmul.FP16_KERNELS["matmul_fp16_plain"]),
    ):
        matrix = generator.integers(-128, 128, (size, size), dtype=np.int8).astype(element)
        for kind in ("rows", "columns"):
            name = f"pack_{kind}_{8 * element.itemsize}"
            yield Case(
                name=name,
                kernels=(name,),
                unit="GB/s",
                amount=2 * matrix.nbytes / 1e9,
                run=lambda backend, kind=kind, matrix=matrix, kernel=kernel: _packed(backend, kind, matrix, kernel),
                moved_bytes=2 * matrix.nbytes,
            )


def _packed(backend: Backend, kind: str, matrix: npt.NDArray[Any], kernel: matmul.Kernel) -> npt.NDArray[Any]:
    if isinstance(backend, GpuBackend):
        return backend.gpu.get(matmul.packed(backend.gpu, kind, matrix, kernel), matrix.dtype, matrix.shape)
    return matrix if kind == "rows" else np.ascontiguousarray(matrix.T)


def _data(sizes: Sizes) -> Iterator[Case]:
    generator = np.random.default_rng(2)
    data = generator.integers(0, 256, sizes.data, dtype=np.uint8)
    for element, bins in (("uint8", 256), ("uint16", 65_536), ("int16", 256), ("int32", 1_000)):
        values = data.view(element)
        least, most = int(np.iinfo(element).min), int(np.iinfo(element).max)
        width = (most - least + 1) // bins
        yield Case(
            name=f"histogram {element}, {bins:,} bins",
            kernels=(f"histogram_{element}",),
            unit="Gvalues/s",
            amount=values.size / 1e9,
            run=lambda backend, values=values, least=least, width=width, bins=bins: backend.histogram(
                values, least, width, bins
            ),
            moved_bytes=values.nbytes,
            integer_operations=COUNTED_VALUE * values.size,
        )
    for element in ("int32", "int64"):
        keys = generator.integers(np.iinfo(element).min, np.iinfo(element).max, sizes.keys, dtype=element)
        bits = 8 * keys.itemsize
        yield Case(
            name=f"sort {element}",
            kernels=(f"radix_count_{bits}", "radix_scan", f"radix_scatter_{bits}"),
            unit="Gkeys/s",
            amount=keys.size / 1e9,
            run=lambda backend, keys=keys: backend.sort(keys),
            # A pass reads the keys twice and writes them once, and has eight bits.
            moved_bytes=keys.itemsize * 3 * keys.nbytes,
            keys=keys,
        )
    yield Case(
        name="sha256.tree",
        kernels=("sha256_leaves",),
        unit="GB/s",
        amount=sizes.data / 1e9,
        run=lambda backend: backend.leaf_hashes(data, 4_096),
        moved_bytes=sizes.data,
        integer_operations=COMPRESSION * (sizes.data / 4_096) * 65,
    )


def _pictures_and_points(sizes: Sizes) -> Iterator[Case]:
    generator = np.random.default_rng(5)
    picture = generator.integers(0, 256, (sizes.side, sizes.side, 3), dtype=np.uint8)
    weights = generator.integers(-9, 10, (5, 5), dtype=np.int32)
    yield Case(
        name="image.convolve 5×5",
        kernels=("convolve",),
        unit="GB/s",
        amount=2 * picture.nbytes / 1e9,
        run=lambda backend: backend.convolve(picture, weights, 7, 3),
        moved_bytes=2 * picture.nbytes,
        integer_operations=weights.size * picture.size,
    )
    axis = (np.linspace(-2.0, 2.0, sizes.orbits) * 2.0**56).astype(np.int64)
    axis = np.clip(axis, -(2**57) + 1, 2**57 - 1)
    most = sizes.iterations
    yield Case(
        name="mandelbrot",
        kernels=("escape_counts",),
        unit="Mpoints/s",
        amount=sizes.orbits**2 / 1e6,
        run=lambda backend: backend.escape_counts(axis, axis, most),
        # Orbits that stay may come back to where they were and end sooner: they are not counted.
        integer_operations=lambda counts: ORBIT * float(counts[counts < most].sum(dtype=np.int64)),
    )
    points = generator.integers(-(2**15), 2**15, (sizes.points, 16), dtype=np.int16)
    centres = points[:64].copy()
    for kernel, unit, amount, moved, operations in (
        ("nearest", "G distances/s", points.shape[0] * 64 * 4 / 1e9, 4 * points.nbytes, COORDINATE * points.size * 256),
        ("sum_chunks", "GB/s", 3 * points.nbytes / 1e9, 3 * (points.nbytes + points.shape[0]), 0),
    ):
        yield Case(
            name=f"kmeans, 64 clusters: {kernel}",
            kernels=(kernel,),
            unit=unit,
            amount=amount,
            run=lambda backend: tuple(backend.cluster(points, centres, 3, 4_096)),
            moved_bytes=moved,
            integer_operations=operations,
        )


def _simulations(sizes: Sizes) -> Iterator[Case]:
    walk = Walk(
        spot=100_000_000,
        strike=105_000_000,
        drift=15_862_599_727 // 16,
        diffusion=1_239_000_000 // 4,
        steps=16,
        paths=sizes.chunks * 4_096,
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
        run=lambda backend: backend.payoff_sums(walk, 0, sizes.chunks),
        integer_operations=PATH_STEP * walk.paths * walk.steps,
    )
    count, steps = sizes.bodies, 2
    generator = np.random.default_rng(3)
    state = generator.uniform(-1, 1, (count, 6)).astype(np.float32)
    masses = generator.uniform(0, 1 / count, count).astype(np.float32)
    yield Case(
        name="nbody",
        kernels=("leapfrog",),
        unit="G interactions/s",
        amount=count**2 * steps / 1e9,
        run=lambda backend: backend.leapfrog(state, masses, MOTION, steps),
        float_operations=INTERACTION * count**2 * steps,
    )


MOTION: Final = Motion(dt=float(np.float32(0.001)), softening_squared=float(np.float32(0.05) ** 2))
EPOCH, MINER, DEVICE = "11" * 32, "U" + "A" * 55, "GPU-1"


def _attestation(sizes: Sizes, mib: int) -> Iterator[Case]:
    """The exam's rows and the memory's walks, which no service uses."""
    shape, rows = sizes.exam, sizes.rows
    blocks = rows * shape.inner / 16
    labels, steps = labels_in(mib), min(walks_in(mib), WALKS) * STEPS
    exam = ("seeded_rows", "merkle_level")
    for kernel, unit, amount, moved, operations in (
        ("seeded_rows", "GB/s", 16 * blocks / 1e9, 16 * blocks, PHILOX * blocks),
        ("merkle_level", "Ghashes/s", rows / 1e9, 96 * rows, 2 * COMPRESSION * rows),
        ("fill_labels", "GB/s", 32 * labels / 1e9, 32 * labels, 4 * COMPRESSION * labels),
        ("fill_walks", "G reads/s", steps / 1e9, 32 * steps, 2 * COMPRESSION * steps),
    ):
        yield Case(
            name=f"{'exam' if kernel in exam else 'fill'}: {kernel}",
            kernels=(kernel,),
            unit=unit,
            amount=amount,
            run=(lambda backend: _rows(backend, shape, rows))
            if kernel in exam
            else lambda backend: _walks(backend, mib),
            moved_bytes=moved,
            integer_operations=operations,
        )


def _rows(backend: Backend, shape: ExamShape, rows: int) -> npt.NDArray[np.uint8]:
    """The root over the first rows of an exam."""
    return np.frombuffer(examinee_on(backend, shape, EPOCH, MINER, DEVICE).root(0, rows), np.uint8)


def _walks(backend: Backend, mib: int) -> npt.NDArray[np.uint8]:
    """The root over the first walks through so much memory, as many as a device makes at once."""
    memory = memory_on(backend, EPOCH, MINER, DEVICE, mib)
    memory.fill()
    return np.frombuffer(memory.root(0, min(walks_in(mib), WALKS)), np.uint8)
