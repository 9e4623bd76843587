"""The self-test: what this machine, and one with a mocked card, would score."""

import time
from pathlib import Path

import msgspec
import pytest

from actors.attestation.lists import shipped
from actors.attestation.live import watched
from actors.attestation.probe import Places
from actors.attestation.selftest import SelfTest, selftest
from actors.backends.base import Backend
from actors.backends.cpu import CpuBackend
from events.errors import BadInput, DeviceUnavailable
from tests.actors.attestation.mock_host import (
    SECOND_BUS,
    SECOND_UUID,
    UUID,
    kernel_trees,
    libraries,
    needs_compiler,
    neighbour,
    places,
)
from tests.actors.attestation.small_exam import MINER, SHAPE


class Cards:
    """What computes by UUID: the processor, in place of cards of which some are ``broken``."""

    def __init__(self, *broken: str) -> None:
        self.asked: list[str | None] = []
        self._broken = broken

    def __call__(self, device: str | None) -> Backend:
        self.asked.append(device)
        if device in self._broken:
            raise DeviceUnavailable(f"there is no GPU {device}")
        return CpuBackend()


def examined(
    where: Places, fill_mib: int = 0, *, only: str = "", cards: Cards | None = None
) -> tuple[SelfTest, list[str]]:
    stages: list[str] = []
    found = selftest(
        MINER,
        cards or Cards(),
        shipped(),
        only=only,
        places=where,
        shape=SHAPE,
        duration_ms=100,
        fill_mib=fill_mib,
        stages=lambda stage, done, total: stages.append(stage),
    )
    return found, stages


def test_a_processor_scores_honestly_low(tmp_path: Path) -> None:
    """Without a GPU the exam is right, the grade C, and the score below every threshold; each stage is told."""
    found, stages = examined(places(tmp_path, None), fill_mib=1)
    assert (found.score, found.grade) == (40, "C")
    (gpu,) = found.gpus
    assert gpu.gpu.startswith("CPU-")
    assert [level.points for level in gpu.levels] == [0, 0, 0, 30, 10]
    (exam,) = found.exams
    assert exam.backend == "cpu"
    assert list(dict.fromkeys(stages)) == ["probing", "calibrating", "exam", "filling memory"]
    assert msgspec.json.decode(msgspec.json.encode(found))["exams"][0]["rows"] == exam.rows


def test_memory_that_is_not_free_spoils_no_exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are right, and no memory was filled, as in the network."""

    def none_free(*_: object) -> None:
        raise MemoryError("the GPU has too little memory")

    monkeypatch.setattr("actors.attestation.selftest.memory_on", none_free)
    found, _ = examined(places(tmp_path, None), fill_mib=1)
    assert (found.score, [exam.memory_mib for exam in found.exams]) == (40, [0])
    assert [(gpu.filled_mib, gpu.memory_mib) for gpu in found.gpus] == [(0, 0)]


@needs_compiler
def test_a_mocked_card_on_a_processor_is_too_slow(tmp_path: Path) -> None:
    """Perfect evidence of an H200, and a processor behind it: 20 points, and the cap says why."""
    proc, sys = kernel_trees(tmp_path)
    found, _ = examined(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    assert found.score <= 20
    assert "TOO_SLOW" in {cap.code for cap in found.gpus[0].caps}
    assert found.evidence.gpus[0].live


@needs_compiler
def test_every_card_is_examined_by_its_uuid(tmp_path: Path) -> None:
    """Of two cards, which NVML and CUDA number differently, each sits an exam of its own, on what has its UUID; the
    stages say whose they are."""
    cards = Cards()
    found, stages = examined(places(tmp_path, libraries(tmp_path / "lib", CARDS="2")), cards=cards)
    assert cards.asked == [UUID, SECOND_UUID]
    assert [exam.gpu for exam in found.exams] == [gpu.gpu for gpu in found.gpus] == cards.asked
    assert [level.points for gpu in found.gpus for level in gpu.levels if level.name == "exam"] == [30, 30]
    assert all(gpu.live for gpu in found.evidence.gpus)
    assert {f"{UUID}: exam", f"{SECOND_UUID}: exam"} <= set(stages)
    assert found.score == min(gpu.score for gpu in found.gpus)
    assert msgspec.json.decode(msgspec.json.encode(found), type=SelfTest) == found


@needs_compiler
def test_one_card_alone(tmp_path: Path) -> None:
    """The card with this UUID, in whatever case it is written, is claimed and examined, and no other."""
    cards = Cards()
    library = libraries(tmp_path / "lib", CARDS="2")
    found, _ = examined(places(tmp_path, library), only=SECOND_UUID.lower(), cards=cards)
    assert cards.asked == [SECOND_UUID]
    assert [gpu.uuid for gpu in found.evidence.gpus] == [gpu.gpu for gpu in found.gpus] == [SECOND_UUID]


@needs_compiler
def test_a_card_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With the names of those that are; a neighbour's is none of them."""
    _, sys = kernel_trees(tmp_path)
    neighbour(sys, SECOND_BUS)
    where = places(tmp_path, libraries(tmp_path / "lib"), sys=sys)
    with pytest.raises(BadInput, match="PCI-0000-65-00-0") as raised:
        examined(where, only="PCI-0000-65-00-0")
    assert UUID in raised.value.why


