"""The service mandelbrot: computing, committing, and judging a result."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.backends.reference.mandelbrot import square
from actors.services.base import Accepted, Computed, Rejected, RejectionCode
from actors.services.mandelbrot import (
    DOMAIN,
    PIXELS,
    check_inputs,
    compute,
    coordinates,
    memory_needed,
    result_sizes,
    verify,
)
from actors.services.png import Form, read_png, write_png
from actors.services.sampling import sample
from events.merkle import root
from schemas.services import Mandelbrot

SEED = "5e" * 32
WIDTH, HEIGHT, MOST = 500, 300, 40
ONE = 1 << 50
WORK = Mandelbrot(width=WIDTH, height=HEIGHT, re=-ONE // 2, im=0, step=3 * (1 << 56) // WIDTH, max_iterations=MOST)
FORM = Form(width=WIDTH, height=HEIGHT, channels=1, bits=16)


def root_of(counts: np.ndarray) -> str:
    return root(row.astype(">u2").tobytes() for row in counts).hex()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Computed]:
    """An honest picture of the whole set."""
    result = tmp_path_factory.mktemp("mandelbrot") / "result.png"
    return result, compute(WORK, {}, CpuBackend(), result)


def test_squares_are_rounded_down() -> None:
    """The square in parts of 28 bits is the floor of the true one, up to the largest magnitudes that there are."""
    generator = np.random.default_rng(1)
    edges = [0, 1, -1, (1 << 28) - 1, 1 << 28, -(1 << 28), 1 - (8 << 56), (8 << 56) - 1, 1 << 56, (1 << 56) - 1]
    values = np.concatenate([generator.integers(1 - (8 << 56), 8 << 56, 5_000), np.array(edges)])
    assert square(values).tolist() == [int(value) ** 2 >> 56 for value in values]


def test_coordinates_lie_around_the_middle() -> None:
    """Columns go to the right, rows downwards; halves of a step are rounded down."""
    work = Mandelbrot(width=4, height=3, re=1, im=-2, step=3, max_iterations=1)
    re, im = coordinates(work)
    assert re.tolist() == [64 - 5, 64 - 2, 64 + 1, 64 + 4]
    assert im.tolist() == [-128 + 3, -128, -128 - 3]


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 1, "height": 1},
        {"width": 257, "height": 3},
        {"width": 3, "height": 70},
        {"width": 16, "height": 16, "max_iterations": 1},
        {"width": 11_265, "height": 1, "step": 1 << 42},
        {"width": 120, "height": 100},
        {"width": 16, "height": 16, "re": 3 * ONE, "im": -3 * ONE},
        {"width": 5, "height": 4, "re": -ONE * 3 // 4, "im": ONE // 500, "step": 1, "max_iterations": 65_535},
    ],
)
def test_honest_results_are_accepted(tmp_path: Path, fields: dict[str, int]) -> None:
    """A right result of any shape is accepted, from a file and from memory; rows make its root."""
    work = Mandelbrot(**({"re": -ONE // 2, "im": 0, "step": 1 << 50, "max_iterations": 60} | fields))
    assert work.inconsistency() is None
    check_inputs(work, {})
    computed = compute(work, {}, CpuBackend(2), tmp_path / "result.png")
    counts = read_png(tmp_path / "result.png", Form(width=work.width, height=work.height, channels=1, bits=16))
    assert computed.root == root_of(counts)
    assert computed.size in result_sizes(work)
    assert memory_needed(work) > 2 * counts.nbytes
    for given in (tmp_path / "result.png", (tmp_path / "result.png").read_bytes()):
        verdict = verify(work, {}, given, computed.root, SEED)
        if counts.size <= PIXELS:
            assert verdict == Accepted(error_bits=128, method="recomputed")
        else:
            assert verdict == Accepted(error_bits=0, method="sampled", samples=PIXELS, chunks=counts.size)


def test_the_picture_is_that_of_the_set(case: Any) -> None:
    """The middle never leaves, the corners leave at once, and above and below are alike but for the last bit."""
    counts = read_png(case[0], FORM)
    assert counts[HEIGHT // 2, WIDTH // 2] == MOST
    assert counts[0, 0] < 5
    assert np.count_nonzero(counts != counts[::-1]) < counts.size // 1_000


def test_a_thousandth_of_wrong_pixels_is_caught(case: Any, tmp_path: Path) -> None:
    """A picture with one count in a thousand off by one is rejected under every seed, whatever the threads."""
    forged = read_png(case[0], FORM).copy()
    wrong = np.random.default_rng(3).choice(forged.size, forged.size // 1_000, replace=False)
    forged.flat[wrong] += np.where(forged.flat[wrong] < MOST, 1, -1).astype(np.uint16)
    write_png(tmp_path / "forged.png", forged)
    committed = root_of(forged)
    for number in range(20):
        seed = f"{number:064x}"
        hits = [pixel for pixel in sample(seed, DOMAIN, PIXELS, forged.size) if pixel in wrong]
        verdict = verify(WORK, {}, tmp_path / "forged.png", committed, seed, 1 + number % 3)
        assert isinstance(verdict, Rejected)
        assert (verdict.code, verdict.row) == (RejectionCode.CHUNK_MISMATCH, hits[0] // WIDTH)
    assert 0.999**PIXELS < 1 / 70_000


def test_one_wrong_pixel_is_caught_where_it_is_drawn(case: Any, tmp_path: Path) -> None:
    """A single wrong count passes where it is not among the pixels that the seed draws."""
    forged = read_png(case[0], FORM).copy()
    forged[9, 4] += 1
    write_png(tmp_path / "forged.png", forged)
    committed = root_of(forged)
    drawn = {number: 9 * WIDTH + 4 in sample(f"{number:064x}", DOMAIN, PIXELS, forged.size) for number in range(60)}
    for wanted in (True, False):
        seed = next(f"{number:064x}" for number, is_drawn in drawn.items() if is_drawn is wanted)
        assert isinstance(verify(WORK, {}, tmp_path / "forged.png", committed, seed), Rejected) is wanted


@pytest.mark.parametrize("count", [0, MOST + 1, 65_535])
def test_counts_that_cannot_be_are_found_anywhere(case: Any, tmp_path: Path, count: int) -> None:
    """A count of 0 or above the most is rejected wherever it is, sampled or not."""
    forged = read_png(case[0], FORM).copy()
    forged[41, 17] = count
    write_png(tmp_path / "forged.png", forged)
    for number in range(5):
        verdict = verify(WORK, {}, tmp_path / "forged.png", root_of(forged), f"{number:064x}")
        assert isinstance(verdict, Rejected)
        assert (verdict.code, verdict.row) == (RejectionCode.RANGE, 41)


LAZY = [
    ("fewer iterations", lambda counts: np.minimum(counts, MOST // 2)),
    ("nothing at all", np.ones_like),
    ("every other row twice", lambda counts: np.repeat(counts[::2], 2, axis=0)),
    ("mirrored", lambda counts: counts[:, ::-1]),
]


@pytest.mark.parametrize("forge", [case[1] for case in LAZY], ids=[case[0] for case in LAZY])
def test_lazy_pictures_are_rejected(case: Any, tmp_path: Path, forge: Any) -> None:
    """What saves work all over the picture is found."""
    forged = forge(read_png(case[0], FORM))
    write_png(tmp_path / "forged.png", forged)
    verdict = verify(WORK, {}, tmp_path / "forged.png", root_of(forged), SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.CHUNK_MISMATCH


def test_result_that_was_not_committed_is_rejected(case: Any) -> None:
    """A right picture is rejected under another root."""
    verdict = verify(WORK, {}, case[0], "00" * 32, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH
    assert case[1].root in verdict.detail


@pytest.mark.parametrize(
    ("samples", "code"),
    [
        (None, RejectionCode.MALFORMED),
        (np.zeros((HEIGHT, WIDTH, 1), dtype=np.uint8), RejectionCode.TYPE),
        (np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), RejectionCode.TYPE),
        (np.zeros((WIDTH, HEIGHT), dtype=np.uint16), RejectionCode.SHAPE),
    ],
)
def test_misshapen_results_are_rejected(case: Any, tmp_path: Path, samples: Any, code: RejectionCode) -> None:
    """A result that is not a 16-bit picture of this size is rejected as such."""
    if samples is None:
        (tmp_path / "bad.png").write_bytes(case[0].read_bytes()[:-1])
    else:
        write_png(tmp_path / "bad.png", samples)
    verdict = verify(WORK, {}, tmp_path / "bad.png", case[1].root, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is code


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_is_told(tmp_path: Path, threads: int) -> None:
    """Steps are counted up to the last one."""
    told: list[tuple[int, int]] = []
    backend = CpuBackend(threads)
    compute(WORK, {}, backend, tmp_path / "out.png", lambda done, total: told.append((done, total)), threads)
    assert told == [(done, len(told)) for done in range(1, len(told) + 1)]
    assert len(told) > 10
