"""What every actor runs on: one message at a time, three outcomes, a memory that moves together with its effects."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Raw

from actors.decision import (
    AgainLater,
    Answer,
    AnswerSaid,
    Cancel,
    Decision,
    Done,
    Drop,
    EffectFailed,
    Heard,
    Keep,
    Later,
    NeverAgain,
    Say,
    Start,
    Tell,
    TurnedAway,
    done,
    draft,
)
from actors.ledger import QueriedLedger
from actors.mailbox import Mailbox
from actors.runtime import MOST_TRIES, Position, Runtime, Source, Speaking, own_feed, stop_on_signals, supervise
from actors.store import Batch, Store
from bus.port import Bus
from events.canonical import canonical
from events.envelope import SignedEvent, sign, wrap
from events.errors import BadInput, BusError, Divergence, NotAllowed, TimedOut, Unreachable, WrongNetwork
from events.keys import Key
from schemas.blocks import Applied
from schemas.events import TransferSent
from schemas.messages import FeedEntry, FeedMessage
from schemas.refusals import NonceTooLow
from tests.actors.small_network import FastClock, Script, SmallNetwork, until

KEY = Key(b"k" * 32)
FRIEND = Key(b"f" * 32).address


def say(key: str) -> Say:
    return Say(key, draft(TransferSent, to=FRIEND, amount=sum(key.encode())))


@asynccontextmanager
async def running(
    actor: Script, network: SmallNetwork, path: Path, sources: tuple[Source, ...] = ()
) -> AsyncIterator[tuple[Runtime, "asyncio.Task[None]"]]:
    """The actor at work; stopped in good order at the end, unless it ended before."""
    bus: Bus = network
    async with await Store.open(path / "actor.db", "testnet") as store:
        speaking = Speaking(KEY, 1, QueriedLedger(bus, KEY.address))
        runtime = await Runtime.start(actor, store, bus, FastClock(), speaking=speaking)
        stop = asyncio.Event()
        task = asyncio.create_task(runtime.run(stop, [own_feed(bus, KEY.address), *sources]))
        try:
            yield runtime, task
        finally:
            stop.set()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()


async def stored(path: Path) -> Store:
    return await Store.open(path / "actor.db", "testnet")


async def test_messages_are_decided_one_at_a_time_in_order(tmp_path: Path) -> None:
    """A hundred messages arrive in the order in which they were told."""
    actor = Script()
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        for number in range(100):
            await runtime.tell(number)
        await until(lambda: len(actor.seen) == 100)
    assert actor.seen == list(range(100))


async def test_what_is_said_gets_into_a_block_and_is_heard(tmp_path: Path) -> None:
    """A Say becomes a signed event in the inbox; its outcome comes back with the key, and the feed after it."""
    network = SmallNetwork()
    actor = Script(lambda message: done(say("gift")) if message == "go" else Done())
    async with running(actor, network, tmp_path) as (runtime, _):
        await runtime.tell("go")
        await until(lambda: network.inbox)
        network.close_block()
        await until(lambda: any(isinstance(message, Heard) for message in actor.seen))
        (heard,) = [message for message in actor.seen if isinstance(message, Heard)]
        assert (heard.key, heard.event, heard.height) == ("gift", network.ledger[0].id, 1)
        await until(lambda: type(actor.seen[-1]).__name__ == "FeedMessage")
    store = await stored(tmp_path)
    row = await store.find("gift")
    assert row is not None
    assert row.state == "final"
    assert await store.position("feed") == 1
    await store.close()


async def test_the_same_key_is_said_once(tmp_path: Path) -> None:
    """Said twice at once, again after it is final, and again after a restart, it is one event."""
    network = SmallNetwork()
    first, second = (Script(lambda message: done(say("gift")) if message == "go" else Done()) for _ in range(2))
    async with running(first, network, tmp_path) as (runtime, _):
        await runtime.tell("go")
        await runtime.tell("go")
        await until(lambda: network.inbox)
        network.close_block()
        await until(lambda: any(isinstance(message, Heard) for message in first.seen))
        await runtime.tell("go")
        await until(lambda: first.seen.count("go") == 3)
    async with running(second, network, tmp_path) as (runtime, _):
        await runtime.tell("go")
        await until(lambda: "go" in second.seen)
    assert len(network.ledger) == 1
    assert network.inbox == []


async def test_a_message_is_tried_again_later(tmp_path: Path) -> None:
    """AgainLater brings it back, after others, and the position stays before it until it is done."""
    tries: list[object] = []

    def decide(message: object) -> Decision:
        tries.append(message)
        return AgainLater(100, "not yet") if message == "hard" and tries.count("hard") < 3 else Done()

    async with running(Script(decide), SmallNetwork(), tmp_path) as (runtime, _):
        await runtime.tell("hard", Position("list", 1))
        await runtime.tell("easy", Position("list", 2))
        await until(lambda: "easy" in tries)
        assert runtime.position("list") == 0
        await until(lambda: tries.count("hard") == 3)
        await until(lambda: runtime.position("list") == 2)
    assert tries == ["hard", "easy", "hard", "hard"]


async def test_again_later_has_an_end(tmp_path: Path) -> None:
    """After twenty tries the message is a dead letter, and its position passes."""
    actor = Script(lambda message: AgainLater(1, "never works"))
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        await runtime.tell("hopeless", Position("list", 1))
        await until(lambda: runtime.position("list") == 1)
        assert len(actor.seen) == MOST_TRIES
    store = await stored(tmp_path)
    (letter,) = await store.dead_letters()
    assert (letter.code, letter.detail, letter.message) == ("TRIES_USED_UP", "never works", b'"hopeless"')
    await store.close()


@pytest.mark.parametrize(
    ("decide", "code"),
    [
        (lambda: NeverAgain("USELESS", "why", (Keep("trace", b"1"),)), "USELESS"),
        (lambda: _raise(BadInput("no good")), "BAD_INPUT"),
        (lambda: done(Say("bad", draft(TransferSent, to=FRIEND, amount=-1))), "REFUSED"),
    ],
)
async def test_a_message_that_is_given_up_is_kept(tmp_path: Path, decide: Callable[[], Decision], code: str) -> None:
    """It lies among the dead letters with its reason, its position passes, and the next is decided."""
    actor = Script(lambda message: decide() if message == "bad" else Done())
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        await runtime.tell("bad", Position("list", 5))
        await runtime.tell("good", Position("list", 6))
        await until(lambda: runtime.position("list") == 6)
    store = await stored(tmp_path)
    assert [letter.code for letter in await store.dead_letters()] == [code]
    assert await store.position("list") == 6
    assert await store.waiting() == []
    await store.close()


def _raise(error: Exception) -> Decision:
    raise error


@pytest.mark.parametrize("error", [AssertionError("broken"), Divergence(7, "roots differ")])
async def test_a_broken_invariant_stops_the_actor(tmp_path: Path, error: Exception) -> None:
    """It is raised from `run`, nothing of the message is written, and it is not skipped."""
    actor = Script(lambda message: _raise(error))
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, task):
        await runtime.tell("bad", Position("list", 5))
        with pytest.raises(type(error), match=str(error)):
            await task
    store = await stored(tmp_path)
    assert await store.dead_letters() == []
    assert await store.position("list") == 0
    await store.close()


async def test_a_fault_of_the_code_is_buried_once(tmp_path: Path) -> None:
    """An unexpected exception ends the run, but the message that brought it up does not come again."""
    actor = Script(lambda message: _raise(KeyError("oops")) if message == "bad" else done(Keep("seen", b"1")))
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, task):
        await runtime.tell("good", Position("list", 1))
        await runtime.tell("bad", Position("list", 2))
        with pytest.raises(KeyError):
            await task
    store = await stored(tmp_path)
    assert [letter.code for letter in await store.dead_letters()] == ["FAULT"]
    assert await store.position("list") == 2
    assert await store.kept() == {"seen": b"1"}
    await store.close()


async def test_kept_rows_come_back_at_the_start(tmp_path: Path) -> None:
    """What was kept and not dropped is given to `begin`."""
    commands = {"a": Keep("job/1", b"running"), "b": Keep("job/2", b"running"), "c": Drop("job/1")}
    actor = Script(lambda message: done(commands[str(message)]))
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        for message in commands:
            await runtime.tell(message)
        await until(lambda: len(actor.seen) == 3)
    again = Script()
    async with running(again, SmallNetwork(), tmp_path) as (runtime, _):
        await runtime.tell("x")
        await until(lambda: again.seen)
    assert again.rows == {"job/2": b"running"}


async def test_an_effect_brings_its_result_as_a_message(tmp_path: Path) -> None:
    """What it returns is decided like any message; None is no message; its name is free again."""
    runs: list[int] = []

    async def effect() -> object:
        runs.append(1)
        return "result" if len(runs) < 3 else None

    actor = Script(lambda message: done(Start("one", effect)) if message in {"go", "result"} else Done())
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        await runtime.tell("go")
        await until(lambda: len(runs) == 3)
    assert actor.seen == ["go", "result", "result"]


async def test_an_effect_runs_once_under_its_name(tmp_path: Path) -> None:
    """Started again while it runs, it is the same; cancelled, it ends and says nothing."""
    started, cancelled = [], asyncio.Event()

    async def effect() -> object:
        started.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return None

    decisions = {"go": Start("one", effect), "end": Cancel("one")}
    actor = Script(lambda message: done(decisions[str(message)]))
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        await runtime.tell("go")
        await runtime.tell("go")
        await until(lambda: started)
        await runtime.tell("end")
        await asyncio.wait_for(cancelled.wait(), 5)
    assert (started, actor.seen) == ([1], ["go", "go", "end"])


@pytest.mark.parametrize(("error", "runs"), [(Unreachable("away"), 3), (TimedOut("slow"), 3), (BadInput("never"), 1)])
async def test_an_effect_that_fails_is_reported(tmp_path: Path, error: Exception, runs: int) -> None:
    """Failures of the bus are tried again, others are not; then the error comes as a message."""
    count = 0

    async def effect() -> object:
        nonlocal count
        count += 1
        raise error

    actor = Script(lambda message: done(Start("one", effect, tries=3)) if message == "go" else Done())
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        await runtime.tell("go")
        await until(lambda: len(actor.seen) == 2)
    assert actor.seen[1] == EffectFailed("one", error)
    assert count == runs


async def test_a_fault_in_an_effect_ends_the_run(tmp_path: Path) -> None:
    """An effect's unexpected exception is not swallowed."""

    async def effect() -> object:
        raise ZeroDivisionError

    actor = Script(lambda message: done(Start("one", effect)))
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, task):
        await runtime.tell("go")
        with pytest.raises(ZeroDivisionError):
            await task