@needs_compiler
def test_a_card_that_cannot_work_is_absent(tmp_path: Path) -> None:
    """The others are examined nevertheless; its reason is told, and its points are those without an exam."""
    found, _ = examined(places(tmp_path, libraries(tmp_path / "lib", CARDS="2")), cards=Cards(UUID))
    assert [exam.gpu for exam in found.exams] == [SECOND_UUID]
    assert [(absent.gpu, UUID in absent.why) for absent in found.unexamined] == [(UUID, True)]
    assert "EXAM_ABSENT" in {cap.code for cap in found.gpus[0].caps}
    assert "EXAM_ABSENT" not in {cap.code for cap in found.gpus[1].caps}


@needs_compiler
def test_where_no_card_can_work_the_reason_is_raised(tmp_path: Path) -> None:
    """There is nothing to score."""
    with pytest.raises(DeviceUnavailable, match=UUID):
        examined(places(tmp_path, libraries(tmp_path / "lib", CARDS="2")), cards=Cards(UUID, SECOND_UUID))


@needs_compiler
def test_a_neighbour_is_told_and_not_examined(tmp_path: Path) -> None:
    """A card in /sys alone is no part of the claim, and shows beside it."""
    proc, sys = kernel_trees(tmp_path)
    neighbour(sys, SECOND_BUS)
    cards = Cards()
    found, _ = examined(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys), cards=cards)
    assert cards.asked == [UUID]
    assert [gpu.uuid for gpu in found.unclaimed] == ["PCI-0000-65-00-0"]


@needs_compiler
def test_energy_and_processes_are_watched(tmp_path: Path) -> None:
    """What NVML shows while something works: the counter at both ends, the power, and how long it was watched."""
    done: list[bool] = []

    def work() -> None:
        done.append(True)
        time.sleep(0.5)

    live = watched(places(tmp_path, libraries(tmp_path / "lib")), work)[UUID]
    assert done == [True]
    assert (live.energy_before_mj, live.power_mw) == (1_000_000, 120_000)
    assert isinstance(live.energy_after_mj, int)
    assert live.energy_after_mj > 1_002_000
    assert live.elapsed_ms >= 500


@needs_compiler
def test_a_library_that_crashes_while_it_watches_stops_no_work(tmp_path: Path) -> None:
    """The work is done, and nothing is said of the device."""
    done: list[bool] = []
    assert watched(places(tmp_path, libraries(tmp_path / "lib", CRASH="1")), lambda: done.append(True)) == {}
    assert done == [True]


def test_without_nvml_nothing_is_watched(tmp_path: Path) -> None:
    """The work is done all the same."""
    done: list[bool] = []
    assert watched(places(tmp_path, None), lambda: done.append(True)) == {}
    assert done == [True]
