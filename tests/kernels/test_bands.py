"""Work parted into several launches: the reference's bits, and steps that are told once they are done."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from actors.backends.base import Backend, Motion, Progress, Walk, no_progress
from actors.backends.cpu import CpuBackend
from actors.backends.host import convolve, histogram, mandelbrot, matmul, nbody, option, sha256_tree
from actors.backends.host.bands import MOST_BANDS, bands
from actors.backends.on_gpu import GpuBackend
from tests.kernels.device import require

GENERATOR = np.random.default_rng(11)
WALK = Walk(
    spot=100_000_000,
    strike=105_000_000,
    drift=15_862_599_727,
    diffusion=1_239_000_000,
    steps=2,
    paths=1_000,
    chunk_paths=128,
    asian=True,
    put=False,
    key=(1, 2, 3, 4),
)
MOTION = Motion(dt=float(np.float32(0.001)), softening_squared=float(np.float32(0.05) ** 2))

A, B = GENERATOR.integers(-128, 128, (300, 70), dtype=np.int8), GENERATOR.integers(-128, 128, (70, 33), dtype=np.int8)
HALVES = [GENERATOR.integers(-9, 10, shape).astype(np.float16) for shape in ((270, 40), (40, 20))]
DATA = GENERATOR.integers(0, 256, 100 * 1_024 + 77, dtype=np.uint8)
PICTURE = GENERATOR.integers(0, 256, (130, 21, 3), dtype=np.uint8)
KERNELS = [GENERATOR.integers(-40, 41, sides, dtype=np.int32) for sides in ((15, 15), (1, 3), (5, 1))]
RE = np.linspace(-2.0 * 2**56, 2.0**55, 40).astype(np.int64)
BODIES = GENERATOR.uniform(-1, 1, (50, 6)).astype(np.float32), np.full(50, 0.02, dtype=np.float32)

# Name, the constants that make bands small, the work, the steps that it then has.
Work = Callable[[Backend, Progress], Any]
CASES: list[tuple[str, Any, dict[str, int], Work, list[int]]] = [
    ("matmul.int8", matmul, {"_BAND_ELEMENTS": 128 * 33}, lambda b, p: b.multiply(A, B, p), [256, 300]),
    ("matmul.fp16", matmul, {"_BAND_ELEMENTS": 1}, lambda b, p: b.multiply_fp16(*HALVES, p), [128, 256, 270]),
    (
        "sha256.tree",
        sha256_tree,
        {"_BAND_CHUNKS": 30},
        lambda b, p: b.leaf_hashes(DATA, 1_024, p),
        [64, 101],
    ),
    ("nbody", nbody, {"_BAND_INTERACTIONS": 5_000}, lambda b, p: b.leapfrog(*BODIES, MOTION, 5, p), [2, 4, 5]),
    (
        "mandelbrot",
        mandelbrot,
        {"_BAND_POINTS": 80},
        lambda b, p: b.escape_counts(RE, RE[:7], 60, p),
        [2, 4, 6, 7],
    ),
    ("option", option, {"_LAUNCH_CHUNKS": 3}, lambda b, p: b.payoff_sums(WALK, 1, 7, p), [1, 2, 3]),
]
CASES += [
    (
        f"histogram {element}",
        histogram,
        {"_BAND_BYTES": 256},
        lambda b, p, element=element: b.histogram(DATA[: 900 * 4].view(element)[:899], 5, 7, 20, p),
        steps,
    )
    for element, steps in (
        ("uint8", [304, 608, 899]),
        ("uint16", [144, 288, 432, 576, 720, 864, 899]),
        ("int16", [144, 288, 432, 576, 720, 864, 899]),
        ("int32", [*range(80, 899, 80), 899]),
    )
]
CASES += [
    (
        f"convolve {kernel.shape}",
        convolve,
        {"_BAND_SAMPLES": 1, "_BAND_ROWS": 30},
        lambda b, p, kernel=kernel: b.convolve(PICTURE, kernel, 7, 3, p),
        [64, 128, 130],
    )
    for kernel in KERNELS
]
CASES += [
    (
        f"sort {element}",
        None,
        {},
        lambda b, p, element=element: b.sort(DATA[:8_000].view(element), p),
        list(range(1, passes + 1)),
    )
    for element, passes in (("int32", 4), ("uint32", 4), ("int64", 8))
]


class Watched:
    """Passes everything on, and knows whether anybody has waited for the last launch."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self.at_work = False
        self.launches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gpu, name)

    def launch(self, *words: Any, **options: Any) -> None:
        self.at_work = True
        self.launches += 1
        self._gpu.launch(*words, **options)

    def get(self, *words: Any) -> Any:
        self.at_work = False
        return self._gpu.get(*words)


@pytest.mark.parametrize(
    ("module", "constants", "work", "steps"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bands_make_one_result(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, module: Any, constants: dict[str, int], work: Work, steps: list[int]
) -> None:
    """In several launches or in one, the result is the reference's; a step is told when the device has done it."""
    for name, value in constants.items():
        monkeypatch.setattr(module, name, value)
    watched = Watched(gpu)
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        assert not watched.at_work
        told.append((done, total))

    backend = GpuBackend(watched)
    expected = work(CpuBackend(), no_progress)
    for progress in (tell, no_progress):
        found = work(backend, progress)
        assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    assert told == [(step, steps[-1]) for step in steps]


@pytest.mark.parametrize("kernel", [*matmul.INT8_KERNELS, *matmul.FP16_KERNELS])
def test_bands_of_every_product(gpu: Any, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    """Each kernel makes rows that are not the first ones as it makes the first ones."""
    whole = kernel in matmul.INT8_KERNELS
    require(gpu, matmul.INT8_KERNELS if whole else matmul.FP16_KERNELS, kernel)
    monkeypatch.setattr(matmul, "_BAND_ELEMENTS", 1)
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    if whole:
        np.testing.assert_array_equal(matmul.multiply(gpu, A, B, tell, kernel), CpuBackend().multiply(A, B))
        assert told == [(128, 300), (256, 300), (300, 300)]
    else:
        found = matmul.multiply_fp16(gpu, *HALVES, tell, kernel)
        assert found.tobytes() == CpuBackend().multiply_fp16(*HALVES).tobytes()
        assert told == [(128, 270), (256, 270), (270, 270)]


@pytest.mark.parametrize(
    ("length", "least", "multiple", "expected"),
    [
        (1, 1, 1, [1]),
        (1, 8, 32, [1]),
        (15, 8, 1, [15]),
        (16, 8, 1, [8, 8]),
        (23, 8, 1, [12, 11]),
        (100, 1, 32, [32, 32, 32, 4]),
        (1_000, 1, 1, [63] * 15 + [55]),
        (67_108_864, 1, 16, [4_194_304] * 16),
    ],
)
def test_bands_cover_all_rows_once(length: int, least: int, multiple: int, expected: list[int]) -> None:
    """They follow each other, begin at multiples, and are few; where nobody listens there is one."""
    found = bands(length, least, multiple, lambda done, total: None)
    assert [band.stop - band.start for band in found] == expected
    assert [band.start for band in found] == [0, *(band.stop for band in found[:-1])]
    assert all(band.start % multiple == 0 for band in found)
    assert len(found) <= MOST_BANDS
    assert bands(length, least, multiple, no_progress) == [slice(0, length)]