async def test_later_and_tell(tmp_path: Path) -> None:
    """A message to oneself comes after its delay; a live message goes out under the own address."""
    network = SmallNetwork()
    actor = Script(lambda message: done(Later(50, "tick"), Tell("progress", b"1%")) if message == "go" else Done())
    async with running(actor, network, tmp_path) as (runtime, _):
        await runtime.tell("go")
        await until(lambda: actor.seen == ["go", "tick"])
        await until(lambda: network.told == [(KEY.address, "progress", b"1%")])


async def test_a_question_is_answered_after_it_is_written(tmp_path: Path) -> None:
    """The answer can name the event that is said with it, and the store has the row when the answer is out."""
    actor = Script(lambda message: done(say("gift"), AnswerSaid("gift", lambda said: said.event.encode())))
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        answer = await runtime.ask("who?")
        row = await runtime.store.find("gift")
        assert row is not None
        assert answer == row.id.encode()


async def test_a_question_without_an_answer_is_a_fault(tmp_path: Path) -> None:
    """A decision that forgets to answer stops the actor instead of leaving somebody waiting."""
    async with running(Script(), SmallNetwork(), tmp_path) as (runtime, task):
        with pytest.raises(Unreachable, match="stopping"):
            await runtime.ask("who?")
        with pytest.raises(AssertionError, match="0 answers"):
            await task


