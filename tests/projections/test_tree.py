"""The state tree, against its definition computed from scratch."""

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.canonical import canonical
from projections import tree
from projections.proofs import verify_state_proof
from schemas.messages import StateProof

KEYS = st.one_of(
    st.integers(0, 15).map(lambda key: key << 252),
    st.integers(0, 15),
    st.integers(0, 2**256 - 1),
    st.sampled_from([0, 1, 2**255, 2**256 - 1]),
)
VALUES = st.binary(min_size=32, max_size=32)


def by_definition(leaves: dict[int, bytes], depth: int = 0) -> bytes:
    """The root as the module's docstring defines it."""
    if not leaves:
        return bytes(32)
    if len(leaves) == 1:
        ((key, value),) = leaves.items()
        return sha256(b"\x00" + key.to_bytes(32, "big") + value).digest()
    sides: tuple[dict[int, bytes], dict[int, bytes]] = ({}, {})
    for key, value in leaves.items():
        sides[key >> (255 - depth) & 1][key] = value
    left, right = (by_definition(side, depth + 1) for side in sides)
    return sha256(b"\x01" + left + right).digest()


def nodes_of(node: tree.Node) -> dict[int, object]:
    if isinstance(node, tree.Branch):
        return {id(node): node, **nodes_of(node.left), **nodes_of(node.right)}
    return {} if node is None else {id(node): node}


@given(st.lists(st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=12), max_size=6))
def test_the_root_is_that_of_the_definition(batches: list[dict[int, bytes | None]]) -> None:
    """After any batches of sets and removals the root is that of the leaves that are left, from scratch."""
    node: tree.Node = None
    leaves: dict[int, bytes] = {}
    for batch in batches:
        node = tree.update(node, batch)
        leaves |= {key: value for key, value in batch.items() if value is not None}
        leaves = {key: value for key, value in leaves.items() if batch.get(key, value) is not None}
        assert tree.root_hash(node) == by_definition(leaves)


@given(st.dictionaries(KEYS, VALUES, max_size=12), st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=12))
def test_a_tree_never_changes(before: dict[int, bytes], changes: dict[int, bytes | None]) -> None:
    """An update leaves the old tree as it was."""
    node = tree.update(None, before)
    root = tree.root_hash(node)
    tree.update(node, changes)

    assert tree.root_hash(node) == root == by_definition(before)


def test_an_update_shares_what_it_does_not_touch() -> None:
    """Of a thousand leaves, setting one makes new nodes only on its own path."""
    leaves = {tree.key_hash(str(number)): sha256(str(number).encode()).digest() for number in range(1_000)}
    before = tree.update(None, leaves)
    after = tree.update(before, {tree.key_hash("500"): bytes(32)})
    old, new = nodes_of(before), nodes_of(after)
    depth = len(tree.find(after, tree.key_hash("500")).siblings)

    assert len([node for node in new if node not in old]) == depth + 1
    assert depth < 30


NAMES = st.text("abcdefgh", min_size=1, max_size=3)


@given(st.dictionaries(NAMES, NAMES, max_size=30), NAMES, NAMES)
def test_a_proof_shows_its_own_key_and_value_only(records: dict[str, str], key: str, other: str) -> None:
    """The proof of a key holds under the root; with another key, another value, or as absence it does not."""
    rows = {name: canonical(value) for name, value in records.items()}
    node = tree.update(None, {tree.key_hash(name): sha256(row).digest() for name, row in rows.items()})
    root = tree.root_hash(node).hex()
    path = tree.find(node, tree.key_hash(key))
    siblings = tuple(sibling.hex() for sibling in path.siblings)
    leaf = path.leaf
    neighbour = msgspec.UNSET if leaf is None else (f"{leaf.key:064x}", leaf.value.hex())
    present = key in rows

    if present:
        shown = StateProof(key=key, siblings=siblings, value=msgspec.Raw(rows[key]))
        assert verify_state_proof(shown, root)
        assert not verify_state_proof(msgspec.structs.replace(shown, value=msgspec.Raw(canonical(other + "x"))), root)
        assert not verify_state_proof(msgspec.structs.replace(shown, value=msgspec.UNSET), root)
        assert not verify_state_proof(msgspec.structs.replace(shown, neighbour=neighbour), root)
        assert not verify_state_proof(StateProof(key=key, siblings=siblings, neighbour=neighbour), root)
        if other != key:
            assert not verify_state_proof(msgspec.structs.replace(shown, key=other), root)
    else:
        absent = StateProof(key=key, siblings=siblings, neighbour=neighbour)
        assert verify_state_proof(absent, root)
        assert not verify_state_proof(StateProof(key=key, siblings=siblings, value=msgspec.Raw(b'"a"')), root)
        if other in rows:
            assert not verify_state_proof(msgspec.structs.replace(absent, key=other), root)


def test_a_neighbour_on_another_path_shows_nothing() -> None:
    """The leaf that stands in the way of an absent key has to lie on that key's path."""
    node = tree.update(None, {tree.key_hash(str(number)): bytes(32) for number in range(8)})
    root = tree.root_hash(node).hex()
    for number in range(8):
        path = tree.find(node, tree.key_hash(str(number)))
        assert path.leaf is not None
        neighbour = (f"{path.leaf.key:064x}", path.leaf.value.hex())
        siblings = tuple(sibling.hex() for sibling in path.siblings)
        claims = [StateProof(key=f"absent {absent}", siblings=siblings, neighbour=neighbour) for absent in range(64)]
        shown = [claim for claim in claims if verify_state_proof(claim, root)]
        on_path = [claim for claim in claims if tree.find(node, tree.key_hash(claim.key)).leaf is path.leaf]
        assert shown == on_path


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"siblings": ("00",)}, "a hash that is too short"),
        ({"siblings": ("zz" * 32,)}, "no hexadecimal"),
        ({"siblings": ("AB" * 32,)}, "upper case"),
        ({"siblings": ("00" * 32,) * 257}, "longer than any path"),
        ({"neighbour": ("00" * 32, "0")}, "half a byte"),
        ({"siblings": ("00" * 32,)}, "another depth"),
    ],
)
def test_a_malformed_proof_does_not_hold(fields: dict[str, object], reason: str) -> None:
    """What is not a proof is false, and raises nothing."""
    good = {"key": "absent", "siblings": ()}
    assert verify_state_proof(StateProof(**good), "00" * 32)
    assert not verify_state_proof(StateProof(**{**good, **fields}), "00" * 32), reason
