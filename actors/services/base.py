"""What every service is: a way to compute, a commitment, and a way to check the result."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct

from actors.backends.base import Backend, Progress, no_progress
from schemas.values import Digest

# How a result is checked: all of it by a randomised identity, all of it by doing the work again, by order and multiset,
# a random sample of its chunks by doing those again, or nothing but its form.
Method: TypeAlias = Literal["freivalds", "recomputed", "permutation", "sampled", "unverified"]


class RejectionCode(StrEnum):
    """What is wrong with a result."""

    MALFORMED = "MALFORMED"
    TYPE = "TYPE"
    SHAPE = "SHAPE"
    ROOT_MISMATCH = "ROOT_MISMATCH"
    RANGE = "RANGE"
    PRODUCT_MISMATCH = "PRODUCT_MISMATCH"
    CHUNK_MISMATCH = "CHUNK_MISMATCH"
    ORDER = "ORDER"
    NOT_A_PERMUTATION = "NOT_A_PERMUTATION"


class Accepted(Struct, frozen=True, kw_only=True, tag="accepted", tag_field="verdict", omit_defaults=True):
    """The result has passed.

    A wrong one passes with a probability of at most 2 to the minus ``error_bits``; where ``method`` is sampled,
    ``error_bits`` is 0, and one with a share p of wrong chunks passes with at most (1 - p) to the ``samples``, of
    ``chunks`` in all. Of what is unverified any bytes pass.
    """

    error_bits: int
    method: Method = "freivalds"
    samples: int = 0
    chunks: int = 0


class Rejected(Struct, frozen=True, kw_only=True, tag="rejected", tag_field="verdict", omit_defaults=True):
    """The result is wrong: why, the first wrong row (chunk) where rows were compared, and a sentence for people."""

    code: RejectionCode
    detail: str
    row: int | None = None


Verdict: TypeAlias = Accepted | Rejected


class Computed(Struct, frozen=True, kw_only=True):
    """What a miner commits to: the root over the rows or chunks, the digest of the result's file, and its bytes."""

    root: Digest
    digest: Digest
    size: int


class Service(Protocol):
    """One service. A module of `actors.services` is one; ``work`` is of the record that `actors.services.registry`
    has it under."""

    # What the name of a result's file ends in: npy, png, bin.
    SUFFIX: str

    def result_sizes(self, work: Any) -> range:
        """Bytes that a file which `verify` reads can have."""

    def memory_needed(self, work: Any, threads: int = 1) -> int:
        """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""

    def check_inputs(self, work: Any, blobs: Mapping[Digest, Path]) -> None:
        """Raises `BadInput` when a blob is not what the work says. Reads all of the blobs; computes nothing."""

    def compute(
        self,
        work: Any,
        blobs: Mapping[Digest, Path],
        backend: Backend,
        result: Path,
        progress: Progress = no_progress,
        threads: int = 1,
    ) -> Computed:
        """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""

    def verify(
        self,
        work: Any,
        blobs: Mapping[Digest, Path],
        result: Path | bytes,
        root: Digest,
        seed: Digest,
        threads: int = 0,
    ) -> Verdict:
        """Check the whole file: its form, its root, and its content with the challenge of ``seed``.

        ``seed`` must have been unknown when ``root`` was committed. ``threads`` 0 takes what suits the machine. The
        verdict depends on the arguments alone. Raises `BadInput` when a blob is not what the work says: the result can
        then not be judged.
        """