async def test_a_stopping_actor_turns_questions_away(tmp_path: Path) -> None:
    """Whoever waits for an answer is told that the actor stops, before and after."""
    actor = Script(lambda message: AgainLater(60_000, "busy"))
    async with running(actor, SmallNetwork(), tmp_path) as (runtime, _):
        question = asyncio.create_task(runtime.ask("who?"))
        await until(lambda: actor.seen)
    with pytest.raises(Unreachable, match="stopping"):
        await question
    with pytest.raises(Unreachable, match="stopping"):
        await runtime.ask("who?")


async def test_a_source_starts_again_where_the_actor_is(tmp_path: Path) -> None:
    """After an error of the bus the source is called again and finds the position that was reached."""
    starts: list[int] = []

    async def source(runtime: Runtime) -> None:
        starts.append(runtime.position("list"))
        if len(starts) == 1:
            await runtime.tell("one", Position("list", 1))
            await until(lambda: runtime.position("list") == 1)
            raise Unreachable("away")
        await asyncio.Event().wait()

    async with running(Script(), SmallNetwork(), tmp_path, (source,)):
        await until(lambda: len(starts) == 2)
    assert starts == [0, 1]


async def test_a_source_on_the_wrong_network_ends_the_run(tmp_path: Path) -> None:
    """What another try cannot mend is raised."""

    async def source(runtime: Runtime) -> None:
        raise WrongNetwork("another genesis")

    async with running(Script(), SmallNetwork(), tmp_path, (source,)) as (_, task):
        with pytest.raises(WrongNetwork):
            await task


