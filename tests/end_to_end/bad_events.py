"""Bytes that are no event, events that no block can hold, events that are in a block in vain; each with its answer."""

import json
from collections.abc import Callable
from typing import Any

from events.envelope import MAX_EVENT_BYTES, wrap
from events.keys import EVENT_DOMAIN, MULTISIG_PREFIX, Key, _with_checksum
from schemas import refusals
from schemas.attestation import ExamAnswer, ExamVerdict, HostEvidence
from schemas.events import (
    AttestationClaimed,
    Body,
    BondDeposited,
    ExamCommitted,
    ExamJudged,
    ExamOpened,
    FaucetRequested,
    JobCancelled,
    JobCommitted,
    JobSubmitted,
    MinerRegistered,
    Offer,
    Requirement,
    TransferSent,
)
from schemas.refusals import Refusal
from schemas.services import MatmulInt8, SeededMatrix
from schemas.values import MAX_SAFE_INTEGER
from tests.end_to_end.client import job_fields, seeded_work
from tests.end_to_end.strangers import (
    COINS,
    FRIEND,
    NO_JOB,
    NO_SIGNATURE,
    NOBODY,
    TERMS,
    Party,
)


def signed_bytes(party: Party, body: dict[str, Any] | bytes, key: Key | None = None) -> bytes:
    """An envelope around whatever body, with a right signature."""
    data = body if isinstance(body, bytes) else json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return wrap(data, (key or party.key).sign(EVENT_DOMAIN + data))


def body_bytes(party: Party, **fields: Any) -> bytes:
    return json.dumps(party.transfer(**fields), sort_keys=True, separators=(",", ":")).encode()


def multisig_address() -> str:
    return _with_checksum(bytes([MULTISIG_PREFIX]) + bytes(32))


def nested(depth: int) -> bytes:
    return b'{"x":' + b"[" * depth + b"]" * depth + b"}"


UNREADABLE: dict[str, tuple[Callable[[Party], bytes], type[Refusal]]] = {
    "nothing": (lambda party: b"", refusals.NotCanonical),
    "no JSON": (lambda party: b"hello", refusals.NotCanonical),
    "no text": (lambda party: bytes(range(256)), refusals.NotCanonical),
    "no envelope": (body_bytes, refusals.NotCanonical),
    "another envelope": (lambda party: signed_bytes(party, party.transfer())[:-1] + b',"x":1}', refusals.NotCanonical),
    "a short signature": (lambda party: wrap(body_bytes(party), "A" * 85), refusals.NotCanonical),
    "a body that is no JSON": (lambda party: signed_bytes(party, b"hello"), refusals.Malformed),
    "a body that is no text": (lambda party: signed_bytes(party, b'{"memo":"\xff\xfe"}'), refusals.Malformed),
    "a list as body": (lambda party: signed_bytes(party, b"[]"), refusals.Malformed),
    "white space": (lambda party: signed_bytes(party, json.dumps(party.transfer()).encode()), refusals.NotCanonical),
    "a float": (lambda party: signed_bytes(party, party.transfer(amount=1.0)), refusals.NotCanonical),
    "an exponent": (
        lambda party: signed_bytes(party, body_bytes(party).replace(b'"amount":1', b'"amount":1e2')),
        refusals.NotCanonical,
    ),
    "NaN": (lambda party: signed_bytes(party, party.transfer(amount=float("nan"))), refusals.Malformed),
    "null": (lambda party: signed_bytes(party, party.transfer(memo=None)), refusals.NotCanonical),
    "a repeated key": (
        lambda party: signed_bytes(party, body_bytes(party).replace(b'"amount":1', b'"amount":9,"amount":1')),
        refusals.NotCanonical,
    ),
    "keys out of order": (
        lambda party: signed_bytes(party, b'{"type":"transfer.sent",' + body_bytes(party)[1:-24] + b"}"),
        refusals.NotCanonical,
    ),
    "an escape": (
        lambda party: signed_bytes(party, body_bytes(party).replace(b"transfer", b"\\u0074ransfer")),
        refusals.NotCanonical,
    ),
    "an unknown field": (lambda party: signed_bytes(party, party.transfer(tip=1)), refusals.Malformed),
    "a field too few": (
        lambda party: signed_bytes(party, body_bytes(party).replace(b'"amount":1,', b"")),
        refusals.Malformed,
    ),
    "an unknown type": (lambda party: signed_bytes(party, party.transfer(type="bank.robbed")), refusals.UnknownType),
    "a later version": (
        lambda party: signed_bytes(party, party.transfer(type="transfer.sent/9")),
        refusals.UnknownType,
    ),
    "no type": (lambda party: signed_bytes(party, b'{"amount":1}'), refusals.Malformed),
    "a body of 64 KiB": (
        lambda party: signed_bytes(party, party.transfer(memo="x" * MAX_EVENT_BYTES)),
        refusals.TooLarge,
    ),
    "a long memo": (lambda party: signed_bytes(party, party.transfer(memo="x" * 257)), refusals.Malformed),
    "nesting": (lambda party: signed_bytes(party, nested(17)), refusals.Malformed),
    "deep nesting": (lambda party: signed_bytes(party, nested(30_000)), refusals.Malformed),
    "a negative amount": (lambda party: signed_bytes(party, party.transfer(amount=-1)), refusals.Malformed),
    "no amount": (lambda party: signed_bytes(party, party.transfer(amount=0)), refusals.Malformed),
    "an amount of 2^53": (lambda party: signed_bytes(party, party.transfer(amount=2**53)), refusals.Malformed),
    "an amount of 2^64": (lambda party: signed_bytes(party, party.transfer(amount=2**64)), refusals.Malformed),
    "an amount of 4,000 digits": (
        lambda party: signed_bytes(party, body_bytes(party).replace(b'"amount":1', b'"amount":' + b"9" * 4_000)),
        refusals.Malformed,
    ),
    "a negative nonce": (lambda party: signed_bytes(party, party.transfer(nonce=-1)), refusals.Malformed),
    "true for a number": (lambda party: signed_bytes(party, party.transfer(amount=True)), refusals.Malformed),
    "text for a number": (lambda party: signed_bytes(party, party.transfer(amount="1")), refusals.Malformed),
    "an address with a slip": (
        lambda party: signed_bytes(party, party.transfer(to=FRIEND.address[:-1] + "A")),
        refusals.Malformed,
    ),
    "a seed for an address": (
        lambda party: signed_bytes(party, party.transfer(to="SU" + "A" * 56)),
        refusals.Malformed,
    ),
}


