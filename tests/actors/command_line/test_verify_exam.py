"""`assay verify exam` over logs of small networks: verdicts that were right, and those of coordinators that lie."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from actors.attestation.exam import BackendExaminee, Sitting, a_seed, b_seed
from actors.attestation.exam_check import ExamSetup
from actors.attestation.fill import Fill, HostMemory, fill_seed
from actors.attestation.judge import Exam, Submission, judge
from actors.attestation.lists import Lists, shipped, signed
from actors.backends.cpu import CpuBackend
from events.canonical import canonical
from schemas.attestation import ExamAnswer, ExamOpening, ExamShape, ExamVerdict, GpuEvidence, HostEvidence
from schemas.events import AttestationClaimed, ExamCommitted, ExamJudged, ExamOpened, ExamRevealed
from tests.actors.command_line.exported import export, genesis_file, keep
from tests.actors.command_line.test_verify_job import NOWHERE, problem
from tests.projections.attested import gpu, host
from tests.projections.ledger import trust
from tests.projections.small_network import SmallNetwork, digest_of, key_of, make_genesis

SHAPE = ExamShape(inner=64, columns=32, min_rows=16)
ROWS = 128
NAMES = ("miner 0", "miner 1")
FILLED_MIB = 1


class Hall:
    """A chain with one exam, and a directory with what was opened in it. ``answers`` is by the miner's name."""

    def __init__(self, directory: Path, *, lists: Lists | None = None) -> None:
        self.directory = directory
        self.blobs = directory / "blobs"
        self.blobs.mkdir()
        self.lists = lists or shipped()
        genesis = make_genesis(trust=trust(exam=SHAPE))
        self.genesis = genesis_file(genesis, directory / "genesis.json")
        self.network = SmallNetwork(genesis)
        self.claims: dict[str, HostEvidence] = {}
        self.submissions: dict[str, Submission] = {}
        self.challenges: dict[str, str] = {}
        last = self.network.block(*(self.network.register(name) for name in NAMES))
        for place, name in enumerate(NAMES):
            evidence = host(gpu(f"GPU-{place}"), height=last.header.height, block=last.hash)
            self.claims[name] = evidence
            self.network.block(self.network.say(name, AttestationClaimed, evidence=evidence))
        miners = tuple(sorted(key_of(name).address for name in NAMES))
        opened = self.network.say("coordinator", ExamOpened, miners=miners, cause="first")
        self.seed = self.network.block(opened).hash
        self.exam = opened.id

    def answer(self, name: str, *, right: bool = True, reveal: bool = True, fill: bool = False) -> None:
        """Commits to an answer, and opens it: in the log, and among the blobs."""
        address, uuid = key_of(name).address, self.claims[name].gpus[0].uuid
        seed = a_seed(self.seed, address if right else key_of("somebody else").address, uuid)
        sitting = Sitting(BackendExaminee(CpuBackend(), SHAPE, b_seed(self.seed), seed), ROWS, 64)
        given = ExamAnswer(gpu=uuid, rows=ROWS, root=sitting.work())
        memory = Fill(HostMemory(fill_seed(self.seed, address, uuid), FILLED_MIB), FILLED_MIB)
        if fill:
            given = replace(given, memory_mib=FILLED_MIB, memory_root=memory.work(lambda *_: None))
        final = self.network.block(self.network.say(name, ExamCommitted, exam=self.exam, answers=(given,)))
        self.challenges[name] = final.hash
        self.submissions[name] = Submission(answer=given, late=True)
        if not reveal:
            return
        rows = sitting.open(final.hash)
        labels = memory.open(final.hash) if fill else b""
        opening = ExamOpening(gpu=uuid, rows=keep(self.blobs, rows), size=len(rows))
        if fill:
            opening = replace(opening, fill=keep(self.blobs, labels), fill_size=len(labels))
        self.network.block(self.network.say(name, ExamRevealed, exam=self.exam, openings=(opening,)))
        self.submissions[name] = Submission(answer=given, opening=rows, fill_opening=labels if fill else None)

    def verdict(self, name: str) -> ExamVerdict:
        """That of an honest coordinator."""
        evidence, submission = self.claims[name], self.submissions.get(name)
        challenge = self.challenges.get(name, "0" * 64)
        exam = Exam(id=self.exam, seed=self.seed, shape=SHAPE, challenge=challenge)
        setup = ExamSetup(self.seed, SHAPE.inner, SHAPE.columns)
        given = {} if submission is None else {evidence.gpus[0].uuid: submission}
        return judge(key_of(name).address, exam, setup, evidence, given, self.lists, fresh=True)

    def judge(self, name: str, gpu_changes: dict[str, Any] | None = None, **changes: Any) -> None:
        """A coordinator's verdict with ``changes``; after the deadline, so that it may be any."""
        honest = self.verdict(name)
        gpus = tuple(replace(each, **(gpu_changes or {})) for each in honest.gpus)
        said = self.network.say("coordinator", ExamJudged, verdict=replace(honest, gpus=gpus, **changes))
        late_ms = self.network.chain.earliest_ms(0) + 60_000
        final = self.network.block(said, time_ms=late_ms)
        assert [type(outcome).__name__ for outcome in final.executed.outcomes] == ["Applied"]

    def words(self, *more: object) -> tuple[object, ...]:
        """The command line, all of it offline."""
        log = export(self.network, self.directory / "log.ndjson")
        offline = ("--log", log, "--blobs", self.blobs, "--genesis", self.genesis, *NOWHERE)
        return ("verify", "exam", self.exam, *offline, "-o", "json", *more)


