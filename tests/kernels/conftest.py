"""A GPU for every test of a kernel: an emulated one, in both orders of threads."""

from typing import Any

import pytest

from tests.kernels.device import device, is_real
from tests.kernels.emulator.compiled import compiler


@pytest.fixture(params=["the device"] if is_real() else ["forward", "backward"])
def gpu(request: pytest.FixtureRequest) -> Any:
    """A kernel that lacks a barrier gives different results in the two orders."""
    if compiler() is None and not is_real():
        pytest.skip("needs a C++ compiler to build the kernels for the CPU: install g++")
    return device(backward=request.param == "backward")
