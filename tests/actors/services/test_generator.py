"""Matrices from a seed."""

import hashlib

import numpy as np
import pytest

from actors.services.generator import philox, seeded_matrix, seeded_rows

SEED = hashlib.sha256(b"a seed for the tests").hexdigest()

GOLDEN = "12c5faa5f0ec9318b8657dcb5764fd938cff97e76bf3a8addd790f59015758d7"

# kat_vectors of Random123, the authors' library: counter, key, result of philox4x32-10.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """The same cipher in plain integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * c0, 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def element(seed: str, row: int, column: int) -> int:
    """One element, from the description alone."""
    material = hashlib.sha256(b"assay:matrix:v1\0" + bytes.fromhex(seed)).digest()
    k0, k1, s0, s1 = (int.from_bytes(material[at : at + 4], "little") for at in range(0, 16, 4))
    block = b"".join(word.to_bytes(4, "little") for word in scalar_philox([column // 16, row, s0, s1], [k0, k1]))
    return int.from_bytes(block[column % 16 : column % 16 + 1], "little", signed=True)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    """The cipher gives its authors' known answers."""
    arrays = tuple(np.array([word], dtype=np.uint64) for word in words(counter))
    found = philox(arrays, tuple(words(key)))
    assert [int(word[0]) for word in found] == words(answer)
    assert scalar_philox(words(counter), words(key)) == words(answer)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 15), (0, 16), (1, 0), (63, 130), (7, 131_070), (131_070, 3)])
def test_element_is_a_function_of_seed_row_and_column(row: int, column: int) -> None:
    """Any element can be computed by itself from the seed, its row and its column."""
    assert seeded_rows(SEED, row, 1, column + 1)[0, column] == element(SEED, row, column)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 16), (40, 17), (3, 1_000), (2_000, 30), (2, 131_071)])
def test_rows_can_be_made_alone(rows: int, columns: int) -> None:
    """Rows made alone, in any cut, are those of the whole matrix, and a narrower matrix is its left part."""
    whole = seeded_matrix(SEED, rows, columns)
    cut = rows // 2
    np.testing.assert_array_equal(
        whole, np.concatenate([seeded_rows(SEED, 0, cut, columns), seeded_rows(SEED, cut, rows - cut, columns)])
    )
    np.testing.assert_array_equal(whole[:, : -(-columns // 2)], seeded_matrix(SEED, rows, -(-columns // 2)))
    assert whole.shape == (rows, columns)
    assert whole.dtype == np.int8


def test_golden_matrix() -> None:
    """The bytes of a seeded matrix never change."""
    matrix = seeded_matrix("00" * 32, 33, 65)
    assert hashlib.sha256(matrix.tobytes()).hexdigest() == GOLDEN
    assert matrix[32, 64] == element("00" * 32, 32, 64)


def test_elements_are_uniform_over_all_of_int8() -> None:
    """All 256 values occur about equally often: chi-square with 255 degrees of freedom stays below 400."""
    counts = np.bincount(seeded_matrix(SEED, 1_024, 1_024).reshape(-1).astype(np.int64) + 128, minlength=256)
    expected = 1_024 * 1_024 / 256
    assert ((counts - expected) ** 2 / expected).sum() < 400


def test_matrix_is_no_hankel_matrix() -> None:
    """Neighbours on an anti-diagonal agree no more often than chance has it, and two seeds share nothing."""
    matrix = seeded_matrix(SEED, 512, 512)
    assert np.mean(matrix[1:, :-1] == matrix[:-1, 1:]) == pytest.approx(1 / 256, abs=0.001)
    assert np.mean(matrix == seeded_matrix("11" * 32, 512, 512)) == pytest.approx(1 / 256, abs=0.001)
