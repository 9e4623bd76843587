"""What the server has lost for good, written down when it happens: the checkers excuse that, and nothing else."""

import json
from collections.abc import Iterable
from hashlib import sha256

from bus.simulated_stream import Stored

# What stands around the body in an envelope.
_HEAD = b'{"body":'
_TAIL = len(b',"sig":""}') + 86


def id_of(envelope: bytes) -> str:
    """The id of the event in an envelope."""
    return sha256(envelope[len(_HEAD) : -_TAIL]).hexdigest()


class Losses:
    """``events``: ids of those of which an inbox has lost a copy. ``feeds``: by subject, the heights that a feed has
    lost a word of. ``blocks``: by height, what was final when the log lost its end. ``log``: whether it did.

    ``unsafe`` are events whose place in an inbox may have been that of a lost message: a late word about the lost one
    frees it.
    """

    def __init__(self) -> None:
        self.events: set[str] = set()
        self.feeds: dict[str, set[int]] = {}
        self.blocks: dict[int, str] = {}
        self.log = False
        self.unsafe: set[str] = set()
        # Sequences of the inboxes up to this one may be used a second time.
        self._used_again = 0

    def lost_mail(self, kind: str, messages: Iterable[Stored], last_sequence: int) -> None:
        """These messages of a stream are gone, which had come to this sequence."""
        for message in messages:
            if kind == "INBOX":
                self.events.add(id_of(message.data))
            elif kind == "FEED":
                self.feeds.setdefault(message.subject, set()).add(json.loads(message.data)["height"])
        if kind == "INBOX":
            self._used_again = max(self._used_again, last_sequence)

    def sent(self, name: str, last_sequence: int) -> None:
        """An event is on its way into an inbox that is at this sequence."""
        if last_sequence < self._used_again:
            self.unsafe.add(name)
