"""What miners may do that have a job and do not mean to do it, and the reason that goes on record for it."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.services.npy import header_bytes
from events.receipts import sign_receipt
from projections.receipts import receipt_of
from schemas import refusals
from schemas.blocks import Applied, Failed
from schemas.events import (
    JobCommitted,
    JobFailed,
    JobRevealed,
)
from schemas.values import MAX_SAFE_INTEGER
from tests.end_to_end.bad_files import Booby
from tests.end_to_end.client import seeded_work
from tests.end_to_end.strangers import (
    NO_SIGNATURE,
    NOBODY,
    Ground,
    Liar,
    product_of,
    root_of,
    written,
)

WORK = seeded_work(7)
PRODUCT = product_of(WORK)
# How a liar goes on once it has the job. Returns when it has done all that it will do.
Lie = Callable[[Ground, Liar, str, Path], Any]


async def deliver(ground: Ground, liar: Liar, job: str, data: bytes, root: str, path: Path) -> None:
    """Uploads these bytes as the result, commits to them, reveals."""
    path.write_bytes(data)
    digest = await ground.bus.put_blob(liar.address, path)
    height = await liar.commit(job, root, digest, len(data))
    assert isinstance(await liar.reveal(job, height), Applied)


async def wrong_in_one_entry(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    wrong = PRODUCT.copy()
    wrong[3, 5] += 1
    await deliver(ground, liar, job, written(path.with_suffix(".1"), wrong).read_bytes(), root_of(wrong), path)


async def another_root(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    await deliver(ground, liar, job, written(path.with_suffix(".1"), PRODUCT).read_bytes(), "ab" * 32, path)


async def out_of_range(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    wrong = PRODUCT.copy()
    wrong[0, 0] = 2**31 - 1
    await deliver(ground, liar, job, written(path.with_suffix(".1"), wrong).read_bytes(), root_of(wrong), path)


async def another_type(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    data = written(path.with_suffix(".1"), PRODUCT).read_bytes().replace(b"<i4", b"<f4")
    await deliver(ground, liar, job, data, root_of(PRODUCT), path)


async def another_shape(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    data = header_bytes("int32", 8, 32) + PRODUCT.tobytes()
    await deliver(ground, liar, job, data, root_of(PRODUCT), path)


async def pickled(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    trap = pickle.dumps(Booby(path.parent / "trap"))
    size = len(written(path.with_suffix(".1"), PRODUCT).read_bytes())
    await deliver(ground, liar, job, trap.ljust(size, b"\0"), root_of(PRODUCT), path)


async def another_size(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    height = await liar.commit(job, root_of(PRODUCT), "cd" * 32, 7)
    assert isinstance(await liar.reveal(job, height), Applied)


async def a_size_of_petabytes(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    height = await liar.commit(job, root_of(PRODUCT), "cd" * 32, MAX_SAFE_INTEGER)
    assert isinstance(await liar.reveal(job, height), Applied)


async def never_revealed(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    await liar.commit(job, root_of(PRODUCT), "cd" * 32, 7)


async def revealed_with_a_bad_signature(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    height = await liar.commit(job, root_of(PRODUCT), "cd" * 32, 7)
    receipt = receipt_of(job, await liar.job_at(job, height), ground.chain)
    outcome = await liar.say(JobRevealed, job=job, receipt_sig=sign_receipt(receipt, NOBODY))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.refusal, refusals.BadReceiptSignature)


async def revealed_before_it_was_committed(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    outcome = await liar.say(JobRevealed, job=job, receipt_sig=NO_SIGNATURE)
    assert isinstance(outcome, Failed)
    assert outcome.refusal == refusals.WrongSituation(job=job, situation="assigned")
    await liar.say(JobFailed, job=job, miner=liar.address, reason="CAUGHT")


async def committed_twice(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    await liar.commit(job, root_of(PRODUCT), "cd" * 32, 7)
    outcome = await liar.say(JobCommitted, job=job, root=root_of(PRODUCT), result="ef" * 32, size=8)
    assert isinstance(outcome, Failed)
    assert outcome.refusal == refusals.WrongSituation(job=job, situation="committed")


async def given_up(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    assert isinstance(await liar.say(JobFailed, job=job, miner=liar.address, reason="MINER_FAILED"), Applied)


async def nothing_at_all(ground: Ground, liar: Liar, job: str, path: Path) -> None:
    return None


LIES: dict[str, tuple[Lie, str]] = {
    "wrong in one entry": (wrong_in_one_entry, "RESULT_WRONG"),
    "a root of something else": (another_root, "RESULT_WRONG"),
    "an entry out of range": (out_of_range, "RESULT_WRONG"),
    "of another type": (another_type, "RESULT_MALFORMED"),
    "of another shape": (another_shape, "RESULT_MALFORMED"),
    "a pickle": (pickled, "RESULT_MALFORMED"),
    "of another size": (another_size, "RESULT_MALFORMED"),
    "of nine petabytes": (a_size_of_petabytes, "RESULT_MALFORMED"),
    "committed and never revealed": (never_revealed, "RESULT_NOT_REVEALED"),
    "revealed with a bad signature": (revealed_with_a_bad_signature, "RESULT_NOT_REVEALED"),
    "revealed before it is committed": (revealed_before_it_was_committed, "CAUGHT"),
    "committed twice": (committed_twice, "RESULT_NOT_REVEALED"),
    "given up": (given_up, "MINER_FAILED"),
    "never": (nothing_at_all, "DEADLINE_MISSED"),
}
