"""Blocks of events: what is included, what it costs, and that the result depends on nothing else."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from events.canonical import canonical
from events.envelope import SignedEvent, sign
from events.keys import Key
from events.merkle import root
from projections.execute import ACTIONS, GAS, BlockExecution, admission, fee_of, gas_of
from projections.signatures import first_bad_signature
from projections.state import Context, State
from schemas.blocks import Applied, Failed, TimerFired
from schemas.events import EVENT_TYPES, FaucetRequested, JobSubmitted, TransferSent, type_of
from schemas.refusals import (
    FaucetClosed,
    GasPriceTooLow,
    InsufficientBalance,
    NonceGap,
    NonceTooLow,
    Refusal,
    WrongChain,
)
from schemas.values import MAX_SAFE_INTEGER
from tests.projections.ledger import (
    ALICE,
    BALANCE,
    BOB,
    CHAIN,
    CLIENT,
    COORDINATOR,
    MINER,
    POOR,
    PROPOSER,
    RICH,
    SECOND_COORDINATOR,
    SECOND_MINER,
    START_MS,
    Ledger,
    Saying,
    assigned,
    cancelled,
    committed,
    failed,
    faucet,
    genesis,
    given,
    refunded,
    registered,
    revealed,
    say,
    settled,
    submitted,
    transfer,
)


def test_every_event_type_has_its_gas() -> None:
    """The table of gas and rules covers exactly the event types."""
    assert set(ACTIONS) == set(EVENT_TYPES)
    assert list(GAS) == [str(record.__struct_config__.tag) for record in ACTIONS]
    assert all(gas > 0 for gas in GAS.values())
    event = transfer(ALICE, BOB, 1, gas_price=7)(given()).event
    assert (gas_of(event), fee_of(event)) == (GAS[type_of(event)], 7_000)


@pytest.mark.parametrize(
    ("saying", "parameters", "refusal"),
    [
        (transfer(ALICE, BOB, 1, chain="another-chain"), {}, WrongChain(expected=CHAIN, found="another-chain")),
        (transfer(ALICE, BOB, 1, nonce=0), {}, NonceTooLow(expected=1, found=0)),
        (transfer(ALICE, BOB, 1, nonce=2), {}, NonceGap(expected=1, found=2)),
        (transfer(ALICE, BOB, 1, gas_price=1), {"min_gas_price": 2}, GasPriceTooLow(minimum=2, found=1)),
        (transfer(POOR, BOB, 1), {}, InsufficientBalance(needed=1_000, available=0)),
        (
            transfer(POOR, BOB, 1, gas_price=MAX_SAFE_INTEGER),
            {},
            InsufficientBalance(needed=MAX_SAFE_INTEGER, available=0),
        ),
        (assigned(POOR), {}, InsufficientBalance(needed=5_000, available=0)),
        (faucet(POOR, 1_999), {}, InsufficientBalance(needed=2_000, available=1_999)),
        (faucet(POOR, 2_000), {"faucet_total": 0}, FaucetClosed()),
    ],
)
def test_an_event_that_cannot_be_included_leaves_no_trace(
    saying: Saying, parameters: dict[str, int], refusal: Refusal
) -> None:
    """Wrong chain or nonce, too low a price, or a fee that cannot be paid: the block is as if it had not been said."""
    given(transfer(ALICE, BOB, 1, gas_price=2), **parameters).when(saying).then_refused(refusal)


def test_admission_judges_by_what_the_caller_expects() -> None:
    """A mempool asks with its own nonce and what is left after the events before; a higher nonce is its affair."""
    state = State.from_genesis(genesis())
    event = transfer(ALICE, BOB, 1, nonce=5)(given()).event

    assert admission(state, event, 5, 1_000) is None
    assert admission(state.draft(), event, 3, 1_000) is None
    assert admission(state, event, 6, 1_000) == NonceTooLow(expected=6, found=5)
    assert admission(state, event, 5, 999) == InsufficientBalance(needed=1_000, available=999)
    assert admission(state, faucet(ALICE, 1)(given()).event, 0, MAX_SAFE_INTEGER) is None


def test_an_account_pays_for_a_whole_chain_of_events_in_one_block() -> None:
    """Later events of a block see what the earlier ones did, from fee to funding."""
    ledger = given()
    executed = ledger.block(
        transfer(ALICE, POOR, 10_000),
        transfer(POOR, BOB, 9_000),
        transfer(POOR, BOB, 1, nonce=1),
        transfer(BOB, ALICE, 1),
    )

    # The third cannot pay its fee any more and is not in the block.
    assert [type(outcome) for outcome in executed.outcomes] == [Applied] * 3
    assert ledger.balance(POOR) == 0
    assert executed.gas == 3_000


def test_a_block_commits_to_events_and_outcomes() -> None:
    """Event root and outcome root are RFC 9162 trees over envelopes and canonical outcomes, timers first."""
    ledger = given(submitted(lifetime_ms=1_000))
    saying = transfer(ALICE, ALICE, 1)
    raws = [saying(ledger).raw, transfer(BOB, ALICE, 1)(ledger).raw]
    executed = ledger.block(saying, transfer(BOB, ALICE, 1))

    assert [type(outcome) for outcome in executed.outcomes] == [TimerFired, Failed, Applied]
    assert executed.timers == 1
    assert executed.event_root == root(raws).hex()
    assert executed.outcome_root == root(canonical(outcome) for outcome in executed.outcomes).hex()
    assert executed.state_root == ledger.state.root()


def test_a_block_is_finished_once() -> None:
    """Finishing twice would pay the fees twice."""
    execution = BlockExecution(State.from_genesis(genesis()), Context(1, START_MS, PROPOSER.address))
    execution.finish()
    with pytest.raises(AssertionError, match="finished"):
        execution.finish()


def test_a_block_that_is_not_adopted_changes_nothing() -> None:
    """Two candidates for one height can be executed on the same state; either may be adopted."""
    state = given(submitted(lifetime_ms=10)).state
    executions = [BlockExecution(state, Context(2, START_MS + 10_000, key.address)) for key in (PROPOSER, BOB)]
    first, second = (execution.finish() for execution in executions)

    assert first.outcomes == second.outcomes
    assert first.timers == 1
    state.adopt(second.draft)
    assert state.root() == second.state_root


def _signed(count: int) -> list[SignedEvent]:
    return [transfer(ALICE, BOB, number + 1)(given()) for number in range(count)]


@pytest.mark.parametrize("bad", [(), (0,), (99,), (40, 70), (49, 50), (3, 98)])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_first_bad_signature_is_found_with_any_number_of_threads(bad: tuple[int, ...], threads: int) -> None:
    """Threads change the speed, never the answer."""
    events = _EVENTS.copy()
    for index in bad:
        events[index] = SignedEvent(
            id=events[index].id,
            event=events[index].event,
            body_bytes=events[index].body_bytes + b" ",
            sig=events[index].sig,
            raw=events[index].raw,
        )

    assert first_bad_signature(events, threads) == (bad[0] if bad else None)
    assert first_bad_signature([], threads) is None


_EVENTS = _signed(100)


class Books:
    """A naive second ledger: pairs of accounts, by the words of the protocol alone, without a look at the rules."""

    def __init__(self) -> None:
        self.entries: dict[str, int] = {}

    def move(self, source: str, target: str, amount: int) -> None:
        self.entries[source] = self.entries.get(source, 0) - amount
        self.entries[target] = self.entries.get(target, 0) + amount


class LedgerMachine(RuleBasedStateMachine):
    """Says anything to a ledger, and keeps books beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(genesis(balance=200_000))
        self.books = Books()
        for key in RICH:
            self.books.move("genesis", key.address, 200_000)
        self.jobs: list[str] = []
        self.escrows: dict[str, tuple[str, int]] = {}

    def _refund(self, job_id: str) -> None:
        owner, escrow = self.escrows.pop(job_id)
        self.books.move(f"escrow {job_id}", owner, escrow)

    def _ended(self, job_id: str) -> bool:
        return job_id in self.escrows and job_id not in self.ledger.state.unfinished_jobs()

    def _book(self, signed: SignedEvent, outcome: Applied | Failed) -> None:
        event = signed.event
        self.books.move(event.sender, "fees", outcome.fee)
        if isinstance(outcome, Failed):
            return
        if isinstance(event, TransferSent):
            self.books.move(event.sender, event.to, event.amount)
        elif isinstance(event, FaucetRequested):
            self.books.move("mint", event.sender, event.amount)
        elif isinstance(event, JobSubmitted):
            self.jobs.append(signed.id)
            self.escrows[signed.id] = (event.sender, event.escrow)
            self.books.move(event.sender, f"escrow {signed.id}", event.escrow)
        elif type_of(event) == "job.settled":
            job_id = self.ledger.job_id
            job = self.ledger.job()
            price = job.situation.assignment.price
            miner = job.situation.assignment.miner
            self.books.move(f"escrow {job_id}", event.sender, price // 20)
            self.books.move(f"escrow {job_id}", miner, price - price // 20)
            owner, escrow = self.escrows.pop(job_id)
            self.books.move(f"escrow {job_id}", owner, escrow - price)
        elif self._ended(self.ledger.job_id):
            self._refund(self.ledger.job_id)

    def _block(self, *sayings: Saying, after_ms: int = 1_000) -> None:
        signed = [saying(self.ledger) for saying in sayings]
        if self.ledger.state.next_deadline_ms() is not None:
            after_ms = max(after_ms, 1)
        executed = self.ledger.block(*(lambda _, event=event: event for event in signed), after_ms=after_ms)
        for timer in executed.outcomes[: executed.timers]:
            assert isinstance(timer, TimerFired)
            if timer.refunded:
                self._refund(timer.job)
        outcomes = {outcome.event: outcome for outcome in executed.outcomes[executed.timers :]}
        for event in signed:
            if event.id in outcomes:
                self._book(event, outcomes[event.id])
        fees = sum(outcome.fee for outcome in outcomes.values())
        self.books.move("fees", "burned", fees // 2)
        self.books.move("fees", PROPOSER.address, fees - fees // 2)

    @rule(
        sender=st.sampled_from((*RICH, POOR)),
        to=st.sampled_from((*RICH, POOR)),
        amount=st.integers(1, 250_000),
        gas_price=st.integers(0, 20),
    )
    def transfers(self, sender: Key, to: Key, amount: int, gas_price: int) -> None:
        self._block(transfer(sender, to, amount, gas_price=gas_price))

    @rule(sender=st.sampled_from((ALICE, POOR)), amount=st.integers(1, 90_000))
    def asks_the_faucet(self, sender: Key, amount: int) -> None:
        self._block(faucet(sender, amount))

    @rule(miner=st.sampled_from((MINER, SECOND_MINER)), unit_price=st.integers(1, 130), capacity=st.integers(0, 2))
    def registers(self, miner: Key, unit_price: int, capacity: int) -> None:
        self._block(registered(miner, unit_price, capacity=capacity))

    @rule(
        owner=st.sampled_from((CLIENT, ALICE, MINER)), escrow=st.integers(1, 3_000), lifetime_ms=st.integers(1, 60_000)
    )
    def submits(self, owner: Key, escrow: int, lifetime_ms: int) -> None:
        self._block(submitted(owner, escrow=escrow, lifetime_ms=lifetime_ms))

    @rule(data=st.data())
    def looks_at_another_job(self, data: st.DataObject) -> None:
        if self.jobs:
            self.ledger.job_id = data.draw(st.sampled_from(self.jobs))

    @rule(
        coordinator=st.sampled_from((COORDINATOR, SECOND_COORDINATOR)),
        miner=st.sampled_from((MINER, SECOND_MINER)),
        right=st.booleans(),
    )
    def assigns(self, coordinator: Key, miner: Key, right: bool) -> None:
        record = self.ledger.state.miner(miner.address)
        price = 8 * record.offers[1].unit_price if record and right else 1
        self._block(assigned(coordinator, miner, price))

    @rule(step=st.sampled_from((committed, revealed)), miner=st.sampled_from((MINER, SECOND_MINER)))
    def goes_on(self, step: Callable[[Key], Saying], miner: Key) -> None:
        self._block(step(miner))

    @rule(miner=st.sampled_from((MINER, SECOND_MINER)))
    def does_a_whole_job(self, miner: Key) -> None:
        """A path that chance alone would take too rarely."""
        self._block(registered(miner, 100, capacity=4))
        self._block(submitted(escrow=1_000))
        for saying in (assigned(COORDINATOR, miner), committed(miner), revealed(miner), settled()):
            self._block(saying)

    @rule(coordinator=st.sampled_from((COORDINATOR, SECOND_COORDINATOR, ALICE)))
    def settles(self, coordinator: Key) -> None:
        self._block(settled(coordinator))

    @rule(sender=st.sampled_from((COORDINATOR, MINER, ALICE)), miner=st.sampled_from((MINER, SECOND_MINER)))
    def fails(self, sender: Key, miner: Key) -> None:
        self._block(failed(sender, miner))

    @rule(ending=st.sampled_from((refunded(), cancelled(), cancelled(ALICE))))
    def gives_up(self, ending: Saying) -> None:
        self._block(ending)

    @rule(after_ms=st.integers(1, 70_000))
    def waits(self, after_ms: int) -> None:
        self._block(after_ms=after_ms)

    @invariant()
    def the_books_agree(self) -> None:
        """Every balance, escrow, the minted and the burned are what double entry says."""
        state, entries = self.ledger.state, self.books.entries
        for key in (*RICH, POOR, PROPOSER):
            assert state.account(key.address).balance == entries.get(key.address, 0)
        supply = state.supply()
        assert supply.minted == -entries.get("mint", 0)
        assert supply.burned == entries.get("burned", 0)
        assert supply.escrowed == sum(escrow for _, escrow in self.escrows.values())
        assert [job_id for job_id in self.escrows if job_id not in state.unfinished_jobs()] == []
        assert sum(entries.values()) == 0
        assert entries.get("fees", 0) == 0

    @invariant()
    def a_restored_state_is_the_same(self) -> None:
        state = self.ledger.state
        again = State.from_rows(state.genesis, state.rows())
        assert again.root() == state.root()
        assert again.next_deadline_ms() == state.next_deadline_ms()


LedgerMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30)
TestLedger = LedgerMachine.TestCase

_RUN = """
from tests.projections.test_execute import replay
print(replay(7))
"""


def replay(seed: int) -> str:
    """State, event and outcome roots of forty blocks drawn from a seed."""
    draw = random.Random(seed)
    ledger = given(registered(), registered(SECOND_MINER), balance=10_000_000)
    lines = []
    for _ in range(40):
        owner = draw.choice((CLIENT, ALICE, BOB))
        to = draw.choice((POOR, PROPOSER))
        sayings = [
            submitted(owner, lifetime_ms=draw.randrange(1_000, 20_000)),
            draw.choice((assigned(), committed(), revealed(), settled(), failed(MINER), transfer(MINER, to, 5))),
        ]
        executed = ledger.block(*sayings, after_ms=draw.randrange(1, 3_000))
        lines.append(f"{executed.state_root} {executed.event_root} {executed.outcome_root}")
    return "\n".join(lines)


@pytest.mark.parametrize(("seed", "zone", "locale"), [("0", "UTC", "C"), ("4711", "Asia/Tokyo", "tr_TR.UTF-8")])
def test_roots_do_not_depend_on_the_surroundings(seed: str, zone: str, locale: str) -> None:
    """Other hash seeds, time zones and locales give the same roots."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale}
    run = subprocess.run(
        [sys.executable, "-c", _RUN],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).resolve().parents[2],
    )

    assert run.stdout.strip() == replay(7)
    assert len(set(run.stdout.split())) > 80


def test_a_wrong_signature_is_not_the_rules_affair() -> None:
    """Execution trusts that signatures have been checked; `first_bad_signature` is where they are."""
    event = say(ALICE, TransferSent, to=BOB.address, amount=1)(given()).event
    forged = SignedEvent(id="0" * 64, event=event, body_bytes=canonical(event), sig="A" * 86, raw=b"{}")

    assert first_bad_signature([sign(event, ALICE), forged], 2) == 1
    assert BlockExecution(given().state, Context(1, START_MS, PROPOSER.address)).include(forged) is None
    assert given().balance(ALICE) == BALANCE
