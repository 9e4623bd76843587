"""What a verb writes: its payload to stdout in the form that was asked for, everything else to stderr.

There are no colours off a terminal, nor where ``NO_COLOR`` is set.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import msgspec

from actors.command_line.options import Display
from events.errors import BadInput, NotFound
from schemas.values import MICRO_PER_ASY

Row = Mapping[str, Any]


class Advance(Protocol):
    """Told how much of the total is done by now."""

    def __call__(self, done: int, /) -> None: ...


def styled(text: str, style: str, stream: TextIO) -> str:
    """The text in an ANSI style where the stream is a terminal that wants it."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{style}m{text}\x1b[0m"


def asy(micro: int) -> str:
    """An amount for people: ``1.5 ASY``."""
    whole, rest = divmod(micro, MICRO_PER_ASY)
    return f"{whole:,}" + (f".{rest:06d}".rstrip("0") if rest else "") + " ASY"


def plain(value: Any) -> Any:
    """A record as JSON types; the form that programs read."""
    return msgspec.to_builtins(msgspec.json.decode(msgspec.json.encode(value)))


def only_errors() -> None:
    """Log lines of what runs within a command: only errors, and on stderr."""
    import logging

    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def check_target(file: Path) -> None:
    """Raises NotFound, BadInput where no file of this name can be written: better now than after the work."""
    if file.is_dir():
        raise BadInput(f"{file} is a directory", hint="Name a file in it.")
    if not file.absolute().parent.is_dir():
        raise NotFound(f"there is no directory {file.absolute().parent}", hint="Make it, or name another file.")


class Output:
    """The output of one verb."""

    def __init__(self, display: Display) -> None:
        self._form = display.output

    @property
    def is_for_people(self) -> bool:
        return self._form == "table"

    def one(self, value: Any, facts: Mapping[str, object]) -> None:
        """One thing: ``value`` for programs, ``facts`` (a label and a text each) for people."""
        if self.is_for_people:
            width = max((len(label) for label in facts), default=0)
            for label, fact in facts.items():
                first, *more = str(fact).split("\n")
                self._line(styled(f"{label:<{width}}", "2", sys.stdout) + f"  {first}")
                for line in more:
                    self._line(" " * (width + 2) + line)
        else:
            self._document(value)

    def many(self, values: Sequence[Any], rows: Iterable[Row]) -> None:
        """A list: ``values`` for programs, ``rows`` for people, whose first row names the columns."""
        if self._form == "ndjson":
            for value in values:
                self._line(msgspec.json.encode(value).decode())
        elif self._form == "json":
            self._document(list(values))
        else:
            for line in table(list(rows)):
                self._line(line)

    def event(self, value: Any, sentence: str) -> None:
        """Something that happens while the verb goes on: a line of ndjson on stdout, else a sentence on stderr."""
        if self._form == "ndjson":
            self._line(msgspec.json.encode(value).decode())
        else:
            self.note(sentence)

    def note(self, text: str) -> None:
        """A remark: to stderr."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Progress of something with ``total`` steps, on stderr: a bar on a terminal, a few plain lines elsewhere."""
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            with _bar(label, total) as advance:
                yield advance
        else:
            yield _Lines(label, total)

    def _document(self, value: Any) -> None:
        data = msgspec.json.encode(value)
        self._line((data if self._form == "ndjson" else msgspec.json.format(data, indent=2)).decode())

    def _line(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def table(rows: Sequence[Row]) -> list[str]:
    """Rows as lines, columns aligned; numbers to the right. No row, no line."""
    if not rows:
        return []
    names = list(rows[0])
    cells = [[str(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    right = [all(isinstance(row.get(name), int) for row in rows) for name in names]
    head = _aligned([name.upper() for name in names], widths, right)
    return [styled(head, "1", sys.stdout), *(_aligned(row, widths, right) for row in cells)]


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = [
        f"{cell:>{width}}" if to_right else f"{cell:<{width}}"
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(parts).rstrip()


class _Lines:
    """Progress where there is no terminal: a line at the start of every quarter, and no more than one a second."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = max(total, 1)
        self._said = 0
        self._at = time.monotonic()

    def __call__(self, done: int, /) -> None:
        percent = min(100, done * 100 // self._total)
        now = time.monotonic()
        if percent >= 100 > self._said or (percent >= self._said + 10 and now - self._at > 1):
            self._said, self._at = percent, now
            sys.stderr.write(f"{self._label}: {percent} %\n")
            sys.stderr.flush()


@contextmanager
def _bar(label: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=max(total, 1))

        def advance(done: int, /) -> None:
            progress.update(task, completed=done)

        yield advance
