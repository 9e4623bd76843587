"""What both implementations do with a blob: name a file by its digest, cut it into chunks, put chunks together again.

Chunks travel as messages of one subject with the header ``Assay-Chunk: i/n`` (none: the only one, 0/1). Nothing that
arrives is trusted: only the digest of the whole decides.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from msgspec import Struct

from bus.port import Limits
from events.errors import BadInput, BlobMismatch, BlobUnavailable, MessageTooLarge

CHUNK_HEADER = "Assay-Chunk"
MOST_CHUNKS = 2_048


class Chunk(Struct, frozen=True):
    """The ``index``-th of ``count`` parts, as it was stored under ``sequence``."""

    sequence: int
    index: int
    count: int
    data: bytes


class SourceFile(Struct, frozen=True):
    """A file that is to be uploaded."""

    path: Path
    size: int
    digest: str
    chunk_bytes: int

    @property
    def count(self) -> int:
        """Of chunks; an empty file has one, which is empty."""
        return max(1, -(-self.size // self.chunk_bytes))

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Raises BadInput when the file is shorter than it was."""
        with self.path.open("rb") as file:
            for index in range(self.count):
                data = file.read(self.chunk_bytes)
                if len(data) != min(self.chunk_bytes, self.size - index * self.chunk_bytes):
                    raise BadInput(f"{self.path} changed while it was uploaded")
                yield Chunk(0, index, self.count, data)


async def source_file(path: Path, limits: Limits) -> SourceFile:
    """Reads the file once for its digest.

    Raises MessageTooLarge above the limit of blobs, BadInput when it cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > limits.blob_bytes:
            hint = f"At most {limits.blob_bytes} bytes."
            raise MessageTooLarge(f"{path} has {size} bytes", hint=hint, size=size, limit=limits.blob_bytes)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(limits.blob_chunk_bytes):
                digest.update(data)
                await asyncio.sleep(0)  # others may go on between chunks
    except OSError as error:
        raise BadInput(f"{path} cannot be read", why=str(error)) from error
    return SourceFile(path, size, digest.hexdigest(), limits.blob_chunk_bytes)


def chunk_header(chunk: Chunk) -> dict[str, str]:
    return {CHUNK_HEADER: f"{chunk.index}/{chunk.count}"}


def chunk_of(sequence: int, headers: Mapping[str, str] | None, data: bytes) -> Chunk | None:
    """None when the header makes no sense."""
    text = (headers or {}).get(CHUNK_HEADER, "0/1")
    index, slash, count = text.partition("/")
    if not slash or len(text) > 16 or not (index + count).isascii() or not (index.isdigit() and count.isdigit()):
        return None
    chunk = Chunk(sequence, int(index), int(count), data)
    return chunk if chunk.index < chunk.count <= MOST_CHUNKS else None


class Assembly:
    """Puts one blob together in ``part`` (None: only checks it), from chunks in the order in which they are stored.

    An attempt starts at a chunk 0 and takes the next index, of the same count, whenever it comes; others are ignored,
    so an upload that was begun again is read like one. An attempt that ends with another digest is void. The chunks
    have then to be read again from `restart_after`: so what somebody stored first does not hide what is right.
    """

    def __init__(self, digest: str, part: Path | None, limit: int) -> None:
        self._digest = digest
        self._limit = limit
        self._part = part
        self._file: BinaryIO | None = None if part is None else part.open("wb")
        self._begin()
        self.restart_after = 0
        self.voided = 0
        self._skipped = False

    def _begin(self) -> None:
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
        self._hash = hashlib.sha256()
        self._next = 0
        self._count = 0
        self._first = b""  # digest of chunk 0
        self._rival = False  # another chunk 0 follows, with which the blob may begin as well
        self.size = 0

    def shortfall(self, digest: str, timeout_ms: int) -> BlobMismatch | BlobUnavailable:
        """Why there is no right blob after ``timeout_ms``."""
        if self.voided and not self._next:
            return BlobMismatch(
                f"what is stored under {digest} has another digest", digest=digest, attempts=self.voided
            )
        missing = f"chunk {self._next} of {self._count} is missing" if self._next else "nothing is stored"
        return BlobUnavailable(
            f"blob {digest} is not there", why=f"{missing} after {timeout_ms} ms", digest=digest, timeout_ms=timeout_ms
        )

    def take(self, chunk: Chunk) -> bool | None:
        """True: complete and right. False: this attempt is void, read again after `restart_after`. None: go on."""
        if chunk.index == 0:
            if chunk.sequence <= self.restart_after:
                return None
            first = hashlib.sha256(chunk.data).digest()
            if self._next:
                self._rival = self._rival or (first, chunk.count) != (self._first, self._count)
                return None
            self.restart_after = chunk.sequence
            self._count = chunk.count
            self._first = first
        elif chunk.index != self._next or chunk.count != self._count:
            return None
        self.size += len(chunk.data)
        if self.size > self._limit:
            return self._void()
        self._hash.update(chunk.data)
        if self._file is not None:
            self._file.write(chunk.data)
        self._next += 1
        if self._next < self._count:
            return None
        return True if self._hash.hexdigest() == self._digest else self._void()

    def give_way(self) -> bool:
        """To be called when nothing more is stored for now. True: read again after `restart_after`.

        An attempt that goes no further leaves its turn to the next chunk 0; after the last one the first has its turn
        again.
        """
        if self._next and self._rival:
            self._skipped = True
        elif self._skipped:
            self._skipped = False
            self.restart_after = 0
        else:
            return False
        self._begin()
        return True

    def _void(self) -> bool:
        self.voided += 1
        self._begin()
        return False

    def finish(self, target: Path) -> None:
        """Gives the complete blob its name, all of it or nothing."""
        if self._file is None or self._part is None:
            raise AssertionError("nothing was written that could get a name")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(target)

    def abandon(self) -> None:
        """Leaves nothing behind. Does nothing after `finish`."""
        if self._file is not None and self._part is not None and not self._file.closed:
            self._file.close()
            self._part.unlink(missing_ok=True)


def part_of(target: Path) -> Path:
    """A name beside ``target`` that nobody else uses."""
    return target.with_name(f".{target.name}.{uuid4().hex}.part")
