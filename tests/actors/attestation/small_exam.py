"""A small exam, and ways to answer it: honestly, and in every way that we know to cheat."""

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from typing import TypeAlias

import msgspec
import numpy as np

from actors.attestation.exam import BackendExaminee, Sitting, a_seed, b_seed
from actors.attestation.exam_check import ExamFinding, ExamSetup, check_opening
from actors.attestation.fill import Fill, HostMemory, fill_seed
from actors.attestation.judge import Exam, Submission
from actors.backends.base import Int32Array
from actors.backends.cpu import CpuBackend
from actors.services.generator import seeded_matrix, seeded_rows
from actors.services.matmul import row_hashes
from events.merkle import root_of_hashes
from schemas.attestation import ExamAnswer, ExamShape

EPOCH = sha256(b"epoch").hexdigest()
CHALLENGE = sha256(b"challenge").hexdigest()
MINER = "U" + "A" * 55
UUID = "GPU-0a1b2c3d-0000-4000-8000-000000000001"
SHAPE = ExamShape(inner=1_200, columns=48, min_rows=64)
ROWS = 200
EXAM = Exam(id=sha256(b"exam").hexdigest(), seed=EPOCH, shape=SHAPE, challenge=CHALLENGE)

# What a cheat does with the right rows of C, given the index of the first.
Change: TypeAlias = Callable[[Int32Array, int], Int32Array]


@cache
def setup(epoch: str = EPOCH) -> ExamSetup:
    return ExamSetup(epoch, SHAPE.inner, SHAPE.columns)


@cache
def b_matrix(epoch: str = EPOCH) -> np.ndarray:
    return seeded_matrix(b_seed(epoch), SHAPE.inner, SHAPE.columns)


class Cheat:
    """Sits the exam with rows of its own."""

    segment = 64

    def __init__(self, change: Change, a: str | None = None) -> None:
        self._change = change
        self._a = a or a_seed(EPOCH, MINER, UUID)

    def leaves(self, first: int, count: int) -> Sequence[bytes]:
        return row_hashes(self._made(first, count))

    def root(self, first: int, count: int) -> bytes:
        return root_of_hashes(self.leaves(first, count))

    def rows(self, indices: Sequence[int]) -> Int32Array:
        return np.concatenate([self._made(index, 1) for index in indices])

    def _made(self, first: int, count: int) -> Int32Array:
        a = seeded_rows(self._a, first, count, SHAPE.inner).astype(np.int64)
        right = (a @ b_matrix().astype(np.int64)).astype(np.int32)
        return self._change(right, first)


def honest_sitting(rows: int = ROWS, epoch: str = EPOCH, miner: str = MINER, uuid: str = UUID) -> Sitting:
    return Sitting(
        BackendExaminee(CpuBackend(), SHAPE, b_seed(epoch), a_seed(epoch, miner, uuid)), rows=rows, segment=64
    )


def submission(sitting: Sitting, rows: int = ROWS, uuid: str = UUID, challenge: str = CHALLENGE) -> Submission:
    """The answer and its opening."""
    return Submission(answer=ExamAnswer(gpu=uuid, rows=rows, root=sitting.work()), opening=sitting.open(challenge))


def filled(given: Submission, memory_mib: int) -> Submission:
    """With so much memory filled beside it."""
    fill = Fill(HostMemory(fill_seed(EPOCH, MINER, given.answer.gpu), memory_mib), memory_mib)
    answer = msgspec.structs.replace(given.answer, memory_mib=memory_mib, memory_root=fill.work())
    return msgspec.structs.replace(given, answer=answer, fill_opening=fill.open(CHALLENGE))


def cheated(change: Change, rows: int = ROWS) -> Submission:
    return submission(Sitting(Cheat(change), rows, 64), rows)


def finding(given: Submission, miner: str = MINER, challenge: str = CHALLENGE) -> ExamFinding:
    assert given.opening is not None
    return check_opening(setup(), SHAPE, miner, given.answer, challenge, given.opening)


def bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to nearest, ties to even, to a float with 8 significant bits."""
    return _rounded(values, 16)


def tf32(values: np.ndarray) -> np.ndarray:
    """Rounded to a float with 11 significant bits."""
    return _rounded(values, 13)


def _rounded(values: np.ndarray, dropped: int) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    half = np.uint64((1 << (dropped - 1)) - 1) + ((bits >> np.uint64(dropped)) & np.uint64(1))
    kept = (bits + half) & np.uint64(0xFFFFFFFF & ~((1 << dropped) - 1))
    return kept.astype(np.uint32).view(np.float32)


def hankel_rows(seed: str, first: int, count: int, columns: int) -> np.ndarray:
    """What a generator keyed by i + j would give: row i is a window of one long row."""
    line = seeded_rows(seed, 0, 1, columns + first + count)[0]
    return np.stack([line[row : row + columns] for row in range(first, first + count)])


# Ways to cheat that must be found in the rows themselves, each with the fault that finds it.
def _hankel(right: Int32Array, first: int) -> Int32Array:
    """The product of the matrix that a generator of i + j would have made: cheap, for its rows overlap."""
    a = hankel_rows(a_seed(EPOCH, MINER, UUID), first, len(right), SHAPE.inner)
    return (a.astype(np.int64) @ b_matrix().astype(np.int64)).astype(np.int32)


def _rank_one(right: Int32Array, first: int) -> Int32Array:
    """A multiple of one row for each row."""
    base = b_matrix()[0].astype(np.int32)
    return np.stack([base * (int(row[0]) // max(1, abs(int(base[0])))) for row in right]).astype(np.int32)


def _bf16_result(right: Int32Array, first: int) -> Int32Array:
    return bf16(right).astype(np.int32)


def _tf32_result(right: Int32Array, first: int) -> Int32Array:
    return tf32(right).astype(np.int32)


def _four_bit_inputs(right: Int32Array, first: int) -> Int32Array:
    """The operands rounded to four bits, as a faster format would."""
    a = seeded_rows(a_seed(EPOCH, MINER, UUID), first, len(right), SHAPE.inner).astype(np.int64)
    return ((a // 16 * 16) @ (b_matrix().astype(np.int64) // 16 * 16)).astype(np.int32)


def _half_accumulator(right: Int32Array, first: int) -> Int32Array:
    """Sums kept in bf16 after every 64 products."""
    a = seeded_rows(a_seed(EPOCH, MINER, UUID), first, len(right), SHAPE.inner).astype(np.float32)
    b = b_matrix().astype(np.float32)
    total = np.zeros(right.shape, dtype=np.float32)
    for start in range(0, SHAPE.inner, 64):
        total = bf16(total + a[:, start : start + 64] @ b[start : start + 64])
    return total.astype(np.int32)


def _modulus(right: Int32Array, first: int) -> Int32Array:
    """One entry of each row off by 2**31: invisible to a check modulo 2**32 with even numbers."""
    changed = right.copy()
    changed[:, 3] = (changed[:, 3].astype(np.int64) ^ 0x80000000).astype(np.uint32).view(np.int32)
    return changed


def _overflow(right: Int32Array, first: int) -> Int32Array:
    """Entries that no such product can have."""
    changed = right.copy()
    changed[:, 0] = 2**31 - 1
    return changed


def _one_bit(right: Int32Array, first: int) -> Int32Array:
    changed = right.copy()
    changed[:, -1] ^= 1
    return changed


def _zeros(right: Int32Array, first: int) -> Int32Array:
    return np.zeros_like(right)


FORGERIES: dict[str, Change] = {
    "Hankel forgery": _hankel,
    "rank-1 product": _rank_one,
    "bf16 where int8 is claimed": _bf16_result,
    "tf32 where int8 is claimed": _tf32_result,
    "four-bit operands": _four_bit_inputs,
    "bf16 accumulator": _half_accumulator,
    "error of 2**31": _modulus,
    "range overflow": _overflow,
    "one bit in each row": _one_bit,
    "zeros": _zeros,
}


def lazy(share: float) -> Change:
    """Does not compute a share of the rows."""

    def skip(right: Int32Array, first: int) -> Int32Array:
        changed = right.copy()
        for place in range(len(right)):
            if sha256(f"{first + place}".encode()).digest()[0] < 256 * share:
                changed[place] = 0
        return changed

    return skip
