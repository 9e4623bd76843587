"""The fold over the log: what makes a block valid, what makes it final, and what stops a reader."""

import random
from collections.abc import Callable

import msgspec
import pytest

from events.blocks import decode_block, decode_vote, hash_of, sign_block, sign_vote
from events.canonical import canonical, digest
from events.envelope import SignedEvent, wrap
from events.errors import Divergence, VerificationFailed
from events.keys import Key
from events.merkle import root
from projections import faults
from projections.chain import Chain, Final
from projections.contest import BYTES_OF_WAITING, MAX_REMEMBERED
from projections.skipped import KEPT, DoubleProposal, DoubleVote
from projections.state import State
from schemas.blocks import CommitSignature, Header, Vote
from schemas.events import JobCancelled, JobRefunded, TransferSent
from schemas.refusals import (
    BadSignature,
    GasPriceTooLow,
    InsufficientBalance,
    NonceGap,
    NonceTooLow,
    TooLarge,
)
from tests.projections.small_network import (
    CHAIN,
    COINS,
    INTERVAL_MS,
    ROUND_MS,
    SmallNetwork,
    digest_of,
    key_of,
    make_genesis,
)

STRANGER = key_of("stranger")
NEXT = 1
"""The nonce of the next event of ``alice`` in a network that has one final block."""


def signed_by(key: Key, header: Header, events: tuple[bytes, ...]) -> bytes:
    return canonical(sign_block(header, events, key))


def forged(network: SmallNetwork, *events: SignedEvent, round_number: int = 0, **changes: object) -> bytes:
    """An honest block with other words in its header, signed by whoever's turn it is."""
    block = network.build(*(events or (network.transfer(nonce=NEXT),)), round_number=round_number)
    header = msgspec.structs.replace(block.header, **changes)
    return signed_by(network.proposer(round_number), header, tuple(bytes(raw) for raw in block.events))


def with_events(network: SmallNetwork, *raws: bytes) -> bytes:
    """A block in its place whose proposer puts any bytes in as events, and claims any result."""
    header = network.build(network.transfer(nonce=NEXT)).header
    return signed_by(network.proposer(), header, raws)


def with_commit(network: SmallNetwork, change: Callable[[list[CommitSignature]], list[CommitSignature]]) -> bytes:
    return forged(network, commit=tuple(change(list(network.chain.commit))))


def by_another_key(network: SmallNetwork) -> bytes:
    block = network.build(network.transfer())
    return canonical(msgspec.structs.replace(block, sig=sign_block(block.header, (), STRANGER).sig))


def badly_signed_event(network: SmallNetwork) -> bytes:
    good, other = network.transfer(), network.transfer(5)
    return with_events(network, good.raw, wrap(other.body_bytes, good.sig))


def other_order(network: SmallNetwork) -> bytes:
    """The header of one order of events with another order."""
    first, second = network.transfer(), network.transfer(7, sender="bob", to="alice")
    block = network.build(first, second)
    return signed_by(network.proposer(), block.header, (second.raw, first.raw))


def too_many_bytes(network: SmallNetwork) -> bytes:
    events = [network.say("alice", TransferSent, to=STRANGER.address, amount=1, memo="x" * 256) for _ in range(8)]
    return with_events(network, *(event.raw for event in events))


def too_many_events(network: SmallNetwork) -> bytes:
    return with_events(network, *(network.transfer().raw for _ in range(5)))


def too_much_gas(network: SmallNetwork) -> bytes:
    jobs = [network.submit("alice", escrow=1_000) for _ in range(11)]
    claimed = SmallNetwork(make_genesis(max_block_gas=200_000, max_block_bytes=8_192))
    block = claimed.build(*jobs)
    header = msgspec.structs.replace(block.header, parent=network.chain.head_hash, genesis=network.chain.genesis_hash)
    return signed_by(network.proposer(), header, tuple(bytes(raw) for raw in block.events))


def stranger_votes(entries: list[CommitSignature]) -> list[CommitSignature]:
    return sorted(
        [*entries, CommitSignature(validator=STRANGER.address, sig="A" * 86)], key=lambda entry: entry.validator
    )


