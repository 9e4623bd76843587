"""Merkle trees of RFC 9162, with pymerkle as the oracle."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree, InvalidProof
from pymerkle import verify_consistency as their_verify

from events.merkle import (
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
    root,
    root_of_hashes,
    verify_consistency,
    verify_inclusion,
)

LARGEST = 33
leaf_lists = st.lists(st.binary(max_size=8), min_size=1, max_size=70)
WRONG = sha256(b"something else").digest()


def leaves_of(size: int) -> list[bytes]:
    """Distinct leaves."""
    return [f"leaf {number}".encode() for number in range(size)]


def hashes_of(size: int) -> list[bytes]:
    """The hashes of distinct leaves."""
    return [leaf_hash(leaf) for leaf in leaves_of(size)]


THEIRS = InmemoryTree.init_from_entries(leaves_of(LARGEST), algorithm="sha256")
PLACES = [(index, size) for size in range(1, LARGEST + 1) for index in range(size)]
GROWTHS = [(old, new) for new in range(1, LARGEST + 1) for old in range(1, new + 1)]


def test_the_hashes_are_those_of_the_rfc() -> None:
    """Leaves and nodes have different prefixes, and the empty tree is the hash of nothing."""
    assert leaf_hash(b"") == sha256(b"\x00").digest()
    assert node_hash(WRONG, leaf_hash(b"")) == sha256(b"\x01" + WRONG + leaf_hash(b"")).digest()
    assert root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(leaf_lists)
def test_the_root_is_that_of_another_library(leaves: list[bytes]) -> None:
    """For any leaves, the root is the one that pymerkle computes."""
    assert root(leaves) == InmemoryTree.init_from_entries(leaves, algorithm="sha256").get_root()


def test_inclusion_paths_are_those_of_another_library() -> None:
    """For every leaf of every size, the audit path is pymerkle's, which begins with the leaf and counts from 1."""
    for index, size in PLACES:
        theirs = THEIRS.prove_inclusion(index + 1, size).serialize()["path"]
        assert [node.hex() for node in inclusion_path(hashes_of(size), index)] == theirs[1:]


def test_the_examples_of_the_rfc() -> None:
    """The paths in the tree of seven leaves are those that RFC 9162 draws in section 2.1.5."""
    a, b, c, d, e, f, j = hashes = hashes_of(7)
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, el = node_hash(g, h), node_hash(i, j)
    assert root_of_hashes(hashes) == node_hash(k, el)
    assert inclusion_path(hashes, 0) == [b, h, el]
    assert inclusion_path(hashes, 3) == [c, g, el]
    assert inclusion_path(hashes, 4) == [f, j, k]
    assert inclusion_path(hashes, 6) == [i, k]
    assert consistency_path(hashes, 3) == [c, d, g, el]
    assert consistency_path(hashes, 4) == [el]
    assert consistency_path(hashes, 6) == [i, j, k]


def test_another_library_finds_our_roots_consistent() -> None:
    """For every growth, pymerkle's own proof leads from our old root to our new one."""
    for old, new in GROWTHS:
        theirs = THEIRS.prove_consistency(old, new)
        their_verify(root(leaves_of(old)), root(leaves_of(new)), theirs)
    with pytest.raises(InvalidProof):
        their_verify(WRONG, root(leaves_of(3)), THEIRS.prove_consistency(2, 3))


def test_every_leaf_can_be_shown() -> None:
    """For every leaf of every size, its path leads to the root."""
    for index, size in PLACES:
        hashes = hashes_of(size)
        assert verify_inclusion(hashes[index], index, size, inclusion_path(hashes, index), root_of_hashes(hashes))


def test_a_leaf_cannot_be_shown_where_it_is_not() -> None:
    """A path holds for its leaf, its index, and its root, not for another of any of these."""
    for index, size in PLACES:
        hashes = hashes_of(size)
        path, expected = inclusion_path(hashes, index), root_of_hashes(hashes)
        leaf = hashes[index]
        assert not verify_inclusion(WRONG, index, size, path, expected)
        assert not verify_inclusion(leaf, index, size, path, WRONG)
        assert not any(verify_inclusion(leaf, other, size, path, expected) for other in range(size) if other != index)
        assert not verify_inclusion(leaf, -1, size, path, expected)
        assert not verify_inclusion(leaf, size, size, path, expected)


