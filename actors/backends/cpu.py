"""The reference: exact int8 products on any CPU, through the BLAS behind NumPy."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from actors.backends.base import (
    Clustering,
    Float16Array,
    Float32Array,
    Int8Array,
    Int16Array,
    Int32Array,
    Int64Array,
    IntegerArray,
    Launch,
    Motion,
    Progress,
    UInt8Array,
    UInt16Array,
    Walk,
    no_progress,
)
from actors.backends.reference import (
    convolve,
    histogram,
    kmeans,
    mandelbrot,
    matmul_fp16,
    nbody,
    option,
    sha256_tree,
    sort,
)
from events.errors import DeviceUnavailable
from schemas.events import Device
from schemas.services import MAX_INNER

# 1024 products of two int8 sum to at most 1024 * 128 * 128 = 2**24, up to where float32 holds every integer.
EXACT_INNER: Final = 1_024

# Elements of one block of rows: operands and result of a step stay in the cache.
_BLOCK_ELEMENTS: Final = 1 << 20
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9 ._-]+")


class CpuBackend:
    """Multiplies int8 matrices exactly with float32 BLAS.

    Why this is exact: each factor is an integer of magnitude at most 128, each product at most 2**14. The inner
    dimension is cut into pieces of `EXACT_INNER` = 2**10, so within a piece every partial sum, in whatever order and
    with or without fused multiply-add, is an integer of magnitude at most 2**24, which float32 represents exactly;
    nothing is ever rounded. The pieces are added as int32: K <= 131,071 keeps every such sum at or below 131,071 *
    2**14 < 2**31.

    ``threads`` blocks of rows are computed at once. Where it is more than one, the BLAS itself should run on one
    thread.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    @property
    def name(self) -> str:
        """``cpu``."""
        return "cpu"

    def devices(self) -> tuple[Device, ...]:
        """One device: the processor, with the machine's whole memory."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return (Device(model=_processor_name(), memory_mib=memory >> 20),)

    def multiply(self, a: Int8Array, b: Int8Array, progress: Progress = no_progress) -> Int32Array:
        """See `actors.backends.base.Backend.multiply`."""
        rows, inner = a.shape
        if b.shape[0] != inner or not 1 <= inner <= MAX_INNER:
            raise AssertionError(f"shapes {a.shape} and {b.shape} cannot be multiplied exactly")
        columns = b.shape[1]
        product = np.zeros((rows, columns), dtype=np.int32)
        step = max(1, _BLOCK_ELEMENTS // max(columns, EXACT_INNER))
        pieces = range(0, inner, EXACT_INNER)
        total = len(pieces) * len(range(0, rows, step))
        done = 0
        with ThreadPoolExecutor(self._threads, thread_name_prefix="multiply") as pool:
            for start in pieces:
                piece = slice(start, start + EXACT_INNER)
                right = b[piece].astype(np.float32)

                def add_block(first: int, piece: slice = piece, right: np.ndarray = right) -> None:
                    block = slice(first, first + step)
                    product[block] += (a[block, piece].astype(np.float32) @ right).astype(np.int32)

                finished: Iterator[None] = pool.map(add_block, range(0, rows, step))
                for _ in finished:
                    done += 1
                    progress(done, total)
        return product

    def multiply_fp16(self, a: Float16Array, b: Float16Array, progress: Progress = no_progress) -> Float32Array:
        """See `actors.backends.base.Backend.multiply_fp16`."""
        return matmul_fp16.multiply(a, b, progress, self._threads)

    def leaf_hashes(self, data: UInt8Array, chunk_bytes: int, progress: Progress = no_progress) -> UInt8Array:
        """See `actors.backends.base.Backend.leaf_hashes`."""
        return sha256_tree.leaf_hashes(data, chunk_bytes, progress, self._threads)

    def histogram(
        self, values: IntegerArray, low: int, width: int, count: int, progress: Progress = no_progress
    ) -> Int64Array:
        """See `actors.backends.base.Backend.histogram`."""
        return histogram.histogram(values, low, width, count, progress)

    def sort(self, values: IntegerArray, progress: Progress = no_progress) -> IntegerArray:
        """See `actors.backends.base.Backend.sort`."""
        return sort.sort(values, progress, self._threads)

    def convolve(
        self, picture: UInt8Array, kernel: Int32Array, divisor: int, offset: int, progress: Progress = no_progress
    ) -> UInt8Array:
        """See `actors.backends.base.Backend.convolve`."""
        return convolve.convolve(picture, kernel, divisor, offset, progress, self._threads)

    def escape_counts(
        self, re: Int64Array, im: Int64Array, max_iterations: int, progress: Progress = no_progress
    ) -> UInt16Array:
        """See `actors.backends.base.Backend.escape_counts`."""
        return mandelbrot.escape_counts(re, im, max_iterations, progress, self._threads)

    def cluster(
        self,
        points: Int16Array,
        first: Int16Array,
        iterations: int,
        chunk_points: int,
        progress: Progress = no_progress,
    ) -> Clustering:
        """See `actors.backends.base.Backend.cluster`."""
        return kmeans.cluster(points, first, iterations, chunk_points, progress)

    def payoff_sums(self, walk: Walk, first: int, count: int, progress: Progress = no_progress) -> Int64Array:
        """See `actors.backends.base.Backend.payoff_sums`."""
        return option.payoff_sums(walk, first, count, progress, self._threads)

    def leapfrog(
        self,
        state: Float32Array,
        masses: Float32Array,
        motion: Motion,
        steps: int,
        progress: Progress = no_progress,
    ) -> Float32Array:
        """See `actors.backends.base.Backend.leapfrog`."""
        return nbody.leapfrog(state, masses, motion, steps, progress, self._threads)

    def run_code(self, code: bytes, launch: Launch, inputs: Sequence[UInt8Array]) -> list[UInt8Array]:
        """A processor cannot. Raises `DeviceUnavailable`."""
        raise DeviceUnavailable(
            f"{launch.entry} cannot be launched",
            why="the backend cpu runs no CUDA code",
            hint='Set backend = "pycuda" in the miner\'s settings, on a host with a GPU.',
        )


def _processor_name() -> str:
    """The model that the kernel names, in the characters that a device's name may have."""
    model = "CPU"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        label, _, value = line.partition(":")
        if label.strip() == "model name":
            model = value
            break
    cleaned = " ".join(_NOT_IN_A_NAME.sub(" ", model).split()).lstrip(" ._-")[:64].rstrip()
    return cleaned or "CPU"