async def test_the_feed_is_read_on_after_a_restart(tmp_path: Path) -> None:
    """What was read is not read again; bytes that are no feed message are buried, not fatal."""
    network = SmallNetwork()
    nested = b'{"chain":"testnet","entries":[{"event":' + b"[" * 100_000
    network.feeds[KEY.address] = [b"garbage", b'{"chain":"\xff"}', nested]
    heights: list[object] = []
    for height in (1, 2):
        async with running(Script(lambda message: heights.append(message.height) or Done()), network, tmp_path):
            network.height = height
            network.feed(KEY.address, [_gift_of(FRIEND_KEY)])
            await until(lambda height=height: height in heights)
    assert heights == [1, 2]
    store = await stored(tmp_path)
    assert [letter.code for letter in await store.dead_letters()] == ["UNREADABLE"] * 3
    await store.close()


FRIEND_KEY = Key(b"f" * 32)


def _gift_of(key: Key, nonce: int = 0, to: str = KEY.address) -> SignedEvent:
    return sign(TransferSent(chain="testnet", sender=key.address, nonce=nonce, gas_price=1, to=to, amount=1), key)


async def test_a_nonce_that_another_process_took_is_given_up(tmp_path: Path) -> None:
    """Two with one key: what lost its nonce is signed anew and gets into a later block, once."""
    network = SmallNetwork()
    actor = Script(lambda message: done(say("gift")) if message == "go" else Done())
    async with running(actor, network, tmp_path) as (runtime, _):
        network.on_submit = lambda signed: network.inbox.insert(0, _gift_of(KEY, to=FRIEND))
        await runtime.tell("go")
        await until(lambda: len(network.inbox) == 2)
        network.on_submit = lambda signed: None
        network.close_block()
        await until(lambda: network.inbox)
        network.close_block()
        await until(lambda: any(isinstance(message, Heard) for message in actor.seen))
    assert [signed.event.nonce for signed in network.ledger] == [0, 1]


_TAKEN = _gift_of(KEY, to=FRIEND)
_ELSEWHERE = sign(TransferSent(chain="mainnet", sender=KEY.address, nonce=0, gas_price=1, to=FRIEND, amount=1), KEY)


