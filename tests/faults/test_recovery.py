"""The stop-watch of the long form."""

import pytest

from tests.faults.menu import Fault
from tests.faults.recovery import measure


def fault(began_s: float, mended_s: float, *, of_servers: bool = True) -> Fault:
    return Fault("a fault", "", of_servers, began_s, mended_s)


@pytest.mark.parametrize(
    ("others", "heard", "recovery_s", "until_final_s", "pause_s"),
    [
        pytest.param([], [0.0, 9.5, 14.0, 15.0], 2.0, 2.0, 4.5, id="left alone"),
        pytest.param([], [0.0, 9.5], 18.0, 18.0, 20.5, id="never"),
        pytest.param([fault(15.0, 16.0)], [0.0, 9.5, 23.0], 7.0, 11.0, 13.5, id="another one follows"),
        pytest.param([fault(15.0, 16.0, of_servers=False)], [9.5, 23.0], 11.0, 11.0, 13.5, id="an actor follows"),
        pytest.param([fault(15.0, 24.0)], [9.5, 23.0], 11.0, 11.0, 13.5, id="one follows and goes on"),
        pytest.param([fault(8.0, 11.0)], [9.5, 23.0], 11.0, 11.0, 13.5, id="one was mended before"),
    ],
)
def test_recovery_is_counted_from_the_last_mending(
    others: list[Fault], heard: list[float], recovery_s: float, until_final_s: float, pause_s: float
) -> None:
    """A fault that was mended at 12: until the next final block, or from the mending of what befell the servers
    meanwhile. The time from its own mending, and the whole pause, are told as well."""
    mended = fault(10.0, 12.0)
    measure([mended, *others], heard, 30.0)
    assert (mended.recovery_s, mended.until_final_s, mended.pause_s) == (recovery_s, until_final_s, pause_s)
