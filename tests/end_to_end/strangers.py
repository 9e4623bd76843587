"""A network for those who mean no good: parties that say whatever they like, and hear what the network makes of it."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import nats
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from actors.backends.cpu import CpuBackend
from actors.devnet import Devnet
from actors.devnet_files import PARAMETERS
from actors.services.matmul import operands, row_root
from actors.services.npy import write_matrix
from bus.jetstream import JetStreamBus
from bus.port import FeedReader, LiveListener
from events import subjects
from events.canonical import canonical
from events.envelope import SignedEvent, parse, sign
from events.keys import Key
from events.receipts import sign_receipt
from projections.audit import audit_file
from projections.receipts import receipt_of
from schemas.blocks import Applied, Failed, Outcome, TimerFired
from schemas.events import (
    Body,
    Device,
    JobAssigned,
    JobCommitted,
    JobRevealed,
    JobSubmitted,
    MinerRegistered,
    Offer,
    Requirement,
    TransferSent,
)
from schemas.messages import EventRefused, FeedMessage, QueryAnswer, QueryRefused
from schemas.queries import AccountQuestion, BlockQuestion, JobQuestion, Question
from schemas.refusals import AnyRefusal
from schemas.services import MatmulInt8
from schemas.state import UNFINISHED, Job
from tests.end_to_end.client import Client, connect, export_log, job_fields

# Longer than anything that goes well takes, on a machine that is busy with other tests.
PATIENCE_S = 20.0
COINS = 2_000_000
# Somebody to send coins to, and somebody whom the network does not know.
FRIEND = Key(bytes(range(32)))
NOBODY = Key(b"\x07" * 32)
NO_JOB = "0" * 64
NO_SIGNATURE = "A" * 86
TERMS = msgspec.structs.replace(PARAMETERS, reveal_timeout_ms=5_000, max_attempts=2, min_gas_price=1)

_feed = msgspec.json.Decoder(FeedMessage)
_answers = msgspec.json.Decoder(QueryAnswer | QueryRefused)


class Heard(Struct, frozen=True):
    """One entry of a feed."""

    height: int
    outcome: Outcome
    event: Body | None


class JobValue(Struct):
    """What a node says about a job."""

    job: Job


class Party(Client):
    """An address with its ears open. Made by `Ground.party`."""

    def __init__(self, bus: JetStreamBus, key: Key, feed: FeedReader, refusals: LiveListener) -> None:
        super().__init__(bus, key)
        self._feed = feed
        self._refusals = refusals
        self._heard: list[Heard] = []
        self.since = 0

    @property
    def height(self) -> int:
        """Of the newest thing that is known to concern this address."""
        return self._heard[-1].height if self._heard else self.since

    async def close(self) -> None:
        await self._feed.close()
        await self._refusals.close()

    def signed(self, record: type[Body], **fields: Any) -> SignedEvent:
        """An event of this address with any of its fields as named, those that all events have too."""
        event = {"chain": self.bus.chain, "sender": self.address, "nonce": self.nonce, "gas_price": 1} | fields
        return sign(record(**event), self.key)

    def transfer(self, **fields: Any) -> dict[str, Any]:
        """The body of a good transfer, as JSON, with ``fields`` in place of its own."""
        return {
            "amount": 1,
            "chain": self.bus.chain,
            "gas_price": 1,
            "nonce": self.nonce,
            "sender": self.address,
            "to": FRIEND.address,
            "type": "transfer.sent",
        } | fields

    async def refusal(self, event_id: str | None = None) -> AnyRefusal:
        """The next refusal that the network tells this address: of one event, or of one that it could not read."""
        async with asyncio.timeout(PATIENCE_S):
            async for message in self._refusals:
                told = msgspec.json.decode(message.data, type=EventRefused)
                if message.topic == "refused" and told.event == (msgspec.UNSET if event_id is None else event_id):
                    assert told.hint
                    return told.refusal
        raise AssertionError("the listener is closed")

    async def hears(self, wanted: Callable[[Heard], bool]) -> Heard:
        """The first entry of this address' feed that is wanted."""
        known = 0
        async with asyncio.timeout(PATIENCE_S + 10):
            while True:
                for heard in self._heard[known:]:
                    if wanted(heard):
                        return heard
                known = len(self._heard)
                for record in await self._feed.next(64, 500):
                    message = _feed.decode(record.data)
                    for entry in message.entries:
                        event = parse(bytes(entry.event)).event if isinstance(entry.event, msgspec.Raw) else None
                        self._heard.append(Heard(message.height, entry.outcome, event))

    async def outcome(self, signed: SignedEvent) -> Applied | Failed:
        """What became of an event in its block."""
        heard = await self.hears(lambda heard: getattr(heard.outcome, "event", None) == signed.id)
        assert isinstance(heard.outcome, Applied | Failed)
        return heard.outcome

    async def say(self, record: type[Body], **fields: Any) -> Applied | Failed:
        """Signs the next event, submits it, and returns its outcome."""
        signed = self.sign(record, **fields)
        await self.submit(signed)
        return await self.outcome(signed)

    async def submit_job(self, work: MatmulInt8, **fields: Any) -> str:
        """Submits a job that is taken; returns its id."""
        signed = self.sign(JobSubmitted, **(job_fields(work) | fields))
        await self.submit(signed)
        assert isinstance(await self.outcome(signed), Applied)
        return signed.id

    async def ended(self, job: str) -> Job:
        """The job once it has ended."""

        def moves(heard: Heard) -> bool:
            about = heard.outcome.job if isinstance(heard.outcome, TimerFired) else getattr(heard.event, "job", None)
            return about == job and heard.height > height

        height = 0
        while True:
            height = (await self.hears(moves)).height
            found = await self.job_at(job, height)
            if not isinstance(found.situation, UNFINISHED):
                return found

    async def job_at(self, job: str, height: int) -> Job:
        """The job as it is at this height or later."""
        answer = await self.ask("job", JobQuestion(job=job, min_height=height))
        return msgspec.json.decode(answer.value, type=JobValue).job

    async def balance(self, height: int = 0) -> int:
        """At this height or later, at all that is known to concern it."""
        question = AccountQuestion(address=self.address, min_height=max(height, self.height))
        answer = await self.ask("account", question)
        balance: int = msgspec.json.decode(answer.value)["balance"]
        return balance

    async def last_block(self) -> dict[str, Any]:
        """What a node says about the newest block."""
        height = (await self.ask("status", Question(min_height=self.height))).height
        # Another node may answer, which is perhaps not that far yet.
        answer = await self.ask("block", BlockQuestion(height=height, min_height=height))
        block: dict[str, Any] = msgspec.json.decode(answer.value)
        return block

    async def ask(self, what: str, question: Any) -> QueryAnswer:
        """Any node."""
        answer = _answers.decode(await self.bus.query(what, canonical(question)))
        assert isinstance(answer, QueryAnswer), answer
        return answer


