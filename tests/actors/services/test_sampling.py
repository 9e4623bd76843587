"""The draw of chunks that are done again."""

import hashlib
from math import comb, prod

import pytest

from actors.services.sampling import SAMPLES, sample

DOMAIN = b"assay:test:v1\0"
SEED = "5e" * 32


def test_forty_four_chunks_catch_a_tenth() -> None:
    """A result with a tenth of its chunks wrong passes with less than one per cent, however many chunks it has."""
    assert 0.9**SAMPLES < 0.01 < 0.9 ** (SAMPLES - 1)
    for chunks in (50, 100, 1_000, 100_000):
        wrong = chunks // 10
        missed = comb(chunks - wrong, SAMPLES) / comb(chunks, SAMPLES)
        assert missed == pytest.approx(prod((chunks - wrong - i) / (chunks - i) for i in range(SAMPLES)))
        assert missed <= (1 - wrong / chunks) ** SAMPLES


@pytest.mark.parametrize(("count", "chunks"), [(1, 1), (44, 1), (44, 43), (44, 44)])
def test_few_chunks_are_all_drawn(count: int, chunks: int) -> None:
    """Where there are no more chunks than are asked for, none is left out."""
    assert sample(SEED, DOMAIN, count, chunks) == tuple(range(chunks))


@pytest.mark.parametrize(("count", "chunks"), [(1, 2), (44, 45), (44, 1_000), (999, 1_000), (44, 2**64 - 1)])
def test_indices_are_distinct_ascending_and_within(count: int, chunks: int) -> None:
    """Each draw has as many indices as asked for, each once, in order, all of them chunks."""
    drawn = sample(SEED, DOMAIN, count, chunks)
    assert len(set(drawn)) == count
    assert list(drawn) == sorted(drawn)
    assert drawn[0] >= 0
    assert drawn[-1] < chunks


def test_the_draw_is_the_documented_one() -> None:
    """Little-endian words of SHAKE-256 modulo the number of chunks, repeated ones passed over."""
    stream = hashlib.shake_256(DOMAIN + bytes.fromhex(SEED)).digest(8 * 64)
    indices: list[int] = []
    for start in range(0, len(stream), 8):
        index = int.from_bytes(stream[start : start + 8], "little") % 100
        if index not in indices and len(indices) < 30:
            indices.append(index)
    assert sample(SEED, DOMAIN, 30, 100) == tuple(sorted(indices))
    assert sample(SEED, DOMAIN, 5, 1_000_000) == (241899, 398828, 478364, 804222, 909164)


def test_words_that_would_favour_low_indices_are_passed_over() -> None:
    """With 2^63 + 1 chunks nearly half of the words have no place in a whole multiple; none of them is used."""
    chunks = 2**63 + 1
    stream = hashlib.shake_256(DOMAIN + bytes.fromhex(SEED)).digest(8 * 1_000)
    words = [int.from_bytes(stream[start : start + 8], "little") for start in range(0, len(stream), 8)]
    assert sample(SEED, DOMAIN, 44, chunks) == tuple(sorted([word for word in words if word < chunks][:44]))


def test_the_draw_depends_on_seed_and_domain() -> None:
    """Another seed or another use draws other chunks."""
    draws = {
        sample(seed, domain, SAMPLES, 10_000) for seed in (SEED, "00" * 32) for domain in (DOMAIN, b"assay:other:v1\0")
    }
    assert len(draws) == 4


def test_each_chunk_is_as_likely() -> None:
    """Over many seeds every chunk is drawn about equally often."""
    counts = [0] * 60
    for number in range(2_000):
        for index in sample(f"{number:064x}", DOMAIN, 15, 60):
            counts[index] += 1
    # 500 expected for each, with a standard deviation of 19.
    assert max(abs(count - 500) for count in counts) < 100


@pytest.mark.parametrize(("domain", "count", "chunks"), [(b"open", 1, 5), (DOMAIN, 0, 5), (DOMAIN, 1, 0)])
def test_impossible_draws_are_broken_invariants(domain: bytes, count: int, chunks: int) -> None:
    """A domain that does not end, an empty sample and a result without chunks do not exist."""
    with pytest.raises(AssertionError, match="cannot be drawn"):
        sample(SEED, domain, count, chunks)
