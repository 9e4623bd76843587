"""A height that nobody can decide: after the log lost its end, honest validators are bound to different blocks.

A validator votes once at a height, and its disk says for which block. Where no block can get a quorum of the honest
validators that are there, liars that keep silent, and validators that are dead, stall the height for good.
"""

import sqlite3
from collections import Counter
from contextlib import closing

from tests.simulation.plan import key_for
from tests.simulation.world import World


def is_stalled(world: World) -> bool:
    """Whether the honest validators that are there cannot decide the next height among themselves."""
    if not world.losses.log:
        return False
    world.read_log()
    height, liars = world.books.keeper.height + 1, world.plan.liars
    bound: Counter[str] = Counter()
    free = 0
    for index in range(world.plan.proposers):
        name = f"proposer {index}"
        if name in world.gone or key_for(name).address in liars:
            continue
        block, final = _kept(world, name, height)
        if final:
            return False  # it has all the votes of a quorum, and puts them back
        if block is None:
            free += 1
        else:
            bound[block] += 1
    most = max(bound.values(), default=0) + free
    return 3 * most < 2 * world.plan.proposers


def _kept(world: World, name: str, height: int) -> tuple[str | None, bool]:
    """Which block a validator's disk binds it to at a height, and whether it was final there."""
    path = next(world.hosts[name].disk.folder.rglob("read-model.db"), None)
    if path is None:
        return None, False
    with closing(sqlite3.connect(path)) as database:
        row = database.execute(
            "SELECT hash, final FROM kept WHERE height = ? ORDER BY final DESC LIMIT 1", (height,)
        ).fetchone()
    return (None, False) if row is None else (str(row[0]), bool(row[1]))