BLOCKS = {
    "not JSON": (lambda network: b"\xff\x00", faults.Unreadable),
    "nested bomb": (lambda network: b'{"events":[' + b"[" * 100_000, faults.Unreadable),
    "white space": (lambda network: canonical(network.build(network.transfer())) + b"\n", faults.Unreadable),
    "another chain": (lambda network: forged(network, chain="elsewhere"), faults.OtherChain),
    "another genesis": (lambda network: forged(network, genesis=digest_of("other")), faults.OtherGenesis),
    "a height ahead": (lambda network: forged(network, height=3), faults.WrongHeight),
    "a final height": (lambda network: forged(network, height=1), faults.WrongHeight),
    "another parent": (lambda network: forged(network, parent=digest_of("fork")), faults.WrongParent),
    "other rules": (lambda network: forged(network, rules=2), faults.WrongRules),
    "not its turn": (lambda network: forged(network, proposer=STRANGER.address), faults.WrongProposer),
    "the turn of another round": (lambda network: forged(network, round=1), faults.WrongProposer),
    "another's signature": (by_another_key, faults.BadBlockSignature),
    "the parent's time": (
        lambda network: forged(network, time_ms=network.chain.head.time_ms),
        faults.TimeNotAfterParent,
    ),
    "within the interval": (
        lambda network: forged(network, time_ms=network.chain.earliest_ms(0) - 1),
        faults.TooEarlyForRound,
    ),
    "before its round": (
        lambda network: forged(network, round_number=1, time_ms=network.chain.earliest_ms(1) - 1),
        faults.TooEarlyForRound,
    ),
    "no commit": (lambda network: with_commit(network, lambda entries: []), faults.BadCommit),
    "too small a commit": (lambda network: with_commit(network, lambda entries: entries[:1]), faults.BadCommit),
    "unsorted commit": (lambda network: with_commit(network, lambda entries: entries[::-1]), faults.BadCommit),
    "one voter twice": (lambda network: with_commit(network, lambda entries: entries[:1] * 2), faults.BadCommit),
    "a stranger in the commit": (lambda network: with_commit(network, stranger_votes), faults.BadCommit),
    "swapped signatures": (
        lambda network: with_commit(
            network,
            lambda entries: [
                CommitSignature(validator=entries[0].validator, sig=entries[1].sig),
                CommitSignature(validator=entries[1].validator, sig=entries[0].sig),
            ],
        ),
        faults.BadCommit,
    ),
    "too many bytes": (too_many_bytes, faults.TooManyBytes),
    "too many events": (too_many_events, faults.TooManyEvents),
    "no events": (with_events, faults.EmptyBlock),
    "an event that is none": (lambda network: with_events(network, b"{}"), faults.BadEvent),
    "an event with a wrong nonce": (
        lambda network: with_events(network, (network.transfer(), network.transfer())[1].raw),
        faults.BadEvent,
    ),
    "an event twice": (lambda network: with_events(network, *[network.transfer().raw] * 2), faults.BadEvent),
    "an event of another": (badly_signed_event, faults.BadEventSignature),
    "events in another order": (other_order, faults.WrongEventRoot),
    "wrong gas": (lambda network: forged(network, gas=999), faults.WrongGas),
    "wrong outcomes": (lambda network: forged(network, outcome_root=digest_of("x")), faults.WrongOutcomeRoot),
    "wrong state": (lambda network: forged(network, state_root=digest_of("x")), faults.WrongStateRoot),
}
"""Each block stands at height 2 of a network that has one final block."""


@pytest.fixture
def network() -> SmallNetwork:
    network = SmallNetwork(make_genesis(max_block_events=4, max_block_bytes=4_096))
    network.block(network.transfer())
    return network


@pytest.mark.parametrize("name", BLOCKS)
def test_an_invalid_block_is_skipped_with_its_fault(network: SmallNetwork, name: str) -> None:
    """Every way in which a block can be invalid has its own fault; the next valid block becomes final all the same."""
    make, expected = BLOCKS[name]
    state_root = network.chain.state.root()
    assert network.append("block", make(network)) is None
    assert network.chain.candidate is None
    (rejected,) = network.chain.rejected
    assert type(rejected.fault) is expected
    assert (rejected.sequence, rejected.kind) == (len(network.log), "block")
    assert str(rejected.fault)
    assert network.chain.state.root() == state_root
    assert network.block(network.transfer(5, nonce=NEXT)).header.height == 2


