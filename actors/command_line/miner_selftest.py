"""``assay miner selftest``: what would this machine score as a miner, and why not more."""

import secrets
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from actors.command_line.levels import level_rows
from actors.command_line.miner_lists import Kept, lists_file
from actors.command_line.options import DISPLAY, Display
from actors.command_line.output import Advance, Output
from actors.profiles import PROFILES
from events.errors import DeviceUnavailable

if TYPE_CHECKING:
    from actors.attestation.selftest import SelfTest
    from actors.backends.base import Backend
    from schemas.genesis import Trust


def selftest(
    *,
    backend: Annotated[
        Literal["auto", "cpu", "pycuda"],
        Parameter(help="What computes the exam; auto takes the GPU where there is one that works."),
    ] = "auto",
    seconds: Annotated[
        int, Parameter(validator=validators.Number(gte=1, lte=60), help="How long the exam shall take, about.")
    ] = 3,
    fill: Annotated[
        int | None,
        Parameter(
            validator=validators.Number(gte=0, lte=1_048_576),
            help="MiB of memory to fill and read; by default, on a GPU, what the main network asks for.",
        ),
    ] = None,
    kept: Kept = None,
    display: Display = DISPLAY,
) -> int:
    """Probe this host, sit an exam, and show the score level by level, with what held it down.

    The time is this machine's own clock and nobody else has looked: the network measures both itself. Exit code 1 when
    the exam was not right.
    """
    from actors.attestation.lists import load
    from actors.attestation.selftest import selftest as examine
    from events.keys import Key

    output = Output(display)
    lists = load(lists_file(kept))
    chosen, why = _backend(backend)
    if why:
        output.note(f"backend cpu: {why}")
    with ExitStack() as stack:
        stages = _Stages(output, stack)
        found = examine(
            Key(secrets.token_bytes(32)).address,
            chosen,
            lists,
            duration_ms=seconds * 1_000,
            fill_mib=fill,
            stages=stages,
        )
    if output.is_for_people:
        _show(output, found)
    else:
        output.one(found, {})
    return 0 if all(level.points for gpu in found.gpus for level in gpu.levels if level.name == "exam") else 1


class _Stages:
    """A bar for each stage that takes long."""

    def __init__(self, output: Output, stack: ExitStack) -> None:
        self._output = output
        self._stack = stack
        self._stage = ""
        self._advance: Advance | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage or self._advance is None:
            self._stack.close()
            self._stage = stage
            self._advance = self._stack.enter_context(self._output.progress(stage, total))
        self._advance(done)


def _backend(wanted: str) -> "tuple[Backend, str]":
    """The backend, and why it is not the GPU's where that was possible."""
    from actors.backends import choose

    if wanted != "auto":
        return choose(wanted), ""
    try:
        return choose("pycuda"), ""
    except DeviceUnavailable as error:
        return choose("cpu"), str(error)


def _show(output: Output, found: "SelfTest") -> None:

    for gpu in found.gpus:
        output.many(found.gpus, level_rows(gpu))
    facts: dict[str, object] = {
        "score": f"{found.score} of 100, grade {found.grade} ({_grade(found.grade)})",
    }
    for name, trust in PROFILES.items():
        facts[name] = _admitted(found, trust)
    if found.exam is not None:
        exam = found.exam
        facts["exam"] = (
            f"{exam.rows:,} rows on {exam.backend} in {exam.duration_ms / 1_000:.1f} s, "
            f"{exam.giga_operations:,} giga-operations/s; checked in {exam.check_ms} ms"
        )
    for state in found.sources:
        facts[state.source] = f"{state.devices} devices" if state.answered else f"silent: {state.detail}"
    for label, paths in (("preloaded", found.preloaded), ("overlaid", found.overlaid), ("malformed", found.malformed)):
        if paths:
            facts[label] = "\n".join(paths)
    facts["lists"] = found.lists
    output.one(found, facts)
    for line in _advice(found):
        output.note(line)


def _grade(grade: str) -> str:
    return {"C": "claimed", "M": "measured", "H": "rooted in the hardware"}[grade]


def _admitted(found: "SelfTest", trust: "Trust") -> str:
    """Whether a chain of this profile would give it jobs, and what it lacks."""
    memory = min((gpu.memory_mib for gpu in found.gpus), default=0)
    performance = min((gpu.performance for gpu in found.gpus), default=0)
    lacking = [
        f"{least:,} {what} (it has {has:,})"
        for least, what, has in (
            (trust.min_score, "points", found.score),
            (trust.min_memory_mib, "MiB", memory),
            (trust.min_performance, "giga-operations/s", performance),
        )
        if has < least
    ]
    return f"no, it asks for {', '.join(lacking)}" if lacking else "would be admitted"


def _advice(found: "SelfTest") -> list[str]:
    """How to reach more, where something can be done."""
    said = []
    if not any(state.devices for state in found.sources):
        said.append("No source shows a GPU. With NVIDIA's driver, and in a container its runtime, four of them could.")
    if found.preloaded:
        said.append("Start the miner without LD_PRELOAD, LD_AUDIT and /etc/ld.so.preload, with the driver's own files.")
    if found.overlaid:
        said.append("Unmount what lies over the driver's files, /proc/driver and /sys.")
    if any(cap.code == "TOO_SLOW" for gpu in found.gpus for cap in gpu.caps):
        said.append("Check that the GPU itself computes (--backend pycuda), that it is idle, and its clocks.")
    return said
