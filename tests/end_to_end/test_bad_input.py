"""Bad input of every kind against a network of processes: each gets its typed answer, and the network goes on.

An event that cannot be included is refused on its sender's live subject; one that can, and is in vain, has its failure
in a block; a job that goes wrong ends refunded, or settled by an honest miner, with the reasons of its attempts. After
every test a good transfer becomes final, and no process has died; at the end the whole log passes an audit.

What waits longer in the mempool than an event may is not here, because a devnet's mempool keeps events for an hour:
tests/actors/test_mempool.py and test_admission.py have it.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from nats.js.errors import APIError

from actors.command_line.options import Display, Network
from actors.command_line.verify_job import verify_job
from actors.devnet import Devnet
from actors.devnet_files import Plan
from actors.services.npy import header_bytes
from events.envelope import MAX_EVENT_BYTES
from events.errors import MessageTooLarge
from events.receipts import sign_receipt
from projections.receipts import receipt_of
from schemas import refusals
from schemas.blocks import Applied, Failed
from schemas.events import (
    Body,
    JobAssigned,
    JobCancelled,
    JobCommitted,
    JobFailed,
    JobRefunded,
    JobSettled,
    MinerRegistered,
    TransferSent,
)
from schemas.refusals import Refusal
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix
from schemas.state import Attempt, Job, Open, Refunded, Settled
from tests.end_to_end.bad_events import FAILED, REFUSED, UNREADABLE, multisig_address, signed_bytes
from tests.end_to_end.bad_files import BAD_FILES, GOOD, npy
from tests.end_to_end.bad_log import GARBAGE, IN_THE_LOG
from tests.end_to_end.client import ESCROW, seeded_work, uploaded_work
from tests.end_to_end.lies import LIES, PRODUCT, WORK, nothing_at_all
from tests.end_to_end.strangers import (
    COINS,
    FRIEND,
    NO_JOB,
    NO_SIGNATURE,
    NOBODY,
    PATIENCE_S,
    TERMS,
    Ground,
    Liar,
    Party,
    gather,
    open_ground,
    root_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """Three proposers, a coordinator and an honest miner, for all tests here."""
    directory = tmp_path_factory.mktemp("bad-input")
    plan = Plan(miners=1, wallet=False, parameters=TERMS)
    async with Devnet(directory / "net", plan) as devnet:
        ground = await open_ground(devnet)
        yield ground
        await ground.close(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def ground(network: Ground) -> AsyncIterator[Ground]:
    """The network, which must go on after the test."""
    yield network
    await network.leave()
    await network.goes_on()


# --- events that cannot be included ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_cannot_be_read_is_refused(ground: Ground, case: str) -> None:
    """Bytes that are no event are refused on the live subject of the inbox that they lie in, with a hint."""
    write, expected = UNREADABLE[case]
    party = await ground.party()
    await ground.publish(party.address, write(party))
    assert type(await party.refusal()) is expected


@pytest.mark.parametrize("size", [MAX_EVENT_BYTES + 1, MAX_EVENT_BYTES + 100_000])
async def test_the_bus_does_not_send_what_is_too_large(ground: Ground, size: int) -> None:
    """An event above the limit is an error at once for whoever uses the bus."""
    party = await ground.party()
    with pytest.raises(MessageTooLarge):
        await ground.bus.submit(party.address, b"x" * size)


async def test_the_server_does_not_store_what_is_too_large(ground: Ground) -> None:
    """The stock client gets the server's error for a message above the inbox's own limit."""
    party = await ground.party()
    with pytest.raises(APIError, match="message size exceeds maximum allowed"):
        await ground.publish(party.address, b"x" * (MAX_EVENT_BYTES + 100_000))


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_included_is_refused(ground: Ground, case: str) -> None:
    """An event that no block can hold is refused with the numbers that say why, and costs nothing."""
    write, expected = REFUSED[case]
    party = await ground.party()
    data = write(party)
    await ground.publish(party.address, data)
    event_id = hashlib.sha256(data[len(b'{"body":') : -len(',"sig":""}') - 86]).hexdigest()
    assert await party.refusal(event_id) == expected(party)
    assert await party.balance() == COINS


async def test_an_old_nonce_is_refused(ground: Ground) -> None:
    """A nonce that a block has used is too low."""
    party = await ground.party()
    await party.say(TransferSent, to=FRIEND.address, amount=1)
    late = party.signed(TransferSent, nonce=0, to=FRIEND.address, amount=2)
    await party.submit(late)
    assert await party.refusal(late.id) == refusals.NonceTooLow(expected=1, found=0)


async def test_a_nonce_that_is_taken_is_refused(ground: Ground) -> None:
    """Of two events with one nonce the first one waits; a higher price takes its place."""
    party = await ground.party()
    first, second, dear = (
        party.signed(TransferSent, nonce=1, gas_price=price, to=FRIEND.address, amount=amount)
        for price, amount in ((10, 1), (10, 2), (11, 3))
    )
    await party.submit(first, second)
    assert await party.refusal(second.id) == refusals.NonceTaken(pending=first.id, needed_gas_price=11)
    await party.submit(dear)
    assert await party.refusal(first.id) == refusals.NonceTaken(pending=dear.id, needed_gas_price=13)
    await party.say(TransferSent, to=FRIEND.address, amount=1)
    assert isinstance(await party.outcome(dear), Applied)


async def test_who_has_nothing_is_refused(ground: Ground) -> None:
    """An address without coins cannot say anything that costs."""
    party = await ground.party(coins=0)
    event = party.sign(TransferSent, to=FRIEND.address, amount=1)
    await party.submit(event)
    assert await party.refusal(event.id) == refusals.InsufficientBalance(needed=1_000, available=0)


async def test_an_event_in_the_inbox_of_another_is_refused_there(ground: Ground) -> None:
    """What lies in the wrong inbox is refused to the inbox's owner, and has no effect for its sender."""
    victim, thief = await gather(ground.party(), ground.party(coins=0))
    event = victim.sign(TransferSent, to=FRIEND.address, amount=1)
    await ground.publish(thief.address, event.raw)
    assert await thief.refusal(event.id) == refusals.WrongSubject(subject=thief.address, sender=victim.address)
    assert await victim.balance() == COINS


