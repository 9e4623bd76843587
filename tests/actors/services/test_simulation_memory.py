"""The simulations do their work within the memory that they say they need."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
import pytest

from schemas.services import MonteCarloOption, NBody, SeededBodies, ServiceWork
from tests.actors.command_line.devnet_process import ROOT, environment

# Run in a process of its own, which limits itself as a job's process does, before it computes.
JOB: Final = """
import os, resource, sys
from pathlib import Path
import msgspec
from actors.backends.cpu import CpuBackend
from actors.services.registry import service_for
from schemas.services import Work

work, threads = msgspec.json.decode(sys.argv[1], type=Work), int(sys.argv[2])
service, backend = service_for(work), CpuBackend(threads)
used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
most = used + service.memory_needed(work, threads)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
service.compute(work, {}, backend, Path(sys.argv[3]), threads=threads)
"""
SEED: Final = "ab" * 32
MANY_CHUNKS: Final = MonteCarloOption(
    style="asian",
    right="call",
    spot=100_000_000,
    strike=105_000_000,
    rate_ppm=0,
    volatility_ppm=200_000,
    days=365,
    steps=4_096,
    paths=5_000,
    seed=SEED,
)
MANY_STATES: Final = NBody(
    bodies=SeededBodies(count=50, seed=SEED), steps=1_600, every=1, step_ppb=1_000_000, softening_ppm=50_000
)
MANY_BODIES: Final = NBody(
    bodies=SeededBodies(count=5_000, seed=SEED), steps=1, every=1, step_ppb=1_000_000, softening_ppm=50_000
)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the address space and limits it")
@pytest.mark.parametrize(
    ("work", "threads"),
    [(MANY_CHUNKS, 1), (MANY_CHUNKS, 6), (MANY_BODIES, 1), (MANY_BODIES, 6), (MANY_STATES, 2)],
)
def test_work_is_done_within_the_memory_it_needs(tmp_path: Path, work: ServiceWork, threads: int) -> None:
    """With one thread and with many, each of which reserves a stack and an arena, a job's limit is not reached."""
    words = [msgspec.json.encode(work).decode(), str(threads), str(tmp_path / "result")]
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
