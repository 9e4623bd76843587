"""What must hold at the end of every seed."""

import json
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from events import subjects
from events.errors import Divergence, SequenceGap, VerificationFailed
from projections.audit import Auditor
from schemas.services import MatmulInt8
from tests.projections.small_network import key_of
from tests.simulation.clients import Asker, Signer
from tests.simulation.plan import CHAIN
from tests.simulation.stand_in import right_result
from tests.simulation.world import SimulatedHost, World

CLEAR = (Divergence, SequenceGap, VerificationFailed)


def find_what_is_missing(world: World, signers: Sequence[Signer], askers: Sequence[Asker]) -> None:
    """Says what has not come to an end although nothing has gone wrong for long."""
    books = world.books
    for signer in signers:
        if signer.left:
            world.violate(f"liveness: {signer.name} still has {signer.left} wishes")
        for name, signed in signer.wanted.items():
            if name not in books.places:
                world.violate(f"liveness: {signer.name}'s event {signed.event.nonce} {name[:12]} is in no final block")
                break
    for asker in askers:
        missing = [key for key in asker.wanted if not books.memos[key]]
        if missing:
            world.violate(f"liveness: {missing} of {asker.name} are in no final block ({asker.answered})")
    for job in books.keeper.unfinished:
        world.violate(f"liveness: job {job[:12]} has not ended: {books.keeper.jobs[job]}")


def find_other_ledgers(world: World) -> None:
    """After a loss of the log's tail: whoever has not stopped holds the log's own blocks.

    A node that is ahead of the shortened log can learn of the loss only from what the log says next.
    """
    check_honesty(world)
    _check_audit(world)
    hashes = {block.header["height"]: block.hash for block in world.books.blocks}
    _check_stops(world, frozenset(world.hosts))
    for name, node in world.nodes.items():
        if node.height in hashes and hashes[node.height] != node.chain.head_hash:
            world.violate(f"{name} is at another block of height {node.height} than the log, and has not noticed")


def find_undetected(world: World, latecomer: SimulatedHost, hit: int) -> None:
    """After bits were flipped: a reader of the log stops at a final block that was changed."""
    if hit and not isinstance(latecomer.stopped, Divergence):
        world.violate(f"a flipped bit in block {hit} was read over: {latecomer.stopped!r}")
    if isinstance(latecomer.stopped, Divergence) and hit and latecomer.stopped.height != hit:
        world.violate(f"a flipped bit in block {hit} was found at height {latecomer.stopped.height}")


def _check_stops(world: World, may_stop: frozenset[str]) -> None:
    """Nobody stops but those that have a reason to, with a clear message."""
    for host in world.hosts.values():
        if host.stopped is not None and (host.name not in may_stop or not isinstance(host.stopped, CLEAR)):
            world.violate(f"{host.name} has stopped: {type(host.stopped).__name__}: {host.stopped}")


def find_violations(world: World, signers: Sequence[Signer], askers: Sequence[Asker]) -> None:
    """Compares the log, the books and what the nodes believe."""
    for problem in world.books.problems:
        world.violate(problem)
    for failure in world.loop.failures:
        world.violate(f"a failure that nobody handled: {failure.get('message')}: {failure.get('exception')!r}")
    check_honesty(world)
    if world.plan.scenario != "bit flip":
        _check_audit(world)
    _check_ends(world)
    _check_nodes(world)
    _check_acknowledged(world)
    for asker in askers:
        for key in asker.wanted:
            if world.books.memos[key] > 1:
                world.violate(f"the wallet's request {key} is in the log {world.books.memos[key]} times")


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
        if beyond or world.plan.scenario != "lost tail":
            world.violate(f"the audit fails, {beyond} are further: {error}")
        return
    if world.books.blocks and auditor.totals().head != world.books.blocks[-1].hash:
        world.violate(f"the audit ends at height {auditor.height} with another head than the books")


def check_honesty(world: World) -> None:
    """No honest proposer is to be convicted: one block for a round, one vote for a height."""
    liar = key_of(f"proposer {world.plan.proposers - 1}").address if world.plan.byzantine else ""
    for (proposer, height, turn), blocks in world.books.proposals.items():
        if proposer != liar and len(blocks) > 1:
            world.violate(f"{proposer[:8]} has signed {len(blocks)} blocks for round {turn} of height {height}")
    for (name, height), voted in world.votes.items():
        if key_of(name).address != liar and len(voted) > 1:
            world.violate(f"{name} has voted for {len(voted)} blocks of height {height}")


def _check_ends(world: World) -> None:
    """Every job once; only the right result is paid."""
    keeper = world.books.keeper
    for job, ends in keeper.ends.items():
        if len(ends) > 1:
            world.violate(f"job {job[:12]} ended {len(ends)} times: {ends}")
        if ends == ["settled"] and keeper.results[job] != _right_digest(keeper.jobs[job]["event"]["work"]):
            world.violate(f"job {job[:12]} was paid for a wrong result")


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
            world.violate(f"nodes hold another block at height {height} than the log")
    flipped = world.plan.scenario == "bit flip"
    _check_stops(world, frozenset(world.hosts) if flipped else frozenset())
    for name, node in world.nodes.items():
        state = node.state
        if node.height != head.height:
            if flipped:
                continue  # a vote was hit: what it had made final last is not known to be
            world.violate(f"{name} is at height {node.height}, the log at {head.height}")
            continue
        supply = state.supply()
        if supply.genesis != total or supply.burned != head.balances["burned"]:
            world.violate(f"{name} has burned {supply.burned}, the books say {head.balances['burned']}")
        for address, balance in head.balances.items():
            if address.startswith("U") and state.account(address).balance != balance:
                found = state.account(address).balance
                world.violate(f"{name} says that {address} has {found}, the books say {balance}")


def _check_acknowledged(world: World) -> None:
    """Everything that the server took is in the log, was refused with a reason, or can have no effect any more."""
    keeper = world.books.keeper
    for name, (data, since_ms) in world.acknowledged.items():
        if name in world.books.places or name in world.refused:
            continue
        if world.loop.now_ms() - since_ms > world.limits.inbox_age_s * 1_000:
            continue  # expired
        body = json.loads(data)["body"]
        sender, nonce = body["sender"], body["nonce"]
        if nonce < keeper.nonces[sender]:
            continue  # another event has used its nonce
        waits = world.network.streams[subjects.stream(CHAIN, "INBOX")]
        if nonce > keeper.nonces[sender] and any(message.data == data for message in waits.messages.values()):
            continue  # waits for the events before it
        world.violate(f"event {name[:12]} (nonce {nonce} of {sender[:8]}) was acknowledged and is gone")
