"""The miner's decisions: take what is assigned, commit to the result, reveal it, give up what cannot be done. Pure.

The miner follows the feed of its own address and needs nothing else to know where it is: a `Task`, kept as a row, goes
from assigned to computed to committed and ends with the job's own end. After a crash every task goes on at its stage.

What the miner is told is not proven to it. The feed's events carry their senders' signatures, and a node's description
of a job must name the same assignment; but that a coordinator's word is in a final block, what the work is, and which
registration stands, the miner takes from the nodes of its network. A lie costs it the work of one job: what it says
about it fails. One about its registration costs a fee, or new jobs until its next start.
"""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Final, Literal, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from actors.attesting import Attester, Attesting
from actors.decision import (
    Cancel,
    Command,
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
    TurnedAway,
    done,
    draft,
)
from events.canonical import canonical, digest
from events.envelope import read
from events.errors import BusError, TimedOut
from events.keys import Key
from events.receipts import sign_receipt
from projections.receipts import receipt_of
from schemas.blocks import Applied, TimerFired
from schemas.events import (
    Device,
    JobAssigned,
    JobCommitted,
    JobFailed,
    JobRefunded,
    JobRevealed,
    JobSettled,
    MinerRegistered,
    Offer,
)
from schemas.messages import FeedMessage
from schemas.state import Assigned, Assignment, Commitment, Committed, Job, Revealed

AGAIN_MS: Final = 1_000
# More jobs than a miner can have: what a feed says beyond is not believed.
MOST_TASKS: Final = 2_048
REGISTRATION: Final = "registration"


class Registration(Struct, frozen=True, kw_only=True):
    """What the miner offers, as its miner.registered event says it."""

    name: str
    capacity: int
    devices: tuple[Device, ...]
    offers: tuple[Offer, ...]


class Registered(Struct, frozen=True):
    """The registration that was said last, by the digest of what it says, and how many were said. ``height`` is that of
    the block with it, or with what the owner has said since by the same key; 0 while no block has it."""

    count: int
    content: str
    height: int = 0


class Task(Struct, frozen=True, kw_only=True):
    """A job of this miner. ``height`` is that of its assignment. What is known at which stage:

    assigned: who assigned it, when, at which price. described: the job itself. computed: the commitment that was said,
    without the block that holds it. committed: with that block.
    """

    id: str
    stage: Literal["assigned", "described", "computed", "committed"]
    assignment: Assignment
    job: Job | UnsetType = UNSET
    commitment: Commitment | UnsetType = UNSET


_task_decoder = msgspec.json.Decoder(Task)
_registered_decoder = msgspec.json.Decoder(Registered)


class LookedUp(Struct, frozen=True):
    """A node's answer about this miner: the registration that stands in the ledger."""

    registration: Registration


class Described(Struct, frozen=True):
    """A node's answer about the job."""

    id: str
    job: Job


class Computed(Struct, frozen=True):
    """The result lies on disk."""

    id: str
    root: str
    digest: str
    size: int


class Impossible(Struct, frozen=True):
    """The job cannot be done here."""

    id: str
    reason: str


class Delivered(Struct, frozen=True):
    """Everyone can fetch the result."""

    id: str


class GoOn(Struct, frozen=True):
    """Try once more what the task's stage asks for."""

    id: str


class LookAgain(Struct, frozen=True):
    """A while has passed, and what the feed should have said of a task may have been lost by the server."""


class Worker(Protocol):
    """The effects: asking a node, computing, moving blobs, removing files."""

    def look_up(self, height: int) -> Awaitable[LookedUp]:
        """What the ledger has of this miner, by a node that is at ``height`` or further."""

    def describe(self, job_id: str, height: int) -> Awaitable[Described]:
        """Of a node that is at ``height`` or further."""

    def compute(self, job_id: str, job: Job) -> Awaitable[Computed | Impossible]:
        """Raises BusError or TimedOut when the network is in trouble."""

    def deliver(self, job_id: str, result: str) -> Awaitable[Delivered]: ...

    def forget(self, job_id: str) -> Awaitable[None]: ...

    def sweep(self, unfinished: frozenset[str]) -> Awaitable[None]: ...


