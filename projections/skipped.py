"""What the fold over the log skipped, and what proves that a validator broke the rules; the latest of each."""

from collections import deque
from typing import Final

from msgspec import Struct

from projections.faults import Fault
from schemas.blocks import Block, Header, SignedVote

KEPT: Final = 100


class Rejected(Struct, frozen=True, kw_only=True):
    """A message of the log that was skipped."""

    sequence: int
    kind: str
    fault: Fault


class DoubleVote(Struct, frozen=True, kw_only=True):
    """Two different votes of one validator at one height."""

    first: SignedVote
    second: SignedVote


class DoubleProposal(Struct, frozen=True, kw_only=True):
    """Two different signed headers of one proposer for one height and round."""

    first: Header
    first_sig: str
    second: Header
    second_sig: str


Evidence = DoubleVote | DoubleProposal


def double_proposal(first: Block, second: Block) -> DoubleProposal:
    """The evidence without the blocks' events."""
    return DoubleProposal(first=first.header, first_sig=first.sig, second=second.header, second_sig=second.sig)


class Skipped:
    """The latest skipped messages and the latest evidence. ``rejections`` counts all there ever were."""

    def __init__(self) -> None:
        self.rejected: Final[deque[Rejected]] = deque(maxlen=KEPT)
        self.evidence: Final[deque[Evidence]] = deque(maxlen=KEPT)
        self.rejections = 0

    def reject(self, sequence: int, kind: str, fault: Fault) -> None:
        """Takes note of a skipped message."""
        self.rejected.append(Rejected(sequence=sequence, kind=kind, fault=fault))
        self.rejections += 1

    def accuse(self, evidence: Evidence) -> None:
        """Takes note of evidence, once."""
        if evidence not in self.evidence:
            self.evidence.append(evidence)
