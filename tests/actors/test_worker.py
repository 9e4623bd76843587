"""The miner's effects: what nodes answer, what clients upload, and what the sandbox makes of it."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors.fetching import HostFault
from actors.miner import Computed, Delivered, Described, Impossible, LookedUp, Registration
from actors.sandbox import Finished, JobFailed, Limits, Outcome, Sandbox
from actors.sandbox_messages import RESULT_NAME, FailureCode
from actors.worker import SandboxWorker
from bus.simulated import SimulatedBus, SimulatedNetwork
from events.canonical import canonical
from events.errors import BlobMismatch, BusError, TimedOut, Unreachable
from schemas.events import Device, Offer
from schemas.messages import Problem, Progress, QueryAnswer, QueryRefused
from schemas.queries import MinerEntry
from schemas.services import Mandelbrot, MatmulInt8
from schemas.state import Job, Miner
from tests.actors.matrices import ALICE, MINER, blob_of, computed, job_of, npy_bytes, seeded
from tests.actors.town import ChosenFaults
from tests.actors.virtual_time import VirtualClock, run

CHAIN = "assay-small"
JOB, OTHER = "1" * 64, "2" * 64
GOOD = MatmulInt8(a=seeded(), b=seeded())
REGISTRATION = Registration(
    name="a miner",
    capacity=2,
    devices=(Device(model="H200", memory_mib=144_384),),
    offers=(Offer(service="matmul.int8", unit_price=100),),
)
MATRIX = np.arange(64, dtype=np.int8).reshape(8, 8)


class InProcess:
    """A sandbox without walls, whose job says of its steps what it likes; or one that fails."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome
        self.limits: list[Limits] = []

    async def run(
        self, work: MatmulInt8, blobs: Mapping[str, Path], directory: Path, limits: Limits, progress: Callable
    ) -> Outcome:
        self.limits.append(limits)
        for done in range(8):
            progress(done, 8)
        progress(2**53, 0)
        progress(2**53, 1)
        if self.outcome is not None:
            return self.outcome
        result = computed(work, dict(blobs), directory / RESULT_NAME)
        return Finished(result=directory / RESULT_NAME, root=result.root, digest=result.digest, size=result.size)


class Ground:
    """A worker on a simulated bus, with nodes that answer what the test wants."""

    def __init__(self, directory: Path, outcome: Outcome | None = None) -> None:
        self.directory = directory
        self.faults = ChosenFaults()
        clock = VirtualClock()
        self.network = SimulatedNetwork(clock, self.faults)
        self.bus = SimulatedBus(self.network, CHAIN, name="client")
        self.sandbox = InProcess(outcome)
        self.jobs = directory / "jobs"
        bus = SimulatedBus(self.network, CHAIN, name="miner")
        self.worker = SandboxWorker(bus, clock, self.sandbox, MINER, self.jobs, 2**30, threads=3)

    async def set_up(self) -> None:
        await self.bus.set_up("ab" * 32, ("VALIDATOR",))

    async def upload(self, data: bytes) -> None:
        path = self.directory / "upload"
        path.write_bytes(data)
        await self.bus.put_blob(ALICE, path)

    async def answer(self, *answers: bytes) -> None:
        """The nodes' answers, one after the other; the last one for ever."""
        left = list(answers)

        async def handle(data: bytes) -> bytes:
            assert msgspec.json.decode(data) in ({"job": JOB, "min_height": 7}, {"miner": MINER, "min_height": 7})
            return left.pop(0) if len(left) > 1 else left[0]

        await self.bus.serve_queries({"job": handle, "miner": handle}, "1")


def _found(job: Job, height: int = 7) -> bytes:
    return canonical(QueryAnswer(height=height, value=msgspec.Raw(canonical({"job": job, "more": 1}))))


def _refused(height: int) -> bytes:
    problem = Problem(code="NOT_FOUND", detail="no such job", hint="")
    return canonical(QueryRefused(height=height, problem=problem))


