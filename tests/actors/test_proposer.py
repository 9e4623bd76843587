"""Proposers on a simulated network: who proposes when, and that nothing but a missing quorum stops the blocks."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.proposer import FENCED_TRIES
from bus.port import ChainKind, Limits
from events import subjects
from events.blocks import decode_block
from events.canonical import canonical
from events.envelope import SignedEvent, wrap
from events.errors import MessageTooLarge
from projections.chain import Final
from schemas.events import JobSubmitted, Requirement, TransferSent
from schemas.services import MatmulInt8, SeededMatrix
from schemas.state import Refunded
from tests.actors.town import Town, key_of, make_genesis
from tests.actors.virtual_time import VirtualClock, run
from tests.projections.small_network import CHAIN, ROUND_MS

SEED = "0" * 64
WORK = MatmulInt8(a=SeededMatrix(rows=10, columns=10, seed=SEED), b=SeededMatrix(rows=10, columns=10, seed=SEED))


@pytest.mark.parametrize("validators", [1, 3])
def test_transfers_become_final_and_all_have_the_same_state(tmp_path: Path, validators: int) -> None:
    """A hundred transfers of two senders are in blocks, in the order of their nonces; their inbox places are free."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(validators)) as town:
            events = [town.transfer(who, "carol") for _ in range(50) for who in ("alice", "bob")]
            await town.submit(*events)
            await town.until_included(events, 5_000)
            await town.until_roots_agree()
            assert town.chain.state.account(key_of("carol").address).balance == 100_000
            await town.until(lambda: town.waiting_in_inbox() == 0, 2_000)
            assert town.refusals == []
            assert town.blocks_in_log() == town.chain.height

    run(scenario)


def test_there_are_no_empty_blocks_and_an_idle_proposer_rests(tmp_path: Path) -> None:
    """In an hour without events nothing is appended, and each proposer looks no more than four times a second."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:
            looks = 0
            propose = town.proposers[0]._propose

            async def counted() -> int:
                nonlocal looks
                looks += 1
                return await propose()

            town.proposers[0]._propose = counted
            await asyncio.sleep(600)
            assert town.network.stream(CHAIN, "CHAIN").last_sequence == 0
            assert looks <= 600 * 4 + 1

    run(scenario)


def test_a_deadline_makes_a_block_by_itself(tmp_path: Path) -> None:
    """With nothing in the mempool, a job that no miner takes is refunded when its lifetime ends, not later."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(3)) as town:
            fields = {"escrow": 1_000, "lifetime_ms": 30_000, "timeout_ms": 1_000, "work": WORK}
            job = await town.say("alice", JobSubmitted, requirement=Requirement(memory_mib=0), **fields)
            await town.until(lambda: town.chain.state.job(job) is not None)
            assert town.chain.height == 1
            await town.until(lambda: town.chain.height == 2, 31_000)
            ended = town.chain.state.job(job)
            assert ended is not None
            assert isinstance(ended.situation, Refunded)
            assert town.finals[1].header.time_ms - ended.expires_ms < 2 * ROUND_MS
            assert town.finals[1].events == ()

    run(scenario)


def test_with_one_of_three_dead_blocks_go_on(tmp_path: Path) -> None:
    """Whose turn it is and who is dead loses its turn after the round's time; the two others make a quorum."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            await town.kill("proposer 0")
            dead = town.validators[0].address
            for _ in range(6):
                event = town.transfer()
                await town.submit(event)
                await town.until_included([event], 2 * ROUND_MS)
            await town.until_roots_agree()
            headers = [final.header for final in town.finals]
            assert dead not in [header.proposer for header in headers]
            taken_over = [header.round for header in headers if town.chain.proposer_for(header.height, 0) == dead]
            assert taken_over
            assert all(taken_over)

    run(scenario)


def test_with_two_of_three_dead_blocks_stop_and_go_on_when_one_returns(tmp_path: Path) -> None:
    """No quorum, no final block, and at most one proposal waits; with the second validator everything is included."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            first = town.transfer()
            await town.submit(first)
            await town.until_included([first])
            await town.kill("proposer 0")
            await town.kill("proposer 1")
            height, blocks = town.chain.height, town.blocks_in_log()
            events = [town.transfer() for _ in range(5)]
            await town.submit(*events)
            await asyncio.sleep(120)
            assert town.chain.height == height
            assert town.blocks_in_log() <= blocks + 1
            await town.start_proposer(1)
            await town.until_included(events, 10_000)
            await town.start_proposer(0)
            await town.until_roots_agree()
            assert town.included() == [signed.id for signed in (first, *events)]

    run(scenario)


