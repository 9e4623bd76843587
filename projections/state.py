"""The ledger's state: records by key, their tree, and drafts of the state after a block.

`State` is what final blocks have made. A block is executed on a `Draft`, which lies over it and holds what the block
touches; the draft of a block that becomes final is adopted, any other is forgotten. Records are never changed, only
replaced.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct, UnsetType

from events.canonical import canonical
from events.errors import BadInput, VerificationFailed
from projections import tree
from projections.deadlines import Deadlines, deadline_of
from schemas.genesis import Genesis, Parameters
from schemas.messages import StateProof
from schemas.state import Account, Assigned, Attestation, Committed, Job, Miner, Record, Revealed, Supply
from schemas.values import MAX_SAFE_INTEGER

SUPPLY_KEY: Final = "supply"
EMPTY_ACCOUNT: Final = Account()


class Context(Struct, frozen=True):
    """The block that an event is in."""

    height: int
    time_ms: int
    proposer: str


class State:
    """The committed state. Made by `from_genesis` or `from_rows`; moves on by `adopt`."""

    def __init__(self, genesis: Genesis, supply: Supply) -> None:
        self.genesis: Final = genesis
        self.parameters: Final[Parameters] = genesis.parameters
        self.accounts: Final[dict[str, Account]] = {}
        self.jobs: Final[dict[str, Job]] = {}
        self._miners: dict[str, Miner] = {}
        self._attestations: Final[dict[str, Attestation]] = {}
        self._unfinished: Final[dict[str, Job]] = {}
        self._supply = supply
        self._deadlines = Deadlines(self._unfinished)
        self._tree: tree.Node = None
        self._version = 0

    @classmethod
    def from_genesis(cls, genesis: Genesis) -> "State":
        """The state before the first block. Raises BadInput when the genesis contradicts itself."""
        check_genesis(genesis)
        state = cls(genesis, Supply(genesis=sum(allocation.balance for allocation in genesis.allocations)))
        for allocation in genesis.allocations:
            state.accounts[allocation.address] = Account(balance=allocation.balance)
        state._tree = tree.update(None, dict(map(_tree_entry, state.rows())))
        return state

    @classmethod
    def from_rows(cls, genesis: Genesis, rows: Iterable[tuple[str, bytes]]) -> "State":
        """The state that `rows` gave, in any order. Compare its root with that of the header it belongs to.

        Raises VerificationFailed for a row that is none, or without a supply.
        """
        supply: Supply | None = None
        state = cls(genesis, Supply(genesis=0))
        changes: dict[int, bytes | None] = {}
        jobs: list[tuple[int, str]] = []
        for key, value in rows:
            kind, _, name = key.partition("/")
            record = _decoded(key, kind, value)
            if isinstance(record, Account):
                state.accounts[name] = record
            elif isinstance(record, Job):
                state.jobs[name] = record
                jobs.append((record.submitted_height, name))
            elif isinstance(record, Miner):
                state._miners[name] = record
            elif isinstance(record, Attestation):
                state._attestations[name] = record
            else:
                supply = record
            path, value_hash = _tree_entry((key, value))
            changes[path] = value_hash
        if supply is None:
            raise VerificationFailed("the stored state is incomplete", why="it has no supply", hint=_REPLAY)
        state._supply = supply
        state._tree = tree.update(None, changes)
        state._miners = dict(sorted(state._miners.items()))
        state._note_jobs([name for _, name in sorted(jobs)])
        return state

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """Every key with its record's canonical bytes, sorted by key."""
        for kind, records in self._by_kind().items():
            for name in sorted(records):
                yield f"{kind}/{name}", canonical(records[name])
        yield SUPPLY_KEY, canonical(self._supply)

    def _by_kind(self) -> dict[str, Mapping[str, Record]]:
        """The records by name, by the first part of their keys, which ascend."""
        return {
            "account": self.accounts,
            "attestation": self._attestations,
            "job": self.jobs,
            "miner": self._miners,
        }

    def root(self) -> str:
        """The state root, hexadecimal."""
        return tree.root_hash(self._tree).hex()

    def account(self, address: str) -> Account:
        """An account that was never touched is empty."""
        return self.accounts.get(address, EMPTY_ACCOUNT)

    def job(self, job_id: str) -> Job | None:
        return self.jobs.get(job_id)

    def miner(self, address: str) -> Miner | None:
        return self._miners.get(address)

    def attestation(self, address: str) -> Attestation | None:
        return self._attestations.get(address)

    def attestations(self) -> Mapping[str, Attestation]:
        """Of all miners that ever claimed GPUs."""
        return MappingProxyType(self._attestations)

    def supply(self) -> Supply:
        return self._supply

    def unfinished_jobs(self) -> Mapping[str, Job]:
        """In order of submission by height, within a block by id."""
        return MappingProxyType(self._unfinished)

    def miners(self) -> Mapping[str, Miner]:
        """All that ever registered, sorted by address."""
        return MappingProxyType(self._miners)

    def next_deadline_ms(self) -> int | None:
        """The earliest deadline of an unfinished job, in block time."""
        return self._deadlines.next_ms()

    def due_jobs(self, time_ms: int, most: int) -> list[str]:
        """The first ``most`` jobs whose deadline has come, by deadline, then id."""
        return self._deadlines.due(time_ms, most)

    def draft(self) -> "Draft":
        """An overlay for one block."""
        return Draft(self)

    def adopt(self, draft: "Draft") -> None:
        """Makes the draft's records this state's. Raises AssertionError unless it was drafted from this very state."""
        if draft.state is not self or draft.version != self._version:
            raise AssertionError("a draft of another state cannot be adopted")
        draft.seal()
        self._version += 1
        self._tree = draft.tree
        self.accounts.update(draft.accounts)
        self._supply = draft.supply()
        if draft.miners_changed:
            merged = {**self._miners, **draft.miners_changed}
            self._miners = merged if len(merged) == len(self._miners) else dict(sorted(merged.items()))
        self._attestations.update(draft.attestations_changed)
        self.jobs.update(draft.jobs_changed)
        self._note_jobs(sorted(draft.jobs_changed))

    def _note_jobs(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            job = self.jobs[job_id]
            if deadline_of(job) is None:
                self._unfinished.pop(job_id, None)
            else:
                self._unfinished[job_id] = job
        self._deadlines.add(job_ids)

    def prove(self, key: str) -> StateProof:
        """Shows what the state has at ``key``, or that it has nothing."""
        path = tree.find(self._tree, tree.key_hash(key))
        siblings = tuple(sibling.hex() for sibling in path.siblings)
        if path.leaf is None:
            return StateProof(key=key, siblings=siblings)
        if path.leaf.key != tree.key_hash(key):
            neighbour = (path.leaf.key.to_bytes(32, "big").hex(), path.leaf.value.hex())
            return StateProof(key=key, siblings=siblings, neighbour=neighbour)
        return StateProof(key=key, siblings=siblings, value=msgspec.Raw(self._value(key)))

    def _value(self, key: str) -> bytes:
        kind, _, name = key.partition("/")
        records = self._by_kind()
        return canonical(records[kind][name] if kind in records else self._supply)

    def check_conservation(self) -> None:
        """Adds up everything: for audits. Raises AssertionError when coins came from nowhere or went there."""
        supply = self._supply
        balances = sum(account.balance for account in self.accounts.values())
        escrowed = sum(job.escrow for job in self._unfinished.values())
        bonded = sum(_bonded(miner) for miner in self._miners.values())
        everything = balances + escrowed + bonded
        if (escrowed, bonded) != (supply.escrowed, _bonds_of(supply)) or everything != (
            supply.genesis + supply.minted - supply.burned
        ):
            sums = f"balances {balances}, escrows {escrowed}, bonds {bonded}"
            raise AssertionError(f"coins are not conserved: {sums}, {supply}")
        running = dict.fromkeys(self._miners, 0)
        for job in self._unfinished.values():
            if isinstance(job.situation, Assigned | Committed | Revealed):
                running[job.situation.assignment.miner] += 1
        if any(running[address] != miner.running for address, miner in self._miners.items()):
            raise AssertionError("the miners' running jobs are miscounted")


class Draft:
    """The state after a block in the making: the same reading as `State`, and writing."""

    def __init__(self, state: State) -> None:
        self.state: Final = state
        self.genesis: Final = state.genesis
        self.parameters: Final = state.parameters
        self.version: Final = state._version
        self.accounts: Final[dict[str, Account]] = {}
        self.jobs_changed: Final[dict[str, Job]] = {}
        self.miners_changed: Final[dict[str, Miner]] = {}
        self.attestations_changed: Final[dict[str, Attestation]] = {}
        self.tree: tree.Node = None
        self._before: Final = state.accounts
        self._supply: Supply = state.supply()
        self._rows: dict[str, bytes] | None = None

    def account(self, address: str) -> Account:
        """An account that was never touched is empty."""
        return self.accounts.get(address) or self._before.get(address, EMPTY_ACCOUNT)

    def job(self, job_id: str) -> Job | None:
        return self.jobs_changed.get(job_id) or self.state.job(job_id)

    def miner(self, address: str) -> Miner | None:
        return self.miners_changed.get(address) or self.state.miner(address)

    def attestation(self, address: str) -> Attestation | None:
        return self.attestations_changed.get(address) or self.state.attestation(address)

    def attestations(self) -> Mapping[str, Attestation]:
        """Of all miners that ever claimed GPUs, sorted by address."""
        return dict(sorted({**self.state.attestations(), **self.attestations_changed}.items()))

    def supply(self) -> Supply:
        return self._supply

    def unfinished_jobs(self) -> Mapping[str, Job]:
        """In order of submission by height, within a block by id."""
        jobs = {**self.state.unfinished_jobs(), **dict(sorted(self.jobs_changed.items()))}
        return {job_id: job for job_id, job in jobs.items() if deadline_of(job) is not None}

    def miners(self) -> Mapping[str, Miner]:
        """All that ever registered, sorted by address."""
        return dict(sorted({**self.state.miners(), **self.miners_changed}.items()))

    def next_deadline_ms(self) -> int | None:
        """The earliest deadline of an unfinished job, in block time."""
        deadlines = [deadline for job in self.unfinished_jobs().values() if (deadline := deadline_of(job)) is not None]
        return min(deadlines, default=None)

    def put_account(self, address: str, account: Account) -> None:
        self.accounts[address] = account

    def put_job(self, job_id: str, job: Job) -> None:
        self.jobs_changed[job_id] = job

    def put_miner(self, address: str, miner: Miner) -> None:
        self.miners_changed[address] = miner

    def put_attestation(self, address: str, attestation: Attestation) -> None:
        self.attestations_changed[address] = attestation

    def put_supply(self, supply: Supply) -> None:
        self._supply = supply

    def root(self) -> str:
        """The state root with this draft, hexadecimal. Seals it."""
        self.seal()
        return tree.root_hash(self.tree).hex()

    def changed_rows(self) -> dict[str, bytes]:
        """Every key that was written, with its record's canonical bytes. Seals the draft."""
        return self.seal()

    def seal(self) -> dict[str, bytes]:
        """Encodes what was written and computes the tree, once. Nothing may be written afterwards."""
        if self._rows is None:
            rows = {f"account/{name}": canonical(account) for name, account in self.accounts.items()}
            rows.update((f"job/{name}", canonical(job)) for name, job in self.jobs_changed.items())
            rows.update((f"miner/{name}", canonical(miner)) for name, miner in self.miners_changed.items())
            rows.update((f"attestation/{name}", canonical(each)) for name, each in self.attestations_changed.items())
            if self._supply is not self.state.supply():
                rows[SUPPLY_KEY] = canonical(self._supply)
            key_hash = tree.key_hash
            self.tree = tree.update(
                self.state._tree, {key_hash(key): sha256(value).digest() for key, value in rows.items()}
            )
            self._rows = rows
        return self._rows

    def check_conservation(self) -> None:
        """Adds up what this draft changes. Raises AssertionError when coins came from nowhere or went there."""
        before = self._before
        moved = sum(
            account.balance - before.get(name, EMPTY_ACCOUNT).balance for name, account in self.accounts.items()
        )
        old, new = self.state.supply(), self._supply
        issued = (new.minted - old.minted) - (new.burned - old.burned)
        locked = sum(_locked(job) - _locked(self.state.job(job_id)) for job_id, job in self.jobs_changed.items())
        bonded = sum(_bonded(miner) - _bonded(self.state.miner(name)) for name, miner in self.miners_changed.items())
        counted = (new.escrowed - old.escrowed, _bonds_of(new) - _bonds_of(old))
        if (locked, bonded) != counted or moved + locked + bonded != issued:
            sums = f"moved {moved}, locked {locked}, bonded {bonded}, issued {issued}"
            raise AssertionError(f"coins are not conserved: {sums}")


View = State | Draft

_REPLAY: Final = "Delete the file and replay the log."
_decoders: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    "account": msgspec.json.Decoder(Account),
    "attestation": msgspec.json.Decoder(Attestation),
    "job": msgspec.json.Decoder(Job),
    "miner": msgspec.json.Decoder(Miner),
    "supply": msgspec.json.Decoder(Supply),
}


