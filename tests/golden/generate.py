"""Makes the golden log of this version: `python -m tests.golden.generate` in the root of the repository.

Keys, times and words are fixed, so the same rules give the same bytes. A released golden log is never made again: a
later version of the rules has a log of its own, and must still read this one.
"""

import io
import json
from pathlib import Path

import msgspec

from events.blocks import hash_of
from events.canonical import canonical
from projections.audit import Auditor
from projections.log_file import LogWriter
from schemas.attestation import ExamAnswer, ExamOpening
from schemas.events import (
    AttestationClaimed,
    BondDeposited,
    BondUnlocked,
    BondWithdrawn,
    ExamCommitted,
    ExamJudged,
    ExamOpened,
    ExamRevealed,
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
from tests.golden import samples
from tests.projections.ledger import trust
from tests.projections.small_network import SmallNetwork, digest_of, key_of, make_genesis

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
            "alice",
            JobSubmitted,
            work=wide,
            escrow=1,
            lifetime_ms=1,
            timeout_ms=1,
            requirement=Requirement(memory_mib=0),
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
    miners = (key_of("miner 0").address, key_of("miner 1").address)
    refused_jobs(network)
    network.run_job()

    moved = network.submit("bob", requirement=Requirement(memory_mib=80_000, miners=miners))
    network.block(moved)
    network.block(network.assign(moved.id))
    network.block(network.say("coordinator", JobFailed, job=moved.id, miner=miners[0], reason="BLOB_UNAVAILABLE"))
    network.block(network.assign(moved.id), network.assign(moved.id, "miner 1"))
    network.block(network.commit(moved.id, "miner 0"), network.commit(moved.id, "miner 1"))
    network.block(network.say("miner 1", JobRevealed, job=moved.id, receipt_sig="A" * 86))
    network.block(network.reveal(moved.id, "miner 1"))
    network.block(network.say("coordinator", JobSettled, job=moved.id, receipt_sig="A" * 86), network.settle(moved.id))

    lost = network.submit()
    network.block(lost)
    network.block(network.assign(lost.id))
    network.block(network.say("miner 0", JobFailed, job=lost.id, miner=miners[0], reason="MINER_FAILED"))
    network.block(network.assign(lost.id, "miner 1"))
    network.block(network.commit(lost.id, "miner 1"))
    network.block(network.say("coordinator", JobFailed, job=lost.id, miner=miners[1], reason="RESULT_WRONG"))

    withdrawn = network.submit()
    network.block(withdrawn)
    network.block(network.say("alice", JobCancelled, job=withdrawn.id))


def bonds(network: SmallNetwork) -> None:
    """A bond goes in, is slashed for a wrong result, waits and comes back, with every way in which that fails."""
    network.block(
        network.say("alice", BondDeposited, amount=1),
        network.say("miner 0", BondDeposited, amount=10**12),
        network.say("miner 0", BondDeposited, amount=1_000_000),
        network.say("miner 0", BondUnlocked, amount=1_000_001),
        network.say("miner 0", BondWithdrawn),
        network.say("miner 0", BondUnlocked, amount=400_000),
        network.say("miner 0", BondWithdrawn),
    )
    wrong = network.submit()
    network.block(wrong)
    network.block(network.assign(wrong.id))
    network.block(network.commit(wrong.id), network.say("miner 0", BondUnlocked, amount=1))
    network.block(network.reveal(wrong.id))
    miner = key_of("miner 0").address
    network.block(network.say("coordinator", JobFailed, job=wrong.id, miner=miner, reason="RESULT_WRONG"))
    network.block(network.say("alice", JobCancelled, job=wrong.id))
    network.block(network.say("miner 0", BondWithdrawn), time_ms=network.chain.earliest_ms(0) + 60_000)


def exams(network: SmallNetwork) -> None:
    """Exams that are right, wrong, and never answered; a GPU that two claim; and every way in which they fail."""
    coordinator, miners = key_of("coordinator").address, [key_of(f"miner {index}").address for index in (0, 1)]
    claims = [network.say(f"miner {index}", AttestationClaimed, evidence=samples.evidence()) for index in (0, 1)]
    network.block(network.say("alice", AttestationClaimed, evidence=samples.evidence()), *claims)
    opened = network.say("coordinator", ExamOpened, miners=tuple(miners), cause="first")
    network.block(
        network.say("bob", ExamOpened, miners=tuple(miners), cause="first"),
        opened,
        network.say("coordinator", ExamOpened, miners=(coordinator,), cause="first"),
        network.say("coordinator", ExamOpened, miners=(miners[0],), cause="spot"),
        network.say("miner 0", AttestationClaimed, evidence=samples.evidence()),
    )
    answers = (ExamAnswer(gpu=samples.GPU, rows=10**9, root=samples.ROWS),)
    openings = (ExamOpening(gpu=samples.GPU, rows=samples.ROWS, size=1_000),)
    few = (ExamAnswer(gpu=samples.GPU, rows=1, root=samples.ROWS),)
    verdict = msgspec.structs.replace(samples.verdict(), exam=opened.id, miner=miners[0])
    network.block(
        network.say("miner 0", ExamCommitted, exam=samples.EXAM, answers=answers),
        network.say("miner 0", ExamCommitted, exam=opened.id, answers=few),
        network.say("miner 0", ExamRevealed, exam=opened.id, openings=openings),
        network.say("coordinator", ExamJudged, verdict=verdict),
    )
    network.block(
        *(network.say(f"miner {index}", ExamCommitted, exam=opened.id, answers=answers) for index in (0, 1)),
        time_ms=network.chain.earliest_ms(0) + 2_000,
    )
    network.block(*(network.say(f"miner {index}", ExamRevealed, exam=opened.id, openings=openings) for index in (0, 1)))
    second = msgspec.structs.replace(verdict, miner=miners[1])
    network.block(
        network.say("bob", ExamJudged, verdict=verdict),
        network.say("coordinator", ExamJudged, verdict=second),
        network.say("coordinator", ExamJudged, verdict=verdict),
    )
    spot = network.say("coordinator", ExamOpened, miners=(miners[1],), cause="spot")
    network.block(spot)
    missing = msgspec.structs.replace(samples.verdict().gpus[0], result="absent")
    absent = msgspec.structs.replace(second, exam=spot.id, gpus=(missing,))
    network.block(
        network.say("miner 1", ExamCommitted, exam=spot.id, answers=answers),
        network.say("coordinator", ExamJudged, verdict=msgspec.structs.replace(second, exam=spot.id)),
        network.say("coordinator", ExamJudged, verdict=absent),
        time_ms=network.chain.earliest_ms(0) + 10_000,
    )


def timers(network: SmallNetwork) -> None:
    """A deadline passes in each situation of a job; the last block holds nothing but timers."""
    jobs = [network.submit("alice", lifetime_ms=20_000) for _ in range(4)]
    waiting, assigned, committed, revealed = (job.id for job in jobs)
    network.block(*jobs)
    network.block(*[network.assign(job_id) for job_id in (assigned, committed, revealed)])
    network.block(network.commit(committed), network.commit(revealed))
    network.block(network.reveal(revealed))
    for wait_ms in (6_000, 5_000):
        network.block(network.transfer(), time_ms=network.chain.earliest_ms(0) + wait_ms)
    network.block(time_ms=network.chain.earliest_ms(0) + 30_000)
    job = network.chain.state.job(waiting)
    assert job is not None
    assert not network.chain.state.unfinished_jobs()
    network.block(network.register("miner 1", capacity=0))


def disturbances(network: SmallNetwork) -> None:
    """Messages that a reader skips, a take-over by round 1, two blocks at one height, and a second vote."""
    network.append("block", b"not JSON \xff\n")
    network.append("vote", b'{"canonical":"JSON, but no vote"}')
    network.append("block", canonical({"a": [1, "\u00e9", {}]}))
    stranger = key_of("stranger")
    network.append_vote(network.sign_vote_for(digest_of("x"), stranger))
    network.append_vote(network.sign_vote_for(digest_of("x"), network.validators[0], network.chain.height + 9))
    nonce = network.chain.state.account(key_of("alice").address).nonce
    network.block(network.transfer(1), round_number=1)

    first = network.build(network.transfer(2))
    network.append_block(first)
    network.append_block(network.build(network.transfer(3, nonce=nonce + 1)))
    network.append_block(network.build(network.transfer(4, nonce=nonce + 1), round_number=1))
    network.append_vote(network.sign_vote_for(digest_of("x"), network.validators[0]))
    for validator in network.validators:
        network.append_vote(network.sign_vote_for(hash_of(first.header), validator, network.chain.height + 1))
    network.append_block(first)
    assert network.chain.head_hash == hash_of(first.header)
    assert len(network.chain.evidence) == 2
    network.block(network.transfer(5))


def golden() -> tuple[bytes, bytes]:
    """The export, and as JSON the genesis hash and the state root at every height from 1."""
    network = SmallNetwork(make_genesis(trust=trust()))
    network.block(network.register("miner 0"), network.register("miner 1", capacity=1))
    payments(network)
    finished_jobs(network)
    bonds(network)
    exams(network)
    timers(network)
    disturbances(network)
    roots: list[str] = []
    auditor = Auditor(network.genesis, roots=lambda height, root: roots.append(root))
    file = io.BytesIO()
    writer = LogWriter(file, network.genesis)
    for entry in network.log:
        auditor.add(*entry)
        writer.add(*entry)
    writer.close(auditor.totals())
    found = {"genesis": auditor.chain.genesis_hash, "roots": roots}
    return file.getvalue(), json.dumps(found, indent=0).encode() + b"\n"


if __name__ == "__main__":
    for path, content in zip((LOG, ROOTS), golden(), strict=True):
        path.write_bytes(content)
