"""The stop-watch of the long form: a network that stays dead fails, whatever befalls it meanwhile."""

import time
from random import Random
from typing import Any

import pytest

from tests.faults import run as long_form
from tests.faults.menu import Fault
from tests.faults.pulse import Beat
from tests.faults.recovery import measure, pauses_of, too_slow, waits_of

BOUND_S = 10.0


def fault(began_s: float, mended_s: float, *, of_servers: bool = True) -> Fault:
    return Fault("a fault", "", of_servers, began_s, mended_s)


def beats(*moments: float) -> list[Beat]:
    return [Beat(moment, moment) for moment in moments]


@pytest.mark.parametrize(
    ("others", "heard", "recovery_s", "pause_s"),
    [
        pytest.param([], [0.0, 9.5, 14.0, 15.0], 2.0, 4.5, id="left alone"),
        pytest.param([], [0.0, 9.5], 18.0, 20.5, id="never"),
        pytest.param([], [0.0, 9.5, 11.0, 13.0], 1.0, 2.0, id="a block while it lasts"),
        pytest.param([fault(15.0, 16.0)], [0.0, 9.5, 23.0], 11.0, 13.5, id="another one follows"),
        pytest.param([fault(15.0, 24.0)], [9.5, 23.0], 11.0, 13.5, id="one follows and goes on"),
        pytest.param([fault(11.0, 16.0)], [9.5, 23.0], 11.0, 13.5, id="servers have one that lasts longer"),
        pytest.param([fault(11.0, 16.0, of_servers=False)], [9.5, 23.0], 11.0, 13.5, id="an actor is down as well"),
    ],
)
def test_a_fault_of_the_servers_counts_from_its_own_mending(
    others: list[Fault], heard: list[float], recovery_s: float, pause_s: float
) -> None:
    """It was mended at 12; nothing that happens at the same time or later sets the clock back."""
    mended = fault(10.0, 12.0)
    measure([mended, *others], beats(*heard), 30.0)
    assert (mended.recovery_s, mended.pause_s) == (recovery_s, pause_s)


@pytest.mark.parametrize(
    ("servers", "recovery_s"),
    [
        pytest.param([], 11.0, id="alone"),
        pytest.param([fault(8.0, 11.0)], 11.0, id="the servers were mended before"),
        pytest.param([fault(11.0, 15.0)], 8.0, id="the servers are mended after it"),
        pytest.param([fault(13.0, 15.0)], 11.0, id="the servers' fault begins when it is mended"),
        pytest.param([fault(11.0, 15.0), fault(16.0, 18.0)], 8.0, id="and another one follows"),
    ],
)
def test_a_fault_of_an_actor_counts_from_when_the_servers_are_back(servers: list[Fault], recovery_s: float) -> None:
    """It was mended at 12; from the later mending where both were under way at once."""
    mended = fault(10.0, 12.0, of_servers=False)
    measure([mended, *servers], beats(9.5, 23.0), 30.0)
    assert mended.recovery_s == recovery_s


def test_a_block_that_was_final_before_the_mending_shows_no_recovery() -> None:
    """Who was cut off hears of old blocks first."""
    mended = fault(10.0, 12.0)
    measure([mended], [Beat(9.0, 9.0), Beat(10.5, 12.1), Beat(14.0, 14.5)], 30.0)
    assert mended.recovery_s == 2.5


def storm_of(random: Random) -> list[Fault]:
    """A fault of the servers every five seconds for five minutes, and one of an actor after each."""
    faults = []
    for began_s in range(0, 300, 5):
        faults.append(fault(began_s, began_s + random.uniform(0.3, 3.0)))
        faults.append(fault(began_s + 2.5, began_s + 2.5 + random.uniform(0.3, 3.0), of_servers=False))
    return faults


def every_third_of_a_second(since: int, until: int) -> list[float]:
    return [third / 3 for third in range(3 * since, 3 * until)]


@pytest.mark.parametrize(
    ("heard", "slow"),
    [
        pytest.param(every_third_of_a_second(-2, 310), False, id="alive"),
        pytest.param([], True, id="dead from the beginning"),
        pytest.param([*every_third_of_a_second(-2, 10), *every_third_of_a_second(290, 310)], True, id="dead for 280 s"),
        pytest.param([*every_third_of_a_second(-2, 290)], True, id="dead at the end"),
        pytest.param([*every_third_of_a_second(-2, 10), *every_third_of_a_second(24, 310)], True, id="dead for 14 s"),
        pytest.param([*every_third_of_a_second(-2, 10), *every_third_of_a_second(18, 310)], False, id="dead for 8 s"),
    ],
)
def test_a_dead_network_is_too_slow(heard: list[float], slow: bool) -> None:
    """Under a storm in which something is mended every few seconds."""
    for seed in range(20):
        faults = storm_of(Random(seed))
        measure(faults, beats(*heard), 310.0)
        assert (max(each.recovery_s for each in faults) >= BOUND_S) is slow
        assert bool(too_slow(faults, beats(*heard), 310.0, BOUND_S)) is slow


