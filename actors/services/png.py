"""PNG files, read strictly: grey, RGB or RGBA of 8 bits per sample, or grey of 16, without interlace.

The format is that of the PNG specification (W3C, third edition; ISO/IEC 15948). All chunks must be whole with a right
checksum, IHDR first, the IDAT chunks one after the other, IEND last with nothing behind it. Chunks that are not needed
for the samples (gamma, profiles, text, a suggested palette) are passed over: samples are taken as they are. Of a file
that is to show its samples and nothing else they are refused: by transparency, gamma, rotation, or the frames of an
animation a viewer would draw a picture that nobody has looked at. The header is compared with what is expected before
anything is decompressed, and decompression stops at the size that follows from it, so that no file takes more memory
than its own bytes and its picture.

Every refusal is a `BadInput` whose ``data["reason"]`` is one of

- ``MALFORMED``: not such a file;
- ``TYPE``: another number of channels or bits, or interlaced;
- ``SHAPE``: another width or height.
"""

import hashlib
import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from actors.services.png_filters import ROW_FILTERS, decoded_rows
from events.errors import BadInput

Data: TypeAlias = bytes | mmap.mmap
Samples: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS: Final = 65_536
# Channels and bits by the two numbers of the header, bits per sample and colour type.
FORMS: Final = {(8, 0): (1, 8), (8, 2): (3, 8), (8, 6): (4, 8), (16, 0): (1, 16)}

_HEADER_BYTES: Final = 13
_NEEDED: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PLAIN: Final = _NEEDED - {b"PLTE"}
_STRIP_BYTES: Final = 1 << 20
_LEVEL: Final = 4
_COLOUR_TYPES: Final = {(channels, bits): colour for (_, colour), (channels, bits) in FORMS.items()}


class Form(Struct, frozen=True, kw_only=True):
    """What a header says: pixels, samples per pixel, bits per sample."""

    width: int
    height: int
    channels: int
    bits: int = 8

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel."""
        return self.channels * self.bits // 8

    @property
    def sample_bytes(self) -> int:
        """Bytes of all samples."""
        return self.width * self.height * self.pixel_bytes


def file_sizes(form: Form) -> range:
    """Bytes that a file of this form can have, with room for the chunks of other programs."""
    raw = form.sample_bytes + form.height
    return range(len(SIGNATURE) + _HEADER_BYTES + 3 * 12, raw + raw // 64 + 65_536)


def read_form(data: Data) -> Form:
    """The form of the file that begins with ``data``. Raises `BadInput`."""
    start = bytes(data[: len(SIGNATURE) + 8 + _HEADER_BYTES])
    if start[:8] != SIGNATURE:
        _refuse("MALFORMED", "it does not begin with the signature of PNG")
    if len(start) < len(SIGNATURE) + 8 + _HEADER_BYTES or start[8:16] != _HEADER_BYTES.to_bytes(4, "big") + b"IHDR":
        _refuse("MALFORMED", "it does not begin with a header chunk of 13 bytes")
    header = start[16:]
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits, colour, compression, filtering, interlace = header[8:]
    if compression or filtering or interlace > 1 or not width or not height:
        _refuse("MALFORMED", "the header has a value that PNG does not define")
    if interlace:
        _refuse("TYPE", "the picture is interlaced")
    if (bits, colour) not in FORMS:
        _refuse("TYPE", f"samples of {bits} bits and colour type {colour} are not read")
    channels, bits = FORMS[bits, colour]
    return Form(width=width, height=height, channels=channels, bits=bits)


def read_png(file: Path | bytes, form: Form, *, plain: bool = False) -> Samples:
    """The samples, height × width × channels uint8, or height × width uint16. Raises `BadInput`, `OSError`.

    The file must be of just this form; where it must be ``plain``, without any chunk that is not needed.
    """
    if isinstance(file, bytes):
        return _samples(file, form, plain=plain)
    with file.open("rb") as opened:
        if file.stat().st_size == 0:
            _refuse("MALFORMED", "the file is empty")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
            return _samples(mapping, form, plain=plain)


def _samples(data: Data, form: Form, *, plain: bool) -> Samples:
    found = read_form(data)
    if (found.channels, found.bits) != (form.channels, form.bits):
        what = f"{found.channels} channels of {found.bits} bits"
        _refuse("TYPE", f"the picture has {what}, not {form.channels} of {form.bits}", type=what)
    if (found.width, found.height) != (form.width, form.height):
        shape = f"{found.width} × {found.height}"
        _refuse("SHAPE", f"the picture has {shape} pixels, not {form.width} × {form.height}", shape=shape)
    line = 1 + form.width * form.pixel_bytes
    content = np.frombuffer(_decompressed(data, form.height * line, plain=plain), dtype=np.uint8).reshape(
        form.height, line
    )
    if int(content[:, 0].max()) >= ROW_FILTERS:
        _refuse(
            "MALFORMED", f"row {int(np.argmax(content[:, 0] >= ROW_FILTERS))} has a filter that PNG does not define"
        )
    rows = decoded_rows(content[:, 0], content[:, 1:].reshape(form.height, form.width, form.pixel_bytes))
    return rows.view(">u2")[:, :, 0].astype(np.uint16) if form.bits == 16 else rows


def _chunks(data: Data, *, plain: bool) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk, from the header to IEND, which must be the end. Only content that is needed."""
    position = len(SIGNATURE)
    with memoryview(data) as view:
        for _ in range(MAX_CHUNKS):
            if position + 12 > len(view):
                _refuse("MALFORMED", "it ends before its last chunk")
            length = int.from_bytes(view[position : position + 4], "big")
            kind = bytes(view[position + 4 : position + 8])
            end = position + 12 + length
            if end > len(view):
                _refuse("MALFORMED", "it ends within a chunk")
            if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                _refuse("MALFORMED", f"a chunk has a wrong checksum, at byte {position}")
            if not kind.isalpha() or (kind[:1].isupper() and kind not in _NEEDED):
                _refuse("MALFORMED", f"a chunk of type {kind!r} cannot be passed over")
            if plain and kind not in _PLAIN:
                _refuse("MALFORMED", f"a chunk of type {kind!r} has no place in a file of samples alone")
            yield kind, bytes(view[position + 8 : end - 4]) if kind in _NEEDED else b""
            position = end
            if kind == b"IEND":
                if position != len(view) or length:
                    _refuse("MALFORMED", "something follows the end")
                return
    _refuse("MALFORMED", f"it has more than {MAX_CHUNKS} chunks")