def test_a_proposer_that_starts_again_goes_on_from_its_rows(tmp_path: Path) -> None:
    """After a stop, and after a crash with its file lost, it has the others' state and takes its turns."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            for stopping in (town.end, town.kill):
                await stopping("proposer 2")
                events = [town.transfer() for _ in range(3)]
                await town.submit(*events)
                await town.until_included(events)
                if stopping == town.kill:
                    (tmp_path / "proposer 2.db").unlink()
                await town.start_proposer(2)
                await town.until_roots_agree()
            for _ in range(3):
                event = town.transfer()
                await town.submit(event)
                await town.until_included([event], ROUND_MS)
            assert town.validators[2].address in [final.header.proposer for final in town.finals]
            assert list(town.chain.evidence) == []
            assert town.refusals == []

    run(scenario)


def test_what_is_final_already_is_not_refused_after_a_restart(tmp_path: Path) -> None:
    """An event that comes again from the inbox after its block, with its place not freed yet, is no error of anyone."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:
            event = town.transfer()
            await town.submit(event)
            await town.until_included([event])
            await town.end("proposer 0")
            await town.submit(event)
            await town.start_proposer(0)
            await town.until(lambda: town.waiting_in_inbox() == 0)
            assert town.refusals == []

    run(scenario)


@pytest.mark.parametrize(
    ("lost", "operation"),
    [("requests", "append"), ("answers", "append"), ("requests", "settle"), ("requests", "read_inboxes")],
)
def test_what_the_network_loses_delays_only(tmp_path: Path, lost: str, operation: str) -> None:
    """A proposal or vote that did not arrive, or whose answer did not, is made up for; no round is proposed twice."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            for _ in range(4):
                for index in range(3):
                    getattr(town.faults, lost).extend([(f"proposer {index}", operation)] * 2)
                event = town.transfer()
                await town.submit(event)
                await town.until_included([event], 20_000)
            assert list(town.chain.evidence) == []
            await town.until_roots_agree()

    run(scenario)


@pytest.mark.parametrize("lost", ["requests", "answers"])
def test_a_round_in_which_an_own_block_may_be_is_given_up(tmp_path: Path, lost: str) -> None:
    """A proposer that does not know what became of its block signs no second one for the round, only for the next."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:
            getattr(town.faults, lost).append(("proposer 0", "append"))
            proposer = town.proposers[0]
            event = town.transfer()
            await town.submit(event)
            await town.until(lambda: proposer._said == (1, 0))
            assert proposer._turn(1, 0) is None
            assert proposer._turn(1, ROUND_MS) == 1
            assert proposer._turn(2, 0) == 0
            await town.until_included([event], 3 * ROUND_MS)
            assert (town.finals[0].header.round > 0) == (lost == "requests")
            assert list(town.chain.evidence) == []

    run(scenario)


