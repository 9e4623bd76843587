"""The emulator: what it computes, and what it refuses to let pass."""

from typing import Any

import numpy as np
import pytest

from actors.backends.base import DeviceFault
from tests.kernels.emulator import emulated_gpu
from tests.kernels.emulator.compiled import NotCompiled, library_of
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

SOURCE = """
extern "C" __global__ void __launch_bounds__(64) reverse(const int *in, int *out) {
    __shared__ int held[64];
    held[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * 64 + threadIdx.x] = held[63 - threadIdx.x];
}

extern "C" __global__ void reverse_without_barrier(const int *in, int *out) {
    extern __shared__ int held[];
    held[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
    out[blockIdx.x * 64 + threadIdx.x] = held[63 - threadIdx.x];
}

extern "C" __global__ void warps(const int *in, int *out) {
    int lane = threadIdx.x, mine = in[lane];
    out[lane] = __shfl_down_sync(0xFFFFFFFF, mine, 3);
    out[32 + lane] = __shfl_up_sync(0xFFFFFFFF, mine, 3, 8);
    out[64 + lane] = __shfl_xor_sync(0xFFFFFFFF, mine, 5);
    out[96 + lane] = __shfl_sync(0xFFFFFFFF, mine, 9, 16);
    out[128 + lane] = __ballot_sync(0xFFFFFFFF, mine & 1);
    if (lane < 16) out[160 + lane] = __shfl_sync(0xFFFF, mine, 2);
    else out[160 + lane] = __shfl_sync(0xFFFF0000, mine, 20);
}

extern "C" __global__ void integers(const int *in, int *out, unsigned long long big) {
    int a = in[0], b = in[1];
    out[0] = __dp4a(a, b, 7);
    out[1] = __umulhi(a, b);
    out[2] = __brev(a);
    out[3] = __byte_perm(a, b, 0xF251);
    out[4] = __funnelshift_l(a, b, 9);
    out[5] = __funnelshift_r(a, b, 9);
    out[6] = __popc(a) + 100 * __clz(b) + 10000 * __ffs(a);
    out[7] = (int)(__umul64hi(big, big) >> 32);
    atomicAdd(&out[8], 5);
    atomicMax((unsigned *)&out[9], 0xFFFFFFFFu);
}

extern "C" __global__ void votes(const int *in, int *out) {
    out[threadIdx.x] = __syncthreads_count(in[threadIdx.x] & 1) + 1000 * __syncthreads_or(in[threadIdx.x] == 5);
}

extern "C" __global__ void lonely(int *out) {
    if (threadIdx.x < 16) __shfl_sync(0xFFFFFFFF, 1, 0);
    out[threadIdx.x] = 1;
}

extern "C" __global__ void write_beside(char *out, int where) { out[where] = 1; }

extern "C" __global__ void fused(const float *in, float *out) {
    out[0] = in[0] * in[1] + in[2];
    out[1] = __fmaf_rn(in[0], in[1], in[2]);
}
"""


@pytest.fixture
def own_kernels(gpu: EmulatedGpu, monkeypatch: pytest.MonkeyPatch) -> EmulatedGpu:
    """The GPU with the kernels above."""
    monkeypatch.setattr(emulated_gpu, "library", lambda file: library_of(SOURCE, file))
    return gpu


def outcome(gpu: EmulatedGpu, kernel: str, count: int, *inputs: Any, threads: int = 32, **options: Any) -> np.ndarray:
    """What a kernel makes of inputs, as int32."""
    out = gpu.zeros(4 * count)
    arguments = [gpu.put(given) if isinstance(given, np.ndarray) else given for given in inputs]
    blocks = options.pop("blocks", 1)
    arguments.insert(1, out) if arguments else arguments.append(out)
    gpu.launch("own", kernel, (blocks, 1, 1), (threads, 1, 1), *arguments, **options)
    return gpu.get(out, np.int32, (count,))


NUMBERS = np.arange(1, 193, dtype=np.int32) * 7


def test_barriers_and_shared_memory(own_kernels: EmulatedGpu) -> None:
    """What one thread has written before a barrier another reads after it, in each of three blocks."""
    found = outcome(own_kernels, "reverse", 192, NUMBERS, threads=64, blocks=3)
    np.testing.assert_array_equal(found, NUMBERS.reshape(3, 64)[:, ::-1].ravel())


def test_missing_barrier_shows(own_kernels: EmulatedGpu) -> None:
    """Without the barrier, half of the threads read rubbish, another half in the other order."""
    right = NUMBERS.reshape(3, 64)[:, ::-1].ravel()
    found = outcome(own_kernels, "reverse_without_barrier", 192, NUMBERS, threads=64, blocks=3, shared_bytes=256)
    assert np.count_nonzero(found != right) == 96


