"""Attestation through a network of processes: claims, exams on the processor, verdicts, and what they are worth."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from msgspec import UnsetType

from actors.command_line.miner_explain import explained
from actors.command_line.options import Display, Network
from actors.command_line.verify_exam import verify_exam
from actors.devnet import Devnet
from actors.devnet_files import PARAMETERS, Plan
from actors.profiles import DEVNET, TESTNET
from bus.jetstream import JetStreamBus
from events.canonical import canonical
from events.errors import NotFound
from projections.bonds import attested_of
from schemas.attestation import ExamVerdict
from schemas.messages import QueryAnswer, QueryRefused
from schemas.queries import AttestationAnswer, AttestationQuestion, MinerEntry, MinerQuestion, Question
from schemas.state import Attestation, Examined, Miner
from tests.end_to_end.client import Client, Follower, connect, seeded_work

PATIENCE_S = 60.0
# A settled job always draws its miner.
TRUST = msgspec.structs.replace(DEVNET, spot_check_bps=10_000)

_answers = msgspec.json.Decoder(QueryAnswer | QueryRefused)


async def ask(bus: JetStreamBus, what: str, question: Question, record: type) -> object:
    found = _answers.decode(await bus.query(what, canonical(question)))
    if isinstance(found, QueryRefused):
        raise NotFound(found.problem.detail)
    return msgspec.json.decode(found.value, type=record)


async def miner_of(bus: JetStreamBus, address: str) -> Miner:
    entry = await ask(bus, "miner", MinerQuestion(miner=address), MinerEntry)
    assert isinstance(entry, MinerEntry)
    return entry.miner


async def attestation_of(bus: JetStreamBus, address: str) -> Attestation:
    answer = await ask(bus, "attestation", AttestationQuestion(miner=address), AttestationAnswer)
    assert isinstance(answer, AttestationAnswer)
    return answer.attestation


async def until(found: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits for something that a node is to know."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if await found():
                    return
            except NotFound:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError(what)


async def repeated(devnet: Devnet, verdict: ExamVerdict, capsys: pytest.CaptureFixture[str]) -> None:
    """Repeats the verdict from what the network has."""
    network = Network(url=devnet.url, chain=devnet.chain)
    genesis = devnet.files.genesis_file
    capsys.readouterr()
    await verify_exam(
        verdict.exam, miner=verdict.miner, genesis=genesis, network=network, display=Display(output="json")
    )
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert found["verdicts"][0]["repeated"] == json.loads(canonical(verdict))


@pytest.mark.timeout(180)
async def test_miners_are_examined_on_their_processors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each claims, is examined, and honestly scores low; anyone repeats the verdict; a settled job leads to a spot
    check; the books agree."""
    plan = Plan(proposers=1, miners=1, wallet=False, attest="processor")
    plan = msgspec.structs.replace(plan, parameters=msgspec.structs.replace(PARAMETERS, trust=TRUST))
    async with Devnet(tmp_path, plan) as devnet:
        bus = await connect(devnet)
        try:
            async with Follower(bus, devnet) as follower:
                address = devnet.key("miner-1").address

                async def examined(cause: str) -> bool:
                    last = (await attestation_of(bus, address)).examined
                    return isinstance(last, Examined) and last.cause == cause

                await until(lambda: examined("first"), "no first exam")
                attestation, miner = await attestation_of(bus, address), await miner_of(bus, address)
                found = attested_of(miner)
                assert (found.score, found.grade) == (40, "C")
                assert found.performance > 0
                said = explained(address, miner, attestation, TESTNET)
                assert [level.points for level in said.gpus[0].levels] == [0, 0, 0, 30, 10]
                assert not said.admitted
                assert isinstance(attestation.examined, Examined)
                await repeated(devnet, attestation.examined.verdict, capsys)

                client = Client(bus, devnet.key())
                job = client.job(seeded_work(1))
                await client.submit(job)
                await until(lambda: examined("spot"), "no spot check")
                standing = (await miner_of(bus, address)).standing
                assert not isinstance(standing, UnsetType)
                assert (standing.submitted, standing.on_time, standing.verified, standing.wrong) == (1, 1, 1, 0)
                await follower.until(lambda books: books.ends.get(job.id) == ["settled"], PATIENCE_S)
                assert json.loads(canonical(devnet.genesis))["parameters"]["trust"]["spot_check_bps"] == 10_000
        finally:
            await bus.close()