async def test_nobody_can_sign_for_a_multisignature_account(ground: Ground) -> None:
    """An address that is no key can neither sign nor have coins that it could lose."""
    party = await ground.party(coins=0)
    address = multisig_address()
    listener = ground.bus.listen_live(address, "refused")
    await listener.ready()
    await ground.publish(address, signed_bytes(party, party.transfer(sender=address)))
    async with asyncio.timeout(PATIENCE_S):
        told = json.loads((await anext(aiter(listener))).data)
    await listener.close()
    assert told["refusal"] == {"code": "INSUFFICIENT_BALANCE", "available": 0, "needed": 1_000}


async def test_an_event_said_again_has_one_effect(ground: Ground) -> None:
    """The same envelope, published again and again before and after its block, moves coins once."""
    party = await ground.party()
    event = party.sign(TransferSent, to=FRIEND.address, amount=100)
    await party.submit(event, event, event)
    assert isinstance(await party.outcome(event), Applied)
    await party.submit(event, event)
    assert isinstance(await party.say(TransferSent, to=FRIEND.address, amount=10), Applied)
    assert await party.balance() == COINS - 100 - 10 - 2 * 1_000


@pytest.mark.parametrize("owner", ["nobody", "x" * 3_000, "☃", "_", "$JS"])
async def test_inboxes_of_no_address_disturb_nobody(ground: Ground, owner: str) -> None:
    """Who writes into an inbox that belongs to no address is not even told."""
    party = await ground.party()
    await ground.publish(owner, party.signed(TransferSent, to=FRIEND.address, amount=1).raw)
    assert isinstance(await party.say(TransferSent, to=FRIEND.address, amount=1), Applied)


