"""One seed from beginning to end: trouble, then calm, then the verdict."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from tests.simulation import checks
from tests.simulation.byzantine import run_byzantine
from tests.simulation.clients import Asker, Prober, Signer
from tests.simulation.hostile import Villain
from tests.simulation.plan import TWIN, Plan, draw
from tests.simulation.stall import is_stalled, mend
from tests.simulation.trouble import Chaos
from tests.simulation.world import (
    World,
    miner_of,
    run_coordinator,
    run_observer,
    run_proposer,
    run_wallet,
    simulated,
)

CALM_MS = 240_000
LOOK_EVERY_MS = 250
# How long a job of the end, or an actor's last word, may take; and a job that can be done may wait, when all is calm.
PROBE_MS = 60_000
NEGLECTED_MS = 30_000
# How long no block has to come until somebody looks whether one can; and how long is watched what has no promise.
STALLED_MS = 20_000
FORKED_MS = 20_000


class Result(Struct, frozen=True, kw_only=True):
    """What became of a seed. ``digest`` is that of its whole trace."""

    seed: int
    plan: Plan
    violations: tuple[str, ...]
    digest: str
    virtual_ms: int
    calm_ms: int
    stalled: bool
    events: int
    blocks: int
    jobs: dict[str, int]
    faults: dict[str, int]
    steps: int


def run_seed(seed: int, trace: Callable[[str], None] | None = None) -> Result:
    """Runs the plan of a seed."""
    return run_plan(draw(seed), trace)


def run_plan(plan: Plan, trace: Callable[[str], None] | None = None) -> Result:
    """Runs a plan."""
    with simulated(plan, trace) as world:
        story = Story(world)
        world.loop.run(story.tell())
        return Result(
            seed=plan.seed,
            plan=plan,
            violations=tuple(world.violations),
            digest=world.digest.hexdigest(),
            virtual_ms=int(world.loop.time() * 1_000),
            calm_ms=story.calm_ms,
            stalled=story.stalled,
            events=world.events,
            blocks=len(world.books.blocks),
            jobs=dict(Counter(end for ends in world.books.keeper.ends.values() for end in ends)),
            faults=dict(world.trouble.counts),
            steps=world.loop.steps,
        )


class Story:
    """Who takes part, and in which order things happen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calm_ms = 0
        self.stalled = False
        # The height of the log, and since when.
        self._moved = (-1, 0)
        self._open_since: dict[str, int] = {}
        plan = world.plan
        everybody = [f"signer {index}" for index in range(plan.signers)] + ["wallet", "stranger"]
        self.signers = [
            Signer(f"signer {index}", plan.transfers, plan.jobs, everybody) for index in range(plan.signers)
        ]
        self.askers = [Asker(f"asker {index}", plan.transfers, everybody) for index in range(plan.askers)]
        for index in range(plan.proposers):
            # The last one, so that it is none of those that stay dead.
            honest = not plan.byzantine or index < plan.proposers - 1
            world.add(f"proposer {index}", run_proposer if honest else run_byzantine)
        for index in range(plan.coordinators):
            world.add(f"coordinator {index}", run_coordinator)
        for index, character in enumerate(plan.miners):
            world.add(f"miner {index}", miner_of(character, unit_price=10 + index))
        for index in range(plan.observers):
            world.add(f"observer {index}", run_observer)
        if plan.askers:
            world.add("wallet", run_wallet)
        self._add_twin()
        for client in (*self.signers, *self.askers):
            world.add(client.name, client.run)
        world.mortal = list(world.hosts)
        if plan.hostile:
            world.add("villain", Villain().run)

    def _add_twin(self) -> None:
        """A second process with the key of the last honest proposer, or of the first coordinator."""
        world, plan = self.world, self.world.plan
        if not plan.twins:
            return
        first = f"proposer {plan.proposers - 1 - plan.byzantine}" if plan.twins == "proposer" else "coordinator 0"
        world.add(first + TWIN, run_proposer if plan.twins == "proposer" else run_coordinator)
        world.trouble.counts[f"two {plan.twins}s with one key"] += 1

    async def tell(self) -> None:
        """Trouble first; then calm until everything is done, and the verdict."""
        world, plan = self.world, self.world.plan
        chaos = Chaos(world, world.mortal, list(world.hosts))
        starts = world.random("starts")
        for host in world.hosts.values():
            world.loop.call_later(starts.choice((0, 0.05, 1.0)), partial(_start, host))
        chaos.dead_for_good = [f"proposer {index}" for index in range(plan.stay_dead)]
        chaos.begin()
        if plan.scenario in {"lost tail", "lost mail"}:
            chaos.plan_loss(plan.trouble_ms)
        await asyncio.sleep(plan.trouble_ms / 1_000)
        chaos.end()
        calm_since_ms = world.loop.now_ms()
        await self._be_calm()
        self.calm_ms = world.loop.now_ms() - calm_since_ms
        if plan.may_fork:
            await self._end_of_forked()
            return
        if not self._is_done():
            checks.find_what_is_missing(world, self.signers, self.askers)
        elif not world.violations:
            await self._probe()
        hit = await self._flip_bits() if plan.scenario == "bit flip" else 0
        latecomer = world.add("latecomer", run_observer)
        latecomer.start()
        await self._until(lambda: latecomer.stopped is not None or checks.all_have_heard(world), 8_000)
        if plan.scenario == "bit flip":
            checks.find_undetected(world, latecomer, hit)
        checks.find_violations(world, self.askers)

    async def _be_calm(self) -> None:
        """Until everything is done. A height that is stalled operators mend, once."""
        world = self.world
        longest_ms = FORKED_MS if world.plan.may_fork else CALM_MS
        for _ in range(longest_ms // LOOK_EVERY_MS):
            if self._is_done() or world.violations:
                return
            await asyncio.sleep(LOOK_EVERY_MS / 1_000)
            if world.plan.may_fork:
                continue
            checks.check_stops(world, frozenset())
            self._look_for_neglected_jobs()
            if not self.stalled and self._is_stalled():
                self.stalled = True
                await mend(world)
                self._open_since.clear()

    async def _end_of_forked(self) -> None:
        world = self.world
        latecomer = world.add("latecomer", run_observer)
        latecomer.start()
        await asyncio.sleep(8)
        world.read_log()
        checks.find_other_ledgers(world)

    async def _probe(self) -> None:
        """After all the trouble the network still does what it is for, and nobody is left with something undone."""
        world = self.world
        if world.plan.miners[:1] == ("honest",):
            # Places that only a dead validator has not freed are free a minute after it was seen last.
            await self._until(lambda: not checks.crowded_inboxes(world), 2 * PROBE_MS)
            # Before the honest miner is there another one may take the job, and fail it.
            await self._until(self._knows_the_honest_miner, PROBE_MS)
            # A read that was slow in the trouble may still be under way: to that validator the job's events come late.
            await self._until(lambda: world.loop.now_ms() >= world.trouble.slow_until_ms, PROBE_MS)
            prober = Prober()
            host = world.add(prober.name, prober.run)
            host.start()
            await self._until(lambda: prober.is_settled(world), PROBE_MS)
            if not prober.is_settled(world) and checks.was_not_told(world, prober.job):
                prober.want_a_job(host)
                await self._until(lambda: prober.is_settled(world), PROBE_MS)
            if not prober.is_settled(world):
                world.violate("liveness", f"a job after all the trouble is not settled: {prober.found(world)}")
        await self._until(lambda: not checks.left_undone(world), PROBE_MS)
        for left in checks.left_undone(world):
            world.violate("leftover", f"{left}")

    def _knows_the_honest_miner(self) -> bool:
        self.world.read_log()
        return checks.honest_miner_is_free(self.world)

    async def _until(self, reached: Callable[[], bool], longest_ms: int) -> None:
        for _ in range(longest_ms // LOOK_EVERY_MS):
            if reached():
                return
            await asyncio.sleep(LOOK_EVERY_MS / 1_000)

    def _is_stalled(self) -> bool:
        """Whether no block has come for long, and none can."""
        height, now_ms = self.world.books.keeper.height, self.world.loop.now_ms()
        if height != self._moved[0]:
            self._moved = height, now_ms
        return now_ms - self._moved[1] > STALLED_MS and is_stalled(self.world)

    def _look_for_neglected_jobs(self) -> None:
        """In calm no job stays open for long that the honest miner could take, where there is room to say so."""
        world, now_ms = self.world, self.world.loop.now_ms()
        if world.plan.miners[:1] != ("honest",):
            return
        waiting = [] if checks.crowded_inboxes(world) else checks.takeable_jobs(world)
        self._open_since = {job: self._open_since.get(job, now_ms) for job in waiting}
        for job, since_ms in self._open_since.items():
            if now_ms - since_ms > NEGLECTED_MS:
                world.violate("liveness", f"job {job[:12]} is open, and nobody gives it to a miner that has a place")

    async def _flip_bits(self) -> int:
        """One bit of the log; of one node's rows as well, while it is down. Returns which final block is hit."""
        world, random = self.world, self.world.random("flip")
        name = random.choice(sorted(world.nodes))
        host = world.hosts[name]
        host.crash()
        world.tell("bit flip", name, host.disk.flip_a_bit(random, "read-model.db*"))
        host.start()
        await asyncio.sleep(8)
        world.trouble.counts["bit flip: read model"] += 1
        return world.flip_a_bit()

    def _is_done(self) -> bool:
        """Whether everybody has what they want, and no job is left."""
        world = self.world
        world.read_log()
        books = world.books
        return (
            all(signer.done(books.places) for signer in self.signers)
            and all(asker.done(books.memos) for asker in self.askers)
            and not books.keeper.unfinished
        )


def _start(host: object) -> None:
    if not host.up and host.stopped is None:  # type: ignore[attr-defined]
        host.start()  # type: ignore[attr-defined]