class Miner:
    """Decides for one address."""

    name: Final = "miner"

    def __init__(
        self, key: Key, chain: str, registration: Registration, worker: Worker, attester: Attester | None = None
    ) -> None:
        """Without an ``attester`` the miner claims no GPUs and sits no exams."""
        self._key = key
        self._chain = chain
        self._registration = registration
        self._worker = worker
        self._attesting = Attesting(key.address, attester) if attester else None
        self._registered = Registered(0, "")
        # Whether it has yet to be seen that the registration of earlier starts still stands.
        self._doubtful = False
        self._tasks: dict[str, Task] = {}

    def begin(self, rows: Mapping[str, bytes], now_ms: int) -> Done:
        if REGISTRATION in rows:
            self._registered = _registered_decoder.decode(rows[REGISTRATION])
        tasks = [_task_decoder.decode(row) for name, row in rows.items() if name.startswith("task/")]
        self._tasks = {task.id: task for task in tasks}
        sweep = Start("sweep", partial(self._worker.sweep, frozenset(self._tasks)))
        attest = [] if self._attesting is None else self._attesting.begin(rows)
        register = self._register()
        self._doubtful = not register and self._registered.height > 0
        return Done((sweep, *register, *self._look_up(), *(self._go_on(task) for task in tasks), *attest))

    def decide(self, message: object, now_ms: int) -> Decision:
        match message:
            case FeedMessage():
                return Done(tuple(self._read_feed(message)))
            case LookedUp():
                return Done(tuple(self._stands(message.registration)))
            case Described():
                return Done(tuple(self._described(message)))
            case Computed():
                return Done(tuple(self._computed(message)))
            case Impossible():
                return Done(tuple(self._give_up(message.id, message.reason)))
            case Delivered():
                return Done(tuple(self._reveal(message.id)))
            case LookAgain():
                waiting = [task for task in self._tasks.values() if task.stage in ("computed", "committed")]
                attest = [] if self._attesting is None else self._attesting.look_again()
                return Done((*self._look_up(), *(self._ask_about(task, "look") for task in waiting), *attest))
            case GoOn() if (task := self._tasks.get(message.id)) is not None:
                return done(self._go_on(task))
            case EffectFailed():
                return self._effect_failed(message)
            case Heard() | TurnedAway():
                return self._heard(message)
        return Done() if self._attesting is None else Done(tuple(self._attesting.decide(message)))

    def _register(self) -> list[Command]:
        """Says what it offers unless that is what it said last."""
        content = digest(canonical(self._registration))
        return [] if content == self._registered.content else self._say_registration(content)

    def _say_registration(self, content: str) -> list[Command]:
        self._registered = Registered(self._registered.count + 1, content)
        fields = msgspec.structs.asdict(self._registration)
        return [
            Keep(REGISTRATION, canonical(self._registered)),
            Say(f"register/{self._registered.count}", draft(MinerRegistered, **fields)),
        ]

    def _registered_at(self, height: int) -> list[Command]:
        """A node that is behind this block does not know what stands: the next start asks one that is not."""
        if not 0 < self._registered.height < height:
            return []
        self._registered = msgspec.structs.replace(self._registered, height=height)
        return [Keep(REGISTRATION, canonical(self._registered))]

    def _look_up(self) -> list[Command]:
        """Asks what stands in the ledger: the owner may have retired the miner by another word of the same key."""
        return [Start("look-up", partial(self._worker.look_up, self._registered.height))] if self._doubtful else []

    def _stands(self, registration: Registration) -> list[Command]:
        if not self._doubtful:
            return []
        self._doubtful = False
        content = digest(canonical(self._registration))
        return [] if digest(canonical(registration)) == content else self._say_registration(content)

    def _keep(self, task: Task) -> list[Command]:
        self._tasks[task.id] = task
        return [Keep(f"task/{task.id}", canonical(task)), self._go_on(task)]

    def _go_on(self, task: Task) -> Command:
        """What the task's stage asks for."""
        if task.stage == "assigned" or isinstance(task.job, UnsetType):
            return self._ask_about(task, "describe")
        if task.stage == "described" or isinstance(task.commitment, UnsetType):
            return Start(f"compute/{task.id}", partial(self._worker.compute, task.id, task.job), about=task.id)
        commitment = task.commitment
        if task.stage == "computed":
            said = draft(
                JobCommitted, job=task.id, root=commitment.root, result=commitment.result, size=commitment.size
            )
            return Say(f"commit/{task.id}", said, about=task.id)
        deliver = partial(self._worker.deliver, task.id, commitment.result)
        return Start(f"deliver/{task.id}", deliver, about=task.id)

    def _ask_about(self, task: Task, effect: str) -> Command:
        height = task.assignment.assigned_height
        return Start(f"{effect}/{task.id}", partial(self._worker.describe, task.id, height), about=task.id)

    def _read_feed(self, message: FeedMessage) -> list[Command]:
        commands: list[Command] = []
        for entry in message.entries:
            if isinstance(entry.outcome, TimerFired):
                commands += self._end(entry.outcome.job)
            elif isinstance(entry.outcome, Applied) and not isinstance(entry.event, UnsetType):
                signed = read(bytes(entry.event))
                event = signed.event
                if self._attesting is not None:
                    commands += self._attesting.read(signed.id, event, message.block)
                match event:
                    case MinerRegistered(sender=self._key.address):
                        commands += self._registered_at(message.height)
                    case JobAssigned(miner=self._key.address):
                        commands += self._assigned(event, message)
                    case JobCommitted(sender=self._key.address):
                        commands += self._committed(event.job, message)
                    case JobFailed(miner=self._key.address) | JobSettled() | JobRefunded():
                        commands += self._end(event.job)
        return commands

    def _assigned(self, event: JobAssigned, message: FeedMessage) -> list[Command]:
        known = self._tasks.get(event.job)
        if known is not None and known.assignment.assigned_height >= message.height:
            return []
        if known is None and len(self._tasks) >= MOST_TASKS:
            return []
        assignment = Assignment(
            miner=event.miner,
            coordinator=event.sender,
            price=event.price,
            assigned_ms=message.time_ms,
            assigned_height=message.height,
        )
        return self._keep(Task(id=event.job, stage="assigned", assignment=assignment))

    def _described(self, described: Described) -> list[Command]:
        task, situation = self._tasks.get(described.id), described.job.situation
        if task is None:
            return []
        match situation:
            case Assigned(assignment=task.assignment) if task.stage == "assigned":
                return self._keep(msgspec.structs.replace(task, stage="described", job=described.job))
            case Committed(assignment=task.assignment) if task.stage == "computed":
                return self._keep(msgspec.structs.replace(task, stage="committed", commitment=situation.commitment))
            case Assigned() | Committed() | Revealed() if task.stage != "assigned":
                return [] if situation.assignment == task.assignment else self._end(task.id)
        # The job has moved on without this miner.
        return self._end(task.id)

    def _computed(self, computed: Computed) -> list[Command]:
        task = self._tasks.get(computed.id)
        if task is None or task.stage != "described":
            return []
        commitment = Commitment(
            root=computed.root, result=computed.digest, size=computed.size, committed_ms=0, committed_height=0
        )
        return self._keep(msgspec.structs.replace(task, stage="computed", commitment=commitment))

    def _committed(self, job_id: str, message: FeedMessage) -> list[Command]:
        task = self._tasks.get(job_id)
        if task is None or task.stage != "computed" or isinstance(task.commitment, UnsetType):
            return []
        commitment = msgspec.structs.replace(
            task.commitment, committed_ms=message.time_ms, committed_height=message.height
        )
        return self._keep(msgspec.structs.replace(task, stage="committed", commitment=commitment))

    def _reveal(self, job_id: str) -> list[Command]:
        task = self._tasks.get(job_id)
        if task is None or isinstance(task.job, UnsetType) or isinstance(task.commitment, UnsetType):
            return []
        situation = Committed(deadline_ms=0, assignment=task.assignment, commitment=task.commitment)
        receipt = receipt_of(job_id, msgspec.structs.replace(task.job, situation=situation), self._chain)
        said = draft(JobRevealed, job=job_id, receipt_sig=sign_receipt(receipt, self._key))
        return [Say(f"reveal/{job_id}", said, about=job_id)]

    def _give_up(self, job_id: str, reason: str) -> list[Command]:
        if job_id not in self._tasks:
            return []
        said = draft(JobFailed, job=job_id, miner=self._key.address, reason=reason)
        return [*self._end(job_id), Say(f"give-up/{job_id}", said, about=job_id)]

    def _end(self, job_id: str) -> list[Command]:
        """The job is no longer this miner's."""
        if self._tasks.pop(job_id, None) is None:
            return []
        return [
            *(Cancel(f"{effect}/{job_id}") for effect in ("describe", "compute", "deliver")),
            Drop(f"task/{job_id}"),
            Start(f"forget/{job_id}", partial(self._worker.forget, job_id), about=job_id),
        ]

    def _effect_failed(self, failed: EffectFailed) -> Decision:
        effect, _, job_id = failed.name.partition("/")
        if self._attesting is not None and (again := self._attesting.failed(effect, job_id)):
            return NeverAgain("EXAM_NOT_SAT", str(failed.error), tuple(again))
        if effect == "claim":
            return NeverAgain("NOT_CLAIMED", str(failed.error))
        if job_id not in self._tasks:
            return Done()
        if effect == "compute" and not isinstance(failed.error, BusError | TimedOut):
            return NeverAgain("NOT_COMPUTED", str(failed.error), tuple(self._give_up(job_id, "MINER_FAILED")))
        if effect in ("describe", "compute", "deliver"):
            # The network is in trouble, not the job; its deadline ends this.
            return done(Later(AGAIN_MS, GoOn(job_id)))
        return Done()

    def _heard(self, message: Heard | TurnedAway) -> Decision:
        """Of a word that did nothing the reason is worth keeping; the job's own end comes by the feed."""
        if isinstance(message, Heard) and not isinstance(message.outcome, Applied):
            verb, _, job_id = message.key.partition("/")
            gone: list[Command] = self._end(job_id) if verb in ("commit", "reveal") else []
            if self._attesting is not None:
                gone += self._attesting.in_vain(message.key)
            if verb == "register":
                # The next start says it again.
                self._registered = Registered(self._registered.count, "")
                gone = [Keep(REGISTRATION, canonical(self._registered))]
            return NeverAgain("SAID_IN_VAIN", f"{message.key}: {message.outcome}", tuple(gone))
        if isinstance(message, Heard) and message.key == f"register/{self._registered.count}":
            self._registered = msgspec.structs.replace(self._registered, height=message.height)
            return done(Keep(REGISTRATION, canonical(self._registered)))
        if isinstance(message, TurnedAway) and message.given_up:
            return NeverAgain("TURNED_AWAY", f"{message.key}: {message.refusal}")
        return Done()
