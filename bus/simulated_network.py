"""What all simulated processes share, and what shall go wrong between them."""

from collections.abc import Mapping

from bus.port import Clock
from bus.simulated_readers import SimulatedDoor, SimulatedLiveListener
from bus.simulated_stream import SimulatedStream
from bus.streams import not_set_up
from events import subjects
from events.errors import Unreachable


class Faults:
    """What goes wrong, asked at each operation (the name of the port's method) of the process ``name``.

    Here: nothing.
    """

    def cut_off(self, name: str) -> bool:
        """The process has no connection now."""
        return False

    def delay_ms(self, name: str, operation: str) -> int:
        """How long the operation takes to arrive."""
        return 0

    def loses_request(self, name: str, operation: str) -> bool:
        """It never arrives, and its caller learns that."""
        return False

    def loses_answer(self, name: str, operation: str) -> bool:
        """It happens, but its caller does not learn that."""
        return False


class SimulatedNetwork:
    """What all simulated processes share. Several chains may live on it."""

    def __init__(self, clock: Clock, faults: Faults | None = None) -> None:
        self.clock = clock
        self.faults = faults or Faults()
        self.streams: dict[str, SimulatedStream] = {}  # by JetStream's name
        self.doors: dict[str, list[SimulatedDoor]] = {}  # by subject; the first one answers next
        self.listeners: list[SimulatedLiveListener] = []

    def stream(self, chain: str, kind: str) -> SimulatedStream:
        """Raises Unreachable when nobody has set up the chain."""
        stream = self.streams.get(subjects.stream(chain, kind))
        if stream is None:
            raise not_set_up(chain)
        return stream

    def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> int:
        """What any NATS client could publish into a stream; returns the sequence.

        Raises like `SimulatedStream.store`.
        """
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.settings["subjects"]):
                return stream.store(subject, data, headers or {})
        raise Unreachable(f"no stream stores {subject}")


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject fits a pattern in which ``*`` stands for one token."""
    wanted, found = pattern.split("."), subject.split(".")
    return len(wanted) == len(found) and all(one in ("*", other) for one, other in zip(wanted, found, strict=True))
