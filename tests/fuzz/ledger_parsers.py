"""The parsers of what is signed and hashed: events, blocks, votes, keys, proofs, receipts, exports."""

import io
from contextlib import ExitStack
from typing import Any

import msgspec

from events import merkle
from events.blocks import (
    block_signature_holds,
    decode_block,
    decode_vote,
    hash_of,
    sign_block,
    sign_vote,
    vote_signature_holds,
)
from events.canonical import UNREADABLE, canonical, digest
from events.envelope import SignedEvent, parse, signature_holds, wrap
from events.errors import Divergence, InvalidAddress, InvalidKey, Refused, VerificationFailed
from events.keys import Key, address_of, is_account, is_address, is_signature, public_key_of, verify
from events.receipts import receipt_signature_holds
from projections.blocks import event_root_fault, header_fault, read_events
from projections.log_file import LogReader
from projections.proofs import ProvenEvent, verify_bundle
from schemas.blocks import Block, Header, Vote
from schemas.messages import ProofBundle
from schemas.receipts import SignedReceipt
from tests.fuzz import ground
from tests.fuzz.engine import Parse, Parser
from tests.projections.small_network import key_of

ALICE = key_of("alice")
_headers = msgspec.json.Decoder(Header)
_bundles = msgspec.json.Decoder(ProofBundle)
_receipts = msgspec.json.Decoder(SignedReceipt)


def _no_signature_checked(_: str) -> bool:
    return True


def envelope(stack: ExitStack) -> Parse:
    def read(data: bytes) -> SignedEvent:
        try:
            signed = parse(data)
        except Refused as error:
            if len(canonical(error.refusal)) >= 1_000:
                raise AssertionError("a refusal is too long") from error
            raise
        assert signed.raw == data == wrap(signed.body_bytes, signed.sig)
        assert canonical(signed.event) == signed.body_bytes
        assert signed.id == digest(signed.body_bytes)
        assert parse(data) == signed
        assert signature_holds(signed) in {True, False}
        return signed

    return read


def block(stack: ExitStack) -> Parse:
    parent = ground.chain_at_head()._contest.parent

    def read(data: bytes) -> Block:
        found = decode_block(data)
        assert canonical(found) == data
        header = canonical(found.header)
        assert _headers.decode(header) == found.header
        assert hash_of(found.header) == digest(header)
        assert block_signature_holds(found) in {True, False}
        header_fault(found, len(data), parent)
        event_root_fault(found)
        read_events([bytes(raw) for raw in found.events], _no_signature_checked, 1)
        return found

    return read


def vote(stack: ExitStack) -> Parse:
    def read(data: bytes) -> object:
        found = decode_vote(data)
        assert canonical(found) == data
        assert vote_signature_holds(found) in {True, False}
        return found

    return read


def log(stack: ExitStack) -> Parse:
    """The fold over CHAIN: skips what is not valid, whatever it is, and never moves on without a quorum."""
    root = ground.chain_at_head().state.root()

    def read(data: bytes) -> None:
        kind, _, message = data.partition(b"\n")
        chain = ground.chain_at_head()
        final = chain.add(1, kind.decode("latin-1"), message, None)
        assert final is None
        assert chain.state.root() == root
        for rejected in chain.rejected:
            raise _Skipped(str(rejected.fault))

    return read


class _Skipped(Exception):
    """The fold has skipped the message."""


def signed_anew(data: bytes) -> bytes:
    """A message of the log whose proposer or validator has signed it, whatever it says, with a right event root."""
    kind, _, message = data.partition(b"\n")
    keys = ground.validator_keys()
    try:
        if kind == b"vote":
            cast = decode_vote(message).vote
            return kind + b"\n" + canonical(sign_vote(cast, keys.get(cast.validator, ALICE)))
        found = decode_block(message)
    except VerificationFailed:
        return data
    raws = tuple(bytes(raw) for raw in found.events)
    header = msgspec.structs.replace(found.header, event_root=merkle.root(raws).hex())
    return kind + b"\n" + canonical(sign_block(header, raws, keys.get(header.proposer, ALICE)))


def address(stack: ExitStack) -> Parse:
    def read(data: bytes) -> str:
        text = data.decode("utf-8", "surrogateescape")
        assert is_account(text) or not is_address(text)
        public_key = public_key_of(text)
        assert address_of(public_key) == text
        assert is_address(text)
        assert not verify(text, b"message", "A" * 86)
        return text

    return read


