"""Jobs from submission to their one end: proposers, coordinators and miners as they really run, in one process.

The processes are those of `actors.roles`; only the bus is simulated, time is virtual, and the sandbox has no walls, so
that a test can choose what a miner's lies are.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pytest

from actors import roles
from actors.backends.cpu import CpuBackend
from actors.roles import Host
from actors.sandbox import Finished, Limits, Outcome
from actors.sandbox_messages import RESULT_NAME
from actors.services.matmul import row_hashes
from actors.services.npy import write_matrix
from actors.settings import Settings
from bus.simulated import SimulatedBus
from events.merkle import root_of_hashes
from projections.bonds import standing_of
from schemas.blocks import Applied
from schemas.events import BondDeposited, JobCancelled, JobSubmitted, MinerRegistered, Requirement
from schemas.genesis import Genesis
from schemas.services import BlobMatrix, MatmulInt8
from schemas.state import Cancelled, Job, Miner, Refunded, Settled
from tests.actors.matrices import blob_of, computed, npy_bytes, seeded
from tests.actors.town import Town, key_of, make_genesis
from tests.actors.virtual_time import run
from tests.projections.ledger import trust

ESCROW = 100_000
Lie = Callable[[Finished], Finished]


class OpenSandbox:
    """Computes here and now; ``lie`` changes what it reports."""

    lies: dict[str, Lie]

    def __init__(self, capacity: int, writable: Path, *, backend: str, device: str) -> None:
        self.capacity = capacity
        self.walls: tuple[str, ...] = ()
        self.devices = CpuBackend().devices()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def run(
        self, work: MatmulInt8, blobs: Mapping[str, Path], directory: Path, limits: Limits, progress: object
    ) -> Outcome:
        result = directory / RESULT_NAME
        result.unlink(missing_ok=True)
        right = computed(work, dict(blobs), result)
        finished = Finished(result=result, root=right.root, digest=right.digest, size=right.size)
        liar = next((name for name in self.lies if key_of(name).address in str(directory)), "")
        return self.lies[liar](finished) if liar else finished


def another_product(finished: Finished) -> Finished:
    """Bound to its own numbers in every way: only the product gives it away."""
    matrix = np.ones((8, 8), dtype=np.int32)
    finished.result.unlink()
    digest, size = write_matrix(finished.result, matrix)
    return Finished(result=finished.result, root=root_of_hashes(row_hashes(matrix)).hex(), digest=digest, size=size)


def garbage(finished: Finished) -> Finished:
    """As many bytes as the result would have."""
    data = b"x" * finished.size
    finished.result.write_bytes(data)
    return Finished(result=finished.result, root="0" * 64, digest=sha256(data).hexdigest(), size=finished.size)


def another_size(finished: Finished) -> Finished:
    return msgspec.structs.replace(finished, size=finished.size + 1)


class NeverUploads(SimulatedBus):
    """Says that it has."""

    async def put_blob(self, owner: str, source: Path, progress: object = None) -> str:
        return sha256(source.read_bytes()).hexdigest()


class NeverReveals(SimulatedBus):
    """Its upload does not end."""

    async def put_blob(self, owner: str, source: Path, progress: object = None) -> str:
        await self._clock.sleep_ms(10**9)
        raise AssertionError


class Market:
    """A town with a coordinator and miners."""

    def __init__(self, town: Town) -> None:
        self.town = town

    async def start(self, role: str, name: str, bus: type[SimulatedBus] = SimulatedBus, **table: Any) -> None:
        town = self.town
        town.faults.cut.discard(name)
        settings = Settings(
            chain=town.genesis.chain, data_dir=str(town.directory), tables={role: {"name": name, **table}}
        )
        connected = bus(town.network, town.genesis.chain, town.limits, name)
        host = Host(settings, town.genesis, key_of(name), connected, town.clock, lambda: None)
        await town.run(name, lambda stop: roles._RUNS[role](host, stop))

    async def submit(self, work: MatmulInt8 | None = None, **fields: Any) -> str:
        given = {
            "work": work or MatmulInt8(a=seeded(), b=seeded()),
            "escrow": ESCROW,
            "lifetime_ms": 300_000,
            "timeout_ms": 10_000,
            "requirement": Requirement(memory_mib=0),
            **fields,
        }
        return await self.town.say("alice", JobSubmitted, **given)

    def job(self, job_id: str) -> Job | None:
        return self.town.chain.state.job(job_id)

    async def end_of(self, job_id: str, within_ms: int = 120_000) -> Settled | Refunded | Cancelled:
        def ended() -> bool:
            job = self.job(job_id)
            return job is not None and isinstance(job.situation, Settled | Refunded | Cancelled)

        await self.town.until(ended, within_ms)
        job = self.job(job_id)
        assert job is not None
        return job.situation

    def attempts(self, job_id: str) -> list[str]:
        """Who has failed, and why."""
        job = self.job(job_id)
        assert job is not None
        names = {key_of(name).address: name for name in ("miner 0", "miner 1")}
        return [f"{names[attempt.miner]}: {attempt.reason}" for attempt in job.attempts]

    def balance(self, name: str) -> int:
        return self.town.chain.state.account(key_of(name).address).balance

    def files(self) -> list[Path]:
        """What is left of jobs on the disks of coordinator and miners."""
        return [path for path in self.town.directory.glob("*/jobs/*/*") if path.is_file()]


@pytest.fixture
def lies(monkeypatch: pytest.MonkeyPatch) -> dict[str, Lie]:
    """By miner: how its results are changed before it commits to them."""
    chosen: dict[str, Lie] = {}
    monkeypatch.setattr(OpenSandbox, "lies", chosen, raising=False)
    monkeypatch.setattr(roles, "Sandbox", OpenSandbox)
    return chosen


@asynccontextmanager
async def market(
    directory: Path, genesis: Genesis | None = None, buses: Mapping[str, type[SimulatedBus]] | None = None
) -> AsyncIterator[Market]:
    """One proposer, a coordinator, two miners of which the first is cheaper; all registered."""
    async with Town.open(directory, genesis or make_genesis(1)) as town:
        place = Market(town)
        await place.start("coordinator", "coordinator")
        for price, name in ((10, "miner 0"), (20, "miner 1")):
            await place.start("miner", name, (buses or {}).get(name, SimulatedBus), unit_price=price)
        await town.until(lambda: len(town.chain.state.miners()) == 2)
        yield place


def test_a_job_settles(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """The cheaper miner does it, is paid, the coordinator gets its share, the rest comes back; no file stays."""

    async def scenario() -> None:
        async with market(tmp_path) as place:
            miner, alice = place.balance("miner 0"), place.balance("alice")
            data = npy_bytes(tmp_path, np.eye(8, dtype=np.int8))
            (tmp_path / "upload").write_bytes(data)
            await place.town.outsider.put_blob(key_of("alice").address, tmp_path / "upload")
            job_id = await place.submit(MatmulInt8(a=blob_of(data), b=seeded()))
            assert isinstance(await place.end_of(job_id, 5_000), Settled)
            assert place.attempts(job_id) == []
            assert place.balance("miner 0") == miner + 10
            assert place.balance("alice") == alice - 10_000 - 10
            await place.town.until(lambda: place.files() == [], 5_000)

    run(scenario)


@pytest.mark.parametrize(
    ("lie", "bus", "reason"),
    [
        (another_product, SimulatedBus, "RESULT_WRONG"),
        (garbage, SimulatedBus, "RESULT_MALFORMED"),
        (another_size, SimulatedBus, "RESULT_MALFORMED"),
        (None, NeverUploads, "RESULT_UNAVAILABLE"),
        (None, NeverReveals, "RESULT_NOT_REVEALED"),
    ],
)
def test_a_lying_miner_fails_and_the_other_one_is_paid(
    tmp_path: Path, lies: dict[str, Lie], lie: Lie | None, bus: type[SimulatedBus], reason: str
) -> None:
    """Each lie has its name; the liar gets nothing, and its places are free again."""
    if lie is not None:
        lies["miner 0"] = lie

    async def scenario() -> None:
        genesis = make_genesis(1, verify_timeout_ms=60_000)
        async with market(tmp_path, genesis, {"miner 0": bus}) as place:
            liar = place.balance("miner 0")
            job_id = await place.submit()
            settled = await place.end_of(job_id)
            assert isinstance(settled, Settled)
            assert settled.assignment.miner == key_of("miner 1").address
            assert place.attempts(job_id) == [f"miner 0: {reason}"]
            assert place.balance("miner 0") == liar
            miners = place.town.chain.state.miners()
            assert [miner.running for miner in miners.values()] == [0, 0]
            await place.town.until(lambda: place.files() == [], 10_000)

    run(scenario)


def test_when_all_lie_the_client_gets_its_coins_back(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """After as many attempts as the genesis allows; nobody is paid."""
    lies["miner 0"] = lies["miner 1"] = another_product

    async def scenario() -> None:
        async with market(tmp_path) as place:
            before = [place.balance(name) for name in ("miner 0", "miner 1", "coordinator")]
            alice = place.balance("alice")
            job_id = await place.submit()
            refunded = await place.end_of(job_id)
            assert isinstance(refunded, Refunded)
            assert refunded.reason == "RESULT_WRONG"
            assert place.attempts(job_id) == ["miner 0: RESULT_WRONG", "miner 1: RESULT_WRONG"]
            assert [place.balance(name) for name in ("miner 0", "miner 1", "coordinator")] == before
            assert place.balance("alice") == alice - 10_000

    run(scenario)


def test_a_liar_loses_its_bond_and_then_its_jobs(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """Each wrong result burns a share of the bond; the second one here shuts the miner out."""
    lies["miner 0"] = another_product

    async def scenario() -> None:
        async with market(tmp_path, make_genesis(1, trust=trust(ban_after=2))) as place:
            await place.town.say("miner 0", BondDeposited, amount=10_000, nonce=1)
            for attempts in (["miner 0: RESULT_WRONG"], ["miner 0: RESULT_WRONG"], []):
                job_id = await place.submit()
                assert isinstance(await place.end_of(job_id), Settled)
                assert place.attempts(job_id) == attempts
            liar, honest = (place.town.chain.state.miner(key_of(name).address) for name in ("miner 0", "miner 1"))
            assert liar is not None
            assert honest is not None
            found = standing_of(liar)
            assert (found.bond, found.slashed, found.wrong, found.banned) == (9_025, 975, 2, True)
            found = standing_of(honest)
            assert (found.submitted, found.on_time, found.verified, found.wrong) == (3, 3, 3, 0)

    run(scenario)


def test_a_blob_that_never_arrives_ends_the_job(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """No miner is bothered, and others' jobs do not wait for it."""

    async def scenario() -> None:
        async with market(tmp_path) as place:
            missing = MatmulInt8(a=BlobMatrix(rows=8, columns=8, digest="5" * 64), b=seeded())
            job_id = await place.submit(missing)
            other = await place.submit()
            assert isinstance(await place.end_of(other, 5_000), Settled)
            refunded = await place.end_of(job_id)
            assert isinstance(refunded, Refunded)
            assert refunded.reason == "BLOB_UNAVAILABLE"
            assert place.attempts(job_id) == []

    run(scenario)


