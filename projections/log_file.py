"""The export of a log: one file that anyone can audit without a network.

NDJSON, every line canonical JSON and a line feed. The first line holds the genesis, then one line per message of CHAIN
in order, the last line is the trailer:

    {"format":"assay-log/1","genesis":{…},"sha256":"…"}
    {"data":{…},"kind":"block","sequence":1,"sha256":"…"}
    {"base64":"…","kind":"vote","sequence":2,"sha256":"…"}
    {"end":{"blocks":…,"events":…,"file_sha256":"…","head":"…","height":…,…},"sha256":"…"}

``data`` is the message itself where it is canonical JSON, ``base64`` any other message. A line's ``sha256`` is that of
the 64 characters of ``sha256`` of the line before (none for the first) followed by the line's own bytes up to
``,"sha256"``. ``file_sha256`` is that of all lines before the trailer. Writer and reader hold one line at a time.
"""

import base64
import binascii
from collections.abc import Iterator
from hashlib import sha256
from typing import Annotated, BinaryIO, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from events.canonical import canonical
from events.errors import BadInput, VerificationFailed
from schemas.genesis import Genesis
from schemas.values import Count, Digest, Height

FORMAT: Final = "assay-log/1"
MAX_LINE_BYTES: Final = 64 * 2**20

_SEAL_HEAD: Final = b',"sha256":"'
_SEAL_TAIL: Final = b'"}\n'
_SEAL_BYTES: Final = len(_SEAL_HEAD) + 64 + len(_SEAL_TAIL)

Record = TypeVar("Record")


class Opening(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first line, without its seal."""

    format: Literal["assay-log/1"]
    genesis: Genesis


class Message(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message of the log, without its seal: either ``data`` or ``base64``."""

    sequence: Annotated[int, Meta(ge=1)]
    kind: str
    data: Raw | UnsetType = UNSET
    base64: str | UnsetType = UNSET


class Totals(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the log stands after its last message. ``blocks`` and ``votes`` are messages, ``events`` those in final
    blocks."""

    messages: Count
    blocks: Count
    votes: Count
    events: Count
    height: Height
    head: Digest
    state_root: Digest


class Trailer(Totals, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the export claims about itself."""

    file_sha256: Digest


class Ending(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The last line, without its seal."""

    end: Trailer


_openings = msgspec.json.Decoder(Opening)
_messages = msgspec.json.Decoder(Message)
_endings = msgspec.json.Decoder(Ending)


def _is_canonical_json(data: bytes) -> bool:
    try:
        return canonical(msgspec.json.decode(data)) == data
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False


class _Seal:
    """The running digest over the lines."""

    def __init__(self) -> None:
        self._last = b""

    def of(self, content: bytes) -> bytes:
        """The digest of a line with this content, hexadecimal."""
        return sha256(self._last + content).hexdigest().encode()

    def close(self, seal: bytes) -> None:
        """The next line follows the line with this seal."""
        self._last = seal


class LogWriter:
    """Writes an export: the genesis at once, then `add` for each message, then `close`."""

    def __init__(self, file: BinaryIO, genesis: Genesis) -> None:
        self._file = file
        self._seal = _Seal()
        self._digest = sha256()
        self._write(Opening(format=FORMAT, genesis=genesis))

    def _write(self, record: Struct) -> None:
        content = canonical(record)[:-1]
        seal = self._seal.of(content)
        line = content + _SEAL_HEAD + seal + _SEAL_TAIL
        self._seal.close(seal)
        self._digest.update(line)
        self._file.write(line)

    def add(self, sequence: int, kind: str, data: bytes) -> None:
        """Writes the next message. Raises BadInput for one that is larger than any line may be."""
        if len(data) > MAX_LINE_BYTES // 2:
            raise BadInput(
                f"message {sequence} is too large for an export",
                why=f"it has {len(data)} bytes, the limit is {MAX_LINE_BYTES // 2}",
                hint="Ask who runs the server why it let such a message in.",
            )
        if _is_canonical_json(data):
            self._write(Message(sequence=sequence, kind=kind, data=Raw(data)))
        else:
            self._write(Message(sequence=sequence, kind=kind, base64=base64.b64encode(data).decode()))

    def close(self, totals: Totals) -> Trailer:
        """Writes the trailer. The file itself stays open."""
        trailer = Trailer(**msgspec.structs.asdict(totals), file_sha256=self._digest.hexdigest())
        self._write(Ending(end=trailer))
        return trailer


class LogReader:
    """Reads an export: the genesis at once, then `messages` to the end; ``trailer`` is known after the last of them.

    Raises VerificationFailed, which names the line and what is wrong with it. ``bytes_read`` is for progress bars.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._seal = _Seal()
        self._digest = sha256()
        self._last_line = b""
        self.line = 0
        self.bytes_read = 0
        self.trailer: Trailer | None = None
        self.genesis: Final[Genesis] = self._decode(_openings, self._next_content()).genesis

    def _failure(self, why: str) -> VerificationFailed:
        return VerificationFailed(
            f"line {self.line} of the export is wrong",
            why=why,
            hint="Export the log again, or get another copy of the file.",
            line=self.line,
        )

    def _next_content(self) -> bytes:
        """The next line up to its seal, which has been checked. The digest of the file follows one line behind."""
        self._digest.update(self._last_line)
        self.line += 1
        line = self._file.readline(MAX_LINE_BYTES)
        self.bytes_read += len(line)
        if not line:
            raise self._failure("the file ends without a trailer")
        content, seal = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
        stated = seal[len(_SEAL_HEAD) : -len(_SEAL_TAIL)]
        if seal != _SEAL_HEAD + stated + _SEAL_TAIL or len(stated) != 64:
            raise self._failure("it does not end with a digest and a line feed")
        computed = self._seal.of(content)
        if stated != computed:
            raise self._failure(
                f"digest: it says {stated.decode('latin-1')}, its bytes and the line before give {computed.decode()}"
            )
        self._seal.close(computed)
        self._last_line = line
        return content + b"}"

    def _decode(self, decoder: msgspec.json.Decoder[Record], content: bytes) -> Record:
        try:
            record = decoder.decode(content)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise self._failure(str(error)) from error
        if canonical(record) != content:
            raise self._failure("it is not canonical JSON")
        return record

    def messages(self) -> Iterator[tuple[int, str, bytes]]:
        """Sequence, kind and bytes of each message. Ends only when the trailer and the end of the file are right."""
        while not (content := self._next_content()).startswith(b'{"end":'):
            message = self._decode(_messages, content)
            yield message.sequence, message.kind, self._data_of(message)
        trailer = self._decode(_endings, content).end
        if trailer.file_sha256 != (found := self._digest.hexdigest()):
            raise self._failure(f"file_sha256: the trailer says {trailer.file_sha256}, the lines before give {found}")
        if self._file.read(1):
            self.line += 1
            raise self._failure("there is more after the trailer")
        self.trailer = trailer

    def _data_of(self, message: Message) -> bytes:
        if isinstance(message.data, Raw) and message.base64 is UNSET:
            data = bytes(message.data)
            if not _is_canonical_json(data):
                raise self._failure("data is not canonical JSON")
            return data
        if message.data is UNSET and isinstance(message.base64, str):
            try:
                data = base64.b64decode(message.base64, validate=True)
            except (binascii.Error, ValueError) as error:
                raise self._failure(f"base64: {error}") from error
            if base64.b64encode(data).decode() == message.base64 and not _is_canonical_json(data):
                return data
            raise self._failure("base64 is not the one way to write this message")
        raise self._failure("it has not exactly one of data and base64")
