"""Whether a GPU lives while it works: its energy counter rises by power × time, our process and its memory show."""

import os
import select
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from actors.attestation.child import READY
from actors.attestation.probe import Places, end_child, start_child
from schemas.attestation import Liveness


def watched(places: Places, work: Callable[[], object]) -> dict[str, Liveness]:
    """Do the work, and say by UUID what NVML showed meanwhile, ten times a second. Empty where it does not answer."""
    try:
        process = start_child(places, "watch", str(os.getpid()))
    except OSError:
        work()
        return {}
    try:
        _has_looked(places, process)
        work()
    finally:
        said = end_child(places, process)
    named = (device for device in said.devices if isinstance(device.get("uuid"), str))
    return {device["uuid"]: _liveness(device) for device in named}


def _has_looked(places: Places, process: subprocess.Popen[bytes]) -> None:
    """Wait until the child has looked for the first time, or has ended."""
    if process.stdout is None:
        raise AssertionError("the child was started without a pipe")
    readable, _, _ = select.select([process.stdout], [], [], places.timeout_s)
    if readable:
        os.read(process.stdout.fileno(), len(READY))


def _liveness(said: Mapping[str, Any]) -> Liveness:
    """What fits the record; what does not is left out."""
    elapsed = said.get("elapsed_ms")
    elapsed_ms = elapsed if isinstance(elapsed, int) and elapsed >= 0 else 0
    kept = {name: value for name, value in said.items() if name != "elapsed_ms" and _fits(name, value)}
    return msgspec.convert({"elapsed_ms": elapsed_ms, **kept}, Liveness)


def _fits(name: str, value: Any) -> bool:
    try:
        msgspec.convert({"elapsed_ms": 0, name: value}, Liveness)
    except msgspec.ValidationError:
        return False
    return True
