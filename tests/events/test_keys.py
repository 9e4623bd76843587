"""Keys, addresses and signatures, with nkeys and PyNaCl as the oracles."""

import base64
import string

import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from events.errors import InvalidAddress, InvalidKey
from events.keys import (
    BLOCK_DOMAIN,
    EVENT_DOMAIN,
    RECEIPT_DOMAIN,
    VOTE_DOMAIN,
    Key,
    address_of,
    is_account,
    is_address,
    is_signature,
    public_key_of,
    verify,
)
from tests.golden.samples import ALICE, BOB

ORDER = 2**252 + 27742317777372353535851937790883648493
SIGNATURE_ALPHABET = string.ascii_letters + string.digits + "-_"
seeds = st.binary(min_size=32, max_size=32)
MESSAGE = b"a message"
SIGNATURE = ALICE.sign(MESSAGE)
# Address kinds of NKeys by their prefix byte: account, cluster, operator, server, curve, private.
OTHER_KINDS = {"A": 0, "C": 2, "O": 14, "N": 13, "X": 23, "P": 15}


def with_prefix(prefix: int) -> str:
    """An NKey text of another kind with a right checksum, over Alice's public key."""
    data = bytes([prefix << 3]) + public_key_of(ALICE.address)
    return base64.b32encode(data + nkeys.crc16(bytearray(data)).to_bytes(2, "little")).decode()


@given(seeds)
def test_addresses_and_seeds_are_those_of_nkeys(seed: bytes) -> None:
    """An NKey library makes the same user seed and the same public key from the same 32 bytes."""
    key = Key(seed)
    theirs = nkeys.from_seed(nkeys.encode_seed(seed, nkeys.PREFIX_BYTE_USER))
    assert key.seed_text().encode() == bytes(theirs.seed)
    assert key.address.encode() == theirs.public_key
    assert Key.from_seed_text(key.seed_text()).address == key.address
    assert is_address(key.address)
    assert is_account(key.address)


@given(seeds, st.binary(max_size=300))
def test_signatures_are_those_of_other_libraries(seed: bytes, message: bytes) -> None:
    """Ed25519 is deterministic: PyNaCl and nkeys sign the same bytes."""
    ours = base64.urlsafe_b64decode(Key(seed).sign(message) + "==")
    assert ours == SigningKey(seed).sign(message).signature
    assert ours == nkeys.from_seed(nkeys.encode_seed(seed, nkeys.PREFIX_BYTE_USER)).sign(message)


@given(seeds, st.binary(max_size=100))
def test_a_signature_holds_for_its_key_and_message_alone(seed: bytes, message: bytes) -> None:
    """A signature holds; for another key, or another message, it does not."""
    key = Key(seed)
    signature = key.sign(message)
    assert verify(key.address, message, signature)
    assert not verify(key.address, message + b"\x00", signature)
    assert not verify(Key(bytes(31) + b"\x07").address, message, signature)


def test_the_domains_are_apart() -> None:
    """What is signed as an event is no signature of a block, a vote or a receipt, whatever the bytes."""
    domains = (EVENT_DOMAIN, BLOCK_DOMAIN, VOTE_DOMAIN, RECEIPT_DOMAIN)
    for signed in domains:
        signature = ALICE.sign(signed + MESSAGE)
        assert [verify(ALICE.address, other + MESSAGE, signature) for other in domains] == [
            other == signed for other in domains
        ]
    assert not any(a.startswith(b) for a in domains for b in domains if a != b)


def test_no_other_spelling_of_a_signature_holds() -> None:
    """Of all last characters that decode to the same 64 bytes, one is the signature's."""
    spellings = [SIGNATURE[:-1] + last for last in SIGNATURE_ALPHABET]
    raw = base64.urlsafe_b64decode(SIGNATURE + "==")
    assert sum(base64.urlsafe_b64decode(text + "==") == raw for text in spellings) == 16
    assert [text for text in spellings if verify(ALICE.address, MESSAGE, text)] == [SIGNATURE]


def with_both_special_characters() -> tuple[bytes, str]:
    """A message whose signature by Alice has a hyphen and an underscore."""
    for number in range(1_000):
        message = str(number).encode()
        signature = ALICE.sign(message)
        if "-" in signature and "_" in signature:
            return message, signature
    raise AssertionError("no such signature among a thousand")


def test_the_standard_alphabet_of_base64_does_not_hold() -> None:
    """The same bytes in base64's other alphabet are no signature."""
    message, signature = with_both_special_characters()
    assert verify(ALICE.address, message, signature)
    assert not verify(ALICE.address, message, signature.replace("-", "+"))
    assert not verify(ALICE.address, message, signature.replace("_", "/"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        SIGNATURE[:-1],
        SIGNATURE + "A",
        SIGNATURE + "==",
        SIGNATURE + "\n",
        SIGNATURE[:5] + "!!!!" + SIGNATURE[5:],
        "!" * 85 + "A",
        "é" * 85 + "A",
        "A" * 86,
        "\x00" * 86,
    ],
)
def test_a_text_that_is_no_signature_does_not_hold(text: str) -> None:
    """Foreign characters, padding and other lengths make a signature false; none raises."""
    assert not verify(ALICE.address, MESSAGE, text)


