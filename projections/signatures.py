"""Checking many signatures at once. libsodium runs without the interpreter's lock, so threads help."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from events.envelope import SignedEvent, signature_holds

# Below this many signatures, handing them to another thread costs more than it saves.
_WORTH_A_THREAD = 16


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="signatures")


def _first_bad(events: Sequence[SignedEvent], start: int, end: int) -> int | None:
    for index in range(start, end):
        if not signature_holds(events[index]):
            return index
    return None


def first_bad_signature(events: Sequence[SignedEvent], threads: int) -> int | None:
    """The index of the first event whose signature is not its sender's, or None. ``threads`` changes only the speed."""
    size = len(events)
    parts = min(threads, size // _WORTH_A_THREAD)
    if parts <= 1:
        return _first_bad(events, 0, size)
    bounds = [size * part // parts for part in range(parts + 1)]
    pool = _pool(threads - 1)
    others = [pool.submit(_first_bad, events, bounds[part], bounds[part + 1]) for part in range(1, parts)]
    found = [_first_bad(events, bounds[0], bounds[1]), *(other.result() for other in others)]
    return next((index for index in found if index is not None), None)