def test_a_block_above_the_gas_limit_is_skipped() -> None:
    """The gas of the events may not pass the limit of the chain, whatever the header says."""
    network = SmallNetwork(make_genesis(max_block_gas=100_000, max_block_bytes=8_192))
    network.append("block", too_much_gas(network))
    assert network.chain.rejected[0].fault == faults.TooMuchGas(limit=100_000, found=110_000)


def test_a_commit_at_height_1_is_refused() -> None:
    """Nobody votes for the genesis."""
    network = SmallNetwork()
    network.append(
        "block",
        forged(network, network.transfer(), commit=(CommitSignature(validator=STRANGER.address, sig="A" * 86),)),
    )
    assert network.chain.rejected[0].fault == faults.BadCommit(detail="nobody votes for the genesis")


def test_a_commit_may_hold_votes_that_came_after_the_quorum(network: SmallNetwork) -> None:
    """A proposer may put every vote into its commit; signatures that the fold has not counted are checked then."""
    head = network.chain.head
    assert head is not None
    votes = [network.sign_vote_for(network.chain.head_hash, key, head.height) for key in network.validators]
    commit = sorted(
        (CommitSignature(validator=vote.vote.validator, sig=vote.sig) for vote in votes),
        key=lambda entry: entry.validator,
    )
    assert len(network.chain.commit) == 2
    network.append("block", forged(network, commit=tuple(commit)))
    assert network.chain.candidate is not None


def test_a_block_far_from_the_servers_time_is_no_candidate_but_may_be_final(network: SmallNetwork) -> None:
    """The server's stamp decides who is voted for; a quorum's votes decide what is final, with or without stamps."""
    block = network.build(network.transfer())
    far_ns = (block.header.time_ms + 5_001) * 1_000_000
    network.append_block(block, far_ns)
    fault = faults.FarFromServerTime(
        server_ms=block.header.time_ms + 5_001, found_ms=block.header.time_ms, limit_ms=5_000
    )
    assert network.chain.rejected[0].fault == fault
    assert network.chain.candidate is None
    assert network.chain.vote(network.validators[0]) is None
    network.append_vote(network.sign_vote_for(hash_of(block.header), network.validators[0]))
    final = network.append_vote(network.sign_vote_for(hash_of(block.header), network.validators[1]))
    assert final is not None
    assert final.header == block.header


@pytest.mark.parametrize("distance_ms", [-5_000, 5_000])
def test_a_block_within_the_drift_is_the_candidate(network: SmallNetwork, distance_ms: int) -> None:
    """The limit itself is allowed, in both directions."""
    block = network.build(network.transfer())
    network.append_block(block, (block.header.time_ms + distance_ms) * 1_000_000)
    assert network.chain.candidate is not None


def test_readers_with_and_without_stamps_find_the_same_final_blocks() -> None:
    """A block that voters passed over for its time looks first to an audit, which still follows the votes."""
    network = SmallNetwork()
    early = network.build(network.transfer(1, nonce=0), time_ms=network.chain.earliest_ms(0) + 50_000)
    good = network.build(network.transfer(2, nonce=0))
    server_ns = good.header.time_ms * 1_000_000
    network.append_block(early, server_ns)
    network.append_block(good, server_ns)
    for key in network.validators:
        network.append_vote(network.chain.vote(key) or network.sign_vote_for(hash_of(good.header), key, 1))
    reader = Chain(network.genesis)
    finals = [final for entry in network.log if (final := reader.add(*entry, None))]
    assert [final.hash for final in finals] == [hash_of(good.header)]
    assert reader.state.root() == network.chain.state.root()


def test_the_first_valid_block_is_the_candidate_and_another_waits(network: SmallNetwork) -> None:
    """A second valid block is not voted for, but becomes final if a quorum votes for it."""
    first = network.build(network.transfer(1, nonce=NEXT))
    second = network.build(network.transfer(2, nonce=NEXT), round_number=1)
    network.append_block(first)
    network.append_block(second)
    network.append_block(first)
    assert network.chain.candidate is not None
    assert network.chain.candidate.hash == hash_of(first.header)
    fault = faults.NotFirst(first=hash_of(first.header))
    assert [each.fault for each in network.chain.rejected] == [fault, fault]
    for key in network.validators[:2]:
        network.append_vote(network.sign_vote_for(hash_of(second.header), key))
    assert network.chain.head_hash == hash_of(second.header)


