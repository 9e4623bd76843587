"""The cyclopts application, made from the table of verbs; a verb's module is imported when it is called."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from cyclopts import App

from actors.command_line.verbs import SECTIONS, SUMMARY, Group, Verb

_PACKAGE = "actors.command_line"
HELP: Final = ("--help", "-h")


def _release() -> str:
    try:
        return version("assay-network")
    except PackageNotFoundError:
        return "not installed"


def application(words: Sequence[str] = ()) -> App:
    """A new application; errors come out as exceptions, for `actors.command_line.main` to report.

    The help of the verb that ``words`` ask about comes from its function; to list the others, none is imported.
    """
    asked = tuple(words[: len(words) - 1]) if words and words[-1] in HELP else ()
    app = App(
        name="assay",
        help=SUMMARY,
        version=_release,
        help_format="plaintext",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for _, entries in SECTIONS:
        for entry in entries:
            if isinstance(entry, Group):
                group = App(name=entry.name, help=entry.help, version=_release)
                for verb in entry.verbs:
                    _add(group, verb, asked, (entry.name,))
                app.command(group)
            else:
                _add(app, entry, asked, ())
    app.register_install_completion_command()
    return app


def _add(app: App, verb: Verb, asked: Sequence[str], before: Sequence[str]) -> None:
    words = (*before, verb.name)
    if verb.variants:
        parted = App(name=verb.name, help=verb.help, version=_release)
        for variant in verb.variants:
            _add(parted, variant, asked, words)
        app.command(parted)
        return
    options: dict[str, Any] = {"name": verb.name} if words == tuple(asked) else {"name": verb.name, "help": verb.help}
    app.command(f"{_PACKAGE}.{verb.function}", **options)


def run(words: list[str]) -> int:
    """Runs one command line. A verb returns its exit code, or None for 0. Raises AssayError and CycloptsError."""
    result = application(words)(words)
    return result if isinstance(result, int) else 0
