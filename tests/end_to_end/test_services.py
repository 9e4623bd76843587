"""Every service through a network of processes: submitted in words, settled, fetched, compared, verified offline."""

import asyncio
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from actors.command_line import main
from actors.services.registry import SERVICES, service_for
from bus.jetstream import JetStreamBus
from schemas.messages import Progress
from schemas.services import blobs_of, service_of
from schemas.state import Job
from tests.actors.command_line.devnet_process import DevnetProcess, command, environment
from tests.end_to_end.service_cases import CASES

# Nobody can know what a client's own kernel computes, and only a GPU runs it; a miner offers it only when told to.
UNVERIFIED = "kernel.custom"
VERIFIED = sorted(service_of(record) for record in SERVICES if service_of(record) != UNVERIFIED)
NOWHERE = "nats://127.0.0.1:1"


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevnetProcess]:
    process = DevnetProcess(tmp_path_factory.mktemp("devnet"), "--proposers", "3", "--miners", "1")
    try:
        yield process
    finally:
        process.close()


@pytest.fixture
def assay(
    devnet: DevnetProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs a command line in a directory of its own, with the devnet's key."""
    monkeypatch.setenv("ASSAY_HOME", str(devnet.home))
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        found = capsys.readouterr()
        return Ended(code, found.out, found.err)

    return run


@pytest.mark.parametrize("service", VERIFIED)
def test_a_service_from_words_to_an_offline_verdict(service: str, assay: Callable[..., Ended], tmp_path: Path) -> None:
    """The job is settled, its result equals another computation's, and anyone can repeat the verdict offline, which
    one changed byte turns around."""
    case = CASES[service]
    submitted = assay("job", "submit", service, *case.words(tmp_path), "-o", "json")
    receipt = submitted.answer["receipt"]["receipt"]
    assert receipt["service"] == service
    assert "verified" in submitted.err
    job_id = receipt["job_id"]

    fetched = assay("job", "result", job_id)
    assert case.said in fetched.out, fetched.err
    job = msgspec.convert(assay("job", "show", job_id, "-o", "json").answer["job"], Job)
    result = tmp_path / f"{job_id[:12]}.{service_for(job.work).SUFFIX}"
    case.check(tmp_path, result)

    assert assay("log", "export", "log.ndjson").code == 0
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    by_digest = {digest(file): file for file in tmp_path.iterdir() if file.is_file()}
    for name in (*blobs_of(job.work), receipt["artifact_hash"]):
        (blobs / name).write_bytes(by_digest[name].read_bytes())
    words = ("verify", "job", job_id, "--log", "log.ndjson", "--blobs", blobs, "--url", NOWHERE, "-o", "json")
    assert assay(*words).answer["passed"] is True
    forged = bytearray((blobs / receipt["artifact_hash"]).read_bytes())
    forged[len(forged) // 2] ^= 1
    (blobs / receipt["artifact_hash"]).write_bytes(forged)
    ended = assay(*words)
    assert ended.code == 7
    assert json.loads(ended.out)["passed"] is False


def digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def test_a_program_of_the_client_finds_no_miner_that_was_not_told_to_run_it(
    assay: Callable[..., Ended], tmp_path: Path
) -> None:
    """Submitting one says that nobody offers it, and sends nothing."""
    source = tmp_path / "twice.cu"
    source.write_text('extern "C" __global__ void twice(int *x) { x[threadIdx.x] *= 2; }')
    words = ("--entry", "twice", "--argument", "output:int32:256")
    ended = assay("job", "submit", UNVERIFIED, source, *words)
    assert (ended.code, ended.out) == (2, "")
    assert "NO_MINER_FOR_SERVICE" in ended.err


def test_every_verified_service_is_offered(assay: Callable[..., Ended]) -> None:
    """A miner that is told nothing else offers what can be verified, and nothing that cannot."""
    (entry,) = assay("miner", "list", "-o", "json").answer
    assert [offer["service"] for offer in entry["miner"]["offers"]] == VERIFIED


async def test_a_client_sees_how_far_its_job_is(devnet: DevnetProcess, tmp_path: Path) -> None:
    """While a job is computed its miner tells the steps on its live subject, where anybody hears them."""
    bus = await JetStreamBus.connect(devnet.banner["url"], devnet.banner["chain"], name="listener")
    listener = bus.listen_live(topic="progress")
    await listener.ready()
    heard: list[Progress] = []

    async def hear() -> None:
        async for message in listener:
            progress = msgspec.json.decode(message.data, type=Progress)
            heard.append(progress)

    hearing = asyncio.create_task(hear())
    size = ("--width", "400", "--height", "400", "--across", "3", "--iterations", "1000")
    words = command("job", "submit", "mandelbrot", "--re", "0", "--im", "0", *size, "-o", "json")
    process = await asyncio.create_subprocess_exec(
        *words, cwd=tmp_path, env=environment(devnet.home), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
    await bus.close()
    job = json.loads(out)["receipt"]["receipt"]["job_id"]
    steps = [progress.done_bps for progress in heard if progress.job == job]
    assert steps
    assert steps == sorted(set(steps))
    assert all(0 < done <= 10_000 for done in steps)
