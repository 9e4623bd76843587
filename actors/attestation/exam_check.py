"""Checking an opened exam: the 64 rows are computed again, exactly, and must stand in the tree that was committed.

What does not depend on the device, B in the form that the processor multiplies fastest, is made once for an epoch
(`ExamSetup`). Then one device costs the making of 64 rows of A, 64·K·n multiplications in float32 BLAS (exact, see
`actors.backends.cpu`), and the hashes of the paths. There is no error either way: what is compared are integers.
"""

from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from actors.attestation.exam import (
    MAX_ROWS,
    a_seed,
    b_seed,
    challenged_rows,
    opened,
    opening_size,
)
from actors.backends.base import Int32Array
from actors.backends.cpu import EXACT_INNER
from actors.services.freivalds import out_of_range_row
from actors.services.generator import seeded_matrix, seeded_rows
from actors.services.matmul import row_hashes
from events.merkle import verify_inclusion
from schemas.attestation import ExamAnswer, ExamShape
from schemas.values import Digest

Float32Array = npt.NDArray[np.float32]


class ExamFault(StrEnum):
    """What is wrong with an opening; the first that holds, in this order."""

    MALFORMED = "MALFORMED"
    ROOT_MISMATCH = "ROOT_MISMATCH"
    RANGE = "RANGE"
    PRODUCT_MISMATCH = "PRODUCT_MISMATCH"


class ExamFinding(Struct, frozen=True, kw_only=True):
    """What the check of one device found; no ``fault`` where every opened row is right."""

    rows: int
    fault: ExamFault | None = None
    row: int | None = None
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether every opened row is right."""
        return self.fault is None


class ExamSetup:
    """What the devices of an epoch with one shape share. Holds B once as float32: 64 MiB for a GPU's shape."""

    def __init__(self, epoch: Digest, inner: int, columns: int) -> None:
        self.epoch: Final = epoch
        self.inner: Final = inner
        self.columns: Final = columns
        self._b: Float32Array = seeded_matrix(b_seed(epoch), inner, columns).astype(np.float32)

    def rows(self, seed: Digest, indices: tuple[int, ...]) -> Int32Array:
        """These rows of C, for the A of ``seed``."""
        a = np.concatenate([seeded_rows(seed, index, 1, self.inner) for index in indices]).astype(np.float32)
        product = np.zeros((len(indices), self.columns), dtype=np.int32)
        for start in range(0, self.inner, EXACT_INNER):
            piece = slice(start, start + EXACT_INNER)
            product += (a[:, piece] @ self._b[piece]).astype(np.int32)
        return product


def check_opening(
    setup: ExamSetup, shape: ExamShape, address: str, answer: ExamAnswer, challenge: Digest, blob: bytes
) -> ExamFinding:
    """Judge the blob with which the miner ``address`` opens its ``answer``.

    ``challenge`` must have been unknown when the answer was in the log. Depends on the arguments alone.
    """
    if (setup.inner, setup.columns) != (shape.inner, shape.columns):
        raise AssertionError("this set-up is for another shape")
    if not shape.min_rows <= answer.rows <= MAX_ROWS:
        detail = f"{answer.rows} rows were answered, from {shape.min_rows} to {MAX_ROWS} are possible"
        return ExamFinding(rows=0, fault=ExamFault.MALFORMED, detail=detail)
    indices = challenged_rows(answer.rows, challenge)
    found = len(indices)
    expected_size = opening_size(shape, answer.rows, indices)
    if len(blob) != expected_size:
        detail = f"the opening has {len(blob)} bytes instead of {expected_size}"
        return ExamFinding(rows=found, fault=ExamFault.MALFORMED, detail=detail)
    product, paths = opened(shape, answer.rows, indices, blob)
    expected_root = bytes.fromhex(answer.root)
    for index, leaf, path in zip(indices, row_hashes(product), paths, strict=True):
        if not verify_inclusion(leaf, index, answer.rows, path, expected_root):
            detail = f"row {index} is not in the tree of the committed root"
            return ExamFinding(rows=found, fault=ExamFault.ROOT_MISMATCH, row=index, detail=detail)
    outside = out_of_range_row(product, shape.inner)
    if outside is not None:
        detail = f"row {indices[outside]} has an entry that no product of this size can have"
        return ExamFinding(rows=found, fault=ExamFault.RANGE, row=indices[outside], detail=detail)
    wrong = (product != setup.rows(a_seed(setup.epoch, address, answer.gpu), indices)).any(axis=1)
    if wrong.any():
        index = indices[int(np.argmax(wrong))]
        detail = f"row {index} is not that of the product; {int(wrong.sum())} of {found} rows are wrong"
        return ExamFinding(rows=found, fault=ExamFault.PRODUCT_MISMATCH, row=index, detail=detail)
    return ExamFinding(rows=found)
