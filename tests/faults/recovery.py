"""How long the network took to recover from each fault, and what is too long."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from tests.faults.menu import Fault, Menu
from tests.faults.pulse import Beat, Pulse

LOOK_S = 0.02


class Pause(Struct, frozen=True):
    """A time without a final block. ``broken_s`` is how long of it something was wrong with the servers."""

    began_s: float
    ended_s: float
    broken_s: float

    @property
    def length_s(self) -> float:
        return self.ended_s - self.began_s


def reachable_again_s(fault: Fault, faults: Sequence[Fault]) -> float:
    """From when a fault's recovery counts: from its own mending, and where it befell an actor while the servers had a
    fault as well, from the later mending of the two. What comes after that moment changes nothing."""
    if fault.of_servers:
        return fault.mended_s
    at_once = [other.mended_s for other in faults if other.of_servers and other.began_s < fault.mended_s]
    return max([fault.mended_s, *at_once])


def measure(faults: Sequence[Fault], beats: Sequence[Beat], end: float) -> None:
    """Writes the times into the faults. ``beats`` are the final blocks in order, ``end`` is the last moment of the run;
    both of the clock that the faults have theirs from.

    A block counts when it was heard of, if it became final after the mending: what was held up shows nothing.
    """
    pauses = pauses_of(faults, beats, end)
    for fault in faults:
        since = reachable_again_s(fault, faults)
        fault.recovery_s = next((beat.heard_s for beat in beats if beat.final_s > since), end) - since
        around = (each.length_s for each in pauses if each.began_s < since and each.ended_s > fault.began_s)
        fault.pause_s = max(around, default=0.0)


def pauses_of(faults: Sequence[Fault], beats: Sequence[Beat], end: float) -> list[Pause]:
    """The times between two final blocks, from the first fault on."""
    return _between(faults, [beat.heard_s for beat in beats], end)


def waits_of(faults: Sequence[Fault], beats: Sequence[Beat], end: float) -> list[Pause]:
    """The same, parted where something new befalls the servers: from then on they need their time anew."""
    news = [fault.began_s for fault in faults if fault.of_servers]
    return _between(faults, sorted([*news, *(beat.heard_s for beat in beats)]), end)


def _between(faults: Sequence[Fault], moments: Sequence[float], end: float) -> list[Pause]:
    first_s = min(fault.began_s for fault in faults)
    from_first = [*(moments if moments and moments[0] <= first_s else [first_s, *moments]), end]
    pairs = [(before, after) for before, after in pairwise(from_first) if after > first_s]
    return [Pause(before, after, _broken_s(faults, before, after)) for before, after in pairs]


def _broken_s(faults: Sequence[Fault], since: float, until: float) -> float:
    """How long, between two moments, at least one fault of the servers was not mended."""
    broken_s, told_s = 0.0, since
    for fault in sorted(faults, key=lambda fault: fault.began_s):
        begin, stop = max(fault.began_s, told_s), min(fault.mended_s, until)
        if fault.of_servers and stop > begin:
            broken_s, told_s = broken_s + stop - begin, stop
    return broken_s


def too_slow(faults: Sequence[Fault], beats: Sequence[Beat], end: float, bound_s: float) -> list[str]:
    """Which recoveries, and which pauses beside the faults in them, took as long as ``bound_s`` or longer, in words."""
    began_s = faults[0].began_s
    return [
        f"{fault.kind} ({fault.target}) at {fault.began_s - began_s:.1f} s: "
        f"no block was final for {fault.recovery_s:.1f} s after it was mended"
        for fault in faults
        if fault.recovery_s >= bound_s
    ] + [
        f"no block was final from {pause.began_s - began_s:.1f} s for {pause.length_s:.1f} s, "
        f"and the servers had faults for {pause.broken_s:.1f} s of them"
        for pause in waits_of(faults, beats, end)
        if pause.length_s - pause.broken_s >= bound_s
    ]


async def recovered(menu: Menu, pulse: Pulse, bound_s: float) -> None:
    """Returns when a block has become final since the last mending, or when ``bound_s`` have passed since then: what
    that means is for `too_slow` to say. Raises what has ended the pulse."""
    while True:
        mended_s = max((fault.mended_s for fault in menu.faults), default=0.0)
        if pulse.last_final_s() > mended_s or time.monotonic() - mended_s >= bound_s:
            return
        await asyncio.sleep(LOOK_S)
