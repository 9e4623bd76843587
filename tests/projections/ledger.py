"""Given, when, then for the rules: a ledger that says events in blocks of their own and keeps what came of the last.

given(submitted(), assigned()).when(committed()).then()
given().when(transfer(ALICE, BOB, 10**15)).then(InsufficientBalance(needed=10**15, available=999_000))
"""

from collections.abc import Callable
from typing import Any

import msgspec

from events.canonical import digest
from events.envelope import SignedEvent, sign
from events.keys import Key
from events.receipts import sign_receipt
from projections.execute import BlockExecution, Executed
from projections.receipts import receipt_of
from projections.state import Context, State
from schemas.attestation import ExamShape
from schemas.blocks import Applied, Failed
from schemas.events import (
    Body,
    BondDeposited,
    BondUnlocked,
    BondWithdrawn,
    Device,
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
from schemas.genesis import Allocation, Genesis, GenesisValidator, Parameters, Trust
from schemas.refusals import Refusal
from schemas.services import MatmulInt8, SeededMatrix
from schemas.state import Job

CHAIN = "assay-test"
START_MS = 1_750_000_000_000
BALANCE = 1_000_000
NO_JOB = digest(b"no such job")

ALICE, BOB, CLIENT, MINER, SECOND_MINER, COORDINATOR, SECOND_COORDINATOR, PROPOSER, POOR = (
    Key(bytes([number]) * 32) for number in range(1, 10)
)
RICH = (ALICE, BOB, CLIENT, MINER, SECOND_MINER, COORDINATOR, SECOND_COORDINATOR)

PARAMETERS = Parameters(
    min_gas_price=1,
    max_block_bytes=1_048_576,
    max_block_events=1_000,
    max_block_gas=100_000_000,
    min_block_interval_ms=1,
    round_timeout_ms=1_000,
    max_drift_ms=5_000,
    fee_burn_bps=5_000,
    coordinator_bps=500,
    max_attempts=2,
    reveal_timeout_ms=4_000,
    verify_timeout_ms=5_000,
    max_timeout_ms=60_000,
    max_lifetime_ms=600_000,
    faucet_request=50_000,
    faucet_day=80_000,
    faucet_total=200_000,
)


TRUST = Trust(
    min_score=0,
    min_memory_mib=0,
    min_performance=0,
    exam=ExamShape(inner=64, columns=32, min_rows=16),
    exam_window_ms=10_000,
    exam_reveal_ms=5_000,
    reexamine_ms=604_800_000,
    spot_check_bps=500,
    drift_bps=1_000,
    min_bond=0,
    unbonding_ms=60_000,
    slash_bps=500,
    ban_after=3,
)


def trust(**changes: Any) -> Trust:
    """Trust parameters that ask for nothing, but for ``changes``."""
    return msgspec.structs.replace(TRUST, **changes)


def genesis(balance: int = BALANCE, **parameters: Any) -> Genesis:
    """A genesis with ``balance`` for each of ``RICH``; ``parameters`` replace those above."""
    return Genesis(
        chain=CHAIN,
        time_ms=START_MS,
        rules=1,
        parameters=msgspec.structs.replace(PARAMETERS, **parameters),
        allocations=tuple(
            Allocation(address=address, balance=balance) for address in sorted(key.address for key in RICH)
        ),
        validators=(GenesisValidator(address=PROPOSER.address, power=1),),
        coordinators=tuple(sorted((COORDINATOR.address, SECOND_COORDINATOR.address))),
    )


class Ledger:
    """A state that moves on by blocks. ``job_id`` is the job submitted last, ``executed`` the last block."""

    def __init__(self, start: Genesis) -> None:
        self.state = State.from_genesis(start)
        self.height = 0
        self.time_ms = START_MS
        self.job_id = NO_JOB
        self.refused: Refusal | None = None
        self.executed: Executed | None = None

    def block(self, *sayings: "Saying", after_ms: int = 1_000) -> Executed:
        """Says events in one block; every one of them must be possible to include."""
        self.time_ms += after_ms
        self.height += 1
        execution = BlockExecution(self.state, Context(self.height, self.time_ms, PROPOSER.address))
        self.refused = None
        for saying in sayings:
            signed = saying(self)
            self.refused = execution.include(signed)
            if isinstance(signed.event, JobSubmitted):
                self.job_id = signed.id
        self.executed = execution.finish()
        self.state.adopt(self.executed.draft)
        self.state.check_conservation()
        return self.executed

    def when(self, saying: "Saying", after_ms: int = 1_000) -> "Ledger":
        """Says one event in a block of its own, ``after_ms`` after the block before."""
        self.block(saying, after_ms=after_ms)
        return self

    def wait(self, after_ms: int) -> "Ledger":
        """A block without events."""
        self.block(after_ms=after_ms)
        return self

    def then(self, refusal: Refusal | None = None) -> "Ledger":
        """Asserts that the last event was applied, or failed with this refusal."""
        assert self.refused is None, self.refused
        assert self.executed is not None
        outcome = self.executed.outcomes[-1]
        if refusal is None:
            assert isinstance(outcome, Applied), outcome
        else:
            assert isinstance(outcome, Failed), outcome
            assert outcome.refusal == refusal
        return self

    def then_refused(self, refusal: Refusal) -> "Ledger":
        """Asserts that the last event could not be included, and left no trace."""
        assert self.refused == refusal
        assert self.executed is not None
        assert self.executed.gas == 0
        assert self.executed.draft.changed_rows() == {}
        return self

    def balance(self, key: Key) -> int:
        return self.state.account(key.address).balance

    def job(self) -> Job:
        job = self.state.job(self.job_id)
        assert job is not None
        return job


Saying = Callable[[Ledger], SignedEvent]


def given(*sayings: Saying, balance: int = BALANCE, **parameters: Any) -> Ledger:
    """A ledger on which each of these events has been applied, a second apart."""
    ledger = Ledger(genesis(balance, **parameters))
    for saying in sayings:
        ledger.when(saying).then()
    return ledger


def say(key: Key, record: type[Body], fields: Callable[[Ledger], dict[str, Any]] | None = None, **more: Any) -> Saying:
    """An event by ``key`` with its next nonce; ``fields`` are those that depend on the ledger."""

    def signed(ledger: Ledger) -> SignedEvent:
        common = {
            "chain": CHAIN,
            "sender": key.address,
            "nonce": ledger.state.account(key.address).nonce,
            "gas_price": 1,
        }
        return sign(record(**{**common, **(fields(ledger) if fields else {}), **more}), key)

    return signed


def transfer(sender: Key, to: Key, amount: int, **more: Any) -> Saying:
    return say(sender, TransferSent, to=to.address, amount=amount, **more)


def faucet(sender: Key, amount: int, **more: Any) -> Saying:
    return say(sender, FaucetRequested, amount=amount, **more)


def registered(miner: Key = MINER, unit_price: int = 100, memory_mib: int = 1_000, **more: Any) -> Saying:
    fields = {
        "name": "a miner",
        "capacity": 1,
        "devices": (Device(model="small", memory_mib=1), Device(model="large", memory_mib=memory_mib)),
        "offers": (Offer(service="other.service", unit_price=1), Offer(service="matmul.int8", unit_price=unit_price)),
    }
    return say(miner, MinerRegistered, **{**fields, **more})


def bonded(amount: int, miner: Key = MINER, **more: Any) -> Saying:
    return say(miner, BondDeposited, amount=amount, **more)


def unlocked(amount: int, miner: Key = MINER, **more: Any) -> Saying:
    return say(miner, BondUnlocked, amount=amount, **more)


def withdrawn(miner: Key = MINER, **more: Any) -> Saying:
    return say(miner, BondWithdrawn, **more)


def work(rows: int = 200, inner: int = 200, columns: int = 200, b_rows: int | None = None) -> MatmulInt8:
    """By default 8 units."""
    return MatmulInt8(
        a=SeededMatrix(rows=rows, columns=inner, seed=digest(b"a")),
        b=SeededMatrix(rows=inner if b_rows is None else b_rows, columns=columns, seed=digest(b"b")),
    )


def submitted(owner: Key = CLIENT, **more: Any) -> Saying:
    fields = {
        "work": work(),
        "escrow": 1_000,
        "lifetime_ms": 100_000,
        "timeout_ms": 10_000,
        "requirement": Requirement(memory_mib=500),
    }
    return say(owner, JobSubmitted, **{**fields, **more})


def _job(ledger: Ledger) -> dict[str, Any]:
    return {"job": ledger.job_id}


def assigned(coordinator: Key = COORDINATOR, miner: Key = MINER, price: int = 800, **more: Any) -> Saying:
    return say(coordinator, JobAssigned, _job, miner=miner.address, price=price, **more)


def committed(miner: Key = MINER, **more: Any) -> Saying:
    return say(
        miner, JobCommitted, _job, **{"root": digest(b"root"), "result": digest(b"blob"), "size": 160_128, **more}
    )


def _with_receipt(key: Key) -> Callable[[Ledger], dict[str, Any]]:
    def fields(ledger: Ledger) -> dict[str, Any]:
        job = ledger.state.job(ledger.job_id)
        has_one = job is not None and hasattr(job.situation, "commitment")
        sig = sign_receipt(receipt_of(ledger.job_id, job, CHAIN), key) if job is not None and has_one else "A" * 86
        return {"job": ledger.job_id, "receipt_sig": sig}

    return fields


def revealed(miner: Key = MINER, **more: Any) -> Saying:
    return say(miner, JobRevealed, _with_receipt(miner), **more)


def settled(coordinator: Key = COORDINATOR, **more: Any) -> Saying:
    return say(coordinator, JobSettled, _with_receipt(coordinator), **more)


def failed(sender: Key = COORDINATOR, miner: Key = MINER, reason: str = "MINER_FAILED", **more: Any) -> Saying:
    return say(sender, JobFailed, _job, miner=miner.address, reason=reason, **more)


def refunded(coordinator: Key = COORDINATOR, reason: str = "NO_MINER", **more: Any) -> Saying:
    return say(coordinator, JobRefunded, _job, reason=reason, **more)


def cancelled(owner: Key = CLIENT, **more: Any) -> Saying:
    return say(owner, JobCancelled, _job, **more)
