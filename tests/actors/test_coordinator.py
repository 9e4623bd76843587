"""The coordinator's decisions: given a ledger, when something is heard, then this is said or started."""

from collections.abc import Callable

import msgspec
import pytest

from actors.coordinator import (
    AGAIN_MS,
    CHECKS_AT_ONCE,
    CHECKS_PER_OWNER,
    TAKE_OVER_MS,
    VERDICTS_PER_MINER,
    Coordinator,
    InputsChecked,
    Judged,
    Tick,
)
from actors.decision import Decision, EffectFailed, Say, TurnedAway
from actors.fetching import HostFault
from events.canonical import digest
from events.errors import BlobUnavailable, TimedOut, Unreachable
from events.receipts import receipt_signature_holds
from projections.receipts import receipt_of
from schemas.blocks import Failed
from schemas.events import JobCancelled, JobFailed, JobSubmitted, Requirement
from schemas.genesis import Genesis
from schemas.refusals import Malformed
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix
from schemas.state import Open, Refunded, Settled
from tests.actors.decisions import Kept, cancelled, heard, only, said, signed_by, started
from tests.projections.small_network import SmallNetwork, digest_of, key_of, make_genesis

KEY = key_of("coordinator")
NOW_MS = 5_000_000


class Examiner:
    """Its effects are started by name; nothing runs."""

    async def check_inputs(self, job_id: str, job: object) -> InputsChecked:
        raise AssertionError

    async def judge(self, job_id: str, job: object) -> Judged:
        raise AssertionError

    async def forget(self, job_id: str) -> None:
        raise AssertionError

    async def sweep(self, unfinished: frozenset[str]) -> None:
        raise AssertionError


class Desk:
    """A coordinator over a ledger that the test moves on."""

    def __init__(self, genesis: Genesis | None = None, name: str = "coordinator") -> None:
        self.network = SmallNetwork(genesis)
        self.kept = Kept()
        self.name = name
        self.key = key_of(name)
        self.now_ms = NOW_MS
        self.coordinator = self._new()
        self.begin()

    def _new(self) -> Coordinator:
        state = self.network.chain
        return Coordinator(self.key, self.network.genesis.chain, lambda: state.state, Examiner())

    def begin(self) -> Decision:
        return self.kept.take(self.coordinator.begin(self.kept.rows, self.now_ms))

    def restart(self) -> Decision:
        self.coordinator = self._new()
        return self.begin()

    def tell(self, message: object) -> Decision:
        return self.kept.take(self.coordinator.decide(message, self.now_ms))

    def tick(self, after_ms: int = 0) -> Decision:
        self.now_ms += after_ms
        return self.tell(Tick())

    def register(self, *names: str, capacity: int = 4) -> None:
        self.network.block(*(self.network.register(name, capacity) for name in names))

    def submit(self, owner: str = "alice", *, blobs: bool = False, number: int = 1) -> list[str]:
        """Jobs in one block."""
        events = []
        for _ in range(number):
            seed = SeededMatrix(rows=10, columns=10, seed=digest_of("b"))
            a = BlobMatrix(rows=10, columns=10, digest=digest_of("blob")) if blobs else seed
            fields = {"escrow": 1_000, "timeout_ms": 10_000, "lifetime_ms": 60_000}
            requirement = Requirement(memory_mib=0)
            work = MatmulInt8(a=a, b=seed)
            events.append(self.network.say(owner, JobSubmitted, work=work, requirement=requirement, **fields))
        self.network.block(*events)
        return [signed.id for signed in events]

    def include(self, decision: Decision) -> Decision:
        """Puts the one thing that is said into a block, and tells its speaker."""
        (say,) = only(decision, Say)
        signed = signed_by(self.network, self.name, self.key, say)
        final = self.network.block(signed)
        return self.tell(heard(final, signed, say.key))

    def reveal(self, job_id: str, miner: str = "miner 0") -> None:
        self.network.block(self.network.commit(job_id, miner))
        self.network.block(self.network.reveal(job_id, miner))

    def revealed(self, miner: str = "miner 0") -> str:
        """A job whose result is revealed, with the coordinator idle."""
        (job_id,) = self.submit()
        self.include(self.tick())
        self.reveal(job_id, miner)
        return job_id

    def judged(self, job_id: str, reason: str = "", miner: str = "miner 0") -> Judged:
        return Judged(job_id, key_of(miner).address, digest_of(f"root {job_id}"), reason)


