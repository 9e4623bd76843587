"""Bonds, and what right, late and wrong results do to a miner's standing."""

from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from projections.bonds import put_standing, standing_of
from projections.payments import change_supply
from schemas.refusals import (
    Banned,
    BondInUse,
    BondLocked,
    BondTooLow,
    InsufficientBalance,
    InsufficientBond,
    NotEnabled,
    Refusal,
    UnknownMiner,
)
from schemas.state import Standing
from tests.projections.ledger import (
    BALANCE,
    MINER,
    SECOND_MINER,
    Ledger,
    Saying,
    assigned,
    bonded,
    committed,
    failed,
    given,
    registered,
    revealed,
    settled,
    submitted,
    trust,
    unlocked,
    withdrawn,
)

WRONG = (submitted(), assigned(), committed(), revealed(), failed(reason="RESULT_WRONG"))
REGISTRATION_FEE, BOND_FEE = 10_000, 2_000


def standing(ledger: Ledger) -> Standing:
    miner = ledger.state.miner(MINER.address)
    assert miner is not None
    return standing_of(miner)


def trusting(*sayings: Saying, balance: int = BALANCE, **changes: Any) -> Ledger:
    return given(*sayings, balance=balance, trust=trust(**changes))


def test_a_bond_goes_in_waits_and_comes_back() -> None:
    """Deposited coins leave the balance; unlocked ones come back after the waiting time, not before."""
    ledger = trusting(registered(), bonded(500), unlocked(200))
    paid = REGISTRATION_FEE + 2 * BOND_FEE
    assert (standing(ledger).bond, standing(ledger).unlocked) == (300, 200)
    assert ledger.balance(MINER) == BALANCE - 500 - paid
    assert ledger.state.supply().bonded == 500

    unlocked_ms = ledger.time_ms
    ledger.when(withdrawn()).then(BondLocked(until_ms=unlocked_ms + 60_000, now_ms=unlocked_ms + 1_000))
    ledger.when(withdrawn(), after_ms=59_000).then()
    assert (standing(ledger).bond, standing(ledger).unlocked) == (300, 0)
    assert ledger.balance(MINER) == BALANCE - 300 - paid - 2 * BOND_FEE


def test_unlocking_more_starts_the_wait_anew() -> None:
    """There is one waiting time for all that is unlocked, counted from the last word."""
    ledger = trusting(registered(), bonded(500), unlocked(200)).wait(50_000).when(unlocked(1)).then()
    assert standing(ledger).withdrawable_ms == ledger.time_ms + 60_000
    before_ms = ledger.time_ms
    ledger.when(withdrawn(), after_ms=10_000)
    ledger.then(BondLocked(until_ms=before_ms + 60_000, now_ms=before_ms + 10_000))


@pytest.mark.parametrize(
    ("before", "event", "refusal"),
    [
        ((), bonded(1), UnknownMiner(miner=MINER.address)),
        ((), unlocked(1), UnknownMiner(miner=MINER.address)),
        ((), withdrawn(), UnknownMiner(miner=MINER.address)),
        (
            (registered(),),
            bonded(BALANCE),
            InsufficientBalance(needed=BALANCE, available=BALANCE - REGISTRATION_FEE - BOND_FEE),
        ),
        ((registered(), bonded(5)), unlocked(6), InsufficientBond(needed=6, available=5)),
        ((registered(), bonded(5)), withdrawn(), InsufficientBond(needed=1, available=0)),
        ((registered(), bonded(5), submitted(), assigned()), unlocked(1), BondInUse(running=1)),
        ((registered(), bonded(5), unlocked(1), submitted(), assigned()), withdrawn(), BondInUse(running=1)),
        ((registered(), bonded(5), *WRONG), bonded(1), Banned(miner=MINER.address, wrong=1)),
        ((registered(), bonded(5), *WRONG), unlocked(1), Banned(miner=MINER.address, wrong=1)),
        ((registered(), bonded(5), unlocked(5), *WRONG), withdrawn(), Banned(miner=MINER.address, wrong=1)),
    ],
)
def test_what_cannot_be_done_with_a_bond(before: tuple[Saying, ...], event: Saying, refusal: Refusal) -> None:
    """Each refusal says what is missing; here one wrong result bans."""
    trusting(*before, ban_after=1, balance=BALANCE).when(event).then(refusal)


@pytest.mark.parametrize("event", [bonded(1), unlocked(1), withdrawn()])
def test_a_chain_without_trust_parameters_has_no_bonds(event: Saying) -> None:
    """The genesis decides; without it nothing is counted either."""
    ledger = given(registered()).when(event).then(NotEnabled(feature="bonds"))
    for saying in WRONG:
        ledger.when(saying).then()
    assert standing(ledger) == Standing()


def test_results_are_counted() -> None:
    """Submitted, on time, verified, late and wrong results follow from the events of their jobs."""
    ledger = trusting(registered(), submitted(), assigned(), committed(), revealed(), settled())
    assert standing(ledger) == Standing(submitted=1, on_time=1, verified=1)
    for saying in (submitted(), assigned()):
        ledger.when(saying).then()
    ledger.wait(20_000)
    assert standing(ledger) == Standing(submitted=1, on_time=1, verified=1, late=1)
    for saying in (submitted(), assigned(), committed()):
        ledger.when(saying).then()
    ledger.wait(4_000)
    assert standing(ledger) == Standing(submitted=2, on_time=1, verified=1, late=2)


