"""The exam: what an honest device commits to and opens is found right, and nothing else is."""

from hashlib import sha256

import numpy as np
import pytest

from actors.attestation import exam as exam_module
from actors.attestation import segments
from actors.attestation.exam import (
    DEVICE_SHAPE,
    MAX_OPENING_BYTES,
    OPENED_ROWS,
    Sitting,
    a_seed,
    b_seed,
    challenged_rows,
    opening_size,
    rows_for,
)
from actors.attestation.exam_check import ExamFault, ExamSetup, check_opening
from actors.attestation.segments import path_length
from actors.services.generator import seeded_matrix, seeded_rows
from events.merkle import inclusion_path, leaf_hash, root
from schemas.attestation import ExamAnswer, ExamShape
from tests.actors.attestation.small_exam import (
    CHALLENGE,
    EPOCH,
    FORGERIES,
    MINER,
    ROWS,
    SHAPE,
    UUID,
    cheated,
    finding,
    honest_sitting,
    lazy,
    setup,
    submission,
)


@pytest.mark.parametrize("rows", [64, 65, 127, 128, 200])
def test_an_honest_answer_is_right(rows: int) -> None:
    """Whatever the number of rows, the opening of an honest answer is found right."""
    given = submission(honest_sitting(rows), rows)
    found = finding(given)
    assert found.passed, found
    assert found.rows == min(rows, OPENED_ROWS)


def test_the_exam_is_what_it_was() -> None:
    """Root and opening of one small exam, which any other implementation must reproduce, never change."""
    given = submission(honest_sitting())
    assert given.opening is not None
    assert given.answer.root == "c62e894dec42b5bd0396cb7ba5b970ed94ae5b21b13e3688d3cb6e8596bd69df"
    assert sha256(given.opening).hexdigest() == "332aa46de7ef4b9ffc9ad64cde053e612a4afdf1dfca482ed38a858bdf5e58a0"


def test_the_root_is_that_over_all_rows() -> None:
    """The root over segments is the Merkle root over the rows of the whole product."""
    a = seeded_matrix(a_seed(EPOCH, MINER, UUID), ROWS, SHAPE.inner).astype(np.int64)
    b = seeded_matrix(b_seed(EPOCH), SHAPE.inner, SHAPE.columns).astype(np.int64)
    assert honest_sitting().work() == root(row.astype("<i4").tobytes() for row in a @ b).hex()


