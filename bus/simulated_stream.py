"""A stream in memory that keeps what JetStream promises of the settings in `bus.streams`, and nothing more.

No real time and no randomness: all time is the clock's. Everything happens between two awaits, so it is as atomic as in
the server.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from bus.port import Clock
from bus.publishing import EXPECTED_LAST, EXPECTED_LAST_OF, MESSAGE_ID
from events.errors import FenceRefused, InboxFull, MessageTooLarge

MS = 1_000_000  # nanoseconds
OVERHEAD_BYTES = 22  # that the server counts for a message beside its subject, headers and data


class Stored(Struct, frozen=True):
    """A message in a stream."""

    sequence: int
    subject: str
    data: bytes
    headers: dict[str, str]
    time_ns: int

    @property
    def size(self) -> int:
        """As it counts against the limit of bytes."""
        return OVERHEAD_BYTES + len(self.subject) + len(self.data) + _header_bytes(self.headers)


class SimulatedReader:
    """A durable consumer with explicit acknowledgements. Survives those who read through it."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self._wait_ms = settings["ack_wait"] // MS
        self._cursor = 0
        self._waiting: dict[int, int] = {}  # sequence -> when it was delivered, oldest first
        self._settled: set[int] = set()  # only asked for membership

    def has_settled(self, sequence: int) -> bool:
        return sequence in self._settled

    def settle(self, sequence: int) -> None:
        self._waiting.pop(sequence, None)
        self._settled.add(sequence)

    def forget(self, sequence: int) -> None:
        """The message is gone."""
        self._waiting.pop(sequence, None)
        self._settled.discard(sequence)

    def rewind(self, sequence: int) -> None:
        """The stream ends here now, and uses the sequences behind it again."""
        self._cursor = min(self._cursor, sequence)

    def reset(self) -> None:
        """All that is unsettled is due at once."""
        self._cursor = 0
        self._waiting.clear()

    def take(self, stream: "SimulatedStream", limit: int, now_ms: int) -> list[Stored]:
        """What is due: what was delivered too long ago, then what is new."""
        due: list[Stored] = []
        while self._waiting and len(due) < limit:
            sequence, delivered_ms = next(iter(self._waiting.items()))
            if delivered_ms + self._wait_ms > now_ms:
                break
            del self._waiting[sequence]
            due.append(stream.messages[sequence])
        while self._cursor < stream.last_sequence and len(due) < limit:
            self._cursor += 1
            message = stream.messages.get(self._cursor)
            if message is not None and not self.has_settled(self._cursor):
                due.append(message)
        for message in due:
            self._waiting[message.sequence] = now_ms
        return due

    def next_due_ms(self) -> int | None:
        """When the oldest delivery comes again."""
        return next(iter(self._waiting.values())) + self._wait_ms if self._waiting else None