def with_signature_of(party: Party, key: Key) -> bytes:
    return signed_bytes(party, party.transfer(), key)


REFUSED: dict[str, tuple[Callable[[Party], bytes], Callable[[Party], Refusal]]] = {
    "another's signature": (
        lambda party: with_signature_of(party, NOBODY),
        lambda party: refusals.BadSignature(sender=party.address),
    ),
    "a signature without the domain": (
        lambda party: wrap(body_bytes(party), party.key.sign(body_bytes(party))),
        lambda party: refusals.BadSignature(sender=party.address),
    ),
    "a signature of nothing": (
        lambda party: wrap(body_bytes(party), NO_SIGNATURE),
        lambda party: refusals.BadSignature(sender=party.address),
    ),
    "another chain": (
        lambda party: party.signed(TransferSent, chain="mainnet", to=FRIEND.address, amount=1).raw,
        lambda party: refusals.WrongChain(expected="devnet", found="mainnet"),
    ),
    "a far nonce": (
        lambda party: party.signed(TransferSent, nonce=1_000, to=FRIEND.address, amount=1).raw,
        lambda party: refusals.NonceTooFar(expected=0, found=1_000),
    ),
    "the last nonce": (
        lambda party: party.signed(TransferSent, nonce=MAX_SAFE_INTEGER, to=FRIEND.address, amount=1).raw,
        lambda party: refusals.NonceTooFar(expected=0, found=MAX_SAFE_INTEGER),
    ),
    "a gas price below the minimum": (
        lambda party: party.signed(TransferSent, gas_price=0, to=FRIEND.address, amount=1).raw,
        lambda party: refusals.GasPriceTooLow(minimum=1, found=0),
    ),
    "a gas price that it cannot pay": (
        lambda party: party.signed(TransferSent, gas_price=COINS, to=FRIEND.address, amount=1).raw,
        lambda party: refusals.InsufficientBalance(needed=1_000 * COINS, available=COINS),
    ),
    "a gas price that nobody can pay": (
        lambda party: party.signed(TransferSent, gas_price=MAX_SAFE_INTEGER, to=FRIEND.address, amount=1).raw,
        lambda party: refusals.InsufficientBalance(needed=MAX_SAFE_INTEGER, available=COINS),
    ),
}


def submission(work: MatmulInt8, **fields: Any) -> dict[str, Any]:
    return job_fields(work) | fields


def work_of(rows: int, inner: int, other: int, columns: int) -> MatmulInt8:
    return MatmulInt8(
        a=SeededMatrix(rows=rows, columns=inner, seed=NO_JOB), b=SeededMatrix(rows=other, columns=columns, seed=NO_JOB)
    )


