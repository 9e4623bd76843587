"""The backend of any GPU: each computation by its host code and kernels."""

from collections.abc import Sequence
from typing import Final

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
from actors.backends.gpu import Gpu
from actors.backends.host import (
    convolve,
    custom,
    histogram,
    kmeans,
    mandelbrot,
    matmul,
    nbody,
    option,
    sha256_tree,
    sort,
)
from schemas.events import Device

_MIB: Final = 1 << 20


class GpuBackend:
    """One device, behind the interface that the CPU has too."""

    def __init__(self, gpu: Gpu, name: str = "pycuda") -> None:
        self._gpu = gpu
        self._name = name

    @property
    def name(self) -> str:
        """Which implementation this is."""
        return self._name

    @property
    def gpu(self) -> Gpu:
        """The device itself, for what needs more than the computations of a backend."""
        return self._gpu

    def devices(self) -> tuple[Device, ...]:
        """The one device, with the memory that its driver says."""
        properties = self._gpu.properties
        return (Device(model=properties.name, memory_mib=properties.memory_bytes // _MIB),)

    def multiply(self, a: Int8Array, b: Int8Array, progress: Progress = no_progress) -> Int32Array:
        """See `actors.backends.base.Backend.multiply`."""
        return matmul.multiply(self._gpu, a, b, progress)

    def multiply_fp16(self, a: Float16Array, b: Float16Array, progress: Progress = no_progress) -> Float32Array:
        """See `actors.backends.base.Backend.multiply_fp16`."""
        return matmul.multiply_fp16(self._gpu, a, b, progress)

    def leaf_hashes(self, data: UInt8Array, chunk_bytes: int, progress: Progress = no_progress) -> UInt8Array:
        """See `actors.backends.base.Backend.leaf_hashes`."""
        return sha256_tree.leaf_hashes(self._gpu, data, chunk_bytes, progress)

    def histogram(
        self, values: IntegerArray, low: int, width: int, count: int, progress: Progress = no_progress
    ) -> Int64Array:
        """See `actors.backends.base.Backend.histogram`."""
        return histogram.histogram(self._gpu, values, low, width, count, progress)

    def sort(self, values: IntegerArray, progress: Progress = no_progress) -> IntegerArray:
        """See `actors.backends.base.Backend.sort`."""
        return sort.sort(self._gpu, values, progress)

    def payoff_sums(self, walk: Walk, first: int, count: int, progress: Progress = no_progress) -> Int64Array:
        """See `actors.backends.base.Backend.payoff_sums`."""
        return option.payoff_sums(self._gpu, walk, first, count, progress)

    def leapfrog(
        self,
        state: Float32Array,
        masses: Float32Array,
        motion: Motion,
        steps: int,
        progress: Progress = no_progress,
    ) -> Float32Array:
        """See `actors.backends.base.Backend.leapfrog`."""
        return nbody.leapfrog(self._gpu, state, masses, motion, steps, progress)

    def run_code(self, code: bytes, launch: Launch, inputs: Sequence[UInt8Array]) -> list[UInt8Array]:
        """See `actors.backends.base.Backend.run_code`."""
        return custom.run(self._gpu, code, launch, inputs)

    def convolve(
        self, picture: UInt8Array, kernel: Int32Array, divisor: int, offset: int, progress: Progress = no_progress
    ) -> UInt8Array:
        """See `actors.backends.base.Backend.convolve`."""
        return convolve.convolve(self._gpu, picture, kernel, divisor, offset, progress)

    def escape_counts(
        self, re: Int64Array, im: Int64Array, max_iterations: int, progress: Progress = no_progress
    ) -> UInt16Array:
        """See `actors.backends.base.Backend.escape_counts`."""
        return mandelbrot.escape_counts(self._gpu, re, im, max_iterations, progress)

    def cluster(
        self,
        points: Int16Array,
        first: Int16Array,
        iterations: int,
        chunk_points: int,
        progress: Progress = no_progress,
    ) -> Clustering:
        """See `actors.backends.base.Backend.cluster`."""
        return kmeans.cluster(self._gpu, points, first, iterations, chunk_points, progress)