def test_a_longer_signature_cannot_swallow_a_part_of_the_message() -> None:
    """A signature over `ab` is none over `b`, even when its text carries the `a`."""
    raw = base64.urlsafe_b64decode(ALICE.sign(b"ab") + "==")
    assert not verify(ALICE.address, b"b", base64.urlsafe_b64encode(raw + b"a").decode().rstrip("="))


def test_the_other_scalar_of_a_signature_does_not_hold() -> None:
    """Adding the group's order to a signature's scalar, which older libraries took, makes it false."""
    raw = base64.urlsafe_b64decode(SIGNATURE + "==")
    scalar = int.from_bytes(raw[32:], "little") + ORDER
    other = base64.urlsafe_b64encode(raw[:32] + scalar.to_bytes(32, "little")).decode().rstrip("=")
    assert is_signature(other)
    assert not verify(ALICE.address, MESSAGE, other)


def test_a_key_of_small_order_signs_nothing() -> None:
    """The neutral point as a key would make one signature hold for every message; it is refused."""
    neutral = (1).to_bytes(32, "little")
    forged = base64.urlsafe_b64encode(neutral + bytes(32)).decode().rstrip("=")
    assert not verify(address_of(neutral), MESSAGE, forged)
    assert not verify(address_of(bytes(32)), MESSAGE, forged)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "U",
        "U" * 56,
        "é" * 56,
        ALICE.address.lower(),
        ALICE.address.capitalize(),
        ALICE.address[:-1],
        ALICE.address + "A",
        ALICE.address + "\n",
        ALICE.address + "=",
        " " + ALICE.address,
        ALICE.address[:20] + "A" + ALICE.address[21:],
        ALICE.address[:20] + ALICE.address[21] + ALICE.address[20] + ALICE.address[22:],
        ALICE.seed_text(),
        *[with_prefix(prefix) for prefix in OTHER_KINDS.values()],
    ],
)
def test_what_is_no_user_address_is_refused(text: str) -> None:
    """Mistyped, cut, mixed-case and other NKeys are no addresses, and no signature holds for them."""
    assert not is_address(text)
    assert not is_account(text)
    assert not verify(text, MESSAGE, SIGNATURE)
    with pytest.raises(InvalidAddress) as caught:
        public_key_of(text)
    assert caught.value.hint


def test_the_checksum_finds_every_mistyped_character() -> None:
    """Each change of one character of an address is noticed."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    changed = [
        ALICE.address[:place] + character + ALICE.address[place + 1 :]
        for place in range(56)
        for character in alphabet
        if character != ALICE.address[place]
    ]
    assert [text for text in changed if is_account(text)] == []


def test_a_multi_signature_address_owns_but_does_not_sign() -> None:
    """An M… address with a right checksum can be paid; it is no key."""
    text = with_prefix(12)
    assert text[0] == "M"
    assert is_account(text)
    assert not is_address(text)
    assert not verify(text, MESSAGE, SIGNATURE)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length: int) -> None:
    """A key is made of exactly 32 bytes."""
    with pytest.raises(InvalidKey, match=f"{length} bytes instead of 32"):
        Key(bytes(length))


def seed_of_kind(prefix: int) -> str:
    """An NKey seed of another kind, with a right checksum."""
    text: bytes = nkeys.encode_seed(bytes(32), prefix << 3)
    return text.decode()


SEED = ALICE.seed_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SU",
        "é" * 58,
        ALICE.address,
        SEED.lower(),
        SEED[:-1],
        SEED + "A",
        SEED[:-1] + ("B" if SEED[-1] != "B" else "C"),
        SEED[:30] + ("A" if SEED[30] != "A" else "B") + SEED[31:],
        *[seed_of_kind(prefix) for prefix in (0, 2, 13, 14)],
    ],
)
def test_what_is_no_user_seed_is_refused(text: str) -> None:
    """Seeds of accounts, operators, servers and clusters, and mistyped ones, are refused with a hint."""
    with pytest.raises(InvalidKey) as caught:
        Key.from_seed_text(text)
    assert caught.value.hint
    if text:
        assert text not in str(caught.value)


def test_white_space_around_a_seed_is_allowed() -> None:
    """A seed file ends with a line feed."""
    assert Key.from_seed_text(f"  {SEED}\n").address == ALICE.address


def test_a_key_does_not_print_its_secret() -> None:
    """What a log may show of a key is its address."""
    assert repr(ALICE) == f"Key({ALICE.address})"
    assert SEED not in repr(ALICE)


def test_two_keys_have_two_addresses() -> None:
    """Different seeds give different addresses."""
    assert ALICE.address != BOB.address
