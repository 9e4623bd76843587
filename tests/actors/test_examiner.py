"""The verdicts: on inputs, and on results, whatever a client or a miner uploads; and what stays on disk."""

import asyncio
import pickle
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from actors.coordinator import InputsChecked, Judged
from actors.examiner import BlobExaminer
from actors.fetching import HostFault
from actors.services import matmul
from actors.services.matmul import result_size
from bus.simulated import SimulatedBus, SimulatedNetwork
from events import subjects
from events.errors import BlobUnavailable, BusError
from events.merkle import root
from schemas.services import BlobMatrix, MatmulInt8
from tests.actors.matrices import ALICE, MINER, blob_of, computed, job_of, npy_bytes, revealed, seeded
from tests.actors.town import ChosenFaults
from tests.actors.virtual_time import VirtualClock, run

CHAIN = "assay-small"
JOB, OTHER = "1" * 64, "2" * 64
MATRIX = np.arange(64, dtype=np.int8).reshape(8, 8)


class Ground:
    """An examiner on a simulated bus, and the blobs that clients and miners upload."""

    def __init__(self, directory: Path, kept_bytes: int = 2**30) -> None:
        self.directory = directory
        self.faults = ChosenFaults()
        self.network = SimulatedNetwork(VirtualClock(), self.faults)
        self.bus = SimulatedBus(self.network, CHAIN, name="client")
        self.jobs = directory / "jobs"
        examiners_bus = SimulatedBus(self.network, CHAIN, name="examiner")
        self.examiner = BlobExaminer(examiners_bus, self.jobs, self._hash, kept_bytes)

    async def _hash(self, height: int) -> str:
        return sha256(b"%d" % height).hexdigest()

    async def set_up(self) -> None:
        await self.bus.set_up("ab" * 32, ("VALIDATOR",))

    async def upload(self, owner: str, data: bytes) -> str:
        path = self.directory / "upload"
        path.write_bytes(data)
        return await self.bus.put_blob(owner, path)

    def upload_under_a_false_name(self, owner: str, digest: str, data: bytes) -> None:
        self.network.publish(subjects.blob(CHAIN, owner, digest), data)


GOOD = MatmulInt8(a=seeded(), b=seeded())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda path: npy_bytes(path, MATRIX), ""),
        (lambda path: b"", "BAD_INPUT"),
        (lambda path: b"garbage", "BAD_INPUT"),
        (lambda path: npy_bytes(path, MATRIX)[:-1], "BAD_INPUT"),
        (lambda path: npy_bytes(path, MATRIX) + b"x", "BAD_INPUT"),
        (lambda path: npy_bytes(path, MATRIX[:7]), "BAD_INPUT"),
        (lambda path: npy_bytes(path, MATRIX.astype(np.int32)), "BAD_INPUT"),
        (lambda path: npy_bytes(path, MATRIX).replace(b"|i1", b"|O8"), "BAD_INPUT"),
        (lambda path: pickle.dumps(MATRIX), "BAD_INPUT"),
    ],
    ids=["good", "empty", "garbage", "cut", "longer", "shape", "type", "objects", "pickle"],
)
def test_inputs(tmp_path: Path, bad: Callable[[Path], bytes], reason: str) -> None:
    """Nothing but the matrix that the work describes is usable; nothing in a file is ever evaluated."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        data = bad(tmp_path)
        await ground.upload(ALICE, data)
        job = job_of(MatmulInt8(a=blob_of(data), b=seeded()))
        assert await ground.examiner.check_inputs(JOB, job) == InputsChecked(JOB, reason)

    run(scenario)


def test_inputs_are_read_in_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture can take seconds to read; the loop goes on meanwhile."""
    threads: list[threading.Thread] = []
    monkeypatch.setattr(matmul, "check_inputs", lambda work, blobs: threads.append(threading.current_thread()))

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        assert await ground.examiner.check_inputs(JOB, job_of(GOOD)) == InputsChecked(JOB)

    run(scenario)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_inputs_that_are_not_there_or_not_what_they_are_called(tmp_path: Path) -> None:
    """The first is said to be unavailable, after a while; the second is bad."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        job = job_of(MatmulInt8(a=seeded(), b=blob_of(b"never uploaded")))
        with pytest.raises(BlobUnavailable):
            await ground.examiner.check_inputs(JOB, job)
        ground.upload_under_a_false_name(ALICE, sha256(b"never uploaded").hexdigest(), b"something else")
        assert await ground.examiner.check_inputs(JOB, job) == InputsChecked(JOB, "BAD_INPUT")

    run(scenario)


def test_a_blob_that_comes_late_comes(tmp_path: Path) -> None:
    """Who submits first and uploads then has some time for it."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        data = npy_bytes(tmp_path, MATRIX)
        checking = asyncio.create_task(
            ground.examiner.check_inputs(JOB, job_of(MatmulInt8(a=blob_of(data), b=seeded())))
        )
        await asyncio.sleep(15)
        await ground.upload(ALICE, data)
        assert await checking == InputsChecked(JOB)

    run(scenario)


