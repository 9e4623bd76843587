"""Proofs that are checked with the genesis and the bundle alone."""

from collections.abc import Callable

import msgspec
import pytest

from events.blocks import genesis_hash, hash_of, sign_vote
from events.canonical import canonical
from events.errors import VerificationFailed
from events.keys import Key
from projections.proofs import (
    ProvenEvent,
    ProvenState,
    event_bundle,
    state_bundle,
    verify_block,
    verify_bundle,
)
from schemas.blocks import Commit, CommitSignature, Header, Vote
from schemas.genesis import Genesis, GenesisValidator
from schemas.messages import BlockProof, ProofBundle
from schemas.state import Account
from tests.projections.ledger import ALICE, BOB, CHAIN, POOR, Ledger, genesis, transfer

VALIDATORS = tuple(Key(bytes([number]) * 32) for number in (21, 22, 23))
STRANGER = Key(bytes([24]) * 32)


def three_validators() -> Genesis:
    return msgspec.structs.replace(
        genesis(),
        validators=tuple(
            GenesisValidator(address=address, power=1) for address in sorted(key.address for key in VALIDATORS)
        ),
    )


def votes_for(header: Header, *keys: Key) -> Commit:
    votes = []
    for key in keys:
        vote = Vote(block=hash_of(header), chain=header.chain, height=header.height, validator=key.address)
        votes.append(CommitSignature(validator=key.address, sig=sign_vote(vote, key).sig))
    return tuple(votes)


class Scene:
    """A block of five transfers, its header and two of three votes."""

    def __init__(self) -> None:
        self.genesis = three_validators()
        self.ledger = Ledger(self.genesis)
        sayings = [transfer(ALICE, BOB, 100 + number, nonce=number) for number in range(5)]
        self.raws = [saying(self.ledger).raw for saying in sayings]
        executed = self.ledger.block(*sayings)
        self.header = Header(
            chain=CHAIN,
            genesis=genesis_hash(self.genesis),
            height=1,
            parent="0" * 64,
            time_ms=self.ledger.time_ms,
            proposer=VALIDATORS[0].address,
            round=0,
            rules=1,
            event_root=executed.event_root,
            outcome_root=executed.outcome_root,
            state_root=executed.state_root,
            gas=executed.gas,
            commit=(),
        )
        self.votes = votes_for(self.header, *VALIDATORS[:2])

    def state(self, key: str) -> ProofBundle:
        return state_bundle(self.header, self.votes, self.ledger.state.prove(key))

    def event(self, index: int) -> ProofBundle:
        return event_bundle(self.header, self.votes, self.raws, index)


def travelled(bundle: ProofBundle) -> ProofBundle:
    """The bundle after a journey as JSON."""
    return msgspec.json.decode(canonical(bundle), type=ProofBundle)


def test_a_balance_is_proven_offline() -> None:
    """A record's bytes come out of the bundle, with the block that they are in."""
    scene = Scene()
    proven = verify_bundle(travelled(scene.state(f"account/{BOB.address}")), scene.genesis)

    assert isinstance(proven, ProvenState)
    assert proven.value is not None
    assert msgspec.json.decode(proven.value, type=Account) == scene.ledger.state.account(BOB.address)
    assert (proven.key, proven.block, proven.header) == (
        f"account/{BOB.address}",
        hash_of(scene.header),
        scene.header,
    )


def test_absence_is_proven_offline() -> None:
    """That an account does not exist can be shown as well."""
    scene = Scene()
    proven = verify_bundle(travelled(scene.state(f"account/{POOR.address}")), scene.genesis)

    assert isinstance(proven, ProvenState)
    assert proven.value is None


@pytest.mark.parametrize("index", range(5))
def test_an_event_is_proven_offline(index: int) -> None:
    """Each event of a block has its proof, and comes out of it as it was signed."""
    scene = Scene()
    proven = verify_bundle(travelled(scene.event(index)), scene.genesis)

    assert isinstance(proven, ProvenEvent)
    assert proven.event.raw == scene.raws[index]
    assert proven.block == hash_of(scene.header)


def test_two_of_three_votes_are_enough() -> None:
    """Two thirds of the power make a block final, in any order of the votes."""
    scene = Scene()
    votes = tuple((vote.validator, vote.sig) for vote in reversed(votes_for(scene.header, *VALIDATORS)))

    assert verify_block(BlockProof(header=scene.header, votes=votes), scene.genesis) == hash_of(scene.header)
    assert verify_block(BlockProof(header=scene.header, votes=votes[:2]), scene.genesis) == hash_of(scene.header)


