"""``kill -9`` of every process while jobs run: nothing is lost, nothing is paid twice, nobody has to do anything."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from actors.devnet import Devnet
from actors.devnet_files import WALLET, Plan
from bus.jetstream import JetStreamBus
from events.keys import Key
from projections.audit import audit_file
from projections.chain import Chain
from schemas.blocks import Applied, TimerFired
from schemas.events import JobCancelled, JobRefunded, JobSettled, TransferSent
from tests.end_to_end.bookkeeper import BURNED, GENESIS
from tests.end_to_end.client import Client, Follower, ask_wallet, connect, export_log, seeded_work, uploaded_work

JOBS = 100
KILLS_OF_EACH = 2
# On average between two kills, and at most from the submission of some jobs to a kill.
PAUSE_S = 1.0
LEAD_S = 0.2
# Far above what it takes, for machines that are busy with other tests.
RECOVERY_S = 60.0
FEED_S = 60.0


@contextlib.asynccontextmanager
async def network(directory: Path, plan: Plan) -> AsyncIterator[tuple[Devnet, JetStreamBus, Follower]]:
    """A devnet, a connection to it, and a follower of its log."""
    async with Devnet(directory, plan) as devnet:
        bus = await connect(devnet)
        try:
            async with Follower(bus, devnet) as follower:
                yield devnet, bus, follower
        finally:
            await bus.close()


class Crowd:
    """Has jobs submitted, told apart by number: most signed by one client, some with uploads, some through a wallet."""

    def __init__(self, client: Client, wallet: str, directory: Path) -> None:
        self._client = client
        self._wallet = wallet
        self._directory = directory
        directory.mkdir()
        self._pending: list[asyncio.Task[str]] = []

    def submit(self, number: int) -> None:
        """Sees to it in the background."""
        if number % 5 == 0:
            self._pending.append(asyncio.create_task(self._through_wallet(number)))
            return
        # The nonce follows the order of the calls, not that of the uploads.
        nonce, self._client.nonce = self._client.nonce, self._client.nonce + 1
        self._pending.append(asyncio.create_task(self._signed(number, nonce)))

    async def _through_wallet(self, number: int) -> str:
        """Asks twice at the same time, each until there is an answer."""
        bus, key = self._client.bus, f"job-{number}"
        answers = [ask_wallet(bus, self._wallet, key, seeded_work(number)) for _ in range(2)]
        first, second = await asyncio.gather(*answers)
        assert first == second, "a request that is repeated is answered with the same job"
        return first

    async def _signed(self, number: int, nonce: int) -> str:
        client = Client(self._client.bus, self._client.key, nonce)
        if number % 5 == 1:
            work = await uploaded_work(client.bus, client.address, self._directory, number)
        else:
            work = seeded_work(number)
        job = client.job(work)
        await client.submit(job)
        return job.id

    async def jobs(self) -> list[str]:
        """The ids of all jobs, once all are stored."""
        return await asyncio.gather(*self._pending)


async def kill_everything(devnet: Devnet, crowd: Crowd, random: Random) -> list[tuple[float, str]]:
    """Kills each process a few times, in any order, each time while some jobs are on their way. Returns when."""
    names = list(devnet.pids()) * KILLS_OF_EACH
    random.shuffle(names)
    kills = []
    for place, name in enumerate(names):
        await asyncio.sleep(random.uniform(0.0, 2 * PAUSE_S))
        for number in range(place * JOBS // len(names), (place + 1) * JOBS // len(names)):
            crowd.submit(number)
        await asyncio.sleep(random.uniform(0.0, LEAD_S))
        kills.append((time.monotonic(), name))
        await devnet.kill(name)
    return kills


async def heard_in_feed(bus: JetStreamBus, address: str, jobs: set[str]) -> None:
    """Returns when the feed of this address has told the end of all these jobs."""
    reader = await bus.read_feed(address, 0)
    try:
        async with asyncio.timeout(FEED_S):
            while jobs:
                for record in await reader.next(64, 1_000):
                    for entry in json.loads(record.data)["entries"]:
                        if entry["outcome"]["result"] == "applied" and entry["event"]["body"]["type"] == "job.settled":
                            jobs.discard(entry["event"]["body"]["job"])
    finally:
        await reader.close()


def check_ledger(devnet: Devnet, follower: Follower, export: Path, jobs: list[str]) -> None:
    """The audit passes, every job has had one end, and both sets of books agree to the last coin."""
    report = audit_file(export)
    assert report.passed

    chain = Chain(devnet.genesis)
    ends: Counter[str] = Counter()
    for message in follower.messages:
        final = chain.add(message.sequence, message.kind, message.data, None)
        for outcome in final.executed.outcomes[: final.executed.timers] if final else ():
            assert isinstance(outcome, TimerFired)
            ends[outcome.job] += outcome.refunded > 0
        events = zip(final.events, final.executed.outcomes[final.executed.timers :], strict=True) if final else ()
        for signed, outcome in events:
            if isinstance(signed.event, JobSettled | JobRefunded | JobCancelled) and isinstance(outcome, Applied):
                ends[signed.event.job] += 1
    assert max(ends.values()) == 1

    books = follower.books
    assert sorted(books.ends) == sorted(jobs), "each request became one job, and there is no other"
    assert {len(how) for how in books.ends.values()} == {1}
    assert {how for (how,) in books.ends.values()} <= {"settled", "refunded"}

    state, supply = chain.state, report.supply
    assert books.head == chain.head_hash
    accounts = {name.removeprefix("account/") for name, _ in state.rows() if name.startswith("account/")}
    others = {name for name, balance in books.balances.items() if balance} - {GENESIS, BURNED}
    assert others <= accounts
    for address in accounts:
        assert state.account(address).balance == books.balances[address]
        assert state.account(address).nonce == books.nonces[address]
    assert (supply.burned, supply.minted, supply.escrowed) == (books.balances[BURNED], 0, 0)
    assert supply.genesis == -books.balances[GENESIS]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_process_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    """100 jobs while each process is killed twice: each ends settled or refunded once, and every coin is accounted
    for."""
    async with network(tmp_path / "net", Plan()) as (devnet, bus, follower):
        wallet = devnet.key(WALLET).address
        crowd = Crowd(Client(bus, devnet.key()), wallet, tmp_path / "uploads")
        kills = await kill_everything(devnet, crowd, Random(5))
        crowd.submit(JOBS)
        jobs = await crowd.jobs()
        await follower.until_ended(jobs, RECOVERY_S)
        ended_s = time.monotonic()
        pause_s = follower.longest_pause_s(kills[0][0], ended_s)
        how = Counter(how for ends in follower.books.ends.values() for how in ends)
        print(f"{dict(how)}, all {ended_s - kills[-1][0]:.1f} s after the last kill, longest pause {pause_s:.1f} s")

        books = follower.books
        assert books.ends[jobs[-1]] == ["settled"], "after the last kill jobs are done as before"
        for address in (devnet.key().address, wallet):
            settled = {job for job, ends in books.ends.items() if ends == ["settled"]}
            await heard_in_feed(bus, address, {job for job in settled if books.jobs[job]["event"]["sender"] == address})
        await export_log(bus, devnet, tmp_path / "log.ndjson")
        check_ledger(devnet, follower, tmp_path / "log.ndjson", jobs)


def transfer(client: Client, to: Key) -> bytes:
    """Signs the next one coin."""
    return client.sign(TransferSent, to=to.address, amount=1).raw


async def test_blocks_need_two_of_three_proposers(tmp_path: Path) -> None:
    """With one of three proposers dead for good blocks go on; with two dead they stop, and go on when one returns."""
    async with network(tmp_path, Plan(miners=1, wallet=False)) as (devnet, bus, follower):
        client, taker = Client(bus, devnet.key()), devnet.key("miner-1")

        async def blocks(count: int) -> None:
            """So many more blocks, one after the other."""
            for _ in range(count):
                height = follower.books.height
                await bus.submit(client.address, transfer(client, taker))
                await follower.until_height(height + 1, RECOVERY_S)

        await blocks(3)
        await devnet.kill("proposer-2", for_good=True)
        await blocks(6)
        await devnet.kill("proposer-3", for_good=True)
        height = follower.books.height
        await bus.submit(client.address, transfer(client, taker))
        with pytest.raises(AssertionError, match="not within"):
            await follower.until_height(height + 1, 3)
        await devnet.restart("proposer-2")
        await follower.until_height(height + 1, RECOVERY_S)
        await blocks(3)
        assert follower.books.nonces[client.address] == 13
