"""A row of results, the table and the file that they become."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table


class Row(Struct, frozen=True):
    """One number, and the name of the row that it is compared with."""

    name: str
    value: float
    unit: str
    reference: str


class Result(Struct, frozen=True):
    """A row as it is written: ``ratio`` is its value over that of its reference, of the same run."""

    name: str
    value: float
    unit: str
    reference: str
    ratio: float


def results(rows: Sequence[Row]) -> list[Result]:
    """Compares every row with its reference. Raises KeyError for a reference that was not measured."""
    values = {row.name: row.value for row in rows}
    return [
        Result(row.name, _short(row.value), row.unit, row.reference, _short(row.value / values[row.reference]))
        for row in rows
    ]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def show(found: Sequence[Result]) -> None:
    """Prints the table."""
    table = Table("name", "value", "unit", "reference", "ratio")
    for result in found:
        table.add_row(result.name, f"{result.value:,}", result.unit, result.reference, f"{result.ratio:g}")
    Console(width=140).print(table)


def write(found: Sequence[Result], path: Path) -> None:
    """Writes the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