# --- events that are included in vain --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", FAILED)
async def test_what_is_in_vain_fails_in_its_block(ground: Ground, case: str) -> None:
    """An event that can pay but not act is in a block with its reason: it uses its nonce and costs its fee, no more."""
    record, fields, expected = FAILED[case]
    party = await ground.party()
    if record is MinerRegistered:
        devices = msgspec.convert(fields(party)["devices"], MinerRegistered.__annotations__["devices"])
        outcome = await party.say(record, **(fields(party) | {"devices": devices}))
    else:
        outcome = await party.say(record, **fields(party))
    assert isinstance(outcome, Failed)
    assert outcome.refusal == expected(party)
    assert await party.balance() == COINS - outcome.fee
    assert outcome.fee > 0


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        (JobAssigned, {"miner": FRIEND.address, "price": 0}),
        (JobSettled, {"receipt_sig": NO_SIGNATURE}),
        (JobFailed, {"miner": FRIEND.address, "reason": "MINER_FAILED"}),
        (JobRefunded, {"reason": "NO_MINER"}),
    ],
)
async def test_a_false_coordinator_decides_nothing(ground: Ground, record: type[Body], fields: dict[str, Any]) -> None:
    """Who is no coordinator can neither assign, settle, fail nor refund an open job, and pays for trying."""
    owner, stranger = await gather(ground.party(), ground.party())
    job = await owner.submit_job(seeded_work(2), requirement=ground.only(NOBODY.address))
    outcome = await stranger.say(record, job=job, **fields)
    assert isinstance(outcome, Failed)
    assert outcome.refusal == refusals.NotCoordinator(sender=stranger.address)
    assert outcome.fee > 0
    assert isinstance(await owner.say(JobCancelled, job=job), Applied)


async def test_only_its_owner_cancels_a_job(ground: Ground) -> None:
    """Somebody else's cancellation fails, the owner's gives the escrow back."""
    owner, stranger = await gather(ground.party(), ground.party())
    job = await owner.submit_job(seeded_work(2), requirement=ground.only(NOBODY.address))
    outcome = await stranger.say(JobCancelled, job=job)
    assert isinstance(outcome, Failed)
    assert outcome.refusal == refusals.NotYourJob(job=job, owner=owner.address)
    assert isinstance(await owner.say(JobCancelled, job=job), Applied)
    assert await owner.balance() == COINS - 10_000 - 5_000


# --- jobs with bad inputs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BAD_FILES)
async def test_a_job_with_a_bad_file_is_refunded(ground: Ground, case: str, tmp_path: Path) -> None:
    """An input that is not the matrix that the job says ends the job before any miner has it; nothing is unpickled."""
    owner = await ground.party()
    trap, path = tmp_path / "trap", tmp_path / "a.npy"
    path.write_bytes(BAD_FILES[case](trap))
    digest = await ground.bus.put_blob(owner.address, path)
    good = SeededMatrix(rows=8, columns=8, seed=NO_JOB)
    job = await owner.submit_job(MatmulInt8(a=BlobMatrix(rows=8, columns=8, digest=digest), b=good))
    ended = await owner.ended(job)
    assert isinstance(ended.situation, Refunded)
    assert (ended.situation.reason, ended.attempts) == ("BAD_INPUT", ())
    assert await owner.balance(ended.situation.ended_height) == COINS - 10_000
    assert not trap.exists()


async def test_jobs_without_their_files_are_refunded(ground: Ground, tmp_path: Path) -> None:
    """A blob that was never uploaded, one that is not whole, and one that does not match its digest end their jobs;
    jobs of others do not wait for them."""
    owner, other = await gather(ground.party(), ground.party())
    parts = {
        "BLOB_UNAVAILABLE": [],
        "BLOB_UNAVAILABLE once more": [(b"the first of two chunks", "0/2")],
        "BAD_INPUT": [(npy(GOOD), "0/1")],
        "BAD_INPUT once more": [(b"nonsense", "0/1"), (b"x" * 100, "0/1"), (b"?", "9/7"), (b"?", "-1/0")],
    }
    jobs = {}
    for case, chunks in parts.items():
        digest = hashlib.sha256(case.encode()).hexdigest()
        for data, position in chunks:
            subject = f"assay.{ground.chain}.blob.{owner.address}.{digest}"
            await ground.raw.jetstream().publish(subject, data, headers={"Assay-Chunk": position})
        matrix = BlobMatrix(rows=8, columns=8, digest=digest)
        jobs[case] = await owner.submit_job(MatmulInt8(a=matrix, b=matrix))
    work = await uploaded_work(ground.bus, other.address, tmp_path, 1)
    good = await other.ended(await other.submit_job(work, requirement=ground.only(ground.honest)))
    assert isinstance(good.situation, Settled)
    assert isinstance((await other.job_at(jobs["BAD_INPUT"], other.height)).situation, Open)
    for case, job in jobs.items():
        ended = await owner.ended(job)
        assert isinstance(ended.situation, Refunded)
        assert (ended.situation.reason, ended.attempts) == (case.partition(" ")[0], ())