class Liar(Party):
    """A miner that gets jobs because it is cheapest, and then does what a test wants."""

    async def register(self, **fields: Any) -> Applied | Failed:
        """Takes up to four jobs at once at the lowest price there is."""
        offer = {
            "name": "liar",
            "capacity": 4,
            "devices": (Device(model="none", memory_mib=1_024),),
            "offers": (Offer(service="matmul.int8", unit_price=1),),
        }
        return await self.say(MinerRegistered, **(offer | fields))

    async def is_assigned(self, job: str) -> Heard:
        """Returns when the job is this miner's."""
        return await self.hears(
            lambda heard: (
                isinstance(heard.outcome, Applied)
                and isinstance(heard.event, JobAssigned)
                and (heard.event.job, heard.event.miner) == (job, self.address)
            )
        )

    async def commit(self, job: str, root: str, result: str, size: int) -> int:
        """Returns the height."""
        signed = self.sign(JobCommitted, job=job, root=root, result=result, size=size)
        await self.submit(signed)
        heard = await self.hears(lambda heard: getattr(heard.outcome, "event", None) == signed.id)
        assert isinstance(heard.outcome, Applied), heard
        return heard.height

    async def reveal(self, job: str, height: int) -> Applied | Failed:
        """With the right signature, whatever the result. ``height`` is that of the commitment."""
        receipt = receipt_of(job, await self.job_at(job, height), self.bus.chain)
        return await self.say(JobRevealed, job=job, receipt_sig=sign_receipt(receipt, self.key))


