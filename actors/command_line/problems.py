"""Errors as people and programs meet them: what, why, and how to mend it; RFC 9457 in JSON mode. Always on stderr."""

import asyncio
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from cyclopts import CycloptsError, UnusedCliTokensError

from actors.command_line.output import styled
from actors.command_line.refusals import reason
from events.errors import AssayError, Refused
from schemas.refusals import code_of

USAGE: Final = 2
UNEXPECTED: Final = 1
NETWORK: Final = 5
PROBLEM_TYPE: Final = "urn:assay:problem:"


def report(error: Exception, words: Sequence[str]) -> int:
    """Writes the error to stderr and returns the exit code."""
    problem, code = describe(error)
    if wants_json(words):
        sys.stderr.write(msgspec.json.encode(problem).decode() + "\n")
    else:
        sys.stderr.write(styled(f"error: {problem['title']}", "1;31", sys.stderr) + "\n")
        if problem.get("detail"):
            sys.stderr.write(f"  why:  {problem['detail']}\n")
        if problem.get("hint"):
            sys.stderr.write(f"  hint: {problem['hint']}\n")
    if problem["code"] == "UNEXPECTED" and os.environ.get("ASSAY_TRACEBACK"):
        traceback.print_exception(error)
    return code


def _help_of(error: CycloptsError) -> str:
    """Where the words that were misspelt are explained."""
    return f"See `{' '.join(('assay', *(error.command_chain or ())))} --help`."


def describe(error: Exception) -> tuple[dict[str, Any], int]:
    """The problem as an RFC 9457 object (with ``code``, ``hint`` and the facts in ``data``), and the exit code."""
    if isinstance(error, AssayError):
        facts = {name: value for name, value in error.data.items() if _is_plain(value)}
        name, what, why = error.code, error.what, error.why
        if isinstance(error, Refused):
            name = code_of(error.refusal)
            what, why = f"refused: {name}", reason(error.refusal)
        return _problem(name, what, why, error.hint, error.exit_code, facts), error.exit_code
    if isinstance(error, UnusedCliTokensError):
        words = ", ".join(map(repr, error.unused_tokens or ()))
        hint = _help_of(error)
        return _problem("USAGE", f"one argument too many, or more: {words}", "", hint, USAGE), USAGE
    if isinstance(error, CycloptsError):
        hint = _help_of(error)
        return _problem("USAGE", str(error).strip(), "", hint, USAGE), USAGE
    if isinstance(error, asyncio.TimeoutError):
        return _problem("TIMED_OUT", "no answer in time", "", "Give it longer with --timeout.", 6), 6
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        code = 3 if isinstance(error, FileNotFoundError) else USAGE
        return _problem("FILE", what, "", "Check the path and the rights on it.", code), code
    hint = "This is a fault of Assay. Set ASSAY_TRACEBACK=1 for where it happened, and report it."
    return _problem("UNEXPECTED", f"{type(error).__name__}: {error}", "", hint, UNEXPECTED), UNEXPECTED


def wants_json(words: Sequence[str]) -> bool:
    """Whether the command line asks for JSON; found without parsing it, since parsing may be what failed."""
    form = os.environ.get("ASSAY_OUTPUT", "")
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word in {"-o", "--output"}:
            form = following
        elif word.startswith("--output="):
            form = word.removeprefix("--output=")
        elif word.startswith("-o") and word != "-o":
            form = word.removeprefix("-o").removeprefix("=")
    return form in {"json", "ndjson"}


def _problem(
    code: str, title: str, detail: str, hint: str, exit_code: int, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    problem: dict[str, Any] = {
        "type": PROBLEM_TYPE + code.lower().replace("_", "-"),
        "title": title,
        "code": code,
        "exit_code": exit_code,
    }
    if detail:
        problem["detail"] = detail
    if hint:
        problem["hint"] = hint
    if data:
        problem["data"] = data
    return problem


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | bool | list | tuple | dict)