def test_nobody_is_blamed_for_a_server_that_is_away(tmp_path: Path) -> None:
    """Neither for inputs nor for a result: there is no verdict until the server is back."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        data = npy_bytes(tmp_path, MATRIX)
        await ground.upload(ALICE, data)
        job = job_of(MatmulInt8(a=blob_of(data), b=seeded()))
        right = computed(GOOD, {}, tmp_path / "right.npy")
        await ground.upload(MINER, (tmp_path / "right.npy").read_bytes())
        done = revealed(GOOD, right.root, right.digest, right.size)

        missing = job_of(MatmulInt8(a=blob_of(b"comes later"), b=seeded()))
        for begins_ms, effect in (
            (0, ground.examiner.check_inputs(JOB, job)),
            (0, ground.examiner.judge(OTHER, done)),
            (1, ground.examiner.check_inputs(JOB, missing)),
        ):
            asyncio.get_running_loop().call_later(begins_ms / 1_000, ground.faults.cut.add, "examiner")
            await asyncio.sleep(0)
            with pytest.raises(BusError) as raised:
                await effect
            assert not isinstance(raised.value, BlobUnavailable)
            ground.faults.cut.clear()
        assert await ground.examiner.check_inputs(JOB, job) == InputsChecked(JOB)
        assert await ground.examiner.judge(OTHER, done) == Judged(OTHER, MINER, right.root)

    run(scenario)


def _wrong_entry(data: bytes) -> bytes:
    return data[:-4] + bytes([data[-4] ^ 1]) + data[-3:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data, ""),
        (lambda data: data[:6] + b"\x02\x00\x80\x00\x00\x00" + data[10:127] + b" " * 10 + data[127:], ""),
        (_wrong_entry, "RESULT_WRONG"),
        (lambda data: data[:-4] + b"\xff\xff\xff\x7f", "RESULT_WRONG"),
        (lambda data: data[:128] + bytes(len(data) - 128), "RESULT_WRONG"),
        (lambda data: b"x" * len(data), "RESULT_MALFORMED"),
        (lambda data: data.replace(b"<i4", b"<f4"), "RESULT_MALFORMED"),
        (lambda data: data.replace(b"(8, 8)", b"(4,16)"), "RESULT_MALFORMED"),
        (lambda data: data[:-1], "RESULT_MALFORMED"),
    ],
    ids=["right", "another header", "one entry", "out of range", "zeros", "garbage", "type", "shape", "size"],
)
def test_results(tmp_path: Path, change: Callable[[bytes], bytes], reason: str) -> None:
    """A result that was committed to honestly, in every way in which it can be wrong."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        right = computed(GOOD, {}, tmp_path / "right.npy")
        data = change((tmp_path / "right.npy").read_bytes())
        said = _root_of(data) if reason == "RESULT_WRONG" else right.root
        digest = await ground.upload(MINER, data)
        judged = await ground.examiner.judge(JOB, revealed(GOOD, said, digest, len(data)))
        assert judged == Judged(JOB, MINER, said, reason)

    run(scenario)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_result_of_another_size_than_committed(tmp_path: Path, more: int) -> None:
    """The size that the ledger keeps is that of the blob."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        right = computed(GOOD, {}, tmp_path / "right.npy")
        await ground.upload(MINER, (tmp_path / "right.npy").read_bytes())
        judged = await ground.examiner.judge(JOB, revealed(GOOD, right.root, right.digest, right.size + more))
        assert judged.reason == "RESULT_MALFORMED"

    run(scenario)


def _root_of(data: bytes) -> str:
    """What a liar would commit to, so that only the product itself gives it away."""
    rows = np.frombuffer(data[128:], dtype="<i4").reshape(8, 8)
    return root([row.tobytes() for row in rows]).hex()


def test_a_root_that_is_not_that_of_the_rows(tmp_path: Path) -> None:
    """A right product under a wrong root is wrong: the root is what the challenge binds."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        right = computed(GOOD, {}, tmp_path / "right.npy")
        digest = await ground.upload(MINER, (tmp_path / "right.npy").read_bytes())
        judged = await ground.examiner.judge(JOB, revealed(GOOD, "0" * 64, digest, right.size))
        assert judged.reason == "RESULT_WRONG"

    run(scenario)


