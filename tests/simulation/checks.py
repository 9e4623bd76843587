"""What must hold at the end of every seed."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from typing import Final

import msgspec

from events import subjects
from events.errors import Divergence, SequenceGap, VerificationFailed
from projections.audit import Auditor
from schemas.services import MatmulInt8
from tests.projections.small_network import key_of
from tests.simulation.clients import Asker, Signer
from tests.simulation.plan import CHAIN, key_for
from tests.simulation.stand_in import right_result
from tests.simulation.world import SimulatedHost, World

CLEAR = (Divergence, SequenceGap, VerificationFailed)

# An event that came so shortly before the end need not be in a block yet.
JUST_NOW_MS: Final = 5_000


def find_what_is_missing(world: World, signers: Sequence[Signer], askers: Sequence[Asker]) -> None:
    """Says what has not come to an end although nothing has gone wrong for long."""
    books = world.books
    for signer in signers:
        if signer.left:
            world.violate("liveness", f"{signer.name} still has {signer.left} wishes")
        for name, signed in signer.wanted.items():
            if name not in books.places:
                world.violate(
                    "liveness", f"{signer.name}'s event {signed.event.nonce} {name[:12]} is in no final block"
                )
                break
    for asker in askers:
        missing = [key for key in asker.wanted if not books.memos[key]]
        if missing:
            world.violate("liveness", f"{missing} of {asker.name} are in no final block ({asker.answered})")
    for job in books.keeper.unfinished:
        world.violate("liveness", f"job {job[:12]} has not ended: {books.keeper.jobs[job]}")


def find_other_ledgers(world: World) -> None:
    """After a loss of the log's tail where a third lies: whoever has not stopped holds the log's own blocks."""
    check_honesty(world)
    _check_audit(world)
    hashes = {block.header["height"]: block.hash for block in world.books.blocks}
    check_stops(world, frozenset(world.hosts))
    for name, node in world.nodes.items():
        if node.height in hashes and hashes[node.height] != node.chain.head_hash:
            world.violate(
                "agreement", f"{name} is at another block of height {node.height} than the log, and has not noticed"
            )


def find_undetected(world: World, latecomer: SimulatedHost, hit: int) -> None:
    """After bits were flipped: a reader of the log stops at a final block that was changed."""
    if hit and not isinstance(latecomer.stopped, Divergence):
        world.violate("flipped bits", f"a flipped bit in block {hit} was read over: {latecomer.stopped!r}")
    if isinstance(latecomer.stopped, Divergence) and hit and latecomer.stopped.height != hit:
        world.violate("flipped bits", f"a flipped bit in block {hit} was found at height {latecomer.stopped.height}")


def check_stops(world: World, may_stop: frozenset[str]) -> None:
    """Nobody stops but those that have a reason to, with a clear message."""
    for host in world.hosts.values():
        if host.stopped is not None and (host.name not in may_stop or not isinstance(host.stopped, CLEAR)):
            world.violate("stops", f"{host.name} has stopped: {type(host.stopped).__name__}: {host.stopped}")


def find_violations(world: World, askers: Sequence[Asker]) -> None:
    """Compares the log, the books and what the nodes believe."""
    for failure in world.loop.failures:
        world.violate(
            "failures", f"a failure that nobody handled: {failure.get('message')}: {failure.get('exception')!r}"
        )
    check_honesty(world)
    if world.plan.scenario != "bit flip":
        _check_audit(world)
    _check_ends(world)
    _check_verdicts(world)
    _check_times(world)
    _check_nodes(world)
    _check_lost_blocks(world)
    _check_acknowledged(world)
    if world.plan.scenario != "bit flip":
        for fault in _faults_of_feeds(world):
            world.violate("feeds", fault)
    for asker in askers:
        for key in asker.wanted:
            if world.books.memos[key] > 1:
                world.violate("once", f"the wallet's request {key} is in the log {world.books.memos[key]} times")


def _check_audit(world: World) -> None:
    """An audit of the log, which knows no server's stamps, ends where the books do."""
    log = world.chain_log()
    auditor = Auditor(world.genesis, threads=1)
    try:
        for message in log.messages.values() if log is not None else ():
            kind = "block" if message.subject == subjects.block(CHAIN) else "vote"
            auditor.add(message.sequence, kind, message.data)
        auditor.finish()
    except Divergence as error:
        # A damaged log is one thing, to go on writing over the damage another.
        beyond = [name for name, node in world.nodes.items() if node.height > auditor.height]
        if beyond or not world.plan.may_fork:
            world.violate("audit", f"the audit fails, {beyond} are further: {error}")
        return
    if world.books.blocks and auditor.totals().head != world.books.blocks[-1].hash:
        world.violate("audit", f"the audit ends at height {auditor.height} with another head than the books")


