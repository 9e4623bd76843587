"""Merkle trees with inclusion and consistency proofs.

Source: RFC 9162, sections 2.1.1 to 2.1.4: a leaf is SHA-256(0x00 ‖ data), a node SHA-256(0x01 ‖ left ‖ right), the
empty tree SHA-256(""); the left subtree is the largest power of two below the size. Hashes are 32 bytes.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def _are_hashes(*values: bytes) -> bool:
    """Only values of 32 bytes: with other lengths, the border between the two sides of a node could be moved."""
    return all(len(value) == 32 for value in values)


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes. Level by level: an odd last node moves up unchanged, which gives RFC 9162's shape."""
    if not hashes:
        return sha256(b"").digest()
    level = list(hashes)
    while len(level) > 1:
        paired = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def root(leaves: Iterable[bytes]) -> bytes:
    """The root over the leaves' data."""
    return root_of_hashes([leaf_hash(leaf) for leaf in leaves])


def inclusion_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf ``index``, from the leaf up. Raises IndexError."""
    if not 0 <= index < len(hashes):
        raise IndexError(f"leaf {index} of {len(hashes)}")
    if len(hashes) == 1:
        return []
    split = _split(len(hashes))
    if index < split:
        return [*inclusion_path(hashes[:split], index), root_of_hashes(hashes[split:])]
    return [*inclusion_path(hashes[split:], index - split), root_of_hashes(hashes[:split])]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether leaf hash ``leaf`` stands at ``index`` of a tree of ``size`` leaves with this root (RFC 9162,
    2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(leaf, *path):
        return False
    position, last, current = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if position & 1 or position == last:
            current = node_hash(sibling, current)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            current = node_hash(current, sibling)
        position >>= 1
        last >>= 1
    return last == 0 and current == expected_root


def consistency_path(hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """The proof that the tree over the first ``old_size`` leaves is a prefix of this one. Raises ValueError outside
    1..size."""
    if not 1 <= old_size <= len(hashes):
        raise ValueError(f"old size {old_size} of {len(hashes)}")

    def subproof(part: Sequence[bytes], size: int, *, whole: bool) -> list[bytes]:
        if size == len(part):
            return [] if whole else [root_of_hashes(part)]
        split = _split(len(part))
        if size <= split:
            return [*subproof(part[:split], size, whole=whole), root_of_hashes(part[split:])]
        return [*subproof(part[split:], size - split, whole=False), root_of_hashes(part[:split])]

    return subproof(hashes, old_size, whole=True)


def verify_consistency(old_size: int, old_root: bytes, size: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the tree of ``old_size`` leaves is a prefix of that of ``size`` leaves (RFC 9162, 2.1.4.2)."""
    if not 1 <= old_size <= size or not _are_hashes(old_root, *path):
        return False
    if old_size == size:
        return not path and old_root == new_root
    nodes = list(path)
    if old_size & (old_size - 1) == 0:
        nodes.insert(0, old_root)
    if not nodes:
        return False
    position, last = old_size - 1, size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, node)
        position >>= 1
        last >>= 1
    return last == 0 and old == old_root and new == new_root