def test_a_client_withdraws_its_job(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """While the coordinator still waits for its blob, which comes too late: the escrow is back, and nothing stays."""

    async def scenario() -> None:
        async with market(tmp_path) as place:
            alice = place.balance("alice")
            data = npy_bytes(tmp_path, np.eye(8, dtype=np.int8))
            job_id = await place.submit(MatmulInt8(a=blob_of(data), b=seeded()))
            await place.town.until(lambda: place.job(job_id) is not None)
            await place.town.clock.sleep_ms(1_000)
            await place.town.say("alice", JobCancelled, job=job_id)
            assert isinstance(await place.end_of(job_id), Cancelled)
            (tmp_path / "upload").write_bytes(data)
            await place.town.outsider.put_blob(key_of("alice").address, tmp_path / "upload")
            await place.town.clock.sleep_ms(60_000)
            assert place.balance("alice") == alice - 15_000
            assert place.files() == []
            assert isinstance(await place.end_of(await place.submit(), 5_000), Settled)

    run(scenario)


def test_a_dead_miner_misses_its_deadline(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """The job goes to the other one; when the dead one returns, it has nothing left to do and takes new jobs."""

    async def scenario() -> None:
        async with market(tmp_path) as place:
            await place.town.kill("miner 0")
            job_id = await place.submit()
            assert isinstance(await place.end_of(job_id), Settled)
            assert place.attempts(job_id) == ["miner 0: DEADLINE_MISSED"]
            await place.start("miner", "miner 0", unit_price=10)
            settled = await place.end_of(await place.submit(), 10_000)
            assert isinstance(settled, Settled)
            assert settled.assignment.miner == key_of("miner 0").address

    run(scenario)


def test_a_retired_miner_takes_no_jobs_until_it_starts_again(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """Its owner says capacity 0 with its key while it runs, and it goes on without new jobs. Started again it registers
    what its settings say, once, and keeps what was counted; its own words find their nonces."""

    async def scenario() -> None:
        async with market(tmp_path) as place:

            def cheap() -> Miner:
                miner = place.town.chain.state.miner(key_of("miner 0").address)
                assert miner is not None
                return miner

            async def who_does_a_job() -> str:
                settled = await place.end_of(await place.submit())
                assert isinstance(settled, Settled)
                return settled.assignment.miner

            assert await who_does_a_job() == key_of("miner 0").address
            before = cheap()
            offered = {name: getattr(before, name) for name in ("name", "devices", "offers")}
            nonce = place.town.chain.state.account(key_of("miner 0").address).nonce
            await place.town.say("miner 0", MinerRegistered, capacity=0, nonce=nonce, **offered)
            await place.town.until(lambda: cheap().capacity == 0)
            assert await who_does_a_job() == key_of("miner 1").address
            await place.town.end("miner 0")
            assert await who_does_a_job() == key_of("miner 1").address
            for _ in range(2):
                await place.start("miner", "miner 0", unit_price=10)
                await place.town.until(lambda: cheap().capacity == 1)
                assert await who_does_a_job() == key_of("miner 0").address
                await place.town.end("miner 0")
            assert (cheap().registered_ms, cheap().settled) == (before.registered_ms, 3)
            events = [signed.event for final in place.town.finals for signed in final.events]
            said = [event.capacity for event in events if isinstance(event, MinerRegistered)]
            assert said == [1, 1, 0, 1]

    run(scenario)


@pytest.mark.parametrize("victim", ["coordinator", "miner 0", "proposer 0"])
def test_whoever_is_killed_in_the_middle_goes_on_afterwards(tmp_path: Path, lies: dict[str, Lie], victim: str) -> None:
    """At twelve moments of a job's life: cut off, killed, started again. Each job ends once, and is paid once."""

    async def scenario() -> None:
        async with market(tmp_path) as place:
            for moment in range(12):
                miner = place.balance("miner 0") + place.balance("miner 1")
                job_id = await place.submit(timeout_ms=60_000)
                await place.town.clock.sleep_ms(40 * moment)
                await place.town.kill(victim)
                await place.town.clock.sleep_ms(500)
                if victim == "proposer 0":
                    await place.town.start_proposer(0)
                else:
                    await place.start(
                        victim.partition(" ")[0], victim, **({"unit_price": 10} if "miner" in victim else {})
                    )
                assert isinstance(await place.end_of(job_id, 100_000), Settled)
                assert place.balance("miner 0") + place.balance("miner 1") in (miner + 10, miner + 19)
            assert place.town.chain.state.supply().escrowed == 0

    run(scenario)


def test_a_server_that_goes_and_comes_does_no_harm(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """Everybody is cut off for half a minute in the middle of jobs; afterwards all of them settle, nobody failed."""

    async def scenario() -> None:
        async with market(tmp_path, make_genesis(1, verify_timeout_ms=60_000, reveal_timeout_ms=60_000)) as place:
            for moment in range(4):
                job_id = await place.submit(timeout_ms=60_000)
                await place.town.clock.sleep_ms(110 * moment)
                place.town.faults.cut.update(place.town.processes)
                await place.town.clock.sleep_ms(30_000)
                place.town.faults.cut.clear()
                assert isinstance(await place.end_of(job_id), Settled)
                assert place.attempts(job_id) == []

    run(scenario)


def test_many_jobs_of_one_block_share_the_places(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """Forty jobs, two miners with one place each: all settle, and no assignment fails for want of a place."""

    async def scenario() -> None:
        async with market(tmp_path) as place:
            jobs = [await place.submit() for _ in range(40)]
            for job_id in jobs:
                assert isinstance(await place.end_of(job_id), Settled)
            outcomes = [outcome for final in place.town.finals for outcome in final.executed.outcomes]
            assert all(isinstance(outcome, Applied) for outcome in outcomes)

    run(scenario)


def test_the_second_coordinator_steps_in_for_a_dead_one(tmp_path: Path, lies: dict[str, Lie]) -> None:
    """With two, jobs settle whoever is first for them; and with one of them dead as well, a little later."""

    async def scenario() -> None:
        genesis = make_genesis(1, verify_timeout_ms=60_000)
        both = tuple(sorted(key_of(name).address for name in ("coordinator", "bob")))
        async with market(tmp_path, msgspec.structs.replace(genesis, coordinators=both)) as place:
            await place.start("coordinator", "bob")
            jobs = [await place.submit() for _ in range(6)]
            ends = [await place.end_of(job_id) for job_id in jobs]
            assert all(isinstance(end, Settled) for end in ends)
            await place.town.kill("coordinator")
            jobs = [await place.submit() for _ in range(6)]
            for job_id in jobs:
                settled = await place.end_of(job_id)
                assert isinstance(settled, Settled)
                assert settled.assignment.coordinator == key_of("bob").address

    run(scenario)
