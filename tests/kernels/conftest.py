"""A GPU for every test of a kernel: an emulated one, in both orders of threads."""

import pytest

from tests.kernels.emulator.compiled import compiler
from tests.kernels.emulator.emulated_gpu import EmulatedGpu


@pytest.fixture(params=["forward", "backward"])
def gpu(request: pytest.FixtureRequest) -> EmulatedGpu:
    """A kernel that lacks a barrier gives different results in the two."""
    if compiler() is None:
        pytest.skip("needs a C++ compiler to build the kernels for the CPU: install g++")
    return EmulatedGpu(backward=request.param == "backward")
