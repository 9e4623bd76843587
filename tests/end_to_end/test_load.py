"""Many clients at once, and one that floods: the many are served, the one is told why it is not."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from random import Random

import msgspec
import pytest

from actors import devnet_files
from actors.devnet import Devnet
from actors.devnet_files import Plan
from actors.profiles import DEVNET
from bus.jetstream import JetStreamBus
from bus.port import Limits
from bus.readers import stream_state
from events import subjects
from events.canonical import canonical
from events.envelope import SignedEvent, wrap
from events.errors import InboxFull
from events.keys import Key
from schemas.events import JobSubmitted, TransferSent
from schemas.messages import EventRefused
from schemas.refusals import code_of
from tests.end_to_end.bookkeeper import Bookkeeper
from tests.end_to_end.client import Client, Follower, connect, job_fields, seeded_work

CLIENTS = 4
JOBS_OF_EACH = 100
# Another batch of the flood comes whenever so many jobs more have ended: beside a slow machine it is slow as well.
JOBS_A_BATCH = 16
FLOOD_AT_ONCE = 1_000
# Nothing here depends on speed: waiting is bounded by what a hanging test may cost, jobs and exams by an hour.
WAIT_S = 600.0
HOUR_MS = 3_600_000
PARAMETERS = msgspec.structs.replace(
    devnet_files.PARAMETERS,
    reveal_timeout_ms=HOUR_MS,
    verify_timeout_ms=HOUR_MS,
    trust=msgspec.structs.replace(DEVNET, exam_window_ms=HOUR_MS, exam_reveal_ms=HOUR_MS),
)
# Each process may grow by this much over what it has at its start, however long the flood lasts.
MAX_GROWTH_MIB = 96
CODES = {"MALFORMED", "NOT_CANONICAL", "WRONG_CHAIN", "WRONG_SUBJECT", "INSUFFICIENT_BALANCE"}

_refused = msgspec.json.Decoder(EventRefused)


def memory_mib(devnet: Devnet) -> dict[str, float]:
    """Resident memory of each process."""
    found = {}
    for name, pid in devnet.pids().items():
        assert pid is not None, f"{name} has died"
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found[name] = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
    return found


def rubbish(flooder: Client, victim: Key, random: Random) -> list[bytes]:
    """Messages of every kind that cannot be included, most of them well made and well signed."""
    messages = []
    for _ in range(300):
        paid = {"to": victim.address, "amount": 1, "memo": "x" * random.randrange(200)}
        good = flooder.sign(TransferSent, **paid)
        messages += [
            good.raw,  # it has nothing to pay the fee with
            wrap(good.body_bytes, good.sig[:-8] + "AAAAAAAA"),
            good.raw.replace(b'"gas_price":1', b'"gas_price": 1'),
            good.raw.replace(b'"amount":1', b'"amount":-1'),
            Client(flooder.bus, victim).sign(TransferSent, to=flooder.address, amount=1).raw,
            random.randbytes(random.randrange(1, 2_000)),
        ]
        other = msgspec.structs.replace(good.event, chain="other")
        messages.append(wrap(canonical(other), flooder.key.sign(b"assay:event:v1\0" + canonical(other))))
    random.shuffle(messages)
    return messages


class Flood:
    """Publishes into its own inbox, in step with the jobs that end."""

    def __init__(self, flooder: Client, messages: list[bytes]) -> None:
        self._flooder = flooder
        self._endless: Iterator[bytes] = cycle(messages)
        self.stored = 0
        self.full = 0

    async def run(self, follower: Follower) -> None:
        """Two batches at once, which are more than the inbox takes, and then one after so many jobs."""
        await self._publish()
        for ended in range(0, CLIENTS * JOBS_OF_EACH + 1, JOBS_A_BATCH):
            await follower.until(partial(have_ended, ended), WAIT_S, f"the end of {ended} jobs")
            await self._publish()

    async def _publish(self) -> None:
        batch = [(self._flooder.address, data) for data in islice(self._endless, FLOOD_AT_ONCE)]
        fates = await self._flooder.bus.submit_many(batch)
        self.stored += fates.count(None)
        self.full += sum(isinstance(fate, InboxFull) for fate in fates)
        if other := [fate for fate in fates if fate is not None and not isinstance(fate, InboxFull)]:
            raise other[0]


def have_ended(jobs: int, books: Bookkeeper) -> bool:
    """Whether so many jobs have."""
    return sum(map(bool, books.ends.values())) >= jobs


def patient_job(client: Client, number: int) -> SignedEvent:
    """A job that may take an hour."""
    fields = job_fields(seeded_work(number)) | {"lifetime_ms": HOUR_MS, "timeout_ms": HOUR_MS}
    return client.sign(JobSubmitted, **fields)


async def count_refusals(bus: JetStreamBus, address: str, codes: Counter[str]) -> None:
    """Counts by code what mempools say to an address. (Their listener keeps the newest, so some may be missed.)"""
    async for message in bus.listen_live(address, "refused"):
        codes[code_of(_refused.decode(message.data).refusal)] += 1


async def watch_inbox(bus: JetStreamBus, address: str, most: Counter[str]) -> None:
    """Keeps the most places that the flooder, and that all others together, ever took."""
    while True:
        state = (await stream_state(bus._connection, bus.chain, "INBOX", subjects.inbox(bus.chain, "*")))["state"]
        flooder = state.get("subjects", {}).get(subjects.inbox(bus.chain, address), 0)
        most["flooder"] = max(most["flooder"], flooder)
        most["others"] = max(most["others"], state["messages"] - flooder)
        await asyncio.sleep(0.2)


async def inbox_is_empty(bus: JetStreamBus) -> None:
    """Returns when every place is free again."""
    async with asyncio.timeout(WAIT_S):
        while (await stream_state(bus._connection, bus.chain, "INBOX"))["state"]["messages"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(720)
async def test_four_clients_are_served_while_a_fifth_floods(tmp_path: Path) -> None:
    """400 jobs at once to two miners beside 27,000 worthless messages: all are settled, the flooder gets codes, memory
    stays bounded, and nobody's inbox places are taken."""
    async with contextlib.AsyncExitStack() as stack:
        plan = Plan(wallet=False, capacity=4, extra_clients=CLIENTS - 1, parameters=PARAMETERS, log_level="warning")
        devnet = await stack.enter_async_context(Devnet(tmp_path, plan))
        bus, outside = await connect(devnet), await connect(devnet, "flooder")
        stack.push_async_callback(bus.close)
        stack.push_async_callback(outside.close)
        follower = await stack.enter_async_context(Follower(bus, devnet))
        clients = [Client(bus, devnet.key(name)) for name in plan.clients()]
        flooder = Client(outside, Key(Random(1).randbytes(32)))
        flood = Flood(flooder, rubbish(flooder, clients[0].key, Random(2)))
        to_flooder, to_clients, most = Counter[str](), Counter[str](), Counter[str]()
        tasks = [
            asyncio.create_task(count_refusals(bus, flooder.address, to_flooder)),
            *(asyncio.create_task(count_refusals(bus, client.address, to_clients)) for client in clients),
            asyncio.create_task(watch_inbox(bus, flooder.address, most)),
        ]

        before = memory_mib(devnet)
        flooding = asyncio.create_task(flood.run(follower))
        began = time.monotonic()
        try:
            jobs = [
                [patient_job(client, number * CLIENTS + place) for number in range(JOBS_OF_EACH)]
                for place, client in enumerate(clients)
            ]
            await asyncio.gather(*(client.submit(*each) for client, each in zip(clients, jobs, strict=True)))
            await follower.until_ended([job.id for each in jobs for job in each], WAIT_S)
            took_s = time.monotonic() - began
            await flooding
            await inbox_is_empty(bus)
        finally:
            for task in (flooding, *tasks):
                task.cancel()
            failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [failure for failure in failures if not isinstance(failure, asyncio.CancelledError)]
        after = memory_mib(devnet)

        print(f"{took_s:.1f} s; flood: {flood.stored} stored, {flood.full} refused by the server; inbox {dict(most)}")
        print("to the flooder:", dict(to_flooder))
        print("MiB:", {name: f"{before[name]:.0f} -> {after[name]:.0f}" for name in before})
        assert Counter(tuple(ends) for ends in follower.books.ends.values()) == {("settled",): CLIENTS * JOBS_OF_EACH}
        assert flood.stored + flood.full == FLOOD_AT_ONCE * (2 + CLIENTS * JOBS_OF_EACH // JOBS_A_BATCH)
        assert flood.stored > Limits().inbox_per_sender, "places became free again"
        assert to_flooder.keys() >= CODES
        assert not to_clients
        assert most["flooder"] <= Limits().inbox_per_sender
        assert {
            name: after[name] - before[name] for name in before if after[name] - before[name] > MAX_GROWTH_MIB
        } == {}
