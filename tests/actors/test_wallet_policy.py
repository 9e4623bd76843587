from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wallet_policy import (
    DAY_MS,
    HINTS,
    MINUTE_MS,
    Allowed,
    Denied,
    InvalidPolicy,
    OverDailyLimit,
    OverRequestLimit,
    Policy,
    RecipientNotAllowed,
    Spending,
    Spent,
    TypeNotAllowed,
    cost_of,
    decide,
    load_policy,
    policy_from_toml,
)
from events.keys import Key
from schemas.events import (
    EVENT_TYPES,
    Body,
    Device,
    FaucetRequested,
    JobCancelled,
    JobSubmitted,
    MinerRegistered,
    Offer,
    Requirement,
    TransferSent,
    type_of,
)
from schemas.services import MatmulInt8, SeededMatrix

ALICE, BOB, CAROL = (Key(bytes([number]) * 32).address for number in (1, 2, 3))
NOW_MS = 1_800_000_000_000
GAS = 100
COMMON: dict[str, Any] = {"chain": "assay-test", "sender": ALICE, "nonce": 0, "gas_price": 2}
FEE = GAS * COMMON["gas_price"]
MATRIX = SeededMatrix(rows=2, columns=2, seed="0" * 64)


def transfer(amount: int, to: str = BOB) -> TransferSent:
    return TransferSent(to=to, amount=amount, **COMMON)


def job(escrow: int) -> JobSubmitted:
    return JobSubmitted(
        work=MatmulInt8(a=MATRIX, b=MATRIX),
        escrow=escrow,
        lifetime_ms=1_000,
        timeout_ms=1_000,
        requirement=Requirement(memory_mib=0),
        **COMMON,
    )


MINER = MinerRegistered(
    name="one",
    capacity=1,
    devices=(Device(model="cpu", memory_mib=1),),
    offers=(Offer(service="matmul.int8", unit_price=1),),
    **COMMON,
)
CANCEL = JobCancelled(job="0" * 64, **COMMON)
OPEN = Policy(request_limit=10_000, daily_limit=20_000)
ALL_TYPES = Policy(request_limit=10_000, daily_limit=20_000, types=tuple(type_of(body) for body in (MINER, CANCEL)))
SPENT_19_000 = Spending((Spent(NOW_MS - 1_000, 19_000),))


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        (transfer(700), 700 + FEE),
        (job(900), 900 + FEE),
        (MINER, FEE),
        (CANCEL, FEE),
        (FaucetRequested(amount=5_000, **COMMON), FEE),
    ],
)
def test_cost(body: Body, cost: int) -> None:
    """A transfer costs its amount, a job its escrow, both with the fee; what gives nothing away costs its fee."""
    assert cost_of(body, GAS) == cost


def test_every_type_has_a_cost() -> None:
    """No type of event can be signed without a rule that says what it costs."""
    values = {"gas_price": 3, "amount": 5, "escrow": 7}
    for record in EVENT_TYPES:
        body = record(**{name: values.get(name, 0) for name in record.__struct_fields__})
        assert cost_of(body, 1) in (0, 3, 5 + 3, 7 + 3), type_of(body)


def test_unknown_type_has_no_cost() -> None:
    """A type that the cost rules do not know stops the wallet instead of passing as cheap."""

    class StakeAdded(Body, frozen=True, tag="stake.added", tag_field="type"):
        amount: int

    with pytest.raises(AssertionError, match=r"stake\.added"):
        cost_of(StakeAdded(amount=1_000_000, **COMMON), GAS)


