"""Runs one parser on many inputs, and notes what must not happen: a crash, a hang, memory without bound.

A crash is any exception that the parser does not list as its refusal, a broken invariant included. Time is that of
the processor, so a busy machine makes no findings.
"""

import os
import re
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from msgspec import Struct

from tests.fuzz.mutator import Mutator

HANG_S: Final = 1.0
GROWTH_BYTES: Final = 64 * 2**20
ADDRESS_SPACE_BYTES: Final = 2 * 2**30
STATM: Final = Path("/proc/self/statm")
MOST_FINDINGS: Final = 10
MOST_KINDS: Final = 4_000
# What an error quotes from the input says nothing about what kind of answer it is.
_QUOTED: Final = re.compile(r"'[^']*'?|\"[^\"]*\"?|\w*[A-Z0-9\u0080-\U0010ffff]\w*")

Parse = Callable[[bytes], object]


class Parser(Struct, frozen=True, kw_only=True):
    """Something that reads a stranger's bytes. ``make`` prepares it, and leaves what is to be
    closed with the stack; what it returns raises one of ``refusals``, or
    AssertionError where what it has read breaks an invariant. ``repair`` makes a mutant pass its outer checks again
    (a digest, a signature), so that the inner ones are met as well."""

    name: str
    make: Callable[[ExitStack], Parse]
    refusals: tuple[type[Exception], ...]
    repair: Callable[[bytes], bytes] | None = None


class Finding(Struct, frozen=True):
    """What must not happen, and the input that does it."""

    kind: str
    detail: str
    data: bytes


class Report(Struct, kw_only=True):
    """What became of the inputs. ``kinds`` counts the different answers that were seen."""

    parser: str
    seed: int
    executions: int = 0
    accepted: int = 0
    kinds: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    growth_mib: float = 0.0
    findings: list[Finding] = []


class Hang(BaseException):
    """An input has taken longer than `HANG_S` of processor time. No parser catches it."""


def run_one(parse: Parse, refusals: tuple[type[Exception], ...], data: bytes) -> tuple[str, Finding | None]:
    """One input: what kind of answer it got, and what is wrong with it."""
    try:
        parse(data)
    except refusals as error:
        return f"{type(error).__name__}: {_QUOTED.sub('', str(error)[:120])}", None
    except Hang:
        return "hang", Finding("hang", f"more than {HANG_S} s of processor time", data)
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return "crash", Finding(type(error).__name__, "".join(traceback.format_exception(error)[-4:]), data)
    return "", None


class _Watch:
    """Interrupts an input that takes too long. Looks four times a second of processor time."""

    def __init__(self) -> None:
        self.began = time.process_time()

    def look(self, number: int, frame: FrameType | None) -> None:
        if time.process_time() - self.began > HANG_S:
            self.began = time.process_time()
            raise Hang

    @contextmanager
    def running(self) -> Iterator[None]:
        before = signal.signal(signal.SIGVTALRM, self.look)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.25, 0.25)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)


def explore(
    parser: Parser,
    corpus: list[bytes],
    executions: int,
    seed: int,
    before_each: Callable[[bytes], None] | None = None,
) -> Report:
    """The corpus itself, then mutants of it. An input with a new kind of answer becomes part of the corpus."""
    report = Report(parser=parser.name, seed=seed)
    stack = ExitStack()
    parse = parser.make(stack)
    mutator = Mutator(corpus, f"{parser.name} {seed}")
    kinds: set[str] = set()
    places: set[str] = set()
    watch = _Watch()
    settled_at, settled_bytes = max(1, executions // 5), 0
    began = time.process_time()
    with stack, watch.running():
        for number in range(executions):
            data = corpus[number] if number < len(corpus) else mutator.next()
            if parser.repair is not None and number & 1:
                data = parser.repair(data)
            if before_each is not None:
                before_each(data)
            watch.began = started = time.process_time()
            kind, finding = run_one(parse, parser.refusals, data)
            took = time.process_time() - started
            report.slowest_ms = max(report.slowest_ms, took * 1_000)
            if finding is None and took > HANG_S:
                finding = Finding("hang", f"{took:.1f} s of processor time", data)
            if finding is not None and (place := _place(finding)) not in places:
                places.add(place)
                report.findings.append(finding)
                if len(report.findings) >= MOST_FINDINGS:
                    break
            if not kind:
                report.accepted += 1
                if number < len(corpus) or report.accepted % 16 == 0:
                    mutator.keep(data, accepted=True)
            if kind not in kinds and len(kinds) < MOST_KINDS:
                kinds.add(kind)
                mutator.keep(data)
            report.executions += 1
            if number == settled_at:
                settled_bytes = resident_bytes()
    report.seconds = time.process_time() - began
    report.kinds = len(kinds)
    growth = resident_bytes() - settled_bytes if settled_bytes else 0
    report.growth_mib = growth / 2**20
    if growth > GROWTH_BYTES:
        report.findings.append(Finding("memory", f"grew by {growth >> 20} MiB", b""))
    return report


def _place(finding: Finding) -> str:
    """Where in the sources it happens: one finding for each is enough."""
    return finding.kind + " ".join(line for line in finding.detail.splitlines() if line.startswith("  File "))


def resident_bytes() -> int:
    """The memory that this process holds; its peak where the system does not tell the present."""
    try:
        return int(STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024


def bound_memory() -> None:
    """From now on no input can make this process take more address space than `ADDRESS_SPACE_BYTES` beyond its own."""
    try:
        used = int(STATM.read_bytes().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))


def shrunk(parser: Parser, finding: Finding) -> Finding:
    """A smaller input with the same kind of crash, where leaving parts out is enough."""
    if finding.kind in {"hang", "memory"}:
        return finding
    data, size = finding.data, max(1, len(finding.data) // 2)
    with ExitStack() as stack:
        parse = parser.make(stack)
        while size:
            place = 0
            while place < len(data):
                smaller = data[:place] + data[place + size :]
                _, found = run_one(parse, parser.refusals, smaller)
                if found is not None and found.kind == finding.kind:
                    data, finding = smaller, found
                else:
                    place += size
            size //= 2
    return finding
