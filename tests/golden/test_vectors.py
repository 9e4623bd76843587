"""The test vectors are current, and hold by the standard library and PyNaCl alone, without our code."""

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tests.golden.generate_vectors import DIRECTORY, vectors

FILES: dict[str, Any] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DIRECTORY.glob("*.json"))
}
KEYS = {key["address"]: key for key in FILES["keys"]["keys"]}


def from_base32(text: str) -> bytes:
    """The bytes of an NKey text without its checksum, which must be right: CRC-16/XMODEM, little-endian."""
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    crc = 0
    for byte in raw[:-2]:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    assert crc.to_bytes(2, "little") == raw[-2:]
    return raw[:-2]


def check_signature(address: str, message: bytes, sig: str) -> None:
    """Raises BadSignatureError unless `sig` is the address's over the message."""
    VerifyKey(from_base32(address)[1:]).verify(message, base64.urlsafe_b64decode(sig + "=="))


def node(left: bytes, right: bytes) -> bytes:
    """An inner node of an RFC 9162 tree."""
    return sha256(b"\x01" + left + right).digest()


def tree(hashes: list[bytes]) -> bytes:
    """The RFC's own definition of the root, by recursion."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"").digest()
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return node(tree(hashes[:half]), tree(hashes[half:]))


def test_vectors_are_current() -> None:
    """The committed files are those that the code gives; `python -m tests.golden.generate_vectors` renews them."""
    committed = {path.name: path.read_bytes() for path in Path(DIRECTORY).iterdir()}
    assert sorted(committed) == sorted(vectors())
    assert [name for name, data in vectors().items() if committed[name] != data] == []


@pytest.mark.parametrize("address", KEYS)
def test_addresses_follow_from_seeds(address: str) -> None:
    """A seed text holds two prefix bytes and the seed; the address one prefix byte and the public key."""
    key = KEYS[address]
    seed = from_base32(key["seed"])
    public = bytes(SigningKey(seed[2:]).verify_key)
    assert key["seed"].startswith("SU")
    assert public.hex() == key["public_key"]
    assert from_base32(address) == bytes([20 << 3]) + public


@pytest.mark.parametrize("event", FILES["events"]["events"], ids=lambda event: event["name"])
def test_events_hold(event: dict[str, str]) -> None:
    """Canonical body, id, signature and envelope follow from one another."""
    body = json.loads(event["body"])
    # Python's own encoder escapes nothing but what JSON must have escaped, apart from DEL, which it leaves too.
    assert json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == event["body"]
    assert sha256(event["body"].encode()).hexdigest() == event["id"]
    assert (body["type"], body["sender"]) == (event["type"], event["sender"])
    assert event["envelope"] == f'{{"body":{event["body"]},"sig":"{event["sig"]}"}}'
    check_signature(event["sender"], FILES["events"]["domain"].encode() + event["body"].encode(), event["sig"])


@pytest.mark.parametrize("event", FILES["events"]["events"], ids=lambda event: event["name"])
def test_signing_again_gives_the_same(event: dict[str, str]) -> None:
    """Anybody with the sender's seed signs the same bytes: Ed25519 needs no randomness."""
    seed = from_base32(KEYS[event["sender"]]["seed"])[2:]
    message = FILES["events"]["domain"].encode() + event["body"].encode()
    assert base64.urlsafe_b64encode(SigningKey(seed).sign(message).signature).decode().rstrip("=") == event["sig"]


def test_refused_envelopes_show_their_texts() -> None:
    """Where bytes are UTF-8, the text beside them is the same; each code has several examples."""
    cases = FILES["refused_envelopes"]["envelopes"]
    for case in cases:
        raw = base64.b64decode(case["envelope"])
        assert raw == case.get("text", "").encode() or "text" not in case
    assert {case["code"] for case in cases} == {"NOT_CANONICAL", "MALFORMED", "UNKNOWN_TYPE"}
    assert len({case["name"] for case in cases}) == len(cases) > 70


@pytest.mark.parametrize("given", FILES["merkle"]["trees"], ids=lambda given: str(len(given["leaves"])))
def test_merkle_trees_hold(given: Any) -> None:
    """Roots follow from the RFC's definition, and each inclusion path leads to the root."""
    hashes = [sha256(b"\x00" + bytes.fromhex(leaf)).digest() for leaf in given["leaves"]]
    assert tree(hashes).hex() == given["root"]
    for index, path in enumerate(given["inclusion"]):
        assert climb(hashes[index], index, len(hashes), [bytes.fromhex(text) for text in path]).hex() == given["root"]


