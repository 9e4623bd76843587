"""The guards themselves: each finds what is planted, and lets what is allowed pass. No check cannot fail."""

import pytest

from tests.style import determinism, guards
from tests.style.source_tree import is_edge

LONG_FUNCTION = "def long():\n" + "    pass\n" * guards.LONGEST_FUNCTION
SCREENFUL = "def fits():\n" + "    pass\n" * (guards.LONGEST_FUNCTION - 1)


@pytest.mark.parametrize(
    ("name", "source", "what"),
    [
        ("schemas/a.py", "import events", "schemas may not import events"),
        ("schemas/a.py", "from projections.state import State", "schemas may not import projections"),
        ("schemas/a.py", "import time", "schemas never imports time"),
        ("schemas/a.py", "import asyncio.events", "schemas never imports asyncio"),
        ("schemas/a.py", "import sqlite3", "sqlite3 outside the read models"),
        ("schemas/a.py", "from . import values", "relative import"),
        ("schemas/a.py", "def f():\n    from nats.aio import client", "schemas never imports nats"),
        ("events/a.py", "from random import choice", "events never imports random"),
        ("events/a.py", "import bus.port", "events may not import bus"),
        ("events/a.py", "import importlib\nimportlib.import_module('bus.port')", "events may not import bus"),
        ("events/a.py", "from importlib import import_module as get\nget(name)", "import of a computed name"),
        ("events/a.py", "__import__('time')", "events never imports time"),
        ("projections/a.py", "import actors.runtime", "projections may not import actors"),
        ("projections/a.py", "from bus import port", "projections may not import bus"),
        ("projections/a.py", "import nats", "projections never imports nats"),
        ("projections/state.py", "import aiosqlite", "aiosqlite outside the read models"),
        ("projections/audit.py", "import sqlite3", "sqlite3 outside the read models"),
        ("bus/a.py", "from projections import state", "bus may not import projections"),
        ("bus/a.py", "import actors", "bus may not import actors"),
        ("bus/a.py", "import tests.style.guards", "bus may not import tests"),
        ("actors/a.py", "import tests", "actors may not import tests"),
        ("actors/a.py", "import deploy", "actors may not import deploy"),
    ],
)
def test_a_planted_import_is_found(name: str, source: str, what: str) -> None:
    """An import against the design is found, wherever and however it is written."""
    assert [what in violation.what for violation in guards.import_violations(name, source)] == [True]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("events/a.py", "import schemas.events\nfrom events.errors import AssayError"),
        ("projections/read_model.py", "import aiosqlite, sqlite3, asyncio"),
        ("projections/read_model_jobs.py", "from events.merkle import root"),
        ("bus/a.py", "import asyncio, nats, time\nfrom schemas import events"),
        ("actors/a.py", "import sqlite3\nfrom projections import state\nfrom bus.port import Bus"),
        ("actors/a.py", "import importlib\nimportlib.import_module(name)"),
        ("schemas/a.py", "import timeit_of_another_name"),
    ],
)
def test_an_import_along_the_design_passes(name: str, source: str) -> None:
    """An import that the design allows is no violation."""
    assert guards.import_violations(name, source) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import asyncio\nimport nats.js.api\nfrom nacl.signing import SigningKey", 0),
        ("import events", 1),
        ("def late():\n    from schemas.events import JobSubmitted", 1),
        ("import msgspec", 1),
        ("from . import client", 1),
    ],
)
def test_a_program_for_strangers_that_needs_more_is_found(source: str, count: int) -> None:
    """Whatever is neither in the standard library nor one of the libraries named."""
    assert len(guards.stranger_violations(source, ("nats", "nacl"))) == count


@pytest.mark.parametrize(
    "source",
    ["import sys\nsys.path.insert(0, 'x')", "from sys import path\npath.append('x')", "import sys as s\ns.path = []"],
)
def test_a_planted_edit_of_the_path_is_found(source: str) -> None:
    """An edit of sys.path is found under each of its names."""
    assert len(guards.path_violations(source)) == 1


