"""PNG files by the plainest way there is, for comparison."""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def written(samples: np.ndarray) -> bytes:
    """A file of 8-bit samples, height × width × channels, without filters."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def read(data: bytes) -> np.ndarray:
    """The samples of a file that is not interlaced, height × width × channels, of 8 bits or 16."""
    assert data.startswith(SIGNATURE)
    position, compressed, header = len(SIGNATURE), b"", b""
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        header = content if kind == b"IHDR" else header
        compressed += content if kind == b"IDAT" else b""
        position += 12 + length
    width, height, bits, colour = struct.unpack_from(">IIBB", header)
    step = {0: 1, 2: 3, 6: 4}[colour] * bits // 8
    rows, raw, above = [], zlib.decompress(compressed), bytes(width * step)
    for start in range(0, len(raw), 1 + width * step):
        above = unfiltered(raw[start], raw[start + 1 : start + 1 + width * step], above, step)
        rows.append(above)
    samples = np.frombuffer(b"".join(rows), dtype=">u2" if bits == 16 else np.uint8)
    return samples.reshape(height, width, -1)


def unfiltered(kind: int, row: bytes, above: bytes, step: int) -> bytes:
    """The row by one of the five filters of the specification."""
    found = bytearray()
    for i, value in enumerate(row):
        a = found[i - step] if i >= step else 0
        b, c = above[i], above[i - step] if i >= step else 0
        nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
        found.append((value + (0, a, b, (a + b) // 2, nearest)[kind]) & 255)
    return bytes(found)
