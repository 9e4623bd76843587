"""Whoever changes what is stored, by accident or on purpose, is found out, or has changed nothing that counts."""

import random
from pathlib import Path

import pytest

from tests.tampering.changes import BYTES
from tests.tampering.targets import TARGETS
from tests.tampering.verdicts import Target, found, harmless, silent, table, tamper

SEED = 20_261_017
COUNTS = {"export": 120, "read model": 80, "keystore": 80, "genesis": 80, "server": 6}


@pytest.mark.parametrize("name", TARGETS)
def test_no_tampering_goes_unnoticed(name: str, tmp_path: Path) -> None:
    """Each is found with one of our errors, or the ledger is the same. `python -m tests.tampering.run` tries more."""
    tamperings = tamper(TARGETS[name], SEED, range(COUNTS[name]), tmp_path)
    assert [each for each in tamperings if each.verdict.found == "SILENT"] == []
    verdicts = [each.verdict.found for each in tamperings]
    assert len(verdicts) == COUNTS[name]
    assert verdicts.count("found") > len(verdicts) // 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", BYTES)
def test_a_change_changes(name: str) -> None:
    """Every way to change bytes does so, on large and on small files, with one result for one seed."""
    for size in (4, 100, 20_000):
        data = random.Random(size).randbytes(size)
        results = [BYTES[name](data, random.Random(seed)) for seed in (1, 1, 2, 3, 4)]
        assert results[0] == results[1]
        assert any(result != data for result in results)


def test_a_silent_change_is_told() -> None:
    """What nobody finds, and an error that is not one of ours, stand in the table with all that repeats them."""
    verdicts = iter((found("there"), harmless("white space"), silent("another root")))

    def attempt(chance: random.Random, directory: Path) -> tuple[str, object]:
        return "a bit", next(verdicts)

    planted = Target(name="planted", attempt=attempt, share=1)  # type: ignore[arg-type]
    directory = Path("/nonexistent")
    with pytest.MonkeyPatch.context() as patch:
        for method in ("mkdir", "rmdir"):
            patch.setattr(Path, method, lambda path: None)
        done = tamper(planted, 1, range(4), directory)
    assert [each.verdict.found for each in done] == ["found", "harmless", "SILENT", "SILENT"]
    told = table(done)
    assert "SILENT  planted 2: a bit: another root" in told
    assert "SILENT  planted 3: ?: " in told
    assert "StopIteration" in told
