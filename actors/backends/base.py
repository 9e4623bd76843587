"""What a device that computes must be able to do; the CPU and every GPU implement it, with the same bits as result."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.events import Device

Int8Array: TypeAlias = npt.NDArray[np.int8]
Float16Array: TypeAlias = npt.NDArray[np.float16]
Int16Array: TypeAlias = npt.NDArray[np.int16]
Int32Array: TypeAlias = npt.NDArray[np.int32]
Int64Array: TypeAlias = npt.NDArray[np.int64]
UInt8Array: TypeAlias = npt.NDArray[np.uint8]
UInt16Array: TypeAlias = npt.NDArray[np.uint16]
Float32Array: TypeAlias = npt.NDArray[np.float32]
# A vector of the integers that the method names.
IntegerArray: TypeAlias = npt.NDArray[np.integer[Any]]

# Called with (steps done, steps in all), from the thread that called the backend, never more often than once per step.
Progress: TypeAlias = Callable[[int, int], None]


class DeviceFault(Exception):
    """The device has failed: a kernel crashed, or the driver says that it is gone."""


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class Clustering(NamedTuple):
    """What k-means has gone through, with T iterations, k clusters, d coordinates."""

    # (T + 1) × k × d: before each iteration, and the last.
    centres: Int16Array
    # T × chunks × k, and T × chunks × k × d: points of each chunk by their nearest centre, and their sums.
    counts: Int32Array
    sums: Int32Array
    # The nearest of the last centres for each point.
    labels: UInt8Array


class Walk(Struct, frozen=True, kw_only=True):
    """What a path's steps and payoff depend on; see `actors.backends.reference.option`.

    ``drift`` is the binary logarithm that a step adds to the price, in units of 2**-40, ``diffusion`` that of one
    normal deviate, in units of 2**-32. ``key`` is k0, k1, s0, s1.

    spot and strike are positive and below 2**37, ``steps`` at most 4,096, and |drift| steps below 2**44, diffusion
    steps below 2**40.
    """

    spot: int
    strike: int
    drift: int
    diffusion: int
    steps: int
    paths: int
    chunk_paths: int
    asian: bool
    put: bool
    key: tuple[int, int, int, int]


class Motion(Struct, frozen=True, kw_only=True):
    """The length of a step, and the square of the softening; each is exactly a float32."""

    dt: float
    softening_squared: float


# A number by value; None for the next input; the bytes of an output.
LaunchArgument: TypeAlias = "np.generic | int | None"


class Launch(Struct, frozen=True, kw_only=True):
    """How a program that is not ours is launched."""

    entry: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    arguments: tuple[LaunchArgument, ...]


class Backend(Protocol):
    """A way to compute on one device. Its results are exact, so that any other backend can check them bit for bit."""

    @property
    def name(self) -> str:
        """Which implementation this is: ``cpu``, ``pycuda``."""

    def devices(self) -> tuple[Device, ...]:
        """The devices as the miner will announce them."""

    def multiply(self, a: Int8Array, b: Int8Array, progress: Progress = no_progress) -> Int32Array:
        """The exact product of ``a`` (m × K) and ``b`` (K × n), C-ordered m × n.

        K is at most ``schemas.services.MAX_INNER``. Raises `MemoryError` where the device has too little memory.
        """

    def multiply_fp16(self, a: Float16Array, b: Float16Array, progress: Progress = no_progress) -> Float32Array:
        """The product of ``a`` (m × K) and ``b`` (K × n), all of integers, C-ordered m × n, without negative zeros.

        K times the largest magnitudes in ``a`` and in ``b`` is at most 2**23: so the product is exact.
        """

    def leaf_hashes(self, data: UInt8Array, chunk_bytes: int, progress: Progress = no_progress) -> UInt8Array:
        """SHA-256(0x00 ‖ chunk) of each chunk of ``data``, one row of 32 bytes each; the last chunk may be short.

        ``data`` is not empty; ``chunk_bytes`` is a power of two from 64 on.
        """

    def histogram(
        self, values: IntegerArray, low: int, width: int, count: int, progress: Progress = no_progress
    ) -> Int64Array:
        """How many values lie below ``low``, in each of ``count`` bins of ``width`` integers from there on, and above.

        ``values`` is a vector of at most 2**31 - 1 uint8, uint16, int16 or int32; ``low`` is in the range of int32,
        ``width`` in 1 … 2**32 - 1, ``count`` in 1 … `schemas.services.MAX_BINS`.
        """

    def sort(self, values: IntegerArray, progress: Progress = no_progress) -> IntegerArray:
        """A copy of a vector of int32, uint32 or int64 in ascending order; it is not empty."""

    def convolve(
        self, picture: UInt8Array, kernel: Int32Array, divisor: int, offset: int, progress: Progress = no_progress
    ) -> UInt8Array:
        """The picture, height × width × channels, through the filter that `actors.backends.reference.convolve` defines.

        ``kernel`` has odd sides up to `schemas.services.MAX_KERNEL_SIDE` and weights up to
        `schemas.services.MAX_WEIGHT` in magnitude; ``divisor`` is positive.
        """

    def escape_counts(
        self, re: Int64Array, im: Int64Array, max_iterations: int, progress: Progress = no_progress
    ) -> UInt16Array:
        """For each point of the grid, ``im`` × ``re``, the count that `actors.backends.reference.mandelbrot` defines.

        Coordinates are in units of 2**-56 and below 4 in magnitude; ``max_iterations`` is in 1 … 65,535.
        """

    def cluster(
        self,
        points: Int16Array,
        first: Int16Array,
        iterations: int,
        chunk_points: int,
        progress: Progress = no_progress,
    ) -> Clustering:
        """Lloyd's algorithm, as `actors.backends.reference.kmeans` defines it, from the ``first`` centres, k × d.

        ``points`` is n × d; d is at most 64, k at most 256, ``chunk_points`` at most 65,535.
        """

    def payoff_sums(self, walk: Walk, first: int, count: int, progress: Progress = no_progress) -> Int64Array:
        """The four sums that `actors.backends.reference.option` defines, of each of ``count`` chunks of random paths
        from chunk ``first`` on."""

    def leapfrog(
        self,
        state: Float32Array,
        masses: Float32Array,
        motion: Motion,
        steps: int,
        progress: Progress = no_progress,
    ) -> Float32Array:
        """The state, n × 6 positions and velocities, after so many steps as `actors.backends.reference.nbody` defines
        them."""

    def run_code(self, code: bytes, launch: Launch, inputs: Sequence[UInt8Array]) -> list[UInt8Array]:
        """The outputs of one launch of a kernel in ``code``, which is PTX. The inputs are what their buffers hold.

        Raises `DeviceUnavailable` where there is no GPU, and `DeviceFault` when the kernel fails.
        """
