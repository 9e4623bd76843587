"""Real networks of processes: transfers and blocks per second, job latency, and the audit of what they logged."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec
from processes import Spending
from rows import Row

from actors.devnet import Devnet
from actors.devnet_files import PARAMETERS, Plan
from bus.jetstream import JetStreamBus
from bus.port import FeedReader
from events.envelope import SignedEvent, sign
from events.keys import Key
from projections.audit import Auditor, audit_file
from projections.log_file import LogWriter
from schemas.events import JobSettled, JobSubmitted, Requirement, TransferSent
from schemas.messages import FeedMessage
from schemas.services import MatmulInt8, SeededMatrix

SENDERS = 32
TRANSFERS = 40_000
WINDOW = 400
JOBS = 120
WARM_UP_JOBS = 10
SMALL_BLOCKS = 300

_feed = msgspec.json.Decoder(FeedMessage)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def connect(devnet: Devnet) -> JetStreamBus:
    """A connection of the load generator."""
    return await JetStreamBus.connect(devnet.url, devnet.chain, name="benchmark")


def signed_transfers(devnet: Devnet, keys: list[Key], each: int) -> list[list[tuple[str, bytes]]]:
    """Transfers of one coin along a ring of senders, signed ahead of time: of every sender its own list."""
    chain = devnet.chain
    return [
        [
            (
                key.address,
                sign(
                    TransferSent(
                        chain=chain,
                        sender=key.address,
                        nonce=nonce,
                        gas_price=1,
                        to=keys[(place + 1 + nonce % (len(keys) - 1)) % len(keys)].address,
                        amount=1,
                    ),
                    key,
                ).raw,
            )
            for nonce in range(each)
        ]
        for place, key in enumerate(keys)
    ]


async def publish(bus: JetStreamBus, queue: list[tuple[str, bytes]]) -> None:
    """Publishes a sender's events in order; where its inbox is full, it waits and goes on from there."""
    position = 0
    while position < len(queue):
        fates = await bus.submit_many(queue[position : position + WINDOW])
        refused = next((index for index, fate in enumerate(fates) if fate is not None), None)
        position += len(fates) if refused is None else refused
        if refused is not None:
            await asyncio.sleep(0.02)


async def status(bus: JetStreamBus) -> dict[str, Any]:
    """What a node says of itself."""
    answer: dict[str, Any] = msgspec.json.decode(await bus.query("status", b"{}"))["value"]
    return answer


async def until(bus: JetStreamBus, reached: Callable[[dict[str, Any]], bool]) -> None:
    """Asks until a node's status is as wanted."""
    while not reached(await status(bus)):  # noqa: ASYNC110  a node in another process has no event here
        await asyncio.sleep(0.02)