def _decoded(key: str, kind: str, value: bytes) -> Record:
    decoder = _decoders.get(kind)
    if decoder is None or (kind == SUPPLY_KEY) != (key == SUPPLY_KEY):
        raise VerificationFailed("the stored state is damaged", why=f"unknown key {key!r}", hint=_REPLAY)
    try:
        record: Record = decoder.decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeError) as error:
        raise VerificationFailed("the stored state is damaged", why=f"{key}: {error}", hint=_REPLAY) from error
    return record


def _tree_entry(row: tuple[str, bytes]) -> tuple[int, bytes]:
    return tree.key_hash(row[0]), sha256(row[1]).digest()


def _locked(job: Job | None) -> int:
    return 0 if job is None or deadline_of(job) is None else job.escrow


def _bonded(miner: Miner | None) -> int:
    if miner is None or isinstance(miner.standing, UnsetType):
        return 0
    return miner.standing.bond + miner.standing.unlocked


def _bonds_of(supply: Supply) -> int:
    return 0 if isinstance(supply.bonded, UnsetType) else supply.bonded


def check_genesis(genesis: Genesis) -> None:
    """Raises BadInput when a list is not sorted without repetition, or there are too many coins."""
    lists = {
        "allocations": [allocation.address for allocation in genesis.allocations],
        "validators": [validator.address for validator in genesis.validators],
        "coordinators": list(genesis.coordinators),
    }
    for name, addresses in lists.items():
        if any(first >= second for first, second in pairwise(addresses)):
            raise BadInput(
                f"the genesis lists its {name} in disorder",
                why="addresses must ascend without repetition",
                hint="Sort them and name each once.",
            )
    if sum(allocation.balance for allocation in genesis.allocations) > MAX_SAFE_INTEGER:
        raise BadInput(
            "the genesis allocates too much", why="the sum is above 2^53 - 1 micro-ASY", hint="Allocate less."
        )