@given(size=st.integers(1, 70), data=st.data())
def test_a_changed_path_shows_nothing(size: int, data: st.DataObject) -> None:
    """A path with a node changed, left out, added, or in another place does not hold."""
    index = data.draw(st.integers(0, size - 1))
    hashes = hashes_of(size)
    path, expected = inclusion_path(hashes, index), root_of_hashes(hashes)

    def holds(changed: list[bytes]) -> bool:
        return verify_inclusion(hashes[index], index, size, changed, expected)

    assert holds(path)
    assert not holds([*path, WRONG])
    assert not holds([WRONG, *path])
    for place in range(len(path)):
        assert not holds([*path[:place], WRONG, *path[place + 1 :]])
        assert not holds([*path[:place], *path[place + 1 :]])
        assert not holds([*path[:place], path[place][:-1], *path[place + 1 :]])


def test_a_node_is_no_leaf() -> None:
    """Neither the root of two leaves nor the bytes below it pass for a leaf, whatever is said about the sizes."""
    first, second, third = hashes_of(3)
    expected = root_of_hashes([first, second, third])
    inner = node_hash(first, second)
    assert not verify_inclusion(leaf_hash(first + second), 0, 2, [third], expected)
    assert not verify_inclusion(first + second, 0, 2, [third], expected)
    assert verify_inclusion(inner, 0, 2, [third], expected)  # a hash is taken as given: whoever asks hashes the leaf


def test_the_border_inside_a_node_cannot_be_moved() -> None:
    """Hashes of other lengths than 32 bytes never hold, though their joined bytes would give the same node."""
    first, second = hashes_of(2)
    expected = node_hash(first, second)
    joined = first + second
    assert verify_inclusion(first, 0, 2, [second], expected)
    for border in (0, 16, 31, 33, 64):
        assert not verify_inclusion(joined[:border], 0, 2, [joined[border:]], expected)
        assert not verify_consistency(1, joined[:border], 2, expected, [joined[border:]])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_there_is_no_path_to_a_leaf_that_is_not_there(index: int, size: int) -> None:
    """An index outside of the tree is a mistake of the caller."""
    with pytest.raises(IndexError, match=f"leaf {index} of {size}"):
        inclusion_path(hashes_of(size), index)


def test_every_prefix_can_be_shown() -> None:
    """For every growth, the path shows that the old tree is a prefix of the new one."""
    for old, new in GROWTHS:
        hashes = hashes_of(new)
        path = consistency_path(hashes, old)
        assert verify_consistency(old, root_of_hashes(hashes[:old]), new, root_of_hashes(hashes), path)


def test_a_rewritten_history_cannot_be_shown() -> None:
    """A path holds for no other old root, new root, or size."""
    for old, new in GROWTHS:
        hashes = hashes_of(new)
        before, after = root_of_hashes(hashes[:old]), root_of_hashes(hashes)
        path = consistency_path(hashes, old)
        assert not verify_consistency(old, WRONG, new, after, path)
        assert not verify_consistency(old, before, new, WRONG, path)
        assert not verify_consistency(old, before, new, after, [*path, WRONG])
        assert not verify_consistency(0, before, new, after, path)
        assert not verify_consistency(new + 1, before, new, after, path)
        if old < new:
            assert not verify_consistency(old, before, new, after, path[:-1])
            assert not verify_consistency(old, before, new, after, [])


@given(new=st.integers(2, 70), data=st.data())
def test_a_changed_consistency_path_shows_nothing(new: int, data: st.DataObject) -> None:
    """A consistency path with a node changed or left out does not hold."""
    old = data.draw(st.integers(1, new - 1))
    hashes = hashes_of(new)
    before, after = root_of_hashes(hashes[:old]), root_of_hashes(hashes)
    path = consistency_path(hashes, old)
    for place in range(len(path)):
        changed = [*path[:place], WRONG, *path[place + 1 :]]
        assert not verify_consistency(old, before, new, after, changed)
        assert not verify_consistency(old, before, new, after, [*path[:place], *path[place + 1 :]])


@pytest.mark.parametrize(("old", "size"), [(0, 3), (4, 3)])
def test_there_is_no_path_from_outside(old: int, size: int) -> None:
    """An old size of nothing, or above the new one, is a mistake of the caller."""
    with pytest.raises(ValueError, match=f"old size {old} of {size}"):
        consistency_path(hashes_of(size), old)
