"""PNG files: what is read, what is written, and what is refused."""

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actors.services.png import MAX_CHUNKS, SIGNATURE, Form, file_sizes, read_form, read_png, write_png
from actors.services.png_filters import decoded_rows
from events.errors import BadInput

FORM = Form(width=6, height=5, channels=3)
RAW = bytes(range(FORM.height * (1 + FORM.width * 3)))


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def header(width: int = 6, height: int = 5, tail: bytes = bytes([8, 2, 0, 0, 0])) -> bytes:
    return chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + tail)


def rows(filters: list[int], line: int, seed: int = 1) -> bytes:
    """Rows as they are stored: each its filter, then random bytes."""
    generator = np.random.default_rng(seed)
    return b"".join(bytes([kind]) + generator.integers(0, 256, line, dtype=np.uint8).tobytes() for kind in filters)


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


END = chunk(b"IEND", b"")
CONTENT = rows([0, 1, 2, 3, 4], 18)
DATA = chunk(b"IDAT", zlib.compress(CONTENT))
GOOD = png(header(), DATA, END)


def decoded(content: bytes, height: int, line: int, pixel: int) -> list[list[int]]:
    """The rows of the picture, byte by byte as the specification has it."""
    picture = [[0] * (line + pixel)]
    for y in range(height):
        kind, *stored = content[y * (line + 1) : (y + 1) * (line + 1)]
        row = [0] * pixel
        for x, byte in enumerate(stored):
            a, b, c = row[x], picture[-1][x + pixel], picture[-1][x]
            p = a + b - c
            paeth = min((a, b, c), key=lambda near: abs(p - near))
            row.append((byte + [0, a, b, (a + b) // 2, paeth][kind]) % 256)
        picture.append(row)
    return [row[pixel:] for row in picture[1:]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 3), (9, 1, 4), (7, 5, 3), (5, 7, 2), (40, 30, 1)])
@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [0, 1, 2], [4, 3, 2, 1, 0], [3, 4]])
def test_filters_are_undone(shape: tuple[int, int, int], filters: list[int]) -> None:
    """Pictures of all proportions come out as by the specification's own byte after byte."""
    height, width, pixel = shape
    kinds = (filters * height)[:height]
    content = np.frombuffer(rows(kinds, width * pixel), dtype=np.uint8).reshape(height, -1)
    found = decoded_rows(content[:, 0], content[:, 1:].reshape(shape))
    assert found.reshape(height, -1).tolist() == decoded(content.tobytes(), height, width * pixel, pixel)


@pytest.mark.parametrize(
    ("shape", "bits"),
    [
        ((1, 1, 1), 8),
        ((3, 5, 1), 8),
        ((50, 33, 3), 8),
        ((33, 50, 4), 8),
        ((600, 900, 3), 8),
        ((1, 7), 16),
        ((44, 9), 16),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, shape: tuple[int, ...], bits: int) -> None:
    """Grey, RGB, RGBA and 16-bit grey come back from a file and from memory; the size is within what is announced."""
    dtype = np.uint16 if bits == 16 else np.uint8
    samples = np.random.default_rng(2).integers(0, 2**bits, shape, dtype=dtype)
    form = Form(width=shape[1], height=shape[0], channels=shape[2] if bits == 8 else 1, bits=bits)
    digest, size = write_png(tmp_path / "a.png", samples)
    content = (tmp_path / "a.png").read_bytes()
    assert (len(content), len(digest)) == (size, 64)
    assert size in file_sizes(form)
    assert read_form(content) == form
    for given in (tmp_path / "a.png", content):
        found = read_png(given, form)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, samples)


def test_files_of_other_programs(tmp_path: Path) -> None:
    """Chunks that are not needed, data in many pieces, empty pieces, and a suggested palette change nothing."""
    stream = zlib.compress(CONTENT, 9)
    pieces = [chunk(b"IDAT", stream[at : at + 1]) for at in range(len(stream))]
    foreign = png(
        header(), chunk(b"gAMA", bytes(4)), chunk(b"PLTE", bytes(3)), chunk(b"IDAT", b""), *pieces,
        chunk(b"tEXt", b"Title\0of it"), END,
    )  # fmt: skip
    assert read_png(foreign, FORM).reshape(5, 18).tolist() == decoded(CONTENT, 5, 18, 3)