def seed(stack: ExitStack) -> Parse:
    def read(data: bytes) -> str:
        text = data.decode("utf-8", "surrogateescape")
        key = Key.from_seed_text(text)
        assert key.seed_text() == text.strip()
        assert public_key_of(key.address)
        return key.address

    return read


def signature(stack: ExitStack) -> Parse:
    right = ALICE.sign(b"message")

    def read(data: bytes) -> bool:
        text = data.decode("utf-8", "surrogateescape")
        holds = verify(ALICE.address, b"message", text)
        assert holds == (text == right)
        if not is_signature(text):
            raise InvalidKey("not a signature")
        return holds

    return read


def proof(stack: ExitStack) -> Parse:
    genesis = ground.genesis()

    def read(data: bytes) -> object:
        bundle = _bundles.decode(data)
        found = verify_bundle(bundle, genesis)
        assert found.block == hash_of(found.header)
        if isinstance(found, ProvenEvent):
            assert signature_holds(found.event)
        return found

    return read


def voted_anew(data: bytes) -> bytes:
    """A proof whose votes are for the header that it has, so that what hangs on the header is looked at."""
    try:
        bundle = _bundles.decode(data)
    except UNREADABLE:
        return data
    header, block_hash = bundle.block.header, hash_of(bundle.block.header)
    votes = []
    for validator, _ in bundle.block.votes:
        key = ground.validator_keys().get(validator, ALICE)
        cast = Vote(block=block_hash, chain=header.chain, height=header.height, validator=validator)
        votes.append((validator, sign_vote(cast, key).sig))
    return canonical(msgspec.structs.replace(bundle, block=msgspec.structs.replace(bundle.block, votes=tuple(votes))))


def receipt(stack: ExitStack) -> Parse:
    from actors.command_line.checks import Checks
    from actors.command_line.verify import _check_receipt
    from schemas.queries import ReceiptAnswer

    answers = msgspec.json.Decoder(ReceiptAnswer)
    genesis = ground.genesis()

    def read(data: bytes) -> object:
        answer: Any = (answers if b'"inclusion"' in data else _receipts).decode(data)
        signed = answer.receipt if isinstance(answer, ReceiptAnswer) else answer
        for entry in signed.signatures:
            assert receipt_signature_holds(signed.receipt, entry.key_id, entry.sig) in {True, False}
        _check_receipt(Checks(), answer, genesis)
        return answer

    return read


def export(stack: ExitStack) -> Parse:
    def read(data: bytes) -> object:
        reader = LogReader(io.BytesIO(data))
        for sequence, kind, message in reader.messages():
            assert sequence >= 1
            assert isinstance(kind, str)
            assert isinstance(message, bytes)
        assert reader.bytes_read == len(data)
        return reader.trailer

    return read


def sealed_anew(data: bytes) -> bytes:
    """An export in which every line has the digest that belongs to it."""
    sealed, seal, body = [], b"", io.BytesIO()
    for line in data.split(b"\n")[:-1]:
        content = line.rpartition(b',"sha256":"')[0] or line
        if content.startswith(b'{"end":'):
            stated = content.rpartition(b'"file_sha256":"')[2][:64]
            if len(stated) == 64:
                content = content.replace(stated, digest(body.getvalue()).encode())
        seal = digest(seal + content).encode()
        sealed.append(content + b',"sha256":"' + seal + b'"}\n')
        body.write(sealed[-1])
    return b"".join(sealed)


PARSERS = (
    Parser(name="envelope", make=envelope, refusals=(Refused,)),
    Parser(name="block", make=block, refusals=(VerificationFailed,)),
    Parser(name="vote", make=vote, refusals=(VerificationFailed,)),
    Parser(name="log", make=log, refusals=(Divergence, _Skipped), repair=signed_anew),
    Parser(name="address", make=address, refusals=(InvalidAddress,)),
    Parser(name="seed", make=seed, refusals=(InvalidKey,)),
    Parser(name="signature", make=signature, refusals=(InvalidKey,)),
    Parser(name="proof", make=proof, refusals=(VerificationFailed, *UNREADABLE), repair=voted_anew),
    Parser(name="receipt", make=receipt, refusals=(VerificationFailed, *UNREADABLE)),
    Parser(name="export", make=export, refusals=(VerificationFailed,), repair=sealed_anew),
)
