"""Coins: transfers, the faucet, fees."""

import pytest

from projections.payments import add_balance
from schemas.events import TransferSent
from schemas.refusals import (
    AmountOverflow,
    FaucetClosed,
    FaucetLimit,
    InsufficientBalance,
    Malformed,
    Refusal,
    SelfTransfer,
)
from schemas.state import Account
from schemas.values import MAX_SAFE_INTEGER
from tests.projections.ledger import (
    ALICE,
    BALANCE,
    BOB,
    POOR,
    PROPOSER,
    RICH,
    START_MS,
    Ledger,
    Saying,
    faucet,
    genesis,
    given,
    say,
    transfer,
)

DAY_MS = 86_400_000
TO_MIDNIGHT_MS = DAY_MS - START_MS % DAY_MS


def test_a_transfer_moves_the_amount_and_costs_its_gas() -> None:
    """A transfer moves exactly its amount; the sender also pays gas times gas price."""
    ledger = given().when(transfer(ALICE, BOB, 5_000, gas_price=3)).then()

    assert ledger.balance(ALICE) == BALANCE - 5_000 - 3_000
    assert ledger.balance(BOB) == BALANCE + 5_000
    assert ledger.state.account(ALICE.address).nonce == 1


def test_a_transfer_may_spend_the_last_coin() -> None:
    """An account can be emptied to zero."""
    ledger = given().when(transfer(ALICE, POOR, BALANCE - 1_000)).then()

    assert ledger.balance(ALICE) == 0
    assert ledger.balance(POOR) == BALANCE - 1_000


@pytest.mark.parametrize(
    ("saying", "refusal"),
    [
        (transfer(ALICE, ALICE, 1), SelfTransfer(address=ALICE.address)),
        (transfer(ALICE, BOB, BALANCE - 999), InsufficientBalance(needed=BALANCE - 999, available=BALANCE - 1_000)),
        (transfer(ALICE, BOB, BALANCE), InsufficientBalance(needed=BALANCE, available=BALANCE - 1_000)),
        (
            transfer(ALICE, BOB, MAX_SAFE_INTEGER),
            InsufficientBalance(needed=MAX_SAFE_INTEGER, available=BALANCE - 1_000),
        ),
        (
            say(ALICE, TransferSent, to="U" + "A" * 55, amount=1),
            Malformed(detail="to: no user NKey with a right checksum"),
        ),
        (
            say(ALICE, TransferSent, to="M" + BOB.address[1:], amount=1),
            Malformed(detail="to: no user NKey with a right checksum"),
        ),
    ],
)
def test_a_transfer_that_cannot_be_done_pays_its_fee_and_no_more(saying: Saying, refusal: Refusal) -> None:
    """A failed transfer uses its nonce and its fee, and moves nothing."""
    ledger = given().when(saying).then(refusal)

    assert ledger.balance(ALICE) == BALANCE - 1_000
    assert ledger.balance(BOB) == BALANCE
    assert ledger.state.account(ALICE.address).nonce == 1


@pytest.mark.parametrize(("burn_bps", "burned"), [(0, 0), (5_000, 500), (3_333, 333), (9_999, 999), (10_000, 1_000)])
def test_fees_are_burned_in_part_and_the_proposer_gets_the_rest(burn_bps: int, burned: int) -> None:
    """The burned share is rounded down; the remainder belongs to the proposer."""
    ledger = given(fee_burn_bps=burn_bps).when(transfer(ALICE, BOB, 1)).then()

    assert ledger.state.supply().burned == burned
    assert ledger.balance(PROPOSER) == 1_000 - burned


def test_the_faucet_makes_coins_and_pays_its_own_fee() -> None:
    """An account with nothing can ask the faucet: the fee comes out of the amount."""
    ledger = given().when(faucet(POOR, 50_000)).then()

    assert ledger.state.account(POOR.address) == Account(
        balance=48_000, nonce=1, faucet_day=ledger.time_ms // DAY_MS, faucet_used=50_000
    )
    assert ledger.state.supply().minted == 50_000


def test_the_faucet_forgets_on_the_next_day() -> None:
    """The limit per day starts anew at midnight of block time."""
    ledger = given(faucet(POOR, 50_000))
    ledger.when(faucet(POOR, 50_000)).then(FaucetLimit(per="day", limit=80_000, left=30_000))
    ledger.when(faucet(POOR, 50_000), after_ms=TO_MIDNIGHT_MS).then()

    assert ledger.state.account(POOR.address).faucet_used == 50_000


def test_transfers_keep_the_faucet_counters() -> None:
    """Spending and receiving does not reset what was taken from the faucet."""
    ledger = given(faucet(POOR, 50_000), transfer(POOR, BOB, 1), transfer(BOB, POOR, 1))

    assert ledger.state.account(POOR.address).faucet_used == 50_000


@pytest.mark.parametrize(
    ("before", "parameters", "refusal"),
    [
        ((), {"faucet_request": 9_999}, FaucetLimit(per="request", limit=9_999, left=9_999)),
        ((), {"faucet_day": 9_999}, FaucetLimit(per="day", limit=9_999, left=9_999)),
        ((), {"faucet_total": 9_999}, FaucetLimit(per="total", limit=9_999, left=9_999)),
        ((faucet(ALICE, 9_000),), {"faucet_day": 18_999}, FaucetLimit(per="day", limit=18_999, left=9_999)),
        ((faucet(BOB, 9_000),), {"faucet_total": 9_000}, FaucetLimit(per="total", limit=9_000, left=0)),
    ],
)
def test_the_faucet_has_limits(before: tuple[Saying, ...], parameters: dict[str, int], refusal: Refusal) -> None:
    """Each limit is named with what is left of it; an account that can pay the fee pays for the failure."""
    given(*before, **parameters).when(faucet(ALICE, 10_000)).then(refusal)


def test_a_faucet_failure_that_nobody_could_pay_for_is_not_included() -> None:
    """Without a balance to pay the failure, a request above the limits cannot be in a block."""
    given().when(faucet(POOR, 50_001)).then_refused(FaucetLimit(per="request", limit=50_000, left=50_000))


def test_a_faucet_that_is_closed_refuses_at_once() -> None:
    """On a chain without a faucet a request is not even included."""
    given(faucet_total=0).when(faucet(ALICE, 10_000)).then_refused(FaucetClosed())


def test_the_faucet_keeps_the_supply_below_the_largest_amount() -> None:
    """No request can lift the sum of all coins above 2^53 - 1."""
    balance = (MAX_SAFE_INTEGER - 9_999) // len(RICH)
    given(balance=balance).when(faucet(ALICE, 10_000)).then(AmountOverflow(limit=MAX_SAFE_INTEGER))


def test_taking_coins_that_are_not_there_stops_the_node() -> None:
    """A rule that would make a balance negative is a broken invariant."""
    draft = Ledger(genesis()).state.draft()
    with pytest.raises(AssertionError, match="would become -1"):
        add_balance(draft, POOR.address, -1)
