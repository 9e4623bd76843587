"""The test vectors of the simulations are current, and every backend and verifier agrees with them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actors.backends.base import Backend
from actors.backends.cpu import CpuBackend
from actors.backends.on_gpu import GpuBackend
from actors.backends.reference.option import SEGMENTS, tables
from actors.services.base import Accepted
from actors.services.npy import open_matrix
from actors.services.registry import service_for, verify
from schemas.services import MonteCarloOption, NBody, ServiceWork
from tests.golden.simulation_vectors import DIRECTORY, OPTION, deviate, power, vectors
from tests.kernels.device import device
from tests.kernels.emulator.compiled import compiler

FILES: dict[str, Any] = {name: json.loads((DIRECTORY / name).read_text(encoding="utf-8")) for name in vectors()}


@pytest.fixture(params=["cpu", "emulated gpu"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "cpu":
        return CpuBackend()
    if compiler() is None:
        pytest.skip("needs a C++ compiler to build the kernels for the CPU: install g++")
    return GpuBackend(device(), "emulated")


def done(work: ServiceWork, folder: Path, backend: Backend, root: str) -> Path:
    """The result, computed and accepted; its root is the golden one."""
    result = folder / "result"
    computed = service_for(work).compute(work, {}, backend, result)
    assert computed.root == root
    assert (computed.digest, computed.size) == (sha256(result.read_bytes()).hexdigest(), result.stat().st_size)
    assert isinstance(verify(work, {}, result, root, "5e" * 32), Accepted)
    return result


def test_vectors_are_current() -> None:
    """The files are those that the generator gives; `python -m tests.golden.simulation_vectors` renews them."""
    assert [name for name, data in vectors().items() if (DIRECTORY / name).read_bytes() != data] == []


@pytest.mark.parametrize("case", FILES[f"{OPTION}.json"]["cases"])
def test_options(case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """Every sum of every chunk of paths is the golden one."""
    work = msgspec.convert(case["work"], MonteCarloOption)
    result = done(work, tmp_path, backend, case["root"])
    assert open_matrix(result, "int64", len(case["rows"]), 4).tolist() == case["rows"]


@pytest.mark.parametrize("case", FILES["nbody.json"]["cases"])
def test_bodies(case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """Every bit of every state is the golden one, from the first body at the beginning to the last at the end."""
    work = msgspec.convert(case["work"], NBody)
    result = done(work, tmp_path, backend, case["root"])
    states = open_matrix(result, "float32", work.checkpoints * work.bodies.count, 6)
    assert states[-1].tobytes().hex() == case["last"]
    assert sha256(states.tobytes()).hexdigest() == case["result"]
    state, _ = service_for(work).bodies(work, {})  # type: ignore[attr-defined]
    assert state[0].tobytes().hex() == case["first"]


def test_tables_are_rounded_rightly() -> None:
    """Entries made in floating point are those of 50 digits: all powers, and deviates from every octave."""
    deviates, coarse, fine = tables()
    assert coarse.tolist() == [power(i, 256) for i in range(256)]
    assert fine.tolist() == [power(i, 65_536) for i in range(256)]
    looked_at = sorted({*range(0, 32 * SEGMENTS + 1, 29), *range(127, 32 * SEGMENTS, SEGMENTS), 1, 32 * SEGMENTS})
    assert [int(deviates[i]) for i in looked_at] == [deviate(i) for i in looked_at]


def test_no_entry_of_a_table_is_near_a_half() -> None:
    """Each is far enough from where rounding turns that no floating-point library could round it otherwise."""
    from statistics import NormalDist

    probabilities = [2.0 ** (e - 33) * (1 + f / SEGMENTS) for e in range(32) for f in range(SEGMENTS)]
    exact = np.array([-NormalDist().inv_cdf(p) * 2**20 for p in probabilities])
    # Off by a few units in the last place of at most 2**23: below 2**-26.
    assert np.abs(np.abs(exact - np.floor(exact)) - 0.5).min() > 2**-16
    for parts in (256, 65_536):
        powers = np.array([2.0 ** (31 + i / parts) for i in range(1, 256)])
        assert np.abs(np.abs(powers - np.floor(powers)) - 0.5).min() > 2**-12