async def transfers_per_second(proposers: int) -> tuple[float, dict[str, float], Path | None]:
    """From the first publish to the moment a node shows the last transfer in a final block; and where the time went."""
    plan = Plan(proposers=proposers, miners=1, wallet=False, extra_clients=SENDERS - 1, log_level="warning")
    async with Devnet(plan=plan) as devnet:
        bus = await connect(devnet)
        keys = [devnet.key(name) for name in plan.clients()]
        queues = signed_transfers(devnet, keys, TRANSFERS // SENDERS)
        count = sum(len(queue) for queue in queues)
        before = (await status(bus))["events"]
        spending = Spending(devnet)
        began = time.perf_counter()
        publishing = asyncio.gather(*(publish(bus, queue) for queue in queues))
        await until(bus, lambda found: found["events"] >= before + count)
        rate = count / (time.perf_counter() - began)
        await publishing
        spent = spending.microseconds_per(count)
        export = await export_log(bus, devnet) if proposers == 1 else None
        await bus.close()
    return rate, spent, export


async def export_log(bus: JetStreamBus, devnet: Devnet) -> Path:
    """The log as a file beside the devnet's own directory, which will be gone."""
    path = devnet.directory.with_suffix(".ndjson")
    reader = await bus.read_chain(0)
    end = await bus.chain_end()
    auditor = Auditor(devnet.genesis)
    with path.open("wb") as file:
        writer = LogWriter(file, devnet.genesis)
        position = 0
        while position < end:
            for message in await reader.next(256, 1_000):
                writer.add(message.sequence, message.kind, message.data)
                auditor.add(message.sequence, message.kind, message.data)
                position = message.sequence
        writer.close(auditor.totals())
    await reader.close()
    return path


def audit_events_per_second(export: Path) -> float:
    """Full audit of the export of a transfers run: signatures in two threads, execution, roots, votes."""
    began = time.perf_counter()
    report = audit_file(export, threads=2)
    seconds = time.perf_counter() - began
    return report.totals.events / seconds


def small_job(devnet: Devnet, key: Key, nonce: int) -> SignedEvent:
    """The product of two seeded 16 × 16 matrices."""
    seeds = ("ab" * 32, f"{nonce:064x}")
    a, b = (SeededMatrix(rows=16, columns=16, seed=seed) for seed in seeds)
    job = JobSubmitted(
        chain=devnet.chain,
        sender=key.address,
        nonce=nonce,
        gas_price=1,
        work=MatmulInt8(a=a, b=b),
        escrow=10_000,
        lifetime_ms=60_000,
        timeout_ms=30_000,
        requirement=Requirement(memory_mib=0),
    )
    return sign(job, key)


async def settled(reader: FeedReader, job: str) -> None:
    """Reads the feed until it says that the job is settled."""
    while True:
        for record in await reader.next(64, 1_000):
            for entry in _feed.decode(record.data).entries:
                said = msgspec.json.decode(bytes(entry.event))["body"] if isinstance(entry.event, msgspec.Raw) else {}
                if said.get("type") == JobSettled.__struct_config__.tag and said.get("job") == job:
                    return


async def job_round_trips_ms() -> list[float]:
    """Publish → matched → computed → committed → revealed → verified → settled → heard of by the client, one by one."""
    plan = Plan(proposers=1, miners=2, wallet=False, log_level="warning")
    async with Devnet(plan=plan) as devnet:
        bus, key = await connect(devnet), devnet.key()
        await until(bus, lambda found: found["miners"] == plan.miners)
        reader = await bus.read_feed(key.address, 0)
        times = []
        for nonce in range(JOBS + WARM_UP_JOBS):
            job = small_job(devnet, key, nonce)
            began = time.perf_counter()
            await bus.submit(key.address, job.raw)
            await settled(reader, job.id)
            times.append((time.perf_counter() - began) * 1_000)
        await reader.close()
        await bus.close()
    return times[WARM_UP_JOBS:]


async def blocks_per_second() -> float:
    """Final blocks of one transfer each, the next published when the one before is final: one proposer."""
    parameters = msgspec.structs.replace(PARAMETERS, min_block_interval_ms=1)
    plan = Plan(proposers=1, miners=1, wallet=False, parameters=parameters, extra_clients=1, log_level="warning")
    async with Devnet(plan=plan) as devnet:
        bus = await connect(devnet)
        keys = [devnet.key(name) for name in plan.clients()]
        queue = signed_transfers(devnet, keys, SMALL_BLOCKS)[0]
        reader = await bus.read_chain(await bus.chain_end())
        began = time.perf_counter()
        for owner, data in queue:
            await bus.submit(owner, data)
            while not any(message.kind == "vote" for message in await reader.next(2, 1_000)):
                pass
        rate = len(queue) / (time.perf_counter() - began)
        await reader.close()
        await bus.close()
    return rate


async def measure() -> list[Row]:
    """The rows of the network."""
    rows = []
    for proposers in (1, 3):
        rate, spent, found = await transfers_per_second(proposers)
        _note(f"processor time per transfer, {proposers} proposer(s), in microseconds:")
        for name, microseconds in spent.items():
            _note(f"  {name:24}{microseconds:8.1f}")
        plural = "" if proposers == 1 else "s"
        name = f"transfers_per_second_{proposers}_proposer{plural}"
        rows.append(Row(name, rate, "1/s", "libsodium_verify_per_second_1_thread"))
        if found is not None:
            audited = audit_events_per_second(found)
            found.unlink()
            rows.append(Row("audit_events_per_second", audited, "1/s", "libsodium_verify_per_second_2_threads"))
    times = await job_round_trips_ms()
    percentiles = quantiles(times, n=100)
    rows += [
        Row("job_round_trip_p50_ms", percentiles[49], "ms", "jetstream_publish_round_trip_ms"),
        Row("job_round_trip_p99_ms", percentiles[98], "ms", "jetstream_publish_round_trip_ms"),
        Row("blocks_per_second", await blocks_per_second(), "1/s", "jetstream_publish_one_by_one_per_second"),
    ]
    return rows
