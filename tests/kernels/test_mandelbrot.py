"""The kernel of mandelbrot against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.host import mandelbrot
from actors.backends.host.mandelbrot import escape_counts
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

ONE = 1 << 56


def agree(gpu: EmulatedGpu, re: np.ndarray, im: np.ndarray, max_iterations: int) -> np.ndarray:
    found = escape_counts(gpu, re, im, max_iterations)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, CpuBackend().escape_counts(re, im, max_iterations))
    return found


@pytest.mark.parametrize(("width", "height"), [(1, 1), (32, 4), (33, 5), (90, 61)])
@pytest.mark.parametrize("max_iterations", [1, 2, 16, 17, 200])
def test_whole_set(gpu: EmulatedGpu, width: int, height: int, max_iterations: int) -> None:
    """Pictures of all of it, in sizes that fill blocks and that do not."""
    re = np.linspace(-2.2 * ONE, 0.9 * ONE, width).astype(np.int64)
    im = np.linspace(-1.2 * ONE, 1.1 * ONE, height).astype(np.int64)
    agree(gpu, re, im, max_iterations)


def test_extreme_coordinates(gpu: EmulatedGpu) -> None:
    """The outermost points, the border of distance 2, and one unit beside each."""
    borders = [sign * (at * ONE) + near for sign in (-1, 1) for at in (1, 2) for near in (-1, 0, 1)]
    axis = np.array([1 - 4 * ONE, 4 * ONE - 1, 0, 1, -1, ONE // 4, -3 * ONE // 4, *borders], dtype=np.int64)
    agree(gpu, axis, axis, 300)


def test_deep_picture_with_many_iterations(gpu: EmulatedGpu) -> None:
    """At a border of the set, neighbours one unit apart: orbits that are very long, and ones that go round for ever."""
    re = -ONE * 3 // 4 + np.arange(6, dtype=np.int64)
    im = ONE // 1_000 + np.arange(3, dtype=np.int64)
    counts = agree(gpu, re, im, 65_535)
    assert int(counts.min()) > 1_000
    assert int(agree(gpu, re, np.zeros(1, dtype=np.int64), 65_535).max()) == 65_535


def test_bands_make_one_picture(gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a picture takes several launches, the rows of each are its own, and progress counts them."""
    monkeypatch.setattr(mandelbrot, "_BAND_POINTS", 80)
    re = np.linspace(-2.0 * ONE, 0.5 * ONE, 40).astype(np.int64)
    im = np.linspace(-1.0 * ONE, 1.0 * ONE, 7).astype(np.int64)
    agree(gpu, re, im, 60)
    seen: list[tuple[int, int]] = []
    escape_counts(gpu, re, im, 60, lambda done, total: seen.append((done, total)))
    assert seen == [(2, 7), (4, 7), (6, 7), (7, 7)]
