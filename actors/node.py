"""A full node: follows CHAIN, believes only what it executes itself, keeps the read model, answers questions.

One per process. A message of the log goes through three stations, each at its own pace:

    CHAIN ── fold ──┬── observers, followers        at once, in memory
                    └── rows ── queries, feed       a few milliseconds later, in batches, in another thread

So `Node.state` may be ahead of the read model, never behind it. After a crash the fold starts again at the rows, and
whoever listens hears again of the blocks whose rows were not written yet. When the log is wrong (Divergence) or has a
hole the node stops: `join` raises, and so does every wait. What it does at its next start with a log that has lost its
newest messages is told in `actors.lost_tail`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from actors.clock import backoff_ms
from actors.feed import Feed
from actors.lost_tail import first_lost, is_vote_for
from actors.milestone import Milestone
from actors.queries import Queries
from bus.port import Bus, ChainMessage, ChainReader, Clock, Service
from events.blocks import genesis_hash
from events.errors import AssayError, Divergence, SequenceGap, TimedOut, Unreachable
from projections.chain import Chain
from projections.chain import Final as FinalBlock
from projections.contest import Candidate
from projections.read_model import ReadModel, Restored
from projections.read_model_kept import Kept, kept_blocks
from projections.state import State
from schemas.blocks import Header
from schemas.genesis import Genesis

READ_BATCH: Final = 256
READ_WAIT_MS: Final = 1_000
# Blocks that are folded and not yet written are held in memory up to so many bytes; then the fold waits.
MAX_UNWRITTEN_BYTES: Final = 16 * 2**20
MAX_TRANSACTION_BYTES: Final = 4 * 2**20

log = structlog.get_logger()


class Observer(Protocol):
    """Is told in line with the fold: quick, or the node falls behind. What it raises stops the node."""

    async def on_candidate(self, candidate: Candidate) -> None:
        """A valid block for the next height has come, the first in the log."""

    async def on_final(self, final: FinalBlock) -> None:
        """A block is final and the state has moved on."""


class _Unwritten:
    """Folded blocks on their way into the read model, each with the place in CHAIN to go on from after it."""

    def __init__(self, final: FinalBlock, last_block: int) -> None:
        self.final = final
        self.last_block = last_block


class Node:
    """Made, then `start`ed, `stop`ped once. All of it runs on one event loop; only SQLite has threads of its own."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        genesis: Genesis,
        path: Path,
        *,
        verified: Callable[[str], bool] | None = None,
        threads: int = 1,
        serve_queries: bool = False,
        publish_feed: bool = False,
        version: str = "0.1.0",
    ) -> None:
        """``path`` is the read model's file. ``verified`` and ``threads`` are those of `projections.chain.Chain`."""
        self.bus: Final = bus
        self.clock: Final = clock
        self.genesis: Final = genesis
        self.path: Final = path
        self._verified = verified
        self._threads = threads
        self._serve_queries = serve_queries
        self._publish_feed = publish_feed
        self._version = version
        self._observers: list[Observer] = []
        self._followers: list[asyncio.Queue[FinalBlock]] = []
        self._unwritten: list[_Unwritten] = []
        self._unwritten_bytes = 0
        self._to_write = asyncio.Event()
        self._stopping = asyncio.Event()
        self._service: Service | None = None
        self._running: asyncio.Task[None] | None = None
        self.chain: Chain
        self.read_model: ReadModel
        self.feed: Feed | None = None
        self.position = 0
        self.last_block = 0
        self.kept: dict[int, Kept] = {}
        self._held = 0
        self._newest: tuple[bytes, int] | None = None
        self._compared = 0
        self.folded = Milestone(0)
        self.written = Milestone(0)
        self._followed = Milestone(0)

    @property
    def state(self) -> State:
        """The state after the newest final block. Read it without an await in between."""
        return self.chain.state

    @property
    def head(self) -> Header | None:
        """The newest final block's header; None at the genesis."""
        return self.chain.head

    @property
    def height(self) -> int:
        """The newest final block's height."""
        return self.chain.height

    def observe(self, observer: Observer) -> None:
        """Tells the observer of everything from now on. Best called before `start`."""
        self._observers.append(observer)

    def follow(self, capacity: int = 64) -> asyncio.Queue[FinalBlock]:
        """A queue of all final blocks from now on. When it is full the node waits: who follows must keep taking."""
        queue: asyncio.Queue[FinalBlock] = asyncio.Queue(capacity)
        self._followers.append(queue)
        return queue

    def unfollow(self, queue: asyncio.Queue[FinalBlock]) -> None:
        """Ends `follow`; a node that waits for room in the queue goes on."""
        self._followers.remove(queue)
        while not queue.empty():
            queue.get_nowait()

    async def start(self) -> None:
        """Sets up or checks the streams, takes up where the read model stands, and follows the log from there.

        Raises WrongNetwork for streams or a file of another genesis, VerificationFailed for a damaged file,
        Unreachable.
        """
        validators = tuple(validator.address for validator in self.genesis.validators)
        await self.bus.set_up(genesis_hash(self.genesis), validators)
        self.read_model = await ReadModel.open(self.path, self.genesis)
        try:
            restored = await self.read_model.restore()
            self.chain = self._chain(restored)
            lost = await first_lost(self.bus, self.clock, self.read_model, restored, self.chain.head_hash)
            if lost is not None:
                log.warning("the log has lost its newest messages", kept_from=lost, kept_to=self.height)
                await self.read_model.start_over(lost)
                restored = await self.read_model.restore()
                self.chain = self._chain(restored)
            self.kept = await self.read_model.read(kept_blocks)
            self._held = max((each.height for each in self.kept.values() if each.final), default=0)
            self.position, self.last_block = restored.position, restored.last_block
            self.folded.advance(self.height)
            self.written.advance(self.height)
            self._followed.advance(self.position)
            reader = await self._open_log()
            if self._serve_queries and self._held <= self.height:
                self._service = await self.bus.serve_queries(Queries(self).handlers(), self._version)
        except AssayError:
            await self.read_model.close()
            raise
        if self._publish_feed:
            self.feed = Feed(self.bus, self.clock, self.read_model, self.written)
        self._running = asyncio.create_task(self._run(reader), name="node")

    async def _open_log(self) -> ChainReader:
        """From the message on that was taken last: it has to be the same as before.

        A server that has lost its newest messages uses their sequences again. Raises SequenceGap when the log is
        shorter than it was.
        """
        reader = await self.bus.read_chain(self.position)
        if self.position == 0:
            return reader
        await reader.close()
        self._compared = self.position
        return await self.bus.read_chain(self.position - 1)

    def _compare(self, message: ChainMessage) -> None:
        """Without its bytes, the last message is known to be the vote that made the head final."""
        self._compared = 0
        if self._newest is None:
            same, what = is_vote_for(message, self.chain.head_hash), f"the vote that made block {self.height} final"
        else:
            # A vote that is said again has the same bytes, and another time.
            same, what = (message.data, message.time_ns) == self._newest, "what was read before"
        if not same:
            raise SequenceGap(
                "the log was rewritten",
                why=f"message {message.sequence} is not {what}",
                hint="The server lost or replaced messages. Start the node again: it keeps what the log has lost.",
            )

    def _chain(self, restored: Restored) -> Chain:
        return Chain(
            self.genesis,
            state=restored.state,
            head=restored.head,
            commit=restored.votes,
            verified=self._verified,
            threads=self._threads,
        )

    async def stop(self) -> None:
        """Writes what is folded, and closes. Raises nothing for a node that has failed: `join` does."""
        if self._running is None:
            return
        self._stopping.set()
        self._to_write.set()
        await asyncio.wait([self._running])
        if not self._running.cancelled():
            self._running.exception()  # seen: it is `join` that raises it
        if self._service is not None:
            await self._service.close()
        await self.read_model.close()

    async def join(self) -> None:
        """Returns when the node is stopped; raises what it fails with."""
        if self._running is None:
            raise AssertionError("the node has not been started")
        await asyncio.shield(self._running)

    async def wait_height(self, height: int) -> None:
        """Returns once the block of this height is final here."""
        await self.folded.reached(height)

    async def wait_written(self, height: int) -> None:
        """Returns once the block of this height can be asked for in the read model."""
        await self.written.reached(height)

    async def catch_up(self) -> None:
        """Returns once everything is folded that CHAIN held when this was called, and every block that was final here
        before the log lost it. Raises Unreachable."""
        await self.read_up()
        await self.folded.reached(self._held)

    async def read_up(self) -> None:
        """Returns once everything is folded that CHAIN held when this was called. Raises Unreachable."""
        await self._followed.reached(await self.bus.chain_end())

    async def _run(self, reader: ChainReader) -> None:
        """The node's tasks, until one fails or the node is stopped; then the others end too."""
        reading = asyncio.create_task(self._read(reader), name="node-read")
        writing = asyncio.create_task(self._write(), name="node-write")
        stopping = asyncio.create_task(self._stopping.wait(), name="node-stop")
        tasks: list[asyncio.Task[Any]] = [reading, writing, stopping]
        if self._serve_queries and self._service is None:
            tasks.append(asyncio.create_task(self._serve_when_whole(), name="node-serve"))
        if self.feed is not None:
            tasks.append(asyncio.create_task(self.feed.run(), name="node-feed"))
        failure: BaseException | None = None
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            if self._stopping.is_set():
                await asyncio.wait([writing])
            failures = [task.exception() for task in tasks if task.done() and not task.cancelled()]
            failure = next((error for error in failures if error is not None), None)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for milestone in (self.folded, self.written, self._followed):
                milestone.fail(failure or Unreachable("the node is stopped", hint="Start it again."))
        if failure is not None:
            raise failure

    async def _serve_when_whole(self) -> None:
        """No answer is older than what this node has answered before the log lost something."""
        await self.folded.reached(self._held)
        failures = 0
        while self._service is None:
            try:
                self._service = await self.bus.serve_queries(Queries(self).handlers(), self._version)
            except (Unreachable, TimedOut):
                await self.clock.sleep_ms(backoff_ms(failures))
                failures += 1
        await self._stopping.wait()

    async def _read(self, reader: ChainReader) -> None:
        """Follows the log, and takes it up again when the connection was lost."""
        failures = 0
        while True:
            try:
                try:
                    while True:
                        for message in await reader.next(READ_BATCH, READ_WAIT_MS):
                            await self._take(message)
                        failures = 0
                finally:
                    await reader.close()
            except (Unreachable, TimedOut):
                await self.clock.sleep_ms(backoff_ms(failures))
                failures += 1
            reader = await self._reopened()

    async def _reopened(self) -> ChainReader:
        failures = 0
        while True:
            try:
                return await self._open_log()
            except (Unreachable, TimedOut):
                await self.clock.sleep_ms(backoff_ms(failures))
                failures += 1

    async def _take(self, message: ChainMessage) -> None:
        if message.sequence == self._compared:
            self._compare(message)
        if message.sequence <= self.position:
            return
        if message.sequence != self.position + 1:
            raise SequenceGap(
                f"the log has a hole after message {self.position}",
                why=f"the next one is {message.sequence}",
                hint="Compare with another copy of the log; a copy that is whole can be replayed from its export.",
            )
        before = self.chain.candidate
        final = self.chain.add(message.sequence, message.kind, message.data, message.time_ns)
        self.position, self._newest = message.sequence, (message.data, message.time_ns)
        if message.kind == "block":
            self.last_block = message.sequence
        if final is not None:
            await self._take_final(final)
        elif self.chain.candidate is not None and self.chain.candidate is not before:
            for observer in self._observers:
                await observer.on_candidate(self.chain.candidate)
        self._followed.advance(self.position)

    async def _take_final(self, final: FinalBlock) -> None:
        before = self.kept.pop(final.header.height, None)
        if before is not None and before.final and before.hash != final.hash:
            raise Divergence(
                final.header.height,
                f"its block is {final.hash}; before the log lost messages, {before.hash} was final here",
            )
        self._unwritten.append(_Unwritten(final, self.last_block))
        self._unwritten_bytes += len(final.block_bytes)
        self._to_write.set()
        self.folded.advance(final.header.height)
        for observer in self._observers:
            await observer.on_final(final)
        for queue in tuple(self._followers):
            await queue.put(final)
        while self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
            await self.written.reached(self.written.value + 1)
        # Executing a large block takes a while: let the others run before the next.
        await asyncio.sleep(0)

    async def _write(self) -> None:
        """Writes what has been folded, several small blocks in one transaction. Ends when the node stops."""
        while True:
            if not self._unwritten:
                if self._stopping.is_set():
                    return
                self._to_write.clear()
                await self._to_write.wait()
                continue
            batch: list[_Unwritten] = []
            size = 0
            for waiting in self._unwritten:
                size += len(waiting.final.block_bytes)
                if batch and size > MAX_TRANSACTION_BYTES:
                    break
                batch.append(waiting)
            newest = batch[-1]
            await self.read_model.write(
                [waiting.final for waiting in batch], newest.final.commit_sequence, newest.last_block
            )
            del self._unwritten[: len(batch)]
            self._unwritten_bytes -= sum(len(waiting.final.block_bytes) for waiting in batch)
            self.written.advance(newest.final.header.height)
