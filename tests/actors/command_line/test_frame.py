"""The frame of the command line: overview, errors, exit codes, output."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from cyclopts import App

import actors
from actors.command_line import application, output, problems, verbs
from actors.command_line.amounts import check_digest, duration, micro_of, moment
from actors.command_line.options import Display
from actors.command_line.output import Output, asy, styled, table
from actors.command_line.refusals import reason
from events import errors
from events.errors import AssayError, BadInput
from schemas import refusals
from schemas.refusals import SelfTransfer, code_of
from schemas.services import WORK_TYPES, service_of
from tests.actors.command_line.devnet_process import environment

ROOT = Path(actors.__file__).parents[1]
ADDRESS = "UBXWNE4LBHTTLQ5UNZ3N74XPQ62PNZP5TTSWS4CEVHKQ5L574IARSCPV"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def all_verbs() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for _, entries in verbs.SECTIONS:
        for entry in entries:
            if isinstance(entry, verbs.Group):
                found += [(entry.name, verb.name) for verb in entry.verbs]
            else:
                found.append((entry.name,))
    return found


def all_functions() -> list[tuple[str, ...]]:
    """The words before the arguments: a verb with variants has one more."""
    found: list[tuple[str, ...]] = []
    for _, entries in verbs.SECTIONS:
        for entry in entries:
            verbs_within = entry.verbs if isinstance(entry, verbs.Group) else (entry,)
            before = (entry.name,) if isinstance(entry, verbs.Group) else ()
            for verb in verbs_within:
                found += [(*before, verb.name, variant.name) for variant in verb.variants] or [(*before, verb.name)]
    return found


def test_every_service_can_be_submitted() -> None:
    """The command line has words for each service, and for no other."""
    assert sorted(variant.name for variant in verbs.SERVICES) == sorted(service_of(record) for record in WORK_TYPES)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_the_overview_names_every_verb(assay: Any, words: tuple[str, ...]) -> None:
    """Without a command, or with --help alone, all verbs and exit codes are listed on stdout."""
    ended = assay(*words)
    assert (ended.code, ended.err) == (0, "")
    for name in all_verbs():
        assert f"  {' '.join(name)} " in ended.out
    assert "130 interrupted" in ended.out


def test_the_overview_loads_nothing_heavy() -> None:
    """The overview comes at once: no library is imported for it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "actors.command_line", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert "actors.command_line" in imported
    assert not {"cyclopts", "rich", "nats", "numpy", "msgspec"} & set(imported)


