"""State and drafts: reading, writing, adopting, storing."""

import msgspec
import pytest

from events.canonical import canonical
from events.errors import BadInput, VerificationFailed
from projections.proofs import verify_state_proof
from projections.state import State
from schemas.genesis import Allocation, Genesis, GenesisValidator
from schemas.state import Account, Open, Supply
from schemas.values import MAX_SAFE_INTEGER
from tests.projections.ledger import (
    ALICE,
    BALANCE,
    BOB,
    CLIENT,
    COORDINATOR,
    MINER,
    POOR,
    SECOND_MINER,
    Ledger,
    assigned,
    cancelled,
    committed,
    genesis,
    given,
    registered,
    revealed,
    settled,
    submitted,
    transfer,
)


def busy_ledger() -> Ledger:
    """Accounts, two miners, a settled job, an assigned one and an open one."""
    return given(
        registered(),
        registered(SECOND_MINER),
        submitted(),
        assigned(),
        committed(),
        revealed(),
        settled(),
        submitted(),
        assigned(),
        submitted(ALICE),
    )


def test_a_genesis_gives_every_allocation_its_balance() -> None:
    """Before the first block there are the allocations and the supply, nothing else."""
    state = State.from_genesis(genesis())

    assert state.account(ALICE.address) == Account(balance=BALANCE)
    assert state.account(POOR.address) == Account()
    assert state.supply() == Supply(genesis=7 * BALANCE)
    assert [key.partition("/")[0] for key, _ in state.rows()] == ["account"] * 7 + ["supply"]
    assert state.next_deadline_ms() is None


_ADDRESSES = sorted((ALICE.address, BOB.address))
_DISORDER = [
    {"allocations": tuple(Allocation(address=address, balance=1) for address in reversed(_ADDRESSES))},
    {"allocations": tuple(Allocation(address=ALICE.address, balance=1) for _ in range(2))},
    {"validators": tuple(GenesisValidator(address=address, power=1) for address in reversed(_ADDRESSES))},
    {"coordinators": (ALICE.address, ALICE.address)},
    {"allocations": tuple(Allocation(address=address, balance=MAX_SAFE_INTEGER) for address in _ADDRESSES)},
]


@pytest.mark.parametrize("fields", _DISORDER)
def test_a_genesis_that_contradicts_itself_is_refused(fields: dict[str, object]) -> None:
    """Lists ascend without repetition, and all coins together stay below 2^53."""
    broken: Genesis = msgspec.structs.replace(genesis(), **fields)
    with pytest.raises(BadInput):
        State.from_genesis(broken)


def test_rows_give_the_state_back() -> None:
    """A state made of stored rows, in any order, has the same root and says the same."""
    state = busy_ledger().state
    again = State.from_rows(state.genesis, reversed(list(state.rows())))
    again.check_conservation()

    assert again.root() == state.root()
    assert list(again.rows()) == list(state.rows())
    assert list(again.rows()) == sorted(again.rows())
    assert again.supply() == state.supply()
    assert list(again.miners().items()) == list(state.miners().items())
    assert list(again.unfinished_jobs().items()) == list(state.unfinished_jobs().items())
    assert again.next_deadline_ms() == state.next_deadline_ms() is not None


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "no supply"),
        ([("nonsense/1", b"{}")], "unknown key"),
        ([("supply/1", b'{"genesis":0}')], "unknown key"),
        ([("account/x", b"{")], "account/x"),
        ([("account/x", b'{"balance":-1}')], "balance"),
    ],
)
def test_rows_that_are_damaged_are_refused(rows: list[tuple[str, bytes]], why: str) -> None:
    """A stored state that cannot be read says which row is wrong."""
    with pytest.raises(VerificationFailed, match=why):
        State.from_rows(genesis(), rows)


def test_a_damaged_balance_shows_in_the_root() -> None:
    """A row that can be read but is not what was stored gives another root."""
    state = busy_ledger().state
    rows = dict(state.rows())
    rows[f"account/{ALICE.address}"] = canonical(Account(balance=1))

    assert State.from_rows(state.genesis, rows.items()).root() != state.root()


def test_a_draft_leaves_the_state_alone() -> None:
    """What is written to a draft is read back from it, and is not in the state until adopted."""
    state = busy_ledger().state
    root = state.root()
    draft = state.draft()
    draft.put_account(POOR.address, Account(balance=5))

    assert draft.account(POOR.address).balance == 5
    assert draft.account(ALICE.address) == state.account(ALICE.address)
    assert state.account(POOR.address).balance == 0
    assert draft.root() != root == state.root()
    state.adopt(draft)
    assert state.root() == draft.root()
    assert state.account(POOR.address).balance == 5


