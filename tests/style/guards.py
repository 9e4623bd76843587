"""Rules of design and of shape: each takes source text and yields what breaks it."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

from tests.style.source_tree import PACKAGES, Violation, resolved
from tests.style.source_tree import imported_names as names_of

OURS = (*PACKAGES, "deploy", "tests")
MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "schemas": (),
    "events": ("schemas",),
    "projections": ("schemas", "events"),
    "bus": ("schemas", "events"),
    "actors": ("schemas", "events", "projections", "bus"),
}
NEVER_IMPORTS: Mapping[str, tuple[str, ...]] = {
    "schemas": ("asyncio", "nats", "time", "random"),
    "events": ("asyncio", "nats", "time", "random"),
    "projections": ("nats",),
}
DATABASES = ("sqlite3", "aiosqlite")
LONGEST_FUNCTION = 70
LONGEST_FILE = 600


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full module name of every import, late and by-name imports too; ``.`` stands for a relative one."""
    names = names_of(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(module=module, level=level):
                yield node.lineno, "." if level or module is None else module
            case ast.Call(func=function) if resolved(function, names) in {"importlib.import_module", "__import__"}:
                match node.args:
                    case [ast.Constant(value=str(module)), *_]:
                        yield node.lineno, module
                    case _:
                        yield node.lineno, "?"


def import_violations(name: str, source: str) -> list[Violation]:
    """Imports against the direction of the design; ``name`` is the file's path relative to the repository."""
    package, _, rest = name.partition("/")
    may = (package, *MAY_IMPORT[package])
    databases_allowed = package != "projections" or rest.rpartition("/")[2].startswith("read_model")
    found = []
    for line, module in _imports(ast.parse(source)):
        top = module.partition(".")[0]
        if module == ".":
            found.append(Violation(line, "relative import: there is one import root"))
        elif module == "?":
            if package != "actors":
                found.append(Violation(line, "import of a computed name"))
        elif top in OURS and top not in may:
            found.append(Violation(line, f"{package} may not import {top}"))
        elif top in NEVER_IMPORTS.get(package, ()):
            found.append(Violation(line, f"{package} never imports {top}"))
        elif top in DATABASES and (package in {"schemas", "events"} or not databases_allowed):
            found.append(Violation(line, f"{top} outside the read models"))
    return found


def stranger_violations(source: str, libraries: Sequence[str]) -> list[Violation]:
    """Imports of a program that has nothing of ours: anything but the standard library and these ``libraries``."""
    return [
        Violation(line, f"a program for strangers imports {module}")
        for line, module in _imports(ast.parse(source))
        if module.partition(".")[0] not in {*sys.stdlib_module_names, *libraries}
    ]


def path_violations(source: str) -> list[Violation]:
    """Edits of ``sys.path``."""
    tree = ast.parse(source)
    names = names_of(tree)
    return [
        Violation(node.lineno, "edit of sys.path: there is one import root")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name) and resolved(node, names) == "sys.path"
    ]


def length_violations(source: str) -> list[Violation]:
    """Functions that do not fit on a screen, and files that hold more than one concept."""
    found = [
        Violation(node.lineno, f"{node.name} has {length} lines, {LONGEST_FUNCTION} fit on a screen")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    lines = source.count("\n")
    if lines > LONGEST_FILE:
        found.append(Violation(1, f"the file has {lines} lines, more than {LONGEST_FILE}: part it by concept"))
    return found


def broad_handler_violations(source: str) -> list[Violation]:
    """Handlers that catch everything, under any of the names for it."""
    tree = ast.parse(source)
    names = names_of(tree)

    def is_broad(node: ast.expr | None) -> bool:
        if isinstance(node, ast.Tuple):
            return any(is_broad(element) for element in node.elts)
        return node is None or resolved(node, names).removeprefix("builtins.") in {"Exception", "BaseException"}

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
            found.append(Violation(node.lineno, "catches everything: name the errors"))
        elif isinstance(node, ast.Call) and resolved(node.func, names) == "contextlib.suppress":
            found += [
                Violation(node.lineno, "suppresses everything: name the errors") for a in node.args if is_broad(a)
            ]
    return found


def bare_assert_violations(source: str) -> list[Violation]:
    """``assert`` statements: they vanish under ``python -O``, so a broken invariant raises AssertionError by hand."""
    return [
        Violation(node.lineno, "bare assert: raise AssertionError by hand")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assert)
    ]


def float_violations(source: str) -> list[Violation]:
    """Floats by literal, by name, or by true division (which a path joined to a string literal is not)."""
    found = []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            found.append(Violation(node.lineno, f"float literal {node.value}"))
        elif isinstance(node, ast.Name) and node.id in {"float", "complex"}:
            found.append(Violation(node.lineno, f"the type {node.id}"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in {"float", "complex"}:
            found.append(Violation(node.lineno, f"the type {node.value} in an annotation as text"))
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            ends = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
            if not any(isinstance(end, ast.JoinedStr) or isinstance(getattr(end, "value", None), str) for end in ends):
                found.append(Violation(node.lineno, "true division gives a float: divide with //"))
    return found


_ADDRESS = re.compile(
    r"://|@\s|\b\d{1,3}(?:\.\d{1,3}){3}\b(?=[:/])|\b[\w-]+\.(?:org|com|net|io|dev|internal|local|lan|cloud)\b", re.ASCII
)


def lock_violations(lock: str) -> list[Violation]:
    """Addresses, options, and requirements that are not pinned by version and hash."""
    found = []
    for start, text in _logical_lines(lock):
        if address := _ADDRESS.search(text):
            found.append(Violation(start, f"names a place: {address.group()}"))
        elif text.startswith("-"):
            found.append(Violation(start, "an option: the lock holds requirements only"))
        elif not text.startswith("#") and not re.match(r"[a-z0-9][a-z0-9.-]*==[^\s;]+", text):
            found.append(Violation(start, "a requirement without one exact version"))
        elif not text.startswith("#") and "--hash=sha256:" not in text:
            found.append(Violation(start, "a requirement without a hash"))
    return found


def _logical_lines(lock: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each entry, continued lines joined."""
    start, held = 0, ""
    for number, line in enumerate(lock.splitlines(), start=1):
        start, held = (start, held) if held else (number, "")
        held += line.strip().removesuffix("\\")
        if not line.endswith("\\"):
            if held:
                yield start, held
            held = ""
    if held:
        yield start, held


def not_locked(requirements: Sequence[str], lock: str) -> list[str]:
    """The requirements, as pyproject.toml writes them, whose distribution the lock does not hold."""
    locked = set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", lock, re.MULTILINE))
    names = [re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements]
    normal = [re.sub(r"[-_.]+", "-", name.group()).lower() for name in names if name]
    return [name for name in normal if name not in locked]


def name_clashes(distributions: Mapping[str, Sequence[str]], own: str) -> list[str]:
    """Distributions other than ``own`` that bring a top-level package with a name of ours.

    ``distributions`` maps a top-level name to those that bring it, as importlib.metadata.packages_distributions does.
    """
    return [f"{other} brings {name}" for name in OURS for other in distributions.get(name, ()) if other != own]