# --- miners that lie -------------------------------------------------------------------------------------------------


async def settled_by_the_honest(ground: Ground, owner: Party, liar: Liar, job: str, reason: str) -> Job:
    """The job, which must have ended well after the liar's attempt; only the honest miner is paid."""
    ended = await owner.ended(job)
    assert isinstance(ended.situation, Settled), ended
    assert ended.attempts == (Attempt(miner=liar.address, reason=reason),)
    assert ended.situation.assignment.miner == ground.honest
    assert ended.situation.commitment.root == root_of(PRODUCT)
    assert await owner.balance(ended.situation.ended_height) == COINS - 10_000 - ended.situation.assignment.price
    assert await liar.balance(ended.situation.ended_height) <= COINS - 10_000
    return ended


@pytest.mark.parametrize("case", LIES)
async def test_a_lying_miner_loses_the_job_to_an_honest_one(ground: Ground, case: str, tmp_path: Path) -> None:
    """The attempt of a miner that brings a wrong result, or none, is on record with its reason, and is not paid."""
    lie, reason = LIES[case]
    owner, liar = await gather(ground.party(), ground.liar())
    timeout_ms = 5_000 if lie is nothing_at_all else 30_000
    both = ground.only(liar.address, ground.honest)
    job = await owner.submit_job(WORK, requirement=both, timeout_ms=timeout_ms)
    await liar.is_assigned(job)
    await lie(ground, liar, job, tmp_path / "result.npy")
    await settled_by_the_honest(ground, owner, liar, job, reason)
    assert not (tmp_path / "trap").exists()


