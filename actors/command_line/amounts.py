"""Amounts, times, digests and addresses as people write and read them; no floating point on the way."""

import re
from datetime import UTC, datetime
from typing import Final

from events.errors import BadInput
from events.keys import is_address
from schemas.values import MAX_SAFE_INTEGER, MICRO_PER_ASY

_AMOUNT: Final = re.compile(r"(?P<whole>[0-9]{1,30})(?:\.(?P<rest>[0-9]{1,6}))?")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MICRO: Final = re.compile(r"(?P<micro>[0-9]{1,30})u")


def micro_of(text: str) -> int:
    """Micro-ASY from ``1.5`` (ASY) or ``1500000u`` (micro-ASY). Raises BadInput."""
    if match := _MICRO.fullmatch(text):
        micro = int(match["micro"])
    elif match := _AMOUNT.fullmatch(text):
        micro = int(match["whole"]) * MICRO_PER_ASY + int((match["rest"] or "").ljust(6, "0"))
    else:
        raise BadInput(
            f"{text!r} is not an amount",
            hint="Write ASY with at most six decimals, as 1.5, or micro-ASY with a u, as 1500000u.",
        )
    if micro > MAX_SAFE_INTEGER:
        raise BadInput(f"{text!r} is more than there can be", hint="Amounts stay below 2^53 micro-ASY.")
    return micro


def check_digest(text: str, what: str, hint: str = "Copy it whole; `assay job list` shows the ids of jobs.") -> None:
    """Raises BadInput unless the text is a SHA-256 as it is written here; ``what`` names it."""
    if _DIGEST.fullmatch(text) is None:
        raise BadInput(
            f"{text[:80]!r} is not {what}",
            why="that has 64 hexadecimal digits in lower case",
            hint=hint,
        )


def check_address(text: str) -> None:
    """Raises BadInput unless the text is an address."""
    if not is_address(text):
        raise BadInput(f"{text[:80]!r} is no address", hint="An account has 56 characters and starts with U.")


def moment(time_ms: int) -> str:
    """A time for people, in UTC."""
    whole, rest = divmod(time_ms, 1_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%d %H:%M:%S}.{rest:03d}Z"


def duration(milliseconds: int) -> str:
    """A span for people: ``850 ms``, ``12.3 s``, ``4 min 5 s``, ``23 h 59 min``, ``6 d 1 h``."""
    if milliseconds < 1_000:
        return f"{milliseconds} ms"
    tenths = milliseconds // 100
    if tenths < 600:
        return f"{tenths // 10}.{tenths % 10} s"
    minutes = tenths // 600
    if minutes < 60:
        return f"{minutes} min {tenths % 600 // 10} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