@pytest.mark.parametrize("words", [("job", "submit"), *all_functions()], ids=" ".join)
def test_every_verb_exists_and_has_help(assay: Any, words: tuple[str, ...]) -> None:
    """Every verb of the table can be imported and says how it is used."""
    ended = assay(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"Usage: assay {' '.join(words)}" in ended.out


def test_every_verb_takes_a_form_of_output(assay: Any) -> None:
    """Every verb that answers has -o; running an actor answers nothing."""
    without = [words for words in all_functions() if "--output" not in assay(*words, "--help").out]
    assert without == [("run",)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jbo"], 'Did you mean "job"?'),
        (["job", "submti"], 'Did you mean "submit"?'),
        (["job", "submit", "matmul.int9"], 'Did you mean "matmul.int8"?'),
        (["transfer"], "TO requires an argument"),
        (["job", "submit", "sort"], "See `assay job submit sort --help`."),
        (["account", "--nonsense"], "See `assay account --help`."),
        (["account", "--nonsense"], "--nonsense"),
        (["account", "-o", "yaml"], "yaml"),
        (["account", "--timeout", "0"], "--timeout"),
        (["account", ADDRESS, "b", "c"], "'b', 'c'"),
        (["job", "list", "--limit", "0"], "--limit"),
        (["job", "list", "--situation", "lost"], "settled"),
        (["job", "list", "--owner", "me"], "not an address"),
        (["job", "submit", "matmul.int8", "random:8x8", "random:8x8", "--lifetime", "0"], "--lifetime"),
        (["job", "submit", "matmul.int8", "random:8x8", "random:8x8", "--miner", "me"], "not an address"),
        (["devnet", "--proposers", "8"], "--proposers"),
        (["devnet", "--port", "70000"], "--port"),
        (["block", "first"], "Name a height"),
        (["proof", "everything"], "nothing that can be proved"),
        (["audit", "."], "is a directory"),
    ],
)
def test_a_wrong_command_line_ends_with_2(assay: Any, words: list[str], said: str) -> None:
    """What cannot be parsed is explained on stderr, and the exit code is 2."""
    ended = assay(*words)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert "hint:" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("log", "export", "nowhere/log.ndjson"), 3, "no directory"),
        (("log", "export", "."), 2, "is a directory"),
        (("job", "result", "0" * 64, "nowhere/c.npy"), 3, "no directory"),
        (("job", "result", "0" * 64, "."), 2, "is a directory"),
        (("audit", "nowhere.ndjson"), 3, "assay log export"),
        (("account", "--wallet", "nobody"), 3, "no wallet 'nobody'"),
        (("account", "--seed-file", "nowhere.seed"), 3, "no seed file nowhere.seed"),
        (("verify", "receipt", "nowhere.json"), 3, "nowhere.json"),
        (("genesis", "show", "nowhere.json"), 3, "nowhere.json"),
    ],
)
def test_files_are_looked_at_before_anything_else(assay: Any, words: tuple[str, ...], code: int, said: str) -> None:
    """A file or directory that is not there is named as the person named it, before a network is asked."""
    ended = assay(*words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert ".part" not in ended.err


def test_the_help_of_a_verb_tells_all_about_it(assay: Any) -> None:
    """The overview has a line; --help after the verb has the whole text and a word on every argument."""
    found = " ".join(assay("job", "submit", "matmul.int8", "--help").out.replace("│", " ").split())
    assert "The exact product of two matrices of int8. A matrix is a .npy file of int8" in found
    assert "A The first matrix: FILE.npy, random:ROWSxCOLUMNS or seed:HEX:ROWSxCOLUMNS." in found


@pytest.mark.parametrize("refusal", refusals.REFUSALS, ids=code_of)
def test_every_refusal_has_a_reason_in_words(refusal: Any) -> None:
    """What a refusal carries is told without the names of fields, amounts in ASY."""
    values = {name: 1_500_000 if kind is int else "x" for name, kind in plain_fields(refusal).items()}
    said = reason(refusal(**values))
    assert "=" not in said
    assert "_" not in said
    assert bool(said) == bool(values)


def plain_fields(record: Any) -> dict[str, type]:
    hints = get_type_hints(record)
    return {name: hints[name] for name in record.__struct_fields__}


def test_refusals_name_the_numbers() -> None:
    """Title and code name the refusal; the amounts are there for people and, as integers, for programs."""
    refusal = refusals.InsufficientBalance(needed=5_001_000_000, available=1)
    problem, code = problems.describe(errors.Refused(refusal))
    assert (code, problem["code"], problem["title"]) == (4, "INSUFFICIENT_BALANCE", "refused: INSUFFICIENT_BALANCE")
    assert problem["detail"] == "it needs 5,001 ASY, and 0.000001 ASY are there"
    assert problem["data"] == {"needed": 5_001_000_000, "available": 1}


@pytest.mark.parametrize("form", ["json", "ndjson"])
@pytest.mark.parametrize("spelling", [["-o", "{}"], ["--output", "{}"], ["--output={}"]])
def test_an_error_in_json_mode_is_a_problem_object(assay: Any, form: str, spelling: list[str]) -> None:
    """With JSON output an error is one RFC 9457 object on stderr, with code, hint and exit code."""
    ended = assay("account", "UNKNOWN", *(word.format(form) for word in spelling))
    problem = json.loads(ended.err)
    assert (ended.code, ended.out) == (2, "")
    assert problem["type"] == "urn:assay:problem:invalid-address"
    assert (problem["code"], problem["exit_code"]) == ("INVALID_ADDRESS", 2)
    assert problem["title"]
    assert problem["detail"]
    assert problem["hint"]


def test_the_environment_can_ask_for_json(assay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASSAY_OUTPUT is the form where no flag names one."""
    monkeypatch.setenv("ASSAY_OUTPUT", "json")
    assert json.loads(assay("account", "UNKNOWN").err)["code"] == "INVALID_ADDRESS"
    assert assay("account", "UNKNOWN", "-o", "table").err.startswith("error: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobUnsuccessful("x"), 1),
        (errors.BadInput("x"), 2),
        (errors.InvalidAddress("x"), 2),
        (errors.NotFound("x"), 3),
        (errors.NotAllowed("x"), 4),
        (errors.Refused(SelfTransfer(address="U")), 4),
        (errors.Unreachable("x"), 5),
        (errors.WrongNetwork("x"), 5),
        (errors.TimedOut("x"), 6),
        (TimeoutError(), 6),
        (errors.Divergence(3, "x"), 7),
        (errors.BlobMismatch("x"), 7),
        (FileNotFoundError(2, "No such file", "a"), 3),
        (PermissionError(13, "Permission denied", "a"), 2),
        (RuntimeError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: Exception, code: int) -> None:
    """The exit codes are those that the README documents."""
    problem, found = problems.describe(error)
    assert found == code == problem["exit_code"]
    assert problem["code"]


def broken() -> str:
    raise RuntimeError("broken")


def test_a_fault_of_ours_shows_where_it_happened_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is named without a stack; ASSAY_TRACEBACK adds it."""
    with pytest.raises(RuntimeError) as raised:
        application.run(["nonsense", broken()])
    assert problems.report(raised.value, []) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("ASSAY_TRACEBACK", "1")
    problems.report(raised.value, [])
    assert "in broken" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(assay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted command ends with 130 and without a stack."""

    def interrupted(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(application, "run", interrupted)
    assert assay("account") == (130, "", "interrupted\n")


@pytest.mark.parametrize("shell", ["<&-", "2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_fault(home: Path, shell: str) -> None:
    """A shell may close any of the three streams; the exit code is that of the command."""
    done = run_in_shell(f"wallet create main --password-file - </dev/null {shell}")
    assert done.returncode == 2
    assert b"fault" not in done.stderr


@pytest.mark.parametrize("setting", ["PYTHONIOENCODING=ascii", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"])
def test_what_is_written_is_utf_8_in_every_locale(home: Path, setting: str) -> None:
    """Neither tables nor help nor errors depend on the locale."""
    for words in ("--help", "job submit matmul.int8 --help"):
        done = run_in_shell(words, setting)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "…" in done.stdout.decode()
    assert run_in_shell("account '×'", setting).returncode == 2


def test_a_full_disk_is_named(home: Path) -> None:
    """What cannot be written is an error with the words of the system."""
    assert b"error: No space left on device" in run_in_shell("schemas export schemas >/dev/full").stderr


def run_in_shell(words: str, setting: str = "") -> subprocess.CompletedProcess[bytes]:
    program = f"{setting} {sys.executable} -m actors.command_line {words}"
    return subprocess.run(["/bin/sh", "-c", program], env=environment(Path("home")), capture_output=True, check=False)


def test_without_a_network_the_error_says_how_to_get_one(assay: Any) -> None:
    """A command that needs a network and finds none names flag, variable and devnet."""
    ended = assay("miner", "list")
    assert (ended.code, ended.out) == (2, "")
    for word in ("--url", "ASSAY_URL", "assay devnet"):
        assert word in ended.err


def test_a_server_that_is_not_there_is_code_5(assay: Any) -> None:
    """A closed port ends with exit code 5 within the time-out."""
    ended = assay("account", ADDRESS, *CLOSED)
    assert (ended.code, ended.out) == (5, "")
    assert "no NATS server answers" in ended.err


CLOSED = ("--url", "nats://127.0.0.1:1", "--chain", "devnet", "--timeout", "1")


def test_colours_only_on_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """ANSI codes appear on a terminal, and nowhere else, and not with NO_COLOR or a dumb terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert styled("x", "1", Terminal()) == "\x1b[1mx\x1b[0m"
    assert styled("x", "1", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("x", "1", Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert styled("x", "1", Terminal()) == "x"


def test_tables_align_and_put_numbers_to_the_right() -> None:
    """A table has one line per row under its names; an empty one has none."""
    rows = [{"name": "a", "count": 5}, {"name": "long", "count": 12}]
    assert table(rows) == ["NAME  COUNT", "a         5", "long     12"]
    assert table([]) == []


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("table", "A  1\nB  2\n   3\n"),
        ("json", '{\n  "a": 1\n}\n'),
        ("ndjson", '{"a":1}\n'),
    ],
)
def test_one_thing_in_each_form(capsys: pytest.CaptureFixture[str], form: Any, expected: str) -> None:
    """People get labels and facts, programs the value, as a document or as a line."""
    Output(Display(output=form)).one({"a": 1}, {"A": 1, "B": "2\n3"})
    assert capsys.readouterr() == (expected, "")


@pytest.mark.parametrize(("form", "lines"), [("table", 0), ("json", 1), ("ndjson", 0)])
def test_an_empty_list_in_each_form(capsys: pytest.CaptureFixture[str], form: Any, lines: int) -> None:
    """An empty list is nothing for people and line readers, and an empty array as a document."""
    Output(Display(output=form)).many([], [])
    assert capsys.readouterr().out == "[]\n" * lines


def test_events_are_payload_only_where_lines_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """What happens on the way is a line of stdout in ndjson, and a remark on stderr otherwise."""
    Output(Display(output="ndjson")).event({"a": 1}, "one")
    Output(Display(output="json")).event({"a": 1}, "one")
    assert capsys.readouterr() == ('{"a":1}\n', "one\n")


def test_progress_off_a_terminal_is_a_few_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress is told on stderr without control characters, and always to the end."""
    with Output(Display()).progress("upload", 1_000) as advance:
        for done in range(1_001):
            advance(done)
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "upload: 100 %\n")


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal progress is drawn, and taken away at the end."""
    terminal = Terminal()
    monkeypatch.setattr(output.sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Output(Display()).progress("upload", 10) as advance:
        advance(10)
    assert "upload" in terminal.getvalue()


@pytest.mark.parametrize(
    ("text", "micro"),
    [("1", 1_000_000), ("1.5", 1_500_000), ("0.000001", 1), ("7u", 7), ("0", 0), ("9007199254.740991", 2**53 - 1)],
)
def test_amounts_are_read_exactly(text: str, micro: int) -> None:
    """ASY with up to six decimals, or micro-ASY with a u, never by way of a float."""
    assert micro_of(text) == micro


@pytest.mark.parametrize("text", ["", "-1", "1.0000001", "1e3", ".5", "1,5", "nan", "9007199254.740992", "1 ASY"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """Signs, exponents, further decimals and what cannot exist are refused."""
    with pytest.raises(BadInput):
        micro_of(text)


def test_amounts_and_times_for_people() -> None:
    """Amounts keep every digit; times are UTC."""
    assert [asy(value) for value in (0, 1, 1_500_000, 2**53 - 1)] == [
        "0 ASY",
        "0.000001 ASY",
        "1.5 ASY",
        "9,007,199,254.740991 ASY",
    ]
    assert moment(1_795_154_249_909) == "2026-11-20 05:57:29.909Z"
    assert [duration(ms) for ms in (999, 1_000, 59_999, 65_000)] == ["999 ms", "1.0 s", "59.9 s", "1 min 5 s"]
    assert [duration(s * 1_000) for s in (3_599, 3_600, 86_399, 522_000)] == [
        "59 min 59 s",
        "1 h 0 min",
        "23 h 59 min",
        "6 d 1 h",
    ]


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64])
def test_what_is_no_digest_is_refused(text: str) -> None:
    """An id has 64 hexadecimal digits in lower case."""
    with pytest.raises(BadInput):
        check_digest(text, "an id")


def test_errors_of_the_application_come_out_as_exceptions() -> None:
    """The application neither prints nor exits by itself."""
    app = application.application()
    assert isinstance(app, App)
    with pytest.raises(Exception, match="Unknown command"):
        app(["nonsense"])


def test_error_data_that_is_no_plain_value_stays_out() -> None:
    """Only facts that JSON can hold are in a problem."""
    problem, _ = problems.describe(AssayError("x", plain=1, odd=msgspec.UNSET))
    assert problem["data"] == {"plain": 1}
