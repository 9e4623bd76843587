"""For each service a small job with a real file, as words of the command line, and what its result must be.

What it must be is computed here once more, by other means than the services': NumPy's plain operators, hashlib, or
Python's integers.
"""

import math
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from tests.end_to_end import plain_png
from tests.golden.simulation_vectors import checkpoints, option_sums, seeded_bodies

SEED: Final = sha256(b"a seed").hexdigest()
GENERATOR: Final = np.random.default_rng(4)


class Case(NamedTuple):
    """``words`` after the service's name, for files in a directory; ``check`` asserts that the result is right.

    ``said`` is in what `assay job result` tells.
    """

    words: Callable[[Path], list[str]]
    check: Callable[[Path, Path], None]
    said: str = "digest"


def saved(folder: Path, name: str, array: np.ndarray) -> str:
    np.save(folder / name, array)
    return str(folder / name)


def loaded(file: Path) -> Any:
    return np.load(file, allow_pickle=False)


# ---- Matrices --------------------------------------------------------------------------------------------------------


def matmul_words(folder: Path) -> list[str]:
    sides = {"a.npy": (20, 30), "b.npy": (30, 10)}
    return [saved(folder, name, GENERATOR.integers(-128, 128, shape, dtype=np.int8)) for name, shape in sides.items()]


def matmul_check(folder: Path, result: Path) -> None:
    a, b = (loaded(folder / name).astype(np.int64) for name in ("a.npy", "b.npy"))
    np.testing.assert_array_equal(loaded(result), a @ b)


def fp16_words(folder: Path) -> list[str]:
    sides = {"a.npy": (20, 30), "b.npy": (30, 10)}
    return [
        saved(folder, name, GENERATOR.integers(-100, 101, shape).astype(np.float16)) for name, shape in sides.items()
    ]


def fp16_check(folder: Path, result: Path) -> None:
    a, b = (loaded(folder / name).astype(np.int64) for name in ("a.npy", "b.npy"))
    np.testing.assert_array_equal(loaded(result).astype(np.int64), a @ b)


# ---- Data ------------------------------------------------------------------------------------------------------------


def tree_words(folder: Path) -> list[str]:
    (folder / "file").write_bytes(GENERATOR.bytes(10_000))
    return [str(folder / "file"), "--chunk", "4096"]


def tree_check(folder: Path, result: Path) -> None:
    data = (folder / "file").read_bytes()
    chunks = (data[start : start + 4_096] for start in range(0, len(data), 4_096))
    assert result.read_bytes() == b"".join(sha256(b"\0" + chunk).digest() for chunk in chunks)


def histogram_words(folder: Path) -> list[str]:
    values = GENERATOR.integers(-1_000, 1_000, 5_000, dtype=np.int32)
    return [saved(folder, "values.npy", values), "--low", "-900", "--width", "100", "--count", "18"]


