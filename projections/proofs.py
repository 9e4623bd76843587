"""Proofs to be checked offline: that a block is final for a genesis, and which record or event it vouches for.

A checker needs the genesis and the bundle, nothing else. A state proof shows a record as it is after the block, or that
there is none; an event proof shows that the block holds an event, not how the event ended.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec
from msgspec import UNSET, Struct, UnsetType

from events.blocks import commit_signature_holds, genesis_hash, hash_of
from events.envelope import SignedEvent, read
from events.errors import Refused, VerificationFailed
from events.merkle import inclusion_path, leaf_hash, verify_inclusion
from projections import tree
from projections.validators import Validators
from schemas.blocks import Commit, CommitSignature, Header
from schemas.genesis import Genesis
from schemas.messages import BlockProof, InclusionProof, ProofBundle, StateProof

_HINT = "Ask another node for the proof, and make sure that the genesis is that of the chain."


class ProvenState(Struct, frozen=True):
    """``value`` are the record's canonical bytes after the block; None: there is no record at ``key``."""

    header: Header
    block: str
    key: str
    value: bytes | None


class ProvenEvent(Struct, frozen=True):
    """The block holds this event, signed by its sender."""

    header: Header
    block: str
    event: SignedEvent


def _failed(what: str, why: str) -> VerificationFailed:
    return VerificationFailed(what, why=why, hint=_HINT)


def verify_state_proof(proof: StateProof, state_root: str) -> bool:
    """Whether the proof shows its key to have its value, or to be absent, in the tree with this root."""
    try:
        siblings = tuple(_hash(sibling) for sibling in proof.siblings)
        neighbour = None if proof.neighbour is UNSET else tuple(_hash(part) for part in proof.neighbour)
    except ValueError:
        return False
    if len(siblings) > 256:
        return False
    key = tree.key_hash(proof.key)
    end = tree.EMPTY
    if not isinstance(proof.value, UnsetType):
        if neighbour is not None:
            return False
        end = tree.leaf_hash(key, sha256(bytes(proof.value)).digest())
    elif neighbour is not None:
        other = int.from_bytes(neighbour[0], "big")
        if other == key:
            return False
        # A leaf that lies elsewhere in the tree does not lead to the root along the way of the absent key.
        end = tree.leaf_hash(other, neighbour[1])
    return tree.root_of_path(siblings, key, end).hex() == state_root


def _hash(text: str) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != 32 or data.hex() != text:
        raise ValueError("not a SHA-256 in lower-case hexadecimal")
    return data


def block_proof(header: Header, votes: Commit) -> BlockProof:
    """The header with the votes that made it final."""
    return BlockProof(header=header, votes=tuple((vote.validator, vote.sig) for vote in votes))


def state_bundle(header: Header, votes: Commit, proof: StateProof) -> ProofBundle:
    """``proof`` has to be of the state after the block of ``header``."""
    return ProofBundle(kind="state", block=block_proof(header, votes), state=proof)


def event_bundle(header: Header, votes: Commit, raws: Sequence[bytes], index: int) -> ProofBundle:
    """The proof of event ``index`` among ``raws``, the envelopes of the whole block. Raises IndexError."""
    path = inclusion_path([leaf_hash(raw) for raw in raws], index)
    inclusion = InclusionProof(index=index, size=len(raws), path=tuple(step.hex() for step in path))
    return ProofBundle(
        kind="event", block=block_proof(header, votes), event=msgspec.Raw(raws[index]), inclusion=inclusion
    )


def verify_block(proof: BlockProof, genesis: Genesis) -> str:
    """The hash of a block that a quorum of the genesis' validators made final. Raises VerificationFailed."""
    header, block = proof.header, hash_of(proof.header)
    validators, voters = Validators(genesis), [validator for validator, _ in proof.votes]
    if header.chain != genesis.chain:
        raise _failed("the proof is of another chain", f"it says {header.chain}, the genesis {genesis.chain}")
    if header.genesis != genesis_hash(genesis):
        raise _failed(
            "the proof is of another chain", f"it names genesis {header.genesis}, not {genesis_hash(genesis)}"
        )
    if len(dict.fromkeys(voters)) != len(voters):
        raise _failed("the votes do not count", "a validator is named twice")
    for validator, sig in proof.votes:
        if validator not in validators:
            raise _failed("the votes do not count", f"{validator} is not a validator")
        if not commit_signature_holds(
            CommitSignature(validator=validator, sig=sig), header.chain, header.height, block
        ):
            raise _failed("the votes do not count", f"the signature of {validator} is not for block {block}")
    if not validators.is_quorum(voters):
        raise _failed("the block is not final", f"{len(voters)} votes are no quorum")
    return block


def verify_bundle(bundle: ProofBundle, genesis: Genesis) -> ProvenState | ProvenEvent:
    """What the bundle proves. Raises VerificationFailed with what is wrong first."""
    block, header = verify_block(bundle.block, genesis), bundle.block.header
    if bundle.kind == "state":
        proof = bundle.state
        if isinstance(proof, UnsetType) or bundle.event is not UNSET or bundle.inclusion is not UNSET:
            raise _failed("the bundle is incomplete", "a proof of a record has `state`, and no `event` or `inclusion`")
        if not verify_state_proof(proof, header.state_root):
            raise _failed("the record is not proven", f"{proof.key} does not lead to the block's state root")
        value = None if isinstance(proof.value, UnsetType) else bytes(proof.value)
        return ProvenState(header=header, block=block, key=proof.key, value=value)
    if isinstance(bundle.event, UnsetType) or isinstance(bundle.inclusion, UnsetType) or bundle.state is not UNSET:
        raise _failed("the bundle is incomplete", "a proof of an event has `event` and `inclusion`, and no `state`")
    raw, inclusion = bytes(bundle.event), bundle.inclusion
    try:
        signed = read(raw)
        path = [_hash(step) for step in inclusion.path]
    except Refused as error:
        raise _failed("the event is not proven", str(error)) from error
    except ValueError as error:
        raise _failed("the event is not proven", str(error)) from error
    if not verify_inclusion(leaf_hash(raw), inclusion.index, inclusion.size, path, _hash(header.event_root)):
        raise _failed("the event is not proven", f"{signed.id} does not lead to the block's event root")
    return ProvenEvent(header=header, block=block, event=signed)
