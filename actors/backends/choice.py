"""Which backend a name means."""

from typing import Final, Literal, TypeAlias

from actors.backends.base import Backend
from actors.backends.cpu import CpuBackend
from events.errors import BadInput

BackendName: TypeAlias = Literal["cpu", "pycuda"]
NAMES: Final[tuple[BackendName, ...]] = ("cpu", "pycuda")


def choose(name: str, threads: int = 1, device: str | None = None) -> Backend:
    """The backend ``name``, ready to compute. ``device`` is the UUID of a GPU; without it, the first one is taken.

    This initialises CUDA in the calling process and thread, where a GPU is asked for: call it where the work is done.
    Raises `BadInput` for another name, and `DeviceUnavailable` where there is no such device, driver or PyCUDA.
    """
    if name == "cpu":
        return CpuBackend(threads)
    if name == "pycuda":
        from actors.backends.on_gpu import GpuBackend
        from actors.backends.pycuda import PyCudaGpu

        return GpuBackend(PyCudaGpu(device))
    raise BadInput(f"there is no backend {name!r}", hint=f"Choose one of {', '.join(NAMES)}.")
