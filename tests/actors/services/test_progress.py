"""Every service tells how far it is while it computes, on the CPU and on a GPU."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends import cpu
from actors.backends.base import Backend
from actors.backends.cpu import CpuBackend
from actors.backends.host import convolve as gpu_convolve
from actors.backends.host import histogram as gpu_histogram
from actors.backends.host import mandelbrot as gpu_mandelbrot
from actors.backends.host import matmul as gpu_matmul
from actors.backends.host import option as gpu_option
from actors.backends.host import sha256_tree as gpu_sha256_tree
from actors.backends.on_gpu import GpuBackend
from actors.backends.reference import convolve, histogram, mandelbrot, matmul_fp16, option, sha256_tree, sort
from actors.services.kernel_custom import CODE_NAME
from actors.services.npy import write_matrix
from actors.services.png import write_png
from actors.services.registry import SERVICES, service_for
from actors.services.vectors import write_vector
from schemas.services import (
    BlobMatrix,
    BlobPoints,
    Histogram,
    ImageConvolve,
    KernelCustom,
    KMeans,
    Mandelbrot,
    MatmulFp16Exact,
    MatmulInt8,
    MonteCarloOption,
    NBody,
    Picture,
    SeededBodies,
    SeededMatrix,
    ServiceWork,
    Sha256Tree,
    Sort,
)
from schemas.services.custom import OutputBuffer
from tests.kernels.device import device
from tests.kernels.emulator.compiled import compiler

SEED = "5e" * 32
SOURCE = b'extern "C" __global__ void enumerate(int *numbers) { numbers[threadIdx.x] = threadIdx.x; }'
GENERATOR = np.random.default_rng(6)

# What makes work of a test's size large: the constants of the CPU and of a GPU by which it is parted.
SMALL_STEPS = [
    (cpu, "_BLOCK_ELEMENTS", 1 << 16),
    (matmul_fp16, "_BLOCK_ELEMENTS", 1 << 12),
    (sha256_tree, "_STEP_BYTES", 20_000),
    (histogram, "_STEP", 700),
    (sort, "_PART_VALUES", 700),
    (convolve, "_STEP_SAMPLES", 1_000),
    (mandelbrot, "_STEP_POINTS", 200),
    (option, "_BATCH", 4_096),
    (gpu_matmul, "_BAND_ELEMENTS", 4_000),
    (gpu_sha256_tree, "_BAND_CHUNKS", 16),
    (gpu_histogram, "_BAND_BYTES", 4_096),
    (gpu_convolve, "_BAND_SAMPLES", 1_000),
    (gpu_convolve, "_BAND_ROWS", 32),
    (gpu_mandelbrot, "_BAND_POINTS", 200),
    (gpu_option, "_LAUNCH_CHUNKS", 1),
]

Made = tuple[ServiceWork, dict[str, Path]]


def matmul_int8(folder: Path) -> Made:
    digest, _ = write_matrix(folder / "a.npy", GENERATOR.integers(-128, 128, (300, 20), dtype=np.int8))
    a, b = BlobMatrix(rows=300, columns=20, digest=digest), SeededMatrix(rows=20, columns=40, seed=SEED)
    return MatmulInt8(a=a, b=b), {digest: folder / "a.npy"}


def matmul_fp16_exact(_folder: Path) -> Made:
    a, b = SeededMatrix(rows=300, columns=20, seed=SEED), SeededMatrix(rows=20, columns=40, seed=SEED)
    return MatmulFp16Exact(a=a, b=b, limit=100), {}


def tree(folder: Path) -> Made:
    data = GENERATOR.bytes(70_000)
    (folder / "data").write_bytes(data)
    digest = sha256(data).hexdigest()
    return Sha256Tree(digest=digest, size=len(data), chunk_bytes=1_024), {digest: folder / "data"}


def values(folder: Path) -> tuple[str, dict[str, Path]]:
    digest, _ = write_vector(folder / "v.npy", GENERATOR.integers(-900, 900, 5_000, dtype=np.int32))
    return digest, {digest: folder / "v.npy"}


def counts(folder: Path) -> Made:
    digest, blobs = values(folder)
    return Histogram(digest=digest, element="int32", length=5_000, low=-800, width=100, count=16), blobs


def order(folder: Path) -> Made:
    digest, blobs = values(folder)
    return Sort(digest=digest, element="int32", length=5_000), blobs


def picture(folder: Path) -> Made:
    digest, _ = write_png(folder / "in.png", GENERATOR.integers(0, 256, (200, 20, 4), dtype=np.uint8))
    described = Picture(digest=digest, width=20, height=200, channels=4)
    kernel = ((1, 2, 1), (2, 4, 2), (1, 2, 1))
    return ImageConvolve(picture=described, kernel=kernel, divisor=16, offset=0), {digest: folder / "in.png"}


def set_of_mandelbrot(_folder: Path) -> Made:
    return Mandelbrot(width=40, height=30, re=0, im=0, step=1 << 51, max_iterations=20), {}


def clusters(folder: Path) -> Made:
    digest, _ = write_matrix(folder / "p.npy", GENERATOR.integers(-900, 900, (1_000, 3)).astype(np.int16))
    points = BlobPoints(rows=1_000, columns=3, digest=digest)
    return KMeans(points=points, clusters=4, iterations=3, seed=SEED), {digest: folder / "p.npy"}


def paths(_folder: Path) -> Made:
    market = {"spot": 100_000_000, "strike": 99_000_000, "rate_ppm": 0, "volatility_ppm": 200_000, "days": 9}
    return MonteCarloOption(style="asian", right="put", steps=2, paths=9_000, seed=SEED, **market), {}


def bodies(_folder: Path) -> Made:
    stars = SeededBodies(count=20, seed=SEED)
    return NBody(bodies=stars, steps=6, every=2, step_ppb=1_000_000, softening_ppm=50_000), {}


def program(folder: Path) -> Made:
    digest = sha256(SOURCE).hexdigest()
    (folder / "source").write_bytes(SOURCE)
    # The emulated GPU compiles the source itself.
    (folder / CODE_NAME).write_bytes(SOURCE)
    extents: dict[str, Any] = {"grid": (1, 1, 1), "block": (32, 1, 1)}
    output = OutputBuffer(element="int32", length=32)
    work = KernelCustom(
        source=digest, size=len(SOURCE), entry="enumerate", architecture=80, arguments=(output,), **extents
    )
    return work, {digest: folder / "source"}


WORKS: dict[type[ServiceWork], Callable[[Path], Made]] = {
    MatmulInt8: matmul_int8,
    MatmulFp16Exact: matmul_fp16_exact,
    Sha256Tree: tree,
    Histogram: counts,
    Sort: order,
    ImageConvolve: picture,
    Mandelbrot: set_of_mandelbrot,
    KMeans: clusters,
    MonteCarloOption: paths,
    NBody: bodies,
    KernelCustom: program,
}


def backend_of(kind: str) -> Backend:
    if kind != "gpu":
        return CpuBackend(1 if kind == "cpu" else 3)
    if compiler() is None:
        pytest.skip("needs a C++ compiler to build the kernels for the CPU: install g++")
    return GpuBackend(device())


# A processor runs no CUDA code.
RUNS = [
    (record, kind)
    for record in SERVICES
    for kind in ("cpu", "cpu, three threads", "gpu")
    if kind == "gpu" or record is not KernelCustom
]


@pytest.mark.parametrize(("record", "kind"), RUNS, ids=[f"{record.__name__}, {kind}" for record, kind in RUNS])
def test_every_service_tells_its_progress(
    record: type[ServiceWork], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps grow, end at the total, and are several where there is enough to do; the result is that of one step."""
    work, blobs = WORKS[record](tmp_path)
    assert work.inconsistency() is None
    backend = backend_of(kind)
    compute = service_for(work).compute
    (tmp_path / "whole").mkdir()
    if record is KernelCustom:
        (tmp_path / "whole" / CODE_NAME).write_bytes(SOURCE)
    whole = compute(work, blobs, backend, tmp_path / "whole" / "result")
    for module, name, value in SMALL_STEPS:
        monkeypatch.setattr(module, name, value)
    told: list[tuple[int, int]] = []
    computed = compute(work, blobs, backend, tmp_path / "result", lambda done, total: told.append((done, total)))
    assert computed == whole
    steps, total = [done for done, _ in told], told[0][1]
    assert {each for _, each in told} == {total}
    assert steps == sorted(set(steps))
    assert (steps[0] > 0, steps[-1]) == (True, total)
    # A launch of a program that is not ours cannot be looked into.
    assert len(steps) == 1 if record is KernelCustom else len(steps) >= 3