def _votes(scene: Scene, commit: Commit) -> ProofBundle:
    return state_bundle(scene.header, commit, scene.ledger.state.prove("supply"))


def _with_header(scene: Scene, **fields: object) -> ProofBundle:
    header = msgspec.structs.replace(scene.header, **fields)
    return event_bundle(header, votes_for(header, *VALIDATORS), scene.raws, 0)


def _inclusion(scene: Scene, **fields: object) -> ProofBundle:
    bundle = scene.event(1)
    return msgspec.structs.replace(bundle, inclusion=msgspec.structs.replace(bundle.inclusion, **fields))


def _other_value(scene: Scene) -> ProofBundle:
    bundle = scene.state(f"account/{BOB.address}")
    richer = msgspec.Raw(canonical(Account(balance=10**12)))
    return msgspec.structs.replace(bundle, state=msgspec.structs.replace(bundle.state, value=richer))


def _forged(scene: Scene) -> ProofBundle:
    forged = scene.raws[0][:-88] + b"A" * 86 + b'"}'
    raws = [forged, *scene.raws[1:]]
    return event_bundle(scene.header, scene.votes, raws, 0)


Wrong = Callable[[Scene], ProofBundle]
WRONG: list[tuple[str, Wrong, str]] = [
    ("no votes", lambda scene: _votes(scene, ()), "no quorum"),
    ("one vote of three", lambda scene: _votes(scene, scene.votes[:1]), "no quorum"),
    ("a vote counted twice", lambda scene: _votes(scene, (scene.votes[0],) * 2), "named twice"),
    ("a stranger's vote", lambda scene: _votes(scene, votes_for(scene.header, STRANGER)), "not a validator"),
    (
        "a vote for another block",
        lambda scene: _votes(scene, votes_for(msgspec.structs.replace(scene.header, round=1), *VALIDATORS)),
        "is not for block",
    ),
    ("another chain", lambda scene: _with_header(scene, chain="another-chain"), "another chain"),
    ("another genesis", lambda scene: _with_header(scene, genesis="0" * 64), "another chain"),
    ("another event root", lambda scene: _with_header(scene, event_root="0" * 64), "event root"),
    ("another place", lambda scene: _inclusion(scene, index=0), "event root"),
    ("a place outside", lambda scene: _inclusion(scene, index=5), "event root"),
    ("no path", lambda scene: _inclusion(scene, path=()), "event root"),
    ("a path that is no hash", lambda scene: _inclusion(scene, path=("zz",)), "event is not proven"),
    ("another event", lambda scene: msgspec.structs.replace(scene.event(1), event=scene.event(2).event), "event root"),
    ("a forged event", _forged, "BAD_SIGNATURE"),
    ("another value", _other_value, "state root"),
    (
        "a state proof without a state",
        lambda scene: msgspec.structs.replace(scene.state("supply"), state=msgspec.UNSET),
        "incomplete",
    ),
    (
        "a state proof with an event",
        lambda scene: msgspec.structs.replace(scene.event(0), kind="state", state=scene.state("supply").state),
        "incomplete",
    ),
    (
        "an event proof without an event",
        lambda scene: msgspec.structs.replace(scene.event(0), event=msgspec.UNSET),
        "incomplete",
    ),
    (
        "an event proof with a state",
        lambda scene: msgspec.structs.replace(scene.event(0), state=scene.state("supply").state),
        "incomplete",
    ),
]


@pytest.mark.parametrize(("wrong", "why"), [pytest.param(wrong, why, id=name) for name, wrong, why in WRONG])
def test_a_bundle_that_does_not_hold_says_why(wrong: Wrong, why: str) -> None:
    """Whatever is forged, left out or swapped is found, and named."""
    scene = Scene()
    with pytest.raises(VerificationFailed, match=why):
        verify_bundle(wrong(scene), scene.genesis)


def test_a_proof_holds_for_its_own_genesis_only() -> None:
    """Another genesis is another chain, whatever its name and its validators."""
    scene = Scene()
    with pytest.raises(VerificationFailed, match="names genesis"):
        verify_bundle(scene.state("supply"), genesis())


def test_a_proof_outside_the_block_cannot_be_made() -> None:
    """Asking for an event that is not there raises, instead of giving an empty proof."""
    with pytest.raises(IndexError):
        Scene().event(5)
