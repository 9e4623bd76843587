"""Makes the golden log of this version: `python -m tests.golden.generate` in the root of the repository.

Keys, times and words are fixed, so the same rules give the same bytes. A released golden log is never made again: a
later version of the rules has a log of its own, and must still read this one.
"""

import io
from pathlib import Path

from events.canonical import canonical
from projections.audit import Auditor
from projections.log_file import LogWriter
from schemas.events import (
    FaucetRequested,
    JobAssigned,
    JobCancelled,
    JobCommitted,
    JobFailed,
    JobRefunded,
    JobRevealed,
    JobSettled,
    JobSubmitted,
    Requirement,
    TransferSent,
)
from schemas.services import BlobMatrix, MatmulInt8
from tests.projections.small_network import SmallNetwork, digest_of, key_of

FOLDER = Path(__file__).parent
LOG = FOLDER / "rules-1.ndjson"
ROOTS = FOLDER / "rules-1.roots.json"


def payments(network: SmallNetwork) -> None:
    """Transfers and the faucet, with every way in which they fail."""
    alice = key_of("alice").address
    network.block(network.transfer(), network.transfer(5, memo='Grüße, "Bob"\n\x01'))
    network.block(
        network.transfer(10**12),
        network.transfer(7, to="alice"),
        network.say("bob", TransferSent, to="UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", amount=1),
        network.say("carol", FaucetRequested, amount=10_000_000),
        network.say("carol", FaucetRequested, amount=10_000_001),
        network.say("carol", FaucetRequested, amount=9_000_000),
        network.say("carol", FaucetRequested, amount=2_000_000),
    )
    network.block(network.transfer(1, gas_price=3), network.say("carol", TransferSent, to=alice, amount=123_456))


def refused_jobs(network: SmallNetwork) -> None:
    """What nobody may do, in one block: each fails with its own reason."""
    miner, none = key_of("miner 0").address, digest_of("none")
    wide = MatmulInt8(
        a=BlobMatrix(rows=3, columns=4, digest=digest_of("a")), b=BlobMatrix(rows=5, columns=3, digest=digest_of("b"))
    )
    open_job = network.submit("alice", side=2_000, escrow=100)
    network.block(
        open_job,
        network.submit("alice", escrow=10**12),
        network.submit("alice", timeout_ms=60_001),
        network.submit("alice", lifetime_ms=600_001),
        network.say(
            "alice", JobSubmitted, work=wide, escrow=1, lifetime_ms=1, timeout_ms=1, requirement=Requirement(memory_mib=0)
        ),
        network.say("bob", JobCancelled, job=open_job.id),
        network.say("bob", JobCancelled, job=none),
        network.say("bob", JobAssigned, job=open_job.id, miner=miner, price=800_000),
        network.say("coordinator", JobAssigned, job=none, miner=miner, price=1),
        network.say("coordinator", JobAssigned, job=open_job.id, miner=key_of("bob").address, price=1),
        network.say("coordinator", JobAssigned, job=open_job.id, miner=miner, price=1),
        network.say("coordinator", JobAssigned, job=open_job.id, miner=miner, price=800_000),
        network.say("miner 0", JobCommitted, job=open_job.id, root=none, result=none, size=1),
        network.say("miner 0", JobRevealed, job=open_job.id, receipt_sig="A" * 86),
        network.say("coordinator", JobSettled, job=open_job.id, receipt_sig="A" * 86),
        network.say("coordinator", JobFailed, job=open_job.id, miner=miner, reason="RESULT_WRONG"),
        network.say("bob", JobRefunded, job=open_job.id, reason="NO_MINER"),
    )
    network.block(network.say("coordinator", JobRefunded, job=open_job.id, reason="NO_MINER"))


def finished_jobs(network: SmallNetwork) -> None:
    """Jobs that are settled at once, settled by the second miner, refunded after two failures, and cancelled."""
    network.block(network.register("miner 0"), network.register("miner 1", capacity=1))
    refused_jobs(network)
    network.run_job()

    job = network.submit("bob", requirement=Requirement(memory_mib=80_000)).id
    network.block(*[event for event in [network.submit("alice", requirement=Requirement(memory_mib=200_000))]])
    del job


