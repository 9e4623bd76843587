"""What one seed is: who takes part, what they want, and what goes wrong."""

from random import Random
from typing import Literal

import msgspec
from msgspec import Struct

from events.keys import Key
from schemas.genesis import Allocation, Genesis, GenesisValidator
from tests.projections.small_network import key_of, parameters
from tests.simulation.faults import Menu
from tests.simulation.loop import EPOCH_MS
from tests.simulation.stand_in import Character

CHAIN = "assay-simulated"
COINS = 1_000_000_000
Scenario = Literal["ordinary", "lost tail", "lost mail", "bit flip"]
Twins = Literal["", "proposer", "coordinator"]
# The second of two processes with one key has a disk of its own.
TWIN = " twin"


class Plan(Struct, frozen=True, kw_only=True):
    """``trouble_ms`` is how long faults go on; ``stay_dead`` of the proposers never come back.

    In "lost tail" the server loses its newest messages of all streams, in "lost mail" those of all but the log, in "bit
    flip" its files and one node's are damaged in the end. Of ``twins`` one runs twice, on two disks.

    ``trusting`` clients do not say again what the server has acknowledged, while inboxes keep it. ``patience_ms`` is
    how long the rules wait for a result, and for a verdict.
    """

    seed: int
    scenario: Scenario = "ordinary"
    proposers: int = 1
    coordinators: int = 1
    miners: tuple[Character, ...] = ()
    observers: int = 0
    signers: int = 1
    askers: int = 0
    transfers: int = 5
    jobs: int = 0
    byzantine: bool = False
    hostile: bool = False
    stay_dead: int = 0
    trouble_ms: int = 10_000
    block_events: int = 1_000
    attempts: int = 2
    inbox_places: int = 200
    inbox_age_s: int = 3_600
    trusting: bool = False
    patience_ms: int = 20_000
    menu: Menu = Menu()
    twins: Twins = ""

    @property
    def liars(self) -> frozenset[str]:
        """Addresses of the validators that sign two blocks or votes, on purpose or by being there twice."""
        lying = range(self.proposers - self.byzantine - (self.twins == "proposer"), self.proposers)
        return frozenset(key_of(f"proposer {index}").address for index in lying)

    @property
    def may_fork(self) -> bool:
        """A third of the power that lies may, with a server that forgets, have two blocks final at one height."""
        return self.scenario == "lost tail" and 3 * len(self.liars) >= self.proposers


def draw(seed: int) -> Plan:
    """The plan of a seed, for ever the same."""
    random = Random(f"{seed}:plan")
    proposers = random.choice((1, 1, 2, 3, 3, 3, 4, 4, 5, 7))
    spare = proposers - -(-2 * proposers // 3)
    byzantine = spare > 0 and random.random() < 0.4
    character: tuple[Character, ...] = ("honest", "honest", "slow", "lying", "failing", "vanishing")
    others = [random.choice(character) for _ in range(random.randint(0, 2))]
    lot = random.random()
    scenario: Scenario = "lost tail" if lot < 0.1 else "bit flip" if lot < 0.16 else "ordinary"
    if 0.16 <= lot < 0.24:
        scenario = "lost mail"
    plan = Plan(
        seed=seed,
        scenario=scenario,
        proposers=proposers,
        coordinators=random.choice((1, 1, 2)),
        miners=("honest", *others),
        observers=random.randint(0, 1),
        signers=random.randint(1, 3),
        askers=random.randint(0, 2),
        transfers=random.randint(2, 10),
        jobs=random.randint(0, 4),
        byzantine=byzantine,
        hostile=random.random() < 0.4,
        stay_dead=random.randint(0, spare - byzantine) if random.random() < 0.4 else 0,
        trouble_ms=random.randint(5_000, 20_000),
        block_events=random.choice((1, 3, 1_000)),
        attempts=random.randint(1, 3),
        inbox_places=random.choice((20, 200)),
        inbox_age_s=random.choice((15, 3_600, 3_600)),
        menu=Menu.draw(random),
        trusting=random.random() < 0.5,
        patience_ms=random.choice((2_000, 20_000)),
    )
    twins: list[Twins] = ["", "", "", "coordinator"]
    if spare > plan.byzantine + plan.stay_dead:
        twins.append("proposer")
    return msgspec.structs.replace(plan, twins=random.choice(twins))


def key_for(host: str) -> Key:
    """The key of the process on a host."""
    return key_of(host.removesuffix(TWIN))


def genesis_of(plan: Plan) -> Genesis:
    """Everybody's keys come from their names; coins for all who speak."""
    names = [f"signer {index}" for index in range(plan.signers)]
    names += [f"miner {index}" for index in range(len(plan.miners))]
    names += [f"coordinator {index}" for index in range(plan.coordinators)]
    names += ["wallet", "villain", "prober"]
    return Genesis(
        chain=CHAIN,
        time_ms=EPOCH_MS - 60_000,
        rules=1,
        parameters=parameters(
            max_block_events=plan.block_events,
            max_attempts=plan.attempts,
            reveal_timeout_ms=plan.patience_ms,
            verify_timeout_ms=plan.patience_ms,
        ),
        allocations=tuple(
            Allocation(address=address, balance=COINS) for address in sorted(key_of(name).address for name in names)
        ),
        validators=tuple(
            GenesisValidator(address=address, power=1)
            for address in sorted(key_of(f"proposer {index}").address for index in range(plan.proposers))
        ),
        coordinators=tuple(sorted(key_of(f"coordinator {index}").address for index in range(plan.coordinators))),
    )