FRAME = bytes(4) + (1).to_bytes(4, "big") * 2 + bytes(18)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"tRNS", bytes(6)),
        (b"gAMA", (1).to_bytes(4, "big")),
        (b"PLTE", bytes(3)),
        (b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"),
        (b"acTL", (1).to_bytes(4, "big") * 2),
        (b"fcTL", FRAME),
        (b"tEXt", b"Comment\0free space"),
    ],
)
def test_a_plain_file_shows_its_samples_alone(tmp_path: Path, kind: bytes, content: bytes) -> None:
    """What would change the picture in a viewer, or hide in the file, is refused there, in front and behind."""
    assert read_png(GOOD, FORM, plain=True).shape == (5, 6, 3)
    for forged in (png(header(), chunk(kind, content), DATA, END), png(header(), DATA, chunk(kind, content), END)):
        assert read_png(forged, FORM).shape == (5, 6, 3)
        (tmp_path / "a.png").write_bytes(forged)
        for given in (tmp_path / "a.png", forged):
            with pytest.raises(BadInput, match="samples alone") as caught:
                read_png(given, FORM, plain=True)
            assert caught.value.data["reason"] == "MALFORMED"


def patched(at: int, byte: int) -> bytes:
    content = bytearray(GOOD)
    content[at] ^= byte
    return bytes(content)


REFUSED: list[tuple[str, bytes, str]] = [
    ("empty", b"", "MALFORMED"),
    ("no picture", b"GIF89a", "MALFORMED"),
    ("only the signature", SIGNATURE, "MALFORMED"),
    ("cut within the header", GOOD[:20], "MALFORMED"),
    ("no header first", png(DATA, END), "MALFORMED"),
    ("no data", png(header(), END), "MALFORMED"),
    ("no end", png(header(), DATA), "MALFORMED"),
    ("cut within the data", GOOD[:-30], "MALFORMED"),
    ("something behind", GOOD + b"\0", "MALFORMED"),
    ("an end with content", png(header(), DATA, chunk(b"IEND", b"x")), "MALFORMED"),
    ("wrong checksum of the data", patched(50, 1), "MALFORMED"),
    ("wrong checksum of the header", patched(30, 1), "MALFORMED"),
    ("two headers", png(header(), header(), DATA, END), "MALFORMED"),
    ("data in two places", png(header(), DATA, chunk(b"tIME", bytes(7)), chunk(b"IDAT", b""), END), "MALFORMED"),
    ("unknown chunk that matters", png(header(), chunk(b"ABCD", b""), DATA, END), "MALFORMED"),
    ("chunk without a name", png(header(), chunk(b"\0\1\2\3", b""), DATA, END), "MALFORMED"),
    ("chunk longer than the file", png(header(), b"\xff\xff\xff\xffIDAT"), "MALFORMED"),
    ("no zlib", png(header(), chunk(b"IDAT", b"not compressed"), END), "MALFORMED"),
    ("a row too few", png(header(), chunk(b"IDAT", zlib.compress(CONTENT[:-19])), END), "MALFORMED"),
    ("a byte too many", png(header(), chunk(b"IDAT", zlib.compress(CONTENT + b"\0")), END), "MALFORMED"),
    ("more after the stream", png(header(), chunk(b"IDAT", zlib.compress(CONTENT) + b"\0"), END), "MALFORMED"),
    ("stream not ended", png(header(), chunk(b"IDAT", zlib.compress(CONTENT)[:-1]), END), "MALFORMED"),
    ("unknown filter", png(header(), chunk(b"IDAT", zlib.compress(b"\5" + CONTENT[1:])), END), "MALFORMED"),
    ("unknown compression", png(header(tail=bytes([8, 2, 1, 0, 0])), DATA, END), "MALFORMED"),
    ("unknown interlace", png(header(tail=bytes([8, 2, 0, 0, 2])), DATA, END), "MALFORMED"),
    ("no width", png(header(width=0), DATA, END), "MALFORMED"),
    ("interlaced", png(header(tail=bytes([8, 2, 0, 0, 1])), DATA, END), "TYPE"),
    ("palette", png(header(tail=bytes([8, 3, 0, 0, 0])), DATA, END), "TYPE"),
    ("grey with opacity", png(header(tail=bytes([8, 4, 0, 0, 0])), DATA, END), "TYPE"),
    ("16 bits", png(header(tail=bytes([16, 2, 0, 0, 0])), DATA, END), "TYPE"),
    ("RGBA for RGB", png(header(tail=bytes([8, 6, 0, 0, 0])), DATA, END), "TYPE"),
    ("too wide", png(header(width=7), DATA, END), "SHAPE"),
    ("far too high", png(header(height=2**32 - 1), DATA, END), "SHAPE"),
]