def test_a_result_that_never_comes_and_one_of_a_wrong_size(tmp_path: Path) -> None:
    """The first is unavailable after a while; the second is not even fetched."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        nothing = revealed(GOOD, "0" * 64, "1" * 64, result_size(GOOD))
        assert (await ground.examiner.judge(JOB, nothing)).reason == "RESULT_UNAVAILABLE"
        before = asyncio.get_running_loop().time()
        for size in (7, 10**12):
            impossible = revealed(GOOD, "0" * 64, "1" * 64, size)
            assert (await ground.examiner.judge(JOB, impossible)).reason == "RESULT_MALFORMED"
        assert asyncio.get_running_loop().time() == before

    run(scenario)


def test_files_go_with_the_job_and_a_start_sweeps_what_a_crash_has_left(tmp_path: Path) -> None:
    """Only what belongs to unfinished jobs stays."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.examiner.sweep(frozenset())
        for name in (JOB, OTHER):
            (ground.jobs / name).mkdir(parents=True)
            (ground.jobs / name / "blob").write_bytes(b"x")
        await ground.examiner.sweep(frozenset([JOB]))
        assert [folder.name for folder in ground.jobs.iterdir()] == [JOB]
        await ground.examiner.forget(JOB)
        await ground.examiner.forget(JOB)
        assert list(ground.jobs.iterdir()) == []

    run(scenario)


def test_the_disk_that_waiting_jobs_take_is_bounded(tmp_path: Path) -> None:
    """The files of jobs left alone the longest make room, and are fetched again when they are needed."""

    async def scenario() -> None:
        ground = Ground(tmp_path, kept_bytes=2_000)
        await ground.set_up()
        jobs = []
        for number in range(30):
            data = npy_bytes(tmp_path, np.full((8, 8), number, dtype=np.int8))
            await ground.upload(ALICE, data)
            jobs.append((f"{number:064x}", job_of(MatmulInt8(a=blob_of(data), b=seeded()))))
            assert await ground.examiner.check_inputs(*jobs[-1]) == InputsChecked(jobs[-1][0])
            held = sum(file.stat().st_size for file in ground.jobs.rglob("*") if file.is_file())
            assert held <= 2_000 + 256
        assert await ground.examiner.check_inputs(*jobs[0]) == InputsChecked(jobs[0][0])

    run(scenario)


def test_a_disk_that_fails_is_this_hosts_fault(tmp_path: Path) -> None:
    """The effect fails with a typed error; neither the job nor the miner is blamed, and the process lives."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        ground.jobs.write_bytes(b"a file where a directory should be")
        matrix = BlobMatrix(rows=8, columns=8, digest="1" * 64)
        with pytest.raises(HostFault):
            await ground.examiner.check_inputs(JOB, job_of(MatmulInt8(a=matrix, b=seeded())))

    run(scenario)
