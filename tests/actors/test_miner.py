"""The miner's decisions: given its tasks, when a feed or an effect speaks, then this is said, kept or started."""

from collections.abc import Callable

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from actors.backends.cpu import CpuBackend
from actors.decision import Decision, EffectFailed, Keep, Later, NeverAgain, Start, TurnedAway
from actors.fetching import HostFault
from actors.miner import (
    AGAIN_MS,
    MOST_TASKS,
    Computed,
    Delivered,
    Described,
    GoOn,
    Impossible,
    LookAgain,
    LookedUp,
    Miner,
    Registration,
    Task,
)
from events.envelope import sign
from events.errors import BlobMismatch, Refused, TimedOut, Unreachable
from events.receipts import receipt_signature_holds
from projections.receipts import receipt_of
from schemas.blocks import Applied, Failed
from schemas.events import JobAssigned, JobFailed, Offer
from schemas.refusals import Malformed
from schemas.state import Assigned, Job
from tests.actors.decisions import Kept, cancelled, feed_of, heard, only, said, started
from tests.projections.small_network import SmallNetwork, digest_of, key_of

NOW_MS = 5_000_000
STAGES = ("assigned", "described", "computed", "committed")
REGISTRATION = Registration(
    name="miner 0", capacity=2, devices=CpuBackend().devices(), offers=(Offer(service="matmul.int8", unit_price=100),)
)


class Worker:
    """Its effects are started by name; nothing runs."""

    async def look_up(self, height: int) -> LookedUp:
        raise AssertionError

    async def describe(self, job_id: str, height: int) -> Described:
        raise AssertionError

    async def compute(self, job_id: str, job: Job) -> Computed | Impossible:
        raise AssertionError

    async def deliver(self, job_id: str, result: str) -> Delivered:
        raise AssertionError

    async def forget(self, job_id: str) -> None:
        raise AssertionError

    async def sweep(self, unfinished: frozenset[str]) -> None:
        raise AssertionError


class Desk:
    """``miner 0`` in a network that the test moves on."""

    def __init__(self) -> None:
        self.network = SmallNetwork()
        self.network.block(*(self.network.register(name) for name in ("miner 0", "miner 1")))
        self.kept = Kept()
        self.start()

    def start(self, registration: Registration = REGISTRATION) -> Decision:
        self.miner = Miner(key_of("miner 0"), self.network.genesis.chain, registration, Worker())
        return self.kept.take(self.miner.begin(self.kept.rows, NOW_MS))

    def tell(self, message: object) -> Decision:
        return self.kept.take(self.miner.decide(message, NOW_MS))

    def assigned(self) -> tuple[str, Decision]:
        """A job of this miner, and what it does when its feed says so."""
        submitted = self.network.submit()
        self.network.block(submitted)
        event = self.network.assign(submitted.id)
        return submitted.id, self.tell(feed_of(self.network.block(event), [event]))

    def job(self, job_id: str) -> Job:
        job = self.network.chain.state.job(job_id)
        assert job is not None
        return job

    def described(self, job_id: str) -> Decision:
        return self.tell(Described(job_id, self.job(job_id)))

    def computed(self, job_id: str) -> Decision:
        return self.tell(Computed(job_id, digest_of(f"root {job_id}"), digest_of(f"result {job_id}"), 40_128))

    def committed(self, job_id: str) -> Decision:
        event = self.network.commit(job_id)
        return self.tell(feed_of(self.network.block(event), [event]))

    def at(self, stage: str) -> str:
        """A job that has come so far."""
        job_id, _ = self.assigned()
        for name in STAGES[1 : STAGES.index(stage) + 1]:
            getattr(self, name)(job_id)
        return job_id


def test_a_job_goes_from_assignment_to_revelation() -> None:
    """Described by a node, computed, committed to, delivered, revealed with the receipt that the rules derive."""
    desk = Desk()
    job_id, decision = desk.assigned()
    assert started(decision) == [f"describe/{job_id}"]
    assert started(desk.described(job_id)) == [f"compute/{job_id}"]
    ((key, fields),) = said(desk.computed(job_id))
    assert key == f"commit/{job_id}"
    assert fields["root"] == digest_of(f"root {job_id}")
    assert started(desk.committed(job_id)) == [f"deliver/{job_id}"]
    ((key, fields),) = said(desk.tell(Delivered(job_id)))
    assert key == f"reveal/{job_id}"
    receipt = receipt_of(job_id, desk.job(job_id), desk.network.genesis.chain)
    assert receipt_signature_holds(receipt, key_of("miner 0").address, fields["receipt_sig"])
    desk.network.block(desk.network.reveal(job_id))
    settled = desk.network.settle(job_id)
    ended = desk.tell(feed_of(desk.network.block(settled), [settled]))
    assert started(ended) == [f"forget/{job_id}"]
    assert list(desk.kept.rows) == ["registration"]


