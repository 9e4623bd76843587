"""Ways to change the bytes of a file."""

from collections.abc import Callable
from random import Random

Change = Callable[[bytes, Random], bytes]


def flip(data: bytes, chance: Random) -> bytes:
    """One bit."""
    changed = bytearray(data)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def flip_many(data: bytes, chance: Random) -> bytes:
    """Up to twenty bits, anywhere."""
    for _ in range(chance.randint(2, 20)):
        data = flip(data, chance)
    return data


def cut(data: bytes, chance: Random) -> bytes:
    """The end is lost."""
    return data[: chance.randrange(len(data))]


def behead(data: bytes, chance: Random) -> bytes:
    """The beginning is lost."""
    return data[chance.randrange(1, len(data) + 1) :]


def blank(data: bytes, chance: Random) -> bytes:
    """Zeros in the place of a sector, as after a power cut."""
    start = chance.randrange(len(data))
    size = min(chance.choice((1, 16, 512, 4_096)), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def scribble(data: bytes, chance: Random) -> bytes:
    """Random bytes in the place of some."""
    start = chance.randrange(len(data))
    size = min(chance.randint(1, 64), len(data) - start)
    return data[:start] + chance.randbytes(size) + data[start + size :]


def grow(data: bytes, chance: Random) -> bytes:
    """More at the end."""
    return data + chance.choice((b"\0" * 512, data[-200:], chance.randbytes(100)))


def exchange(data: bytes, chance: Random) -> bytes:
    """Two parts of the same length change places."""
    size = min(chance.choice((8, 64, 4_096)), len(data) // 2)
    first = chance.randrange(len(data) - 2 * size + 1)
    second = chance.randrange(first + size, len(data) - size + 1)
    parts = data[:first], data[second : second + size], data[first + size : second], data[first : first + size]
    return b"".join(parts) + data[second + size :]


BYTES: dict[str, Change] = {
    "a bit": flip,
    "some bits": flip_many,
    "the end lost": cut,
    "the beginning lost": behead,
    "zeros": blank,
    "random bytes": scribble,
    "more at the end": grow,
    "parts exchanged": exchange,
}
