"""A planted defect: what it is, and how it is put into the running code.

A mutation names a function and the text in it that is replaced. Each text has to be there exactly once: a mutation that
does not apply any more raises, so that none passes for caught, or for missed, because the code has moved on. The
function's code object is exchanged in place, so every module that has imported the function runs the mutated one.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from msgspec import Struct


class DoesNotApply(AssertionError):
    """The text that a mutation replaces is not in its function exactly once."""


class Mutation(Struct, frozen=True, kw_only=True):
    """``what`` says what is wrong with the mutated code, ``where`` is ``module:function``, ``changes`` are pairs of the
    text that is there and the text that takes its place. ``seed`` is one that shows the defect."""

    name: str
    what: str
    where: str
    changes: tuple[tuple[str, str], ...]
    seed: int


@contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """Within, the function is the mutated one. Raises DoesNotApply."""
    function = _function_of(mutation.where)
    sound = function.__code__
    function.__code__ = _mutated(mutation, function)
    try:
        yield
    finally:
        function.__code__ = sound


def _function_of(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
        found = getattr(found, "__func__", found)
    if not isinstance(found, FunctionType):
        raise DoesNotApply(f"{where} is no function")
    return found


def _mutated(mutation: Mutation, function: FunctionType) -> CodeType:
    """The code of the function in its module's source with the changes made."""
    path = Path(inspect.getsourcefile(function) or "")
    lines, first = inspect.getsourcelines(function)
    text = "".join(lines)
    for before, after in mutation.changes:
        if text.count(before) != 1:
            raise DoesNotApply(f"{mutation.name}: {text.count(before)} times in {mutation.where}: {before!r}")
        text = text.replace(before, after)
    source = path.read_text().splitlines(keepends=True)
    source[first - 1 : first - 1 + len(lines)] = [text]
    module = compile("".join(source), str(path), "exec", dont_inherit=True)
    return _code_within(module, lambda code: code.co_qualname == function.__qualname__ and code.co_firstlineno == first)


def _code_within(outer: CodeType, wanted: Callable[[CodeType], bool]) -> CodeType:
    for inner in outer.co_consts:
        if isinstance(inner, CodeType):
            if wanted(inner):
                return inner
            try:
                return _code_within(inner, wanted)
            except LookupError:
                continue
    raise LookupError(outer.co_name)
