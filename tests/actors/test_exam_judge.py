"""Exams with real work on the simulated bus: what a miner uploads, and what the coordinator makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import UNSET, Raw
from msgspec.structs import replace

from actors.attestation.devices import fill_for
from actors.attestation.lists import shipped
from actors.attestation.probe import Places
from actors.attestation.selftest import processor_id
from actors.attester import HostAttester
from actors.attesting import Answered, Shown
from actors.backends.cpu import CpuBackend
from actors.exam_judge import FRESH_BLOCKS, FRESH_MS, MAX_OPENING_BYTES, BlobExamJudge, BlockFacts
from actors.fetching import HostFault
from bus.simulated import SimulatedBus, SimulatedNetwork
from events.canonical import canonical, digest
from projections.attestation import FILLED_SHARE_BPS
from projections.exams import spot_number
from schemas.attestation import ExamShape, GpuEvidence, HostEvidence, SourceReport
from schemas.messages import QueryAnswer
from schemas.state import Attestation, ExamCommitment, Examination
from tests.actors.attestation.mock_host import kernel_trees, libraries, needs_compiler, places
from tests.actors.matrices import ALICE, MINER
from tests.actors.town import ChosenFaults
from tests.actors.virtual_time import VirtualClock, run

CHAIN: Final = "assay-small"
SHAPE: Final = ExamShape(inner=64, columns=32, min_rows=64)
EXAM: Final = digest(b"the exam")
SEEN_HEIGHT, CLAIMED_HEIGHT, OPENED_HEIGHT, COMMITTED_HEIGHT = 5, 6, 7, 8


def block_hash(height: int) -> str:
    return digest(str(height).encode())


async def block(height: int) -> BlockFacts:
    """Height n has the hash of the text n, and a time of n seconds."""
    return BlockFacts(block_hash(height), height * 1_000)


class Ground:
    """A miner without a GPU, or with those of ``places``, and a coordinator, a simulated bus between them."""

    def __init__(
        self,
        directory: Path,
        *,
        fill_mib: int | None = None,
        min_memory_mib: int = 0,
        places: Places | None = None,
    ) -> None:
        self.directory = directory
        self.network = SimulatedNetwork(VirtualClock(), ChosenFaults())
        self.bus = SimulatedBus(self.network, CHAIN, name="miner")
        nowhere = Places(proc=directory, sys=directory, preload_file=directory / "no", mountinfo=directory / "no")
        self.attester = HostAttester(
            self.bus,
            MINER,
            directory / "exams",
            SHAPE,
            300,
            shipped(),
            lambda device: CpuBackend(),
            processor=places is None,
            min_memory_mib=min_memory_mib,
            fill_mib=fill_mib,
            places=places or nowhere,
        )
        self.judge = BlobExamJudge(
            SimulatedBus(self.network, CHAIN, name="judge"), directory / "judge", block, shipped()
        )

    async def set_up(self) -> None:
        await self.bus.set_up("ab" * 32, ("VALIDATOR",))

        async def status(_: bytes) -> bytes:
            value = {"height": SEEN_HEIGHT, "head": block_hash(SEEN_HEIGHT)}
            return canonical(QueryAnswer(height=SEEN_HEIGHT, value=Raw(canonical(value))))

        await self.bus.serve_queries({"status": status}, "1.0.0")

    async def sat(self, *, probed: bool = False) -> Attestation:
        """The state's record of the miner, once it has answered and opened an exam. Probing takes a while."""
        evidence = HostEvidence(
            height=SEEN_HEIGHT, block=block_hash(SEEN_HEIGHT), gpus=(GpuEvidence(uuid=processor_id(MINER)),)
        )
        if probed:
            claimed = await self.attester.claim()
            assert isinstance(claimed.evidence, HostEvidence)
            evidence = claimed.evidence
        self.attester._gpus = tuple(gpu.uuid for gpu in evidence.gpus)
        answered = await self.attester.sit(EXAM, block_hash(OPENED_HEIGHT))
        assert isinstance(answered, Answered)
        challenge = block_hash(COMMITTED_HEIGHT)
        shown = await self.attester.show(EXAM, block_hash(OPENED_HEIGHT), answered.answers, challenge)
        assert isinstance(shown, Shown)
        self.attester.close()
        examination = Examination(
            exam=EXAM,
            cause="first",
            shape=SHAPE,
            opened_ms=OPENED_HEIGHT * 1_000,
            opened_height=OPENED_HEIGHT,
            deadline_ms=0,
            commitment=ExamCommitment(answers=answered.answers, committed_ms=0, committed_height=COMMITTED_HEIGHT),
            openings=shown.openings,
        )
        return Attestation(
            evidence=evidence,
            since_ms=0,
            claimed_ms=CLAIMED_HEIGHT * 1_000,
            claimed_height=CLAIMED_HEIGHT,
            examination=examination,
        )


