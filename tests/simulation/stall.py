"""A height that nobody can decide: after the log lost its end, honest validators are bound to different blocks.

A validator votes once at a height, and its disk says for which block. Where no block can get a quorum of the honest
validators that are there, the height is stalled until operators do what docs/guarantees.md tells them.
"""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.simulation.world import SimulatedHost, World

LOOK_S = 0.25
LONGEST_LOOKS = 240


def is_stalled(world: World) -> bool:
    """Whether the honest validators that are there cannot decide the next height, even with what they keep of it."""
    if not world.losses.log:
        return False
    world.read_log()
    height = world.books.keeper.height + 1
    supporters: dict[str, set[str]] = {}
    free: set[str] = set()
    for host in _validators(world):
        said = _bound(host, height)
        if not said:
            free.add(host.key.address)
        for block, validators in said.items():
            supporters.setdefault(block, set()).update(validators)
    most = max((len((found | free) - world.plan.liars) for found in supporters.values()), default=len(free))
    return 3 * most < 2 * world.plan.proposers


async def mend(world: World) -> None:
    """All are stopped. The validators forget their votes above the newest final block, but for blocks that were final
    elsewhere, and the log is emptied. Those that hold the newest final block put it back before the others start. Where
    only nodes of others hold it, a validator is given it first."""
    world.tell("mend", world.books.keeper.height + 1)
    for host in world.hosts.values():
        host.crash(fault=False)
    tops = {host.name: _top(host) for host in _validators(world)}
    holder = max((host for host in world.hosts.values() if host.name not in world.gone), key=_top)
    if _top(holder) > max(tops.values()):
        newest = max(_validators(world), key=lambda host: tops[host.name])
        _give(holder, newest)
        tops[newest.name] = _top(newest)
    top = max(tops.values())
    for host in _validators(world):
        _forget_votes(world, host, top)
    log = world.chain_log()
    world.lose_tail(log.last_sequence if log is not None else 0, fault=False)
    for host in _validators(world):
        if tops[host.name] == top:
            host.start()
    for _ in range(LONGEST_LOOKS):
        world.read_log()
        if world.books.keeper.height >= top:
            break
        await asyncio.sleep(LOOK_S)
    for host in world.hosts.values():
        if not host.up and host.stopped is None and host.name not in world.gone:
            host.start()


def _give(holder: SimulatedHost, to: SimulatedHost) -> None:
    """Copies the final blocks that the log has lost: the votes of those that are left may be too few for them, and
    nobody votes for a block that is so old."""
    source = next(holder.disk.folder.rglob("read-model.db"))
    with closing(sqlite3.connect(next(to.disk.folder.rglob("read-model.db")))) as database:
        database.execute("ATTACH ? AS other", (str(source),))
        with database:
            database.execute("INSERT OR REPLACE INTO kept SELECT * FROM other.kept WHERE final = 1")


def _forget_votes(world: World, host: SimulatedHost, above: int) -> None:
    final = world.losses.blocks | {height: name for height, (name, _) in world.final.items()}
    for path in host.disk.folder.rglob("read-model.db"):
        with closing(sqlite3.connect(path)) as database, database:
            votes = database.execute("SELECT height, block FROM votes WHERE height > ?", (above,)).fetchall()
            for height, block in votes:
                if final.get(height) != block:
                    database.execute("DELETE FROM votes WHERE height = ?", (height,))
                    database.execute("DELETE FROM kept WHERE height = ? AND final = 0", (height,))
                    world.votes.pop((host.name, height), None)


def _validators(world: World) -> list[SimulatedHost]:
    """The honest ones that are there."""
    hosts = [world.hosts[f"proposer {index}"] for index in range(world.plan.proposers)]
    return [host for host in hosts if host.name not in world.gone and host.key.address not in world.plan.liars]


def _bound(host: SimulatedHost, height: int) -> dict[str, set[str]]:
    """For which block of a height the validator's disk has votes, and whose: its own, or all those of a final one."""
    final = "SELECT hash, votes FROM kept WHERE height = :at AND final = 1"
    final += " UNION SELECT lower(hex(hash)), votes FROM blocks WHERE height = :at"
    for row in _read(host, final, height):
        return {str(row[0]): {each["validator"] for each in json.loads(row[1])} | {host.key.address}}
    own = "SELECT block FROM votes WHERE height = :at"
    return {str(row[0]): {host.key.address} for row in _read(host, own, height)}


def _top(host: SimulatedHost) -> int:
    """The height of the newest block that was final here."""
    heights = "SELECT max(height) FROM (SELECT height FROM blocks UNION SELECT height FROM kept WHERE final = 1)"
    return max((int(row[0] or 0) for row in _read(host, heights, 0)), default=0)


def _read(host: SimulatedHost, query: str, height: int) -> list[tuple[Any, ...]]:
    path: Path | None = next(host.disk.folder.rglob("read-model.db"), None)
    if path is None:
        return []
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query, {"at": height}).fetchall()