FAILED: dict[str, tuple[type[Body], Callable[[Party], dict[str, Any]], Callable[[Party], Refusal]]] = {
    "an own-transfer": (
        TransferSent,
        lambda party: {"to": party.address, "amount": 1},
        lambda party: refusals.SelfTransfer(address=party.address),
    ),
    "more than it has": (
        TransferSent,
        lambda party: {"to": FRIEND.address, "amount": COINS},
        lambda party: refusals.InsufficientBalance(needed=COINS, available=COINS - 1_000),
    ),
    "more than there is": (
        TransferSent,
        lambda party: {"to": FRIEND.address, "amount": MAX_SAFE_INTEGER},
        lambda party: refusals.InsufficientBalance(needed=MAX_SAFE_INTEGER, available=COINS - 1_000),
    ),
    "a recipient that has no key": (
        TransferSent,
        lambda party: {"to": multisig_address(), "amount": 1},
        lambda party: refusals.Malformed(detail="to: no user NKey with a right checksum"),
    ),
    "too much from the faucet": (
        FaucetRequested,
        lambda party: {"amount": MAX_SAFE_INTEGER},
        lambda party: refusals.FaucetLimit(per="request", limit=TERMS.faucet_request, left=TERMS.faucet_request),
    ),
    "matrices that do not fit": (
        JobSubmitted,
        lambda party: submission(work_of(2, 3, 4, 5)),
        lambda party: refusals.WrongShape(detail="a has 3 columns, b has 4 rows"),
    ),
    "a matrix that is too large": (
        JobSubmitted,
        lambda party: submission(work_of(16_385, 1, 1, 1)),
        lambda party: refusals.WrongShape(detail="a.rows is 16385, at most 16384 are possible"),
    ),
    "an escrow that it does not have": (
        JobSubmitted,
        lambda party: submission(seeded_work(1), escrow=COINS),
        lambda party: refusals.InsufficientBalance(needed=COINS, available=COINS - 10_000),
    ),
    "an attempt for ever": (
        JobSubmitted,
        lambda party: submission(seeded_work(1), timeout_ms=TERMS.max_timeout_ms + 1),
        lambda party: refusals.TimeoutTooLong(
            field="timeout_ms", limit_ms=TERMS.max_timeout_ms, found_ms=TERMS.max_timeout_ms + 1
        ),
    ),
    "a job for ever": (
        JobSubmitted,
        lambda party: submission(seeded_work(1), lifetime_ms=TERMS.max_lifetime_ms + 1),
        lambda party: refusals.TimeoutTooLong(
            field="lifetime_ms", limit_ms=TERMS.max_lifetime_ms, found_ms=TERMS.max_lifetime_ms + 1
        ),
    ),
    "a miner named twice": (
        JobSubmitted,
        lambda party: submission(
            seeded_work(1), requirement=Requirement(memory_mib=0, miners=(FRIEND.address, FRIEND.address))
        ),
        lambda party: refusals.DuplicateEntry(entry=FRIEND.address),
    ),
    "an offer made twice": (
        MinerRegistered,
        lambda party: {
            "name": "twice",
            "capacity": 1,
            "devices": ({"model": "none", "memory_mib": 0},),
            "offers": (Offer(service="matmul.int8", unit_price=1), Offer(service="matmul.int8", unit_price=2)),
        },
        lambda party: refusals.DuplicateEntry(entry="matmul.int8"),
    ),
    "a bond of nobody's": (
        BondDeposited,
        lambda party: {"amount": 1},
        lambda party: refusals.UnknownMiner(miner=party.address),
    ),
    "a claim of nobody's": (
        AttestationClaimed,
        lambda party: {"evidence": HostEvidence(height=0, block=NO_JOB)},
        lambda party: refusals.UnknownMiner(miner=party.address),
    ),
    "an exam by a stranger": (
        ExamOpened,
        lambda party: {"miners": (FRIEND.address,), "cause": "first"},
        lambda party: refusals.NotCoordinator(sender=party.address),
    ),
    "an answer to nothing": (
        ExamCommitted,
        lambda party: {"exam": NO_JOB, "answers": (ExamAnswer(gpu="GPU-0", rows=1_000, root=NO_JOB),)},
        lambda party: refusals.UnknownExam(miner=party.address, exam=NO_JOB),
    ),
    "a verdict by a stranger": (
        ExamJudged,
        lambda party: {
            "verdict": ExamVerdict(miner=party.address, exam=NO_JOB, fresh=True, driver="listed", lists=NO_JOB)
        },
        lambda party: refusals.NotCoordinator(sender=party.address),
    ),
    "a cancellation of nothing": (
        JobCancelled,
        lambda party: {"job": NO_JOB},
        lambda party: refusals.UnknownJob(job=NO_JOB),
    ),
    "a commitment to nothing": (
        JobCommitted,
        lambda party: {"job": NO_JOB, "root": NO_JOB, "result": NO_JOB, "size": 0},
        lambda party: refusals.UnknownJob(job=NO_JOB),
    ),
}