@pytest.mark.parametrize(
    "answers",
    [
        [_found(job_of(GOOD))],
        [_found(job_of(GOOD), 8)],
        [_refused(3), _refused(6), _found(job_of(GOOD), 6), _found(job_of(GOOD))],
    ],
)
def test_a_node_describes_the_job(tmp_path: Path, answers: list[bytes]) -> None:
    """The first that has reached the block of the assignment is believed; others are asked again."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        await ground.answer(*answers)
        assert await ground.worker.describe(JOB, 7) == Described(JOB, job_of(GOOD))

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_refused(7), Unreachable),
        (b"garbage", Unreachable),
        (b"", Unreachable),
        (b'{"answer":"found","height":7,"value":{"job":1}}', Unreachable),
        (_found(job_of(GOOD), 6), TimedOut),
    ],
)
def test_a_node_that_does_not_know_or_talks_nonsense(tmp_path: Path, answer: bytes, error: type[Exception]) -> None:
    """A typed error, which is tried again: no answer ends the miner."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        await ground.answer(answer)
        with pytest.raises(error):
            await ground.worker.describe(JOB, 7)
        with pytest.raises(error):
            await ground.worker.look_up(7)

    run(scenario)


def _entry(height: int = 7) -> bytes:
    miner = Miner(**msgspec.structs.asdict(REGISTRATION), registered_ms=1, settled=3)
    return canonical(QueryAnswer(height=height, value=msgspec.Raw(canonical(MinerEntry(address=MINER, miner=miner)))))


@pytest.mark.parametrize("answers", [[_entry()], [_refused(3), _entry(6), _entry(8)]])
def test_a_node_knows_the_registration(tmp_path: Path, answers: list[bytes]) -> None:
    """What stands in the ledger of this miner, without what was counted since."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        await ground.answer(*answers)
        assert await ground.worker.look_up(7) == LookedUp(REGISTRATION)

    run(scenario)


def test_without_nodes_there_is_no_description(tmp_path: Path) -> None:
    """Nobody answers at all."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        with pytest.raises(Unreachable):
            await ground.worker.describe(JOB, 7)

    run(scenario)


def test_work_is_computed_within_its_limits_and_delivered(tmp_path: Path) -> None:
    """The blobs are fetched, the result is committed to and uploaded; progress is told, but not all of it."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        data = npy_bytes(tmp_path, MATRIX)
        await ground.upload(data)
        listener = ground.bus.listen_live(MINER, "progress")
        work = MatmulInt8(a=blob_of(data), b=seeded())
        job = job_of(work, timeout_ms=1_234)
        done = await ground.worker.compute(JOB, job)
        assert isinstance(done, Computed)
        (limits,) = ground.sandbox.limits
        assert (limits.wall_ms, limits.memory_bytes, limits.threads) == (1_234, 2**30, 3)
        await asyncio.sleep(0)
        assert msgspec.json.decode((await anext(listener)).data)["job"] == JOB
        assert len(listener._kept) == 0
        assert await ground.worker.deliver(JOB, done.digest) == Delivered(JOB)
        await ground.bus.get_blob(MINER, done.digest, tmp_path / "fetched", 1_000)
        assert (tmp_path / "fetched").stat().st_size == done.size
        await ground.worker.forget(JOB)
        assert list(ground.jobs.iterdir()) == []

    run(scenario)


def test_what_an_earlier_try_has_left_is_not_written_through(tmp_path: Path) -> None:
    """A job starts in an empty folder of the miner's own: a link that a hostile one has left leads nowhere."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        data = npy_bytes(tmp_path, MATRIX)
        await ground.upload(data)
        place, victim = ground.jobs / JOB, tmp_path / "victim"
        (place / "folder").mkdir(parents=True)
        blob = blob_of(data)
        for name in (blob.digest, RESULT_NAME):
            (place / name).symlink_to(victim)
        assert isinstance(await ground.worker.compute(JOB, job_of(MatmulInt8(a=blob, b=seeded()))), Computed)
        assert not victim.exists()
        assert sorted(path.name for path in place.iterdir()) == sorted((blob.digest, RESULT_NAME))
        assert place.stat().st_mode & 0o777 == 0o700

    run(scenario)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (FailureCode.BAD_INPUT, "BAD_INPUT"),
        (FailureCode.TIMEOUT, "MINER_FAILED"),
        (FailureCode.CRASHED, "MINER_FAILED"),
        (FailureCode.OUTPUT_TOO_LARGE, "MINER_FAILED"),
    ],
)
def test_a_job_that_fails_in_the_sandbox(tmp_path: Path, code: FailureCode, reason: str) -> None:
    """The client's fault and the miner's are told apart."""

    async def scenario() -> None:
        ground = Ground(tmp_path, JobFailed(code=code, detail="…"))
        await ground.set_up()
        assert await ground.worker.compute(JOB, job_of(GOOD)) == Impossible(JOB, reason)

    run(scenario)


