"""The fingerprint of multisets."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from actors.services.fingerprint import EVALUATIONS, PRIME, Fingerprint, error_bits
from tests.golden.data_vectors import DIRECTORY

GOLDEN: Any = json.loads((DIRECTORY / "sort.json").read_text(encoding="utf-8"))
SEED = "5e" * 32


def of(values: Any, seed: str = SEED, element: str = "int32", threads: int = 1) -> tuple[int, ...]:
    array = np.asarray(values, dtype=element)
    with ThreadPoolExecutor(threads) as executor:
        return Fingerprint(seed, array.itemsize).of(array, executor)


def test_golden_fingerprints() -> None:
    """The fingerprints are those that plain integer arithmetic gives."""
    for case in GOLDEN["cases"]:
        assert list(of(case["values"], GOLDEN["seed"], case["element"])) == case["fingerprint"]


def test_order_and_threads_do_not_matter() -> None:
    """Many steps in any order of values and by any number of threads give the same numbers below the prime."""
    generator = np.random.default_rng(4)
    for element in ("int32", "uint32", "int64"):
        limits = np.iinfo(element)
        values = generator.integers(limits.min, limits.max, 200_000, dtype=element, endpoint=True)
        found = of(values, element=element)
        assert found == of(np.sort(values), element=element, threads=3) == of(values[::-1], element=element)
        assert len(found) == EVALUATIONS
        assert all(0 <= number < PRIME for number in found)


DIFFERENT = [
    ("another value", [1, 2, 3], [1, 2, 4]),
    ("another multiplicity", [1, 1, 2], [1, 2, 2]),
    ("same sum", [0, 3], [1, 2]),
    ("same sums of squares and cubes", [1, 5, 8, 12], [2, 3, 10, 11]),
    ("sixteen of one for sixteen of another", [7] * 2**16, [8] * 2**16),
    ("digits exchanged", [0x00010002, 0x00030004], [0x00010004, 0x00030002]),
    ("digits of one value exchanged", [0x00010002], [0x00020001]),
    ("sign", [5, -5], [5, 5]),
    ("highest bit", [0], [-(2**31)]),
]


@pytest.mark.parametrize(("one", "other"), [row[1:] for row in DIFFERENT], ids=[row[0] for row in DIFFERENT])
def test_different_multisets_differ_in_every_evaluation(one: list[int], other: list[int]) -> None:
    """No evaluation is blind to an exchange that sums, products of digits, or powers of two might hide."""
    for element in ("int32", "int64"):
        pairs = zip(of(one, element=element), of(other, element=element), strict=True)
        assert all(a != b for a, b in pairs)


def test_random_exchanges_are_found() -> None:
    """Of 2,000 pairs that differ in one value, in one bit of it, none is taken for the same, under any seed."""
    generator = np.random.default_rng(8)
    with ThreadPoolExecutor(1) as executor:
        for seed in ("00" * 32, "5e" * 32, "ff" * 32):
            fingerprint = Fingerprint(seed, 8)
            values = generator.integers(-(2**63), 2**63, 30, dtype=np.int64)
            right = fingerprint.of(values, executor)
            for _ in range(667):
                forged = values.copy()
                forged[generator.integers(30)] ^= np.int64(1 << int(generator.integers(63)))
                assert fingerprint.of(forged, executor) != right


def test_the_error_is_as_written() -> None:
    """The bound of the docstring, and of docs/services/sort.md."""
    assert (error_bits(4), error_bits(8)) == (116, 112)


def test_seeds_give_different_functions() -> None:
    """What is the same under one seed is judged anew under another."""
    assert len({of([1, 2, 3], f"{n:02x}" * 32) for n in range(20)}) == 20
