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
from events.errors import BusError, InboxFull, Unreachable

WINDOW_CHUNKS = 8
BATCH = 16
UPLOAD_TIMEOUT_S = 30.0  # for eight chunks, a restart of the server included
RETRY_S = 0.05
CHECK_MS = 30_000
IDLE_MS = 250

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
                await self._send(window)
                stored += sum(len(message.data) for message in window)
                window.clear()
                if progress is not None:
                    progress(stored)
        return file.digest

    async def _send(self, window: list[Outgoing]) -> None:
        """Stores these in their order: after a loss all from the first lost one are sent again, as readers expect."""
        deadline = asyncio.get_running_loop().time() + UPLOAD_TIMEOUT_S
        while window:
            left = deadline - asyncio.get_running_loop().time()
            fates = await self._publisher.publish(window, retry="never", timeout_s=max(0.0, left))
            errors = [(index, fate) for index, fate in enumerate(fates) if isinstance(fate, BusError)]
            if not errors:
                return
            first, error = errors[0]
            if isinstance(error, InboxFull):
                hint = "Old blobs expire; try again later."
                raise BusError("the store of blobs is full", why=error.why, hint=hint) from error
            if not isinstance(error, Unreachable) or left <= 0:
                raise error
            window = window[first:]
            await asyncio.sleep(RETRY_S)

    async def _is_stored(self, owner: str, file: SourceFile) -> bool:
        """Whether a reader would get the right bytes; looks closer only when as many chunks are there."""
        subject = subjects.blob(self._chain, owner, file.digest)
        info = await stream_state(self._connection, self._chain, "BLOBS", subject)
        if (info["state"].get("subjects") or {}).get(subject, 0) < file.count:
            return False
        assembly = Assembly(file.digest, None, self._limits.blob_bytes)
        return await self._assemble(owner, file.digest, assembly, CHECK_MS, None, patient=False)

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
        self,
        owner: str,
        digest: str,
        assembly: Assembly,
        timeout_ms: int,
        progress: Progress | None,
        *,
        patient: bool = True,
    ) -> bool:
        """Whether the right blob came within the time. Wrong ones do not end it: a right upload may follow.

        Who is not ``patient`` does not wait for more than what is stored.
        """
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
                right = await self._read(reader, assembly, deadline, progress, patient=patient)
            finally:
                await reader.close()
            if right is not None:
                return right

    async def _read(
        self,
        reader: FilteredReader[Chunk],
        assembly: Assembly,
        deadline: float,
        progress: Progress | None,
        *,
        patient: bool,
    ) -> bool | None:
        """None: an attempt was void, and the chunks since its start are to be read again."""
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0:
            chunks = await reader.next(BATCH, max(1, min(IDLE_MS, int(left * 1000))))
            if not chunks:
                if assembly.give_way():
                    return None
                if not patient:
                    return False
                continue
            for chunk in chunks:
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
