"""The services on data do their work within the memory that they say they need."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.actors.command_line.devnet_process import ROOT, environment

# Run in a process of its own, which limits itself as a job's process does, before it computes.
JOB: Final = """
import json, os, resource, sys
from pathlib import Path
import msgspec
from actors.backends.cpu import CpuBackend
from actors.services.registry import service_for
from schemas.services import Work

work = msgspec.json.decode(sys.argv[1], type=Work)
threads, blob, result = int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
service, backend = service_for(work), CpuBackend(threads)
used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
most = used + service.memory_needed(work, threads)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
service.compute(work, {work.digest: blob}, backend, result, threads=threads)
"""
DIGEST: Final = "ab" * 32
SIZE: Final = 16_000_000
CASES: Final = [
    ({"service": "sha256.tree", "digest": DIGEST, "size": SIZE + 128, "chunk_bytes": 1_024}, "<i4"),
    (
        {
            "service": "histogram", "digest": DIGEST, "element": "int32", "length": SIZE // 4,
            "low": -5, "width": 7, "count": 65_536,
        },
        "<i4",
    ),
    ({"service": "sort", "digest": DIGEST, "element": "int64", "length": SIZE // 8}, "<i8"),
]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the address space and limits it")
@pytest.mark.parametrize(("work", "dtype"), CASES, ids=[str(case[0]["service"]) for case in CASES])
def test_work_is_done_within_the_memory_it_needs(tmp_path: Path, work: dict[str, object], dtype: str) -> None:
    """With many threads, each of which reserves a stack and an arena, the limit of a job's process is not reached."""
    literal = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({SIZE // int(dtype[2:])},), }}"
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + literal.ljust(117).encode() + b"\n"
    (tmp_path / "blob").write_bytes(header + bytes(SIZE))
    words = [json.dumps(work), "6", str(tmp_path / "blob"), str(tmp_path / "result")]
    ended = subprocess.run(
        [sys.executable, "-c", JOB, *words],
        cwd=ROOT,
        env=environment(tmp_path, OPENBLAS_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "result").stat().st_size > 0
