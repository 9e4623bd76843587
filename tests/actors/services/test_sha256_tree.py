"""The service sha256.tree: computing, committing, and judging a result."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.services.base import Accepted, Rejected, RejectionCode
from actors.services.sha256_tree import (
    HASH_BYTES,
    check_inputs,
    compute,
    memory_needed,
    result_sizes,
    verify,
)
from events.errors import BadInput
from events.merkle import inclusion_path, leaf_hash, root, root_of_hashes, verify_inclusion
from schemas.services import Sha256Tree

SEED = "5e" * 32


def made(folder: Path, size: int, chunk_bytes: int) -> tuple[Sha256Tree, dict[str, Path], bytes]:
    """A work over a random blob, and the blob."""
    data = np.random.default_rng(size).bytes(size)
    (folder / "blob").write_bytes(data)
    work = Sha256Tree(digest=sha256(data).hexdigest(), size=size, chunk_bytes=chunk_bytes)
    return work, {work.digest: folder / "blob"}, data


def hashes_of(data: bytes, chunk_bytes: int) -> list[bytes]:
    return [leaf_hash(data[at : at + chunk_bytes]) for at in range(0, len(data), chunk_bytes)]


@pytest.mark.parametrize(
    ("size", "chunk_bytes"),
    [(1, 1_024), (1_023, 1_024), (1_024, 1_024), (1_025, 1_024), (200_001, 1_024), (5_000, 1_048_576), (90_113, 2_048)],
)
def test_honest_results_are_accepted(tmp_path: Path, size: int, chunk_bytes: int) -> None:
    """The result is the leaf hashes, the root that of the tree over the chunks; it is accepted from file and memory."""
    work, blobs, data = made(tmp_path, size, chunk_bytes)
    check_inputs(work, blobs)
    said: list[tuple[int, int]] = []
    computed = compute(work, blobs, CpuBackend(2), tmp_path / "result", lambda done, total: said.append((done, total)))
    content = (tmp_path / "result").read_bytes()
    assert content == b"".join(hashes_of(data, chunk_bytes))
    assert computed.root == root(data[at : at + chunk_bytes] for at in range(0, size, chunk_bytes)).hex()
    assert computed.size in result_sizes(work)
    assert computed.size < memory_needed(work)
    assert said[-1][0] == said[-1][1] == len(said)
    for given in (tmp_path / "result", content):
        verdict = verify(work, blobs, given, computed.root, SEED)
        assert verdict == Accepted(error_bits=128, method="recomputed")


def test_a_chunk_can_be_shown_by_its_path(tmp_path: Path) -> None:
    """Whoever holds the result can prove a chunk of the blob to whoever knows the committed root."""
    work, blobs, data = made(tmp_path, 11 * 1_024 + 5, 1_024)
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result")
    leaves = hashes_of(data, 1_024)
    path = inclusion_path(leaves, 11)
    assert verify_inclusion(leaf_hash(data[11 * 1_024 :]), 11, 12, path, bytes.fromhex(computed.root))


@pytest.mark.parametrize("wrong", [0, 3, 250, 499])
def test_one_wrong_hash_is_found(tmp_path: Path, wrong: int) -> None:
    """A single wrong bit is found, with the chunk that has it."""
    work, blobs, data = made(tmp_path, 499 * 1_024 + 7, 1_024)
    hashes = hashes_of(data, 1_024)
    hashes[wrong] = bytes([hashes[wrong][0] ^ 1]) + hashes[wrong][1:]
    verdict = verify(work, blobs, b"".join(hashes), root_of_hashes(hashes).hex(), SEED)
    assert isinstance(verdict, Rejected)
    assert (verdict.code, verdict.row) == (RejectionCode.CHUNK_MISMATCH, wrong)


@pytest.mark.parametrize(
    "forge",
    [
        lambda h: hashes_of(b"".join(h), 64)[: len(h)],
        lambda h: [sha256(leaf).digest() for leaf in h],
        lambda h: h[1:] + h[:1],
        lambda h: [h[0]] * len(h),
        lambda h: [bytes(32)] * len(h),
    ],
    ids=["of other data", "hashed twice", "shifted", "one for all", "zeros"],
)
def test_forged_results_are_rejected(tmp_path: Path, forge: Any) -> None:
    """Made-up hashes with a root that fits them are rejected."""
    work, blobs, data = made(tmp_path, 100 * 1_024 + 1, 1_024)
    hashes = forge(hashes_of(data, 1_024))
    hashes += [bytes(32)] * (101 - len(hashes))
    verdict = verify(work, blobs, b"".join(hashes), root_of_hashes(hashes).hex(), SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.CHUNK_MISMATCH


def test_result_that_was_not_committed_is_rejected(tmp_path: Path) -> None:
    """A right result under another root, and a wrong one under the right root, are rejected by the root."""
    work, blobs, _ = made(tmp_path, 60 * 1_024, 1_024)
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result")
    content = bytearray((tmp_path / "result").read_bytes())
    verdict = verify(work, blobs, bytes(content), "00" * 32, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH
    content[-1] ^= 0x80
    verdict = verify(work, blobs, bytes(content), computed.root, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH


@pytest.mark.parametrize("change", [-HASH_BYTES, -1, 1, HASH_BYTES, 1 << 20])
def test_results_of_another_size_are_rejected(tmp_path: Path, change: int) -> None:
    """A result with bytes missing or to spare is malformed, from file and memory."""
    work, blobs, _ = made(tmp_path, 10 * 1_024, 1_024)
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result")
    content = (tmp_path / "result").read_bytes()
    content = content[:change] if change < 0 else content + bytes(change)
    (tmp_path / "changed").write_bytes(content)
    for given in (content, tmp_path / "changed"):
        verdict = verify(work, blobs, given, computed.root, SEED)
        assert isinstance(verdict, Rejected)
        assert verdict.code is RejectionCode.MALFORMED


@pytest.mark.parametrize("size", [0, 1_023, 1_025])
def test_blob_of_another_size_is_the_clients_fault(tmp_path: Path, size: int) -> None:
    """A blob that does not have the size of the work is a BadInput, for miner and verifier."""
    work, blobs, _ = made(tmp_path, 1_024, 1_024)
    (tmp_path / "blob").write_bytes(bytes(size))
    for call in (
        lambda: check_inputs(work, blobs),
        lambda: compute(work, blobs, CpuBackend(), tmp_path / "result"),
        lambda: verify(work, blobs, bytes(32), "00" * 32, SEED),
    ):
        with pytest.raises(BadInput, match=f"it has {size} bytes"):
            call()