def test_a_waiting_block_is_not_replaced_by_one_with_other_events(network: SmallNetwork) -> None:
    """What waits under a hash has the events of that hash, so votes for it find them."""
    far_ns = 0
    block = network.build(network.transfer())
    network.append_block(block, far_ns)
    network.append_block(msgspec.structs.replace(block, events=()), far_ns)
    assert isinstance(network.chain.rejected[-1].fault, faults.WrongEventRoot)
    for key in network.validators[:2]:
        network.append_vote(network.sign_vote_for(hash_of(block.header), key))
    assert network.chain.height == 2


def test_a_flood_of_small_blocks_hides_none_from_a_reader_without_stamps() -> None:
    """A reader that took another block for the first still has the voters' one when their votes come, much later."""
    network = SmallNetwork()
    event = network.transfer()
    earliest = network.chain.earliest_ms(0)
    network.append_block(network.build(event, time_ms=earliest + 10**9))
    chosen = network.build(event)
    network.append_block(chosen)
    for later_ms in range(1, 100):
        network.append_block(network.build(event, time_ms=earliest + 10**9 + later_ms))
    for validator in network.validators[:2]:
        network.append_vote(network.sign_vote_for(hash_of(chosen.header), validator))
    assert network.chain.head_hash == hash_of(chosen.header)


def test_waiting_blocks_are_bounded_and_those_with_votes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposer that floods a height fills no memory, and cannot push out a block that has votes."""
    limit = 32 * BYTES_OF_WAITING
    monkeypatch.setattr("projections.contest.MAX_WAITING_BYTES", limit)
    network = SmallNetwork()
    event = network.transfer()
    network.append_block(network.build(event))
    earliest = network.chain.earliest_ms(0)
    chosen = network.build(event, time_ms=earliest + 1)
    network.append_block(chosen)
    network.append_vote(network.sign_vote_for(hash_of(chosen.header), network.validators[0]))
    for later_ms in range(2, 40):
        network.append_block(network.build(event, time_ms=earliest + later_ms))
    waiting = network.chain._contest._waiting
    assert limit - 2 * BYTES_OF_WAITING < sum(each.size for each in waiting.values()) <= limit
    network.append_vote(network.sign_vote_for(hash_of(chosen.header), network.validators[1]))
    assert network.chain.head_hash == hash_of(chosen.header)


def test_remembered_faults_and_rounds_are_bounded() -> None:
    """What is remembered of invalid blocks has a limit, of which the latest stay."""
    network = SmallNetwork()
    event = network.transfer()
    last = 3 * (MAX_REMEMBERED + 5)
    for number in range(0, last, 3):
        block = network.build(event, round_number=number)
        header = msgspec.structs.replace(block.header, state_root=digest_of("x"))
        network.append("block", signed_by(network.proposer(number), header, (event.raw,)))
    contest = network.chain._contest
    assert len(contest._faults) == len(contest._proposals) == MAX_REMEMBERED
    assert len(network.chain.rejected) == KEPT
    assert network.chain.rejections == MAX_REMEMBERED + 5


def vote_of(network: SmallNetwork, **changes: object) -> bytes:
    """The first validator's vote for the candidate, changed and signed by the one it names, if that is known here."""
    assert network.chain.candidate is not None
    vote = Vote(
        block=network.chain.candidate.hash,
        chain=CHAIN,
        height=network.chain.height + 1,
        validator=network.validators[0].address,
    )
    vote = msgspec.structs.replace(vote, **changes)
    keys = {key.address: key for key in [*network.validators, STRANGER]}
    return canonical(sign_vote(vote, keys[vote.validator]))


VOTES = {
    "not JSON": (lambda network: b"{", faults.Unreadable),
    "empty": (lambda network: b'{"sig":"","vote":{}}', faults.Unreadable),
    "white space": (lambda network: vote_of(network) + b" ", faults.Unreadable),
    "another chain": (lambda network: vote_of(network, chain="elsewhere"), faults.OtherChain),
    "a stranger": (lambda network: vote_of(network, validator=STRANGER.address), faults.NotAValidator),
    "another's signature": (
        lambda network: canonical(
            msgspec.structs.replace(decode_vote(vote_of(network)), sig=decode_vote(vote_of(network, height=9)).sig)
        ),
        faults.BadVoteSignature,
    ),
    "a height ahead": (lambda network: vote_of(network, height=3), faults.VoteAhead),
}