def test_an_open_job_is_assigned_to_a_free_miner() -> None:
    """At the miner's price, under a key that names the job and the try; and not twice."""
    desk = Desk()
    assert said(desk.tick()) == []
    desk.register("miner 0")
    (job_id,) = desk.submit()
    decision = desk.tick()
    fields = {"job": job_id, "miner": key_of("miner 0").address, "price": 100, "type": "job.assigned"}
    assert said(decision) == [(f"assign/{job_id}/0", fields)]
    assert said(desk.tick()) == []
    assert said(desk.include(decision)) == []
    assert list(desk.kept.rows) == [f"case/{job_id}"]


def test_what_is_assigned_but_not_in_a_block_yet_takes_a_place() -> None:
    """Three jobs, two miners with one place each: two are assigned, to different miners, the third waits."""
    desk = Desk()
    desk.register("miner 0", "miner 1", capacity=1)
    desk.submit(number=3)
    first = said(desk.tick())
    assert len({fields["miner"] for _, fields in first}) == len(first) == 2
    assert said(desk.tick(10_000)) == []


def test_after_a_restart_nothing_is_said_again() -> None:
    """What was said and not heard of is known from the kept rows; what was heard of goes on with the next number."""
    desk = Desk()
    desk.register("miner 0")
    (job_id,) = desk.submit()
    decision = desk.tick()
    again = desk.restart()
    assert (said(again), started(again)) == ([], ["sweep"])
    desk.include(decision)
    desk.reveal(job_id)
    assert started(desk.restart()) == ["sweep", f"judge/{job_id}/{key_of('miner 0').address}"]
    ((key, _),) = said(desk.tell(desk.judged(job_id)))
    assert key == f"settle/{job_id}/1"


def test_what_was_said_in_vain_is_decided_anew_after_a_while() -> None:
    """Another coordinator was quicker with the only place: later, the job gets another try under another key."""
    desk = Desk()
    desk.register("miner 0", capacity=1)
    mine, other = desk.submit(number=2)
    (say,) = only(desk.tick(), Say)
    desk.network.block(desk.network.assign(other if mine in say.key else mine))
    signed = signed_by(desk.network, desk.name, desk.key, say)
    final = desk.network.block(signed)
    hears = heard(final, signed, say.key)
    assert isinstance(hears.outcome, Failed)
    assert said(desk.tell(hears)) == []
    desk.register("miner 1")
    assert said(desk.tick()) == []
    ((key, _),) = said(desk.tick(AGAIN_MS))
    assert key == say.key[:-1] + "1"


def test_what_can_never_be_included_is_given_up() -> None:
    """When our own check agrees with a refusal, the job is looked at again, under another key."""
    desk = Desk()
    desk.register("miner 0")
    (job_id,) = desk.submit()
    ((key, _),) = said(desk.tick())
    assert said(desk.tell(TurnedAway(key, "0" * 64, Malformed(detail=""), given_up=False))) == []
    assert said(desk.tick(60_000)) == []
    desk.tell(TurnedAway(key, "0" * 64, Malformed(detail=""), given_up=True))
    ((key, _),) = said(desk.tick(AGAIN_MS))
    assert key == f"assign/{job_id}/1"


def test_inputs_are_fetched_and_read_before_a_miner_gets_the_job() -> None:
    """And only when there is a miner that could have it."""
    desk = Desk()
    (job_id,) = desk.submit(blobs=True)
    assert started(desk.tick()) == []
    desk.register("miner 0")
    assert started(desk.tick()) == [f"inputs/{job_id}"]
    assert started(desk.tick()) == []
    ((key, _),) = said(desk.tell(InputsChecked(job_id)))
    assert key == f"assign/{job_id}/0"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (lambda job_id: InputsChecked(job_id, "BAD_INPUT"), "BAD_INPUT"),
        (lambda job_id: EffectFailed(f"inputs/{job_id}", BlobUnavailable("nothing there")), "BLOB_UNAVAILABLE"),
    ],
)
def test_a_job_with_unusable_inputs_is_refunded(message: Callable[[str], object], reason: str) -> None:
    """With the reason; no miner ever sees it."""
    desk = Desk()
    desk.register("miner 0")
    (job_id,) = desk.submit(blobs=True)
    desk.tick()
    decision = desk.tell(message(job_id))
    assert said(decision) == [(f"refund/{job_id}/0", {"job": job_id, "reason": reason, "type": "job.refunded"})]
    closing = desk.include(decision)
    assert started(closing) == [f"forget/{job_id}"]
    job = desk.network.chain.state.job(job_id)
    assert job is not None
    assert isinstance(job.situation, Refunded)