@pytest.mark.parametrize(
    "shown",
    [wrap(_TAKEN.body_bytes, _gift_of(FRIEND_KEY).sig), _ELSEWHERE.raw],
    ids=["forged signature", "another chain"],
)
async def test_a_feed_cannot_pretend_that_a_nonce_is_used(tmp_path: Path, shown: bytes) -> None:
    """Neither a forged event nor one that the key has signed elsewhere makes an actor say the same thing twice."""
    network = SmallNetwork()
    actor = Script(lambda message: done(say("gift")) if message == "go" else Done())
    entry = FeedEntry(index=0, outcome=Applied(event="e" * 64, fee=1_000), event=Raw(shown))
    async with running(actor, network, tmp_path) as (runtime, _):
        await runtime.tell("go")
        await until(lambda: network.inbox)
        await runtime.tell(FeedMessage(chain="testnet", height=1, block="b" * 64, time_ms=1, entries=(entry,)))
        await runtime.tell("next")
        await until(lambda: "next" in actor.seen)
        said = await runtime.find("gift")
        assert said is not None
        assert (said.event, said.nonce) == (network.inbox[0].id, 0)


async def test_a_feed_message_from_the_far_future_hides_no_other(tmp_path: Path) -> None:
    """Each message counts once, whatever heights those before it have claimed."""
    network, actor = SmallNetwork(), Script()
    entry = FeedEntry(index=0, outcome=Applied(event="e" * 64, fee=0), event=Raw(_gift_of(FRIEND_KEY).raw))
    early, late = (
        FeedMessage(chain="testnet", height=height, block="b" * 64, time_ms=1, entries=(entry,))
        for height in (1, 2**53 - 1)
    )
    network.feeds[KEY.address] = [canonical(late), canonical(early), canonical(early), canonical(late)]
    async with running(actor, network, tmp_path) as (runtime, _):
        await until(lambda: early in actor.seen)
        network.feeds[KEY.address].append(b"the end")
        await until(lambda: runtime.position("feed") == 5)
    assert actor.seen == [late, early]


async def test_without_a_feed_the_ledger_is_asked(tmp_path: Path) -> None:
    """An event that is final, but that no feed tells of, is found by asking."""
    network = SmallNetwork()
    network.feeding = False
    actor = Script(lambda message: done(say("gift")) if message == "go" else Done())
    async with running(actor, network, tmp_path) as (runtime, _):
        await runtime.tell("go")
        await until(lambda: network.inbox)
        network.close_block()
        network.refuse(KEY.address, network.ledger[0].id, NonceTooLow(expected=1, found=0))
        await until(lambda: any(isinstance(message, Heard) for message in actor.seen))
        assert any(isinstance(message, TurnedAway) for message in actor.seen)


async def test_it_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    """What is said while nothing can be sent goes out when the server is back."""
    network = SmallNetwork()
    actor = Script(lambda message: done(say("gift"), Answer(b"said")) if message == "go" else Done())
    async with running(actor, network, tmp_path) as (runtime, _):
        network.reachable = False
        assert await runtime.ask("go") == b"said"
        assert network.inbox == []
        network.reachable = True
        await until(lambda: network.inbox)


class Crash(BaseException):
    """The process dies here."""


CRASHES = ("before commit", "after commit", "before submit", "after submit")