def test_a_draft_reads_like_a_state() -> None:
    """Jobs, miners and deadlines of a draft are those of the state with what was written over them."""
    ledger = busy_ledger()
    draft, state = ledger.state.draft(), ledger.state
    job = ledger.job()

    assert draft.miners() == dict(state.miners())
    assert list(draft.unfinished_jobs()) == list(state.unfinished_jobs())
    assert draft.next_deadline_ms() == state.next_deadline_ms()
    sooner = msgspec.structs.replace(job, situation=Open(deadline_ms=1))
    draft.put_job(ledger.job_id, sooner)
    assert draft.next_deadline_ms() == 1
    assert draft.job(ledger.job_id) == sooner
    assert list(draft.unfinished_jobs()) == list(state.unfinished_jobs())
    state.adopt(draft)
    assert state.next_deadline_ms() == 1
    assert state.draft().next_deadline_ms() == 1


def test_a_draft_knows_the_rows_it_has_changed() -> None:
    """Only what a block touched is written again."""
    ledger = given().when(transfer(ALICE, BOB, 1))
    assert ledger.executed is not None
    rows = ledger.executed.draft.changed_rows()

    assert set(rows) > {f"account/{ALICE.address}", f"account/{BOB.address}", "supply"}
    assert len(rows) == 4
    assert rows == {key: row for key, row in ledger.state.rows() if key in rows}
    assert ledger.state.draft().changed_rows() == {}


def test_a_draft_of_another_state_cannot_be_adopted() -> None:
    """A draft is adopted once, by the state that it was drafted from, before that moves on."""
    first, second = State.from_genesis(genesis()), State.from_genesis(genesis())
    draft, late = first.draft(), first.draft()
    with pytest.raises(AssertionError, match="another state"):
        second.adopt(draft)
    first.adopt(draft)
    with pytest.raises(AssertionError, match="another state"):
        first.adopt(late)
    with pytest.raises(AssertionError, match="another state"):
        first.adopt(draft)


def test_coins_from_nowhere_stop_the_node() -> None:
    """A draft in which coins appear or vanish is a broken invariant, as is a state that holds them."""
    ledger = given(submitted())
    draft = ledger.state.draft()
    draft.put_account(POOR.address, Account(balance=1))
    with pytest.raises(AssertionError, match="not conserved: moved 1"):
        draft.check_conservation()
    ledger.state.adopt(draft)
    with pytest.raises(AssertionError, match="not conserved"):
        ledger.state.check_conservation()


def test_an_escrow_that_is_not_counted_stops_the_node() -> None:
    """The supply's counter of escrows has to agree with the jobs."""
    ledger = given(submitted())
    draft = ledger.state.draft()
    draft.put_job("0" * 64, ledger.job())
    with pytest.raises(AssertionError, match="locked 1000"):
        draft.check_conservation()


def test_a_miscounted_miner_stops_the_node() -> None:
    """``running`` has to agree with the unfinished jobs."""
    ledger = busy_ledger()
    miner = ledger.state.miner(MINER.address)
    assert miner is not None
    draft = ledger.state.draft()
    draft.put_miner(MINER.address, msgspec.structs.replace(miner, running=2))
    draft.check_conservation()
    ledger.state.adopt(draft)
    with pytest.raises(AssertionError, match="miscounted"):
        ledger.state.check_conservation()


def test_every_record_can_be_proven() -> None:
    """Each row has an inclusion proof under the root; what is not there has an absence proof."""
    ledger = busy_ledger()
    root = ledger.state.root()
    for key, row in ledger.state.rows():
        proof = ledger.state.prove(key)
        assert bytes(proof.value) == row
        assert verify_state_proof(proof, root)
    absent = [f"account/{POOR.address}", "job/" + "0" * 64, *(f"account/{number}" for number in range(50))]
    for key in absent:
        proof = ledger.state.prove(key)
        assert proof.value is msgspec.UNSET
        assert verify_state_proof(proof, root)
        assert not verify_state_proof(proof, "0" * 64)


def test_an_empty_tree_proves_that_there_is_nothing() -> None:
    """Without any record everything is absent."""
    assert verify_state_proof(State(genesis(), Supply(genesis=0)).prove("supply"), "0" * 64)


def test_finished_jobs_stay_readable() -> None:
    """A settled or cancelled job is no longer unfinished, but still there."""
    ledger = given(submitted(), cancelled(CLIENT))

    assert ledger.state.unfinished_jobs() == {}
    assert ledger.job().owner == CLIENT.address
    assert ledger.state.account(COORDINATOR.address).nonce == 0