def test_a_round_whose_fence_was_refused_is_not_given_up(tmp_path: Path) -> None:
    """A block that the log has refused is none; after some tries the next one goes without a fence."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:
            proposer = town.proposers[0]
            for tried in range(FENCED_TRIES):
                assert proposer._fence(1) == proposer.node.last_block == 0
                await proposer._append(1, 0, b"never there", 1_000 + tried)
                assert proposer._turn(1, 0) == 0
            assert proposer._fence(1) is None
            assert proposer._fence(2) == proposer.node.last_block
            assert await proposer.node.read_model.newest_proposal() == (1, 0)

    run(scenario)


def test_a_proposer_whose_block_the_log_has_lost_signs_no_other_one_for_the_round(tmp_path: Path) -> None:
    """Power fails everywhere when a block is in the log that nobody has voted for: its round stays without another."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:

            async def never(*_: object) -> None:
                return

            town.proposers[0]._cast = never
            first, second = town.transfer(), town.transfer()
            await town.submit(first)
            await town.until(lambda: town.blocks_in_log() == 1)
            lost = town.network.stream(CHAIN, "CHAIN").messages[1].data
            await town.kill("proposer 0")
            _lose(town, 1)
            await town.start_proposer(0)
            await town.submit(second)
            await town.until_included([first, second], 3 * ROUND_MS)
            rounds = [decode_block(lost).header.round, *(final.header.round for final in town.finals)]
            assert rounds == [0, 1]

    run(scenario)


def _lose(town: Town, count: int) -> None:
    """The server has lost the newest messages of the log."""
    town.network.stream(CHAIN, "CHAIN").lose_tail(count)
    town.forget_the_log()


@pytest.mark.parametrize("validators", [1, 3])
@pytest.mark.parametrize("lost", [1, 2, 3, 5, 9, 17])
@pytest.mark.parametrize("away_ms", [1_000, 3_600_000])
def test_what_the_log_has_lost_is_put_back(tmp_path: Path, validators: int, lost: int, away_ms: int) -> None:
    """The server loses its newest messages while nobody runs: every block that was final comes back as it was, however
    much later, and the chain goes on."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(validators)) as town:
            events = [town.transfer() for _ in range(12)]
            for signed in events:
                await town.submit(signed)
                await town.until_included([signed], 5_000)
            before = [final.hash for final in town.finals]
            for index in range(validators):
                await town.kill(f"proposer {index}")
            _lose(town, lost)
            assert len(town.included()) < 12 or lost < validators
            await asyncio.sleep(away_ms / 1_000)
            for index in range(validators):
                await town.start_proposer(index)
            more = [town.transfer() for _ in range(3)]
            await town.submit(*more)
            await town.until_included([*events, *more], 60_000)
            await town.until_roots_agree()
            assert [final.hash for final in town.finals][: len(before)] == before
            assert list(town.chain.evidence) == []
            assert all(proposer.node.kept == {} for proposer in town.proposers.values())

    run(scenario)


def test_a_block_that_was_voted_for_and_lost_comes_back(tmp_path: Path) -> None:
    """Power fails everywhere when all have voted and nobody has heard of it: no other block takes the place."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            await town.submit(town.transfer())
            await town.until(lambda: town.chain.height == 1)
            heard = {index: proposer.node._take_final for index, proposer in town.proposers.items()}

            async def deaf(final: Final) -> None:
                raise asyncio.CancelledError

            for index in heard:
                town.proposers[index].node._take_final = deaf
            await town.submit(town.transfer())
            await town.until(lambda: town.chain.height == 2)
            (voted,) = [final.hash for final in town.finals[1:]]
            for index in heard:
                await town.kill(f"proposer {index}")
            _lose(town, town.network.stream(CHAIN, "CHAIN").last_sequence - 4)
            assert town.chain.height == 1
            for index in (1, 2):
                await town.start_proposer(index)
            await town.until(lambda: town.chain.height == 2)
            assert town.chain.head_hash == voted

    run(scenario)