@pytest.mark.parametrize("error", [Unreachable("away"), TimedOut("late"), HostFault("disk full")])
def test_an_effect_that_fails_is_tried_again_after_a_while(error: Exception) -> None:
    """However often it fails, never at once, and the job itself is not blamed."""
    desk = Desk()
    desk.register("miner 0")
    (job_id,) = desk.submit(blobs=True)
    name = f"inputs/{job_id}"
    assert started(desk.tick()) == [name]
    for _ in range(5):
        failing = desk.tell(EffectFailed(name, error))
        assert (said(failing), started(failing)) == ([], [])
        assert started(desk.tick(AGAIN_MS - 1)) == []
        assert started(desk.tick(1)) == [name]


def test_one_owner_cannot_take_all_places_for_fetching() -> None:
    """Somebody's missing blobs keep others waiting no longer than their own."""
    desk = Desk()
    desk.register("miner 0")
    bad = desk.submit("alice", blobs=True, number=50)
    good = desk.submit("bob", blobs=True, number=50)
    names = started(desk.tick())
    assert len(names) == 2 * CHECKS_PER_OWNER <= CHECKS_AT_ONCE
    for jobs in (bad, good):
        assert sum(name.partition("/")[2] in jobs for name in names) == CHECKS_PER_OWNER
    one = names[0].partition("/")[2]
    assert len(started(desk.tell(EffectFailed(f"inputs/{one}", BlobUnavailable("nothing there"))))) == 1


def test_a_revealed_result_is_judged_and_settled_with_our_signature() -> None:
    """The receipt that is signed is the one that the rules derive; afterwards the job's files may go."""
    desk = Desk()
    desk.register("miner 0")
    job_id = desk.revealed()
    assert started(desk.tick()) == [f"judge/{job_id}/{key_of('miner 0').address}"]
    assert started(desk.tick()) == []
    decision = desk.tell(desk.judged(job_id))
    ((key, fields),) = said(decision)
    assert key == f"settle/{job_id}/1"
    job = desk.network.chain.state.job(job_id)
    assert job is not None
    receipt = receipt_of(job_id, job, desk.network.genesis.chain)
    assert receipt_signature_holds(receipt, KEY.address, fields["receipt_sig"])
    assert started(desk.include(decision)) == [f"forget/{job_id}"]
    settled = desk.network.chain.state.job(job_id)
    assert settled is not None
    assert isinstance(settled.situation, Settled)
    assert desk.kept.rows == {}


def test_a_wrong_result_fails_the_attempt_and_the_job_goes_to_another_miner() -> None:
    """The miner that lied does not get it again."""
    desk = Desk()
    desk.register("miner 0")
    job_id = desk.revealed()
    desk.register("miner 1")
    desk.tick()
    decision = desk.tell(desk.judged(job_id, "RESULT_WRONG"))
    ((_, fields),) = said(decision)
    expected = {"job": job_id, "miner": key_of("miner 0").address, "reason": "RESULT_WRONG", "type": "job.failed"}
    assert fields == expected
    ((key, fields),) = said(desk.include(decision))
    assert (key, fields["miner"]) == (f"assign/{job_id}/2", key_of("miner 1").address)


def test_a_verdict_of_an_attempt_that_is_over_is_not_used() -> None:
    """Two miners commit to the same root, for right results are equal: the first one's verdict is not the second's."""
    desk = Desk()
    desk.register("miner 0", "miner 1")
    (job_id,) = desk.submit()
    desk.include(desk.tick())
    job = desk.network.chain.state.job(job_id)
    assert job is not None
    first = next(name for name in ("miner 0", "miner 1") if key_of(name).address == job.situation.assignment.miner)
    second = "miner 1" if first == "miner 0" else "miner 0"
    desk.reveal(job_id, first)
    desk.tick()
    fields = {"job": job_id, "miner": key_of(first).address, "reason": "RESULT_UNAVAILABLE"}
    desk.network.block(desk.network.say("coordinator", JobFailed, **fields))
    desk.include(desk.tick())
    desk.reveal(job_id, second)
    again = desk.tick()
    assert cancelled(again) == [f"judge/{job_id}/{key_of(first).address}"]
    assert started(again) == [f"judge/{job_id}/{key_of(second).address}"]
    assert said(desk.tell(desk.judged(job_id, "RESULT_UNAVAILABLE", first))) == []
    ((key, _),) = said(desk.tell(desk.judged(job_id, "", second)))
    assert key.startswith("settle/")


