"""What became of a tampering: found, without effect, or neither, which must not be."""

import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, Literal

from msgspec import Struct

Found = Literal["found", "harmless", "SILENT"]


class Verdict(Struct, frozen=True):
    """``where`` says what found it: the start, a read, the check …; or why it does no harm, or what is wrong."""

    found: Found
    where: str


class Tampering(Struct, frozen=True):
    """One way to change something, and what came of it."""

    target: str
    way: str
    number: int
    verdict: Verdict


Try = Callable[[Random, Path], tuple[str, Verdict]]


class Target(Struct, frozen=True, kw_only=True):
    """Something that may be tampered with. ``attempt`` changes a copy of it in some way, in an empty directory of its
    own, and judges; it returns the way and the verdict. ``share`` is its part of all tamperings."""

    name: str
    attempt: Try
    share: int


def found(where: str) -> Verdict:
    return Verdict("found", where)


def harmless(why: str) -> Verdict:
    return Verdict("harmless", why)


def silent(what: str) -> Verdict:
    """A ledger that differs, and nobody says so; or an error that is not one of ours."""
    return Verdict("SILENT", what)


def tamper(target: Target, seed: int, numbers: range, directory: Path) -> list[Tampering]:
    """The tamperings with these numbers. Each depends on the seed, the target and its number alone."""
    done = []
    for number in numbers:
        place = directory / f"{target.name}-{number}"
        place.mkdir()
        way = "?"
        try:
            way, verdict = target.attempt(Random(f"{seed} {target.name} {number}"), place)
        except Exception as error:  # noqa: BLE001 - an error that is not one of ours tells nobody what is wrong
            verdict = silent("".join(traceback.format_exception(error)[-3:]))
        done.append(Tampering(target.name, way, number, verdict))
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        place.rmdir()
    return done


COLUMNS: Final = "{:<12} {:<44} {:>9} {:>9} {:>9} {:>7}"


def table(tamperings: list[Tampering]) -> str:
    """Counts by target and way, and those that went unnoticed one by one."""
    ways: dict[tuple[str, str], Counter[str]] = {}
    for each in tamperings:
        ways.setdefault((each.target, each.way), Counter())[each.verdict.found] += 1
    lines = [COLUMNS.format("target", "way", "tried", "found", "harmless", "SILENT")]
    for (target, way), counts in sorted(ways.items()):
        numbers = (counts.total(), counts["found"], counts["harmless"], counts["SILENT"])
        lines.append(COLUMNS.format(target, way, *numbers))
    total = Counter(each.verdict.found for each in tamperings)
    lines.append(COLUMNS.format("all", "", total.total(), total["found"], total["harmless"], total["SILENT"]))
    where = Counter(f"{each.target}: {each.verdict.found}: {each.verdict.where}" for each in tamperings)
    lines += [f"{number:>7}  {text}" for text, number in sorted(where.items())]
    lines += [
        f"SILENT  {each.target} {each.number}: {each.way}: {each.verdict.where}"
        for each in tamperings
        if each.verdict.found == "SILENT"
    ]
    return "\n".join(lines)
