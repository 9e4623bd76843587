"""The GPU that tests of kernels run on: an emulated one, or, where it is asked for, the one of this machine."""

import os
from functools import cache
from typing import Any, Final

from tests.kernels.emulator.emulated_gpu import EmulatedGpu

# Set to "pycuda" by tests/kernels/gpu: then the same tests run on the machine's GPU.
VARIABLE: Final = "ASSAY_TEST_GPU"


def is_real() -> bool:
    """Whether the machine's GPU is asked for."""
    return os.environ.get(VARIABLE) == "pycuda"


def device(*, backward: bool = False) -> Any:
    """The GPU for a test."""
    return _real() if is_real() else EmulatedGpu(backward=backward)


@cache
def _real() -> Any:
    from actors.backends.pycuda import PyCudaGpu

    return PyCudaGpu()