async def test_the_verdict_on_a_lie_is_repeated_by_anyone(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the log and the blobs of the network, both of the wrong result and of the right one."""
    lie, reason = LIES["wrong in one entry"]
    owner, liar = await gather(ground.party(), ground.liar())
    job = await owner.submit_job(WORK, requirement=ground.only(liar.address, ground.honest))
    await liar.is_assigned(job)
    await lie(ground, liar, job, tmp_path / "result.npy")
    await settled_by_the_honest(ground, owner, liar, job, reason)
    genesis, network = ground.devnet.files.genesis_file, Network(url=ground.devnet.url, chain=ground.chain)
    capsys.readouterr()
    await verify_job(job, genesis=genesis, network=network, display=Display(output="json"))
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert [each["on_record"] for each in found["attempts"]] == [reason, "SETTLED"]


async def test_a_miner_that_reveals_without_a_result_loses_the_job(ground: Ground) -> None:
    """Nothing uploaded, or something else than what was committed; meanwhile nobody but a coordinator can settle."""
    owner = await ground.party()
    size = len(header_bytes("int32", 16, 16)) + PRODUCT.nbytes

    async def lies(blob: bytes | None) -> None:
        liar = await ground.liar()
        job = await owner.submit_job(WORK, requirement=ground.only(liar.address, ground.honest))
        await liar.is_assigned(job)
        result = hashlib.sha256(f"{blob!r}".encode()).hexdigest()
        if blob is not None:
            await ground.raw.jetstream().publish(f"assay.{ground.chain}.blob.{liar.address}.{result}", blob)
        height = await liar.commit(job, root_of(PRODUCT), result, size)
        receipt = receipt_of(job, await liar.job_at(job, height), ground.chain)
        assert isinstance(await liar.reveal(job, height), Applied)
        outcome = await liar.say(JobSettled, job=job, receipt_sig=sign_receipt(receipt, liar.key))
        assert isinstance(outcome, Failed)
        assert outcome.refusal == refusals.NotCoordinator(sender=liar.address)
        ended = await owner.ended(job)
        assert isinstance(ended.situation, Settled)
        assert ended.attempts == (Attempt(miner=liar.address, reason="RESULT_UNAVAILABLE"),)
        assert ended.situation.assignment.miner == ground.honest

    await gather(lies(None), lies(b"something else"))


async def test_a_miner_cannot_commit_for_the_job_of_another(ground: Ground) -> None:
    """Commitment, reveal and surrender of a job that is another's fail; the other goes on as if nothing were."""
    owner = await ground.party()
    holder, envious = await ground.liar(), await ground.liar()
    job = await owner.submit_job(WORK, requirement=ground.only(holder.address))
    await holder.is_assigned(job)
    not_yours = refusals.NotYourJob(job=job, owner=holder.address)
    said: list[tuple[type[Body], dict[str, Any], Refusal]] = [
        (JobCommitted, {"root": root_of(PRODUCT), "result": NO_JOB, "size": 1}, not_yours),
        (JobFailed, {"miner": holder.address, "reason": "LAZY"}, refusals.NotCoordinator(sender=envious.address)),
        (JobFailed, {"miner": envious.address, "reason": "LAZY"}, refusals.NotCoordinator(sender=envious.address)),
    ]
    for record, fields, expected in said:
        outcome = await envious.say(record, job=job, **fields)
        assert isinstance(outcome, Failed)
        assert outcome.refusal == expected
        assert outcome.fee > 0
    assert isinstance(await holder.say(JobFailed, job=job, miner=holder.address, reason="MINER_FAILED"), Applied)
    assert isinstance(await owner.say(JobCancelled, job=job), Applied)


async def test_a_job_that_every_miner_fails_is_refunded(ground: Ground) -> None:
    """After as many failed attempts as the chain allows the escrow goes back, with both reasons on record."""
    owner = await ground.party()
    liars = [await ground.liar(), await ground.liar()]
    job = await owner.submit_job(WORK, requirement=ground.only(*(liar.address for liar in liars)))
    first, second = sorted(liars, key=lambda liar: liar.address)
    for liar, reason in ((first, "TIRED"), (second, "BORED")):
        await liar.is_assigned(job)
        assert isinstance(await liar.say(JobFailed, job=job, miner=liar.address, reason=reason), Applied)
    ended = await owner.ended(job)
    assert isinstance(ended.situation, Refunded)
    assert ended.situation.reason == "BORED"
    assert ended.attempts == (
        Attempt(miner=first.address, reason="TIRED"),
        Attempt(miner=second.address, reason="BORED"),
    )
    assert await owner.balance(ended.situation.ended_height) == COINS - 10_000


async def test_a_job_that_nobody_takes_expires(ground: Ground) -> None:
    """When its lifetime ends, the escrow of an open job goes back without anyone saying so."""
    owner = await ground.party()
    job = await owner.submit_job(WORK, requirement=ground.only(NOBODY.address), lifetime_ms=300)
    ended = await owner.ended(job)
    assert isinstance(ended.situation, Refunded)
    assert (ended.situation.reason, ended.attempts) == ("EXPIRED", ())
    assert await owner.balance(ended.situation.ended_height) == COINS - 10_000


async def test_a_job_whose_price_is_too_low_expires(ground: Ground) -> None:
    """A miner that asks more than the escrow does not get the job."""
    owner = await ground.party()
    job = await owner.submit_job(WORK, requirement=ground.only(ground.honest), escrow=ESCROW // 100, lifetime_ms=300)
    ended = await owner.ended(job)
    assert isinstance(ended.situation, Refunded)
    assert ended.situation.reason == "EXPIRED"


# --- garbage in the log ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", IN_THE_LOG)
async def test_garbage_in_the_log_is_skipped(ground: Ground, case: str) -> None:
    """What somebody with access puts into the log without being a validator, or against the rules, changes nothing."""
    kind, write = IN_THE_LOG[case]
    before = await ground.rich.balance()
    await ground.inject(kind, await write(ground))
    assert isinstance(await ground.rich.say(TransferSent, to=FRIEND.address, amount=1), Applied)
    assert await ground.rich.balance() == before - 1_001


@pytest.mark.parametrize(
    "reply",
    [
        "assay.devnet.chain.block",
        "assay.devnet.chain.vote",
        f"assay.devnet.inbox.{FRIEND.address}",
        "assay.devnet.inbox.nobody",
        "assay.devnet.query.status",
        f"assay.devnet.live.{FRIEND.address}.refused",
        f"assay.devnet.feed.{FRIEND.address}",
        f"assay.devnet.blob.{FRIEND.address}.{NO_JOB}",
        "$JS.API.STREAM.PURGE.ASSAY_devnet_CHAIN",
        "$JS.API.STREAM.DELETE.ASSAY_devnet_CHAIN",
        "$JS.API.STREAM.PURGE.ASSAY_devnet_INBOX",
    ],
)
async def test_an_acknowledgement_can_be_led_anywhere_without_effect(ground: Ground, reply: str) -> None:
    """A reply subject on an inbox message makes the server itself publish there; nothing trusts it for that."""
    party = await ground.party()
    await ground.raw.publish(f"assay.{ground.chain}.inbox.{party.address}", b"garbage", reply=reply)
    assert isinstance(await party.refusal(), refusals.NotCanonical)
    assert isinstance(await party.say(TransferSent, to=FRIEND.address, amount=1), Applied)


@pytest.mark.parametrize("topic", ["feed", "live"])
@pytest.mark.parametrize("case", GARBAGE)
async def test_garbage_about_an_actor_does_not_disturb_it(ground: Ground, topic: str, case: str) -> None:
    """What is no feed message or no refusal is passed over by those that it is addressed to; they do the next job."""
    owner = await ground.party()
    for name in ("miner-1", "coordinator"):
        address = ground.devnet.key(name).address
        subject = f"assay.{ground.chain}.{topic}.{address}" + (".refused" if topic == "live" else "")
        await ground.raw.publish(subject, GARBAGE[case])
    job = await owner.submit_job(WORK, requirement=ground.only(ground.honest))
    ended = await owner.ended(job)
    assert isinstance(ended.situation, Settled)
    assert ended.attempts == ()


async def test_ids_that_somebody_used_before_hold_off_no_feed(ground: Ground) -> None:
    """Garbage under ids that the feed of the next blocks might have does not keep its owner from hearing of them."""
    party, sender = await gather(ground.party(coins=0), ground.party())
    height = (await ground.rich.last_block())["block"]["header"]["height"]
    subject = f"assay.{ground.chain}.feed.{party.address}"
    for ahead in range(1, 40):
        for guess in (f"{height + ahead}.{party.address}", f"{height + ahead}"):
            await ground.raw.jetstream().publish(subject, b"garbage", headers={"Nats-Msg-Id": guess})
    event = sender.sign(TransferSent, to=party.address, amount=1)
    await sender.submit(event)
    assert isinstance(await sender.outcome(event), Applied)
    feed = await ground.bus.read_feed(party.address, 0)
    heard: list[bytes] = []
    async with asyncio.timeout(PATIENCE_S):
        while not any(event.raw in data for data in heard):
            heard += [record.data for record in await feed.next(100, 1_000)]
    await feed.close()


@pytest.mark.parametrize("question", [b"", b"\xff", b"null", b"[" * 100_000, b"x" * 1_000_000, b'{"address":1}'])
@pytest.mark.parametrize("what", ["account", "block", "job", "proof"])
async def test_bad_questions_are_answered_with_what_is_wrong(ground: Ground, what: str, question: bytes) -> None:
    """A question that makes no sense gets a problem with code and hint, not silence."""
    answer = json.loads(await ground.bus.query(what, question))
    assert answer["answer"] == "problem"
    assert answer["problem"]["code"] == "BAD_INPUT"
    assert answer["problem"]["hint"]