@pytest.fixture
def hall(home: Path) -> Hall:
    return Hall(home)


def checks(ended: Any) -> dict[str, list[str]]:
    """The claims by what came of them."""
    found: dict[str, list[str]] = {}
    for check in json.loads(ended.out)["checks"]:
        found.setdefault(check["result"], []).append(check["claim"])
    return found


def test_honest_verdicts_are_repeated_field_by_field(assay: Any, hall: Hall) -> None:
    """A right answer with a fill and a wrong one, each judged rightly: everything agrees."""
    hall.answer("miner 0", fill=True)
    hall.answer("miner 1", right=False)
    for name in NAMES:
        hall.judge(name)
    ended = assay(*hall.words())
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["passed"] is True
    assert all(each["on_record"] == each["repeated"] for each in found["verdicts"])
    results = {gpu["gpu"]: gpu["result"] for each in found["verdicts"] for gpu in each["repeated"]["gpus"]}
    assert results == {"GPU-0": "right", "GPU-1": "wrong"}
    held = " ".join(checks(ended)["passed"])
    for name in ("fresh", "driver", "result", "device", "expected", "memory mib", "hardware"):
        assert f": {name} is " in held
    assert "GPU-0: memory mib is 1" in held


@pytest.mark.parametrize("answered", [False, True])
def test_silence_and_lateness_are_repeated_without_blobs(assay: Any, hall: Hall, answered: bool) -> None:
    """Who has said nothing was absent, who has opened nothing was late; the log alone shows it."""
    if answered:
        hall.answer("miner 0", reveal=False)
    hall.judge("miner 0")
    ended = assay(*hall.words("--miner", key_of("miner 0").address))
    assert ended.code == 0, ended.err
    (each,) = json.loads(ended.out)["verdicts"]
    assert each["repeated"]["gpus"][0]["result"] == ("late" if answered else "absent")


@pytest.mark.parametrize(
    ("right", "gpu_changes", "changes", "claim", "difference"),
    [
        (True, {"result": "wrong"}, {}, "result is wrong", "it is right"),
        (True, {"result": "malformed"}, {}, "result is malformed", "it is right"),
        (True, {"result": "late"}, {}, "result is late", "it is right"),
        (False, {"result": "right"}, {}, "result is right", "it is wrong"),
        (False, {"result": "malformed"}, {}, "result is malformed", "it is wrong"),
        (True, {"device": "implausible"}, {}, "device is implausible", "it is listed"),
        (True, {"expected": 1}, {}, "expected is 1", "it is "),
        (True, {"memory_mib": 140_000}, {}, "memory mib is 140000", "it is 1"),
        (True, {"hardware": True}, {}, "hardware is true", "it is false"),
        (True, {}, {"fresh": False}, "fresh is false", "it is true"),
        (True, {}, {"driver": "implausible"}, "driver is implausible", "it is "),
    ],
)
def test_a_coordinator_that_lies_is_found(
    assay: Any,
    hall: Hall,
    right: bool,
    gpu_changes: dict[str, Any],
    changes: dict[str, Any],
    claim: str,
    difference: str,
) -> None:
    """Whatever it says that rows, lists and log do not bear out ends with 7, and it is named."""
    hall.answer("miner 0", right=right, fill=True)
    hall.judge("miner 0", gpu_changes, **changes)
    ended = assay(*hall.words())
    assert ended.code == 7
    said = problem(ended)
    assert claim in said["title"]
    assert difference in said["detail"]
    assert f"coordinator {key_of('coordinator').address}" in said["detail"]
    assert "Keep the log and the blobs" in said["hint"]
    assert json.loads(ended.out)["passed"] is False


@pytest.mark.parametrize(
    ("gpu_changes", "claim"),
    [({"result": "absent", "memory_mib": 0}, "GPU-0: result is absent"), ({"memory_mib": 0}, "memory mib is 0")],
)
def test_what_depends_on_the_moment_is_skipped(assay: Any, hall: Hall, gpu_changes: dict[str, Any], claim: str) -> None:
    """Whether a blob was there in time does not follow from the blob; nobody is called a liar for it."""
    hall.answer("miner 0", fill=True)
    hall.judge("miner 0", gpu_changes)
    ended = assay(*hall.words("--miner", key_of("miner 0").address))
    assert ended.code == 0, ended.err
    assert any(claim in skipped for skipped in checks(ended)["skipped"])