@pytest.mark.parametrize(
    ("source", "count"),
    [
        (LONG_FUNCTION, 1),
        (LONG_FUNCTION.replace("def", "async def"), 1),
        (SCREENFUL, 0),
        ("x = 1\n" * 601, 1),
        ("x = 1\n", 0),
    ],
)
def test_lengths_are_counted(source: str, count: int) -> None:
    """A function of 71 lines and a file of 601 are found, a function of 70 passes."""
    assert len(guards.length_violations(source)) == count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("try:\n    f()\nexcept:\n    pass", 1),
        ("try:\n    f()\nexcept Exception:\n    pass", 1),
        ("try:\n    f()\nexcept BaseException as error:\n    raise", 1),
        ("try:\n    f()\nexcept (OSError, Exception):\n    pass", 1),
        ("import builtins\ntry:\n    f()\nexcept builtins.Exception:\n    pass", 1),
        ("from builtins import Exception as All\ntry:\n    f()\nexcept All:\n    pass", 1),
        ("try:\n    f()\nexcept* Exception:\n    pass", 1),
        ("import contextlib\nwith contextlib.suppress(Exception):\n    f()", 1),
        ("from contextlib import suppress\nwith suppress(OSError):\n    f()", 0),
        ("try:\n    f()\nexcept (OSError, ValueError):\n    pass", 0),
        ("class WorseException(Exception):\n    pass", 0),
    ],
)
def test_broad_handlers_are_found(source: str, count: int) -> None:
    """A handler that catches everything is found under each of its names; one that names its errors passes."""
    assert len(guards.broad_handler_violations(source)) == count


@pytest.mark.parametrize(
    ("source", "count"), [("assert x", 1), ("def f():\n    assert x, 'why'", 1), ("raise AssertionError('x')", 0)]
)
def test_bare_asserts_are_found(source: str, count: int) -> None:
    """An assert statement is found, an AssertionError raised by hand passes."""
    assert len(guards.bare_assert_violations(source)) == count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("x = 1.5", 1),
        ("x = 1e6", 1),
        ("class A:\n    x: float", 1),
        ("def f(x: 'float') -> None: ...", 1),
        ("def f(x: list[float | None]) -> None: ...", 1),
        ("x = float(y)", 1),
        ("x = amount * bps / 10_000", 1),
        ("x /= 2", 1),
        ("x = amount * bps // 10_000", 0),
        ("x = folder / 'name.json'", 0),
        ("x = folder / f'{name}.json'", 0),
        ("'a float is refused'", 0),
    ],
)
def test_floats_are_found(source: str, count: int) -> None:
    """A float is found by literal, type and division; integers, words and paths pass."""
    assert len(guards.float_violations(source)) == count


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic_ns",
        "import random",
        "import secrets",
        "import uuid",
        "import os",
        "import sys",
        "import threading",
        "import asyncio",
        "from concurrent.futures import ThreadPoolExecutor",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as d\nd.datetime.now(d.UTC)",
        "from datetime import date\ndate.today()",
        "import nacl.utils\nnacl.utils.random(32)",
        "from nacl.signing import SigningKey\nSigningKey.generate()",
        "import numpy as np\nnp.random.default_rng(1)",
        "id(x)",
        "sorted(xs, key=id)",
        "hash(x)",
        "x.__hash__()",
        "open('genesis.json')",
    ],
)
def test_a_planted_look_outside_is_found(source: str) -> None:
    """Clock, chance, environment, identity and threads are found in a file of rules."""
    assert len(determinism.surroundings_violations(source)) == 1


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import time", 1),
        ("import random", 1),
        ("from datetime import datetime\ndatetime.now()", 1),
        ("hash(x)", 1),
        ("import os\nos.environ['HOME']", 1),
        ("from os import getenv\ngetenv('HOME')", 1),
        ("import os, asyncio, threading\nopen('log')\nos.fsync(f)", 0),
    ],
)
def test_the_edge_may_read_files_but_no_clock(source: str, count: int) -> None:
    """A file at the edge may use threads and files; clock, chance and environment are found there too."""
    assert len(determinism.surroundings_violations(source, edge=True)) == count


def test_what_only_looks_like_a_look_outside_passes() -> None:
    """Names that are fields, and dates that are arguments, are no violation."""
    source = "class A:\n    id: str\n    hash: str\ndef f(a: A) -> str:\n    return a.id + a.hash + a.open()\n"
    assert (
        determinism.surroundings_violations(source + "from datetime import datetime\ndatetime.fromtimestamp(0)") == []
    )


