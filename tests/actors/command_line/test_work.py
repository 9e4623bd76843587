"""The words of the services: what becomes of them, and what is refused before a network is asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.command_line import job_submit
from actors.command_line.work.pictures import kernel_of
from actors.command_line.work.records import scaled, seed_of
from events.errors import BadInput
from schemas.services import Histogram, ImageConvolve, KMeans, Mandelbrot, MonteCarloOption, NBody, Sha256Tree, Sort
from tests.end_to_end import plain_png

SEED = "ab" * 32


@pytest.fixture
def asked(assay: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the words after `assay job submit`; returns what would be submitted."""
    found: list[job_submit.Asked] = []

    async def keep(work: job_submit.Asked, terms: job_submit.Terms) -> None:
        found.append(work)

    for module in ("data", "pictures", "clusters", "simulations"):
        monkeypatch.setattr(f"actors.command_line.work.{module}.submit", keep)
    Path("file").write_bytes(b"some bytes")
    np.save("values.npy", np.array([-5, 7, 2, 90], dtype=np.int16))
    np.save("points.npy", np.zeros((6, 2), dtype=np.int16))
    np.save("bodies.npy", np.zeros((3, 7), dtype=np.float32))
    Path("grey.png").write_bytes(plain_png.written(np.zeros((4, 5, 1), dtype=np.uint8)))

    def run(*words: str) -> Any:
        ended = assay("job", "submit", *words)
        return (found.pop(), ended) if found else (None, ended)

    return run


