"""Which chunks of a committed result are done again: drawn from a seed that nobody knew when the result was committed.

**What a sample proves.** Of n chunks, a miner has w wrong, chosen before the seed exists. A draw of s distinct chunks,
each set of s as likely as any other, misses all of them with probability

    C(n - w, s) / C(n, s) = product over i < s of (n - w - i) / (n - i) <= (1 - w/n)**s,

since each factor is at most (n - w) / n. So with `SAMPLES` = 44 a result with a tenth of its chunks wrong passes with
at most 0.9**44 < 1 %; one with a single wrong chunk of n passes with 1 - 44/n, and with none where n is at most 44.
A miner that skips a share p of the work is paid with at most (1 - p)**44: who saves 2 % of the work loses more than
half of the reward on average.

**The draw, reproducibly.** SHAKE-256 of domain ‖ seed (32 bytes) is read as little-endian words of 64 bits. A word at
or above the largest multiple of n below 2**64 is passed over, so that no index is more likely than another; else the
index is the word mod n, and one that was drawn before is passed over too. This goes on until s indices are drawn.
"""

import hashlib
from typing import Final

SAMPLES: Final = 44

_WORD_BYTES: Final = 8
_WORD_VALUES: Final = 1 << 64


def sample(seed: str, domain: bytes, count: int, chunks: int) -> tuple[int, ...]:
    """``count`` distinct indices below ``chunks``, ascending; all of them where ``chunks`` is no more than ``count``.

    ``seed`` has 64 hexadecimal digits, or more where it says which of several draws it is. ``domain`` names the use and
    its version, and ends in a zero byte.
    """
    if not domain.endswith(b"\0") or count < 1 or chunks < 1:
        raise AssertionError(f"{count} of {chunks} chunks cannot be drawn for {domain!r}")
    if chunks <= count:
        return tuple(range(chunks))
    material = hashlib.shake_256(domain + bytes.fromhex(seed))
    limit = _WORD_VALUES - _WORD_VALUES % chunks
    words = 2 * count
    while True:
        stream = material.digest(words * _WORD_BYTES)
        drawn: dict[int, None] = {}
        for start in range(0, len(stream), _WORD_BYTES):
            word = int.from_bytes(stream[start : start + _WORD_BYTES], "little")
            if word < limit:
                drawn[word % chunks] = None
            if len(drawn) == count:
                return tuple(sorted(drawn))
        # Too many were passed over: the same stream, further. A longer digest begins with the shorter one.
        words *= 2