def test_a_verdict_that_cannot_be_reached_now_is_tried_again() -> None:
    """After a while; the deadline of the job is what ends it."""
    desk = Desk()
    desk.register("miner 0")
    job_id = desk.revealed()
    (name,) = started(desk.tick())
    assert started(desk.tell(EffectFailed(name, BlobUnavailable("the inputs are gone")))) == []
    assert started(desk.tick(AGAIN_MS)) == [name]
    assert said(desk.tell(desk.judged(job_id))) != []


def test_one_miner_cannot_take_all_places_for_verdicts() -> None:
    """Results that were never uploaded keep those of others waiting no longer than the miner's own."""
    desk = Desk()
    desk.register("miner 0", capacity=100)
    jobs = desk.submit(number=10)
    for job_id in jobs:
        desk.network.block(desk.network.assign(job_id))
        desk.reveal(job_id)
    assert len(started(desk.restart())) == 1 + VERDICTS_PER_MINER


def test_a_job_that_ends_leaves_nothing_behind() -> None:
    """A client that withdraws its job: what was being done for it is cancelled, then its files go, then its notes."""
    desk = Desk()
    desk.register("miner 0")
    (job_id,) = desk.submit(blobs=True)
    desk.tick()
    desk.network.block(desk.network.say("alice", JobCancelled, job=job_id))
    decision = desk.tick()
    assert cancelled(decision) == [f"inputs/{job_id}"]
    assert started(decision) == [f"forget/{job_id}"]
    assert started(desk.tell(InputsChecked(job_id))) == []
    coordinator = desk.coordinator
    assert (coordinator._notes, coordinator._checking, coordinator._cases) == ({}, {}, {})
    assert desk.kept.rows == {}


def test_memory_follows_the_unfinished_jobs() -> None:
    """Hundreds of jobs that come and go, with nobody to do them, leave nothing behind."""
    desk = Desk()
    for _ in range(10):
        jobs = desk.submit(number=30)
        desk.tick()
        assert len(desk.coordinator._notes) == 30
        desk.network.block(*(desk.network.say("alice", JobCancelled, job=job_id) for job_id in jobs))
        desk.tick()
    assert desk.coordinator._notes == {}


def _two_coordinators() -> Genesis:
    names = ("coordinator", "alice")
    return msgspec.structs.replace(make_genesis(), coordinators=tuple(sorted(key_of(name).address for name in names)))


def test_of_several_coordinators_the_second_waits_for_the_first() -> None:
    """Each job has a first coordinator by its id; the other one steps in when nothing happens for three seconds."""
    desk = Desk(_two_coordinators())
    desk.register("miner 0", capacity=100)
    jobs = desk.submit("bob", number=20)
    coordinators = desk.network.genesis.coordinators
    own = [job_id for job_id in jobs if coordinators[int(job_id[:8], 16) % 2] == KEY.address]
    assert 0 < len(own) < 20
    assert sorted(key for key, _ in said(desk.tick())) == sorted(f"assign/{job_id}/0" for job_id in own)
    assert said(desk.tick(TAKE_OVER_MS - 1)) == []
    assert len(said(desk.tick(1))) == 20 - len(own)


def test_a_situation_that_changes_gives_the_first_coordinator_its_time_again() -> None:
    """The wait counts from when this coordinator saw the job in its present situation and attempt."""
    desk = Desk(_two_coordinators())
    coordinators = desk.network.genesis.coordinators
    jobs = desk.submit("bob", number=20)
    other = next(job_id for job_id in jobs if coordinators[int(job_id[:8], 16) % 2] != KEY.address)
    desk.tick()
    desk.now_ms += 10 * TAKE_OVER_MS
    desk.register("miner 0", "miner 1", capacity=100)
    assigned = desk.network.assign(other)
    desk.network.block(assigned)
    gives_up = {"job": other, "miner": key_of("miner 0").address, "reason": "MINER_FAILED"}
    desk.tick()
    desk.network.block(desk.network.say("miner 0", JobFailed, **gives_up))
    job = desk.network.chain.state.job(other)
    assert job is not None
    assert isinstance(job.situation, Open)
    assert f"assign/{other}/0" not in [key for key, _ in said(desk.tick())]
    assert f"assign/{other}/0" in [key for key, _ in said(desk.tick(TAKE_OVER_MS))]


def test_the_same_ledger_and_messages_give_the_same_decisions() -> None:
    """Nothing depends on chance: two coordinators with the same key decide alike."""
    decisions = []
    for _ in range(2):
        desk = Desk()
        desk.register("miner 0", "miner 1", capacity=2)
        desk.submit("alice", blobs=True, number=5)
        desk.submit("bob", number=5)
        decisions.append(digest(repr([(said(desk.tick()), started(desk.tick())) for _ in range(3)]).encode()))
    assert decisions[0] == decisions[1]
