"""A network on one NATS server with the settings that we ship: its load, what was seen, what must be there again."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path

from actors.devnet import Devnet
from actors.devnet_files import CLIENT, Plan
from bus.jetstream import JetStreamBus
from bus.port import ChainReader, FeedReader
from projections.audit import audit_file
from tests.end_to_end.client import Client, ask_wallet, seeded_work
from tests.faults.load import Ledger, Load
from tests.faults.pulse import Pulse
from tests.faults.verdict import export

RATE = 400.0
SENDERS = 8
# What a hanging test may cost.
AGAIN_S = 240.0


@contextlib.asynccontextmanager
async def watched(
    devnet: Devnet, note: Callable[[str, int], None] = lambda sender, nonce: None, url: str | None = None
) -> AsyncIterator[Pulse]:
    """Reads the log from its beginning; ``note`` hears of each event that is final. ``url`` None: the network's."""
    bus = await JetStreamBus.connect(url or devnet.url, devnet.chain, name="pulse")
    async with Pulse(bus, devnet.genesis_hash, devnet.plan.proposers, note) as pulse:
        yield pulse
    await bus.close()


async def until(pulse: Pulse, reached: Callable[[], bool]) -> None:
    """Returns when what the pulse has read says so."""
    async with asyncio.timeout(AGAIN_S):
        while not reached():
            if (failure := pulse.failure()) is not None:
                raise failure
            await asyncio.sleep(0.05)


async def until_height(pulse: Pulse, height: int) -> None:
    """Returns when the block of this height is in the log, and final."""
    await until(pulse, lambda: pulse.height >= height)


async def work(devnet: Devnet, number: int, sender: str = CLIENT) -> None:
    """One job from this client, one through the wallet, until both are settled."""
    bus = await JetStreamBus.connect(devnet.url, devnet.chain, name="client")
    key = devnet.key(sender)
    answer = json.loads(await bus.query("nonce", json.dumps({"address": key.address}).encode()))
    client = Client(bus, key, answer["value"]["nonce"])
    job = client.job(seeded_work(2 * number))
    await client.submit(job)
    wallet = devnet.key("wallet").address
    other = await ask_wallet(bus, wallet, f"job {number}", seeded_work(2 * number + 1))
    async with asyncio.timeout(AGAIN_S):
        for name in (job.id, other):
            situation = ""
            while situation != "settled":
                await asyncio.sleep(0.1)
                found = json.loads(await bus.query("job", json.dumps({"job": name}).encode()))
                situation = found["value"]["job"]["situation"]["situation"] if found["answer"] == "found" else ""
    await bus.close()


async def check(devnet: Devnet, before: dict[int, str], directory: Path) -> None:
    """Every block that somebody has seen final is in the log, as it was; the network works; the audit passes."""
    async with watched(devnet) as pulse:
        await until_height(pulse, max(before))
        assert {height: pulse.hashes[height] for height in before} == before
        await work(devnet, max(before))
    bus = await JetStreamBus.connect(devnet.url, devnet.chain, name="audit")
    await export(bus, devnet, directory / "log.ndjson")
    await bus.close()
    assert audit_file(directory / "log.ndjson").passed


def put_back(devnet: Devnet) -> int:
    """How many blocks validators say to have put back into the log."""
    names = [name for name in devnet.plan.actors() if name.startswith("proposer-")]
    return sum(devnet.files.log_file(name).read_text().count("put a block back") for name in names)


def plan(proposers: int) -> Plan:
    return Plan(proposers=proposers, miners=1, extra_clients=SENDERS)


@contextlib.asynccontextmanager
async def loaded(devnet: Devnet) -> AsyncIterator[tuple[Pulse, Ledger]]:
    """Transfers and jobs are on their way, ten blocks are final, and somebody watches and keeps what was promised."""
    load = Load(devnet, list(devnet.plan.clients()[1:]), RATE)
    async with watched(devnet, load.note_final) as pulse:
        loading = asyncio.create_task(load.run())
        try:
            await until_height(pulse, pulse.height + 10)
            yield pulse, load.ledger
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)


@contextlib.asynccontextmanager
async def reading(devnet: Devnet) -> AsyncIterator[dict[str, dict[int, bytes]]]:
    """Reads the log and the clients' feeds, by address, from their beginning, as long as the server is there: digests
    by sequence."""
    bus = await JetStreamBus.connect(devnet.url, devnet.chain, name="reader")
    readers: dict[str, ChainReader | FeedReader] = {"log": await bus.read_chain(0)}
    for address in (devnet.key(name).address for name in devnet.plan.clients()):
        readers[address] = await bus.read_feed(address, 0)
    read: dict[str, dict[int, bytes]] = {name: {} for name in readers}

    async def follow(name: str) -> None:
        while True:
            for message in await readers[name].next(256, 1_000):
                read[name][message.sequence] = sha256(message.data).digest()

    following = [asyncio.create_task(follow(name)) for name in readers]
    try:
        yield read
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        for reader in readers.values():
            await reader.close()
        await bus.close()