def test_a_pause_after_the_first_block_is_too_long_as_well() -> None:
    """The network recovers, and falls silent when nobody does anything to it."""
    faults, heard = [fault(0.0, 2.0), fault(20.0, 21.0)], beats(-1.0, 2.5, 14.0, 19.5, 22.0)
    measure(faults, heard, 23.0)
    assert [each.recovery_s for each in faults] == [0.5, 1.0]
    assert too_slow(faults, heard, 23.0, BOUND_S) == [
        "no block was final from 2.5 s for 11.5 s, and the servers had faults for 0.0 s of them"
    ]


def test_a_pause_may_be_longer_by_the_faults_of_servers_in_it() -> None:
    """What befell actors does not count, and no moment counts twice."""
    faults = [fault(1.0, 3.0), fault(2.0, 4.0), fault(5.0, 9.0, of_servers=False)]
    (pause,) = pauses_of(faults, beats(0.0), 13.5)
    assert (pause.length_s, pause.broken_s) == (13.5, 3.0)
    assert len(too_slow(faults, beats(0.0), 14.5, BOUND_S)) == 1


def test_servers_need_their_time_anew_when_something_befalls_them() -> None:
    """A pause that had begun for another reason goes on; what is too long is counted from the new fault on."""
    faults = [fault(0.0, 20.0, of_servers=False), fault(8.0, 9.0)]
    assert [pause.length_s for pause in pauses_of(faults, beats(0.0, 18.5), 19.0)] == [18.5, 0.5]
    assert [(wait.length_s, wait.broken_s) for wait in waits_of(faults, beats(0.0, 18.5), 19.0)] == [
        (8.0, 0.0),
        (10.5, 1.0),
        (0.5, 0.0),
    ]
    measure(faults, beats(0.0, 18.5, 20.5), 21.0)
    assert too_slow(faults, beats(0.0, 18.5, 20.5), 21.0, BOUND_S) == []
    late = beats(0.0, 19.5, 20.5)
    measure(faults, late, 21.0)
    assert len(too_slow(faults, late, 21.0, BOUND_S)) == 2


class Script:
    """A menu and a pulse whose network recovers, when it does, at the third look."""

    def __init__(self, *, recovers: bool) -> None:
        self.faults: list[Fault] = []
        self.unrecovered = 0
        self._recovers = recovers
        self._looks = 0
        self._final_s = time.monotonic()

    async def next(self) -> None:
        """Counts the faults that come before the network has recovered from the last one."""
        self.unrecovered += any(each.mended_s >= self._final_s for each in self.faults)
        self.faults.append(fault(time.monotonic(), time.monotonic()))
        self._looks = 0

    async def next_actor(self) -> None:
        self.faults.append(fault(time.monotonic(), time.monotonic(), of_servers=False))

    def last_final_s(self) -> float:
        self._looks += 1
        if self._recovers and self._looks >= 3:
            self._final_s = time.monotonic()
        return self._final_s


@pytest.mark.parametrize(("recovers", "unrecovered"), [(True, 0), (False, 3)])
async def test_the_next_fault_waits_for_recovery_or_the_bound(
    monkeypatch: pytest.MonkeyPatch, recovers: bool, unrecovered: int
) -> None:
    """And a storm over a dead network ends, and is judged."""
    monkeypatch.setattr(long_form, "EVERY_S", 0.01)
    script: Any = Script(recovers=recovers)
    bounds = long_form.Bounds(recovery_s=60.0 if recovers else 0.05)
    await long_form.storm(script, script, bounds, seconds=0.04)
    assert [each.of_servers for each in script.faults] == [True, False] * 4
    assert script.unrecovered == unrecovered
    if not recovers:
        end = time.monotonic()
        measure(script.faults, [], end)
        assert all(each.recovery_s >= bounds.recovery_s for each in script.faults)
        assert len(too_slow(script.faults, [], end, bounds.recovery_s)) == 8 + 4