@pytest.mark.parametrize(
    ("stage", "does"),
    [("assigned", "describe"), ("described", "compute"), ("computed", "commit"), ("committed", "deliver")],
)
def test_after_a_crash_each_task_goes_on_at_its_stage(stage: str, does: str) -> None:
    """From the kept rows alone; what was said is said under the same key."""
    desk = Desk()
    job_id = desk.at(stage)
    decision = desk.start()
    assert [*started(decision)[1:], *[key for key, _ in said(decision)]] == [f"{does}/{job_id}"]
    assert started(decision)[0] == "sweep"


def test_messages_that_come_again_change_nothing() -> None:
    """A feed is read again after a crash: each message of the past finds the task where it is."""
    desk = Desk()
    submitted = desk.network.submit()
    desk.network.block(submitted)
    assigned = desk.network.assign(submitted.id)
    first = feed_of(desk.network.block(assigned), [assigned])
    desk.tell(first)
    desk.described(submitted.id)
    assert started(desk.tell(first)) == []
    desk.computed(submitted.id)
    assert said(desk.computed(submitted.id)) == []
    commit = desk.network.commit(submitted.id)
    second = feed_of(desk.network.block(commit), [commit])
    desk.tell(second)
    for message in (first, second, Described(submitted.id, desk.job(submitted.id))):
        again = desk.tell(message)
        assert (started(again), said(again)) == ([], [])


def test_a_changed_registration_is_said_anew_and_an_unchanged_one_is_not() -> None:
    """From A to B and back to A it is said three times; two starts with the same one say it once."""
    dear = Registration(
        name="miner 0", capacity=2, devices=REGISTRATION.devices, offers=(Offer(service="matmul.int8", unit_price=999),)
    )
    desk = Desk()
    keys = []
    for registration in (REGISTRATION, dear, dear, REGISTRATION, REGISTRATION):
        keys += [(key, fields["offers"][0]["unit_price"]) for key, fields in said(desk.start(registration))]
    assert keys == [("register/2", 999), ("register/3", 100)]
    assert [key for key, _ in said(Desk().start())] == []


def registered(desk: Desk, **changes: object) -> Decision:
    """The registration that was said is in a block; then the ledger comes to have it with these changes, and the miner
    starts again."""
    event = desk.network.register("miner 0")
    desk.tell(heard(desk.network.block(event), event, "register/1"))
    looking = desk.start()
    assert started(looking)[:2] == ["sweep", "look-up"]
    assert said(looking) == []
    return desk.tell(LookedUp(replace(REGISTRATION, **changes)))


def test_a_miner_that_was_retired_registers_anew_when_it_starts() -> None:
    """Its owner has said capacity 0 with the same key: the next start finds it in the ledger, and says once what the
    settings say."""
    desk = Desk()
    again = registered(desk, capacity=0)
    ((key, fields),) = said(again)
    assert (key, fields["capacity"]) == ("register/2", REGISTRATION.capacity)
    assert said(desk.tell(LookedUp(replace(REGISTRATION, capacity=0)))) == []
    restarted = desk.start()
    assert (started(restarted), said(restarted)) == (["sweep"], [])


def test_a_registration_that_stands_is_not_said_again() -> None:
    """Not at a start, and not when it is retired while it runs."""
    desk = Desk()
    assert said(registered(desk)) == []
    assert said(desk.tell(LookedUp(replace(REGISTRATION, capacity=0)))) == []
    assert started(desk.tell(LookAgain())) == []


def test_a_node_that_has_not_heard_of_the_retirement_is_not_believed() -> None:
    """The owner retires the miner while it runs: the next start asks from that block on, not from its own word's."""
    desk = Desk()
    event = desk.network.register("miner 0")
    own = desk.network.block(event)
    desk.tell(feed_of(own, [event]))
    desk.tell(heard(own, event, "register/1"))
    retiring = desk.network.register("miner 0", capacity=0)
    retired = desk.network.block(retiring)
    desk.tell(feed_of(retired, [retiring]))
    desk.tell(feed_of(own, [event]))
    assert retired.header.height > own.header.height
    look_up = next(start for start in only(desk.start(), Start) if start.name == "look-up")
    assert getattr(look_up.run, "args", None) == (retired.header.height,)


