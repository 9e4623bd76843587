"""The test vectors of image.convolve, mandelbrot and kmeans are current; backends and verifiers agree with them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.base import Backend
from actors.backends.cpu import CpuBackend
from actors.backends.on_gpu import GpuBackend
from actors.services.base import Accepted
from actors.services.npy import write_matrix
from actors.services.png import Form, read_png, write_png
from actors.services.registry import service_for, verify
from schemas.services import BlobPoints, ImageConvolve, KMeans, Mandelbrot, Picture, ServiceWork
from tests.golden.picture_vectors import DIRECTORY, SEED, material, vectors
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


def done(work: ServiceWork, blobs: dict[str, Path], folder: Path, backend: Backend, root: str) -> Path:
    """The result, computed and accepted; its root is the golden one."""
    assert work.inconsistency() is None
    result = folder / "result"
    computed = service_for(work).compute(work, blobs, backend, result)
    assert computed.root == root
    assert (computed.digest, computed.size) == (sha256(result.read_bytes()).hexdigest(), result.stat().st_size)
    assert computed.size in service_for(work).result_sizes(work)
    assert isinstance(verify(work, blobs, result, root, "5e" * 32), Accepted)
    return result


def test_vectors_are_current() -> None:
    """The committed files are those that the generator gives; `python -m tests.golden.picture_vectors` renews them."""
    assert [name for name, data in vectors().items() if (DIRECTORY / name).read_bytes() != data] == []


@pytest.mark.parametrize("case", FILES["image.convolve.json"]["cases"])
def test_filtered_pictures(case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """The samples of each filtered picture are the golden ones."""
    form = Form(width=case["width"], height=case["height"], channels=case["channels"])
    shape = (form.height, form.width, form.channels)
    picture = np.frombuffer(bytes.fromhex(case["picture"]), dtype=np.uint8).reshape(shape)
    digest, _ = write_png(tmp_path / "blob", picture)
    work = ImageConvolve(
        picture=Picture(digest=digest, width=form.width, height=form.height, channels=form.channels),
        kernel=tuple(tuple(row) for row in case["kernel"]),
        divisor=case["divisor"],
        offset=case["offset"],
    )
    result = done(work, {digest: tmp_path / "blob"}, tmp_path, backend, case["root"])
    assert read_png(result, form).tobytes().hex() == case["result"]


@pytest.mark.parametrize("case", FILES["mandelbrot.json"]["cases"])
def test_sets(case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """The counts of each picture are the golden ones."""
    fields = ("width", "height", "re", "im", "step", "max_iterations")
    work = Mandelbrot(**{name: case[name] for name in fields})
    result = done(work, {}, tmp_path, backend, case["root"])
    form = Form(width=work.width, height=work.height, channels=1, bits=16)
    assert read_png(result, form).tolist() == case["counts"]


@pytest.mark.parametrize("case", FILES["kmeans.json"]["cases"])
def test_clusterings(case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """The file of each clustering is the golden one."""
    if "material" in case:
        raw = material(case["material"], case["rows"] * case["columns"] * 2)
        points = np.frombuffer(raw, dtype="<i2").reshape(case["rows"], case["columns"])
    else:
        points = np.array(case["points"], dtype=np.int16)
    digest, _ = write_matrix(tmp_path / "blob", points)
    work = KMeans(
        points=BlobPoints(rows=points.shape[0], columns=points.shape[1], digest=digest),
        clusters=case["clusters"],
        iterations=case["iterations"],
        seed=SEED,
    )
    result = done(work, {digest: tmp_path / "blob"}, tmp_path, backend, case["root"])
    assert sha256(result.read_bytes()).hexdigest() == case["result"]
