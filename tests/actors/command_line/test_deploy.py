"""The rehearsal of deploy/README.md, as it stands there."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bus.server import find_binary
from tests.actors.command_line.devnet_process import ROOT, environment

DEPLOY = ROOT / "deploy"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.mark.timeout(400)
def test_a_network_of_ones_own_is_made_as_the_readme_says(tmp_path: Path) -> None:
    """Keys, genesis, server, one process per role: a job is settled, its receipt verified, and the log audited."""
    script = re.search(r"^```sh\n(.*?)^```$", (DEPLOY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert script is not None
    work, settings, programs = tmp_path / "work", tmp_path / "deploy", tmp_path / "programs"
    for directory in (work, settings, programs):
        directory.mkdir()
    port = str(free_port())
    for file in DEPLOY.glob("*.*"):
        (settings / file.name).write_text(file.read_text().replace("4222", port))
    (programs / "nats-server").symlink_to(find_binary())
    (programs / "assay").write_text(f'#!/bin/sh\nexec {sys.executable} -m actors.command_line "$@"\n')
    (programs / "assay").chmod(0o700)
    more = {"DEPLOY": str(settings), "PATH": f"{programs}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script[1].replace("4222", port)],
        cwd=work,
        env=environment(tmp_path / "home", **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=360)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, said
    assert "settled: verified, paid" in said
    assert [line for line in said.splitlines() if line.startswith("verdict")] == [
        "verdict  passed",
        "verdict     passed",
    ]
