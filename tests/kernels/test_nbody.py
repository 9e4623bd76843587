"""The kernel of nbody against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.base import Motion
from actors.backends.cpu import CpuBackend
from actors.backends.host.nbody import leapfrog
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

MOTION = Motion(dt=float(np.float32(0.001)), softening_squared=float(np.float32(0.05) ** 2))
STRONGEST = Motion(dt=0.0625, softening_squared=float(np.float32(0.004) ** 2))


def agree(gpu: EmulatedGpu, state: np.ndarray, masses: np.ndarray, motion: Motion, steps: int) -> np.ndarray:
    found = leapfrog(gpu, state, masses, motion, steps)
    expected = CpuBackend().leapfrog(state, masses, motion, steps)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert np.isfinite(found).all()
    return found


def random_bodies(count: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(count)
    state = generator.uniform(-scale, scale, (count, 6)).astype(np.float32)
    return state, generator.uniform(0, 1 / count, count).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 300])
def test_random_bodies(gpu: EmulatedGpu, count: int) -> None:
    """Numbers of bodies that fill a tile and that do not, over several steps."""
    agree(gpu, *random_bodies(count), MOTION, 3)


def test_the_strongest_forces(gpu: EmulatedGpu) -> None:
    """The heaviest bodies in one place, at the ends of the space, at rest and fast: nothing overflows."""
    state = np.zeros((140, 6), dtype=np.float32)
    state[:60] = 1_024
    state[60:80] = -1_024
    state[80:100, 0] = np.float32(0.0028)
    state[100:, :3] = np.random.default_rng(1).uniform(-0.01, 0.01, (40, 3))
    agree(gpu, state, np.full(140, 16, dtype=np.float32), STRONGEST, 4)


def test_the_smallest_numbers(gpu: EmulatedGpu) -> None:
    """Subnormal numbers and zeros of both signs are kept."""
    state = np.zeros((9, 6), dtype=np.float32)
    state[:, 0] = [0.0, -0.0, 1e-45, -1e-45, 1e-40, 1e-38, 3e-20, -3e-20, 1.0]
    state[:, 3] = [-0.0, 1e-45, -1e-42, 0.0, 1e-38, -1e-38, 1e-20, 0.0, -0.0]
    masses = np.array([1e-45, 0, 1e-40, 1, 1e-38, 0, 1e-30, 16, 1e-20], dtype=np.float32)
    agree(gpu, state, masses, STRONGEST, 2)
