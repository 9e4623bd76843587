"""Parsers meet nearly right inputs: a short run for each, all that was ever found, and the fuzzer's own alarms."""

from contextlib import ExitStack

import pytest

from events.errors import BadInput
from tests.fuzz.engine import Parser, explore, run_one, shrunk
from tests.fuzz.mutator import Mutator, spans
from tests.fuzz.parsers import PARSERS
from tests.fuzz.seeds import CORPUS, corpus_of

EXECUTIONS = 4_000
SEED = 20_261_017


@pytest.mark.parametrize("name", PARSERS)
def test_no_input_does_harm(name: str) -> None:
    """Every input is read, or refused with one of the parser's own errors, at once and within memory."""
    report = explore(PARSERS[name], list(corpus_of(name).values()), EXECUTIONS, SEED)
    assert report.findings == []
    assert report.executions == EXECUTIONS
    assert report.accepted > len([good for good in corpus_of(name) if good.startswith("good-")])


@pytest.mark.parametrize("name", PARSERS)
def test_the_corpus_is_what_it_says(name: str) -> None:
    """Good inputs are read and bad ones refused; what was found once does no harm any more."""
    parser = PARSERS[name]
    with ExitStack() as stack:
        parse = parser.make(stack)
        answers = {each: run_one(parse, parser.refusals, data) for each, data in corpus_of(name).items()}
    assert [finding for _, finding in answers.values() if finding] == []
    assert [each for each, (kind, _) in answers.items() if each.startswith("good-") and kind] == []
    assert [each for each, (kind, _) in answers.items() if each.startswith("bad-") and not kind] == []
    assert {each.partition("-")[0] for each in answers} >= {"good", "bad"}


def test_every_kept_input_has_its_parser() -> None:
    """What is kept in files is of a parser that is there, and named for what it is."""
    kept = list(CORPUS.glob("*/*"))
    assert {path.parent.name for path in kept} <= PARSERS.keys()
    assert {path.name.partition("-")[0] for path in kept} == {"good", "bad", "found"}


def test_one_seed_gives_one_run() -> None:
    """The same seed gives the same inputs, another seed others."""
    corpus = list(corpus_of("envelope").values())
    runs = []
    for seed in (1, 1, 2):
        inputs: list[bytes] = []
        explore(PARSERS["envelope"], corpus, 500, seed, inputs.append)
        runs.append(inputs)
    assert runs[0] == runs[1] != runs[2]


def test_parts_are_found_in_every_format() -> None:
    """Members, values, brackets and lines are parts."""
    data = b'{"a":[1,"x"],"b":2}'
    assert {data[start:end] for start, end in spans(data)} == {
        b'"a"', b'"x"', b'"b"', b"1", b"2", b'[1,"x"]', data, b'"a":[1,"x"],', b'"b":2',
    }  # fmt: skip
    toml = b"a = 1\n[b]\n"
    assert {b"a = 1", b"a = 1\n", b"[b]", b"[b]\n"} <= {toml[start:end] for start, end in spans(toml)}
    assert spans(b"") == ((0, 0),)


def test_a_mutator_needs_no_sense_in_its_seeds() -> None:
    """Whatever the corpus holds, there is a next input, and it is bounded."""
    mutator = Mutator([b"", b"\xff", b"[[[", b"a" * 5_000], "seed")
    lengths = [len(mutator.next()) for _ in range(2_000)]
    assert max(lengths) <= 131_072
    assert len(set(lengths)) > 20


def _planted(data: bytes) -> object:
    """A parser with a defect of each kind."""
    if data.startswith(b"crash"):
        return {}[data]
    while data.startswith(b"hang"):
        pass
    if not data.startswith(b"good"):
        raise BadInput("not good")
    assert b"!" not in data
    return data


PLANTED = Parser(name="planted", make=lambda stack: _planted, refusals=(BadInput,))


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"good", None), (b"bad", None), (b"crash now", "KeyError"), (b"good!", "AssertionError"), (b"hang", "hang")],
)
def test_what_must_not_happen_is_noticed(data: bytes, kind: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash, a broken invariant and a hang are findings; being read or refused is none."""
    monkeypatch.setattr("tests.fuzz.engine.HANG_S", 0.2)
    found = explore(PLANTED, [data], 1, 1).findings
    assert [finding.kind for finding in found] == ([kind] if kind else [])
    assert all(finding.data == data for finding in found)


def test_the_mutator_finds_a_planted_crash() -> None:
    """Near a good input the fuzzer comes upon the defect by itself, tells each place once, and makes it smaller."""
    report = explore(PLANTED, [b"good and well"], 5_000, 1)
    assert [finding.kind for finding in report.findings] == ["AssertionError"]
    crash = run_one(_planted, (BadInput,), b"crash and some more")[1]
    assert crash is not None
    assert shrunk(PLANTED, crash).data == b"crash"


def test_memory_that_grows_is_noticed() -> None:
    """A parser that keeps what it reads is a finding."""
    kept: list[bytes] = []
    leaking = Parser(name="leaking", make=lambda stack: lambda data: kept.append(b"x" * (1 << 20)), refusals=())
    assert [finding.kind for finding in explore(leaking, [b"x"], 120, 1).findings] == ["memory"]