@pytest.mark.parametrize(
    ("policy", "spending", "body", "verdict"),
    [
        (OPEN, Spending(), transfer(1), Allowed(1 + FEE)),
        (OPEN, Spending(), transfer(10_000 - FEE), Allowed(10_000)),
        (OPEN, Spending(), job(10_000 - FEE), Allowed(10_000)),
        (OPEN, Spending(), transfer(10_001 - FEE), OverRequestLimit(limit=10_000, asked=10_001)),
        (OPEN, Spending(), job(10_001 - FEE), OverRequestLimit(limit=10_000, asked=10_001)),
        (OPEN, SPENT_19_000, transfer(1_000 - FEE), Allowed(1_000)),
        (OPEN, SPENT_19_000, transfer(1_001 - FEE), OverDailyLimit(limit=20_000, spent=19_000, asked=1_001)),
        (OPEN, SPENT_19_000, CANCEL, Allowed(FEE)),
        (
            OPEN,
            Spending(),
            MINER,
            TypeNotAllowed(field="type", found="miner.registered", allowed=OPEN.types),
        ),
        (ALL_TYPES, Spending(), MINER, Allowed(FEE)),
        (
            msgspec.structs.replace(OPEN, services=("render",)),
            Spending(),
            job(1),
            TypeNotAllowed(field="service", found="matmul.int8", allowed=("render",)),
        ),
        (msgspec.structs.replace(OPEN, services=("render", "matmul.int8")), Spending(), job(1), Allowed(1 + FEE)),
        (msgspec.structs.replace(OPEN, services=()), Spending(), transfer(1), Allowed(1 + FEE)),
        (
            msgspec.structs.replace(OPEN, recipients=(CAROL,)),
            Spending(),
            transfer(1),
            RecipientNotAllowed(recipient=BOB),
        ),
        (msgspec.structs.replace(OPEN, recipients=()), Spending(), transfer(1), RecipientNotAllowed(recipient=BOB)),
        (msgspec.structs.replace(OPEN, recipients=(CAROL, BOB)), Spending(), transfer(1), Allowed(1 + FEE)),
        (msgspec.structs.replace(OPEN, recipients=()), Spending(), job(1), Allowed(1 + FEE)),
        (
            msgspec.structs.replace(OPEN, request_limit=0),
            Spending(),
            CANCEL,
            OverRequestLimit(limit=0, asked=FEE),
        ),
    ],
)
def test_decision(policy: Policy, spending: Spending, body: Body, verdict: Allowed | Denied) -> None:
    """Types, services, recipients, then the limit of the request and of the day; a limit itself may be reached."""
    assert decide(policy, spending, body, gas=GAS, now_ms=NOW_MS) == verdict


def test_price_of_gas_counts() -> None:
    """A small transfer with a huge gas price does not slip under the limit."""
    body = msgspec.structs.replace(transfer(1), gas_price=1_000_000)
    assert decide(OPEN, Spending(), body, gas=GAS, now_ms=NOW_MS) == OverRequestLimit(
        limit=10_000, asked=1 + GAS * 1_000_000
    )


def test_denials_on_the_wire() -> None:
    """A denial travels with its code and its data, and every code has a hint."""
    denial = OverDailyLimit(limit=3, spent=2, asked=4)
    assert msgspec.to_builtins(denial) == {"code": "OVER_DAILY_LIMIT", "limit": 3, "spent": 2, "asked": 4}
    denials = [
        denial,
        OverRequestLimit(limit=1, asked=2),
        RecipientNotAllowed(recipient=BOB),
        TypeNotAllowed(field="type", found="x", allowed=()),
    ]
    assert {each.code for each in denials} == HINTS.keys()
    assert all(each.hint for each in denials)


def test_day_rolls() -> None:
    """What was spent 24 hours ago no longer counts, what was spent a millisecond later does."""
    spending = Spending((Spent(NOW_MS - DAY_MS, 5), Spent(NOW_MS - DAY_MS + 1, 7), Spent(NOW_MS, 11)))
    assert spending.of_day_before(NOW_MS) == 18
    assert spending.pruned(NOW_MS) == Spending((Spent(NOW_MS - DAY_MS + 1, 7), Spent(NOW_MS, 11)))


def test_clock_set_back() -> None:
    """Setting the clock back does not make room: what is dated in the future still counts."""
    spending = Spending().with_amount(20_000, NOW_MS)
    verdict = decide(OPEN, spending, transfer(1), gas=GAS, now_ms=NOW_MS - 3 * DAY_MS)
    assert verdict == OverDailyLimit(limit=20_000, spent=20_000, asked=1 + FEE)


def test_entries_of_a_minute_are_one() -> None:
    """A busy wallet remembers one entry per minute, however many requests it signs."""
    start = NOW_MS - NOW_MS % MINUTE_MS
    spending = Spending()
    for offset in range(0, 3 * MINUTE_MS, 100):
        spending = spending.with_amount(1, start + offset)
    assert spending.entries == tuple(Spent(start + (k + 1) * MINUTE_MS - 100, 600) for k in range(3))