def test_an_honest_answer_is_right(tmp_path: Path) -> None:
    """What the miner computes, uploads and claims is found right and fresh; nothing stays on disk."""

    async def scenario() -> None:
        ground = Ground(tmp_path, fill_mib=1)
        await ground.set_up()
        found = await ground.judge.judge(MINER, await ground.sat(probed=True))
        (gpu,) = found.verdict.gpus
        assert (gpu.gpu, gpu.result, gpu.memory_mib) == (processor_id(MINER), "right", 1)
        assert (found.verdict.fresh, found.verdict.exam, found.verdict.miner) == (True, EXAM, MINER)
        assert list((tmp_path / "judge").iterdir()) == []
        assert list((tmp_path / "exams").iterdir()) == []

    run(scenario)


def test_a_miner_that_has_forgotten_its_work_does_it_again(tmp_path: Path) -> None:
    """After a crash the opening is made anew, from the seed and from the rows and the memory that were committed,
    whatever is filled by default."""

    async def scenario() -> None:
        ground = Ground(tmp_path, fill_mib=1)
        await ground.set_up()
        record = await ground.sat()
        assert isinstance(record.examination, Examination)
        assert isinstance(record.examination.commitment, ExamCommitment)
        again = Ground(tmp_path / "again")
        answers = record.examination.commitment.answers
        again.bus = ground.bus
        again.attester._bus = ground.bus
        shown = await again.attester.show(EXAM, block_hash(OPENED_HEIGHT), answers, block_hash(COMMITTED_HEIGHT))
        again.attester.close()
        assert shown.openings == record.examination.openings
        assert [isinstance(opening.fill, str) for opening in shown.openings] == [True]

    run(scenario)


@needs_compiler
@pytest.mark.parametrize(
    ("asked", "chosen", "filled"), [(0, None, 0), (3, None, 3), (4, None, 4), (5, None, 4), (4, 1, 1), (4, 0, 0)]
)
def test_what_the_chain_asks_for_is_filled(tmp_path: Path, asked: int, chosen: int | None, filled: int) -> None:
    """By default as much of a GPU's memory as must be filled for it to count; or as much as the miner's host says."""

    async def scenario() -> None:
        proc, sys = kernel_trees(tmp_path)
        host = places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys)
        ground = Ground(tmp_path, fill_mib=chosen, min_memory_mib=asked, places=host)
        await ground.set_up()
        record = await ground.sat(probed=True)
        found = await ground.judge.judge(MINER, record)
        assert [(gpu.result, gpu.memory_mib) for gpu in found.verdict.gpus] == [("right", filled)]
        assert chosen is not None or filled * 10_000 // FILLED_SHARE_BPS >= asked

    run(scenario)


def test_memory_that_is_not_free_spoils_no_exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are right, and no memory counts."""

    def none_free(*_: object) -> None:
        raise MemoryError("the GPU has too little memory")

    async def scenario() -> None:
        ground = Ground(tmp_path, fill_mib=1)
        monkeypatch.setattr("actors.attester.memory_on", none_free)
        await ground.set_up()
        found = await ground.judge.judge(MINER, await ground.sat())
        assert [(gpu.result, gpu.memory_mib) for gpu in found.verdict.gpus] == [("right", 0)]

    run(scenario)


@pytest.mark.parametrize(
    ("granted", "counted", "filled"),
    [((), 16_384, 0), ((143_771,), 0, 0), ((143_771,), 15_564, 12_452), ((8_192, 8_000), 15_564, 6_400), ((1,), 1, 1)],
)
def test_no_more_is_filled_than_a_device_has(granted: tuple[int, ...], counted: int, filled: int) -> None:
    """The least that its sources grant is the most that can count; a processor, of which none speaks, fills nothing."""
    sources = dict(zip(("nvml", "cuda"), (SourceReport(memory_mib=each) for each in granted), strict=False))
    assert fill_for(GpuEvidence(uuid="GPU-1", **sources), counted) == filled


def _examination(record: Attestation, **changes: Any) -> Attestation:
    return replace(record, examination=replace(record.examination, **changes))


def _answers(record: Attestation, **changes: Any) -> Attestation:
    commitment = record.examination.commitment  # type: ignore[union-attr]
    answers = tuple(replace(answer, **changes) for answer in commitment.answers)  # type: ignore[union-attr]
    return _examination(record, commitment=replace(commitment, answers=answers))  # type: ignore[arg-type, type-var]


def _openings(record: Attestation, **changes: Any) -> Attestation:
    openings = record.examination.openings  # type: ignore[union-attr]
    return _examination(record, openings=tuple(replace(each, **changes) for each in openings))  # type: ignore[union-attr]


Change = Callable[[Attestation], Attestation]
LIES: list[tuple[str, Change, str]] = [
    ("no answer", lambda record: _examination(record, commitment=UNSET, openings=UNSET), "absent"),
    ("nothing opened", lambda record: _examination(record, openings=UNSET), "late"),
    ("no blob", lambda record: _openings(record, rows=digest(b"nowhere")), "absent"),
    ("another root", lambda record: _answers(record, root=digest(b"root")), "wrong"),
    ("more rows than done", lambda record: _answers(record, rows=10**6), "malformed"),
    ("an old exam's answer", lambda record: _examination(record, opened_height=OPENED_HEIGHT - 1), "wrong"),
    ("another exam's size", lambda record: _examination(record, shape=replace(SHAPE, columns=64)), "malformed"),
]


@pytest.mark.parametrize(("change", "result"), [lie[1:] for lie in LIES], ids=[name for name, *_ in LIES])
def test_what_is_no_right_answer(tmp_path: Path, change: Change, result: str) -> None:
    """Each way of not having done the work has its result; the coordinator goes on."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        found = await ground.judge.judge(MINER, change(await ground.sat()))
        assert [gpu.result for gpu in found.verdict.gpus] == [result]

    run(scenario)


