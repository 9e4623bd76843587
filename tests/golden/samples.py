"""One example of everything that travels, the same in every run: for the test vectors, and for tests of their own."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from events.blocks import genesis_hash, hash_of, sign_block, sign_vote
from events.canonical import digest
from events.envelope import SignedEvent, sign
from events.keys import Key
from events.merkle import root
from events.receipts import sign_receipt, with_signatures
from schemas.attestation import (
    DriverFile,
    ExamAnswer,
    ExamOpening,
    ExamVerdict,
    GpuEvidence,
    GpuVerdict,
    HostEvidence,
    Liveness,
    SourceReport,
)
from schemas.blocks import Applied, Block, CommitSignature, Failed, Header, SignedVote, TimerFired, Vote
from schemas.events import (
    AttestationClaimed,
    Body,
    BondDeposited,
    BondUnlocked,
    BondWithdrawn,
    Device,
    ExamCommitted,
    ExamJudged,
    ExamOpened,
    ExamRevealed,
    FaucetRequested,
    JobAssigned,
    JobCancelled,
    JobCommitted,
    JobFailed,
    JobRefunded,
    JobRevealed,
    JobSettled,
    JobSubmitted,
    MinerRegistered,
    Offer,
    Requirement,
    TransferSent,
)
from schemas.genesis import Allocation, Genesis, GenesisValidator, Parameters
from schemas.receipts import Receipt, SignedReceipt
from schemas.refusals import InsufficientBalance
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix
from schemas.values import MAX_SAFE_INTEGER

CHAIN: Final = "assay-test"
TIME_MS: Final = 1_800_000_000_000


def key_named(name: str) -> Key:
    """The key whose seed is the SHA-256 of a name: for tests alone, anybody can make it."""
    return Key(bytes.fromhex(digest(f"assay test key: {name}".encode())))


ALICE: Final = key_named("alice")
BOB: Final = key_named("bob")
MINER: Final = key_named("miner")
COORDINATOR: Final = key_named("coordinator")
VALIDATORS: Final = tuple(sorted((key_named(f"validator {n}") for n in range(3)), key=lambda key: key.address))

JOB: Final = digest(b"a job")
RESULT: Final = digest(b"a result")
ROWS: Final = digest(b"its rows")
EXAM: Final = digest(b"an exam")
GPU: Final = "GPU-8f3c1d2e-4b5a-6978-8796-a5b4c3d2e1f0"


def receipt() -> Receipt:
    """The receipt of a job."""
    return Receipt(
        version="1.1",
        receipt_id=JOB,
        job_id=JOB,
        chain_id=CHAIN,
        provider=MINER.address,
        client=ALICE.address,
        coordinator_id=COORDINATOR.address,
        service="matmul.int8",
        units=1_000,
        unit_type="million_multiplications",
        price=5_000,
        started_at=TIME_MS,
        completed_at=TIME_MS + 1_500,
        artifact_hash=RESULT,
        root=ROWS,
    )


def signed_receipt() -> SignedReceipt:
    """The same, signed by both."""
    return with_signatures(
        receipt(), sign_receipt(receipt(), MINER), COORDINATOR.address, sign_receipt(receipt(), COORDINATOR)
    )


def evidence() -> HostEvidence:
    """Of a host with one GPU, by two sources."""
    said: dict[str, Any] = {"uuid": GPU, "name": "NVIDIA H200", "bus_id": "0000:3b:00.0"}
    return HostEvidence(
        height=7,
        block=digest(b"block 7"),
        driver_version="570.86.15",
        driver_files=(DriverFile(path="/usr/lib/libnvidia-ml.so.1", digest=digest(b"driver")),),
        library=digest(b"driver"),
        lists=digest(b"lists"),
        gpus=(
            GpuEvidence(
                uuid=GPU,
                nvml=SourceReport(memory_mib=143_771, vendor_id="10de", device_id="2335", **said),
                cuda=SourceReport(memory_mib=142_655, compute_capability="9.0", **said),
                live=Liveness(
                    elapsed_ms=2_000, energy_before_mj=1_000_000, energy_after_mj=2_200_000, power_mw=600_000
                ),
            ),
        ),
    )


def verdict() -> ExamVerdict:
    """On the same."""
    return ExamVerdict(
        miner=MINER.address,
        exam=EXAM,
        fresh=True,
        driver="plausible",
        lists=digest(b"lists"),
        gpus=(GpuVerdict(gpu=GPU, result="right", device="listed", expected=400_000, memory_mib=120_000),),
    )


def _from(key: Key, nonce: int) -> dict[str, object]:
    return {"chain": CHAIN, "sender": key.address, "nonce": nonce, "gas_price": 1}


def _events() -> list[tuple[str, Body, Key]]:
    submitted: dict[str, object] = {"escrow": 10_000, "lifetime_ms": 60_000, "timeout_ms": 30_000}
    seeded = SeededMatrix(rows=1_000, columns=1_000, seed=digest(b"seed"))
    made: list[tuple[str, Callable[..., Body], Key, dict[str, object]]] = [
        ("transfer", TransferSent, ALICE, {"to": BOB.address, "amount": 1_000_000}),
        (
            "transfer with a memo that JSON must escape in part",
            TransferSent,
            ALICE,
            {"to": BOB.address, "amount": MAX_SAFE_INTEGER, "memo": 'é € 😀 "\\/\b\f\n\r\t\x00\x1f\x7f\u2028 <>&'},
        ),
        ("faucet", FaucetRequested, BOB, {"amount": 50_000_000}),
        (
            "miner",
            MinerRegistered,
            MINER,
            {
                "name": "Rack 1.a",
                "capacity": 2,
                "devices": (Device(model="CPU 8-core", memory_mib=16_384),),
                "offers": (Offer(service="matmul.int8", unit_price=5),),
            },
        ),
        (
            "job with blobs",
            JobSubmitted,
            ALICE,
            {
                "work": MatmulInt8(
                    a=BlobMatrix(rows=64, columns=128, digest=digest(b"a")),
                    b=BlobMatrix(rows=128, columns=32, digest=digest(b"b")),
                ),
                "requirement": Requirement(memory_mib=0),
            }
            | submitted,
        ),
        (
            "job with seeds for chosen miners",
            JobSubmitted,
            ALICE,
            {
                "work": MatmulInt8(a=seeded, b=seeded),
                "requirement": Requirement(memory_mib=1_024, miners=(MINER.address,)),
            }
            | submitted,
        ),
        ("assigned", JobAssigned, COORDINATOR, {"job": JOB, "miner": MINER.address, "price": 5_000}),
        ("committed", JobCommitted, MINER, {"job": JOB, "root": ROWS, "result": RESULT, "size": 4_000_128}),
        ("revealed", JobRevealed, MINER, {"job": JOB, "receipt_sig": sign_receipt(receipt(), MINER)}),
        ("settled", JobSettled, COORDINATOR, {"job": JOB, "receipt_sig": sign_receipt(receipt(), COORDINATOR)}),
        ("failed", JobFailed, COORDINATOR, {"job": JOB, "miner": MINER.address, "reason": "RESULT_WRONG"}),
        ("refunded", JobRefunded, COORDINATOR, {"job": JOB, "reason": "NO_MINER"}),
        ("cancelled", JobCancelled, ALICE, {"job": JOB}),
        ("bond deposited", BondDeposited, MINER, {"amount": 1_000_000}),
        ("bond unlocked", BondUnlocked, MINER, {"amount": 400_000}),
        ("bond withdrawn", BondWithdrawn, MINER, {}),
        ("attestation claimed", AttestationClaimed, MINER, {"evidence": evidence()}),
        ("exam opened", ExamOpened, COORDINATOR, {"miners": (MINER.address,), "cause": "first"}),
        (
            "exam committed",
            ExamCommitted,
            MINER,
            {"exam": EXAM, "answers": (ExamAnswer(gpu=GPU, rows=65_536, root=ROWS),)},
        ),
        (
            "exam revealed",
            ExamRevealed,
            MINER,
            {"exam": EXAM, "openings": (ExamOpening(gpu=GPU, rows=digest(b"opened rows"), size=557_056),)},
        ),
        ("exam judged", ExamJudged, COORDINATOR, {"verdict": verdict()}),
    ]
    return [(name, make(**_from(key, nonce), **fields), key) for nonce, (name, make, key, fields) in enumerate(made)]


def signed_events() -> dict[str, SignedEvent]:
    """Events of every type, by what they show."""
    return {name: sign(event, key) for name, event, key in _events()}


def transfer(**changes: object) -> TransferSent:
    """A transfer from Alice to Bob; ``changes`` replace fields, also by values that the schema would not let in."""
    return msgspec.structs.replace(
        TransferSent(chain=CHAIN, sender=ALICE.address, nonce=0, gas_price=1, to=BOB.address, amount=1),
        **changes,
    )


def genesis() -> Genesis:
    """A chain of three validators and one coordinator."""
    return Genesis(
        chain=CHAIN,
        time_ms=TIME_MS,
        rules=1,
        parameters=Parameters(
            min_gas_price=1,
            max_block_bytes=4_194_304,
            max_block_events=10_000,
            max_block_gas=10_000_000,
            min_block_interval_ms=20,
            round_timeout_ms=1_000,
            max_drift_ms=2_000,
            fee_burn_bps=5_000,
            coordinator_bps=500,
            max_attempts=3,
            reveal_timeout_ms=10_000,
            verify_timeout_ms=10_000,
            max_timeout_ms=600_000,
            max_lifetime_ms=3_600_000,
            faucet_request=100_000_000,
            faucet_day=200_000_000,
            faucet_total=1_000_000_000_000,
        ),
        allocations=tuple(
            Allocation(address=address, balance=1_000_000_000) for address in sorted((ALICE.address, BOB.address))
        ),
        validators=tuple(GenesisValidator(address=key.address, power=1) for key in VALIDATORS),
        coordinators=(COORDINATOR.address,),
    )


def outcomes() -> tuple[Applied | Failed | TimerFired, ...]:
    """One outcome of each kind."""
    return (
        TimerFired(job=JOB, reason="EXPIRED", refunded=10_000),
        Applied(event=digest(b"applied"), fee=100),
        Failed(event=digest(b"failed"), fee=100, refusal=InsufficientBalance(needed=200, available=10)),
    )


def header() -> Header:
    """The header of block 2 of some chain, with the votes of two validators for block 1."""
    parent = digest(b"block 1")
    envelopes = [signed.raw for signed in signed_events().values()]
    return Header(
        chain=CHAIN,
        genesis=digest(b"genesis"),
        height=2,
        parent=parent,
        time_ms=TIME_MS + 1_000,
        proposer=VALIDATORS[2].address,
        round=0,
        rules=1,
        event_root=root(envelopes).hex(),
        outcome_root=root([b"outcomes"]).hex(),
        state_root=digest(b"state"),
        gas=4_200,
        commit=tuple(
            CommitSignature(validator=key.address, sig=vote_of(key, height=1, block=parent).sig)
            for key in VALIDATORS[:2]
        ),
    )


def block() -> Block:
    """A block with all events, signed by its proposer. It follows no rules: only its form is right."""
    return sign_block(header(), tuple(signed.raw for signed in signed_events().values()), VALIDATORS[2])


def vote_of(key: Key, *, height: int = 2, block: str | None = None) -> SignedVote:
    """A validator's vote, for the block of `header` unless another is named."""
    chosen = hash_of(header()) if block is None else block
    return sign_vote(Vote(block=chosen, chain=CHAIN, height=height, validator=key.address), key)


def chain_identity() -> str:
    """The hash of the genesis."""
    return genesis_hash(genesis())
