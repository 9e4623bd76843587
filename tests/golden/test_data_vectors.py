"""The test vectors of the services on data are current, and every backend and verifier agrees with them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.base import Backend
from actors.backends.cpu import CpuBackend
from actors.backends.on_gpu import GpuBackend
from actors.services import sha256_tree
from actors.services.base import Accepted
from actors.services.registry import service_for, verify
from actors.services.vectors import open_vector, write_vector
from schemas.services import Histogram, ServiceWork, Sha256Tree, Sort
from tests.golden.data_vectors import DIRECTORY, blob, vectors
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


def done(work: ServiceWork, blob_file: Path, backend: Backend, root: str) -> Path:
    """The result, computed and accepted; its root is the golden one."""
    blobs = {work.blobs()[0]: blob_file}
    result = blob_file.with_suffix(".result")
    computed = service_for(work).compute(work, blobs, backend, result)
    assert computed.root == root
    assert (computed.digest, computed.size) == (sha256(result.read_bytes()).hexdigest(), result.stat().st_size)
    assert isinstance(verify(work, blobs, result, root, "5e" * 32), Accepted)
    return result


def test_vectors_are_current() -> None:
    """The committed files are those that the generator gives; `python -m tests.golden.data_vectors` renews them."""
    assert [name for name, data in vectors().items() if (DIRECTORY / name).read_bytes() != data] == []


@pytest.mark.parametrize("case", FILES["sha256.tree.json"]["cases"])
def test_trees(case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """First hash, result and root of each blob are the golden ones."""
    data = blob(case)
    (tmp_path / "blob").write_bytes(data)
    work = Sha256Tree(digest=sha256(data).hexdigest(), size=case["size"], chunk_bytes=case["chunk_bytes"])
    result = done(work, tmp_path / "blob", backend, case["root"]).read_bytes()
    assert result[: sha256_tree.HASH_BYTES].hex() == case["first"]
    assert sha256(result).hexdigest() == case["result"]


@pytest.mark.parametrize("case", FILES["histogram.json"]["cases"])
def test_histograms(case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """The counts of each vector are the golden ones."""
    values = np.array(case["values"], dtype=case["element"])
    digest, _ = write_vector(tmp_path / "blob", values)
    bins = {name: case[name] for name in ("element", "low", "width", "count")}
    result = done(Histogram(digest=digest, length=values.size, **bins), tmp_path / "blob", backend, case["root"])
    assert open_vector(result, "int64", case["count"] + 2).tolist() == case["counts"]


@pytest.mark.parametrize("case", FILES["sort.json"]["cases"])
def test_sorts(case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """Each vector in order is the golden one."""
    values = np.array(case["values"], dtype=case["element"])
    digest, _ = write_vector(tmp_path / "blob", values)
    work = Sort(digest=digest, element=case["element"], length=values.size)
    result = done(work, tmp_path / "blob", backend, case["root"])
    assert open_vector(result, case["element"], values.size).tolist() == case["sorted"]