def test_a_host_without_memory_for_the_verdict_judges_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed error, after which the coordinator tries again; any other would stop it."""

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("actors.exam_judge.judge", no_memory)

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        record = await ground.sat()
        with pytest.raises(HostFault):
            await ground.judge.judge(MINER, record)

    run(scenario)


def test_somebody_elses_answer_is_wrong(tmp_path: Path) -> None:
    """The same blobs under another address answer another question."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        record = await ground.sat()
        path = tmp_path / "copy"
        assert isinstance(record.examination, Examination)
        assert not isinstance(record.examination.openings, type(UNSET))
        (opening,) = record.examination.openings
        await ground.bus.get_blob(MINER, opening.rows, path, 1_000)
        assert await ground.bus.put_blob(ALICE, path) == opening.rows
        found = await ground.judge.judge(ALICE, record)
        assert [gpu.result for gpu in found.verdict.gpus] == ["wrong"]

    run(scenario)


def test_an_opening_without_end_is_malformed(tmp_path: Path) -> None:
    """A blob that no opening can be is not even read."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        record = await ground.sat()
        path = tmp_path / "large"
        path.write_bytes(bytes(MAX_OPENING_BYTES + 1))
        large = await ground.bus.put_blob(MINER, path)
        found = await ground.judge.judge(MINER, _openings(record, rows=large))
        assert [gpu.result for gpu in found.verdict.gpus] == ["malformed"]

    run(scenario)


@pytest.mark.parametrize(
    ("changes", "evidence", "fresh"),
    [
        ({}, {}, True),
        ({"claimed_height": SEEN_HEIGHT + FRESH_BLOCKS, "claimed_ms": 10**12}, {}, True),
        ({"claimed_height": 10**6, "claimed_ms": SEEN_HEIGHT * 1_000 + FRESH_MS}, {}, True),
        ({"claimed_height": SEEN_HEIGHT + FRESH_BLOCKS + 1, "claimed_ms": 10**12}, {}, False),
        ({}, {"block": digest(b"another chain")}, False),
        ({}, {"height": CLAIMED_HEIGHT, "block": block_hash(CLAIMED_HEIGHT)}, False),
    ],
)
def test_evidence_must_name_a_young_block(
    tmp_path: Path, changes: dict[str, Any], evidence: dict[str, Any], fresh: bool
) -> None:
    """Of this chain, before the claim, and not long before it."""

    async def scenario() -> None:
        ground = Ground(tmp_path)
        await ground.set_up()
        record = await ground.sat()
        record = replace(record, evidence=replace(record.evidence, **evidence), **changes)
        assert (await ground.judge.judge(MINER, record)).verdict.fresh == fresh

    run(scenario)


def test_draws_follow_from_the_block(tmp_path: Path) -> None:
    """A job's number is that of its block's hash, below 10,000, and spread over all of them."""

    async def scenario() -> None:
        drawn = await Ground(tmp_path).judge.draw(EXAM, MINER, 9)
        assert (drawn.job, drawn.miner, drawn.number) == (EXAM, MINER, spot_number(block_hash(9), EXAM))

    run(scenario)
    numbers = [spot_number(block_hash(height), EXAM) for height in range(2_000)]
    assert all(0 <= number < 10_000 for number in numbers)
    assert 60 <= sum(number < 500 for number in numbers) <= 140
