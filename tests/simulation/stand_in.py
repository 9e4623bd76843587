"""What takes the place of the computation: results of the right size that follow from the work by hashing.

The protocol around it is the real one: the miner's worker, its files and blobs, the examiner that fetches the result
and judges it. Here the judge recomputes the result.
"""

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Literal

from actors.sandbox import Finished, JobFailed, Limits, Outcome
from actors.sandbox_messages import RESULT_NAME, FailureCode
from actors.services.base import Accepted, Rejected, RejectionCode, Verdict
from actors.services.matmul import result_size
from actors.worker import Progressing
from events.canonical import canonical
from schemas.services import Work

Character = Literal["honest", "slow", "lying", "failing", "vanishing"]


def right_result(work: Work) -> bytes:
    """The bytes of the one right result."""
    seed, size = sha256(canonical(work)).digest(), result_size(work)
    return (seed * (size // len(seed) + 1))[:size]


def root_of(result: bytes) -> str:
    """What a miner commits to."""
    return sha256(b"root of " + result).hexdigest()


def verdict(work: Work, blobs: Mapping[str, Path], result: Path, root: str, seed: str) -> Verdict:
    """Recomputes the result and compares all of it."""
    found = result.read_bytes()
    if root_of(found) != root:
        return Rejected(code=RejectionCode.ROOT_MISMATCH, detail="the root is of another result")
    if found != right_result(work):
        return Rejected(code=RejectionCode.PRODUCT_MISMATCH, detail="the result is wrong")
    return Accepted(error_bits=64)


class StandInComputer:
    """Computes as its character is."""

    def __init__(self, character: Character, random: Random) -> None:
        self._character = character
        self._random = random

    async def run(
        self, work: Work, blobs: Mapping[str, Path], directory: Path, limits: Limits, progress: Progressing
    ) -> Outcome:
        """A result file in ``directory``, after a while."""
        slow = self._character == "slow" and self._random.random() < 0.7
        await asyncio.sleep(self._random.uniform(2, 8) if slow else self._random.uniform(0.01, 0.3))
        progress(1, 2)
        if self._character == "failing" and self._random.random() < 0.6:
            return JobFailed(code=FailureCode.CRASHED, detail="planned")
        if self._character == "vanishing" and self._random.random() < 0.5:
            await asyncio.sleep(3_600)
        result = right_result(work)
        root = root_of(result)
        if self._character == "lying":
            match self._random.randrange(4):
                case 0:
                    result = result[:-1] + bytes([result[-1] ^ 1])
                    root = root_of(result)
                case 1:
                    result, root = result[:-1], root_of(result[:-1])
                case 2:
                    root = root_of(b"something else")
        path = directory / RESULT_NAME
        path.write_bytes(result)
        digest = sha256(result).hexdigest()
        if self._character == "lying" and self._random.random() < 0.2:
            digest = sha256(b"another blob").hexdigest()
        return Finished(result=path, root=root, digest=digest, size=len(result))