def test_a_miner_that_cannot_look_itself_up_tries_again() -> None:
    """With the next look at what the feed may have lost, until a node has answered; settings that have changed are said
    at once instead."""
    desk = Desk()
    event = desk.network.register("miner 0")
    desk.tell(heard(desk.network.block(event), event, "register/1"))
    desk.start()
    failing = desk.tell(EffectFailed("look-up", Unreachable("away")))
    assert (started(failing), said(failing)) == ([], [])
    assert started(desk.tell(LookAgain())) == ["look-up"]
    assert started(desk.start(replace(REGISTRATION, capacity=1))) == ["sweep"]


def test_a_registration_that_failed_is_said_again_at_the_next_start() -> None:
    """It is kept among the dead letters until somebody mends what is wrong."""
    desk = Desk()
    network = desk.network
    event = network.submit("miner 0", escrow=10**15)
    decision = desk.tell(heard(network.block(event), event, "register/1"))
    assert isinstance(decision, NeverAgain)
    assert [key for key, _ in said(desk.start())] == ["register/2"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_ends_stops_everything_that_is_done_for_it(stage: str) -> None:
    """A missed deadline, at any stage: the effects are cancelled, the files go, the row is dropped."""
    desk = Desk()
    job_id = desk.at(stage)
    situation = desk.job(job_id).situation
    final = desk.network.block(time_ms=situation.deadline_ms)
    ended = desk.tell(feed_of(final, timers=[job_id]))
    assert cancelled(ended) == [f"describe/{job_id}", f"compute/{job_id}", f"deliver/{job_id}"]
    assert started(ended) == [f"forget/{job_id}"]
    assert list(desk.kept.rows) == ["registration"]
    for late in (Described(job_id, desk.job(job_id)), Computed(job_id, "", "", 0), Delivered(job_id), GoOn(job_id)):
        decision = desk.tell(late)
        assert (started(decision), said(decision)) == ([], [])


@pytest.mark.parametrize("reason", ["BAD_INPUT", "BLOB_UNAVAILABLE", "MINER_FAILED"])
def test_what_cannot_be_done_is_given_up_at_once(reason: str) -> None:
    """So that the job goes to another miner before the deadline."""
    desk = Desk()
    job_id = desk.at("described")
    decision = desk.tell(Impossible(job_id, reason))
    fields = {"job": job_id, "miner": key_of("miner 0").address, "reason": reason, "type": "job.failed"}
    assert said(decision) == [(f"give-up/{job_id}", fields)]
    assert started(decision) == [f"forget/{job_id}"]
    assert list(desk.kept.rows) == ["registration"]


@pytest.mark.parametrize(
    ("stage", "effect", "error"),
    [
        ("assigned", "describe", Unreachable("away")),
        ("assigned", "describe", TimedOut("late")),
        ("described", "compute", Unreachable("away")),
        ("described", "compute", TimedOut("late")),
        ("committed", "deliver", Unreachable("away")),
        ("committed", "deliver", BlobMismatch("changed on disk")),
    ],
)
def test_trouble_with_the_network_is_not_the_jobs_end(stage: str, effect: str, error: Exception) -> None:
    """The effect is tried again after a while, for as long as the job is this miner's."""
    desk = Desk()
    job_id = desk.at(stage)
    failing = desk.tell(EffectFailed(f"{effect}/{job_id}", error))
    assert (said(failing), started(failing)) == ([], [])
    (later,) = only(failing, Later)
    assert later.delay_ms == AGAIN_MS
    assert started(desk.tell(later.message)) == [f"{effect}/{job_id}"]


def test_a_host_that_cannot_compute_gives_the_job_up() -> None:
    """Its disk is full: no other try here would help before the deadline."""
    desk = Desk()
    job_id = desk.at("described")
    decision = desk.tell(EffectFailed(f"compute/{job_id}", HostFault("disk full")))
    assert isinstance(decision, NeverAgain)
    assert [key for key, _ in said(decision)] == [f"give-up/{job_id}"]


@pytest.mark.parametrize("verb", ["commit", "reveal"])
def test_a_word_that_did_nothing_ends_the_task(verb: str) -> None:
    """The job had moved on; the reason is kept."""
    desk = Desk()
    job_id = desk.at("committed")
    event = desk.network.commit(job_id)
    hears = heard(desk.network.block(event), event, f"{verb}/{job_id}")
    assert isinstance(hears.outcome, Failed)
    decision = desk.tell(hears)
    assert isinstance(decision, NeverAgain)
    assert started(decision) == [f"forget/{job_id}"]


def test_a_word_that_was_turned_away_for_good_is_kept_with_its_reason() -> None:
    """Hearsay alone is not."""
    desk = Desk()
    refusal = Malformed(detail="")
    assert isinstance(desk.tell(TurnedAway("commit/x", "0" * 64, refusal, given_up=True)), NeverAgain)
    assert only(desk.tell(TurnedAway("commit/x", "0" * 64, refusal, given_up=False)), Keep) == []


def _with(job: Job, **changes: object) -> Job:
    situation = job.situation
    assert isinstance(situation, Assigned)
    assignment = replace(situation.assignment, **changes)
    return replace(job, situation=replace(situation, assignment=assignment))


@pytest.mark.parametrize(
    "change",
    [
        lambda job: _with(job, price=1),
        lambda job: _with(job, miner=key_of("miner 1").address),
        lambda job: _with(job, assigned_height=99),
    ],
)
def test_a_description_that_does_not_fit_the_feed_is_not_worked_on(change: Callable[[Job], Job]) -> None:
    """The job has moved on, or the node tells something else than the coordinator signed."""
    desk = Desk()
    job_id, _ = desk.assigned()
    decision = desk.tell(Described(job_id, change(desk.job(job_id))))
    assert started(decision) == [f"forget/{job_id}"]


@pytest.mark.parametrize("stage", STAGES)
def test_what_the_feed_has_lost_a_node_tells(stage: str) -> None:
    """Tasks that wait for the feed are asked about now and then; one whose job has moved on ends."""
    desk = Desk()
    job_id = desk.at(stage)
    decision = desk.tell(LookAgain())
    if stage in {"assigned", "described"}:
        assert started(decision) == []
        return
    assert started(decision) == [f"look/{job_id}"]
    again = desk.tell(EffectFailed(f"look/{job_id}", TimedOut("no node has reached block 2")))
    assert (started(again), said(again)) == ([], [])
    assert started(desk.described(job_id)) == []
    if stage == "computed":
        desk.network.block(desk.network.commit(job_id))
        assert started(desk.described(job_id)) == [f"deliver/{job_id}"]
    desk.network.block(desk.network.reveal(job_id))
    assert started(desk.described(job_id)) == []
    desk.network.block(desk.network.settle(job_id))
    assert started(desk.described(job_id)) == [f"forget/{job_id}"]
    assert list(desk.kept.rows) == ["registration"]


def test_what_concerns_others_is_passed_over() -> None:
    """Another miner's assignment, its failure, and an assignment that itself has failed are nothing to do."""
    desk = Desk()
    job_id = desk.at("described")
    network = desk.network
    other = network.submit()
    network.block(other)
    events = [network.assign(other.id, "miner 1"), network.assign(job_id)]
    final = network.block(*events)
    decision = desk.tell(feed_of(final, events))
    assert (started(decision), said(decision)) == ([], [])
    failed = network.say("miner 1", JobFailed, job=other.id, miner=key_of("miner 1").address, reason="MINER_FAILED")
    final = network.block(failed)
    message = feed_of(final, [failed])
    decision = desk.tell(message)
    assert (started(decision), said(decision)) == ([], [])


def test_a_forged_feed_is_refused() -> None:
    """An assignment whose signature is not its sender's raises, which the runtime keeps as a dead letter."""
    desk = Desk()
    submitted = desk.network.submit()
    desk.network.block(submitted)
    event = desk.network.assign(submitted.id)
    message = feed_of(desk.network.block(event), [event])
    forged = Raw(event.raw.replace(event.sig.encode(), b"A" * 86))
    with pytest.raises(Refused):
        desk.tell(replace(message, entries=(replace(message.entries[0], event=forged),)))


def test_a_feed_that_never_ends_does_not_fill_the_miner() -> None:
    """More jobs than any miner can have at once are not believed."""
    desk = Desk()
    coordinator = key_of("coordinator")
    submitted = desk.network.submit()
    desk.network.block(submitted)
    event = desk.network.assign(submitted.id)
    message = feed_of(desk.network.block(event), [event])
    known = dict.fromkeys(f"{number:064x}" for number in range(MOST_TASKS))
    desk.miner._tasks = dict.fromkeys(known)  # type: ignore[arg-type]
    body = event.event
    assert isinstance(body, JobAssigned)
    more = sign(replace(body, job="f" * 64), coordinator)
    entry = replace(message.entries[0], event=Raw(more.raw), outcome=Applied(event=more.id, fee=0))
    assert started(desk.tell(replace(message, entries=(entry,)))) == []
    assert len(desk.miner._tasks) == MOST_TASKS


def test_a_task_is_kept_as_it_is() -> None:
    """A row reads back as it was written, with what is unset left out."""
    desk = Desk()
    job_id = desk.at("computed")
    task = msgspec.json.decode(desk.kept.rows[f"task/{job_id}"], type=Task)
    assert task == desk.miner._tasks[job_id]
