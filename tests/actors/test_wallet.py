"""The wallet: signs for others, within limits, once per request, whatever crashes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from actors.store import Batch, Store
from actors.wallet import LARGEST_REQUEST, MOST_ASKING, Asked, Door, Wallet, run_wallet
from actors.wallet_policy import Policy
from bus.port import Bus
from events.canonical import canonical
from events.keys import Key
from projections.execute import GAS
from schemas.events import TransferSent
from schemas.messages import WalletAnswer, WalletRefused, WalletRequest, WalletSigned
from tests.actors.small_network import CHAIN, FastClock, SmallNetwork, until

KEY = Key(b"w" * 32)
FRIEND = Key(b"f" * 32).address
STRANGER = Key(b"x" * 32).address
FEE = GAS["transfer.sent"]
POLICY = Policy(request_limit=1_000 + FEE, daily_limit=1_000_000 + 1_000 * FEE, recipients=(FRIEND,))


def request(key: str, amount: Any = 5, **fields: Any) -> bytes:
    event = {"type": "transfer.sent", "to": FRIEND, "amount": amount, **fields}
    event = {name: value for name, value in event.items() if value is not UNSET}
    return canonical(WalletRequest(key=key, event=msgspec.Raw(msgspec.json.encode(event))))


@asynccontextmanager
async def wallet(
    network: SmallNetwork, path: Path, policy: Policy = POLICY
) -> AsyncIterator[tuple[SmallNetwork, "asyncio.Task[None]"]]:
    """A wallet at work. Ends when the block ends, or by itself."""
    stop = asyncio.Event()
    bus: Bus = network
    async with await Store.open(path / "wallet.db", "wallet") as store:
        task = asyncio.create_task(run_wallet(bus, FastClock(), store, KEY, policy, 1, stop))
        try:
            await until(lambda: KEY.address in network._wallets or task.done())
            yield network, task
        finally:
            stop.set()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()


async def ask(network: SmallNetwork, data: bytes) -> WalletAnswer:
    answer: WalletAnswer = msgspec.json.decode(await network.ask_wallet(KEY.address, data), type=WalletAnswer)
    return answer


def code_of(answer: WalletAnswer) -> str:
    return answer.problem.code if isinstance(answer, WalletRefused) else "signed"


async def test_a_request_becomes_a_signed_event(tmp_path: Path) -> None:
    """The wallet adds chain, sender, nonce and gas price, signs, publishes, and names the event in its answer."""
    async with wallet(SmallNetwork(), tmp_path) as (network, _):
        answer = await ask(network, request("one", memo="hello"))
        await until(lambda: network.inbox)
        signed = network.inbox[0]
        assert answer == WalletSigned(event=signed.id, nonce=0, sender=KEY.address)
        assert signed.event == TransferSent(
            chain=CHAIN, sender=KEY.address, nonce=0, gas_price=1, to=FRIEND, amount=5, memo="hello"
        )


async def test_the_same_request_has_the_same_answer(tmp_path: Path) -> None:
    """At once, after the event is final, and after a restart: one event, one answer."""
    network = SmallNetwork()
    async with wallet(network, tmp_path):
        answers = await asyncio.gather(*(ask(network, request("one")) for _ in range(5)))
        await until(lambda: network.inbox)
        network.close_block()
        answers.append(await ask(network, request("one")))
    async with wallet(network, tmp_path):
        answers.append(await ask(network, request("one")))
    assert {code_of(answer) for answer in answers} == {"signed"}
    assert all(answer == answers[0] for answer in answers)
    assert len(network.ledger) == 1


async def test_white_space_and_order_make_no_other_request(tmp_path: Path) -> None:
    """The event under a key is compared by what it says, not by its bytes."""
    loose = b'{"key": "one", "event": {"to": "%s",  "amount": 5, "type": "transfer.sent"}}' % FRIEND.encode()
    async with wallet(SmallNetwork(), tmp_path) as (network, _):
        assert await ask(network, request("one")) == await ask(network, loose)


async def test_another_event_under_the_same_key_is_refused(tmp_path: Path) -> None:
    """A key is one request for ever, also when both come at once, and the second leaves nothing behind."""
    async with wallet(SmallNetwork(), tmp_path) as (network, _):
        answers = await asyncio.gather(ask(network, request("one", 5)), ask(network, request("one", 6)))
        assert [code_of(answer) for answer in answers] == ["signed", "IDEMPOTENCY_CONFLICT"]
        assert (await ask(network, request("two"))) != answers[0]
        await until(lambda: len(network.inbox) == 2)
        assert [signed.event.nonce for signed in network.inbox] == [0, 1]


async def test_many_clients_share_the_nonces(tmp_path: Path) -> None:
    """Two hundred requests at once get two hundred nonces without holes, and all get into blocks."""
    async with wallet(SmallNetwork(), tmp_path) as (network, _):
        answers = await asyncio.gather(*(ask(network, request(f"client/{number}")) for number in range(200)))
        nonces = [answer.nonce for answer in answers if isinstance(answer, WalletSigned)]
        assert sorted(nonces) == list(range(200))

        def all_included() -> bool:
            network.close_block()
            return len(network.ledger) == 200

        await until(all_included)
    assert {answer.event for answer in answers if isinstance(answer, WalletSigned)} == set(network.heights)


REFUSED: list[tuple[str, bytes, str]] = [
    ("not JSON", b"garbage", "MALFORMED"),
    ("not UTF-8", b'{"key":"\xff","event":{}}', "MALFORMED"),
    ("no key", b'{"event":{}}', "MALFORMED"),
    ("an empty key", b'{"event":{},"key":""}', "MALFORMED"),
    ("a field too many", b'{"event":{},"key":"k","more":1}', "MALFORMED"),
    ("an event that is no object", b'{"event":[1],"key":"k"}', "MALFORMED"),
    ("nested a thousand deep", b'{"event":' + b"[" * 1_000 + b"]" * 1_000 + b',"key":"k"}', "MALFORMED"),
    ("no type", b'{"event":{},"key":"k"}', "MALFORMED"),
    ("an unknown type", request("k", type="coins.made"), "UNKNOWN_TYPE"),
    ("an unknown field", request("k", colour="red"), "MALFORMED"),
    ("a sender of its own", request("k", sender=KEY.address), "MALFORMED"),
    ("a nonce of its own", request("k", nonce=0), "MALFORMED"),
    ("a chain of its own", request("k", chain=CHAIN), "MALFORMED"),
    ("a float", request("k", 1.5), "NOT_CANONICAL"),
    ("a null", request("k", None), "NOT_CANONICAL"),
    ("a negative amount", request("k", -1), "MALFORMED"),
    ("an amount above 2^53", request("k", 2**53), "MALFORMED"),
    ("too many bytes", request("k", memo="x" * LARGEST_REQUEST), "TOO_LARGE"),
    ("too long a memo", request("k", memo="x" * 300), "MALFORMED"),
    ("a recipient off the list", request("k", to=STRANGER), "RECIPIENT_NOT_ALLOWED"),
    ("more than a request may cost", request("k", 1_001), "OVER_REQUEST_LIMIT"),
    ("a gas price that makes it so", request("k", gas_price=1_000), "OVER_REQUEST_LIMIT"),
    ("a type that is not allowed", request("k", type="faucet.requested", to=UNSET), "TYPE_NOT_ALLOWED"),
]


@pytest.mark.parametrize(("what", "data", "code"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_what_is_refused(tmp_path: Path, what: str, data: bytes, code: str) -> None:
    """It gets its code and a hint, uses no nonce and no limit, and the wallet goes on."""
    async with wallet(SmallNetwork(), tmp_path) as (network, _):
        answer = await ask(network, data)
        assert code_of(answer) == code
        assert isinstance(answer, WalletRefused)
        assert answer.problem.detail
        assert answer.problem.hint
        after = await ask(network, request("k", 7))
        assert isinstance(after, WalletSigned)
        assert after.nonce == 0


async def test_the_daily_limit_survives_a_restart(tmp_path: Path) -> None:
    """What was signed before counts after; a refused request may be asked again and has left nothing behind."""
    policy = Policy(request_limit=1_000 + FEE, daily_limit=1_500 + 2 * FEE)
    network = SmallNetwork()
    async with wallet(network, tmp_path, policy):
        assert code_of(await ask(network, request("one", 1_000))) == "signed"
    async with wallet(network, tmp_path, policy):
        assert code_of(await ask(network, request("two", 1_000))) == "OVER_DAILY_LIMIT"
        assert code_of(await ask(network, request("two", 500))) == "signed"
        assert code_of(await ask(network, request("one", 1_000))) == "signed"
        await until(lambda: len(network.inbox) == 2)


async def test_a_wallet_with_too_much_waiting_refuses(tmp_path: Path) -> None:
    """Memory is bounded: beyond ten thousand waiting events, and a thousand open questions, it says so."""
    decider = Wallet(KEY.address, CHAIN, 1, POLICY)
    asked = Asked(msgspec.json.decode(request("one"), type=WalletRequest), None, 10_000)
    (answer,) = decider.decide(asked, 0).commands  # type: ignore[union-attr]
    assert b"WALLET_BUSY" in answer.data  # type: ignore[union-attr]

    class Silent:
        async def ask(self, message: object) -> bytes:
            return await asyncio.Event().wait()  # type: ignore[return-value]

    door = Door(Silent())  # type: ignore[arg-type]
    waiting = [asyncio.create_task(door.answer(request(str(number)))) for number in range(MOST_ASKING)]
    await asyncio.sleep(0)
    assert b"WALLET_BUSY" in await door.answer(request("one more"))
    for task in waiting:
        task.cancel()


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("place", ["before commit", "after commit", "before submit", "after submit"])
@pytest.mark.parametrize("time", range(5))
async def test_killed_at_any_step_it_neither_forgets_nor_pays_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, time: int
) -> None:
    """Clients that ask until they are answered have one event each, the one named in every answer; limits hold."""
    network = SmallNetwork()
    count = 0
    commit, submit = Store.commit, network.submit

    def here(step: str) -> None:
        nonlocal count
        if step == place:
            count += 1
            if count == time + 1:
                raise Crash

    async def commit_or_crash(store: Store, batch: Batch) -> None:
        here("before commit")
        await commit(store, batch)
        here("after commit")

    async def submit_or_crash(owner: str, data: bytes) -> None:
        here("before submit")
        await submit(owner, data)
        here("after submit")

    monkeypatch.setattr(Store, "commit", commit_or_crash)
    monkeypatch.setattr(network, "submit", submit_or_crash)
    answers: dict[str, str] = {}
    policy = Policy(request_limit=5 + FEE, daily_limit=4 * (5 + FEE))
    while len(answers) < 4 or len(network.ledger) < 4:
        async with wallet(network, tmp_path, policy) as (_, task):
            for number in range(4):
                asking = asyncio.create_task(ask(network, request(str(number)))) if not task.done() else None
                if asking is None:
                    break
                await asyncio.wait({asking, task}, return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    asking.cancel()
                    break
                if asking.exception() is None and isinstance(answer := asking.result(), WalletSigned):
                    assert answers.setdefault(str(number), answer.event) == answer.event
            for _ in range(5):
                await asyncio.sleep(0.002)
                network.close_block()
    async with wallet(network, tmp_path, policy):
        assert code_of(await ask(network, request("one more"))) == "OVER_DAILY_LIMIT"
    assert {signed.id for signed in network.ledger} == set(answers.values())
    assert len(network.ledger) == 4
