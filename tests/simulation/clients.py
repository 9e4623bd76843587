"""Those who want something: clients that sign for themselves, and clients that ask the wallet.

They use nothing of the actors: a signer numbers its own events and says each again until a final block holds it.
"""

import asyncio
from hashlib import sha256
from random import Random
from typing import Any

import msgspec
import numpy as np

from events.canonical import canonical
from events.envelope import SignedEvent, sign
from events.errors import AssayError, BusError, TimedOut
from schemas.events import JobCancelled, JobSubmitted, Requirement, TransferSent
from schemas.messages import FeedMessage, WalletRequest
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix
from tests.projections.small_network import key_of
from tests.simulation.plan import CHAIN
from tests.simulation.world import SimulatedHost, World

AGAIN_MS = 3_000
_feed = msgspec.json.Decoder(FeedMessage)


class Signer:
    """Wants transfers and jobs, all with its own key. ``wanted`` are its events by id that must become final."""

    def __init__(self, name: str, transfers: int, jobs: int, everybody: list[str]) -> None:
        self.name = name
        self.wanted: dict[str, SignedEvent] = {}
        self.left = transfers + jobs
        self._jobs = jobs
        self._everybody = everybody
        self._nonce = 0
        self._final: set[str] = set()
        self._stored: set[str] = set()

    async def run(self, host: SimulatedHost, stop: asyncio.Event) -> None:
        """Begins anew after a crash: what it has signed is on its disk, what it has heard is not."""
        random = host.world.random(self.name)
        self._final.clear()
        self._stored.clear()
        follow = asyncio.create_task(self._follow(host))
        try:
            while self.left:
                await host.clock.sleep_ms(random.choice((0, 10, 100, 1_000, 3_000)))
                burst = min(self.left, random.choice((1, 1, 2, 5)))
                said = [signed for _ in range(burst) for signed in await self._want(host, random)]
                random.shuffle(said)
                await asyncio.gather(*(self._submit(host, signed) for signed in said))
            while True:
                await host.clock.sleep_ms(AGAIN_MS)
                await self._again(host)
        finally:
            follow.cancel()

    def done(self, places: dict[str, int]) -> bool:
        """Whether everything that it wanted is in a final block."""
        return not self.left and all(name in places for name in self.wanted)

    async def _want(self, host: SimulatedHost, random: Random) -> list[SignedEvent]:
        """Signs the next thing, sometimes with a second one about it."""
        self.left -= 1
        if self.left >= self._jobs:
            amount = random.choice((1, 1_000, 50_000_000, 2_000_000_000))
            to = key_of(random.choice(self._everybody)).address
            return [self._sign(host, TransferSent, to=to, amount=amount, memo=f"{self.name} {self.left}")]
        job = self._sign(
            host,
            JobSubmitted,
            work=await work_of(host, random),
            escrow=random.choice((100, 1_000_000)),
            lifetime_ms=random.choice((2_000, 30_000, 60_000)),
            timeout_ms=random.choice((2_000, 10_000)),
            requirement=Requirement(memory_mib=0),
        )
        if random.random() < 0.2:
            return [job, self._sign(host, JobCancelled, job=job.id)]
        return [job]

    def _sign(self, host: SimulatedHost, record: Any, **fields: Any) -> SignedEvent:
        event = record(chain=CHAIN, sender=host.key.address, nonce=self._nonce, gas_price=1, **fields)
        self._nonce += 1
        signed = sign(event, host.key)
        self.wanted[signed.id] = signed
        host.world.tell("wants", self.name, signed.event.__struct_config__.tag, signed.event.nonce, signed.id[:12])
        return signed

    async def _submit(self, host: SimulatedHost, signed: SignedEvent) -> None:
        try:
            await host.bus.submit(host.key.address, signed.raw)
            self._stored.add(signed.id)
        except BusError as error:
            host.world.tell("not stored", self.name, signed.id[:12], type(error).__name__)

    async def _again(self, host: SimulatedHost) -> None:
        """Says again what is not final, as far as the client knows; of that the oldest."""
        plan = host.world.plan
        keeps = plan.inbox_age_s >= 3_600 and plan.scenario not in {"lost mail", "lost tail"}
        known = self._final | self._stored if plan.trusting and keeps else self._final
        for signed in [signed for signed in self.wanted.values() if signed.id not in known][:20]:
            await self._submit(host, signed)

    async def _follow(self, host: SimulatedHost) -> None:
        """Its own feed says what is final."""
        position = 0
        while True:
            try:
                reader = await host.bus.read_feed(host.key.address, position)
                while True:
                    for record in await reader.next(16, 1_000):
                        position = record.sequence
                        for entry in _feed.decode(record.data).entries:
                            if event := getattr(entry.outcome, "event", None):
                                self._final.add(event)
            except (BusError, TimedOut):
                await host.clock.sleep_ms(500)


