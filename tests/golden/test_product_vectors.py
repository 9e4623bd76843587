"""The test vectors and pages of the services on matrices are current, and every backend and verifier agrees."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actors.backends.base import Backend
from actors.backends.cpu import CpuBackend
from actors.backends.on_gpu import GpuBackend
from actors.services.base import Accepted
from actors.services.npy import open_matrix, write_matrix
from actors.services.registry import service_for, verify
from schemas.services import MAX_EXACT_SUM, MAX_HALF_INTEGER, MAX_INNER, MAX_SIDE, MatmulFp16Exact, MatmulInt8, units_of
from tests.golden.product_vectors import DIRECTORY, vectors
from tests.kernels.device import device
from tests.kernels.emulator.compiled import compiler

FILES: dict[str, Any] = {name: json.loads((DIRECTORY / name).read_text(encoding="utf-8")) for name in vectors()}
CASES = [(name.removesuffix(".json"), case) for name, file in FILES.items() for case in file["cases"]]
PAGE = (Path(__file__).parents[2] / "docs" / "services" / "matmul.fp16-exact.md").read_text(encoding="utf-8")


@pytest.fixture(params=["cpu", "gpu"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "cpu":
        return CpuBackend()
    if compiler() is None:
        pytest.skip("needs a C++ compiler to build the kernels for the CPU: install g++")
    return GpuBackend(device(), "emulated")


def test_vectors_are_current() -> None:
    """The committed files are those that the generator gives; `python -m tests.golden.product_vectors` renews them."""
    assert [name for name, data in vectors().items() if (DIRECTORY / name).read_bytes() != data] == []


def work_of(service: str, case: dict[str, Any], folder: Path) -> tuple[MatmulInt8 | MatmulFp16Exact, dict[str, Path]]:
    """The work of a case; its matrices come from seeds where it has some, else from files."""
    element, operands, blobs = ("int8" if service == "matmul.int8" else "float16"), {}, {}
    for index, name in enumerate("ab"):
        matrix = np.array(case[name]).astype(element)
        rows, columns = matrix.shape
        operands[name] = {"rows": rows, "columns": columns}
        if "seeds" in case:
            operands[name] |= {"kind": "seed", "seed": case["seeds"][index]}
        else:
            digest, _ = write_matrix(folder / name, matrix)
            operands[name] |= {"kind": "blob", "digest": digest}
            blobs[digest] = folder / name
    limit = {"limit": case["limit"]} if "limit" in case else {}
    return msgspec.convert({"service": service, **operands, **limit}, MatmulInt8 | MatmulFp16Exact), blobs


@pytest.mark.parametrize(("service", "case"), CASES)
def test_products(service: str, case: dict[str, Any], tmp_path: Path, backend: Backend) -> None:
    """Product and root are the golden ones, and the result is accepted."""
    work, blobs = work_of(service, case, tmp_path)
    assert work.inconsistency() is None
    result = tmp_path / "result"
    computed = service_for(work).compute(work, blobs, backend, result)
    assert computed.root == case["root"]
    element = "int32" if service == "matmul.int8" else "float32"
    assert open_matrix(result, element, work.a.rows, work.b.columns).tolist() == case["product"]
    assert isinstance(verify(work, blobs, result, case["root"], "5e" * 32), Accepted)


def test_page_has_the_bounds_in_force() -> None:
    """Parameters and bounds are those of the record, and the example is work that costs what the page says."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert tuple(rows) == MatmulFp16Exact.__struct_fields__
    for bound in (MAX_INNER, MAX_SIDE):
        assert f"{bound:,}" in rows["a"]
    assert f"{MAX_HALF_INTEGER:,}" in rows["limit"]
    assert f"{MAX_EXACT_SUM:,}" in rows["limit"]
    found = re.search(r'^    (\{"service".*?\})\n\n', PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    text = "".join(found[1].split()).replace("…", "ab" * 32)
    work = msgspec.json.decode(text.encode(), type=MatmulFp16Exact)
    assert work.inconsistency() is None
    assert f"{units_of(work) / 1_000:.3f} ASY" in PAGE
    assert f"`{work.unit_type}`" in PAGE
    assert [line for line in PAGE.splitlines() if len(line) > 130 and not line.startswith("|")] == []