@pytest.mark.parametrize("lost", ["loses_request", "loses_answer"])
def test_a_vote_that_is_lost_is_said_again(tmp_path: Path, lost: str) -> None:
    """A lone validator's first two votes do not arrive, or are not acknowledged: the block is final all the same."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:
            appends = 0

            def loses(name: str, operation: str) -> bool:
                nonlocal appends
                appends += operation == "append"
                return operation == "append" and appends in (2, 3)

            setattr(town.faults, lost, loses)
            event = town.transfer()
            await town.submit(event)
            await town.until_included([event], 10_000)
            assert town.blocks_in_log() == 1
            assert list(town.chain.evidence) == []

    run(scenario)


def test_when_the_server_is_away_for_a_while_everything_goes_on_afterwards(tmp_path: Path) -> None:
    """No loop of any proposer ends with the connection."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            for _ in range(3):
                event = town.transfer()
                await town.submit(event)
                town.faults.cut.update(town.processes)
                await asyncio.sleep(40)
                town.faults.cut.clear()
                await town.until_included([event], 20_000)
                await town.until_roots_agree()

    run(scenario)


@pytest.mark.parametrize("ahead_ms", [-3_000, 3_000])
def test_a_clock_that_is_wrong_by_less_than_the_drift_does_not_stop_the_chain(tmp_path: Path, ahead_ms: int) -> None:
    """One of three validators is three seconds off: blocks wait for the time to catch up, and time never runs back."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            await town.end("proposer 1")
            await town.start_proposer(1, VirtualClock(ahead_ms))
            for _ in range(7):
                event = town.transfer()
                await town.submit(event)
                await town.until_included([event], 10_000)
            times = [final.header.time_ms for final in town.finals]
            assert times == sorted(times)
            assert list(town.chain.evidence) == []
            await town.until_roots_agree()

    run(scenario)


def test_a_clock_that_is_wrong_by_more_loses_its_turns_only(tmp_path: Path) -> None:
    """Its blocks are passed over by everyone; it proposes no second block of a round, and goes on voting."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            await town.end("proposer 1")
            await town.start_proposer(1, VirtualClock(60_000))
            for _ in range(7):
                event = town.transfer()
                await town.submit(event)
                await town.until_included([event], 10_000)
            assert town.validators[1].address not in [final.header.proposer for final in town.finals]
            assert list(town.chain.evidence) == []

    run(scenario)


def test_a_lone_validator_whose_clock_is_wrong_gives_no_evidence_against_itself(tmp_path: Path) -> None:
    """Its blocks are passed over, one per round, until somebody sets the clock right."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:
            await town.end("proposer 0")
            clock = VirtualClock(60_000)
            await town.start_proposer(0, clock)
            event = town.transfer()
            await town.submit(event)
            await asyncio.sleep(10)
            assert town.chain.height == 0
            assert town.blocks_in_log() > 2
            clock.ahead_ms = 0
            await town.until_included([event], 30_000)
            assert list(town.chain.evidence) == []

    run(scenario)


@pytest.mark.parametrize("validators", [1, 3])
def test_bytes_that_always_come_first_do_not_stop_the_chain(tmp_path: Path, validators: int) -> None:
    """Whoever gets bytes into the log just before each block moves the fence, and delays the block by a second."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(validators)) as town:
            for proposer in town.proposers.values():
                append = proposer._bus.append

                async def overtaken(
                    kind: ChainKind, data: bytes, after_block: int | None = None, append: Any = append
                ) -> int:
                    if kind == "block":
                        town.network.publish(subjects.block(CHAIN), b"garbage")
                    return int(await append(kind, data, after_block))

                proposer._bus.append = overtaken
            for _ in range(3):
                event = town.transfer()
                await town.submit(event)
                await town.until_included([event], 2_000)
            await town.until_roots_agree()
            assert list(town.chain.evidence) == []

    run(scenario)


def test_a_clock_that_was_set_back_stops_nobody(tmp_path: Path) -> None:
    """A lone validator whose clock goes back by two seconds makes its next block two seconds later."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:
            await town.end("proposer 0")
            clock = VirtualClock()
            await town.start_proposer(0, clock)
            first, second = town.transfer(), town.transfer()
            await town.submit(first)
            await town.until_included([first])
            clock.ahead_ms = -2_000
            await town.submit(second)
            await town.until_included([second], 4_000)

    run(scenario)


def test_a_server_that_takes_only_small_blocks_gets_small_ones(tmp_path: Path) -> None:
    """Where the genesis allows more than the server, blocks shrink until they fit."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1), Limits(block_bytes=3_000)) as town:
            events = [town.transfer() for _ in range(40)]
            await town.submit(*events)
            await town.until_included(events)
            assert town.chain.height > 4

    run(scenario)


