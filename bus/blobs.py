"""Blobs over JetStream: streamed both ways, with a few MiB in flight."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from nats.aio.msg import Msg

from bus.blob_files import Assembly, Chunk, SourceFile, chunk_header, chunk_of, part_of, source_file
from bus.connection import Connection
from bus.port import Limits
from bus.publishing import Outgoing, Publisher
from bus.pulling import Position
from bus.readers import FilteredReader, stream_state
from bus.streams import blob_message_bytes
from events import subjects
from events.errors import BusError, InboxFull

WINDOW_CHUNKS = 8
BATCH = 16
UPLOAD_TIMEOUT_S = 30.0
CHECK_MS = 2_000

Progress = Callable[[int], None]


class Blobs:
    """The blobs of one chain."""

    def __init__(self, connection: Connection, publisher: Publisher, chain: str, limits: Limits) -> None:
        self._connection = connection
        self._publisher = publisher
        self._chain = chain
        self._limits = limits
        self._stream = subjects.stream(chain, "BLOBS")
        self._window = 2 * blob_message_bytes(limits)

    async def put(self, owner: str, source: Path, progress: Progress | None) -> str:
        """See `bus.port.Bus.put_blob`."""
        file = await source_file(source, self._limits)
        if await self._is_stored(owner, file):
            if progress is not None:
                progress(file.size)
            return file.digest
        subject = subjects.blob(self._chain, owner, file.digest)
        window: list[Outgoing] = []
        stored = 0
        async for chunk in file.chunks():
            window.append(Outgoing(subject, chunk.data, chunk_header(chunk)))
            if len(window) == WINDOW_CHUNKS or chunk.index == chunk.count - 1:
                for fate in await self._publisher.publish(window, again=True, timeout_s=UPLOAD_TIMEOUT_S):
                    _raise_refusal(fate)
                stored += sum(len(message.data) for message in window)
                window.clear()
                if progress is not None:
                    progress(stored)
        return file.digest

    async def _is_stored(self, owner: str, file: SourceFile) -> bool:
        """Whether a reader would get the right bytes; looks closer only when as many chunks are there."""
        subject = subjects.blob(self._chain, owner, file.digest)
        info = await stream_state(self._connection, self._chain, "BLOBS", subject)
        if (info["state"].get("subjects") or {}).get(subject, 0) < file.count:
            return False
        assembly = Assembly(file.digest, None, self._limits.blob_bytes)
        return await self._assemble(owner, file.digest, assembly, CHECK_MS, None)

    async def get(self, owner: str, digest: str, target: Path, timeout_ms: int, progress: Progress | None) -> int:
        """See `bus.port.Bus.get_blob`."""
        assembly = Assembly(digest, part_of(target), self._limits.blob_bytes)
        try:
            if not await self._assemble(owner, digest, assembly, timeout_ms, progress):
                raise assembly.shortfall(digest, timeout_ms)
            assembly.finish(target)
        finally:
            assembly.abandon()
        return assembly.size

    async def _assemble(
        self, owner: str, digest: str, assembly: Assembly, timeout_ms: int, progress: Progress | None
    ) -> bool:
        """Whether the right blob came within the time. Wrong ones do not end it: a right upload may follow."""
        subject = subjects.blob(self._chain, owner, digest)
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        while True:
            reader = FilteredReader(
                self._connection,
                self._stream,
                subject,
                assembly.restart_after,
                _chunk,
                batch=BATCH,
                max_bytes=self._window,
            )
            await reader.start()
            try:
                right = await self._read(reader, assembly, deadline, progress)
            finally:
                await reader.close()
            if right is not None:
                return right

    async def _read(
        self, reader: FilteredReader[Chunk], assembly: Assembly, deadline: float, progress: Progress | None
    ) -> bool | None:
        """None: an attempt was void, and the chunks since its start are to be read again."""
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0:
            for chunk in await reader.next(BATCH, max(1, int(left * 1000))):
                complete = assembly.take(chunk)
                if complete:
                    if progress is not None:
                        progress(assembly.size)
                    return True
                if complete is False and chunk.sequence != assembly.restart_after:
                    return None
            if progress is not None:
                progress(assembly.size)
        return False


def _chunk(position: Position, message: Msg) -> Chunk | None:
    return chunk_of(position.sequence, message.headers, message.data)


def _raise_refusal(fate: int | BusError) -> None:
    if isinstance(fate, InboxFull):
        raise BusError("the store of blobs is full", why=fate.why, hint="Old blobs expire; try again later.") from fate
    if isinstance(fate, BusError):
        raise fate
