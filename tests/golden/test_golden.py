"""The golden log: what one version of the rules made of a log, every later version makes of it too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from projections.audit import audit_file
from schemas.events import EVENT_TYPES
from tests.golden.generate import LOG, ROOTS, golden

ROOT = Path(__file__).parents[2]
OBSERVER = """
import hashlib, pathlib, sys
from projections.audit import audit_file
from tests.golden.generate import golden
roots = {}
audit_file(pathlib.Path(sys.argv[1]), roots=roots.__setitem__)
print(hashlib.sha256(golden()[0]).hexdigest(), list(roots.items()))
"""


def test_the_golden_log_has_its_state_root_at_every_height() -> None:
    """Executed again, the log gives the recorded genesis hash and state roots, block by block."""
    expected = json.loads(ROOTS.read_bytes())
    found: dict[int, str] = {}
    report = audit_file(LOG, roots=found.__setitem__, expected_genesis_hash=expected["genesis"])
    assert list(found.values()) == expected["roots"]
    assert list(found) == list(range(1, report.totals.height + 1))


def test_the_golden_log_covers_the_rules() -> None:
    """Every type of event is in it, applied and failed, beside timers, skipped messages and evidence."""
    report = audit_file(LOG)
    assert sorted(report.outcomes) == sorted(str(record.__struct_config__.tag) for record in EVENT_TYPES)
    assert all(results.get("applied") for results in report.outcomes.values())
    failing = {name for name, results in report.outcomes.items() if len(results) > 1}
    assert {str(record.__struct_config__.tag) for record in EVENT_TYPES} - failing == {"miner.registered"}
    assert report.timers >= 4
    assert report.skipped >= 8
    assert report.evidence == 2
    assert LOG.stat().st_size < 300_000


def test_this_version_makes_the_same_golden_log() -> None:
    """Generated anew, log and roots are the same to the byte."""
    log, roots = golden()
    assert roots == ROOTS.read_bytes()
    assert log == LOG.read_bytes()


@pytest.fixture(scope="module")
def here() -> str:
    return observe({})


def observe(surroundings: dict[str, str]) -> str:
    """What a process with these surroundings makes of the golden log."""
    result = subprocess.run(
        [sys.executable, "-c", OBSERVER, str(LOG)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **surroundings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return result.stdout


@pytest.mark.parametrize(
    "surroundings",
    [
        {"PYTHONHASHSEED": "0"},
        {"PYTHONHASHSEED": "4294967295"},
        {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"},
        {"TZ": "America/St_Johns"},
        {"LC_ALL": "C"},
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0"},
        {"PYTHONOPTIMIZE": "1"},
    ],
    ids=lambda surroundings: " ".join(f"{name}={value}" for name, value in surroundings.items()),
)
def test_surroundings_change_nothing(here: str, surroundings: dict[str, str]) -> None:
    """Hash seed, time zone, locale and optimisation change neither a state root nor a byte of an export."""
    assert observe(surroundings) == here
    assert len(json.loads(ROOTS.read_bytes())["roots"]) == here.count("), (") + 1
