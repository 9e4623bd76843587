"""Hold each deterministic package to a floor of covered branches.

`coverage report` mixes lines with branches and packages with each other, so a well covered package could hide another.
This reads the report of `coverage json` and prints one line per package::

    python tests/style/branch_floor.py build/coverage.json
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLOOR = 95
PACKAGES = ("schemas", "events", "projections")


def branches(report: Mapping[str, Any], package: str) -> tuple[int, int]:
    """Covered branches and all branches of one package, in a report of `coverage json`."""
    summaries = [
        file["summary"] for name, file in report["files"].items() if Path(name).as_posix().startswith(f"{package}/")
    ]
    return sum(s["covered_branches"] for s in summaries), sum(s["num_branches"] for s in summaries)


def shortfalls(report: Mapping[str, Any]) -> list[str]:
    """What is below the floor. A package without any branch in the report was not measured, and counts as below."""
    found = []
    for package in PACKAGES:
        covered, total = branches(report, package)
        if total == 0:
            found.append(f"{package}: no branch was measured; run the tests with --cov")
        elif covered * 100 < total * FLOOR:
            found.append(f"{package}: {covered} of {total} branches are covered, the floor is {FLOOR} %")
    return found


def main(arguments: list[str]) -> int:
    """Print each package's branches; 0 when all reach the floor, else 1."""
    report = json.loads(Path(arguments[0]).read_text())
    for package in PACKAGES:
        covered, total = branches(report, package)
        print(f"branches of {package}: {covered} of {total} covered ({100 * covered / max(total, 1):.1f} %)")
    below = shortfalls(report)
    for line in below:
        print(line, file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
