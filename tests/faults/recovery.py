"""How long it took until a block was final again."""

from collections.abc import Sequence
from itertools import pairwise

from tests.faults.menu import Fault


def measure(faults: Sequence[Fault], heard: Sequence[float], end: float) -> None:
    """Writes the times into the faults. ``heard`` is when final blocks were heard of, in order, ``end`` the last
    moment of the run; both of the clock that the faults have theirs from."""
    for fault in faults:
        at = next((moment for moment in heard if moment > fault.mended_s), end)
        # Servers that are at work on an election when the next fault comes begin anew.
        later = [each.mended_s for each in faults if each.of_servers and fault.mended_s < each.mended_s <= at]
        fault.until_final_s = at - fault.mended_s
        fault.recovery_s = at - max(later, default=fault.mended_s)
        fault.pause_s = _longest_pause(heard, end, fault.began_s, fault.mended_s + 1.0)


def _longest_pause(heard: Sequence[float], end: float, since: float, until: float) -> float:
    """The longest time between two final blocks that lies, in part at least, between two moments."""
    moments = pairwise([*heard, end])
    return max((after - before for before, after in moments if before < until and after > since), default=0.0)