def check_honesty(world: World) -> None:
    """No honest proposer is to be convicted: one block for a round, one vote for a height."""
    liars = world.plan.liars
    for (proposer, height, turn), blocks in world.books.proposals.items():
        if proposer not in liars and len(blocks) > 1:
            world.violate(
                "honesty", f"{proposer[:8]} has signed {len(blocks)} blocks for round {turn} of height {height}"
            )
    for (name, height), voted in world.votes.items():
        if key_for(name).address not in liars and len(voted) > 1:
            world.violate("honesty", f"{name} has voted for {len(voted)} blocks of height {height}")


def _check_ends(world: World) -> None:
    """Every job in the nodes as in the books, where none ends twice; only the right result is paid."""
    keeper = world.books.keeper
    for job, ends in keeper.ends.items():
        if world.ends.get(job, []) != ends:
            world.violate("once", f"job {job[:12]} has ended {ends} in the books, {world.ends.get(job)} in the nodes")
        if ends == ["settled"] and keeper.results[job] != _right_digest(keeper.jobs[job]["event"]["work"]):
            world.violate("verdicts", f"job {job[:12]} was paid for a wrong result")


def _check_verdicts(world: World) -> None:
    """Only a liar's result is ever found to be wrong."""
    liars = {key_of(f"miner {index}").address for index, kind in enumerate(world.plan.miners) if kind == "lying"}
    for job, miner, reason in world.books.keeper.failures:
        if miner not in liars and reason in {"RESULT_WRONG", "RESULT_MALFORMED"}:
            world.violate("verdicts", f"{miner[:8]} computes honestly, and its result for {job[:12]} was {reason}")


def _check_times(world: World) -> None:
    """A final block's time is near the server's stamp of one of its messages."""
    limit_ms = world.genesis.parameters.max_drift_ms
    for block in world.books.blocks:
        distance_ms = min(abs(block.header["time_ms"] - stamp) for stamp in world.stamps[block.message])
        if distance_ms > limit_ms:
            world.violate("times", f"block {block.header['height']} is {distance_ms} ms from the server's time")


def all_have_heard(world: World) -> bool:
    """Whether every node that is up is at the head of the log, and every feed is complete."""
    world.read_log()
    head, alive = world.books.keeper.height, [host for host in world.hosts.values() if host.up]
    reading = [
        host.name for host in alive if host.name.startswith(("proposer", "coordinator", "observer", "latecomer"))
    ]
    at_head = all(name in world.nodes and world.nodes[name].height == head for name in reading)
    return at_head and not _faults_of_feeds(world)


def _faults_of_feeds(world: World) -> list[str]:
    """Whoever has an event in a final block finds the block in its feed, and the blocks there in their order.

    What a feed has lost it gets again only from a node that was behind, and then behind newer blocks.
    """
    found: list[str] = []
    feeds = world.network.streams[subjects.stream(CHAIN, "FEED")]
    wanted: dict[str, set[int]] = {}
    for block in world.books.blocks:
        for envelope in block.events:
            wanted.setdefault(envelope["body"]["sender"], set()).add(block.header["height"])
    for address, heights in wanted.items():
        subject = subjects.feed(CHAIN, address)
        told = [json.loads(message.data)["height"] for message in feeds.of_subject(subject, 0)]
        firsts = list(dict.fromkeys(told))
        lost = world.losses.feeds.get(subject, set())
        if missing := heights - set(told) - lost:
            found.append(f"{address[:8]} was not told of blocks {sorted(missing)}")
        elif firsts != sorted(firsts) and not lost:
            found.append(f"{address[:8]} was told of blocks in disorder: {firsts}")
    return found


def honest_miner_is_free(world: World) -> bool:
    """Whether the log knows it, and it has a place."""
    known = world.books.keeper.miners.get(key_of("miner 0").address)
    return known is not None and known["running"] < known["capacity"]


def takeable_jobs(world: World) -> list[str]:
    """Open jobs that the honest miner has a place for and has not had; such with blobs aside, which may be missing."""
    keeper, miner = world.books.keeper, key_of("miner 0").address
    if not honest_miner_is_free(world):
        return []
    return [
        name
        for name in keeper.unfinished
        if keeper.jobs[name]["state"] == "open"
        and miner not in keeper.jobs[name]["tried"]
        and all("seed" in keeper.jobs[name]["event"]["work"][each] for each in ("a", "b"))
    ]


def was_not_told(world: World, job: str) -> bool:
    """Whether the honest miner missed the job's deadline, and its feed has lost messages: others in their places are
    passed over by a miner that was away until then."""
    keeper, miner = world.books.keeper, key_of("miner 0").address
    missed = job in keeper.jobs and keeper.jobs[job]["tried"] == [miner] and job not in keeper.results
    failed = any(name == job for name, _, _ in keeper.failures)
    return missed and not failed and subjects.feed(CHAIN, miner) in world.losses.feeds


