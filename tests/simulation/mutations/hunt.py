"""Looking for a planted defect: seeds of the simulation, one after the other, until a checker finds something wrong."""

import os
import time

from msgspec import Struct

from tests.simulation.mutations.mutation import Mutation, planted
from tests.simulation.simulation import run_seed


class Catch(Struct, frozen=True):
    """Which seed has shown a defect, and what was seen first; no seed: none of them has."""

    mutation: Mutation
    seed: int | None
    seen: str
    tried: int
    took_s: float


def catch(mutation: Mutation, seeds: range) -> Catch:
    """Runs the mutated network until a checker finds something wrong."""
    began = time.perf_counter()
    with planted(mutation):
        for tried, seed in enumerate(seeds, 1):
            seen = see(seed)
            if seen:
                return Catch(mutation, seed, seen, tried, time.perf_counter() - began)
    return Catch(mutation, None, "", len(seeds), time.perf_counter() - began)


def see(seed: int) -> str:
    """The first thing that is wrong with a seed, whatever it is; nothing when all is right."""
    try:
        violations = run_seed(seed).violations
    except Exception as error:  # noqa: BLE001 - a mutated network may bring the simulation itself down
        return f"crash: {type(error).__name__}: {error}"
    return violations[0] if violations else ""


def catch_nicely(order: tuple[Mutation, range]) -> Catch:
    """`catch` for a process of its own, which lets others go first."""
    os.nice(10)
    return catch(*order)
