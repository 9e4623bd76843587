"""The kernels of kmeans against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.host.kmeans import cluster
from tests.kernels.emulator.emulated_gpu import EmulatedGpu


def agree(gpu: EmulatedGpu, points: np.ndarray, first: np.ndarray, iterations: int, chunk_points: int) -> None:
    found = cluster(gpu, points, first, iterations, chunk_points)
    expected = CpuBackend().cluster(points, first, iterations, chunk_points)
    for part, right in zip(found, expected, strict=True):
        assert part.dtype == right.dtype
        np.testing.assert_array_equal(part, right)


@pytest.mark.parametrize("count", [1, 127, 128, 129, 700])
@pytest.mark.parametrize(("dimensions", "clusters"), [(1, 1), (2, 33), (64, 32), (7, 256)])
def test_random_points(gpu: EmulatedGpu, count: int, dimensions: int, clusters: int) -> None:
    """Points in numbers that fill blocks and that do not, centres in one tile and in several."""
    generator = np.random.default_rng(count + dimensions)
    points = generator.integers(-(2**15), 2**15, (count, dimensions), dtype=np.int16)
    first = generator.integers(-(2**15), 2**15, (clusters, dimensions), dtype=np.int16)
    agree(gpu, points, first, 2, 256)


def test_distances_that_fill_the_accumulator(gpu: EmulatedGpu) -> None:
    """Corners that are as far apart as points can be, in all dimensions: 64 times (2^16 - 1)^2."""
    points = np.full((130, 64), -(2**15), dtype=np.int16)
    points[::2] = 2**15 - 1
    first = np.array([[2**15 - 1] * 64, [2**15 - 1] * 63 + [2**15 - 2], [-(2**15)] * 64], dtype=np.int16)
    agree(gpu, points, first, 1, 65_535)
    agree(gpu, points, first[:1], 1, 65_535)


def test_ties_and_empty_clusters(gpu: EmulatedGpu) -> None:
    """Of equally near centres the first is taken; a centre that gets no points stays where it is."""
    points = np.array([[0], [2], [-2], [4]] * 40, dtype=np.int16)
    first = np.array([[1], [1], [-1], [-1], [3], [30_000]], dtype=np.int16)
    agree(gpu, points, first, 3, 64)


def test_sums_of_a_full_chunk(gpu: EmulatedGpu) -> None:
    """The most points that a chunk can have, all at an end of the range."""
    points = np.full((65_535, 1), -(2**15), dtype=np.int16)
    agree(gpu, points, points[:1], 1, 65_535)