@pytest.mark.parametrize("name", VOTES)
def test_an_invalid_vote_is_skipped_with_its_fault(network: SmallNetwork, name: str) -> None:
    """A vote that does not count makes nothing final, however often it is said."""
    network.append_block(network.build(network.transfer()))
    make, expected = VOTES[name]
    for _ in range(3):
        assert network.append("vote", make(network)) is None
        assert type(network.chain.rejected[-1].fault) is expected
        assert str(network.chain.rejected[-1].fault)
    assert network.chain.height == 1


def test_a_message_of_another_kind_is_skipped(network: SmallNetwork) -> None:
    """CHAIN holds blocks and votes; anything else is no reason to stop."""
    network.append("rumour", b"{}")
    assert network.chain.rejected[0].fault == faults.UnknownKind(kind="rumour")


@pytest.mark.parametrize("seed", range(5))
def test_garbage_never_crashes_the_fold(network: SmallNetwork, seed: int) -> None:
    """Blocks and votes with random bytes changed are skipped, and the chain goes on."""
    generator = random.Random(seed)
    block = canonical(network.build(network.transfer()))
    network.append("block", block)
    vote = vote_of(network)
    for _ in range(100):
        kind, data = generator.choice([("block", block), ("vote", vote)])
        changed = bytearray(data)
        for _ in range(generator.randint(1, 3)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        network.append(kind, bytes(changed))
    for key in network.validators:
        network.append_vote(network.sign_vote_for(hash_of(decode_block(block).header), key, 2))
    assert network.chain.height == 2


@pytest.mark.parametrize(("powers", "quorum"), [((1,), 1), ((1,) * 3, 2), ((1,) * 4, 3), ((1,) * 7, 5), ((5, 1, 1), 1)])
def test_two_thirds_of_the_power_make_a_block_final(powers: tuple[int, ...], quorum: int) -> None:
    """With 1, 3, 4 or 7 validators the vote that completes two thirds of the power, and none before, is decisive."""
    network = SmallNetwork(make_genesis(powers=powers))
    for height in range(1, 4):
        network.append_block(network.build(network.transfer()))
        results = [network.append_vote(network.chain.vote(key)) for key in network.validators[:quorum]]
        assert [result is not None for result in results] == [False] * (quorum - 1) + [True]
        final = results[-1]
        assert isinstance(final, Final)
        assert (final.header.height, final.commit_sequence, len(final.votes)) == (height, len(network.log), quorum)
        assert network.log[final.sequence - 1][2] == final.block_bytes
        assert network.chain.commit == final.votes


def test_late_votes_change_nothing(network: SmallNetwork) -> None:
    """A vote for a final height is ignored, the commit for the next header stays as it was."""
    commit = network.chain.commit
    head = network.chain.head
    assert head is not None
    network.append_vote(network.sign_vote_for(digest_of("other"), network.validators[2], head.height))
    assert network.chain.commit == commit
    assert not network.chain.rejected


def test_votes_in_small_steps_are_counted_once(network: SmallNetwork) -> None:
    """The same vote said again is not a second one."""
    network.append_block(network.build(network.transfer()))
    vote = network.chain.vote(network.validators[0])
    for _ in range(3):
        assert network.append_vote(vote) is None
    assert network.chain.vote(network.validators[0]) is None


def test_the_first_vote_of_a_validator_counts_and_a_second_is_evidence(network: SmallNetwork) -> None:
    """A validator that votes twice at one height is counted once and convicted."""
    network.append_block(network.build(network.transfer()))
    first = network.sign_vote_for(digest_of("other"), network.validators[0])
    second = network.chain.vote(network.validators[0])
    network.append_vote(first)
    for _ in range(2):
        network.append_vote(second)
    assert list(network.chain.evidence) == [DoubleVote(first=first, second=second)]
    assert isinstance(network.chain.rejected[-1].fault, faults.SecondVote)
    network.append_vote(network.chain.vote(network.validators[1]))
    assert network.chain.height == 1
    network.append_vote(network.chain.vote(network.validators[2]))
    assert network.chain.height == 2


def test_two_signed_blocks_of_one_round_are_evidence(network: SmallNetwork) -> None:
    """A proposer that signs two blocks for one height and round is convicted, by headers and signatures alone."""
    first = network.build(network.transfer(1, nonce=NEXT))
    second = network.build(network.transfer(2, nonce=NEXT))
    network.append_block(first)
    for _ in range(2):
        network.append_block(second)
    evidence = DoubleProposal(first=first.header, first_sig=first.sig, second=second.header, second_sig=second.sig)
    assert list(network.chain.evidence) == [evidence]


def vote_by_two(network: SmallNetwork, block_hash: str, height: int | None = None) -> Divergence:
    """Both votes are in the log; the second one stops the reader."""
    network.append_vote(network.sign_vote_for(block_hash, network.validators[0], height))
    with pytest.raises(Divergence) as caught:
        network.append_vote(network.sign_vote_for(block_hash, network.validators[1], height))
    with pytest.raises(Divergence):
        network.append("block", b"")
    return caught.value


def test_a_quorum_for_a_wrong_state_root_stops_the_reader(network: SmallNetwork) -> None:
    """A final block that re-execution does not confirm is a divergence that names height and first difference."""
    data = forged(network, state_root=digest_of("x"))
    network.append("block", data)
    error = vote_by_two(network, hash_of(decode_block(data).header))
    assert error.height == 2
    assert error.difference.startswith(f"state root: the block says {digest_of('x')}, re-execution gives ")
    assert network.chain.height == 1


def test_a_quorum_for_an_invalid_waiting_block_stops_the_reader(network: SmallNetwork) -> None:
    """A block that waited unexecuted is executed before it is believed."""
    network.append_block(network.build(network.transfer(nonce=NEXT)))
    data = forged(network, round_number=1, gas=7)
    network.append("block", data)
    error = vote_by_two(network, hash_of(decode_block(data).header))
    assert error.difference == "gas: the block says 7, re-execution gives 1000"


def test_a_quorum_for_an_unreadable_waiting_block_stops_the_reader(network: SmallNetwork) -> None:
    """The events of a waiting block are read, and their signatures checked, before it is believed."""
    event = network.transfer()
    network.append_block(network.build(event))
    header = network.build(event, round_number=1).header
    header = msgspec.structs.replace(header, event_root=root([b"{}"]).hex())
    network.append("block", signed_by(network.proposer(1), header, (b"{}",)))
    error = vote_by_two(network, hash_of(header))
    assert error.difference.startswith("event 0: NOT_CANONICAL")


@pytest.mark.parametrize(
    ("data", "words"),
    [(None, "before the votes$"), (b"{", "before the votes; message 5 was skipped: form: ")],
)
def test_a_quorum_for_an_unknown_block_stops_the_reader(network: SmallNetwork, data: bytes | None, words: str) -> None:
    """Votes for a block that is not there show that the log has lost it, or holds it damaged."""
    if data is not None:
        network.append("block", data)
    error = vote_by_two(network, digest_of("lost"))
    assert error.height == 2
    with pytest.raises(Divergence, match=words):
        raise error


def test_a_quorum_for_another_block_than_the_only_one_stops_the_reader(network: SmallNetwork) -> None:
    """The message names the block that the log holds instead."""
    network.append_block(network.build(network.transfer()))
    assert network.chain.candidate is not None
    held = network.chain.candidate.hash
    assert vote_by_two(network, digest_of("lost")).difference.endswith(f"it holds {held}")


def test_a_quorum_on_a_later_height_stops_the_reader(network: SmallNetwork) -> None:
    """When validators agree on a height further on, messages are missing."""
    error = vote_by_two(network, digest_of("later"), 7)
    assert (error.height, error.difference) == (
        2,
        "a quorum votes on height 7 while no block of this height is final",
    )


def test_a_proposal_and_its_own_block_are_executed_once(network: SmallNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proposer adds its own block to its fold without executing it again; another reader executes it."""
    block = network.build(network.transfer())
    calls: list[int] = []
    monkeypatch.setattr("projections.blocks.BlockExecution.finish", lambda self: calls.append(1))
    network.append_block(block)
    monkeypatch.undo()
    assert calls == []
    assert network.chain.candidate is not None
    for key in network.validators[:2]:
        network.append_vote(network.chain.vote(key))
    reader = Chain(network.genesis)
    for entry in network.log:
        reader.add(*entry, None)
    assert reader.state.root() == network.chain.state.root() == block.header.state_root


def test_only_unknown_signatures_are_verified(network: SmallNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envelopes known to be authentic, by the digest of all their bytes, are not verified again; all others are."""
    known, new = network.transfer(1), network.transfer(2)
    data = canonical(network.build(known, new))
    seen: list[SignedEvent] = []
    monkeypatch.setattr("projections.blocks.first_bad_signature", lambda events, threads: seen.extend(events))
    reader = Chain(network.genesis, verified=lambda envelope: envelope == digest(known.raw))
    for entry in network.log:
        reader.add(*entry, None)
    seen.clear()
    reader.add(len(network.log) + 1, "block", data, None)
    assert [signed.id for signed in seen] == [new.id]


def test_nothing_is_proposed_too_early_or_out_of_turn(network: SmallNetwork) -> None:
    """A proposal needs the key's turn and the round's time; without events or due timers there is no block."""
    chain, event = network.chain, network.transfer()
    earliest = chain.earliest_ms(0)
    assert chain.propose(network.proposer(), [event], earliest - 1, 0) is None
    assert chain.propose(network.proposer(1), [event], earliest, 0) is None
    assert chain.propose(network.proposer(1), [event], earliest, 1) is None
    assert chain.propose(STRANGER, [event], earliest, 0) is None
    assert chain.propose(network.proposer(), [], earliest, 0) == (None, [])
    assert chain.earliest_ms(1) == earliest + ROUND_MS


def test_round_1_takes_over_from_a_silent_proposer(network: SmallNetwork) -> None:
    """The next validator proposes when its round has begun, and the log shows the round."""
    final = network.block(network.transfer(), round_number=1)
    assert (final.header.round, final.header.proposer) == (1, network.chain.proposer_for(2, 1))


def test_events_that_cannot_be_included_come_back_with_their_refusal() -> None:
    """A proposal names each event that it leaves out for good, and takes the others."""
    network = SmallNetwork()
    events = [
        network.transfer(nonce=0),
        network.transfer(nonce=0),
        msgspec.structs.replace(network.transfer(nonce=1), sig="A" * 86),
        network.transfer(nonce=2),
        network.transfer(sender="bob", to="alice", nonce=0, gas_price=0),
        network.transfer(sender="nobody", nonce=0),
        network.transfer(sender="bob", to="alice", nonce=0),
    ]
    proposed = network.chain.propose(network.proposer(), events, network.chain.earliest_ms(0), 0)
    assert proposed is not None
    block, refused = proposed
    assert block is not None
    assert [bytes(raw) for raw in block.events] == [events[0].raw, events[6].raw]
    assert [(signed, type(refusal)) for signed, refusal in refused] == [
        (events[1], NonceTooLow),
        (events[2], BadSignature),
        (events[3], NonceGap),
        (events[4], GasPriceTooLow),
        (events[5], InsufficientBalance),
    ]


def test_only_refusals_make_no_block(network: SmallNetwork) -> None:
    """When nothing can be included there is no block, but the refusals are told."""
    event = network.say("nobody", TransferSent, to=STRANGER.address, amount=1)
    refusals = [(event, InsufficientBalance(needed=1_000, available=0))]
    assert network.chain.propose(network.proposer(), [event], network.chain.earliest_ms(0), 0) == (None, refusals)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_block_events": 3}, 3),
        ({"max_block_gas": 100_000}, 10),
        ({"max_block_bytes": 8_192}, None),
    ],
)
def test_a_proposal_keeps_the_limits_and_the_order(limits: dict[str, int], expected: int | None) -> None:
    """Events are taken in order up to the first that does not fit; the block is valid for every reader."""
    network = SmallNetwork(make_genesis(**limits))
    events = [network.submit("alice", escrow=1_000) for _ in range(20)]
    block = network.build(*events)
    count = len(block.events)
    assert [bytes(raw) for raw in block.events] == [signed.raw for signed in events[:count]]
    assert count == (count if expected is None else expected)
    size = len(canonical(block))
    assert size <= network.genesis.parameters.max_block_bytes
    if expected is None:
        assert size + len(events[0].raw) + 16 > network.genesis.parameters.max_block_bytes
    reader = Chain(network.genesis)
    reader.add(1, "block", canonical(block), None)
    assert reader.candidate is not None


