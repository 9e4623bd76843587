"""A height that nobody can decide: after the log lost its end, honest validators are bound to different blocks.

A validator votes once at a height, and its disk says for which block. Where no block can get a quorum of the honest
validators that are there, the height is stalled until operators do what docs/guarantees.md tells them.
"""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

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


def mend(world: World) -> None:
    """All are stopped. The validators forget their votes of the stalled height, but for a block that was final, and the
    log is emptied: it is put back from their disks."""
    height = world.books.keeper.height + 1
    world.tell("mend", height)
    for host in world.hosts.values():
        host.crash(fault=False)
    final = world.losses.blocks.get(height) or world.final.get(height, ("",))[0]
    for index in range(world.plan.proposers):
        name = f"proposer {index}"
        world.votes.pop((name, height), None)
        path = _read_model(world, name)
        if path is None or name in world.gone:
            continue
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM votes WHERE height = ? AND block != ?", (height, final))
            database.execute("DELETE FROM kept WHERE height = ? AND hash != ? AND final = 0", (height, final))
    log = world.chain_log()
    world.lose_tail(log.last_sequence if log is not None else 0, fault=False)
    for host in world.hosts.values():
        if host.stopped is None and host.name not in world.gone:
            host.start()


def _read_model(world: World, name: str) -> Path | None:
    return next(world.hosts[name].disk.folder.rglob("read-model.db"), None)


def _kept(world: World, name: str, height: int) -> tuple[str | None, bool]:
    """Which block a validator's disk binds it to at a height, and whether it was final there."""
    path = _read_model(world, name)
    if path is None:
        return None, False
    with closing(sqlite3.connect(path)) as database:
        vote = database.execute("SELECT block FROM votes WHERE height = ?", (height,)).fetchone()
        final = database.execute("SELECT hash FROM kept WHERE height = ? AND final = 1", (height,)).fetchone()
    return (None if vote is None else str(vote[0])), final is not None