class SimulatedStream:
    """``change`` is set, and replaced by a fresh event, whenever something is stored."""

    def __init__(self, settings: Mapping[str, Any], clock: Clock) -> None:
        self.settings = settings
        self.messages: dict[int, Stored] = {}  # by sequence, oldest first
        self.readers: dict[str, SimulatedReader] = {}
        self.last_sequence = 0
        self.change = asyncio.Event()
        self._clock = clock
        self._bytes = 0
        self._of_subject: dict[str, dict[int, None]] = {}
        self._ids: dict[str, tuple[int, int]] = {}  # message id -> sequence and time, oldest first

    def store(self, subject: str, data: bytes, headers: Mapping[str, str]) -> int:
        """Returns the sequence. Raises MessageTooLarge, FenceRefused, InboxFull."""
        now_ns = self._clock.now_ms() * MS
        self.expire()
        message = Stored(self.last_sequence + 1, subject, data, dict(headers), now_ns)
        limit = self.settings["max_msg_size"]
        if 0 <= limit < len(data) + _header_bytes(headers):
            raise MessageTooLarge("above the stream's limit of a message", size=len(data), limit=limit)
        known = self._known_id(headers.get(MESSAGE_ID), now_ns)
        if known is not None:
            return known
        expected = headers.get(EXPECTED_LAST)
        last = next(reversed(self._of_subject.get(headers.get(EXPECTED_LAST_OF, subject), {})), 0)
        if expected is not None and int(expected) != last:
            why = f"the last sequence is {last}, not {expected}"
            raise FenceRefused("somebody else appended first", why=why, hint="Read the log and decide anew.")
        self._refuse_above_limits(message)
        self.last_sequence = message.sequence
        if MESSAGE_ID in headers:
            self._ids[headers[MESSAGE_ID]] = (message.sequence, now_ns)
        if self.settings["retention"] == "interest" and not self.readers:
            return message.sequence  # nobody is interested: acknowledged and dropped, as the server does
        self.messages[message.sequence] = message
        self._of_subject.setdefault(subject, {})[message.sequence] = None
        self._bytes += message.size
        self.change.set()
        self.change = asyncio.Event()
        return message.sequence

    def _known_id(self, message_id: str | None, now_ns: int) -> int | None:
        while self._ids:
            oldest = next(iter(self._ids))
            if self._ids[oldest][1] + self.settings["duplicate_window"] > now_ns:
                break
            del self._ids[oldest]
        known = None if message_id is None else self._ids.get(message_id)
        return None if known is None else known[0]

    def _refuse_above_limits(self, message: Stored) -> None:
        settings = self.settings
        if settings["discard"] != "new":
            return
        per_subject, most, most_bytes = settings["max_msgs_per_subject"], settings["max_msgs"], settings["max_bytes"]
        hint = "Wait for a block, then try again."
        if 0 < per_subject <= len(self._of_subject.get(message.subject, {})):
            raise InboxFull("the stream takes no more", why="maximum messages per subject exceeded", hint=hint)
        if 0 < most <= len(self.messages):
            raise InboxFull("the stream takes no more", why="maximum messages exceeded", hint=hint)
        if 0 < most_bytes < self._bytes + message.size:
            raise InboxFull("the stream takes no more", why="maximum bytes exceeded", hint=hint)

    def expire(self) -> None:
        """Drops what is older than the stream keeps."""
        age_ns = self.settings["max_age"]
        now_ns = self._clock.now_ms() * MS
        while age_ns and self.messages:
            oldest = next(iter(self.messages.values()))
            if oldest.time_ns + age_ns > now_ns:
                return
            self.drop(oldest.sequence)

    def drop(self, sequence: int) -> None:
        """Removes a message for good."""
        message = self.messages.pop(sequence)
        self._bytes -= message.size
        same = self._of_subject[message.subject]
        del same[sequence]
        if not same:
            del self._of_subject[message.subject]
        for reader in self.readers.values():
            reader.forget(sequence)

    def lose_tail(self, count: int) -> None:
        """Forgets the newest messages, as a server does that had not synced them when its power was cut."""
        self.last_sequence = max(self.last_sequence - count, 0)
        for sequence in [each for each in self.messages if each > self.last_sequence]:
            self.drop(sequence)
        self._ids = {name: known for name, known in self._ids.items() if known[0] <= self.last_sequence}
        for reader in self.readers.values():
            reader.rewind(self.last_sequence)

    def settle(self, reader_name: str, sequence: int) -> None:
        """Drops the message when it was the last one to wait for. Does nothing when it is gone."""
        reader = self.readers.get(reader_name)
        if reader is not None and sequence in self.messages:
            reader.settle(sequence)
            self._drop_when_settled(sequence)

    def retire(self, reader_name: str) -> None:
        """Removes a reader, and every message that only it had not settled."""
        if self.readers.pop(reader_name, None) is not None:
            for sequence in tuple(self.messages):
                self._drop_when_settled(sequence)

    def _drop_when_settled(self, sequence: int) -> None:
        if all(reader.has_settled(sequence) for reader in self.readers.values()):
            self.drop(sequence)

    def of_subject(self, subject: str, after: int) -> Iterator[Stored]:
        """The messages of one subject behind ``after``."""
        self.expire()
        for sequence in tuple(self._of_subject.get(subject, ())):
            if sequence > after:
                yield self.messages[sequence]


def _header_bytes(headers: Mapping[str, str]) -> int:
    """The size of headers on the wire."""
    return 12 + sum(len(name) + len(value) + 4 for name, value in headers.items()) if headers else 0