@pytest.mark.parametrize(
    "source",
    [
        "for x in {1, 2}: pass",
        "for x in set(xs): pass",
        "seen = set()\nfor x in seen: pass",
        "a = frozenset(xs)\nb = a\n[x for x in b]",
        "def f(xs: set[int]):\n    return list(xs)",
        "def f(xs: 'frozenset[int]'):\n    return tuple(xs)",
        "def f(xs: frozenset[int] | None):\n    return {x: 1 for x in xs}",
        "from collections.abc import Set\ndef f(xs: Set[int]):\n    yield from xs",
        "class A:\n    members: frozenset[str]\ndef f(a: A):\n    return ','.join(a.members)",
        "class A:\n    def __init__(self):\n        self.seen = set()\n    def f(self):\n        return [*self.seen]",
        "def members() -> set[int]: ...\nfor x in members(): pass",
        "for x in a.keys() - b.keys(): pass",
        "for x in seen.union(more): pass",
        "seen = {1}\nfor x in seen | more: pass",
        "for i, x in enumerate({1, 2}): pass",
        "first, second = {1, 2}",
        "x = {1, 2}\nx.pop()",
        "next(iter({1, 2}))",
        "sorted({'aa', 'b'}, key=len)",
        "max({'a', 'b'}, key=len)",
        "dict.fromkeys({1, 2})",
        "xs.extend({1, 2})",
        "f'{ {1, 2} }'",
        "str({1, 2})",
        "outer = {1}\ndef f():\n    return [x for x in outer]",
        "(x for x in (found := {1, 2}))",
    ],
)
def test_a_planted_walk_through_a_set_is_found(source: str) -> None:
    """A walk through a set is found by literal, name, field, function, operator and method."""
    assert determinism.set_iteration_violations(source) != []


@pytest.mark.parametrize(
    "source",
    [
        "for x in sorted({1, 2}): pass",
        "x in {1, 2}",
        "len({1, 2}), min({1, 2}), sum({1, 2})",
        "all(x > 0 for x in {1, 2})",
        "sorted(x + 1 for x in {1, 2})",
        "seen = set()\nseen.add(1)\nseen.update(xs)\nseen.discard(2)",
        "{x + 1 for x in {1, 2}}",
        "frozenset({1, 2})",
        "for x in [1, 2]: pass",
        "for k, v in d.items(): pass",
        "for k in d.keys(): pass",
        "def f(xs: set[int]): pass\ndef g(xs: list[int]):\n    for x in xs: pass",
        "flags = a | b\nprint(flags)",
        "stack = [1]\nstack.pop()",
        "mapping.pop('a')",
    ],
)
def test_a_set_without_a_walk_passes(source: str) -> None:
    """Membership, counting, sorting and building of sets are no violation, nor are lists and dictionaries."""
    assert determinism.set_iteration_violations(source) == []


def test_a_field_that_is_a_set_is_known_in_other_files() -> None:
    """A walk through a field that another file annotates as a set is found."""
    members = determinism.set_members("class Vote:\n    voters: frozenset[str]\ndef absent() -> set[str]: ...")
    assert members == {"voters", "absent"}
    assert len(determinism.set_iteration_violations("for voter in vote.voters: pass", members)) == 1
    assert len(determinism.set_iteration_violations("for voter in absent(): pass", members)) == 1


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("--index-url https://host.example/simple", "names a place"),
        ("--no-binary :all:", "an option"),
        ("-e .", "an option"),
        ("rich==15.0.0", "without a hash"),
        ("rich>=15.0.0 --hash=sha256:00", "without one exact version"),
        ("rich @ file:///wheels/rich.whl --hash=sha256:00", "names a place"),
        ("rich==15.0.0 --hash=sha256:00 # from packages.example.org", "names a place"),
        ("# made on build.internal", "names a place"),
        ("# made at 10.0.0.1:8080", "names a place"),
    ],
)
def test_a_planted_line_of_the_lock_is_found(line: str, what: str) -> None:
    """An address, an option and a requirement that is not pinned are found in a lock file."""
    lock = f"attrs==26.1.0 \\\n    --hash=sha256:00\n    # via rich\n{line}\n"
    found = guards.lock_violations(lock)
    assert [violation.line for violation in found] == [4]
    assert what in found[0].what


def test_a_dependency_that_is_not_locked_is_found() -> None:
    """A requirement is looked up under the normal form of its name."""
    lock = "prometheus-client==0.26.0 \\\n    --hash=sha256:00\n"
    assert guards.not_locked(["prometheus_client>=0.26", "Rich>=15,<16"], lock) == ["rich"]


def test_a_distribution_with_a_name_of_ours_is_found() -> None:
    """A top-level package of another distribution clashes, our own does not."""
    brought = {"events": ["assay-network", "Events"], "schemas": ["assay-network"], "rich": ["rich"]}
    assert guards.name_clashes(brought, own="assay-network") == ["Events brings events"]


@pytest.mark.parametrize(
    ("name", "edge"),
    [
        ("projections/read_model.py", True),
        ("projections/read_model_jobs.py", True),
        ("projections/log_file.py", True),
        ("projections/audit.py", True),
        ("projections/execute.py", False),
        ("events/audit.py", False),
    ],
)
def test_the_edge_of_projections_is_known_by_name(name: str, edge: bool) -> None:
    """Only read models, log files and the audit stand at the edge, and only in projections."""
    assert is_edge(name) is edge