def test_files_become_blobs_with_what_is_in_them(asked: Any) -> None:
    """Sizes, types and shapes come from the file; the file is uploaded under its digest."""
    tree, _ = asked("sha256.tree", "file", "--chunk", "2048")
    assert isinstance(tree.work, Sha256Tree)
    assert (tree.work.size, tree.work.chunk_bytes, list(tree.files)) == (10, 2_048, [tree.work.digest])
    sort, _ = asked("sort", "values.npy")
    assert sort is None  # int16 is not sorted
    picture, _ = asked("image.convolve", "grey.png", "--kernel", "-1,0,1", "--offset", "128")
    assert picture is None  # three weights are no square
    picture, _ = asked("image.convolve", "grey.png", "--kernel", "-1,0,1/-2,0,2/-1,0,1", "--offset", "-3")
    assert isinstance(picture.work, ImageConvolve)
    assert (picture.work.picture.width, picture.work.picture.height, picture.work.picture.channels) == (5, 4, 1)
    assert (picture.work.kernel, picture.work.offset) == (((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), -3)
    points, _ = asked("kmeans", "points.npy", "--clusters", "2", "--seed", SEED)
    assert isinstance(points.work, KMeans)
    assert (points.work.points.rows, points.work.points.columns, points.work.seed) == (6, 2, SEED)
    bodies, _ = asked("nbody", "bodies.npy", "--steps", "4", "--every", "2")
    assert isinstance(bodies.work, NBody)
    assert (bodies.work.bodies.count, list(bodies.files)) == (3, [bodies.work.bodies.digest])


def test_bins_cover_all_values_unless_they_are_given(asked: Any) -> None:
    """From the least to the greatest value; --low and --width say otherwise."""
    of_itself, _ = asked("histogram", "values.npy", "--count", "10")
    assert isinstance(of_itself.work, Histogram)
    assert (of_itself.work.low, of_itself.work.width, of_itself.work.element) == (-5, 10, "int16")
    given, _ = asked("histogram", "values.npy", "--low", "-100", "--width", "3", "--count", "7")
    assert (given.work.low, given.work.width, given.work.count) == (-100, 3, 7)


def test_numbers_are_kept_exactly(asked: Any) -> None:
    """Decimals become whole parts; coordinates of the plane are rounded to the nearest."""
    option, _ = asked(
        *("montecarlo.option", "--spot", "99.5", "--strike", "100", "--volatility", "0.25", "--rate", "-0.005")
    )
    assert isinstance(option.work, MonteCarloOption)
    assert (option.work.spot, option.work.strike) == (99_500_000, 100_000_000)
    assert (option.work.volatility_ppm, option.work.rate_ppm) == (250_000, -5_000)
    picture, _ = asked("mandelbrot", "--re", "-0.75", "--im", "0.1", "--across", "0.01", "--width", "640")
    assert isinstance(picture.work, Mandelbrot)
    assert (picture.work.re, picture.work.im) == (-3 << 48, round(0.1 * 2**50))
    assert picture.work.step == round(2**56 / 100) // 640
    moved, _ = asked("nbody", f"seed:{SEED}:50", "--step", "0.0005")
    assert (moved.work.bodies.seed, moved.work.step_ppb, moved.files) == (SEED, 500_000, {})
    assert len(seed_of(None)) == 64
    assert seed_of(None) != seed_of(None)


REFUSED = [
    (("sha256.tree", "nowhere"), 3, "nowhere"),
    (("sha256.tree", "file", "--chunk", "3"), 2, "chunk_bytes"),
    (("sha256.tree", "empty"), 2, "empty"),
    (("histogram", "file"), 2, "no .npy file"),
    (("histogram", "points.npy"), 2, "Give its array 1 dimension before numpy.save."),
    (("histogram", "floats.npy"), 2, "no integers"),
    (("histogram", "nothing.npy"), 2, "no integers"),
    (("sort", "values.npy"), 2, "int16"),
    (("sort", "pickled.npy"), 2, "no .npy file"),
    (("image.convolve", "file", "--kernel", "1"), 2, "signature of PNG"),
    (("image.convolve", "grey.png", "--kernel", "1,2"), 2, "no square"),
    (("image.convolve", "grey.png", "--kernel", "1,x,2"), 2, "no kernel"),
    (("image.convolve", "grey.png"), 2, "--kernel"),
    (("kmeans", "values.npy"), 2, "rows and columns"),
    (("kmeans", "random:5x70"), 2, "columns"),
    (("kmeans", "random:9"), 3, "random:9"),
    (("nbody", "random:0"), 2, "count"),
    (("nbody", "random:9", "--step", "0.0000000001"), 2, "too many digits"),
    (("mandelbrot", "--re", "5"), 2, "$.re"),
    (("mandelbrot", "--re", "nan"), 2, "no coordinate"),
    (("montecarlo.option", "--spot", "100", "--strike", "100"), 2, "--volatility"),
    (("montecarlo.option", "--spot", "-1", "--strike", "1", "--volatility", "1"), 2, "$.spot"),
    (("montecarlo.option", "--spot", "inf", "--strike", "1", "--volatility", "1"), 2, "no price"),
    (("montecarlo.option", "--spot", "1", "--strike", "1", "--volatility", "1", "--seed", "ab"), 2, "$.seed"),
]


@pytest.mark.parametrize(("words", "code", "said"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_words_that_make_no_work_are_refused(asked: Any, words: tuple[str, ...], code: int, said: str) -> None:
    """What cannot be asked for is explained at once, with what is wrong."""
    Path("empty").touch()
    np.save("floats.npy", np.zeros(3))
    np.save("nothing.npy", np.zeros(0, dtype=np.int32))
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    found, ended = asked(*words)
    assert found is None
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


@pytest.mark.parametrize(
    ("words", "file", "said"),
    [
        (("kmeans", "floats.npy", "--clusters", "1"), "floats.npy", "float32, not int16"),
        (("nbody", "floats.npy"), "floats.npy", "not 1 × 7"),
        (("matmul.fp16-exact", "halves.npy", "halves.npy"), "halves.npy", "no integer"),
        (("matmul.fp16-exact", "whole.npy", "halves.npy"), "whole.npy and halves.npy", "operand b is refused: row 0"),
    ],
)
def test_a_file_that_miners_would_turn_down_is_not_submitted(
    assay: Any, words: tuple[str, ...], file: str, said: str
) -> None:
    """The file is read as a miner reads it, before a network is asked or a fee is paid."""
    np.save("floats.npy", np.full((1, 2), 0.5, dtype=np.float32))
    np.save("halves.npy", np.full((2, 2), 0.5, dtype=np.float16))
    np.save("whole.npy", np.ones((2, 2), dtype=np.float16))
    ended = assay("job", "submit", *words, "--escrow", "1")
    assert (ended.code, ended.out) == (2, "")
    assert f"{words[0]} cannot work on {file}\n" in ended.err
    assert said in ended.err


def test_weights_are_a_square_or_rows() -> None:
    """Nine weights are three rows; slashes part rows of any length."""
    assert kernel_of("1,2,3,4,5,6,7,8,9") == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert kernel_of("1,2,1/-1,-2,-1") == [[1, 2, 1], [-1, -2, -1]]
    assert kernel_of("5") == [[5]]


def test_decimals_are_not_rounded_silently() -> None:
    """A number with more digits than are kept is refused, unless rounding is asked for."""
    assert scaled("0.000001", 10**6, "rate") == 1
    assert scaled("1e3", 10**6, "price") == 10**9
    with pytest.raises(BadInput, match="too many digits"):
        scaled("0.0000015", 10**6, "rate")
    assert scaled("0.0000017", 10**6, "rate", exact=False) == 2


def test_sort_takes_what_it_sorts(asked: Any) -> None:
    """A vector of int64 is work."""
    np.save("keys.npy", np.array([3, 1, 2], dtype=np.int64))
    work, _ = asked("sort", "keys.npy")
    assert isinstance(work.work, Sort)
    assert (work.work.element, work.work.length) == ("int64", 3)
