"""Processor time of processes, from ``/proc``."""

import os
from pathlib import Path

from actors.devnet import Devnet

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


class Spending:
    """What each process of a devnet, and this one, spends between two looks."""

    def __init__(self, devnet: Devnet) -> None:
        self._pids = {name: pid for name, pid in devnet.pids().items() if pid is not None}
        self._pids["this load generator"] = os.getpid()
        self._began = {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    def microseconds_per(self, count: int) -> dict[str, float]:
        """Microseconds of processor per unit of work since the start, by process."""
        return {name: (cpu_seconds(pid) - self._began[name]) * 1e6 / count for name, pid in sorted(self._pids.items())}
