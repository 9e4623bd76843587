"""The export: one way to write a log, and every byte counts."""

import base64
import io
from hashlib import sha256

import msgspec
import pytest

from events.canonical import canonical
from events.errors import BadInput, VerificationFailed
from projections import log_file
from projections.log_file import LogReader, LogWriter, Totals, Trailer
from tests.projections.small_network import digest_of, make_genesis

GENESIS = make_genesis()
TOTALS = Totals(
    messages=3, blocks=1, votes=2, events=0, height=0, head=digest_of("head"), state_root=digest_of("state")
)
MESSAGES = [
    (1, "block", b'{"a":[1,2,{"b":"\xc3\xa9"}]}'),
    (2, "vote", b'{"a": 1}'),
    (3, "vote", b""),
    (4, "vote", b"\xff\x00\n"),
    (5, "vote", b"[" * 5_000),
    (6, "vote", b'{"a":1,"a":1}'),
    (7, "vote", b"1.0"),
    (8, "vote", b"null"),
]


def export(messages: list[tuple[int, str, bytes]]) -> bytes:
    file = io.BytesIO()
    writer = LogWriter(file, GENESIS)
    for message in messages:
        writer.add(*message)
    writer.close(TOTALS)
    return file.getvalue()


def read(data: bytes) -> tuple[list[tuple[int, str, bytes]], Trailer]:
    reader = LogReader(io.BytesIO(data))
    messages = list(reader.messages())
    assert reader.genesis == GENESIS
    assert reader.bytes_read == len(data)
    assert reader.trailer is not None
    return messages, reader.trailer


def sealed(*contents: bytes) -> bytes:
    """Lines with right digests around any contents, as somebody would write them who knows the format."""
    file, seal = b"", b""
    for content in contents:
        seal = sha256(seal + content[:-1]).hexdigest().encode()
        file += content[:-1] + b',"sha256":"' + seal + b'"}\n'
    return file


OPENING = canonical({"format": "assay-log/1", "genesis": GENESIS})


def ending(file: bytes, **changes: object) -> bytes:
    end = {**msgspec.structs.asdict(TOTALS), "file_sha256": sha256(file).hexdigest(), **changes}
    return canonical({"end": end})


def test_what_is_written_is_read() -> None:
    """Every message comes back byte for byte, whatever it holds."""
    messages, trailer = read(export(MESSAGES))
    assert messages == MESSAGES
    assert msgspec.structs.asdict(trailer).items() >= msgspec.structs.asdict(TOTALS).items()


def test_the_format_is_what_its_description_says() -> None:
    """The lines can be made, and checked, with SHA-256 and a JSON writer alone."""
    data = export(MESSAGES[:2])
    lines = [
        OPENING,
        b'{"data":' + MESSAGES[0][2] + b',"kind":"block","sequence":1}',
        canonical({"base64": base64.b64encode(MESSAGES[1][2]).decode(), "kind": "vote", "sequence": 2}),
    ]
    assert data == sealed(*lines, ending(sealed(*lines)))
    assert data.splitlines(keepends=True)[-1] != data
    before_trailer = b"".join(data.splitlines(keepends=True)[:-1])
    assert read(data)[1].file_sha256 == sha256(before_trailer).hexdigest()


def test_the_same_log_gives_the_same_bytes() -> None:
    """Two exports of one log are equal."""
    assert export(MESSAGES) == export(MESSAGES)


def test_an_empty_log_has_an_export() -> None:
    """A chain without messages is a genesis and a trailer."""
    assert read(export([]))[0] == []


def message(content: bytes) -> bytes:
    """An export with one message line of this content."""
    return sealed(OPENING, content, ending(sealed(OPENING, content)))