def test_after_an_event_that_cannot_be_paid_any_more_the_next_ones_wait(tmp_path: Path) -> None:
    """The refused one is told why; those behind it keep their places and go on when its nonce is used."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1)) as town:
            address = key_of("alice").address
            everything = town.transfer(amount=1_000_000_000 - 6_000)
            dear = town.transfer(amount=1, gas_price=10)
            behind = town.transfer("alice", amount=1)
            await town.submit(everything, dear, behind)
            await town.until(lambda: town.codes(address) == ["INSUFFICIENT_BALANCE"])
            again = town.transfer(nonce=1, amount=1)
            await town.submit(again)
            await town.until_included([everything, again, behind])
            assert len(town.refusals) == 1

    run(scenario)


def _changed(signed: SignedEvent, old: bytes, new: bytes) -> bytes:
    return wrap(signed.body_bytes.replace(old, new), signed.sig)


def _unsigned(town: Town, **fields: object) -> bytes:
    key = key_of("alice")
    given = {
        "amount": 1,
        "chain": CHAIN,
        "gas_price": 1,
        "nonce": 0,
        "sender": key.address,
        "to": key_of("bob").address,
        "type": "transfer.sent",
        **fields,
    }
    return wrap(canonical(given), "A" * 86)


REFUSED: list[tuple[str, Callable[[Town], bytes]]] = [
    ("NOT_CANONICAL", lambda town: b"garbage"),
    ("NOT_CANONICAL", lambda town: b""),
    ("NOT_CANONICAL", lambda town: b" " + town.transfer().raw),
    ("NOT_CANONICAL", lambda town: _changed(town.transfer(), b'"amount":1000', b'"amount":1e3')),
    ("NOT_CANONICAL", lambda town: _changed(town.transfer(), b'"amount":1000', b'"amount":null')),
    ("NOT_CANONICAL", lambda town: _changed(town.transfer(), b'"amount":1000', b'"amount":1000,"amount":1000')),
    ("MALFORMED", lambda town: _changed(town.transfer(), b'"amount":1000', b'"amount":-1')),
    ("MALFORMED", lambda town: _changed(town.transfer(), b'"amount":1000', b'"amount":9007199254740992')),
    ("MALFORMED", lambda town: _changed(town.transfer(), b'"amount":1000', b'"amount":1000,"extra":1')),
    ("MALFORMED", lambda town: wrap(b'{"a":' * 100 + b"1" + b"}" * 100, "A" * 86)),
    ("UNKNOWN_TYPE", lambda town: _changed(town.transfer(), b"transfer.sent", b"transfer.lost")),
    ("BAD_SIGNATURE", _unsigned),
    ("BAD_SIGNATURE", lambda town: _changed(town.transfer(), b'"amount":1000', b'"amount":1001')),
    ("WRONG_CHAIN", lambda town: town.transfer(chain="other-chain").raw),
    ("WRONG_SUBJECT", lambda town: town.transfer("bob", "alice").raw),
    ("NONCE_TOO_FAR", lambda town: town.transfer(nonce=65).raw),
    ("GAS_PRICE_TOO_LOW", lambda town: town.transfer(gas_price=0).raw),
    ("INSUFFICIENT_BALANCE", lambda town: town.transfer(gas_price=10**9).raw),
]


@pytest.mark.parametrize(("code", "make"), REFUSED, ids=[f"{n}-{code}" for n, (code, _) in enumerate(REFUSED)])
def test_bad_input_is_refused_on_the_live_subject(tmp_path: Path, code: str, make: Callable[[Town], bytes]) -> None:
    """The owner of the inbox learns the code and how to mend it, the place is freed, and the next event is served."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1, min_gas_price=1)) as town:
            alice = key_of("alice").address
            await town.outsider.submit(alice, make(town))
            await town.until(lambda: town.codes(alice) == [code], 2_000)
            assert town.refusals[0][1].hint
            good = town.transfer("alice", nonce=0)
            await town.submit(good)
            await town.until_included([good], 2_000)
            await town.until(lambda: town.waiting_in_inbox() == 0, 2_000)

    run(scenario)


