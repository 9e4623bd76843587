"""The tree of errors: codes, exit codes, hints and data."""

import inspect
from collections.abc import Iterator

import pytest

from events import errors
from events.errors import AssayError, Divergence, Refused
from schemas.refusals import HINTS, REFUSALS, InsufficientBalance, Refusal, code_of
from tests.golden.samples import JOB


def tree(base: type[AssayError]) -> Iterator[type[AssayError]]:
    """The errors of the module, base first."""
    yield base
    for error in base.__subclasses__():
        if error.__module__ == errors.__name__:
            yield from tree(error)


def example(record: type[Refusal]) -> Refusal:
    """A refusal with some value in each field."""
    return record(**dict.fromkeys(record.__struct_fields__, 1))


@pytest.mark.parametrize("record", REFUSALS, ids=lambda record: record.__name__)
def test_every_refusal_can_be_raised(record: type[Refusal]) -> None:
    """Raised, a refusal carries its code, its facts, and a hint that says how to mend it."""
    refusal = example(record)
    error = Refused(refusal)
    assert error.refusal is refusal
    assert error.hint == HINTS[code_of(refusal)]
    assert error.data == dict.fromkeys(record.__struct_fields__, 1)
    assert str(error).startswith(code_of(refusal))
    assert error.exit_code == 4


def test_a_refusal_reads_as_a_sentence() -> None:
    """The text has the code and the facts in their order."""
    assert str(Refused(InsufficientBalance(needed=20, available=3))) == "INSUFFICIENT_BALANCE: needed=20, available=3"


def test_an_error_says_what_why_and_how_to_mend_it() -> None:
    """The three sentences and the facts stay apart for programs."""
    error = errors.NotFound("no such job", why="the log does not have it", hint="Check the id.", job=JOB)
    assert str(error) == "no such job: the log does not have it"
    assert (error.what, error.why, error.hint) == ("no such job", "the log does not have it", "Check the id.")
    assert error.data == {"job": JOB}


def test_an_error_may_have_no_why() -> None:
    """Where the reason is plain, the text is what happened alone."""
    assert str(errors.TimedOut("no answer within 5 s")) == "no answer within 5 s"


def test_a_divergence_names_the_height_and_the_first_difference() -> None:
    """Whoever stops at a wrong log can say where, and what differs."""
    error = Divergence(17, "state_root: a instead of b")
    assert str(error) == "the log is wrong at height 17: state_root: a instead of b"
    assert (error.height, error.difference) == (17, "state_root: a instead of b")
    assert error.data == {"height": 17, "difference": "state_root: a instead of b"}
    assert error.exit_code == 7
    assert error.hint
    assert isinstance(error, errors.VerificationFailed)


def test_codes_are_unique() -> None:
    """Each error has a code of its own."""
    codes = [error.code for error in tree(AssayError)]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (AssayError, 1),
        (errors.Refused, 4),
        (errors.InvalidAddress, 2),
        (errors.InvalidKey, 2),
        (errors.BadInput, 2),
        (errors.NotFound, 3),
        (errors.NotAllowed, 4),
        (errors.VerificationFailed, 7),
        (errors.Divergence, 7),
        (errors.BlobMismatch, 7),
        (errors.JobUnsuccessful, 1),
        (errors.BusError, 5),
        (errors.Unreachable, 5),
        (errors.InboxFull, 5),
        (errors.FenceRefused, 5),
        (errors.MessageTooLarge, 5),
        (errors.SequenceGap, 5),
        (errors.WrongNetwork, 5),
        (errors.BlobUnavailable, 5),
        (errors.TimedOut, 6),
    ],
)
def test_exit_codes(error: type[AssayError], exit_code: int) -> None:
    """1 failed, 2 usage, 3 not found, 4 not allowed, 5 network, 6 time-out, 7 verification failed."""
    assert error.exit_code == exit_code


def test_the_drawn_tree_is_the_tree() -> None:
    """The docstring draws every error of the module, and no other."""
    drawn = [line.split("── ")[1].split()[0] for line in inspect.getdoc(errors).splitlines() if "── " in line]  # type: ignore[union-attr]
    assert sorted(drawn) == sorted(error.__name__ for error in tree(AssayError) if error is not AssayError)
