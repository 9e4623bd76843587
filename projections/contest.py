"""The contest for one height: its blocks and its votes.

The first valid block is the candidate. Others wait unexecuted, for the votes alone decide which block is final: the
voters, who saw the server's stamps, may have passed over a block that looks first to a reader without them.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from events.blocks import decode_block, hash_of
from events.envelope import SignedEvent
from events.errors import Divergence, VerificationFailed
from projections import blocks
from projections.building import Built
from projections.execute import Executed
from projections.faults import Fault, NotFirst, SecondVote, Unreadable
from projections.skipped import DoubleVote, Skipped, double_proposal
from projections.state import State
from schemas.blocks import Block, Commit, CommitSignature, Header, SignedVote

# What the blocks that wait may take in memory, each counted with the objects that it is read into. By bytes, not by
# number: a flood of small blocks must not push out the one that the voters are about to choose, or a reader without
# stamps, such as an audit, would miss it.
MAX_WAITING_BYTES: Final = 128 * 2**20
BYTES_OF_WAITING: Final = 4_096
# Rounds and faults that are remembered. Honest proposers leave one block per round.
MAX_REMEMBERED: Final = 100


class Candidate(Struct, frozen=True, kw_only=True):
    """A valid block that no quorum has voted for yet. ``sequence`` is that of its message."""

    header: Header
    hash: str
    sequence: int
    block_bytes: bytes
    events: tuple[SignedEvent, ...]
    executed: Executed


class Waiting(Struct, frozen=True):
    """A block with a right header that has not been executed."""

    block: Block
    hash: str
    sequence: int
    block_bytes: bytes

    @property
    def size(self) -> int:
        """Bytes of memory, roughly."""
        return BYTES_OF_WAITING + 2 * len(self.block_bytes)


class Contest:
    """What the log says about the height after ``parent``."""

    def __init__(
        self, parent: blocks.Parent, state: State, skipped: Skipped, verified: Callable[[str], bool], threads: int
    ) -> None:
        self.parent: Final = parent
        self.candidate: Candidate | None = None
        self.built: Built | None = None
        self.votes: Final[dict[str, SignedVote]] = {}
        self._state = state
        self._skipped = skipped
        self._verified = verified
        self._threads = threads
        self._waiting: dict[str, Waiting] = {}
        self._waiting_bytes = 0
        self._faults: dict[str, Fault] = {}
        self._proposals: dict[int, Block] = {}
        self._last_fault: str | None = None

    def add_block(self, sequence: int, data: bytes, time_ns: int | None) -> None:
        """Takes a block: it becomes the candidate, waits, or is skipped."""
        if self.built is not None and self.built.block_bytes == data:
            block = self.built.block
        else:
            try:
                block = decode_block(data)
            except VerificationFailed as error:
                self._reject(sequence, None, Unreadable(detail=error.why or error.what))
                return
        waiting = Waiting(block, hash_of(block.header), sequence, data)
        fault = blocks.header_fault(block, len(data), self.parent)
        if fault is not None:
            self._reject(sequence, waiting.hash, fault)
            return
        self._note_proposal(block)
        fault = self._reason_to_wait(waiting, time_ns)
        if fault is not None:
            self._wait(waiting, fault)
            return
        examined = self._examine(waiting)
        if isinstance(examined, Fault):
            self._reject(sequence, waiting.hash, examined)
            return
        self.candidate = examined

    def _reject(self, sequence: int, block_hash: str | None, fault: Fault) -> None:
        self._skipped.reject(sequence, "block", fault)
        self._last_fault = f"message {sequence} was skipped: {fault}"
        if block_hash is not None:
            self._faults[block_hash] = fault
            if len(self._faults) > MAX_REMEMBERED:
                del self._faults[next(iter(self._faults))]

    def _reason_to_wait(self, waiting: Waiting, time_ns: int | None) -> Fault | None:
        if self.candidate is not None:
            return NotFirst(first=self.candidate.hash)
        if time_ns is not None:
            return blocks.distance_fault(waiting.block.header, time_ns, self.parent.genesis.parameters)
        return None

    def _wait(self, waiting: Waiting, fault: Fault) -> None:
        """Lays the block aside. The oldest without a vote makes room."""
        wrong_events = blocks.event_root_fault(waiting.block)
        if wrong_events is not None:
            self._reject(waiting.sequence, waiting.hash, wrong_events)
            return
        self._skipped.reject(waiting.sequence, "block", fault)
        if waiting.hash in self._waiting:
            return
        self._waiting[waiting.hash] = waiting
        self._waiting_bytes += waiting.size
        voted = [signed.vote.block for signed in self.votes.values()]
        while self._waiting_bytes > MAX_WAITING_BYTES:
            oldest = next((each for each in self._waiting if each not in voted), None)
            if oldest is None:
                break
            self._waiting_bytes -= self._waiting.pop(oldest).size

    def has_block(self, block_hash: str) -> bool:
        """Whether this block is the candidate, or waits."""
        return block_hash in self._waiting or (self.candidate is not None and self.candidate.hash == block_hash)

    def has_proposal(self, round_number: int) -> bool:
        """Whether the log holds a block of this round that its proposer has signed, valid or not."""
        return round_number in self._proposals

    def _note_proposal(self, block: Block) -> None:
        first = self._proposals.setdefault(block.header.round, block)
        if first.header != block.header:
            self._skipped.accuse(double_proposal(first, block))
        if len(self._proposals) > MAX_REMEMBERED:
            del self._proposals[next(iter(self._proposals))]

    def _examine(self, waiting: Waiting) -> Candidate | Fault:
        """Everything that the header alone does not show. A block that was built here is not executed again."""
        built = self.built
        if built is not None and built.block_bytes == waiting.block_bytes:
            events, executed = built.events, built.executed
        else:
            read = blocks.read_events([bytes(raw) for raw in waiting.block.events], self._verified, self._threads)
            if isinstance(read, Fault):
                return read
            result = blocks.execute(self._state, waiting.block.header, read)
            if isinstance(result, Fault):
                return result
            events, executed = read, result
        return Candidate(
            header=waiting.block.header,
            hash=waiting.hash,
            sequence=waiting.sequence,
            block_bytes=waiting.block_bytes,
            events=events,
            executed=executed,
        )

    def add_vote(self, sequence: int, signed: SignedVote) -> str | None:
        """Counts the first vote of a validator; returns the block's hash if it has a quorum now."""
        vote = signed.vote
        first = self.votes.setdefault(vote.validator, signed).vote.block
        if first != vote.block:
            self._skipped.accuse(DoubleVote(first=self.votes[vote.validator], second=signed))
            self._skipped.reject(sequence, "vote", SecondVote(validator=vote.validator, first=first))
            return None
        voters = [each for each, cast in self.votes.items() if cast.vote.block == vote.block]
        return vote.block if self.parent.validators.is_quorum(voters) else None

    def commit_for(self, block_hash: str) -> Commit:
        """The votes for a block, sorted by validator."""
        return tuple(
            CommitSignature(validator=validator, sig=cast.sig)
            for validator, cast in sorted(self.votes.items())
            if cast.vote.block == block_hash
        )

    def winner(self, block_hash: str) -> Candidate:
        """The executed block that a quorum voted for. Raises Divergence where it does not hold, or is not there.

        ``data["check"]`` of the error says which check of an audit failed.
        """
        if self.candidate is not None and self.candidate.hash == block_hash:
            return self.candidate
        waiting = self._waiting.get(block_hash)
        examined = self._faults.get(block_hash) if waiting is None else self._examine(waiting)
        if isinstance(examined, Candidate):
            return examined
        error = Divergence(self.parent.height + 1, self._absence(block_hash) if examined is None else str(examined))
        error.data["check"] = Fault.check if examined is None else examined.check
        raise error

    def _absence(self, block_hash: str) -> str:
        missing = f"a quorum votes for block {block_hash}, which the log does not hold before the votes"
        if self.candidate is not None:
            return f"{missing}; it holds {self.candidate.hash}"
        return missing if self._last_fault is None else f"{missing}; {self._last_fault}"