def test_segments_that_are_not_kept_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The opening is the same whether the leaves were kept or are made again."""
    kept = honest_sitting()
    kept.work()
    monkeypatch.setattr(segments, "MAX_KEPT_LEAVES", 10)
    again = honest_sitting()
    again.work()
    assert again.open(CHALLENGE) == kept.open(CHALLENGE)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 31, 33])
def test_path_lengths_are_those_of_the_tree(rows: int) -> None:
    """The length of each path is known from the number of rows alone."""
    leaves = [leaf_hash(bytes([row])) for row in range(rows)]
    assert [path_length(rows, row) for row in range(rows)] == [len(inclusion_path(leaves, row)) for row in range(rows)]


def test_the_opening_of_a_device_is_small() -> None:
    """A device that does the most rows opens less than 4 MiB."""
    rows = exam_module.MAX_ROWS
    assert opening_size(DEVICE_SHAPE, rows, challenged_rows(rows, CHALLENGE)) <= MAX_OPENING_BYTES


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_rows_are_found(name: str) -> None:
    """Every way to forge rows without the work is found in the opened rows."""
    found = finding(cheated(FORGERIES[name]))
    expected = ExamFault.RANGE if name in {"range overflow", "error of 2**31"} else ExamFault.PRODUCT_MISMATCH
    assert found.fault is expected
    assert found.row is not None


def test_lazy_rows_are_found() -> None:
    """A device that skips a tenth of its rows is found by the 64 that are opened."""
    assert finding(cheated(lazy(0.1))).fault is ExamFault.PRODUCT_MISMATCH


def test_lazy_rows_survive_as_rarely_as_is_said() -> None:
    """Over 5,000 challenges, no more than 0.5 % open none of the skipped tenth of 10,000 rows (0.12 % are expected)."""
    skipped = range(0, 10_000, 10)
    survived = sum(
        not any(row in skipped for row in challenged_rows(10_000, sha256(b"%d" % number).hexdigest()))
        for number in range(5_000)
    )
    assert survived <= 25


@pytest.mark.parametrize("other", ["epoch", "miner", "device", "challenge"])
def test_an_answer_to_another_question_is_wrong(other: str) -> None:
    """What was right in another exam, for another miner or another device, is wrong here."""
    match other:
        case "epoch":
            given = submission(honest_sitting(epoch=sha256(b"before").hexdigest()))
            assert finding(given).fault is ExamFault.PRODUCT_MISMATCH
        case "miner":
            given = submission(honest_sitting(miner="U" + "B" * 55))
            assert finding(given).fault is ExamFault.PRODUCT_MISMATCH
        case "device":
            given = submission(honest_sitting(uuid="GPU-other"))
            assert finding(given).fault is ExamFault.PRODUCT_MISMATCH
        case _:
            given = submission(honest_sitting(), challenge=sha256(b"guessed").hexdigest())
            assert finding(given).fault in {ExamFault.ROOT_MISMATCH, ExamFault.MALFORMED}


def test_rows_made_after_the_commitment_are_not_in_the_tree() -> None:
    """Right rows that come with a root of other rows are not in the tree."""
    sitting = honest_sitting()
    sitting.work()
    given = ExamAnswer(gpu=UUID, rows=ROWS, root=sha256(b"lazy").hexdigest())
    found = check_opening(setup(), SHAPE, MINER, given, CHALLENGE, sitting.open(CHALLENGE))
    assert found.fault is ExamFault.ROOT_MISMATCH


@pytest.mark.parametrize(
    ("rows", "cut"),
    [(ROWS, slice(0, -1)), (ROWS, slice(0, 0)), (ROWS + 1, slice(None)), (63, slice(None)), (2**30, slice(None))],
)
def test_a_malformed_opening_is_refused(rows: int, cut: slice) -> None:
    """An opening of another size, or an answer with fewer or more rows than are possible, is malformed."""
    good = submission(honest_sitting())
    assert good.opening is not None
    answer = ExamAnswer(gpu=UUID, rows=rows, root=good.answer.root)
    found = check_opening(setup(), SHAPE, MINER, answer, CHALLENGE, good.opening[cut])
    assert found.fault in {ExamFault.MALFORMED, ExamFault.ROOT_MISMATCH}
    if rows != ROWS + 1:
        assert found.fault is ExamFault.MALFORMED


def test_every_byte_of_an_opening_counts() -> None:
    """An opening with any byte changed is refused."""
    good = submission(honest_sitting())
    assert good.opening is not None
    for position in np.random.default_rng(3).integers(0, len(good.opening), 60).tolist():
        changed = bytearray(good.opening)
        changed[position] ^= 1 << position % 8
        found = check_opening(setup(), SHAPE, MINER, good.answer, CHALLENGE, bytes(changed))
        assert found.fault is ExamFault.ROOT_MISMATCH


def test_the_generator_is_no_hankel_matrix() -> None:
    """Rows of A are not windows of each other: an entry is no function of row plus column."""
    rows = seeded_rows(a_seed(EPOCH, MINER, UUID), 0, 64, 256)
    equal = np.mean(rows[1:, :-1] == rows[:-1, 1:])
    assert equal < 0.02


def test_seeds_depend_on_everything() -> None:
    """Another epoch, address or device gives another A; B depends on the epoch alone."""
    other = sha256(b"other").hexdigest()
    seeds = {
        a_seed(EPOCH, MINER, UUID),
        a_seed(other, MINER, UUID),
        a_seed(EPOCH, "U" + "B" * 55, UUID),
        a_seed(EPOCH, MINER, "GPU-other"),
        b_seed(EPOCH),
        b_seed(other),
    }
    assert len(seeds) == 6


def test_a_set_up_is_for_one_shape() -> None:
    """A set-up of another shape is a broken invariant, not a verdict."""
    other = ExamSetup(EPOCH, 16, 16)
    answer = ExamAnswer(gpu=UUID, rows=ROWS, root="00" * 32)
    with pytest.raises(AssertionError, match="another shape"):
        check_opening(other, SHAPE, MINER, answer, CHALLENGE, b"")


def test_what_has_not_been_done_cannot_be_opened() -> None:
    """Opening before working, and segments that would change the tree, are broken invariants."""
    with pytest.raises(AssertionError, match="before the work"):
        honest_sitting().open(CHALLENGE)
    with pytest.raises(AssertionError, match="power of two"):
        Sitting(honest_sitting()._examinee, ROWS, 48)


@pytest.mark.parametrize(
    ("rate", "duration_ms", "rows"),
    [(0, 2_000, 64), (1, 2_000, 17_361), (10**9, 10**6, exam_module.MAX_ROWS)],
)
def test_rows_follow_from_rate_and_time(rate: int, duration_ms: int, rows: int) -> None:
    """A device does the rows that fit into the time, within the bounds."""
    assert rows_for(ExamShape(inner=1_200, columns=48, min_rows=64), rate, duration_ms) == rows
