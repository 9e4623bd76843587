"""The shortest form of ``make faults``, in a process of its own: what a proxy's broken lines leave ends with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(960)
def test_nothing_is_lost_when_the_leader_and_a_proposer_die(tmp_path: Path) -> None:
    """Two kills -9 under load, on three servers: nothing acknowledged is lost or done twice, every node holds the same
    blocks, and the audit passes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.run", "--short"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, refused 0, duplicated 0, divergent roots 0" in done.stdout
    assert "2 faults in" in done.stdout
    assert (tmp_path / "build" / "faults.json").exists()
