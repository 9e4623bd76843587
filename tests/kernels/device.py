"""The GPU that tests of kernels run on: an emulated one, or, where it is asked for, the one of this machine."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import pytest

from actors.backends.host.matmul import Kernel, usable
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

# Set to "pycuda" by tests/kernels/gpu: then the same tests run on the machine's GPU.
VARIABLE: Final = "ASSAY_TEST_GPU"


def is_real() -> bool:
    """Whether the machine's GPU is asked for."""
    return os.environ.get(VARIABLE) == "pycuda"


def device(*, backward: bool = False) -> Any:
    """The GPU for a test."""
    return _real() if is_real() else EmulatedGpu(backward=backward)


def require(gpu: Any, kernels: Mapping[str, Kernel], name: str) -> None:
    """Skip a test of a kernel for which the card has no instructions; the emulator has all."""
    if is_real() and name not in usable(kernels, gpu.properties.capability):
        pytest.skip(f"this card has no instructions for {name}")


@cache
def _real() -> Any:
    from actors.backends.pycuda import PyCudaGpu

    return PyCudaGpu()