class Ground:
    """The network, someone with coins, and a raw connection of the stock client. Made by `open_ground`."""

    def __init__(self, devnet: Devnet, bus: JetStreamBus, raw: nats.NATS) -> None:
        self.devnet = devnet
        self.bus = bus
        self.raw = raw
        self.chain = devnet.chain
        self.honest = devnet.key("miner-1").address
        self._parties: list[Party] = []
        self.rich: Party

    async def party(self, coins: int = COINS, key: Key | None = None) -> Party:
        """Somebody new, with coins."""
        return await self._enter(Party, coins, key)

    async def liar(self) -> Liar:
        """A new registered miner, the cheapest there is."""
        liar = await self._enter(Liar, COINS, None)
        assert isinstance(await liar.register(), Applied)
        return liar

    async def _enter(self, kind: type[Any], coins: int, key: Key | None) -> Any:
        key = key or Key(secrets.token_bytes(32))
        refusals = self.bus.listen_live(key.address, "refused")
        await refusals.ready()
        party = kind(self.bus, key, await self.bus.read_feed(key.address, 0), refusals)
        self._parties.append(party)
        if coins:
            await self.fund(party.address, coins)
            party.since = self.rich.height
        return party

    async def fund(self, address: str, coins: int = COINS) -> None:
        """Gives it coins."""
        outcome = await self.rich.say(TransferSent, to=address, amount=coins)
        assert isinstance(outcome, Applied), outcome

    def only(self, *miners: str) -> Requirement:
        """A requirement that nobody else may take the job."""
        return Requirement(memory_mib=0, miners=miners)

    async def publish(self, owner: str, data: bytes) -> None:
        """Into an inbox, whatever it is."""
        await self.raw.jetstream().publish(subjects.inbox(self.chain, owner), data)

    async def inject(self, kind: str, data: bytes) -> None:
        """Into the log, as one who has access to it."""
        subject = subjects.block(self.chain) if kind == "block" else subjects.vote(self.chain)
        await self.raw.jetstream().publish(subject, data)

    async def goes_on(self) -> None:
        """A good transfer becomes final, and no process has had to be started again."""
        await self.fund(FRIEND.address, 1)
        names = self.devnet.plan.actors()
        assert {name: self.devnet.starts(name) for name in names} == dict.fromkeys(names, 1)
        assert None not in self.devnet.pids().values()

    async def leave(self) -> None:
        """Ends what one test has begun."""
        while self._parties:
            await self._parties.pop().close()

    async def close(self, directory: Path) -> None:
        """Audits all that was said. Raises AssertionError when that fails."""
        await export_log(self.bus, self.devnet, directory / "log.ndjson")
        report = audit_file(directory / "log.ndjson")
        assert report.passed
        await self.rich.close()
        await self.raw.close()
        await self.bus.close()


async def open_ground(devnet: Devnet) -> Ground:
    """On a devnet that is up."""
    ground = Ground(devnet, await connect(devnet), await nats.connect(devnet.url))
    ground.rich = await ground.party(coins=0, key=devnet.key())
    ground._parties.clear()
    return ground


def product_of(work: MatmulInt8) -> npt.NDArray[np.int32]:
    """The right result."""
    return CpuBackend().multiply(*operands(work, {})).copy()


def root_of(product: npt.NDArray[np.int32]) -> str:
    """What an honest miner commits to."""
    with ThreadPoolExecutor(1) as executor:
        return row_root(product, executor)


def written(path: Path, product: npt.NDArray[np.int32]) -> Path:
    """A result's file."""
    write_matrix(path, product)
    return path


async def gather(*awaitables: Awaitable[Any]) -> list[Any]:
    """All results, or the first failure once all have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
