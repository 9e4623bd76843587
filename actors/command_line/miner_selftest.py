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
    from actors.attestation.selftest import Backends, SelfTest
    from actors.backends.base import Backend
    from schemas.genesis import Trust


def selftest(
    *,
    backend: Annotated[
        Literal["auto", "cpu", "pycuda"],
        Parameter(help="What computes the exam; auto takes the GPU where there is one that works."),
    ] = "auto",
    gpu: Annotated[
        str, Parameter(help="The UUID of one GPU; without it, all of this host are examined, one after the other.")
    ] = "",
    seconds: Annotated[
        int,
        Parameter(validator=validators.Number(gte=1, lte=60), help="How long the exam of a GPU shall take, about."),
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
    """Probe this host, sit an exam on each GPU, and show the score level by level, with what held it down.
    The score is that of the worst GPU. The time is this machine's own clock and nobody else has looked: the network
    measures both itself. Exit code 1 when an exam was not right.
    """
    from actors.attestation.lists import load
    from actors.attestation.selftest import selftest as examine
    from events.keys import Key

    output = Output(display)
    lists = load(lists_file(kept))
    backends, why = _backends(backend)
    if why:
        output.note(f"backend cpu: {why}")
    with ExitStack() as stack:
        stages = _Stages(output, stack)
        found = examine(
            Key(secrets.token_bytes(32)).address,
            backends,
            lists,
            only=gpu,
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


def _backends(wanted: str) -> "tuple[Backends, str]":
    """What computes on a GPU, and why not the GPU itself where that was possible: all by one backend."""
    from actors.backends import choose

    name, why = wanted, ""
    if wanted == "auto":
        name = "pycuda"
        try:
            choose(name)
        except DeviceUnavailable as error:
            name, why = "cpu", str(error)

    def backend(device: str | None) -> "Backend":
        return choose(name, device=device)

    return backend, why


def _show(output: Output, found: "SelfTest") -> None:
    for gpu in found.gpus:
        output.note(f"{gpu.gpu}: {gpu.score} points, grade {gpu.grade}")
        output.many(found.gpus, level_rows(gpu))
    facts: dict[str, object] = {
        "score": f"{found.score} of 100, grade {found.grade} ({_grade(found.grade)})",
    }
    for name, trust in PROFILES.items():
        facts[name] = _admitted(found, trust)
    facts["exam"] = "\n".join(_exams(found))
    for state in found.sources:
        facts[state.source] = f"{state.devices} devices" if state.answered else f"silent: {state.detail}"
    for label, paths in (("preloaded", found.preloaded), ("overlaid", found.overlaid), ("malformed", found.malformed)):
        if paths:
            facts[label] = "\n".join(paths)
    if found.unclaimed:
        facts["other gpus"] = f"seen by the kernel only, not claimed: {', '.join(gpu.uuid for gpu in found.unclaimed)}"
    facts["lists"] = found.lists
    output.one(found, facts)
    for line in advice(found):
        output.note(line)


def _exams(found: "SelfTest") -> list[str]:
    """A line for each GPU, with its name where there are several."""
    said = {
        exam.gpu: f"{exam.rows:,} rows on {exam.backend} in {exam.duration_ms / 1_000:.1f} s, "
        f"{exam.giga_operations:,} giga-operations/s; checked in {exam.check_ms} ms"
        for exam in found.exams
    }
    said |= {absent.gpu: f"not answered: {absent.why}" for absent in found.unexamined}
    lines = [said[gpu.gpu] for gpu in found.gpus]
    return lines if len(lines) == 1 else [f"{gpu.gpu}: {line}" for gpu, line in zip(found.gpus, lines, strict=True)]


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


def advice(found: "SelfTest") -> list[str]:
    """How to reach more, where something can be done."""
    said = []
    if found.unexamined:
        said.append(
            "A claimed GPU that does not answer holds the whole host down. Mend it, see that CUDA_VISIBLE_DEVICES "
            "leaves it in, or let the miner claim another one alone: `gpu` in its settings, --gpu here."
        )
    if not any(state.devices for state in found.sources):
        said.append("No source shows a GPU. With NVIDIA's driver, and in a container its runtime, four of them could.")
    if found.preloaded:
        said.append("Start the miner without LD_PRELOAD, LD_AUDIT and /etc/ld.so.preload, with the driver's own files.")
    if found.overlaid:
        said.append("Unmount what lies over the driver's files, /proc/driver and /sys.")
    if any(cap.code in ("SLOW", "TOO_SLOW") for gpu in found.gpus for cap in gpu.caps):
        said.append("Check that the GPU itself computes (--backend pycuda), that it is idle, and its clocks.")
    return said