def crowded_inboxes(world: World) -> list[str]:
    """Subjects of senders that have used more than half of their places."""
    inboxes = world.network.streams[subjects.stream(CHAIN, "INBOX")]
    used = Counter(message.subject for message in inboxes.messages.values())
    return [subject for subject, count in used.items() if 2 * count > world.plan.inbox_places]


def left_undone(world: World) -> list[str]:
    """What actors still have to do although every job has ended: words in their outboxes, rows about jobs."""
    found: list[str] = []
    for host in world.hosts.values():
        if not host.up:
            continue
        for path in sorted(host.disk.folder.rglob("store.db")):
            with closing(sqlite3.connect(path)) as database:
                words = [key for (key,) in database.execute("SELECT key FROM outbox WHERE state = 'waiting'")]
                rows = [name for (name,) in database.execute("SELECT name FROM kept WHERE name LIKE '%/%'")]
            found += [f"{host.name} still has {each}" for each in (*words, *rows)]
    return found


def _have_forgotten(world: World, since_ms: int) -> bool:
    """Whether each validator has started anew after this time, or is dead: its memory is gone."""
    hosts = [host for host in world.hosts.values() if host.name.startswith("proposer")]
    return all(not host.up or host.bus.since_ms > since_ms for host in hosts)


def _right_digest(work: dict[str, object]) -> str:
    return sha256(right_result(msgspec.convert(work, MatmulInt8))).hexdigest()


def _check_nodes(world: World) -> None:
    """Whoever is up is at the head of the log, and believes what the books say."""
    books, head = world.books, world.books.keeper
    total = sum(allocation.balance for allocation in world.genesis.allocations)
    for block in books.blocks:
        height = block.header["height"]
        believed = world.final.get(height)
        if believed is not None and believed != (block.hash, block.header["state_root"]):
            world.violate("agreement", f"nodes hold another block at height {height} than the log")
    flipped = world.plan.scenario == "bit flip"
    check_stops(world, frozenset(world.hosts) if flipped else frozenset())
    for name, node in world.nodes.items():
        state = node.state
        if node.height != head.height:
            if flipped:
                continue  # a vote was hit: what it had made final last is not known to be
            world.violate("agreement", f"{name} is at height {node.height}, the log at {head.height}")
            continue
        supply = state.supply()
        if supply.genesis != total or supply.burned != head.balances["burned"]:
            world.violate("books", f"{name} has burned {supply.burned}, the books say {head.balances['burned']}")
        for address, balance in head.balances.items():
            if address.startswith("U") and state.account(address).balance != balance:
                found = state.account(address).balance
                world.violate("books", f"{name} says that {address} has {found}, the books say {balance}")


def _check_lost_blocks(world: World) -> None:
    """What was final once is in the log, whether a node had seen it or not."""
    there = {block.header["height"]: block.hash for block in world.books.blocks}
    once = world.losses.blocks | {height: name for height, (name, _) in world.final.items()}
    for height, name in sorted(once.items()):
        if height not in there:
            world.violate("lost blocks", f"block {height}, {name[:12]}, was final and is not in the log")
        elif there[height] != name:
            world.violate("lost blocks", f"block {height} was {name[:12]}, and is {there[height][:12]} now")


def _check_acknowledged(world: World) -> None:
    """Everything that the server took is in the log, was refused with a reason, or can have no effect any more."""
    keeper = world.books.keeper
    for name, (data, since_ms) in world.acknowledged.items():
        if name in world.books.places or name in world.refused:
            continue
        waited_ms = world.loop.now_ms() - world.sent[name]
        if waited_ms > world.limits.inbox_age_s * 1_000 or name in world.losses.events:
            continue  # expired, or lost with the end of the inboxes
        body = json.loads(data)["body"]
        sender, nonce = body["sender"], body["nonce"]
        if nonce < keeper.nonces[sender]:
            continue  # another event has used its nonce
        inboxes = world.network.streams[subjects.stream(CHAIN, "INBOX")]
        waits = any(message.data == data for message in inboxes.messages.values())
        if nonce > keeper.nonces[sender] and (waits or name in world.losses.unsafe):
            # Waits for the events before it. Where the server has lost messages and used their sequences again, a late
            # word about the lost one may have taken the place of this one: it waits in the validators' memory only.
            continue
        if not waits and name in world.losses.unsafe and _have_forgotten(world, since_ms):
            continue  # the same befell the next one before a block could take it, and then all validators
        if waits and world.loop.now_ms() - since_ms < JUST_NOW_MS:
            continue  # came when all else was done
        world.violate("acknowledged", f"event {name[:12]} (nonce {nonce} of {sender[:8]}) was acknowledged and is gone")
