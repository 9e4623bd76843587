"""What is wrong with a message of the log: one record per reason, with the data that explains it.

A message with a fault is skipped. ``str(fault)`` is the sentence for people.
"""

from typing import ClassVar

from msgspec import Struct

from schemas.refusals import Refusal, code_of


class Fault(Struct, frozen=True, kw_only=True, tag_field="fault", tag=True):
    """Base of all reasons."""

    sentence: ClassVar[str] = ""
    # The check of an audit that it belongs to.
    check: ClassVar[str] = "blocks"

    def __str__(self) -> str:
        return self.sentence.format(**{name: getattr(self, name) for name in self.__struct_fields__})


class UnknownKind(Fault, frozen=True):
    sentence = "kind: {kind!r} is neither block nor vote"
    kind: str


class Unreadable(Fault, frozen=True):
    """The bytes are not one block, or one vote, in canonical form."""

    sentence = "form: {detail}"
    detail: str


class OtherChain(Fault, frozen=True):
    sentence = "chain: it says {found}, this is {expected}"
    expected: str
    found: str


class OtherGenesis(Fault, frozen=True):
    sentence = "genesis: the block says {found}, this chain's is {expected}"
    expected: str
    found: str


class WrongHeight(Fault, frozen=True):
    sentence = "height: the block says {found}, the next one is {expected}"
    expected: int
    found: int


class WrongParent(Fault, frozen=True):
    sentence = "parent: the block says {found}, the head is {expected}"
    expected: str
    found: str


class WrongRules(Fault, frozen=True):
    sentence = "rules: the block says version {found}, the chain has {expected}"
    expected: int
    found: int


class WrongProposer(Fault, frozen=True):
    sentence = "proposer: round {round} belongs to {expected}, the block is of {found}"
    round: int
    expected: str
    found: str


class BadBlockSignature(Fault, frozen=True):
    sentence = "block signature: it is not that of the proposer {proposer}"
    proposer: str


class TimeNotAfterParent(Fault, frozen=True):
    sentence = "time: the block says {found_ms} ms, its parent {parent_ms} ms"
    parent_ms: int
    found_ms: int


class TooEarlyForRound(Fault, frozen=True):
    sentence = "time: the block says {found_ms} ms, round {round} begins at {earliest_ms} ms"
    round: int
    earliest_ms: int
    found_ms: int


class FarFromServerTime(Fault, frozen=True):
    """Judged only where the server's stamp of the message is known; a quorum vouches for it elsewhere."""

    sentence = "time: the block says {found_ms} ms, the server {server_ms} ms; they may differ by {limit_ms} ms"
    server_ms: int
    found_ms: int
    limit_ms: int


class BadCommit(Fault, frozen=True):
    sentence = "commit: {detail}"
    detail: str


class TooManyBytes(Fault, frozen=True):
    sentence = "size: the block has {found} bytes, the limit is {limit}"
    limit: int
    found: int


class TooManyEvents(Fault, frozen=True):
    sentence = "events: the block has {found}, the limit is {limit}"
    limit: int
    found: int


class TooMuchGas(Fault, frozen=True):
    sentence = "gas: the block uses {found}, the limit is {limit}"
    limit: int
    found: int


class EmptyBlock(Fault, frozen=True):
    sentence = "events: the block has none, and no timer is due"


class BadEvent(Fault, frozen=True):
    """The event could not be read, or could not be included at this place."""

    check = "events"
    index: int
    refusal: Refusal

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={getattr(self.refusal, name)}" for name in self.refusal.__struct_fields__)
        return f"event {self.index}: {code_of(self.refusal)} ({facts})"


class BadEventSignature(Fault, frozen=True):
    check = "events"
    sentence = "event {index}: the signature is not that of {sender}"
    index: int
    sender: str


class WrongEventRoot(Fault, frozen=True):
    check = "events"
    sentence = "event root: the block says {stated}, its events give {computed}"
    stated: str
    computed: str


class WrongOutcomeRoot(Fault, frozen=True):
    check = "execution"
    sentence = "outcome root: the block says {stated}, re-execution gives {computed}"
    stated: str
    computed: str


class WrongStateRoot(Fault, frozen=True):
    check = "execution"
    sentence = "state root: the block says {stated}, re-execution gives {computed}"
    stated: str
    computed: str


class WrongGas(Fault, frozen=True):
    check = "execution"
    sentence = "gas: the block says {stated}, re-execution gives {computed}"
    stated: int
    computed: int


class NotFirst(Fault, frozen=True):
    """A block came before it at this height. It is kept: only a quorum decides which of them is final."""

    sentence = "order: block {first} came before it at this height"
    first: str


class NotAValidator(Fault, frozen=True):
    sentence = "vote: {address} is not a validator"
    address: str


class BadVoteSignature(Fault, frozen=True):
    sentence = "vote: the signature is not that of {validator}"
    validator: str


class SecondVote(Fault, frozen=True):
    """The first vote of a validator at a height counts."""

    sentence = "vote: {validator} has voted for {first} at this height before"
    validator: str
    first: str


class VoteAhead(Fault, frozen=True):
    sentence = "vote: height {found} is voted on while {expected} is not final"
    expected: int
    found: int
