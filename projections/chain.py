"""The fold over CHAIN: from the log's messages to final blocks, the same for every reader.

At each height the first valid block is the candidate that validators vote for. The block that gets a quorum of votes is
final; every reader executes it for itself before it believes it. Everything else is skipped, and remembered with its
fault. The server's stamps serve only to choose the candidate, so a reader without stamps, such as the audit of a file,
finds the same final blocks.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final as Constant

from msgspec import Struct

from events.blocks import decode_vote, genesis_hash, hash_of, sign_vote, vote_signature_holds
from events.envelope import SignedEvent
from events.errors import Divergence, VerificationFailed
from events.keys import Key
from projections import blocks, building
from projections.contest import Candidate, Contest
from projections.execute import Executed
from projections.faults import BadVoteSignature, NotAValidator, OtherChain, UnknownKind, Unreadable, VoteAhead
from projections.skipped import Evidence, Rejected, Skipped
from projections.state import State
from projections.validators import Validators
from schemas.blocks import Block, Commit, Header, SignedVote, Vote
from schemas.genesis import Genesis
from schemas.refusals import Refusal


class Final(Struct, frozen=True, kw_only=True):
    """A final block. ``sequence`` is that of its message, ``commit_sequence`` of the vote that completed the quorum."""

    header: Header
    hash: str
    sequence: int
    block_bytes: bytes
    events: tuple[SignedEvent, ...]
    executed: Executed
    votes: Commit
    commit_sequence: int


def _never(_: str) -> bool:
    return False


class Chain:
    """The log up to the last message added."""

    def __init__(
        self,
        genesis: Genesis,
        *,
        state: State | None = None,
        head: Header | None = None,
        commit: Commit = (),
        verified: Callable[[str], bool] | None = None,
        threads: int = 1,
    ) -> None:
        """Starts at the genesis, or behind the final block ``head`` with the state after it and the votes for it.

        ``verified`` says whether the signature of an envelope, named by the SHA-256 of all its bytes, is known to
        hold. Raises VerificationFailed when ``state`` is not the state after ``head``, BadInput for a bad genesis.
        """
        self.genesis: Constant = genesis
        self.genesis_hash: Constant = genesis_hash(genesis)
        self.validators: Constant = Validators(genesis)
        self.state: Constant = State.from_genesis(genesis) if state is None else state
        self._skipped = Skipped()
        self._verified = verified or _never
        self._threads = threads
        self._stopped: Divergence | None = None
        self._ahead: dict[str, int] = {}
        if head is not None and self.state.root() != head.state_root:
            raise VerificationFailed(
                f"the stored state is not that of block {head.height}",
                why=f"its root is {self.state.root()}, the block says {head.state_root}",
                hint="Delete the stored state and replay the log.",
            )
        self._move_to(head, commit)

    def _move_to(self, head: Header | None, commit: Commit) -> None:
        self.head = head
        self.head_hash = self.genesis_hash if head is None else hash_of(head)
        self.height = 0 if head is None else head.height
        self.commit = commit
        parent = blocks.Parent(
            genesis=self.genesis,
            genesis_hash=self.genesis_hash,
            validators=self.validators,
            height=self.height,
            hash=self.head_hash,
            time_ms=self.genesis.time_ms if head is None else head.time_ms,
            votes={entry.validator: entry.sig for entry in commit},
        )
        self._contest = Contest(parent, self.state, self._skipped, self._verified, self._threads)

    @property
    def candidate(self) -> Candidate | None:
        """The first valid block of the next height, executed."""
        return self._contest.candidate

    @property
    def rejected(self) -> deque[Rejected]:
        """The latest messages that were skipped."""
        return self._skipped.rejected

    @property
    def rejections(self) -> int:
        """How many messages were skipped."""
        return self._skipped.rejections

    @property
    def evidence(self) -> deque[Evidence]:
        """The latest proofs that a validator broke the rules."""
        return self._skipped.evidence

    def has_block(self, block_hash: str) -> bool:
        """Whether the log holds this block for the next height, so that votes for it can make it final."""
        return self._contest.has_block(block_hash)

    def proposer_for(self, height: int, round: int) -> str:  # noqa: A002 - the field's own name
        """The address whose turn it is."""
        return self.validators.proposer(height, round)

    def earliest_ms(self, round: int) -> int:  # noqa: A002 - the field's own name
        """The earliest block time of a round at the next height."""
        return blocks.earliest_ms(self._contest.parent, round)

    def was_proposed(self, round: int) -> bool:  # noqa: A002 - the field's own name
        """Whether the log holds a block of this round of the next height: another one would be evidence against its
        proposer."""
        return self._contest.has_proposal(round)

    def add(self, sequence: int, kind: str, data: bytes, time_ns: int | None) -> Final | None:
        """Takes the next message of the log; returns the block that it makes final.

        ``time_ns`` is the server's stamp, None where it is unknown. ``data`` may be anything: what is not valid is
        skipped. Raises Divergence, then and at every later call, when a quorum voted for what does not hold here.
        """
        if self._stopped is not None:
            raise self._stopped
        try:
            if kind == "vote":
                return self._add_vote(sequence, data)
            if kind == "block":
                self._contest.add_block(sequence, data, time_ns)
            else:
                self._skipped.reject(sequence, kind, UnknownKind(kind=kind))
        except Divergence as error:
            self._stopped = error
            raise
        return None

    def _add_vote(self, sequence: int, data: bytes) -> Final | None:
        try:
            signed = decode_vote(data)
        except VerificationFailed as error:
            self._skipped.reject(sequence, "vote", Unreadable(detail=error.why or error.what))
            return None
        vote = signed.vote
        if vote.chain != self.genesis.chain:
            self._skipped.reject(sequence, "vote", OtherChain(expected=self.genesis.chain, found=vote.chain))
        elif vote.validator not in self.validators:
            self._skipped.reject(sequence, "vote", NotAValidator(address=vote.validator))
        elif vote.height <= self.height:
            pass  # late: that height is final already
        elif not vote_signature_holds(signed):
            self._skipped.reject(sequence, "vote", BadVoteSignature(validator=vote.validator))
        elif vote.height > self.height + 1:
            self._note_vote_ahead(sequence, vote)
        elif (block_hash := self._contest.add_vote(sequence, signed)) is not None:
            return self._finalise(block_hash, sequence)
        return None

    def _note_vote_ahead(self, sequence: int, vote: Vote) -> None:
        """One validator may be out of its mind; a quorum that is ahead shows that the log has a hole."""
        self._ahead[vote.validator] = vote.height
        self._skipped.reject(sequence, "vote", VoteAhead(expected=self.height + 1, found=vote.height))
        if self.validators.is_quorum([each for each, height in self._ahead.items() if height > self.height + 1]):
            raise Divergence(
                self.height + 1, f"a quorum votes on height {vote.height} while no block of this height is final"
            )

    def _finalise(self, block_hash: str, commit_sequence: int) -> Final:
        winner = self._contest.winner(block_hash)
        commit = self._contest.commit_for(block_hash)
        self.state.adopt(winner.executed.draft)
        self._move_to(winner.header, commit)
        return Final(
            header=winner.header,
            hash=winner.hash,
            sequence=winner.sequence,
            block_bytes=winner.block_bytes,
            events=winner.events,
            executed=winner.executed,
            votes=commit,
            commit_sequence=commit_sequence,
        )

    def propose(
        self,
        key: Key,
        events: Sequence[SignedEvent],
        time_ms: int,
        round: int,  # noqa: A002 - the field's own name
    ) -> tuple[Block | None, list[tuple[SignedEvent, Refusal]]] | None:
        """The next block of ``events`` in the given order, and those that cannot be included, each with its refusal.

        Takes events, as `events.envelope.parse` gave them, up to the first that does not fit into the block. None as
        long as it is too early, or not this key's turn; no block (but perhaps refusals) where it would be empty. The
        block's execution is remembered: adding the same block does not execute it again.
        """
        header = building.header_in_place(self._contest.parent, self.commit, key.address, time_ms, round)
        if header is None:
            return None
        built, refused = building.build(self.state, header, key, events, self._verified)
        if built is None:
            return None, refused
        self._contest.built = built
        return built.block, refused

    def vote(self, key: Key) -> SignedVote | None:
        """The key's vote for the candidate; None without one, or where the key has no vote, or has cast it already."""
        candidate = self.candidate
        if candidate is None or key.address not in self.validators or key.address in self._contest.votes:
            return None
        vote = Vote(
            block=candidate.hash, chain=self.genesis.chain, height=candidate.header.height, validator=key.address
        )
        return sign_vote(vote, key)
