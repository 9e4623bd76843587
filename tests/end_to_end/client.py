"""What a client of a network does: sign, submit, ask the wallet, and follow the log."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from actors.devnet import Devnet
from bus.jetstream import JetStreamBus
from bus.port import Bus, ChainMessage
from events.canonical import canonical
from events.envelope import SignedEvent, sign
from events.errors import BusError, TimedOut
from events.keys import Key
from projections.audit import Auditor
from projections.log_file import LogWriter
from schemas.events import Body, JobSubmitted, Requirement
from schemas.messages import WalletAnswer, WalletRequest, WalletSigned
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix
from tests.end_to_end.bookkeeper import Bookkeeper

ESCROW = 10_000
WALLET_PATIENCE_MS = 1_000

_wallet_answers = msgspec.json.Decoder(WalletAnswer)


async def connect(devnet: Devnet, name: str = "client") -> JetStreamBus:
    """A connection of its own."""
    return await JetStreamBus.connect(devnet.url, devnet.chain, name=name)


def seeded_work(number: int, side: int = 16) -> MatmulInt8:
    """A small product of two matrices that nobody has to upload; another one for every number."""
    a, b = (SeededMatrix(rows=side, columns=side, seed=f"{2 * number + which:064x}") for which in range(2))
    return MatmulInt8(a=a, b=b)


async def uploaded_work(bus: Bus, owner: str, directory: Path, number: int, side: int = 32) -> MatmulInt8:
    """A small product of two matrices that have been uploaded by ``owner``."""
    matrices = []
    for which in range(2):
        path = directory / f"{number}-{which}.npy"
        values = np.random.default_rng((number, which)).integers(-128, 128, (side, side), dtype=np.int8)
        np.save(path, values)
        matrices.append(BlobMatrix(rows=side, columns=side, digest=await bus.put_blob(owner, path)))
    return MatmulInt8(a=matrices[0], b=matrices[1])


class Client:
    """One address, its nonces, and what it signs."""

    def __init__(self, bus: Bus, key: Key, nonce: int = 0) -> None:
        self.bus = bus
        self.key = key
        self.nonce = nonce

    @property
    def address(self) -> str:
        return self.key.address

    def sign(self, record: type[Body], **fields: Any) -> SignedEvent:
        """The next event of this address."""
        event = record(chain=self.bus.chain, sender=self.address, nonce=self.nonce, gas_price=1, **fields)
        self.nonce += 1
        return sign(event, self.key)

    def job(self, work: MatmulInt8) -> SignedEvent:
        """A job with room for a few attempts."""
        return self.sign(JobSubmitted, **job_fields(work))

    async def submit(self, *events: SignedEvent) -> None:
        """Raises what the first event that was not stored failed with."""
        for fate in await self.bus.submit_many([(self.address, signed.raw) for signed in events]):
            if fate is not None:
                raise fate


def job_fields(work: MatmulInt8) -> dict[str, Any]:
    """The fields of a `JobSubmitted` beside those of every event."""
    return {
        "work": work,
        "escrow": ESCROW,
        "lifetime_ms": 120_000,
        "timeout_ms": 30_000,
        "requirement": Requirement(memory_mib=0),
    }


async def ask_wallet(bus: Bus, wallet: str, key: str, work: MatmulInt8) -> str:
    """Has a wallet sign a job; asks again with the same key until there is an answer. Returns the job's id."""
    fields = {"type": "job.submitted"} | job_fields(work)
    request = canonical(WalletRequest(event=msgspec.Raw(canonical(fields)), key=key))
    while True:
        with contextlib.suppress(BusError, TimedOut):
            answer = _wallet_answers.decode(await bus.ask_wallet(wallet, request, WALLET_PATIENCE_MS))
            if isinstance(answer, WalletSigned):
                return answer.event
            if answer.problem.code != "UNREACHABLE":
                raise AssertionError(f"the wallet refused: {answer.problem}")
        await asyncio.sleep(0.05)


class Follower:
    """Reads the whole log in the background, and keeps the second set of books. ``async with``."""

    def __init__(self, bus: Bus, devnet: Devnet) -> None:
        self._bus = bus
        self.books = Bookkeeper(json.loads(canonical(devnet.genesis)))
        self.messages: list[ChainMessage] = []
        # When each final block was heard of, by the monotonic clock, with what it said.
        self.heard: list[tuple[float, dict[str, Any]]] = []
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self) -> None:
        reader = await self._bus.read_chain(0)
        try:
            while True:
                for message in await reader.next(256, 1_000):
                    self.messages.append(message)
                    block = self.books.add(message.kind, message.data)
                    if block is not None:
                        self.heard.append((time.monotonic(), block))
                async with self._changed:
                    self._changed.notify_all()
        finally:
            await reader.close()

    async def until(self, reached: Callable[[Bookkeeper], bool], timeout_s: float, what: str = "") -> None:
        """Returns when the books say so. Raises AssertionError when they do not in time."""

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: self._task.done() or reached(self.books))

        try:
            await asyncio.wait_for(wait(), timeout_s)
        except TimeoutError as error:
            raise AssertionError(f"not within {timeout_s} s: {what}; {self.books.unfinished}") from error
        if self._task.done():
            self._task.result()

    async def until_ended(self, jobs: Sequence[str], timeout_s: float) -> None:
        """Returns when all these jobs have ended."""
        await self.until(
            lambda books: all(books.ends.get(job) for job in jobs), timeout_s, f"the end of {len(jobs)} jobs"
        )

    async def until_height(self, height: int, timeout_s: float) -> None:
        """Returns when the block of this height is final."""
        await self.until(lambda books: books.height >= height, timeout_s, f"height {height}")

    def longest_pause_s(self, since: float, until: float) -> float:
        """The longest time without a final block between two moments of the monotonic clock."""
        times = [since, *(at for at, _ in self.heard if since < at < until), until]
        return max(after - before for before, after in pairwise(times))


async def export_log(bus: Bus, devnet: Devnet, path: Path) -> None:
    """Writes the whole log, as ``assay log export`` does."""
    end = await bus.chain_end()
    auditor = Auditor(devnet.genesis)
    reader = await bus.read_chain(0)
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
