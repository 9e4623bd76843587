"""Whether a block is valid: a list of checks, cheap ones first, each with its own fault.

Builder and checker call the same functions. Only the distance to the server's time is judged apart (`distance_fault`):
it matters to those who vote; for a block that has a quorum the voters have vouched for it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from events.blocks import block_signature_holds, commit_signature_holds
from events.canonical import digest
from events.envelope import SignedEvent, parse
from events.errors import Refused
from events.merkle import root
from projections.execute import BlockExecution, Executed, timers_due
from projections.faults import (
    BadBlockSignature,
    BadCommit,
    BadEvent,
    BadEventSignature,
    EmptyBlock,
    FarFromServerTime,
    Fault,
    OtherChain,
    OtherGenesis,
    TimeNotAfterParent,
    TooEarlyForRound,
    TooManyBytes,
    TooManyEvents,
    TooMuchGas,
    WrongEventRoot,
    WrongGas,
    WrongHeight,
    WrongOutcomeRoot,
    WrongParent,
    WrongProposer,
    WrongRules,
    WrongStateRoot,
)
from projections.signatures import first_bad_signature
from projections.state import Context, State
from projections.validators import Validators
from schemas.blocks import Block, Commit, Header
from schemas.genesis import Genesis, Parameters


class Parent(Struct, frozen=True, kw_only=True):
    """What the next block is checked against. ``votes`` are signatures for this parent that are known to hold."""

    genesis: Genesis
    genesis_hash: str
    validators: Validators
    height: int
    hash: str
    time_ms: int
    votes: Mapping[str, str]


def earliest_ms(parent: Parent, round: int) -> int:  # noqa: A002 - the field's own name
    """The earliest block time of a round."""
    parameters = parent.genesis.parameters
    return parent.time_ms + parameters.min_block_interval_ms + round * parameters.round_timeout_ms


def place_fault(header: Header, parent: Parent) -> Fault | None:
    """Checks where the block stands: chain, height, parent, rules, turn and time."""
    genesis = parent.genesis
    if header.chain != genesis.chain:
        return OtherChain(expected=genesis.chain, found=header.chain)
    if header.genesis != parent.genesis_hash:
        return OtherGenesis(expected=parent.genesis_hash, found=header.genesis)
    if header.height != parent.height + 1:
        return WrongHeight(expected=parent.height + 1, found=header.height)
    if header.parent != parent.hash:
        return WrongParent(expected=parent.hash, found=header.parent)
    if header.rules != genesis.rules:
        return WrongRules(expected=genesis.rules, found=header.rules)
    turn = parent.validators.proposer(header.height, header.round)
    if header.proposer != turn:
        return WrongProposer(round=header.round, expected=turn, found=header.proposer)
    if header.time_ms <= parent.time_ms:
        return TimeNotAfterParent(parent_ms=parent.time_ms, found_ms=header.time_ms)
    earliest = earliest_ms(parent, header.round)
    if header.time_ms < earliest:
        return TooEarlyForRound(round=header.round, earliest_ms=earliest, found_ms=header.time_ms)
    return None


def commit_fault(commit: Commit, parent: Parent) -> Fault | None:
    """Checks the votes for the parent: a quorum of validators, sorted, each once, each signature right."""
    if parent.height == 0:
        return BadCommit(detail="nobody votes for the genesis") if commit else None
    voters = [entry.validator for entry in commit]
    if any(first >= second for first, second in pairwise(voters)):
        return BadCommit(detail="the validators are not sorted, or one is named twice")
    for entry in commit:
        if entry.validator not in parent.validators:
            return BadCommit(detail=f"{entry.validator} is not a validator")
    if not parent.validators.is_quorum(voters):
        return BadCommit(detail=f"{len(voters)} votes for block {parent.height} are no quorum")
    for entry in commit:
        # Ed25519 signatures are deterministic: the vote that was checked on its own way in has the same text.
        if parent.votes.get(entry.validator) != entry.sig and not commit_signature_holds(
            entry, parent.genesis.chain, parent.height, parent.hash
        ):
            return BadCommit(detail=f"the signature of {entry.validator} is not for block {parent.hash}")
    return None


def size_fault(size: int, count: int, parameters: Parameters) -> Fault | None:
    """Checks the block's bytes and its number of events."""
    if size > parameters.max_block_bytes:
        return TooManyBytes(limit=parameters.max_block_bytes, found=size)
    if count > parameters.max_block_events:
        return TooManyEvents(limit=parameters.max_block_events, found=count)
    return None