@pytest.mark.parametrize("place", CRASHES)
@pytest.mark.parametrize("time", range(6))
async def test_a_crash_at_any_step_loses_nothing_and_says_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, time: int
) -> None:
    """Killed at the n-th commit or submit, before or after it, and started again, the ledger has each gift once."""
    network = SmallNetwork()
    keys = ["a", "b", "c", "d"]
    ids: dict[str, str] = {}
    count = 0
    commit = Store.commit

    def here(step: str) -> None:
        nonlocal count
        if step == place:
            count += 1
            if count == time + 1:
                raise Crash

    async def commit_or_crash(store: Store, batch: Batch) -> None:
        here("before commit")
        await commit(store, batch)
        for row in batch.outbox:
            assert ids.setdefault(row.key, row.id) == row.id
        here("after commit")

    submit = network.submit

    async def submit_or_crash(owner: str, data: bytes) -> None:
        here("before submit")
        await submit(owner, data)
        here("after submit")

    monkeypatch.setattr(Store, "commit", commit_or_crash)
    monkeypatch.setattr(network, "submit", submit_or_crash)

    async def list_of_wishes(runtime: Runtime) -> None:
        for number in range(runtime.position("wishes"), len(keys)):
            await runtime.tell(keys[number], Position("wishes", number + 1))
            await until(lambda number=number: runtime.position("wishes") > number)
        await asyncio.Event().wait()

    finished: set[str] = set()
    while finished != set(keys):
        actor = Script(lambda message: done(say(message)) if isinstance(message, str) else Done())
        async with running(actor, network, tmp_path, (list_of_wishes,)) as (_, task):
            while finished != set(keys) and not task.done():
                await asyncio.sleep(0.002)
                network.close_block()
                finished |= {message.key for message in actor.seen if isinstance(message, Heard)}
    assert sorted(signed.id for signed in network.ledger) == sorted(ids.values())
    assert len(network.ledger) == len(keys)


async def test_the_mailbox_is_bounded() -> None:
    """Whoever puts into a full mailbox waits for room; closing lets everybody go."""
    mailbox: Mailbox[int] = Mailbox(2)
    assert await mailbox.put(1)
    assert await mailbox.put(2)
    third = asyncio.create_task(mailbox.put(3))
    await asyncio.sleep(0)
    assert not third.done()
    assert await mailbox.take(1) == [1]
    assert await third
    assert await mailbox.take(9) == [2, 3]
    waiting = asyncio.create_task(mailbox.take(1))
    await asyncio.sleep(0)
    mailbox.close()
    assert await waiting == []
    assert not await mailbox.put(4)


@pytest.mark.parametrize("error", [Unreachable("away"), TimedOut("slow"), KeyError("fault")])
async def test_supervision_starts_again(error: Exception) -> None:
    """After errors of the bus and faults of the code the actor runs again, until it ends in good order."""
    runs = 0

    async def run(stop: asyncio.Event) -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise error

    await supervise("actor", run, asyncio.Event(), FastClock())
    assert runs == 4


@pytest.mark.parametrize(
    "error", [AssertionError("broken"), Divergence(1, "x"), WrongNetwork("other"), NotAllowed("no"), BadInput("bad")]
)
async def test_supervision_gives_up_what_it_cannot_mend(error: Exception) -> None:
    """Broken invariants, wrong logs and wrong settings are raised at once."""

    async def run(stop: asyncio.Event) -> None:
        raise error

    with pytest.raises(type(error)):
        await supervise("actor", run, asyncio.Event(), FastClock())


async def test_supervision_ends_while_it_waits() -> None:
    """A stop during the delay before the next start is obeyed at once."""
    stop = asyncio.Event()

    async def run(stop: asyncio.Event) -> None:
        asyncio.get_running_loop().call_soon(stop.set)
        raise BusError("away")

    class Still(FastClock):
        async def sleep_ms(self, duration_ms: int) -> None:
            await asyncio.Event().wait()

    await asyncio.wait_for(supervise("actor", run, stop, Still()), 5)
    assert stop.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_stop_within_two_seconds(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the run in good order, also while an effect is under way."""

    async def effect() -> object:
        await asyncio.Event().wait()
        return None

    actor = Script(lambda message: done(Start("long", effect)))
    network: Bus = SmallNetwork()
    with stop_on_signals() as stop:
        async with await stored(tmp_path) as store:
            runtime = await Runtime.start(actor, store, network, FastClock())
            task = asyncio.create_task(runtime.run(stop))
            await runtime.tell("go")
            await until(lambda: actor.seen)
            os.kill(os.getpid(), number)
            await asyncio.wait_for(task, 2)
    assert stop.is_set()
    assert canonical(actor.seen) == b'["go"]'
