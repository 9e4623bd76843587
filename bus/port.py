"""The port: all that an actor can do with the network.

Two implementations keep one contract: `bus.jetstream` (a NATS server) and `bus.simulated` (memory, for simulation).
Every method may raise `events.errors.BusError` of the kind that its docstring names; nothing else leaves an
implementation.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

ChainKind = Literal["block", "vote"]
Handler = Callable[[bytes], Awaitable[bytes]]


class Limits(Struct, frozen=True, kw_only=True):
    """The limits of the streams. INBOX's limits are those of the mempool.

    ``replicas`` is on how many servers of a cluster each stream is kept when it is made; what is there stays as it is.
    """

    replicas: int = 1
    inbox_messages: int = 100_000
    inbox_per_sender: int = 1_000
    inbox_bytes: int = 2**30
    inbox_age_s: int = 3_600
    event_bytes: int = 65_536
    block_bytes: int = 6_291_456
    feed_age_s: int = 7 * 86_400
    blob_bytes: int = 67_108_864 + 4_096
    blob_chunk_bytes: int = 262_144
    blob_age_s: int = 7 * 86_400
    blobs_total_bytes: int = 8 * 2**30


class InboxMessage(Struct, frozen=True):
    """An event as it waits. ``owner`` is the address in the subject, ``time_ns`` the server's stamp, ``token`` is for
    `settle`."""

    owner: str
    data: bytes
    time_ns: int
    token: str


class ChainMessage(Struct, frozen=True):
    """A message of the log. ``sequence`` starts at 1 and has no holes; ``time_ns`` is the server's stamp."""

    sequence: int
    kind: ChainKind
    data: bytes
    time_ns: int


class FeedRecord(Struct, frozen=True):
    """A message of the feed of one address; ``sequence`` is the position to go on from."""

    sequence: int
    data: bytes


class LiveMessage(Struct, frozen=True):
    """A message that is gone when nobody listens."""

    owner: str
    topic: str
    data: bytes


class LiveListener(Protocol):
    """For ``async for``. Open until `close`."""

    async def ready(self) -> None:
        """Returns when nothing that is told from now on is missed."""

    def __aiter__(self) -> AsyncIterator[LiveMessage]: ...

    async def __anext__(self) -> LiveMessage: ...

    async def close(self) -> None: ...


class InboxReader(Protocol):
    """One validator's view of all inboxes. What is not settled comes again after a while, and after a restart."""

    async def next(self, limit: int, wait_ms: int) -> list[InboxMessage]:
        """Up to ``limit`` messages as soon as there is one; none after ``wait_ms``."""

    async def settle(self, tokens: list[str]) -> None:
        """These are in a final block, or refused for good: free their places for this validator."""

    async def close(self) -> None: ...


class ChainReader(Protocol):
    """The log in order, without holes. Recreates what the server forgets by itself."""

    async def next(self, limit: int, wait_ms: int) -> list[ChainMessage]:
        """Up to ``limit`` messages as soon as there is one; none after ``wait_ms``. Raises SequenceGap."""

    async def close(self) -> None: ...


class FeedReader(Protocol):
    """The feed of one address in order; at least once."""

    async def next(self, limit: int, wait_ms: int) -> list[FeedRecord]:
        """Up to ``limit`` records as soon as there is one; none after ``wait_ms``."""

    async def close(self) -> None: ...


class Service(Protocol):
    """A door that is open until `close`."""

    async def close(self) -> None: ...


class Bus(Protocol):
    """A connection of one process to one chain's subjects."""

    chain: str
    limits: Limits

    async def set_up(self, genesis_hash: str, validators: tuple[str, ...]) -> None:
        """Creates the streams and the validators' inbox readers where they are missing, and compares all of their
        settings.

        The genesis hash is written into the streams' metadata. Raises WrongNetwork when they belong to another
        genesis or when a setting differs (names the setting).
        """

    async def submit(self, owner: str, data: bytes) -> None:
        """Publishes to the owner's inbox and waits until it is stored. Raises InboxFull, MessageTooLarge,
        Unreachable."""

    async def submit_many(self, messages: list[tuple[str, bytes]]) -> list[Exception | None]:
        """Like `submit`, with many acknowledgements in flight; one entry per message, None where it is stored."""

    async def read_inboxes(self, validator: str) -> InboxReader:
        """Opens the validator's reader, which starts with everything that is still stored and unsettled.

        Makes it anew when it was retired. Raises Unreachable when nobody has set up the chain, WrongNetwork.
        """

    async def retire_reader(self, validator: str) -> None:
        """Removes the reader of a validator that is gone: what only it has not settled is freed.

        Until then each message that it never settles keeps its place, and in the end every sender's places are taken.
        With the last reader gone, what is submitted is dropped.
        """

    async def append(self, kind: ChainKind, data: bytes, after_block: int | None = None) -> int:
        """Appends to the log and returns the sequence.

        With ``after_block``, only if the last block in the log has this sequence (0: there is none). Raises
        FenceRefused, MessageTooLarge, Unreachable. An Unreachable may have been stored: read the log.
        """

    async def read_chain(self, after: int) -> ChainReader:
        """Reads the log from the message after sequence ``after``. Raises SequenceGap when the log is shorter than
        ``after``."""

    async def chain_end(self) -> int:
        """The sequence of the log's last message, 0 when it is empty."""

    async def publish_feed(self, messages: list[tuple[str, str, bytes]]) -> None:
        """Stores (address, key, data); a key that was stored in the last two minutes is stored once."""

    async def read_feed(self, address: str, after: int) -> FeedReader:
        """Reads the feed of an address from the message after sequence ``after``, or from the end if that comes
        before."""

    async def publish_live(self, owner: str, topic: str, data: bytes) -> None:
        """Tells whoever listens now."""

    def listen_live(self, owner: str = "*", topic: str = "*") -> LiveListener:
        """What is told from now on, or surely from the end of `LiveListener.ready`. Slow listeners lose the oldest."""

    async def serve_queries(self, handlers: dict[str, Handler], version: str) -> Service:
        """Answers questions by name, as one of possibly many nodes. A handler's exception other than AssayError is a
        bug."""

    async def query(self, what: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        """Asks one node. Raises Unreachable when nobody answers, TimedOut."""

    async def serve_wallet(self, address: str, handler: Handler) -> Service:
        """Answers unsigned requests for one wallet."""

    async def ask_wallet(self, address: str, data: bytes, timeout_ms: int = 5_000) -> bytes:
        """Asks a wallet. Raises Unreachable, TimedOut."""

    async def put_blob(self, owner: str, source: Path, progress: Callable[[int], None] | None = None) -> str:
        """Uploads a file in chunks under its digest, which is returned. ``progress`` gets bytes stored so far.

        Already stored under this owner: nothing is sent. Raises MessageTooLarge above the limit of blobs.
        """

    async def get_blob(
        self, owner: str, digest: str, target: Path, timeout_ms: int, progress: Callable[[int], None] | None = None
    ) -> int:
        """Downloads into ``target`` (written beside it, renamed when right) and returns the size in bytes.

        Raises BlobUnavailable when chunks are missing after ``timeout_ms``, BlobMismatch when the bytes have another
        digest.
        """

    async def close(self) -> None: ...


class Clock(Protocol):
    """Time for those that may know it: actors, never rules."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""

    async def sleep_ms(self, duration_ms: int) -> None: ...
