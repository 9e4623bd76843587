"""The self-test: what this machine, and one with a mocked card, would score."""

import time
from pathlib import Path

import msgspec

from actors.attestation.lists import shipped
from actors.attestation.live import watched
from actors.attestation.probe import Places
from actors.attestation.selftest import SelfTest, selftest
from actors.backends.cpu import CpuBackend
from tests.actors.attestation.mock_host import UUID, kernel_trees, libraries, needs_compiler, places
from tests.actors.attestation.small_exam import MINER, SHAPE


def examined(where: Places, fill_mib: int = 0) -> tuple[SelfTest, list[str]]:
    stages: list[str] = []
    found = selftest(
        MINER,
        CpuBackend(),
        shipped(),
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
    assert found.exam is not None
    assert found.exam.backend == "cpu"
    assert list(dict.fromkeys(stages)) == ["probing", "calibrating", "exam", "filling memory"]
    assert msgspec.json.decode(msgspec.json.encode(found))["exam"]["rows"] == found.exam.rows


@needs_compiler
def test_a_mocked_card_on_a_processor_is_too_slow(tmp_path: Path) -> None:
    """Perfect evidence of an H200, and a processor behind it: 20 points, and the cap says why."""
    proc, sys = kernel_trees(tmp_path)
    found, _ = examined(places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys))
    assert found.score <= 20
    assert "TOO_SLOW" in {cap.code for cap in found.gpus[0].caps}
    assert found.evidence.gpus[0].live


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