@pytest.mark.parametrize(("content", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that is not such a picture, or another one, is refused with its reason, from a file and from memory."""
    (tmp_path / "a.png").write_bytes(content)
    for given in (tmp_path / "a.png", content):
        with pytest.raises(BadInput) as caught:
            read_png(given, FORM)
        assert caught.value.data["reason"] == reason


def test_too_many_chunks_are_refused() -> None:
    """A file cut into countless empty chunks does not keep a reader busy."""
    content = png(header(), chunk(b"tEXt", b"") * MAX_CHUNKS, DATA, END)
    with pytest.raises(BadInput, match="chunks"):
        read_png(content, FORM)


def test_data_may_lie_in_countless_chunks() -> None:
    """Countless pieces of data behind countless other chunks are read like any."""
    others = b"".join(chunk(kind, b"") for kind in (b"aaAa", b"bbBb")) * (MAX_CHUNKS // 4 - 2)
    content = png(header(), others, chunk(b"IDAT", b"") * (MAX_CHUNKS // 2 - 4), DATA, END)
    assert read_png(content, FORM).shape == (5, 6, 3)


def bomb_in_data() -> bytes:
    stream = zlib.compressobj(9)
    packed = b"".join(stream.compress(bytes(1 << 20)) for _ in range(64)) + stream.flush()
    return png(header(), chunk(b"IDAT", packed), END)


def bomb_in_text() -> bytes:
    return png(header(), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26))), DATA, END)


@pytest.mark.parametrize(("make", "fine"), [(bomb_in_data, False), (bomb_in_text, True)])
def test_no_file_takes_more_memory_than_its_picture(make: Callable[[], bytes], fine: bool) -> None:
    """64 MiB behind a few bytes are not decompressed: data stops at its size, and text is passed over."""
    content = make()
    tracemalloc.start()
    try:
        if fine:
            assert read_png(content, FORM).shape == (5, 6, 3)
        else:
            with pytest.raises(BadInput, match="more than"):
                read_png(content, FORM)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(content) + 100_000


def outcome_of(content: bytes) -> object:
    try:
        return read_png(content, FORM).shape
    except BadInput as error:
        return error.data["reason"]


def test_damaged_files_are_refused_or_read() -> None:
    """Whatever byte is changed, however: the reader gives a picture of the right form, or says why not."""
    generator = np.random.default_rng(5)
    refused = 0
    for _ in range(2_000):
        content = bytearray(GOOD)
        for _ in range(int(generator.integers(1, 4))):
            content[int(generator.integers(len(content)))] = int(generator.integers(256))
        cut = int(generator.integers(len(content) * 4))
        outcome = outcome_of(bytes(content[:cut]))
        assert outcome in {(5, 6, 3), "MALFORMED", "TYPE", "SHAPE"}
        refused += outcome != (5, 6, 3)
    assert refused > 1_900
