"""The kernel of sha256.tree against the CPU reference, bit for bit."""

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.host.sha256_tree import leaf_hashes
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

# Lengths of the last chunk around which the padding of SHA-256 takes another block, or the data another word.
LAST = (1, 2, 3, 4, 53, 54, 55, 56, 57, 62, 63, 64, 65, 119, 120, 127, 1_023, 1_024)


@pytest.mark.parametrize("last", LAST)
def test_short_last_chunks(gpu: EmulatedGpu, last: int) -> None:
    """A chunk alone and the last of a few have the reference's hash, whatever their length."""
    for chunks in (1, 3):
        data = np.random.default_rng(last).integers(0, 256, (chunks - 1) * 1_024 + last, dtype=np.uint8)
        np.testing.assert_array_equal(leaf_hashes(gpu, data, 1_024), CpuBackend().leaf_hashes(data, 1_024))


@pytest.mark.parametrize("chunk_bytes", [1_024, 2_048, 16_384])
@pytest.mark.parametrize("fill", [None, 0x00, 0xFF, 0x80])
def test_many_chunks(gpu: EmulatedGpu, chunk_bytes: int, fill: int | None) -> None:
    """More chunks than a warp has threads, of random bytes and of bytes that are all zeros, ones, or the padding's."""
    size = 40 * 1_024 + 77 if chunk_bytes == 1_024 else 3 * chunk_bytes + 1_000
    data = np.random.default_rng(chunk_bytes).integers(0, 256, size, dtype=np.uint8)
    if fill is not None:
        data[:] = fill
    np.testing.assert_array_equal(leaf_hashes(gpu, data, chunk_bytes), CpuBackend().leaf_hashes(data, chunk_bytes))
