"""A chain in one process for tests: keys by name, a log as a list, blocks by turns, votes by everyone."""

from hashlib import sha256
from typing import Any

from events.blocks import sign_vote
from events.canonical import canonical
from events.envelope import SignedEvent, parse, sign
from events.keys import Key
from events.receipts import sign_receipt
from projections.chain import Chain, Final
from projections.receipts import receipt_of
from schemas.blocks import Block, SignedVote, Vote
from schemas.events import (
    Body,
    Device,
    JobAssigned,
    JobCommitted,
    JobRevealed,
    JobSettled,
    JobSubmitted,
    MinerRegistered,
    Offer,
    Requirement,
    TransferSent,
)
from schemas.genesis import Allocation, Genesis, GenesisValidator, Parameters
from schemas.services import MatmulInt8, SeededMatrix, units_of

CHAIN = "assay-small"
START_MS = 1_750_000_000_000
INTERVAL_MS = 100
ROUND_MS = 1_000
COINS = 1_000_000_000

LogEntry = tuple[int, str, bytes]


def key_of(name: str) -> Key:
    """The same key for the same name, for ever."""
    return Key(sha256(name.encode()).digest())


def digest_of(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def parameters(**changes: Any) -> Parameters:
    given: dict[str, Any] = {
        "min_gas_price": 1,
        "max_block_bytes": 1_048_576,
        "max_block_events": 1_000,
        "max_block_gas": 100_000_000,
        "min_block_interval_ms": INTERVAL_MS,
        "round_timeout_ms": ROUND_MS,
        "max_drift_ms": 5_000,
        "fee_burn_bps": 5_000,
        "coordinator_bps": 500,
        "max_attempts": 2,
        "reveal_timeout_ms": 5_000,
        "verify_timeout_ms": 5_000,
        "max_timeout_ms": 60_000,
        "max_lifetime_ms": 600_000,
        "faucet_request": 10_000_000,
        "faucet_day": 20_000_000,
        "faucet_total": 1_000_000_000,
    }
    return Parameters(**{**given, **changes})


def make_genesis(validators: int = 3, powers: tuple[int, ...] = (), **changes: Any) -> Genesis:
    """Validators ``validator 0…``, a coordinator, and coins for ``alice``, ``bob`` and those who work."""
    powers = powers or (1,) * validators
    named = [(key_of(f"validator {index}").address, power) for index, power in enumerate(powers)]
    rich = ["alice", "bob", "coordinator", "miner 0", "miner 1"]
    return Genesis(
        chain=CHAIN,
        time_ms=START_MS,
        rules=1,
        parameters=parameters(**changes),
        allocations=tuple(
            Allocation(address=address, balance=COINS) for address in sorted(key_of(name).address for name in rich)
        ),
        validators=tuple(GenesisValidator(address=address, power=power) for address, power in sorted(named)),
        coordinators=(key_of("coordinator").address,),
    )


class SmallNetwork:
    """All actors of a small chain. ``log`` is what CHAIN would hold, ``chain`` the fold over it."""

    def __init__(self, genesis: Genesis | None = None) -> None:
        self.genesis = genesis or make_genesis()
        self.chain = Chain(self.genesis)
        self.log: list[LogEntry] = []
        self.finals: list[Final] = []
        self.time_ms = self.genesis.time_ms
        self.validators = [key_of(f"validator {index}") for index in range(len(self.genesis.validators))]
        self._keys = {key.address: key for key in self.validators}
        self._nonces: dict[str, int] = {}

    def say(self, name: str, record: type[Body], /, **fields: Any) -> SignedEvent:
        """An event of the actor with this name; with its next nonce, unless another is given."""
        key = key_of(name)
        if "nonce" not in fields:
            fields["nonce"] = self._nonces.get(name, 0)
            self._nonces[name] = fields["nonce"] + 1
        given = {"chain": self.genesis.chain, "sender": key.address, "gas_price": 1, **fields}
        return parse(sign(record(**given), key).raw)

    def has_said(self, signed: SignedEvent) -> None:
        """An event of an actor that was signed elsewhere: the next nonce is that after it."""
        self._nonces |= {
            name: signed.event.nonce + 1 for name in self._nonces if key_of(name).address == signed.event.sender
        }

    def transfer(self, amount: int = 1_000, sender: str = "alice", to: str = "bob", **fields: Any) -> SignedEvent:
        return self.say(sender, TransferSent, to=key_of(to).address, amount=amount, **fields)

    def proposer(self, round_number: int = 0) -> Key:
        """Whose turn it is at the next height."""
        return self._keys[self.chain.proposer_for(self.chain.height + 1, round_number)]

    def build(self, *events: SignedEvent, round_number: int = 0, time_ms: int | None = None) -> Block:
        """The next block, not yet in the log."""
        time_ms = self.chain.earliest_ms(round_number) if time_ms is None else time_ms
        proposed = self.chain.propose(self.proposer(round_number), events, time_ms, round_number)
        assert proposed is not None
        block, refused = proposed
        assert refused == []
        assert block is not None
        return block

    def append(self, kind: str, data: bytes, time_ns: int | None = None) -> Final | None:
        """Puts a message into the log and into the fold."""
        self.log.append((len(self.log) + 1, kind, data))
        final = self.chain.add(*self.log[-1], time_ns)
        if final is not None:
            self.finals.append(final)
        return final

    def append_block(self, block: Block, time_ns: int | None = None) -> Final | None:
        return self.append("block", canonical(block), time_ns)

    def append_vote(self, vote: SignedVote | None) -> Final | None:
        assert vote is not None
        return self.append("vote", canonical(vote))

    def sign_vote_for(self, block_hash: str, validator: Key, height: int | None = None) -> SignedVote:
        """A vote that the validator's own fold would perhaps not cast."""
        height = self.chain.height + 1 if height is None else height
        vote = Vote(block=block_hash, chain=self.genesis.chain, height=height, validator=validator.address)
        return sign_vote(vote, validator)

    def block(self, *events: SignedEvent, round_number: int = 0, time_ms: int | None = None) -> Final:
        """The next block, voted for by everyone: the votes after the quorum are in the log too."""
        self.append_block(self.build(*events, round_number=round_number, time_ms=time_ms))
        votes = [self.chain.vote(key) for key in self.validators]
        finals = [final for vote in votes if (final := self.append_vote(vote)) is not None]
        assert len(finals) == 1
        return finals[0]

    def register(self, name: str, capacity: int = 4) -> SignedEvent:
        return self.say(
            name,
            MinerRegistered,
            name=name,
            capacity=capacity,
            devices=(Device(model="H200", memory_mib=144_384),),
            offers=(Offer(service="matmul.int8", unit_price=100),),
        )

    def submit(self, name: str = "alice", side: int = 100, lifetime_ms: int = 60_000, **fields: Any) -> SignedEvent:
        """A job: a square product, its matrices from seeds."""
        work = MatmulInt8(
            a=SeededMatrix(rows=side, columns=side, seed=digest_of("a")),
            b=SeededMatrix(rows=side, columns=side, seed=digest_of("b")),
        )
        given = {"escrow": 1_000_000, "timeout_ms": 10_000, "requirement": Requirement(memory_mib=0), **fields}
        return self.say(name, JobSubmitted, work=work, lifetime_ms=lifetime_ms, **given)

    def assign(self, job_id: str, miner: str = "miner 0") -> SignedEvent:
        job = self.chain.state.job(job_id)
        assert job is not None
        price = 100 * units_of(job.work)
        return self.say("coordinator", JobAssigned, job=job_id, miner=key_of(miner).address, price=price)

    def commit(self, job_id: str, miner: str = "miner 0") -> SignedEvent:
        root, result = digest_of(f"root {job_id}"), digest_of(f"result {job_id}")
        return self.say(miner, JobCommitted, job=job_id, root=root, result=result, size=40_128)

    def _receipt_sig(self, job_id: str, name: str) -> str:
        job = self.chain.state.job(job_id)
        assert job is not None
        return sign_receipt(receipt_of(job_id, job, self.genesis.chain), key_of(name))

    def reveal(self, job_id: str, miner: str = "miner 0") -> SignedEvent:
        return self.say(miner, JobRevealed, job=job_id, receipt_sig=self._receipt_sig(job_id, miner))

    def settle(self, job_id: str) -> SignedEvent:
        return self.say("coordinator", JobSettled, job=job_id, receipt_sig=self._receipt_sig(job_id, "coordinator"))

    def run_job(self, miner: str = "miner 0") -> str:
        """Five blocks: a job from submission to settlement."""
        submitted = self.submit()
        self.block(submitted)
        for step in (self.assign, self.commit, self.reveal):
            self.block(step(submitted.id, miner))
        self.block(self.settle(submitted.id))
        return submitted.id
