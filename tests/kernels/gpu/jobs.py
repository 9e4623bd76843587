"""A job of each service through the sandbox on the GPU, behind the jail's walls, and the same on the CPU.

What a process in the jail may not do (descriptors, memory, system calls, device nodes) only a job in it can show.
"""

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from actors.sandbox import Finished, Limits, Outcome, Sandbox, SandboxBroken
from actors.services.png import write_png
from actors.services.registry import service_for
from actors.services.vectors import write_vector
from schemas.services import (
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
    SeededPoints,
    ServiceWork,
    Sha256Tree,
    Sort,
    service_of,
)
from schemas.services.custom import InputBuffer, OutputBuffer, Scalar

SEED: Final = "5e" * 32
WALL_MS: Final = 120_000
# What a miner gives a job where it is not told otherwise.
MEMORY_BYTES: Final = 4_096 << 20
# A number of each width that is not packed as it is held: a half.
SOURCE: Final = b"""
#include <cuda_fp16.h>

extern "C" __global__ void scale(const int *values, __half factor, unsigned count, int *scaled) {
    unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) scaled[index] = (int)(values[index] * __half2float(factor));
}
"""
VALUES: Final = np.arange(-1_000, 1_000, 2, dtype="<i4")
FACTOR: Final = np.float16(-1.5)


def works(directory: Path) -> Iterator[ServiceWork]:
    """One work of each service; the blobs that they read are put into ``directory`` under their digests."""
    generator = np.random.default_rng(7)

    def blob(content: bytes) -> str:
        digest = sha256(content).hexdigest()
        (directory / digest).write_bytes(content)
        return digest

    def renamed(written: tuple[str, int]) -> str:
        (directory / "new").rename(directory / written[0])
        return written[0]

    a, b = SeededMatrix(rows=300, columns=500, seed=SEED), SeededMatrix(rows=500, columns=200, seed=SEED)
    yield MatmulInt8(a=a, b=b)
    yield MatmulFp16Exact(a=a, b=b, limit=100)
    data = generator.bytes(100_000)
    yield Sha256Tree(digest=blob(data), size=len(data), chunk_bytes=1_024)
    counts = renamed(write_vector(directory / "new", np.frombuffer(data, np.uint16)))
    yield Histogram(digest=counts, element="uint16", length=len(data) // 2, low=100, width=7, count=9_000)
    keys = renamed(write_vector(directory / "new", np.frombuffer(data, np.int64)))
    yield Sort(digest=keys, element="int64", length=len(data) // 8)
    yield MonteCarloOption(
        style="asian",
        right="call",
        spot=100_000_000,
        strike=105_000_000,
        rate_ppm=30_000,
        volatility_ppm=200_000,
        days=365,
        steps=12,
        paths=20_000,
        seed=SEED,
    )
    bodies = SeededBodies(count=300, seed=SEED)
    yield NBody(bodies=bodies, steps=4, every=2, step_ppb=1_000_000, softening_ppm=50_000)
    picture = renamed(write_png(directory / "new", generator.integers(0, 256, (90, 70, 3), dtype=np.uint8)))
    yield ImageConvolve(
        picture=Picture(digest=picture, width=70, height=90, channels=3),
        kernel=((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
        divisor=1,
        offset=0,
    )
    yield Mandelbrot(width=100, height=80, re=-(1 << 49), im=0, step=1 << 51, max_iterations=300)
    yield KMeans(points=SeededPoints(rows=5_000, columns=8, seed=SEED), clusters=10, iterations=3, seed=SEED)
    yield KernelCustom(
        source=blob(SOURCE),
        size=len(SOURCE),
        entry="scale",
        architecture=75,
        grid=(8, 1, 1),
        block=(128, 1, 1),
        arguments=(
            InputBuffer(digest=blob(VALUES.tobytes()), element="int32", length=VALUES.size),
            Scalar(element="float16", bytes=FACTOR.tobytes().hex()),
            Scalar(element="uint32", bytes=np.uint32(VALUES.size).tobytes().hex()),
            OutputBuffer(element="int32", length=VALUES.size),
        ),
    )


def expected_of_custom() -> bytes:
    """What the program of the client computes; the CPU has nothing that could run it."""
    return (VALUES * -3 // 2).astype("<i4").tobytes()


async def done(backend: str) -> dict[str, Any]:
    """The walls that there were, and a row for each service: whether ``backend`` gives what the CPU does."""
    rows = []
    with TemporaryDirectory(prefix="assay-gpu-check-") as folder:
        root = Path(folder).resolve()
        async with Sandbox(1, root, backend=backend) as device, Sandbox(1, root) as cpu:
            blobs = root / "blobs"
            blobs.mkdir()
            for number, work in enumerate(works(blobs)):
                rows.append({"name": service_of(work), **await _compared(work, blobs, root / str(number), device, cpu)})
            return {"walls": device.walls, "devices": [each.model for each in device.devices], "rows": rows}


async def _compared(work: ServiceWork, blobs: Path, place: Path, device: Sandbox, cpu: Sandbox) -> dict[str, Any]:
    try:
        found = await _run(work, blobs, place / "device", device)
    except (SandboxBroken, OSError) as error:
        return {"error": f"on the device: {type(error).__name__}: {error}"}
    if not isinstance(found, Finished):
        return {"error": f"on the device: {found.code}: {found.detail}"}
    if isinstance(work, KernelCustom):
        return {"equal": found.result.read_bytes() == expected_of_custom()}
    expected = await _run(work, blobs, place / "cpu", cpu)
    if not isinstance(expected, Finished):
        return {"error": f"on the CPU: {expected.code}: {expected.detail}"}
    return {"equal": (found.root, found.digest) == (expected.root, expected.digest)}


async def _run(work: Any, blobs: Path, place: Path, sandbox: Sandbox) -> Outcome:
    place.mkdir(parents=True)
    service = service_for(work)
    limits = Limits(wall_ms=WALL_MS, memory_bytes=MEMORY_BYTES, output_bytes=service.result_sizes(work).stop)
    given = {}
    for digest in work.blobs():
        given[digest] = place / digest
        given[digest].write_bytes((blobs / digest).read_bytes())
    return await sandbox.run(work, given, place, limits)


def compared(backend: str = "pycuda") -> dict[str, Any]:
    """`done`, for a program without a loop."""
    return asyncio.run(done(backend))