def climb(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that a leaf and its path lead to, top down by recursion: the last node belongs to the top."""
    if size == 1:
        assert path == []
        return leaf
    half = 1
    while half * 2 < size:
        half *= 2
    if index < half:
        return node(climb(leaf, index, half, path[:-1]), path[-1])
    return node(path[-1], climb(leaf, index - half, size - half, path[:-1]))


def test_consistency_paths_hold() -> None:
    """Each consistency path is, node by node, a subtree of the tree, in the RFC's order."""
    for given in FILES["merkle"]["trees"]:
        hashes = [sha256(b"\x00" + bytes.fromhex(leaf)).digest() for leaf in given["leaves"]]
        for old, path in enumerate(given["consistency"], start=1):
            assert [text.hex() for text in prove(hashes, old, whole=True)] == path


def prove(hashes: list[bytes], old: int, *, whole: bool) -> list[bytes]:
    """RFC 9162, 2.1.4.1, word for word."""
    if old == len(hashes):
        return [] if whole else [tree(hashes)]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    if old <= half:
        return [*prove(hashes[:half], old, whole=whole), tree(hashes[half:])]
    return [*prove(hashes[half:], old - half, whole=False), tree(hashes[:half])]


def test_blocks_hold() -> None:
    """Genesis hash, header hash, block, vote and commit follow from their texts."""
    given = FILES["blocks"]
    header = json.loads(given["header"])
    assert sha256(given["genesis"].encode()).hexdigest() == given["genesis_hash"]
    assert sha256(given["header"].encode()).hexdigest() == given["header_hash"]
    envelopes = [event["envelope"] for event in FILES["events"]["events"]]
    block = f'{{"events":[{",".join(envelopes)}],"header":{given["header"]},"sig":"{given["block_sig"]}"}}'
    assert block == given["block"]
    leaves = [sha256(b"\x00" + envelope.encode()).digest() for envelope in envelopes]
    assert tree(leaves).hex() == header["event_root"]
    check_signature(header["proposer"], given["block_domain"].encode() + given["header"].encode(), given["block_sig"])
    assert given["signed_vote"] == f'{{"sig":"{given["vote_sig"]}","vote":{given["vote"]}}}'
    check_signature(given["validator"], given["vote_domain"].encode() + given["vote"].encode(), given["vote_sig"])
    assert json.loads(given["vote"])["block"] == given["header_hash"]
    for entry in header["commit"]:
        vote = {"block": header["parent"], "chain": header["chain"], "height": 1, "validator": entry["validator"]}
        text = json.dumps(vote, separators=(",", ":"))
        check_signature(entry["validator"], given["vote_domain"].encode() + text.encode(), entry["sig"])


def test_receipts_hold() -> None:
    """The digest and both signatures of a receipt follow from its text."""
    given = FILES["receipts"]
    assert sha256(given["receipt"].encode()).hexdigest() == given["digest"]
    for signature in given["signatures"]:
        check_signature(signature["key_id"], given["domain"].encode() + given["receipt"].encode(), signature["sig"])
    assert json.loads(given["signed_receipt"])["signatures"] == given["signatures"]


def test_the_check_of_signatures_can_fail() -> None:
    """The checker of this test finds a signature over something else."""
    given = FILES["receipts"]
    with pytest.raises(BadSignatureError):
        check_signature(given["signatures"][0]["key_id"], given["receipt"].encode(), given["signatures"][0]["sig"])


@pytest.mark.parametrize("case", FILES["attestation"]["scores"], ids=lambda case: case["name"])
def test_scores_add_up(case: dict[str, Any]) -> None:
    """A GPU has the sum of its levels under its caps, a miner what its worst GPU has."""
    record = json.loads(case["attestation"])
    assert [found["gpu"] for found in case["gpus"]] == [gpu["uuid"] for gpu in record["evidence"]["gpus"]]
    for found in case["gpus"]:
        assert found["score"] == min([sum(found["levels"]), *found["caps"].values()])
    assert case["attested"]["score"] == min(found["score"] for found in case["gpus"])
    assert json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == case["attestation"]


def test_draws_follow_from_block_and_job() -> None:
    """The number of a settled job is its hash's remainder."""
    file = FILES["attestation"]
    for draw in file["draws"]:
        data = file["domain"].encode() + bytes.fromhex(draw["block"]) + bytes.fromhex(draw["job"])
        assert int(sha256(data).hexdigest(), 16) % 10_000 == draw["number"]