class Prober(Signer):
    """Wants one job that can be done, after all the trouble; asked to, another one."""

    job = ""

    def __init__(self) -> None:
        super().__init__("prober", transfers=0, jobs=1, everybody=[])

    async def run(self, host: SimulatedHost, stop: asyncio.Event) -> None:
        self.want_a_job(host)
        while True:
            await self._again(host)
            await host.clock.sleep_ms(AGAIN_MS)

    def want_a_job(self, host: SimulatedHost) -> None:
        """Signs it; `run` says it."""
        self.job = self._sign(
            host,
            JobSubmitted,
            work=MatmulInt8(
                a=SeededMatrix(rows=1, columns=1, seed="0" * 64), b=SeededMatrix(rows=1, columns=1, seed="1" * 64)
            ),
            escrow=1_000_000,
            lifetime_ms=60_000,
            timeout_ms=10_000,
            requirement=Requirement(memory_mib=0),
        ).id

    def found(self, world: World) -> str:
        """What has become of the job."""
        world.read_log()
        job = world.books.keeper.jobs.get(self.job)
        return "not in the log" if job is None else job["state"]

    def is_settled(self, world: World) -> bool:
        return self.found(world) == "settled"


class Asker:
    """Wants transfers of the wallet, each under a key of its own, which is also the memo."""

    def __init__(self, name: str, transfers: int, everybody: list[str]) -> None:
        self.name = name
        self.wanted = [f"{name} {number}" for number in range(transfers)]
        self.answered: dict[str, str] = {}
        self._everybody = everybody
        self._requests: dict[str, bytes] = {}

    async def run(self, host: SimulatedHost, stop: asyncio.Event) -> None:
        """Begins anew after a crash: it asks for everything again, in the same words."""
        random = host.world.random(self.name)
        for key in self.wanted:
            await host.clock.sleep_ms(random.choice((0, 10, 300, 2_000)))
            if key not in self._requests:
                to = key_of(random.choice(self._everybody)).address
                event = {"type": "transfer.sent", "to": to, "amount": random.randint(1, 5_000), "memo": key}
                self._requests[key] = canonical(WalletRequest(key=key, event=msgspec.Raw(msgspec.json.encode(event))))
            asking = [self._ask(host, key, self._requests[key]) for _ in range(random.choice((1, 1, 2)))]
            await asyncio.gather(*asking)
        await asyncio.Event().wait()

    async def _ask(self, host: SimulatedHost, key: str, request: bytes) -> None:
        """Until the wallet answers; asked twice, it must answer the same."""
        while True:
            try:
                answer = msgspec.json.decode(await host.bus.ask_wallet(key_of("wallet").address, request, 2_000))
            except (BusError, TimedOut, AssayError):
                await host.clock.sleep_ms(700)
                continue
            host.world.tell("answer", self.name, key, str(answer)[:160])
            if answer["answer"] == "signed":
                if self.answered.setdefault(key, answer["event"]) != answer["event"]:
                    host.world.violate("wallet", f"the wallet has signed two events for {key}")
                return
            if answer["problem"]["code"] not in {"UNREACHABLE", "WALLET_BUSY"}:
                host.world.violate("wallet", f"the wallet refused {key}: {answer['problem']}")
                return
            await host.clock.sleep_ms(700)

    def done(self, memos: dict[str, int]) -> bool:
        """Whether each wish is in a final block."""
        return len(self.answered) == len(self.wanted) and all(memos[key] for key in self.wanted)


async def work_of(host: SimulatedHost, random: Random) -> MatmulInt8:
    """A small product: its operands from seeds, or from blobs, of which some are missing or malformed."""
    side = random.randint(1, 3)
    operands: list[BlobMatrix | SeededMatrix] = []
    for _ in range(2):
        lot = random.random()
        seed = sha256(random.randbytes(8)).hexdigest()
        if lot < 0.7:
            operands.append(SeededMatrix(rows=side, columns=side, seed=seed))
            continue
        data = _matrix_file(host, side, random)
        if lot < 0.8:
            data.write_bytes(data.read_bytes()[:-1])
        digest = sha256(data.read_bytes()).hexdigest()
        if lot < 0.95:
            host.world.loop.create_task(_upload(host, data))
        operands.append(BlobMatrix(rows=side, columns=side, digest=digest))
    return MatmulInt8(a=operands[0], b=operands[1])


def _matrix_file(host: SimulatedHost, side: int, random: Random) -> Any:
    path = host.disk.folder / f"{random.randrange(10**9)}.npy"
    values = np.frombuffer(random.randbytes(side * side), dtype=np.int8)
    np.save(path, values.reshape(side, side))
    return path


async def _upload(host: SimulatedHost, path: Any) -> None:
    while True:
        try:
            await host.bus.put_blob(host.key.address, path)
            return
        except BusError:
            await host.clock.sleep_ms(500)
