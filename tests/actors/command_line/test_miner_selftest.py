"""``assay miner selftest`` and ``assay miner lists``: what they print, as a table and as JSON."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.attestation.lists import shipped, signed
from actors.attestation.reading import SourceState
from actors.attestation.selftest import SelfTest
from actors.command_line.doctor_gpu import gpu_findings
from actors.command_line.miner_selftest import advice
from events.keys import Key
from projections.attestation import scores_of
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
from tests.projections.attested import attestation

MAINTAINER = Key(bytes(31) + b"\1")


def test_the_selftest_shows_every_level(assay: Any) -> None:
    """Level by level with points, caps and reasons; progress on stderr; the JSON has the same score."""
    shown = assay("miner", "selftest", "--backend", "cpu", "--seconds", "1")
    assert shown.code == 0
    for word in ("1 device", "2 driver", "3 bus", "4 exam", "5 identity", "of 100", "mainnet", "testnet"):
        assert word in shown.out
    assert "exam: 100 %" in shown.err
    told = assay("miner", "selftest", "--backend", "cpu", "--seconds", "1", "-o", "json")
    found = json.loads(told.out)
    assert f"{found['score']} of 100" in shown.out
    assert [level["number"] for level in found["gpus"][0]["levels"]] == [1, 2, 3, 4, 5]


@needs_compiler
def test_the_selftest_shows_every_card(assay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards by mock libraries: a table and a line of the exam for each; with --gpu, one of them alone."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries(tmp_path / "lib", CARDS="2")))
    words = ("miner", "selftest", "--backend", "cpu", "--seconds", "1")
    shown = assay(*words)
    assert shown.out.count("4 exam") == 2
    for uuid in (UUID, SECOND_UUID):
        assert f"{uuid}: " in shown.err
        assert f"{uuid}: " in shown.out
    one = json.loads(assay(*words, "--gpu", SECOND_UUID, "-o", "json").out)
    assert [exam["gpu"] for exam in one["exams"]] == [gpu["gpu"] for gpu in one["gpus"]] == [SECOND_UUID]
    refused = assay(*words, "--gpu", "GPU-0")
    assert refused.code == 2
    assert SECOND_UUID in refused.err


@pytest.mark.parametrize(("performance", "told"), [(500_000, 0), (150_000, 1), (30_000, 1)])
def test_a_slow_card_is_told_what_to_look_at(performance: int, told: int) -> None:
    """One that is a little too slow as well as one that is nothing like it."""
    record = attestation(performance=performance)
    found = SelfTest(
        score=0,
        grade="M",
        lists="",
        driver="listed",
        sources=(SourceState(source="nvml", answered=True, devices=1),),
        preloaded=(),
        overlaid=(),
        malformed=(),
        exams=(),
        unexamined=(),
        gpus=scores_of(record),
        unclaimed=(),
        evidence=record.evidence,
    )
    assert sum("that it is idle" in line for line in advice(found)) == told


def test_lists_are_shown_signed_and_updated(assay: Any, tmp_path: Path) -> None:
    """A maintainer signs newer lists, a host takes them; from a stranger it does not."""
    shown = assay("miner", "lists", "show")
    assert shipped().digest() in shown.out
    file = tmp_path / "update.json"
    file.write_bytes(signed(msgspec.structs.replace(shipped(), version=9), MAINTAINER))
    stranger = Key(bytes(31) + b"\2").address
    refused = assay("miner", "lists", "update", str(file), "--key", stranger)
    assert refused.code == 4
    assert stranger in refused.err
    taken = assay("miner", "lists", "update", str(file), "--key", MAINTAINER.address, "-o", "json")
    assert json.loads(taken.out)["version"] == 9
    assert json.loads(assay("miner", "lists", "show", "-o", "json").out)["version"] == 9
    kept = ("--lists", str(tmp_path / "miner" / "lists.json"))
    assert json.loads(assay("miner", "lists", "show", *kept, "-o", "json").out)["version"] == 1
    assert assay("miner", "lists", "update", str(file), "--key", MAINTAINER.address, *kept).code == 0
    assert json.loads(assay("miner", "lists", "show", *kept, "-o", "json").out)["version"] == 9


def test_a_maintainer_signs_what_show_prints(assay: Any, tmp_path: Path) -> None:
    """The lists that are shown can be edited, signed with a seed file, and taken."""
    lists = json.loads(assay("miner", "lists", "show", "-o", "json").out)
    (tmp_path / "lists.json").write_text(json.dumps({**lists, "version": 10}))
    seed = tmp_path / "maintainer.seed"
    seed.touch(mode=0o600)
    seed.write_text(MAINTAINER.seed_text())
    target = tmp_path / "signed.json"
    words = ("miner", "lists", "sign", str(tmp_path / "lists.json"), "--to", str(target), "--seed-file", str(seed))
    assert assay(*words).code == 0
    assert assay("miner", "lists", "update", str(target), "--key", MAINTAINER.address).code == 0


@needs_compiler
def test_the_doctor_sees_what_stands_before_the_driver(tmp_path: Path) -> None:
    """A card that the kernel shows and no library does, and a library that was told to be loaded first, are warned
    of, each with its remedy."""
    proc, sys = kernel_trees(tmp_path)
    silent = {found.check: found for found in gpu_findings(places(tmp_path, None, proc=proc, sys=sys))}
    assert silent["gpu driver"].finding == "570.86.15"
    assert silent["nvml"].result == silent["cuda"].result == "warning"
    assert silent["nvml"].fix
    strange = places(tmp_path, libraries(tmp_path / "lib"), proc=proc, sys=sys, at_home=False)
    covered = {found.check: found for found in gpu_findings(strange)}
    assert covered["preloaded"].result == "warning"
    assert "NVIDIA H200" in covered["nvml"].finding


@needs_compiler
def test_the_doctor_names_cards_that_are_not_this_hosts(tmp_path: Path) -> None:
    """Beside a card of its own they are mentioned; where it has none, with what can be done."""
    proc, sys = kernel_trees(tmp_path)
    neighbour(sys, SECOND_BUS)
    beside = {found.check: found for found in gpu_findings(places(tmp_path, libraries(tmp_path / "lib"), sys=sys))}
    assert (beside["other gpus"].result, beside["other gpus"].fix) == ("ok", "")
    assert "PCI-0000-65-00-0" in beside["other gpus"].finding
    assert "PCI-0000-17-00-0" not in beside["other gpus"].finding
    alone = {found.check: found for found in gpu_findings(places(tmp_path, None, sys=sys))}
    assert alone["other gpus"].result == "warning"
    assert alone["other gpus"].fix
    assert {alone[check].result for check in ("nvml", "cuda", "backend pycuda")} == {"ok"}
    claimed = {found.check for found in gpu_findings(places(tmp_path, None, proc=proc))}
    assert "other gpus" not in claimed


def test_the_doctor_finds_nothing_wrong_without_a_card(tmp_path: Path) -> None:
    """A host without a GPU needs nothing mended."""
    findings = gpu_findings(places(tmp_path, None))
    assert {found.result for found in findings} == {"ok"}
    assert {found.check for found in findings} >= {"gpu driver", "nvml", "cuda", "backend cpu", "backend pycuda"}
