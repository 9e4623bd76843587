"""What a network has to do while everything around it fails: transfers at a steady rate, and jobs."""

import asyncio
import contextlib
import itertools
import time

import msgspec

from actors.devnet import Devnet
from actors.devnet_files import WALLET
from bus.jetstream import JetStreamBus
from bus.port import Bus
from events.envelope import SignedEvent
from events.errors import BusError, TimedOut
from events.keys import Key
from schemas.events import TransferSent
from schemas.messages import EventRefused
from schemas.refusals import code_of
from tests.end_to_end.client import Client, ask_wallet, seeded_work

BATCH = 64
# Of one sender, waiting for a block at most: below what an inbox takes.
WINDOW = 512
JOB_EVERY_S = 1.0

_refused = msgspec.json.Decoder(EventRefused)


class Ledger:
    """What clients were promised: the events that the server has acknowledged, and the refusals they heard of."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, SignedEvent] = {}
        self.refused: dict[str, str] = {}
        self.repeated = 0
        self.failures = 0


class Sender:
    """Publishes transfers of one address in the order of their nonces. What is not acknowledged is said again."""

    def __init__(self, bus: Bus, key: Key, takers: list[str], ledger: Ledger) -> None:
        self._client = Client(bus, key)
        self._takers = itertools.cycle(takers)
        self._ledger = ledger
        self.address = key.address
        self.used = 0
        self.final = 0

    async def send(self, count: int) -> None:
        """So many more, once each is acknowledged."""
        events = [self._client.sign(TransferSent, to=next(self._takers), amount=1) for _ in range(count)]
        self.used += count
        while events:
            fates = await self._client.bus.submit_many([(self.address, signed.raw) for signed in events])
            for signed, fate in zip(events, fates, strict=True):
                if fate is None:
                    self._ledger.acknowledged[signed.id] = signed
            events = [signed for signed, fate in zip(events, fates, strict=True) if fate is not None]
            if events:
                self._ledger.failures += len(events)
                await asyncio.sleep(0.1)


class Load:
    """Runs until it is cancelled. ``rate`` is in transfers per second of all senders together."""

    def __init__(self, devnet: Devnet, senders: list[str], rate: float) -> None:
        self.ledger = Ledger()
        self.jobs: list[str] = []
        self._devnet = devnet
        self._names = senders
        self._rate = rate
        self.senders: list[Sender] = []
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """What is being said is still brought to its end."""
        self._stopping.set()

    async def run(self) -> None:
        devnet = self._devnet
        keys = [devnet.key(name) for name in self._names]
        async with contextlib.AsyncExitStack() as stack:
            buses = []
            for number in range(3):
                buses.append(await JetStreamBus.connect(devnet.url, devnet.chain, name=f"load {number}"))
                stack.push_async_callback(buses[-1].close)
            for number, key in enumerate(keys):
                takers = [other.address for other in keys if other is not key]
                self.senders.append(Sender(buses[number % 3], key, takers, self.ledger))
            hearing = asyncio.create_task(self._hear_refusals(buses[1]))
            async with asyncio.TaskGroup() as group:
                for sender in self.senders:
                    group.create_task(self._keep_sending(sender))
                group.create_task(self._submit_jobs(buses[0]))
            hearing.cancel()

    async def _keep_sending(self, sender: Sender) -> None:
        """On schedule: after a stall it catches up, as far as the window allows."""
        began = time.monotonic()
        while not self._stopping.is_set():
            due = int((time.monotonic() - began) * self._rate / len(self._names))
            count = min(due - sender.used, BATCH, WINDOW - (sender.used - sender.final))
            if count >= min(8, BATCH):
                await sender.send(count)
            else:
                await asyncio.sleep(0.05)

    def note_final(self, sender: str, nonce: int) -> None:
        """An event of this address is in a final block."""
        for each in self.senders:
            if each.address == sender:
                each.final = max(each.final, nonce + 1)

    async def _submit_jobs(self, bus: Bus) -> None:
        """One after the other, half of them through the wallet."""
        client, wallet = Client(bus, self._devnet.key()), self._devnet.key(WALLET).address
        for number in itertools.count():
            if self._stopping.is_set():
                return
            if number % 2:
                self.jobs.append(await ask_wallet(bus, wallet, f"job-{number}", seeded_work(number)))
            else:
                job = client.job(seeded_work(number))
                while True:
                    with contextlib.suppress(BusError, TimedOut):
                        await client.submit(job)
                        break
                    await asyncio.sleep(0.1)
                self.ledger.acknowledged[job.id] = job
                self.jobs.append(job.id)
            await asyncio.sleep(JOB_EVERY_S)

    async def _hear_refusals(self, bus: JetStreamBus) -> None:
        async for message in bus.listen_live("*", "refused"):
            told = _refused.decode(message.data)
            if isinstance(told.event, str):
                self.ledger.refused.setdefault(told.event, code_of(told.refusal))