def _decompressed(data: Data, size: int, *, plain: bool) -> bytearray:
    """What the IDAT chunks hold, exactly ``size`` bytes."""
    content = bytearray()
    stream = zlib.decompressobj()
    before, begun = b"", False
    for kind, piece in _chunks(data, plain=plain):
        if kind == b"IHDR" and before:
            _refuse("MALFORMED", "it has two headers")
        if kind == b"IDAT":
            if begun and before != b"IDAT":
                _refuse("MALFORMED", "its IDAT chunks do not follow one another")
            begun = True
            try:
                content += stream.decompress(piece, size - len(content) + 1)
            except zlib.error as error:
                _refuse("MALFORMED", f"the samples cannot be decompressed: {error}")
            if len(content) > size or stream.unused_data:
                _refuse("MALFORMED", f"the samples have more than {size} bytes")
        before = kind
    if len(content) != size or not stream.eof:
        _refuse("MALFORMED", f"the samples have {len(content)} bytes and should have {size}")
    return content


def write_png(path: Path, samples: npt.NDArray[Any]) -> tuple[str, int]:
    """Write a new file of height × width × channels uint8, or height × width uint16.

    Returns the SHA-256 of its bytes in hexadecimal, and their number. Raises `OSError`. All rows have the filter Sub.
    """
    height, width = samples.shape[:2]
    wide = samples.dtype == np.uint16
    channels, bits = (1, 16) if wide else (samples.shape[2], 8)
    header = (
        width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, _COLOUR_TYPES[channels, bits], 0, 0, 0])
    )
    digest = hashlib.sha256()
    size = 0
    with path.open("xb") as file:

        def write(part: bytes) -> None:
            nonlocal size
            digest.update(part)
            size += file.write(part)

        write(SIGNATURE + _chunk(b"IHDR", header))
        stream = zlib.compressobj(_LEVEL)
        pixel = channels * bits // 8
        strip = max(1, _STRIP_BYTES // (width * pixel))
        for first in range(0, height, strip):
            part = samples[first : first + strip]
            rows = (part.astype(">u2").view(np.uint8) if wide else part).reshape(len(part), width * pixel)
            filtered = np.empty((len(rows), 1 + width * pixel), dtype=np.uint8)
            filtered[:, 0] = 1
            filtered[:, 1 : 1 + pixel] = rows[:, :pixel]
            filtered[:, 1 + pixel :] = rows[:, pixel:] - rows[:, :-pixel]
            if content := stream.compress(filtered.tobytes()):
                write(_chunk(b"IDAT", content))
        write(_chunk(b"IDAT", stream.flush()) + _chunk(b"IEND", b""))
    return digest.hexdigest(), size


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def _refuse(reason: Literal["MALFORMED", "TYPE", "SHAPE"], why: str, **data: str) -> NoReturn:
    raise BadInput(
        "the .png file is refused",
        why=why,
        hint="Write it without interlace as grey, RGB or RGBA with 8 bits per sample, of the size that the work names.",
        reason=reason,
        **data,
    )
