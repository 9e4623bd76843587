"""Small products for tests of those who fetch, compute and judge."""

from hashlib import sha256
from pathlib import Path

import numpy as np

from actors.backends.cpu import CpuBackend
from actors.services.base import Computed
from actors.services.matmul import compute
from actors.services.npy import write_matrix
from schemas.events import Requirement
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix, ServiceWork
from schemas.state import Assigned, Assignment, Commitment, Job, Revealed, Situation
from tests.projections.small_network import key_of

SEED = sha256(b"seed").hexdigest()
ALICE, MINER, COORDINATOR = (key_of(name).address for name in ("alice", "miner 0", "coordinator"))
ASSIGNMENT = Assignment(miner=MINER, coordinator=COORDINATOR, price=1, assigned_ms=1, assigned_height=1)


def seeded(rows: int = 8, columns: int = 8) -> SeededMatrix:
    return SeededMatrix(rows=rows, columns=columns, seed=SEED)


def npy_bytes(directory: Path, matrix: np.ndarray) -> bytes:
    """The bytes of its file."""
    path = directory / "matrix.npy"
    write_matrix(path, matrix)
    data = path.read_bytes()
    path.unlink()
    return data


def blob_of(data: bytes, rows: int = 8, columns: int = 8) -> BlobMatrix:
    return BlobMatrix(rows=rows, columns=columns, digest=sha256(data).hexdigest())


def job_of(work: ServiceWork, situation: Situation | None = None, timeout_ms: int = 10_000) -> Job:
    return Job(
        owner=ALICE,
        work=work,
        escrow=1_000,
        timeout_ms=timeout_ms,
        requirement=Requirement(memory_mib=0),
        submitted_ms=0,
        submitted_height=1,
        expires_ms=100_000,
        situation=situation or Assigned(deadline_ms=10_000, assignment=ASSIGNMENT),
    )


def revealed(work: MatmulInt8, root: str, result: str, size: int) -> Job:
    """A job whose miner has bound itself to this."""
    commitment = Commitment(root=root, result=result, size=size, committed_ms=1, committed_height=1)
    situation = Revealed(deadline_ms=90_000, assignment=ASSIGNMENT, commitment=commitment, miner_sig="A" * 86)
    return job_of(work, situation)


def computed(work: MatmulInt8, blobs: dict[str, Path], result: Path) -> Computed:
    """The right result, in a file."""
    return compute(work, blobs, CpuBackend(), result)