def test_an_event_that_fits_no_block_is_refused_and_others_go_on() -> None:
    """An event larger than any block does not keep the others waiting."""
    network = SmallNetwork(make_genesis(max_block_bytes=4_096))
    huge = network.say("alice", TransferSent, to=STRANGER.address, amount=1, memo="\\" * 256)
    huge = msgspec.structs.replace(huge, raw=huge.raw + b" " * 4_096)
    small = network.transfer(sender="bob", to="alice")
    chain = Chain(network.genesis, verified=lambda envelope: True)
    proposed = chain.propose(network.proposer(), [huge, small], chain.earliest_ms(0), 0)
    assert proposed is not None
    block, refused = proposed
    assert block is not None
    assert [bytes(raw) for raw in block.events] == [small.raw]
    assert isinstance(refused[0][1], TooLarge)


def test_a_due_timer_makes_a_block_without_events(network: SmallNetwork) -> None:
    """When a job's lifetime ends, a block without any event refunds it."""
    job = network.submit(lifetime_ms=1_000)
    submitted = network.block(job)
    deadline = submitted.header.time_ms + 1_000
    assert network.chain.propose(network.proposer(), [], deadline - 1, 0) == (None, [])
    final = network.block(time_ms=deadline)
    assert final.executed.timers == 1
    assert final.events == ()
    assert network.chain.state.supply().escrowed == 0


