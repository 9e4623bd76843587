"""`assay verify job` over logs of small networks: verdicts that were right, and those of coordinators that lie."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.services.base import Computed
from actors.services.matmul import row_hashes
from actors.services.npy import write_matrix
from events.merkle import root_of_hashes
from schemas.events import JobCommitted, JobFailed, JobSubmitted, Requirement
from schemas.services import BlobMatrix, MatmulInt8, SeededMatrix
from tests.actors.command_line.exported import export, genesis_file, keep
from tests.actors.matrices import computed, npy_bytes
from tests.projections.ledger import trust
from tests.projections.small_network import SmallNetwork, digest_of, key_of, make_genesis

SIDE = 8
MINERS = ("miner 0", "miner 1")
# No NATS server listens there.
NOWHERE = ("--url", "nats://127.0.0.1:1", "--timeout", "1")


class Court:
    """A chain with trust, a job of two attempts, and a directory with the blobs."""

    def __init__(self, directory: Path, trusting: bool = True) -> None:
        self.directory = directory
        self.blobs = directory / "blobs"
        self.blobs.mkdir()
        genesis = make_genesis(trust=trust()) if trusting else make_genesis()
        self.network = SmallNetwork(genesis)
        self.genesis = genesis_file(genesis, directory / "genesis.json")
        self.network.block(*(self.network.register(name) for name in MINERS))
        submitted = self.network.submit(side=SIDE)
        self.network.block(submitted)
        self.job = submitted.id
        job = self.network.chain.state.job(self.job)
        assert job is not None
        assert isinstance(job.work, MatmulInt8)
        self.work = job.work

    def right(self, inputs: dict[str, Path] | None = None) -> Computed:
        """The right result, which lies among the blobs."""
        path = self.directory / "result"
        found = computed(self.work, inputs or {}, path)
        assert keep(self.blobs, path.read_bytes()) == found.digest
        path.unlink()
        return found

    def wrong(self) -> Computed:
        """A result with a false entry, committed to as it is; it lies among the blobs."""
        path = self.directory / "result"
        computed(self.work, {}, path)
        matrix = np.load(path)
        matrix[3, 5] += 1
        path.unlink()
        write_matrix(path, matrix)
        data = path.read_bytes()
        path.unlink()
        return Computed(root=root_of_hashes(row_hashes(matrix)).hex(), digest=keep(self.blobs, data), size=len(data))

    def bytes_of(self, size: int) -> Computed:
        """What nobody can read as a result."""
        data = bytes(size)
        return Computed(root=digest_of("root"), digest=keep(self.blobs, data), size=size)

    def attempt(self, miner: str, given: Computed, *, reveal: bool = True) -> None:
        network = self.network
        network.block(network.assign(self.job, miner))
        fields = {"root": given.root, "result": given.digest, "size": given.size}
        network.block(network.say(miner, JobCommitted, job=self.job, **fields))
        if reveal:
            network.block(network.reveal(self.job, miner))

    def fail(self, miner: str, reason: str) -> None:
        address = key_of(miner).address
        self.network.block(self.network.say("coordinator", JobFailed, job=self.job, miner=address, reason=reason))

    def settle(self) -> None:
        self.network.block(self.network.settle(self.job))

    def words(self, *more: object) -> tuple[object, ...]:
        """The command line, all of it offline."""
        log = export(self.network, self.directory / "log.ndjson")
        offline = ("--log", log, "--blobs", self.blobs, "--genesis", self.genesis, *NOWHERE)
        return ("verify", "job", self.job, *offline, "-o", "json", *more)


@pytest.fixture
def court(home: Path) -> Court:
    return Court(home)


def problem(ended: Any) -> dict[str, Any]:
    """The error on stderr."""
    found: dict[str, Any] = json.loads(ended.err.splitlines()[-1])
    return found


def attempts(ended: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ended.out)["attempts"]
    return found


def test_the_verdict_on_every_attempt_is_repeated(assay: Any, court: Court) -> None:
    """A wrong result that was slashed and a right one that was paid: both verdicts agree, each with its challenge."""
    court.attempt("miner 0", court.wrong())
    court.fail("miner 0", "RESULT_WRONG")
    court.attempt("miner 1", court.right())
    court.settle()
    ended = assay(*court.words())
    assert ended.code == 0, ended.err
    first, second = attempts(ended)
    assert (first["on_record"], second["on_record"]) == ("RESULT_WRONG", "SETTLED")
    assert first["repeated"].startswith("RESULT_WRONG: PRODUCT_MISMATCH")
    assert second["repeated"].startswith("the result is right")
    assert first["challenge"] != second["challenge"]
    claims = [check["claim"] for check in json.loads(ended.out)["checks"]]
    assert "attempt 1: the result is wrong, as the log says, and the slash was right" in claims


def test_the_last_wrong_result_of_a_refunded_job_is_looked_at(assay: Any, court: Court) -> None:
    """A job without any right result has its verdicts repeated like any other."""
    for miner in MINERS:
        court.attempt(miner, court.wrong())
        court.fail(miner, "RESULT_WRONG")
    ended = assay(*court.words())
    assert ended.code == 0, ended.err
    assert [each["attempt"] for each in attempts(ended)] == [1, 2]


@pytest.mark.parametrize(
    ("given", "said", "difference"),
    [
        ("right", "RESULT_WRONG", "the result is right, by Freivalds' check of all of its entries; coordinator U"),
        ("right", "RESULT_MALFORMED", "the result is right"),
        ("wrong", "RESULT_MALFORMED", "RESULT_WRONG: PRODUCT_MISMATCH"),
        ("malformed", "RESULT_WRONG", "RESULT_MALFORMED: "),
        ("impossible", "RESULT_WRONG", "RESULT_MALFORMED: no result of this work has 7 bytes"),
        ("wrong", "SETTLED", "has said SETTLED"),
        ("malformed", "SETTLED", "has said SETTLED"),
        ("unrevealed", "RESULT_WRONG", "before anything was revealed"),
    ],
)
def test_a_coordinator_that_lies_is_found(assay: Any, court: Court, given: str, said: str, difference: str) -> None:
    """Whatever it says that the result does not bear out ends with 7, with what was found instead."""
    right = court.right()
    made = {
        "right": right,
        "unrevealed": right,
        "wrong": court.wrong(),
        "malformed": court.bytes_of(right.size),
        "impossible": court.bytes_of(7),
    }
    court.attempt("miner 0", made[given], reveal=given != "unrevealed")
    if said == "SETTLED":
        court.settle()
    else:
        court.fail("miner 0", said)
    ended = assay(*court.words())
    assert ended.code == 7
    assert difference in problem(ended)["detail"]
    assert "Keep the log and the blobs" in problem(ended)["hint"]
    assert json.loads(ended.out)["passed"] is False


def test_a_slash_for_nothing_is_said_to_be_one(assay: Any, court: Court) -> None:
    """The difference names the coordinator that lied and the miner that paid for it."""
    court.attempt("miner 0", court.right())
    court.fail("miner 0", "RESULT_WRONG")
    said = problem(assay(*court.words()))["detail"]
    assert f"coordinator {key_of('coordinator').address} has said RESULT_WRONG" in said
    assert f"miner {key_of('miner 0').address} was slashed" in said


def test_where_nothing_is_slashed_no_slash_is_spoken_of(assay: Any, home: Path) -> None:
    """On a chain without trust parameters a wrong result costs nothing."""
    court = Court(home, trusting=False)
    court.attempt("miner 0", court.wrong())
    court.fail("miner 0", "RESULT_WRONG")
    ended = assay(*court.words())
    assert ended.code == 0
    assert "slash" not in ended.out


@pytest.mark.parametrize("words", [("--attempt", "2"), ("--miner", key_of("miner 1").address)])
def test_one_attempt_can_be_named(assay: Any, court: Court, words: tuple[str, ...]) -> None:
    """By its number or by its miner; a lie about another attempt is then not looked at."""
    court.attempt("miner 0", court.right())
    court.fail("miner 0", "RESULT_WRONG")
    court.attempt("miner 1", court.right())
    court.settle()
    assert assay(*court.words()).code == 7
    ended = assay(*court.words(*words))
    assert ended.code == 0
    assert [each["attempt"] for each in attempts(ended)] == [2]


@pytest.mark.parametrize("ended_with", ["", "NOT_VERIFIED"])
def test_without_a_verdict_the_result_itself_is_checked(assay: Any, court: Court, ended_with: str) -> None:
    """While the ledger has none, or where no coordinator has spoken in time."""
    court.attempt("miner 0", court.right())
    if ended_with:
        late_ms = court.network.chain.earliest_ms(0) + 60_000
        court.network.block(court.network.transfer(), time_ms=late_ms)
    ended = assay(*court.words())
    assert ended.code == 0, ended.err
    assert attempts(ended)[0]["on_record"] == (ended_with or "no verdict yet")


@pytest.mark.parametrize(
    ("reason", "reveal"), [("RESULT_UNAVAILABLE", True), ("RESULT_NOT_REVEALED", False), ("MINER_FAILED", True)]
)
def test_what_depends_on_the_moment_cannot_be_repeated(assay: Any, court: Court, reason: str, reveal: bool) -> None:
    """Whether a blob was there in time does not follow from the blob."""
    court.attempt("miner 0", court.right(), reveal=reveal)
    court.fail("miner 0", reason)
    ended = assay(*court.words())
    assert (ended.code, problem(ended)["code"]) == (3, "NOT_FOUND")
    assert f"attempt 1 ended with {reason}" in problem(ended)["detail"]


def test_inputs_that_are_said_to_be_bad_and_are_not_prove_nothing(assay: Any, court: Court) -> None:
    """Their owner may have uploaded other bytes under the digest: the check is skipped, not failed."""
    court.attempt("miner 0", court.right())
    court.fail("miner 0", "BAD_INPUT")
    ended = assay(*court.words())
    assert ended.code == 0
    assert [check["result"] for check in json.loads(ended.out)["checks"]] == ["passed", "skipped"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--attempt", "3"), 3, "no such attempt"),
        (("--miner", key_of("alice").address), 3, "no such attempt"),
        (("--attempt", "1", "--miner", key_of("miner 1").address), 3, "no such attempt"),
        (("--attempt", "0"), 2, "--attempt"),
        (("--miner", "nobody"), 2, "no address"),
        (("--log", "nowhere.ndjson"), 3, "no file"),
    ],
)
def test_what_is_not_there_is_refused(assay: Any, court: Court, words: tuple[str, ...], code: int, said: str) -> None:
    """Attempts, miners and files that do not exist, each by its error."""
    court.attempt("miner 0", court.wrong())
    court.fail("miner 0", "RESULT_WRONG")
    court.attempt("miner 1", court.right())
    court.settle()
    given = court.words()
    if words[0] == "--log":
        given = tuple(words[1] if str(word).endswith("log.ndjson") else word for word in given)
        words = ()
    ended = assay(*given, *words)
    assert ended.code == code
    assert ended.out == ""
    assert said in problem(ended)["title"]


def test_a_job_that_is_not_in_the_log_is_not_found(assay: Any, court: Court) -> None:
    """Neither is a result of a job that nobody has worked on."""
    waiting = assay(*court.words())
    assert waiting.code == 3
    assert "it is open" in problem(waiting)["detail"]
    court.job = digest_of("no job")
    assert assay(*court.words()).code == 3


def test_a_blob_that_is_gone_is_named(assay: Any, court: Court) -> None:
    """With whose it was and where it may be found; the other attempts can still be looked at."""
    gone = court.wrong()
    court.attempt("miner 0", gone)
    court.fail("miner 0", "RESULT_WRONG")
    court.attempt("miner 1", court.right())
    court.settle()
    (court.blobs / gone.digest).unlink()
    ended = assay(*court.words())
    assert (ended.code, ended.out) == (3, "")
    assert gone.digest in problem(ended)["title"]
    assert "result of attempt 1" in problem(ended)["detail"]
    assert "--attempt N" in problem(ended)["hint"]
    assert assay(*court.words("--attempt", "2")).code == 0


def test_a_blob_with_other_bytes_is_found(assay: Any, court: Court) -> None:
    """A file that is not what its name says proves nothing about the verdict, and ends with 7."""
    right = court.right()
    court.attempt("miner 0", right)
    court.settle()
    (court.blobs / right.digest).write_bytes(b"something else")
    ended = assay(*court.words())
    assert ended.code == 7
    assert "has its digest" in problem(ended)["title"]


def test_people_read_attempt_by_attempt(assay: Any, court: Court) -> None:
    """The table has a paragraph for each, before the checks."""
    court.attempt("miner 0", court.wrong())
    court.fail("miner 0", "RESULT_WRONG")
    words = [word if word != "json" else "table" for word in court.words()]
    out = assay(*words).out
    assert "attempt 1" in out
    assert "on record: RESULT_WRONG" in out
    assert "passed" in out


@pytest.fixture
def settled(home: Path) -> tuple[Court, dict[str, str]]:
    """A court with a settled job of one input, and the digests of its blobs."""
    court = Court(home)
    name = keep(court.blobs, npy_bytes(home, np.eye(SIDE, dtype=np.int8)))
    court.work = MatmulInt8(
        a=BlobMatrix(rows=SIDE, columns=SIDE, digest=name),
        b=SeededMatrix(rows=SIDE, columns=SIDE, seed=digest_of("b")),
    )
    given = {"escrow": 1_000_000, "timeout_ms": 10_000, "lifetime_ms": 60_000, "requirement": Requirement(memory_mib=0)}
    submitted = court.network.say("alice", JobSubmitted, work=court.work, **given)
    court.network.block(submitted)
    court.job = submitted.id
    found = court.right({name: court.blobs / name})
    court.attempt("miner 0", found)
    court.settle()
    return court, {"input": name, "result": found.digest}


@pytest.mark.parametrize(
    ("missing", "why", "hint"),
    [("input", "an input of the job", "named by its SHA-256"), ("result", "it is the result", "assay job result ")],
)
def test_a_missing_blob_says_where_it_comes_from(
    assay: Any, settled: tuple[Court, dict[str, str]], missing: str, why: str, hint: str
) -> None:
    """The result can be fetched by its job; inputs are files that the client has."""
    court, names = settled
    assert assay(*court.words()).code == 0
    (court.blobs / names[missing]).unlink()
    ended = assay(*court.words())
    assert (ended.code, ended.out) == (3, "")
    assert why in problem(ended)["detail"]
    assert hint in problem(ended)["hint"]
