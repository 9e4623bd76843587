"""The naive reader of the log: which blocks are final, what they hold, and a second set of accounts.

It shares no code with the rules. Only bytes whose Ed25519 signatures hold are booked; libsodium is asked directly.
"""

import base64
import json
from collections import Counter
from hashlib import sha256
from typing import Any

import nacl.bindings
import nacl.exceptions

from tests.end_to_end.bookkeeper import Bookkeeper


class FinalBlock:
    """A block that a quorum has voted for."""

    def __init__(self, message: dict[str, Any], name: str) -> None:
        self.hash = name
        self.header: dict[str, Any] = message["header"]
        self.events: list[dict[str, Any]] = message["events"]
        self.message = b""


class Keeper(Bookkeeper):
    """Knows of each job's commitments and failures too."""

    def __init__(self, genesis: dict[str, Any]) -> None:
        super().__init__(genesis)
        self.results: dict[str, str] = {}
        # Of each attempt that somebody ended: the job, the miner, the reason.
        self.failures: list[tuple[str, str, str]] = []

    def _job_committed(self, event: dict[str, Any], name: str) -> bool:
        done = super()._job_committed(event, name)
        if done:
            self.results[event["job"]] = event["result"]
        return done

    def _job_failed(self, event: dict[str, Any], name: str) -> bool:
        done = super()._job_failed(event, name)
        if done:
            self.failures.append((event["job"], event["miner"], event["reason"]))
        return done


class Books:
    """Takes the log's messages one after the other. ``problems`` are what no honest log may hold.

    ``open_since`` is for the reader: the sequence of the first block after the last final one.
    """

    def __init__(self, genesis: dict[str, Any]) -> None:
        self.keeper = Keeper(genesis)
        self.blocks: list[FinalBlock] = []
        self.open_since: int | None = None
        self.places: dict[str, int] = {}
        self.memos: Counter[str] = Counter()
        self.problems: list[str] = []
        self._validators = {validator["address"] for validator in genesis["validators"]}
        self.proposals: dict[tuple[str, int, int], set[str]] = {}
        self._messages: dict[str, bytes] = {}
        self._voted: dict[tuple[str, int], str] = {}

    def add(self, kind: str, data: bytes) -> FinalBlock | None:
        """Returns the block that this message makes final."""
        if kind == "block":
            self._note_proposal(data)
        elif not self._counts(data):
            return None
        try:
            found = self.keeper.add(kind, data)
        except (ValueError, KeyError, TypeError, RecursionError):
            if kind == "vote":
                raise
            return None  # no block at all
        except AssertionError as error:
            self.problems.append(f"the books do not add up: {error}")
            return None
        if found is None:
            if kind == "block":
                self._messages[sha256(_text(json.loads(data)["header"])).hexdigest()] = data
            return None
        block = FinalBlock(found, self.keeper.head)
        block.message = self._messages[block.hash]
        self.blocks.append(block)
        for envelope in block.events:
            self._note(envelope, block.header["height"])
        return block

    def _note_proposal(self, data: bytes) -> None:
        """Who has signed which blocks for which round."""
        try:
            message = json.loads(data)
            header, sig = message["header"], message["sig"]
            place = header["proposer"], header["height"], header["round"]
            if signed_by(header["proposer"], b"assay:block:v1\x00" + _text(header), sig):
                self.proposals.setdefault(place, set()).add(sha256(_text(header)).hexdigest())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return

    def _counts(self, data: bytes) -> bool:
        """Whether it is the first vote of a validator for the next height, and really its own."""
        try:
            message = json.loads(data)
            vote, sig = message["vote"], message["sig"]
            height, validator = vote["height"], vote["validator"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        if validator not in self._validators or height != self.keeper.height + 1:
            return False
        if not signed_by(validator, b"assay:vote:v1\x00" + _text(vote), sig):
            return False
        return self._voted.setdefault((validator, height), vote["block"]) == vote["block"]

    def _note(self, envelope: dict[str, Any], height: int) -> None:
        body = envelope["body"]
        name = sha256(_text(body)).hexdigest()
        if name in self.places:
            self.problems.append(f"event {name} is in blocks {self.places[name]} and {height}")
        self.places[name] = height
        if "memo" in body:
            self.memos[body["memo"]] += 1
        if not signed_by(body["sender"], b"assay:event:v1\x00" + _text(body), envelope["sig"]):
            self.problems.append(f"the signature of event {name} in block {height} does not hold")


def signed_by(address: str, message: bytes, sig: str) -> bool:
    """Whether the address, a NATS user NKey, has signed this."""
    try:
        public = base64.b32decode(address + "=" * (-len(address) % 8))[1:33]
        nacl.bindings.crypto_sign_open(base64.urlsafe_b64decode(sig + "==") + message, public)
    except (nacl.exceptions.BadSignatureError, ValueError, TypeError):
        return False
    return True


def _text(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