def test_a_failed_event_stays_in_the_block(network: SmallNetwork) -> None:
    """An event that pays but fails is part of the block, with its failure as the outcome."""
    final = network.block(network.say("alice", JobCancelled, job=digest_of("none")))
    assert [type(outcome).__name__ for outcome in final.executed.outcomes] == ["Failed"]
    final = network.block(network.say("bob", JobRefunded, job=digest_of("none"), reason="NO_MINER"))
    assert [type(outcome).__name__ for outcome in final.executed.outcomes] == ["Failed"]


def test_a_fold_goes_on_from_any_final_block(network: SmallNetwork) -> None:
    """From stored state, head and votes the fold continues to the same roots as from the genesis."""
    network.block(network.register("miner 0"))
    final = network.block(network.transfer())
    rows = list(network.chain.state.rows())
    later = Chain(network.genesis, state=State.from_rows(network.genesis, rows), head=final.header, commit=final.votes)
    assert (later.height, later.head_hash, later.commit) == (final.header.height, final.hash, final.votes)
    position = final.commit_sequence
    network.run_job()
    finals = [found for entry in network.log[position:] if (found := later.add(*entry, None))]
    assert [found.hash for found in finals] == [each.hash for each in network.finals[-5:]]
    assert later.state.root() == network.chain.state.root()