def header_fault(block: Block, size: int, parent: Parent) -> Fault | None:
    """All that can be said without looking into the events. ``size`` is that of the block's bytes."""
    fault = place_fault(block.header, parent) or size_fault(size, len(block.events), parent.genesis.parameters)
    if fault is None and not block_signature_holds(block):
        fault = BadBlockSignature(proposer=block.header.proposer)
    return fault or commit_fault(block.header.commit, parent)


def distance_fault(header: Header, time_ns: int, parameters: Parameters) -> Fault | None:
    """Checks that the block's time is near the server's stamp of its message."""
    server_ms = time_ns // 1_000_000
    if abs(header.time_ms - server_ms) > parameters.max_drift_ms:
        return FarFromServerTime(server_ms=server_ms, found_ms=header.time_ms, limit_ms=parameters.max_drift_ms)
    return None


def event_root_fault(block: Block) -> Fault | None:
    """Checks that these are the events that the header speaks of."""
    computed = root(bytes(raw) for raw in block.events).hex()
    if computed != block.header.event_root:
        return WrongEventRoot(stated=block.header.event_root, computed=computed)
    return None


def read_events(
    raws: Sequence[bytes], verified: Callable[[str], bool], threads: int
) -> tuple[SignedEvent, ...] | Fault:
    """Parses the envelopes; checks the signatures that ``verified``, asked by the envelope's digest, does not know."""
    events = []
    for index, raw in enumerate(raws):
        try:
            events.append(parse(raw))
        except Refused as error:
            return BadEvent(index=index, refusal=error.refusal)
    unknown = [index for index, signed in enumerate(events) if not verified(digest(signed.raw))]
    bad = first_bad_signature([events[index] for index in unknown], threads)
    if bad is not None:
        index = unknown[bad]
        return BadEventSignature(index=index, sender=events[index].event.sender)
    return tuple(events)


def execute(state: State, header: Header, events: Sequence[SignedEvent]) -> Executed | Fault:
    """Executes the block on a draft of the state and compares everything that the header says about the result."""
    if not events and not timers_due(state, header.time_ms):
        return EmptyBlock()
    execution = BlockExecution(state, Context(height=header.height, time_ms=header.time_ms, proposer=header.proposer))
    for index, signed in enumerate(events):
        refusal = execution.include(signed)
        if refusal is not None:
            return BadEvent(index=index, refusal=refusal)
    executed = execution.finish()
    return result_fault(header, executed, state.parameters) or executed


def result_fault(header: Header, executed: Executed, parameters: Parameters) -> Fault | None:
    """Compares the header with a result, in the order in which a difference would arise."""
    if header.event_root != executed.event_root:
        return WrongEventRoot(stated=header.event_root, computed=executed.event_root)
    if executed.gas > parameters.max_block_gas:
        return TooMuchGas(limit=parameters.max_block_gas, found=executed.gas)
    if header.gas != executed.gas:
        return WrongGas(stated=header.gas, computed=executed.gas)
    if header.outcome_root != executed.outcome_root:
        return WrongOutcomeRoot(stated=header.outcome_root, computed=executed.outcome_root)
    if header.state_root != executed.state_root:
        return WrongStateRoot(stated=header.state_root, computed=executed.state_root)
    return None