DAMAGED = {
    "empty": (b"", 1, "without a trailer"),
    "another file": (b"PK\x03\x04" * 100, 1, "digest and a line feed"),
    "another format": (sealed(canonical({"format": "assay-log/2", "genesis": GENESIS})), 1, "Invalid enum value"),
    "unknown field": (sealed(canonical({"extra": 1, "format": "assay-log/1", "genesis": GENESIS})), 1, "unknown field"),
    "no genesis": (sealed(b'{"format":"assay-log/1"}'), 1, "missing required field"),
    "white space": (sealed(OPENING.replace(b",", b", ", 1)), 1, "not canonical JSON"),
    "no trailer": (sealed(OPENING), 2, "without a trailer"),
    "cut inside a line": (export(MESSAGES)[:-40], 10, "digest and a line feed"),
    "no last line feed": (export(MESSAGES)[:-1], 10, "digest and a line feed"),
    "carriage returns": (export(MESSAGES).replace(b"\n", b"\r\n"), 1, "digest and a line feed"),
    "more after the trailer": (export(MESSAGES) + b"\n", 11, "more after the trailer"),
    "two exports": (export([]) * 2, 3, "more after the trailer"),
    "neither data nor base64": (message(b'{"kind":"vote","sequence":1}'), 2, "exactly one of"),
    "data and base64": (message(b'{"base64":"","data":1,"kind":"vote","sequence":1}'), 2, "exactly one of"),
    "data not canonical": (message(b'{"data":{"a": 1},"kind":"vote","sequence":1}'), 2, "data is not canonical"),
    "data in base64": (message(b'{"base64":"MQ==","kind":"vote","sequence":1}'), 2, "not the one way"),
    "loose base64": (message(b'{"base64":"/x==","kind":"vote","sequence":1}'), 2, "not the one way"),
    "no base64": (message(b'{"base64":"@@@","kind":"vote","sequence":1}'), 2, "base64: "),
    "base64 beyond ASCII": (message('{"base64":"é","kind":"vote","sequence":1}'.encode()), 2, "base64: "),
    "sequence 0": (message(b'{"data":1,"kind":"vote","sequence":0}'), 2, ">= 1"),
    "broken text": (message(b'{"data":1,"kind":"\xff","sequence":1}'), 2, "utf-8"),
    "nested bomb": (message(b'{"data":1,"kind":' + b"[" * 100_000 + b"}"), 2, ""),
    "unsorted": (message(b'{"kind":"vote","data":1,"sequence":1}'), 2, "not canonical JSON"),
    "wrong digest of the file": (sealed(OPENING, ending(b"")), 2, "file_sha256: the trailer says"),
    "trailer without counts": (sealed(OPENING, b'{"end":{}}'), 2, "missing required field"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_export_is_refused_by_line(name: str) -> None:
    """Whatever is not exactly an export is refused, with the line and the reason."""
    data, line, words = DAMAGED[name]
    with pytest.raises(VerificationFailed) as caught:
        read(data)
    assert caught.value.data["line"] == line
    assert words in caught.value.why
    assert caught.value.exit_code == 7


def test_a_line_without_end_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is read further than a line may be long."""
    monkeypatch.setattr(log_file, "MAX_LINE_BYTES", 1_000)
    with pytest.raises(VerificationFailed, match="digest and a line feed"):
        LogReader(io.BytesIO(b"x" * 5_000))


def test_a_message_too_large_for_a_line_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer makes nothing that the reader would refuse."""
    monkeypatch.setattr(log_file, "MAX_LINE_BYTES", 20_000)
    writer = LogWriter(io.BytesIO(), GENESIS)
    writer.add(1, "vote", b"\xff" * 10_000)
    with pytest.raises(BadInput, match="too large for an export"):
        writer.add(2, "vote", b"\xff" * 10_001)


@pytest.mark.parametrize("index", range(0, 2_400, 37))
def test_every_byte_of_an_export_counts(index: int) -> None:
    """A bit flipped at any byte is found by the reader alone."""
    data = bytearray(export(MESSAGES[:4]))
    data[index % len(data)] ^= 1 << index % 8
    with pytest.raises(VerificationFailed):
        read(bytes(data))