def test_a_stored_state_of_another_block_is_refused(network: SmallNetwork) -> None:
    """A state whose root is not the head's is not believed."""
    with pytest.raises(VerificationFailed, match="its root is"):
        Chain(network.genesis, state=State.from_genesis(network.genesis), head=network.chain.head)


def test_validators_without_a_vote_cast_none(network: SmallNetwork) -> None:
    """There is a vote only for a candidate, only by a validator, and the same vote until it is in the log."""
    assert network.chain.vote(network.validators[0]) is None
    network.append_block(network.build(network.transfer()))
    assert network.chain.vote(STRANGER) is None
    assert network.chain.vote(network.validators[0]) == network.chain.vote(network.validators[0]) is not None


def test_every_coin_is_where_the_chain_says(network: SmallNetwork) -> None:
    """After transfers and a job the balances, added up by hand, are those of the genesis without the burned fees."""
    network.block(network.register("miner 0"))
    network.run_job()
    supply = network.chain.state.supply()
    names = ["alice", "bob", "coordinator", "miner 0", "miner 1", "validator 0", "validator 1", "validator 2"]
    balances = sum(network.chain.state.account(key_of(name).address).balance for name in names)
    assert balances == 5 * COINS - supply.burned
    assert supply.burned > 0
    assert network.chain.height == 2 + 5
    assert network.chain.head is not None
    assert network.chain.head.time_ms == network.genesis.time_ms + 7 * INTERVAL_MS
