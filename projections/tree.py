"""The state tree: a compressed sparse Merkle tree over 256-bit key hashes.

A key hash is a path of 256 bits, the highest first: 0 goes left, 1 goes right. By definition (``‖`` joins bytes):

- the hash of a part without leaves is 32 zero bytes,
- the hash of a part with one leaf is SHA-256(0x00 ‖ key hash ‖ value hash), however deep that part could go,
- the hash of a part with more leaves is SHA-256(0x01 ‖ left hash ‖ right hash).

So the root depends on the set of leaves alone, not on the order in which they came, and a path is about as long as the
logarithm of their number. Trees are never changed: `update` shares all parts that stay the same with the tree before.
"""

from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256

from msgspec import Struct

EMPTY = bytes(32)
_TOP = 1 << 255


class Leaf(Struct, frozen=True, gc=False):
    """The only leaf of its part; ``key`` is the key hash as a number."""

    hash: bytes
    key: int
    value: bytes


class Branch(Struct, frozen=True, gc=False):
    """Two or more leaves."""

    hash: bytes
    left: "Node"
    right: "Node"


Node = Leaf | Branch | None


class Path(Struct, frozen=True):
    """The way to a key: the hashes beside it from the root down, and the leaf at its end: its own, another, none."""

    siblings: tuple[bytes, ...]
    leaf: Leaf | None


@lru_cache(maxsize=65_536)
def key_hash(key: str) -> int:
    """The path of a key: SHA-256 of its UTF-8 bytes as a number."""
    return int.from_bytes(sha256(key.encode()).digest(), "big")


def leaf_hash(key: int, value: bytes) -> bytes:
    """The hash of a part with one leaf; ``value`` is the value's hash."""
    return sha256(b"\x00" + key.to_bytes(32, "big") + value).digest()


def root_hash(node: Node) -> bytes:
    """The hash of a tree."""
    return EMPTY if node is None else node.hash


def update(node: Node, changes: Mapping[int, bytes | None]) -> Node:
    """The tree with each key hash set to its value hash, removed where that is None. Hashes each touched node once."""
    keys = sorted(changes)
    return _updated(node, keys, [changes[key] for key in keys], 0, len(keys), _TOP, 0) if keys else node


def find(node: Node, key: int) -> Path:
    """The way to ``key``."""
    siblings = []
    bit = _TOP
    while isinstance(node, Branch):
        near, far = (node.right, node.left) if key & bit else (node.left, node.right)
        siblings.append(root_hash(far))
        node, bit = near, bit >> 1
    return Path(siblings=tuple(siblings), leaf=node)


def root_of_path(siblings: tuple[bytes, ...], key: int, end: bytes) -> bytes:
    """The root of a tree in which the way to ``key`` passes ``siblings`` and ends at a part with the hash ``end``."""
    current = end
    for depth in range(len(siblings) - 1, -1, -1):
        sibling = siblings[depth]
        pair = sibling + current if key >> (255 - depth) & 1 else current + sibling
        current = sha256(b"\x01" + pair).digest()
    return current


def _updated(
    node: Node, keys: list[int], values: list[bytes | None], low: int, high: int, bit: int, prefix: int
) -> Node:
    """The part below ``prefix`` with changes ``low`` to ``high``, which all lie in it; at least one."""
    if node is None or isinstance(node, Leaf):
        if high - low == 1:
            key, value = keys[low], values[low]
            if node is None or node.key == key:
                return None if value is None else Leaf(leaf_hash(key, value), key, value)
            if value is None:
                return node
        return _built(_merged(node, keys[low:high], values[low:high]), bit, prefix)
    left, right = node.left, node.right
    middle_key = prefix | bit
    middle = bisect_left(keys, middle_key, low, high)
    if middle > low:
        left = _updated(left, keys, values, low, middle, bit >> 1, prefix)
    if middle < high:
        right = _updated(right, keys, values, middle, high, bit >> 1, middle_key)
    return _joined(left, right)


def _joined(left: Node, right: Node) -> Node:
    """One part of two. A leaf without company rises."""
    if left is None and (right is None or isinstance(right, Leaf)):
        return right
    if right is None and isinstance(left, Leaf):
        return left
    pair = (EMPTY if left is None else left.hash) + (EMPTY if right is None else right.hash)
    return Branch(sha256(b"\x01" + pair).digest(), left, right)


def _merged(node: Leaf | None, keys: list[int], values: list[bytes | None]) -> list[Leaf]:
    """The leaves of a part that had at most one, sorted by key."""
    leaves = [
        Leaf(leaf_hash(key, value), key, value) for key, value in zip(keys, values, strict=True) if value is not None
    ]
    if node is not None and keys[bisect_left(keys, node.key) % len(keys)] != node.key:
        leaves.append(node)
        leaves.sort(key=lambda leaf: leaf.key)
    return leaves


def _built(leaves: list[Leaf], bit: int, prefix: int) -> Node:
    """The part below ``prefix`` that holds these leaves, sorted by key."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else None
    middle = bisect_left(leaves, prefix | bit, key=lambda leaf: leaf.key)
    return _joined(_built(leaves[:middle], bit >> 1, prefix), _built(leaves[middle:], bit >> 1, prefix | bit))
