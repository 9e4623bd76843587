"""Inputs that are nearly right: mutations of whole values, members and lines, and of single bytes.

Where the parts of an input begin and end is found by brackets, quotes, words and lines, so the same mutator serves
JSON, TOML, headers of matrices and plain text. What replaces a part is mostly another part from the corpus: most
mutants stay canonical, and so get past the first check of a parser. The same seed gives the same inputs.
"""

import random
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

LONGEST: Final = 131_072
LONGEST_KEPT: Final = 16_384
MOST_KEPT: Final = 1_000

_TOKEN: Final = re.compile(rb'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[A-Za-z0-9_.+-]+|[\[\]{}():,=/]')
_CLOSING: Final = {b"]": b"[", b"}": b"{", b")": b"("}

SPECIAL: Final = (
    *(b"0", b"1", b"-1", b"-0", b"00", b"1.0", b"1e0", b"0.1", b"1e400", b"-1e-400", b"9007199254740991"),
    *(
        b"9007199254740992",
        b"9223372036854775807",
        b"9223372036854775808",
        b"18446744073709551616",
        b"9" * 400,
        b"9" * 5_000,
    ),
    *(b"null", b"true", b"false", b"NaN", b"Infinity", b"[]", b"{}", b'""', b'"a"', b"[[]]", b'{"":""}', b"[null]"),
    *(b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u00e9"', '"é"'.encode(), '"😀"'.encode(), b'"\xff"'),
    *(b'"\xed\xa0\x80"', b'"\n"', b'"\\"', b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b":", b",", b" ", b"\n", b"\r\n"),
    *(b"\x00", b"\x7f", b"\x80", b"\xff\xfe", b"\xef\xbb\xbf", b"=", b"==", b"/", b".", b"-", b"#", b"1/1", b"0/0"),
    *(b'"' + b"a" * 64 + b'"', b'"' + b"A" * 86 + b'"', b'"U' + b"A" * 55 + b'"', b'"' + b"x" * 300 + b'"'),
    *(b"1979-05-27T07:32:00Z", b"0x1f", b"0b1", b"1_000", b"inf", b"nan", b'"""', b"'''"),
)
_NESTS: Final = ((b"[", b"]"), (b'{"a":', b"}"), (b"[[", b"]]"), (b'{"a":[', b"]}"))

Span = tuple[int, int]
Entry = "tuple[bytes, array[int]]"
Thing = TypeVar("Thing")


def spans(data: bytes) -> tuple[Span, ...]:
    """Where the parts of an input lie: words, texts, whole brackets, members with their comma, lines."""
    tokens = [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(data)]
    found = [(start, end) for token, start, end in tokens if len(token) > 1 or token.isalnum()]
    ends: dict[int, int] = {}
    opened: list[int] = []
    for index, (token, _, end) in enumerate(tokens):
        if token in {b"[", b"{", b"("}:
            opened.append(index)
        elif token in _CLOSING and opened and tokens[opened[-1]][0] == _CLOSING[token]:
            first = opened.pop()
            ends[first] = end
            found.append((tokens[first][1], end))
    for index in range(len(tokens) - 2):
        if tokens[index + 1][0] in {b":", b"="}:
            end = ends.get(index + 2, tokens[index + 2][2])
            found.append((tokens[index][1], end + 1 if data[end : end + 1] == b"," else end))
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        found.append((start, end + 1))
        start = end + 1
    return tuple(found) or ((0, len(data)),)


class Mutator:
    """An endless source of inputs, made from the seeds and from what `keep` adds."""

    def __init__(self, seeds: Iterable[bytes], seed: str) -> None:
        self._chance = random.Random(seed)
        self._random = self._chance.random
        self._pool: list[Entry] = []
        self._accepted: list[Entry] = []
        for data in seeds:
            self.keep(data)

    def keep(self, data: bytes, *, accepted: bool = False) -> None:
        """Adds an input to make others from. The pools are bounded: then a new one takes the place of some other."""
        if len(data) > LONGEST_KEPT:
            return
        entry = (data, array("I", [place for span in spans(data) for place in span]))
        pool = self._accepted if accepted else self._pool
        if len(pool) < MOST_KEPT:
            pool.append(entry)
        else:
            pool[self._below(MOST_KEPT)] = entry

    def next(self) -> bytes:
        """The next input: mostly a mutant of one that the parser has accepted."""
        data, parts = self._pick(self._accepted if self._accepted and self._random() < 0.6 else self._pool)
        roll = self._random()
        count = 1 if roll < 0.7 else 2 if roll < 0.9 else 2 + self._below(4)
        if self._random() < 0.75:
            # From the end to the beginning, so that the places before stay where they are.
            left = len(data) + 1
            for start, end in sorted((self._part(parts) for _ in range(count)), reverse=True):
                if end <= left:
                    data = self._change_part(data, start, end)
                    left = start
        else:
            for _ in range(count):
                data = self._change_bytes(data)
        return data[:LONGEST]

    def _below(self, end: int) -> int:
        return int(self._random() * end)

    def _pick(self, things: Sequence[Thing]) -> Thing:
        return things[int(self._random() * len(things))]

    def _part(self, parts: "array[int]") -> Span:
        index = 2 * int(self._random() * (len(parts) // 2))
        return parts[index], parts[index + 1]

    def _other_part(self) -> bytes:
        data, parts = self._pick(self._pool)
        start, end = self._part(parts)
        return data[start:end]

    def _change_part(self, data: bytes, start: int, end: int) -> bytes:
        part = data[start:end]
        roll = self._random()
        if roll < 0.25:
            part = self._other_part()
        elif roll < 0.45:
            part = self._pick(SPECIAL)
        elif roll < 0.60:
            part = self._nearly(part)
        elif roll < 0.70:
            part = b""
        elif roll < 0.78:
            part += part
        elif roll < 0.84:
            part = part + b"," + self._other_part()
        elif roll < 0.90:
            part = self._other_part() + part
        elif roll < 0.96:
            part = self._change_bytes(part)
        else:
            return data[:start] + self._nested(part) + data[end:]
        return data[:start] + part + data[end:]

    def _nested(self, part: bytes) -> bytes:
        head, tail = self._pick(_NESTS)
        roll = self._random()
        depth = 1 if roll < 0.5 else 17 if roll < 0.9 else 1_500 if roll < 0.99 else 30_000
        return head * depth + part + tail * depth

    def _nearly(self, part: bytes) -> bytes:
        """A number beside this one, or a text in which one character is another."""
        if part.isdigit() and len(part) < 20:
            number = int(part)
            return str(self._pick((number + 1, number - 1, number * 2, -number, number << 24, number * 10))).encode()
        changed = bytearray(part)
        letters = [index for index, byte in enumerate(changed[:200]) if chr(byte).isalnum()]
        if not letters:
            return self._pick(SPECIAL)
        source = part if self._random() < 0.5 else b"0123456789ABCDEFUMabcdef_-"
        changed[self._pick(letters)] = source[self._below(len(source))]
        return bytes(changed)

    def _change_bytes(self, data: bytes) -> bytes:
        size = len(data)
        place = self._below(size + 1)
        roll = self._random()
        if roll < 0.3 and size:
            place = self._below(size)
            return data[:place] + bytes((data[place] ^ (1 << self._below(8)),)) + data[place + 1 :]
        if roll < 0.5:
            return data[:place] + self._pick(SPECIAL) + data[place:]
        if roll < 0.65:
            return data[:place] + data[place + 1 + self._below(16) :]
        if roll < 0.75:
            return data[:place] + self._chance.randbytes(1 + self._below(4)) + data[place:]
        if roll < 0.85:
            return data[:place]
        if roll < 0.90:
            return data[place:]
        other, parts = self._pick(self._pool)
        return data[:place] + other[self._part(parts)[0] :]