def histogram_check(folder: Path, result: Path) -> None:
    counts = [0] * 20
    for value in loaded(folder / "values.npy").tolist():
        counts[max(0, min(19, 1 + (value + 900) // 100))] += 1
    assert loaded(result).tolist() == counts


def sort_words(folder: Path) -> list[str]:
    return [saved(folder, "values.npy", GENERATOR.integers(-(2**63), 2**63, 2_000, dtype=np.int64))]


def sort_check(folder: Path, result: Path) -> None:
    assert loaded(result).tolist() == sorted(loaded(folder / "values.npy").tolist())


# ---- Pictures --------------------------------------------------------------------------------------------------------


def convolve_words(folder: Path) -> list[str]:
    picture = GENERATOR.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    (folder / "picture.png").write_bytes(plain_png.written(picture))
    return [str(folder / "picture.png"), "--kernel", "1,2,1,2,4,2,1,2,1", "--divisor", "16"]


def convolve_check(folder: Path, result: Path) -> None:
    picture = plain_png.read((folder / "picture.png").read_bytes()).astype(int)
    near = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    weights = ((1, 2, 1), (2, 4, 2), (1, 2, 1))
    blurred = sum(weights[i][j] * near[i : i + 12, j : j + 17] for i in range(3) for j in range(3)) // 16
    np.testing.assert_array_equal(plain_png.read(result.read_bytes()), blurred)


def mandelbrot_words(_folder: Path) -> list[str]:
    return ["--width", "48", "--height", "32", "--re", "-0.5", "--im", "0", "--across", "3", "--iterations", "50"]


def mandelbrot_check(_folder: Path, result: Path) -> None:
    step = (3 << 56) // 48
    counts = plain_png.read(result.read_bytes())[:, :, 0].tolist()
    for row, column in np.ndindex(32, 48):
        re = -(1 << 55) + ((2 * column + 1 - 48) * step >> 1)
        im = (32 - 1 - 2 * row) * step >> 1
        x = y = n = 0
        while n < 50 and (x * x >> 56) + (y * y >> 56) <= 4 << 56:
            xx, yy, both = x * x >> 56, y * y >> 56, (x + y) ** 2 >> 56
            x, y, n = xx - yy + re, both - xx - yy + im, n + 1
        assert counts[row][column] == n


# ---- Points ----------------------------------------------------------------------------------------------------------


def kmeans_words(folder: Path) -> list[str]:
    points = GENERATOR.integers(-500, 500, (60, 2), dtype=np.int16)
    points[20:40] += 2_000
    points[40:] -= 2_000
    return [saved(folder, "points.npy", points), "--clusters", "3", "--iterations", "4", "--seed", SEED]


def kmeans_check(folder: Path, result: Path) -> None:
    points = loaded(folder / "points.npy").tolist()
    data = result.read_bytes()
    centres = np.frombuffer(data, dtype="<i2", count=5 * 3 * 2).reshape(5, 3, 2).tolist()
    assert all(centre in points for centre in centres[0])

    def nearest(point: list[int], among: list[list[int]]) -> int:
        distances = [sum((a - b) ** 2 for a, b in zip(point, centre, strict=True)) for centre in among]
        return distances.index(min(distances))

    for now, then in pairwise(centres):
        for number, centre in enumerate(then):
            own = [point for point in points if nearest(point, now) == number]
            assert centre == ([sum(axis) // len(own) for axis in zip(*own, strict=True)] if own else now[number])
    assert list(data[-60:]) == [nearest(point, centres[-1]) for point in points]


# ---- Simulations -----------------------------------------------------------------------------------------------------


def option_words(_folder: Path) -> list[str]:
    terms = {"spot": "100", "strike": "105", "volatility": "0.2", "rate": "0.03", "paths": "500", "seed": SEED}
    return [word for name, value in terms.items() for word in (f"--{name}", value)]


def option_check(_folder: Path, result: Path) -> None:
    work = {"style": "european", "right": "call", "spot": 100_000_000, "strike": 105_000_000, "rate_ppm": 30_000}
    work |= {"volatility_ppm": 200_000, "days": 365, "steps": 1, "paths": 500, "seed": SEED}
    rows = loaded(result).tolist()
    assert rows == option_sums(work)
    price = math.exp(-0.03) * sum(row[0] for row in rows) / 500 / 1e6
    assert abs(price - 7.128) < 2  # Black and Scholes; 500 paths are few


def nbody_words(_folder: Path) -> list[str]:
    return [f"seed:{SEED}:8", "--steps", "4", "--every", "2", "--step", "0.01", "--softening", "0.1"]


def nbody_check(_folder: Path, result: Path) -> None:
    work = {"steps": 4, "every": 2, "step_ppb": 10_000_000, "softening_ppm": 100_000}
    found = [body for state in checkpoints(work, *seeded_bodies(SEED, 8)) for body in state]
    assert loaded(result).tolist() == found


CASES: Final[Mapping[str, Case]] = {
    "matmul.int8": Case(matmul_words, matmul_check),
    "matmul.fp16-exact": Case(fp16_words, fp16_check),
    "sha256.tree": Case(tree_words, tree_check),
    "histogram": Case(histogram_words, histogram_check),
    "sort": Case(sort_words, sort_check),
    "image.convolve": Case(convolve_words, convolve_check),
    "mandelbrot": Case(mandelbrot_words, mandelbrot_check),
    "kmeans": Case(kmeans_words, kmeans_check),
    "montecarlo.option": Case(option_words, option_check, said="95 % confidence"),
    "nbody": Case(nbody_words, nbody_check, said="drift"),
}
