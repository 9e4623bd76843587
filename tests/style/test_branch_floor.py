"""The floor under the branch coverage of each deterministic package."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.style import branch_floor


def a_report(**packages: tuple[int, int]) -> dict[str, Any]:
    """A report of `coverage json` with one file per package: (covered branches, all branches)."""
    return {
        "files": {
            f"{package}/a.py": {"summary": {"covered_branches": covered, "num_branches": total}}
            for package, (covered, total) in packages.items()
        }
    }


def test_a_package_at_the_floor_passes() -> None:
    """95 of 100 branches are enough in each package."""
    assert branch_floor.shortfalls(a_report(schemas=(95, 100), events=(20, 20), projections=(980, 1000))) == []


def test_a_well_covered_package_hides_no_other() -> None:
    """One package below the floor is found, however well the others are covered."""
    below = branch_floor.shortfalls(a_report(schemas=(94, 100), events=(20, 20), projections=(10_000, 10_000)))
    assert below == ["schemas: 94 of 100 branches are covered, the floor is 95 %"]


def test_a_package_that_was_not_measured_is_found() -> None:
    """A report without a package fails, so that a wrong call of pytest cannot pass."""
    below = branch_floor.shortfalls(a_report(schemas=(1, 1), projections=(1, 1)))
    assert below == ["events: no branch was measured; run the tests with --cov"]


@pytest.mark.parametrize(("covered", "status"), [(100, 0), (94, 1)])
def test_the_exit_status_tells(covered: int, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints a line per package and exits 1 when one is below the floor."""
    report = tmp_path / "coverage.json"
    report.write_text(json.dumps(a_report(schemas=(covered, 100), events=(1, 1), projections=(1, 1))))
    assert branch_floor.main([str(report)]) == status
    assert f"branches of schemas: {covered} of 100 covered" in capsys.readouterr().out
