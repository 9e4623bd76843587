"""Whether a GPU lives while it works: its energy counter rises by power × time, our process and its memory show."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from actors.attestation.child import Said
from actors.attestation.probe import Places, ask_child
from schemas.attestation import Liveness


def watched(places: Places, work: Callable[[], object]) -> dict[str, Liveness]:
    """Do the work, and say by UUID what NVML showed before and after it. Empty where NVML does not answer.

    The power is the mean of that before and that right after: a load that has just ended still shows in it.
    """
    process = str(os.getpid())
    before = _by_uuid(ask_child(places, "live", process))
    began = time.monotonic_ns()
    work()
    after = _by_uuid(ask_child(places, "live", process)) if before else {}
    elapsed_ms = (time.monotonic_ns() - began) // 1_000_000
    return {uuid: _liveness(before[uuid], after[uuid], elapsed_ms) for uuid in before if uuid in after}


def _by_uuid(said: Said) -> dict[str, Mapping[str, Any]]:
    return {device["uuid"]: device for device in said.devices if isinstance(device.get("uuid"), str)}


def _liveness(before: Mapping[str, Any], after: Mapping[str, Any], elapsed_ms: int) -> Liveness:
    """What fits the record; what does not is left out."""
    powers = [said["power_mw"] for said in (before, after) if isinstance(said.get("power_mw"), int)]
    facts = {
        "energy_before_mj": before.get("energy_mj"),
        "energy_after_mj": after.get("energy_mj"),
        "power_mw": sum(powers) // len(powers) if powers else None,
        "own_process": after.get("own_process"),
        "own_memory_mib": after.get("own_memory_mib"),
    }
    kept = {name: value for name, value in facts.items() if _fits(name, value)}
    return msgspec.convert({"elapsed_ms": elapsed_ms, **kept}, Liveness)


def _fits(name: str, value: Any) -> bool:
    try:
        msgspec.convert({"elapsed_ms": 0, name: value}, Liveness)
    except msgspec.ValidationError:
        return False
    return True