def test_an_old_nonce_is_refused_and_a_huge_body_does_not_get_that_far(tmp_path: Path) -> None:
    """The first by every mempool, the second by the stream itself."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1), Limits(event_bytes=1_024)) as town:
            first = town.transfer()
            await town.submit(first)
            await town.until_included([first])
            await town.submit(town.transfer(nonce=0, amount=7))
            await town.until(lambda: town.codes() == ["NONCE_TOO_LOW"], 2_000)
            with pytest.raises(MessageTooLarge):
                await town.outsider.submit(key_of("alice").address, b"x" * 1_025)

    run(scenario)


def test_a_flood_gets_refusals_and_the_others_are_served(tmp_path: Path) -> None:
    """Garbage, and events of a stranger that cannot pay, by the thousand: no memory grows, four clients do not wait."""

    async def scenario() -> None:
        async with Town.open(tmp_path, make_genesis(1), Limits(inbox_per_sender=200)) as town:
            flooder = key_of("flooder")
            unpaid = [
                town.sign(flooder, TransferSent, to=key_of("bob").address, amount=1, nonce=nonce).raw
                for nonce in range(100)
            ]
            clients = [f"client {number}" for number in range(4)]
            funding = [town.transfer("alice", client, 1_000_000) for client in clients]
            await town.submit(*funding)
            await town.until_included(funding)
            stopped = asyncio.Event()

            async def flood() -> None:
                number = 0
                while not stopped.is_set():
                    number += 1
                    messages = [(flooder.address, raw) for raw in (*unpaid, *[b"garbage %d" % number] * 100)]
                    await town.outsider.submit_many(messages)
                    await asyncio.sleep(0.05)

            flooding = asyncio.create_task(flood())
            events = [town.transfer(client, "bob", 1) for _ in range(25) for client in clients]
            await town.submit(*events)
            await town.until_included(events, 5_000)
            admission = town.proposers[0]._admission
            assert len(admission.mempool) == 0
            assert (len(admission._tokens), len(admission._digests), len(admission._verified)) == (0, 0, 0)
            assert len(admission._free) <= 200
            stopped.set()
            await flooding
            await town.until(lambda: town.waiting_in_inbox() == 0, 5_000)
            codes = town.codes(flooder.address)
            assert set(codes) == {"NOT_CANONICAL", "INSUFFICIENT_BALANCE"}
            assert set(town.codes()) == set(codes)

    run(scenario)


def test_a_dead_validators_inbox_reader_is_retired_and_made_anew(tmp_path: Path) -> None:
    """A minute after its turn went by, its unsettled messages go, so that a sender whose inbox they fill can go on;
    when it returns, it takes part again."""

    async def scenario() -> None:
        async with Town.open(tmp_path) as town:
            await town.kill("proposer 0")
            for _ in range(4):
                event = town.transfer()
                await town.submit(event)
                await town.until_included([event], 3 * ROUND_MS)
            assert town.waiting_in_inbox() >= 4
            await asyncio.sleep(70)
            await town.until(lambda: town.waiting_in_inbox() == 0, 20_000)
            await town.start_proposer(0)
            for _ in range(3):
                event = town.transfer()
                await town.submit(event)
                await town.until_included([event], ROUND_MS)
            assert town.validators[0].address in [final.header.proposer for final in town.finals[-3:]]

    run(scenario)