def test_warp_operations(own_kernels: EmulatedGpu) -> None:
    """Shuffles and ballots exchange what the lanes hold, whole warps and parts of them."""
    lanes = np.arange(32)
    mine = NUMBERS[:32]
    found = outcome(own_kernels, "warps", 192, mine).reshape(6, 32)
    np.testing.assert_array_equal(found[0], np.where(lanes + 3 < 32, mine[(lanes + 3) % 32], mine))
    np.testing.assert_array_equal(found[1], np.where(lanes % 8 >= 3, mine[lanes - 3], mine))
    np.testing.assert_array_equal(found[2], mine[lanes ^ 5])
    np.testing.assert_array_equal(found[3], mine[lanes // 16 * 16 + 9])
    assert {int(word) & 0xFFFFFFFF for word in found[4]} == {0x55555555}
    np.testing.assert_array_equal(found[5], np.where(lanes < 16, mine[2], mine[20]))


def test_integer_operations(own_kernels: EmulatedGpu) -> None:
    """Each does what CUDA's manual says."""
    a, b = 0x81F0A57E, 0x0C93FF02
    given = np.array([a, b], dtype=np.uint32).view(np.int32)
    found = outcome(own_kernels, "integers", 10, given, np.uint64(2**63 + 12345), threads=2).view(np.uint32)
    products = given[:1].view(np.int8).astype(int) * given[1:].view(np.int8).astype(int)
    both = b << 32 | a
    assert found[0] == (7 + int(products.sum())) % 2**32
    assert found[1] == a * b >> 32
    assert found[2] == int(f"{a:032b}"[::-1], 2)
    # Selectors 1, 5, 2 name bytes; F is the sign of byte 7.
    assert found[3] == (both >> 8 & 0xFF) | (both >> 40 & 0xFF) << 8 | (both >> 16 & 0xFF) << 16
    assert found[4] == (both << 9) % 2**64 >> 32
    assert found[5] == (both >> 9) % 2**32
    assert found[6] == a.bit_count() + 100 * (32 - b.bit_length()) + 10_000 * 2
    assert found[7] == (2**63 + 12345) ** 2 >> 96
    assert list(found[8:]) == [10, 2**32 - 1]


def test_barriers_that_vote(own_kernels: EmulatedGpu) -> None:
    """All threads learn the count."""
    given = np.arange(64, dtype=np.int32)
    np.testing.assert_array_equal(outcome(own_kernels, "votes", 64, given, threads=64), np.full(64, 1_032))


def test_products_and_sums_are_not_fused(own_kernels: EmulatedGpu) -> None:
    """Only the named operation rounds once."""
    given = np.array([1 + 2**-12, 1 + 2**-12, -(1 + 2**-11)], dtype=np.float32)
    found = outcome(own_kernels, "fused", 2, given, threads=1).view(np.float32)
    np.testing.assert_array_equal(found, np.array([0, 2**-24], dtype=np.float32))


def test_waiting_in_vain_is_a_fault(own_kernels: EmulatedGpu) -> None:
    """A shuffle that some of its lanes never reach is reported, and the next launch works."""
    with pytest.raises(DeviceFault, match="do not come"):
        outcome(own_kernels, "lonely", 32)
    test_barriers_and_shared_memory(own_kernels)


@pytest.mark.parametrize(("size", "where", "words"), [(64, 64, "not its own"), (61, 61, "beside"), (64, -1, "beside")])
def test_writes_beside_a_buffer_are_faults(own_kernels: EmulatedGpu, size: int, where: int, words: str) -> None:
    """One byte beyond either end is found."""
    buffer = own_kernels.zeros(size)
    own_kernels.launch("own", "write_beside", (1, 1, 1), (1, 1, 1), buffer, np.int32(size - 1))
    with pytest.raises(DeviceFault, match=words):
        own_kernels.launch("own", "write_beside", (1, 1, 1), (1, 1, 1), buffer, np.int32(where))


@pytest.mark.parametrize(
    ("arguments", "grid", "block"),
    [
        ([np.int64(1)], (1, 1, 1), (1, 1, 1)),
        ([], (1, 1, 1), (1, 1, 1)),
        ([1], (1, 1, 1), (1, 1, 1)),
        ([np.bool_(True)], (1, 1, 1), (1, 1, 1)),
        ([np.complex64(1)], (1, 1, 1), (1, 1, 1)),
        ([np.int32(1)], (0, 1, 1), (1, 1, 1)),
        ([np.int32(1)], (1, 70_000, 1), (1, 1, 1)),
        ([np.int32(1)], (1, 1, 1), (1_025, 1, 1)),
    ],
)
def test_launches_that_a_driver_would_refuse(
    own_kernels: EmulatedGpu, arguments: list[Any], grid: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    """Arguments of another width or number, and extents beyond the limits, are broken invariants."""
    with pytest.raises(AssertionError):
        own_kernels.launch("own", "write_beside", grid, block, own_kernels.zeros(16), *arguments)


def test_kernel_that_does_not_compile() -> None:
    """The compiler's words are in the error."""
    with pytest.raises(NotCompiled, match="undeclared_name"):
        library_of('extern "C" __global__ void broken(int *out) { *out = undeclared_name; }', "broken")
