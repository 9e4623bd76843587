"""Tampering with exports: by accident, and by somebody who knows the format and writes all digests anew."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import msgspec

from events.errors import Divergence
from projections.audit import Auditor, audit_file
from projections.log_file import LogWriter
from schemas.genesis import Genesis
from tests.fuzz.ledger_parsers import sealed_anew
from tests.fuzz.mutator import Mutator
from tests.projections.small_network import LogEntry, SmallNetwork, make_genesis
from tests.projections.story import story
from tests.tampering.changes import BYTES
from tests.tampering.verdicts import Target, Verdict, found, harmless, silent

Lines = list[bytes]


def export(genesis: Genesis, log: list[LogEntry]) -> bytes:
    auditor = Auditor(genesis)
    file = io.BytesIO()
    writer = LogWriter(file, genesis)
    for entry in log:
        auditor.add(*entry)
        writer.add(*entry)
    writer.close(auditor.totals())
    return file.getvalue()


@cache
def honest() -> bytes:
    return export(story().genesis, story().log)


@cache
def other_chain() -> SmallNetwork:
    """A chain of the same name with the same validators and people; only its genesis is another."""
    genesis = msgspec.structs.replace(make_genesis(), time_ms=make_genesis().time_ms - 1)
    network = SmallNetwork(genesis)
    for amount in range(1, 20):
        network.block(network.transfer(amount))
    return network


@cache
def foreign() -> Lines:
    return export(other_chain().genesis, other_chain().log).splitlines(keepends=True)


def _remove(lines: Lines, chance: Random) -> None:
    del lines[chance.randrange(len(lines))]


def _remove_block(lines: Lines, chance: Random) -> None:
    """A whole block with its votes."""
    first = 1 + 4 * chance.randrange((len(lines) - 2) // 4)
    del lines[first : first + 4]


def _repeat(lines: Lines, chance: Random) -> None:
    index = chance.randrange(1, len(lines) - 1)
    lines.insert(chance.randrange(1, len(lines)), lines[index])


def _swap(lines: Lines, chance: Random) -> None:
    first, second = chance.sample(range(1, len(lines) - 1), 2)
    lines[first], lines[second] = lines[second], lines[first]


def _splice(lines: Lines, chance: Random) -> None:
    """Messages of another chain in the place of some."""
    first, size = chance.randrange(1, len(lines) - 2), chance.choice((1, 4, 8))
    start = chance.randrange(1, len(foreign()) - 9)
    lines[first : first + size] = foreign()[start : start + size]


def _genesis_of_another(lines: Lines, chance: Random) -> None:
    lines[0] = foreign()[0]


def _trailer_of_another(lines: Lines, chance: Random) -> None:
    lines[-1] = foreign()[-1]


def _rest_of_another(lines: Lines, chance: Random) -> None:
    """From some block on, the log is another chain's."""
    place = 1 + 4 * chance.randrange(1, (len(lines) - 2) // 4)
    lines[place:] = foreign()[place:]


def _another_value(lines: Lines, chance: Random) -> None:
    """A value inside of a message, still JSON."""
    index = chance.randrange(len(lines))
    lines[index] = Mutator([lines[index]], str(chance.random())).next().replace(b"\n", b"") + b"\n"


LINES: dict[str, Callable[[Lines, Random], None]] = {
    "a line removed": _remove,
    "a block removed": _remove_block,
    "a line repeated": _repeat,
    "lines swapped": _swap,
    "messages of another chain": _splice,
    "the genesis of another chain": _genesis_of_another,
    "the trailer of another chain": _trailer_of_another,
    "the rest of another chain": _rest_of_another,
    "another value": _another_value,
}


def attempt(chance: Random, directory: Path) -> tuple[str, Verdict]:
    """Bytes, lines, or lines with all their digests, sequences and the trailer's digest written anew."""
    way = chance.choice((*BYTES, *LINES, *(f"{way}, sealed anew" for way in LINES)))
    base, _, anew = way.partition(", ")
    if base in BYTES:
        data = BYTES[base](honest(), chance)
    else:
        lines = honest().splitlines(keepends=True)
        LINES[base](lines, chance)
        if anew:
            lines = [_renumbered(line, index) for index, line in enumerate(lines)]
        data = sealed_anew(b"".join(lines)) if anew else b"".join(lines)
    path = directory / "log.ndjson"
    path.write_bytes(data)
    return way, _judged(path)


def _renumbered(line: bytes, index: int) -> bytes:
    """With the sequence that its place asks for."""
    head, mark, tail = line.partition(b'"sequence":')
    rest = tail.lstrip(b"0123456789")
    return head + mark + str(index).encode() + rest if mark else line


def _judged(path: Path) -> Verdict:
    chain = story().chain
    roots: dict[int, str] = {}
    try:
        report = audit_file(path, expected_genesis_hash=chain.genesis_hash, roots=roots.__setitem__)
    except Divergence as error:
        report = error.data.get("report")
        return found(report.failure.check if report else "genesis")
    honest_roots = {final.header.height: final.header.state_root for final in story().finals}
    if (report.totals.head, report.totals.state_root, roots) != (chain.head_hash, chain.state.root(), honest_roots):
        return silent(f"an audit passes with head {report.totals.head} at height {report.totals.height}")
    return harmless("the audit finds the same roots at every height")


EXPORTS = Target(name="export", attempt=attempt, share=8)
