"""The sources keep to the design: who may import whom, what the rules may see, and the shape of the code."""

import re
import tomllib
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.style import determinism, guards
from tests.style.source_tree import (
    PACKAGES,
    ROOT,
    Violation,
    is_edge,
    python_files,
    relative,
    report,
    rule_files,
)

# Where catching everything is right, and why. Each entry must be needed.
OUTERMOST_LOOPS = {
    "actors/runtime.py": "the loop that supervises an actor: whatever it dies of is logged, and it is started again",
    "actors/command_line/__init__.py": "the last frame: whatever reaches it becomes a message and an exit code",
}


def check(files: list[Path], guard: Callable[[str, str], list[Violation]]) -> list[str]:
    """The violations that a guard of (name, source) finds in the files; the files may not be none."""
    assert files
    return report({relative(path): guard(relative(path), path.read_text(encoding="utf-8")) for path in files})


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_in_one_direction(package: str) -> None:
    """Imports run only from actors through bus and projections to events to schemas, and never to what is banned."""
    assert check(python_files(package), guards.import_violations) == []


def test_programs_for_strangers_need_nothing_of_ours() -> None:
    """The examples in deploy/ and the programs of the README need the standard library, NATS, NaCl and NumPy alone."""
    examples = {relative(path): path.read_text() for path in (ROOT / "deploy").rglob("*.py")}
    readme = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    programs = examples | {f"README.md, program {number}": text for number, text in enumerate(readme, 1)}
    assert len(programs) == len(examples) + len(readme) >= 3
    found = {name: guards.stranger_violations(text, ("nats", "nacl", "numpy")) for name, text in programs.items()}
    assert report(found) == []


def test_there_is_one_import_root() -> None:
    """Nothing edits sys.path, neither in the packages nor in the tests."""
    files = [path for path in python_files(*PACKAGES, "tests") if relative(path) != "tests/style/guards.py"]
    assert check(files, lambda _, source: guards.path_violations(source)) == []


def test_no_distribution_brings_a_package_with_a_name_of_ours() -> None:
    """No installed distribution has a top-level package called as one of this repository is."""
    brought = packages_distributions()
    assert "pytest" in brought
    assert guards.name_clashes(brought, own="assay-network") == []


def test_rules_see_neither_clock_nor_chance_nor_surroundings() -> None:
    """The rules read no clock, no randomness, no environment, no identity of objects, and start no threads."""
    files = python_files("schemas", "events", "projections")
    found = check(files, lambda name, source: determinism.surroundings_violations(source, edge=is_edge(name)))
    assert found == []


def test_rules_never_walk_through_a_set() -> None:
    """No rule depends on the order of a set, which differs from run to run."""
    members = frozenset[str]().union(*(determinism.set_members(path.read_text()) for path in rule_files()))
    found = check(rule_files(), lambda _, source: determinism.set_iteration_violations(source, members))
    assert found == []


def test_no_float_comes_near_a_record() -> None:
    """Schemas, events and rules hold no float, neither by literal nor by type nor by division."""
    assert check(rule_files(), lambda _, source: guards.float_violations(source)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_fit_on_a_screen(package: str) -> None:
    """No function is longer than a screen, no file holds more than a concept."""
    assert check(python_files(package), lambda _, source: guards.length_violations(source)) == []


def test_only_outermost_loops_catch_everything() -> None:
    """Catching everything happens in the listed outermost loops, and nowhere else."""
    files = [path for path in python_files(*PACKAGES) if relative(path) not in OUTERMOST_LOOPS]
    assert check(files, lambda _, source: guards.broad_handler_violations(source)) == []


@pytest.mark.parametrize("name", OUTERMOST_LOOPS)
def test_each_listed_loop_needs_its_entry(name: str) -> None:
    """A file on the list of outermost loops does catch everything: the list holds no leftovers."""
    assert guards.broad_handler_violations((ROOT / name).read_text(encoding="utf-8")) != []


def test_invariants_are_raised_by_hand() -> None:
    """No `assert` statement outside the tests."""
    assert check(python_files(*PACKAGES), lambda _, source: guards.bare_assert_violations(source)) == []


def test_the_lock_file_holds_hashes_and_no_address() -> None:
    """Every locked requirement has one version and a hash, and the file names no place to fetch it from."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert [f"requirements.lock:{found.line}: {found.what}" for found in guards.lock_violations(lock)] == []


def test_the_lock_file_holds_every_dependency() -> None:
    """What pyproject.toml asks for, with the extra `dev`, is locked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert guards.not_locked(asked, lock) == []
