"""The sources that the style tests read, and what they find there."""

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "events", "projections", "bus", "actors")

# Files of projections that stand at the edge: they read and write files or databases, and hand the rules what they
# read, or check signatures on several threads before the rules see the events. They may use threads, asyncio and the
# file system. The clock and randomness are as foreign to them as to the rules.
EDGE_OF_PROJECTIONS = ("read_model", "log_file", "audit", "signatures")


@dataclass(frozen=True)
class Violation:
    """One place that breaks a rule of style."""

    line: int
    what: str


def python_files(*folders: str) -> list[Path]:
    """Every Python file below the given folders of the repository, in order of name."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    """The path as the repository names it, with forward slashes."""
    return path.relative_to(ROOT).as_posix()


def is_edge(name: str) -> bool:
    """Whether this is a file of projections at the edge; ``name`` is relative to the repository."""
    return name.startswith("projections/") and Path(name).name.startswith(EDGE_OF_PROJECTIONS)


def rule_files() -> list[Path]:
    """Every file whose result all nodes must agree on: schemas, events, and the rules of projections."""
    return [path for path in python_files("schemas", "events", "projections") if not is_edge(relative(path))]


def dotted(node: ast.expr) -> str:
    """``a.b.c`` for an expression of names and attributes, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def imported_names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for: ``{"now": "time.time"}`` after ``from time import time as now``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def resolved(node: ast.expr, names: dict[str, str]) -> str:
    """The dotted name of an expression with imported names written out, else the empty string."""
    head, dot, rest = dotted(node).partition(".")
    return names.get(head, head) + dot + rest if head else ""


def report(found: dict[str, list[Violation]]) -> list[str]:
    """The violations of many files as lines that an editor can jump to."""
    return [f"{name}:{violation.line}: {violation.what}" for name, some in found.items() for violation in some]