def test_a_wrong_result_burns_a_share_of_the_bond() -> None:
    """Five hundredths, rounded up, also of what is unlocked; nobody gets it."""
    ledger = trusting(registered(), bonded(1_010), unlocked(1_000))
    burned = ledger.state.supply().burned
    ledger.wait(1_000)
    for saying in WRONG:
        ledger.when(saying).then()
    found = standing(ledger)
    # 5 % of 1,010 are 50.5: the bond's 10 go first.
    assert (found.bond, found.unlocked, found.slashed, found.wrong) == (0, 959, 51, 1)
    assert ledger.state.supply().bonded == 959
    fees = 10_000 + 8_000 + 5_000
    assert ledger.state.supply().burned >= burned + 51
    assert ledger.state.supply().burned <= burned + 51 + fees


def test_three_wrong_results_ban() -> None:
    """A banned miner gets no more jobs; neither a new bond nor a new registration helps."""
    ledger = trusting(registered(), bonded(1_000), balance=10 * BALANCE)
    for _ in range(3):
        for saying in WRONG:
            ledger.when(saying).then()
    assert standing(ledger).banned
    assert standing(ledger).bond == 1_000 - 50 - 48 - 46
    ledger.when(registered(name="somebody else")).then()
    ledger.when(submitted()).then()
    ledger.when(assigned()).then(Banned(miner=MINER.address, wrong=3))


@pytest.mark.parametrize("reason", ["RESULT_MALFORMED", "RESULT_UNAVAILABLE", "BAD_INPUT", "MINER_FAILED"])
def test_only_wrong_bits_are_punished(reason: str) -> None:
    """Other failures end the attempt and leave the bond alone."""
    ledger = trusting(registered(), bonded(1_000), submitted(), assigned(), committed(), revealed())
    ledger.when(failed(reason=reason)).then()
    assert (standing(ledger).bond, standing(ledger).wrong) == (1_000, 0)


def test_only_a_revealed_result_can_be_wrong() -> None:
    """Neither a coordinator nor the miner itself can punish for what nobody can look at."""
    ledger = trusting(registered(), bonded(1_000), submitted(), assigned())
    ledger.when(failed(MINER, reason="RESULT_WRONG")).then()
    assert standing(ledger).wrong == 0
    for saying in (submitted(), assigned(), committed(), failed(reason="RESULT_WRONG")):
        ledger.when(saying).then()
    assert (standing(ledger).wrong, standing(ledger).bond) == (0, 1_000)


def test_a_chain_may_ask_for_a_bond() -> None:
    """Without it a miner gets no jobs; what is unlocked does not count."""
    ledger = trusting(registered(), submitted(), min_bond=100)
    ledger.when(assigned()).then(BondTooLow(miner=MINER.address, needed=100, available=0))
    ledger.when(bonded(150)).then().when(unlocked(51)).then()
    ledger.when(assigned()).then(BondTooLow(miner=MINER.address, needed=100, available=99))
    ledger.when(bonded(1)).then().when(assigned()).then()


def test_bonds_out_of_nothing_stop_the_node() -> None:
    """Coins in a bond that came from nobody, or a total that is not theirs, break the books."""
    ledger = trusting(registered(), bonded(10))
    draft = ledger.state.draft()
    change_supply(draft, bonded=5)
    with pytest.raises(AssertionError, match="not conserved"):
        draft.check_conservation()
    miner = ledger.state.miner(MINER.address)
    assert miner is not None
    draft = ledger.state.draft()
    put_standing(draft, MINER.address, miner, Standing(bond=11))
    with pytest.raises(AssertionError, match="not conserved"):
        draft.check_conservation()


@for_all(
    st.lists(
        st.one_of(
            st.tuples(st.just("bond"), st.integers(1, 3_000)),
            st.tuples(st.just("unlock"), st.integers(1, 3_000)),
            st.tuples(st.just("withdraw"), st.just(0)),
            st.tuples(st.just("wrong"), st.just(0)),
            st.tuples(st.just("right"), st.just(0)),
            st.tuples(st.just("wait"), st.integers(1, 100_000)),
        ),
        max_size=12,
    ),
    st.integers(0, 10_000),
)
def test_coins_are_conserved_whatever_happens(steps: list[tuple[str, int]], slash_bps: int) -> None:
    """After every block balances, escrows and bonds are what was minted and not burned; a bond is never negative."""
    ledger = trusting(registered(), registered(SECOND_MINER), slash_bps=slash_bps, balance=10 * BALANCE)
    simple = {"bond": bonded, "unlock": unlocked}
    for kind, number in steps:
        if kind in simple:
            ledger.when(simple[kind](number))
        elif kind == "withdraw":
            ledger.when(withdrawn())
        elif kind == "wait":
            ledger.wait(number)
        else:
            end = failed(reason="RESULT_WRONG") if kind == "wrong" else settled()
            for saying in (submitted(), assigned(), committed(), revealed(), end):
                ledger.when(saying)
        found = standing(ledger)
        assert min(found.bond, found.unlocked) >= 0
        assert found.banned == (found.wrong >= 3)