def test_one_miner_can_be_named(assay: Any, hall: Hall) -> None:
    """A lie about another miner is then not looked at, and its blobs are not needed."""
    for name in NAMES:
        hall.answer(name)
    hall.judge("miner 0", {"result": "wrong"})
    hall.judge("miner 1")
    assert assay(*hall.words()).code == 7
    ended = assay(*hall.words("--miner", key_of("miner 1").address))
    assert ended.code == 0
    assert [each["on_record"]["miner"] for each in json.loads(ended.out)["verdicts"]] == [key_of("miner 1").address]


def test_who_is_not_judged_yet_is_said_to_be_so(assay: Any, hall: Hall) -> None:
    """The verdicts that are there are repeated, the others are skipped."""
    hall.answer("miner 0")
    hall.judge("miner 0")
    ended = assay(*hall.words())
    assert ended.code == 0
    assert [claim for claim in checks(ended)["skipped"] if "judged rightly" in claim]


@pytest.mark.parametrize("form", ["signed", "plain", "none", "others"])
def test_lists_are_those_of_the_verdict(assay: Any, home: Path, form: str) -> None:
    """A verdict states the digest of its lists; with others the card and the driver are not compared."""
    lists = replace(shipped(), version=shipped().version + 1)
    hall = Hall(home, lists=lists)
    hall.answer("miner 0")
    hall.judge("miner 0")
    file = home / "newer.json"
    data = signed(lists, key_of("maintainer")) if form == "signed" else canonical(lists)
    file.write_bytes(canonical(shipped()) if form == "others" else data)
    ended = assay(*hall.words("--miner", key_of("miner 0").address, *(() if form == "none" else ("--lists", file))))
    assert ended.code == 0, ended.err
    found = checks(ended)
    compared = "passed" if form in ("signed", "plain") else "skipped"
    for name in ("driver", "device", "expected"):
        assert any(f": {name} is " in claim for claim in found[compared])
    assert any("result is right" in claim for claim in found["passed"])


def test_only_the_last_claim_before_the_exam_counts(assay: Any, hall: Hall) -> None:
    """A claim made after the verdict does not change what was judged."""
    hall.answer("miner 0")
    hall.judge("miner 0")
    later = HostEvidence(height=1, block=digest_of("other"), gpus=(GpuEvidence(uuid="GPU-9"),))
    hall.network.block(hall.network.say("miner 0", AttestationClaimed, evidence=later))
    assert assay(*hall.words()).code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--miner", key_of("alice").address), 3, "is not in this exam"),
        (("--miner", key_of("miner 1").address), 3, "no verdict to repeat"),
        (("--miner", "nobody"), 2, "no address"),
        (("--lists", "genesis.json"), 2, "cannot be read"),
        (("--lists", "nowhere.json"), 3, "nowhere.json"),
    ],
)
def test_what_is_not_there_is_refused(assay: Any, hall: Hall, words: tuple[str, ...], code: int, said: str) -> None:
    """Miners and files that do not exist, each by its error."""
    hall.answer("miner 0")
    hall.judge("miner 0")
    ended = assay(*hall.words(*words))
    assert (ended.code, ended.out) == (code, "")
    assert said in problem(ended)["title"]


@pytest.mark.parametrize(("exam", "code"), [(digest_of("no exam"), 3), ("no digest", 2)])
def test_an_exam_that_is_not_in_the_log_is_not_found(assay: Any, hall: Hall, exam: str, code: int) -> None:
    """Neither is what no exam can be called."""
    hall.exam = exam
    assert assay(*hall.words()).code == code


@pytest.mark.parametrize("what", ["rows", "fill"])
def test_a_blob_that_is_gone_is_named(assay: Any, hall: Hall, what: str) -> None:
    """With whose it was and where it may be found."""
    hall.answer("miner 0", fill=True)
    hall.judge("miner 0")
    known = hall.submissions["miner 0"]
    gone = keep(hall.blobs, known.opening if what == "rows" else known.fill_opening)  # type: ignore[arg-type]
    (hall.blobs / gone).unlink()
    ended = assay(*hall.words())
    assert (ended.code, ended.out) == (3, "")
    assert gone in problem(ended)["title"]
    assert "opened for GPU-0" in problem(ended)["detail"]
    assert "from the network" in problem(ended)["hint"]


def test_a_blob_with_other_bytes_is_found(assay: Any, hall: Hall) -> None:
    """A file that is not what its name says proves nothing about the verdict, and ends with 7."""
    hall.answer("miner 0")
    hall.judge("miner 0")
    for file in hall.blobs.iterdir():
        file.write_bytes(b"something else")
    ended = assay(*hall.words())
    assert ended.code == 7
    assert "has its digest" in problem(ended)["title"]


def test_people_read_miner_by_miner(assay: Any, hall: Hall) -> None:
    """The table has a paragraph for each, before the checks."""
    hall.answer("miner 0")
    hall.judge("miner 0")
    assert hall.verdict("miner 0").gpus[0].memory_mib == 0
    out = assay(*("table" if word == "json" else word for word in hall.words())).out
    assert f"miner {key_of('miner 0').address}" in out
    assert "GPU-0: right, listed, owes " in out