def test_inputs_that_are_missing_or_false(tmp_path: Path) -> None:
    """The job is given up with the reason; but not because the server was away."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        job = job_of(MatmulInt8(a=blob_of(b"missing"), b=seeded()))
        assert await ground.worker.compute(JOB, job) == Impossible(JOB, "BLOB_UNAVAILABLE")
        ground.network.publish(f"assay.{CHAIN}.blob.{ALICE}.{blob_of(b'missing').digest}", b"false")
        assert await ground.worker.compute(JOB, job) == Impossible(JOB, "BAD_INPUT")
        ground.faults.cut.add("miner")
        with pytest.raises(BusError):
            await ground.worker.compute(JOB, job)

    run(scenario)


def test_a_result_that_has_changed_or_gone_is_not_delivered(tmp_path: Path) -> None:
    """A typed error; nothing false is uploaded under the committed name."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        done = await ground.worker.compute(JOB, job_of(GOOD))
        assert isinstance(done, Computed)
        (ground.jobs / JOB / RESULT_NAME).write_bytes(b"changed")
        with pytest.raises(BlobMismatch):
            await ground.worker.deliver(JOB, done.digest)
        await ground.worker.forget(JOB)
        with pytest.raises(Exception, match="cannot be read"):
            await ground.worker.deliver(JOB, done.digest)

    run(scenario)


def test_a_start_sweeps_what_a_crash_has_left(tmp_path: Path) -> None:
    """Folders of jobs that are no tasks any more go."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.worker.sweep(frozenset())
        for name in (JOB, OTHER):
            (ground.jobs / name).mkdir(parents=True)
        await ground.worker.sweep(frozenset([JOB]))
        assert [folder.name for folder in ground.jobs.iterdir()] == [JOB]

    run(scenario)


def test_a_disk_that_fails_is_this_hosts_fault(tmp_path: Path) -> None:
    """A typed error: the miner gives the job up and lives."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        ground.jobs.write_bytes(b"a file where a directory should be")
        with pytest.raises(HostFault):
            await ground.worker.compute(JOB, job_of(GOOD))

    run(scenario)


async def test_the_real_sandbox_computes_the_same_and_is_killed_when_the_job_ends(tmp_path: Path) -> None:
    """The product is the reference's; work that is cancelled frees its place for the next."""
    network = SimulatedNetwork(VirtualClock())
    bus = SimulatedBus(network, CHAIN)
    await bus.set_up("ab" * 32, ("VALIDATOR",))
    async with Sandbox(1) as sandbox:
        worker = SandboxWorker(bus, VirtualClock(), sandbox, MINER, tmp_path / "jobs", 2**30)
        long = MatmulInt8(a=seeded(4_096, 16_384), b=seeded(16_384, 4_096))
        cancelled = asyncio.create_task(worker.compute(OTHER, job_of(long, timeout_ms=60_000)))
        await asyncio.sleep(0.1)
        cancelled.cancel()
        assert isinstance((await asyncio.gather(cancelled, return_exceptions=True))[0], asyncio.CancelledError)
        done = await worker.compute(JOB, job_of(GOOD, timeout_ms=60_000))
    expected = computed(GOOD, {}, tmp_path / "expected.npy")
    assert done == Computed(JOB, expected.root, expected.digest, expected.size)


async def test_the_first_step_in_the_real_sandbox_reaches_whoever_listens(tmp_path: Path) -> None:
    """What a service tells in a process of its own comes to the client as the miner's live message. Of later steps some
    are left out, by the time that has passed."""
    network = SimulatedNetwork(VirtualClock())
    bus, client = SimulatedBus(network, CHAIN), SimulatedBus(network, CHAIN, name="client")
    await bus.set_up("ab" * 32, ("VALIDATOR",))
    listener = client.listen_live(MINER, "progress")
    await listener.ready()
    work = Mandelbrot(width=256, height=128, re=0, im=0, step=1 << 48, max_iterations=20)
    async with Sandbox(1) as sandbox:
        worker = SandboxWorker(bus, VirtualClock(), sandbox, MINER, tmp_path / "jobs", 2**30)
        assert isinstance(await worker.compute(JOB, job_of(work, timeout_ms=60_000)), Computed)
    told = msgspec.json.decode((await anext(listener)).data, type=Progress)
    assert told == Progress(job=JOB, stage="compute", done_bps=2_500)