steps = st.lists(st.tuples(st.integers(-MINUTE_MS, DAY_MS // 2), st.integers(0, 10_000)), max_size=40)


@given(steps)
def test_never_forgets_too_early(history: list[tuple[int, int]]) -> None:
    """The sum kept is at least that of every single amount of the last 24 hours, and at most a minute's too high."""
    now_ms, spending, single = NOW_MS, Spending(), []
    for step, amount in history:
        now_ms += step
        spending = spending.with_amount(amount, now_ms)
        single.append((now_ms, amount))
        kept = spending.of_day_before(now_ms)
        latest = max(time for time, _ in single)
        exact = sum(cost for time, cost in single if time > now_ms - DAY_MS and time > latest - DAY_MS)
        loose = sum(cost for time, cost in single if time > now_ms - DAY_MS - MINUTE_MS)
        assert exact <= kept <= loose


@given(steps)
def test_daily_limit_holds(history: list[tuple[int, int]]) -> None:
    """Whatever is asked and when, what is signed within any 24 hours stays within the limit."""
    now_ms, spending, signed = NOW_MS, Spending(), []
    for step, amount in history:
        now_ms += abs(step)
        verdict = decide(OPEN, spending, transfer(amount + 1), gas=GAS, now_ms=now_ms)
        if isinstance(verdict, Allowed):
            spending = spending.with_amount(verdict.amount, now_ms)
            signed.append((now_ms, verdict.amount))
        assert sum(cost for time, cost in signed if time > now_ms - DAY_MS) <= OPEN.daily_limit


def test_policy_file(tmp_path: Path) -> None:
    """A policy is read from TOML; what is left out has its default."""
    path = tmp_path / "policy.toml"
    path.write_text(f'request_limit = 5_000_000\ndaily_limit = 9\nrecipients = ["{BOB}"]\nservices = ["matmul.int8"]\n')
    assert load_policy(path) == Policy(
        request_limit=5_000_000, daily_limit=9, recipients=(BOB,), services=("matmul.int8",)
    )
    path.write_text("request_limit = 1\ndaily_limit = 2\n")
    assert load_policy(path) == Policy(request_limit=1, daily_limit=2)
    assert load_policy(path).types == ("transfer.sent", "job.submitted", "job.cancelled")


LIMITS = "request_limit = 1\ndaily_limit = 2\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "missing required field `request_limit`"),
        ("request_limit = 1", "missing required field `daily_limit`"),
        ("request_limit = -1\ndaily_limit = 2", "`int` >= 0"),
        ("request_limit = 1.5\ndaily_limit = 2", "Expected `int`, got `float`"),
        ("request_limit = 9007199254740992\ndaily_limit = 2", "`int` <= 9007199254740991"),
        (LIMITS + "dayly_limit = 3", "unknown field `dayly_limit`"),
        (LIMITS + "request_limit = 3", "overwrite"),
        (LIMITS + 'types = ["transfer.send"]', "'transfer.send' in types is not the type of an event"),
        (LIMITS + 'recipients = ["bob"]', "matching regex"),
        (LIMITS + f'recipients = ["{BOB[:-1] + ("A" if BOB[-1] != "A" else "B")}"]', "its checksum is wrong"),
        (LIMITS + 'services = "matmul.int8"', "Expected `array`, got `str`"),
        ("request_limit =", "Invalid value"),
        ("a=" + "[" * 5_000, "recursion"),
    ],
)
def test_bad_policy(text: str, why: str) -> None:
    """A policy that is only half understood is refused with the reason, and never used."""
    with pytest.raises(InvalidPolicy) as caught:
        policy_from_toml(text, "policy.toml")
    assert why.lower() in caught.value.why.lower()
    assert "policy.toml" in caught.value.what
    assert caught.value.hint


def test_unreadable_policy(tmp_path: Path) -> None:
    """A policy file that is missing, huge or no text is refused by the same typed error."""
    path = tmp_path / "policy.toml"
    with pytest.raises(InvalidPolicy, match="No such file"):
        load_policy(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidPolicy, match="not UTF-8"):
        load_policy(path)
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(InvalidPolicy, match="longer than"):
        load_policy(path)
