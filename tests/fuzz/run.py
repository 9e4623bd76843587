"""Many inputs for every parser, each parser in a process of its own; prints a table.

    python -m tests.fuzz.run --executions 1000000 --parser envelope --parser npy --seed 7

An input that must not happen is written to build/fuzz; keep it in tests/fuzz/corpus as ``found-…``. A process that
dies of an input cannot name it: run the parser again with ``--record FILE``, which holds each input before its turn.
"""

import argparse
import base64
import concurrent.futures
import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from tests.fuzz.engine import Finding, Report, bound_memory, explore, shrunk
from tests.fuzz.parsers import PARSERS
from tests.fuzz.seeds import corpus_of

OUT: Final = Path("build/fuzz")
SILENT_S: Final = 3_600


def main() -> int:
    """0: nothing was found."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    options.add_argument("--executions", type=int, default=100_000, help="inputs for each parser")
    options.add_argument("--parser", action="append", choices=sorted(PARSERS), help="only this one; repeat it")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options.add_argument("--record", type=Path, help="run one parser here, and write each input before its turn")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    names = chosen.parser or list(PARSERS)
    if chosen.worker or chosen.record:
        sys.stdout.write(msgspec.json.encode(_explored(names[0], chosen)).decode() + "\n")
        return 0
    return _table(names, chosen)


def _explored(name: str, chosen: Any) -> Report:
    bound_memory()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = PARSERS[name]
    record = chosen.record.write_bytes if chosen.record else None
    report = explore(parser, list(corpus_of(name).values()), chosen.executions, chosen.seed, record)
    report.findings = [shrunk(parser, finding) for finding in report.findings]
    return report


def _in_process(name: str, chosen: Any) -> Report:
    command = [sys.executable, "-m", "tests.fuzz.run", "--worker", "--parser", name]
    command += ["--executions", str(chosen.executions), "--seed", str(chosen.seed)]
    ran = subprocess.run(command, capture_output=True, timeout=SILENT_S, check=False)
    if ran.returncode == 0:
        return msgspec.json.decode(ran.stdout, type=Report)
    why = f"the process ended with {ran.returncode}\n{ran.stderr.decode(errors='replace')[-2_000:]}"
    return Report(parser=name, seed=chosen.seed, findings=[Finding("died", why, b"")])


def _table(names: list[str], chosen: Any) -> int:
    columns = "{:<16} {:>11} {:>11} {:>6} {:>8} {:>9} {:>10} {:>9} {:>8}"
    titles = ("parser", "executions", "accepted", "kinds", "cpu s", "per s", "slowest ms", "grown MiB", "findings")
    sys.stdout.write(columns.format(*titles) + "\n")
    total, found = 0, 0
    with concurrent.futures.ThreadPoolExecutor(chosen.processes) as pool:
        for report in pool.map(lambda name: _in_process(name, chosen), names):
            total += report.executions
            found += len(report.findings)
            rate = round(report.executions / report.seconds) if report.seconds else 0
            cells = (
                report.parser, report.executions, report.accepted, report.kinds, f"{report.seconds:.1f}", rate,
                f"{report.slowest_ms:.1f}", f"{report.growth_mib:.1f}", len(report.findings),
            )  # fmt: skip
            sys.stdout.write(columns.format(*cells) + "\n")
            for finding in report.findings:
                _tell(report.parser, finding)
            sys.stdout.flush()
    sys.stdout.write(f"{total} executions of {len(names)} parsers, {found} findings\n")
    return 1 if found else 0


def _tell(parser: str, finding: Finding) -> None:
    path = OUT / f"{parser}-{finding.kind}-{hashlib.sha256(finding.data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(finding.data)
    shown = finding.data[:200] if finding.data.isascii() else base64.b64encode(finding.data[:200])
    sys.stdout.write(f"    {finding.kind}: {shown!r} in {path}\n    {finding.detail.strip()}\n")


if __name__ == "__main__":
    sys.exit(main())
