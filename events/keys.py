"""Addresses and keys: NATS NKeys (Ed25519), in the form that every NKey tool reads and writes.

An address is a prefix byte, the 32-byte public key and a CRC-16/XMODEM (little-endian), in base32 without padding. A
seed has two prefix bytes. Source: https://github.com/nats-io/nkeys (README and `crc16.go`).
"""

import base64
import binascii
import re
from functools import lru_cache

import nacl.bindings
import nacl.exceptions

from events.errors import InvalidAddress, InvalidKey

USER_PREFIX = 20 << 3
MULTISIG_PREFIX = 12 << 3
SEED_PREFIX = 18 << 3
# Five bits for each kind of key; the last three bits are always zero, so that a seed has one text.
_SEED_HEAD = bytes([SEED_PREFIX | USER_PREFIX >> 5, (USER_PREFIX & 31) << 3])

EVENT_DOMAIN = b"assay:event:v1\x00"
BLOCK_DOMAIN = b"assay:block:v1\x00"
VOTE_DOMAIN = b"assay:vote:v1\x00"
RECEIPT_DOMAIN = b"assay:receipt:v1\x00"

# Python's base64 skips foreign characters and takes two alphabets at once; a signature has exactly one text here.
_SIGNATURE_TEXT = re.compile(r"[A-Za-z0-9_-]{85}[AQgw]")


def _with_checksum(data: bytes) -> str:
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


def _without_checksum(text: str, length: int) -> bytes | None:
    """The ``length`` bytes before the checksum, or None where ``text`` is not exactly their encoding."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return None
    data = raw[:-2]
    return data if len(data) == length and _with_checksum(data) == text else None


def address_of(public_key: bytes) -> str:
    """The user address of a 32-byte Ed25519 public key."""
    return _with_checksum(bytes([USER_PREFIX]) + public_key)


@lru_cache(maxsize=65_536)
def public_key_of(address: str) -> bytes:
    """The 32-byte public key of a user address. Raises InvalidAddress."""
    data = _without_checksum(address, 33)
    if data is None or data[0] != USER_PREFIX:
        raise InvalidAddress(
            f"{address[:64]!r} is not an address",
            why="it is not a user NKey with a right checksum",
            hint="An address has 56 characters and starts with U; copy it whole.",
        )
    return data[1:]


def is_address(text: str) -> bool:
    """Whether ``text`` is a user address with a right checksum."""
    try:
        public_key_of(text)
    except InvalidAddress:
        return False
    return True


@lru_cache(maxsize=65_536)
def is_account(text: str) -> bool:
    """Whether ``text`` can own coins: a user (U…) or multi-signature (M…) address with a right checksum."""
    data = _without_checksum(text, 33)
    return data is not None and data[0] in {USER_PREFIX, MULTISIG_PREFIX}


def is_signature(text: str) -> bool:
    """Whether ``text`` is the one spelling of some 64 bytes: 86 characters of base64url without left-over bits."""
    return _SIGNATURE_TEXT.fullmatch(text) is not None


class Key:
    """An Ed25519 key pair. ``address`` is public; the seed never leaves through ``repr``."""

    def __init__(self, seed: bytes) -> None:
        """Takes the 32 bytes of an Ed25519 seed. Raises InvalidKey."""
        if len(seed) != 32:
            raise InvalidKey(
                "not a seed", why=f"{len(seed)} bytes instead of 32", hint="Use the 32 bytes of an Ed25519 seed."
            )
        self._public, self._secret = nacl.bindings.crypto_sign_seed_keypair(bytes(seed))
        self.address = address_of(self._public)

    @classmethod
    def from_seed_text(cls, text: str) -> "Key":
        """From an NKey user seed (``SU…``, 58 characters), white space around it allowed. Raises InvalidKey."""
        text = text.strip()
        data = _without_checksum(text, 34)
        if data is None or data[:2] != _SEED_HEAD:
            raise InvalidKey(
                "not an NKey user seed",
                why="prefix or checksum is wrong",
                hint="A seed has 58 characters and starts with SU.",
            )
        return cls(data[2:])

    def seed_text(self) -> str:
        """The NKey user seed (``SU…``): secret."""
        return _with_checksum(_SEED_HEAD + self._secret[:32])

    def sign(self, message: bytes) -> str:
        """The signature as 86 characters of base64url."""
        signed: bytes = nacl.bindings.crypto_sign(message, self._secret)
        return base64.urlsafe_b64encode(signed[:64]).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"Key({self.address})"


def verify(address: str, message: bytes, signature: str) -> bool:
    """Whether ``signature`` (86 characters of base64url) is that of ``address`` over ``message``.

    Nothing but the text that `Key.sign` gives is true: no other alphabet, no foreign characters, no other length.
    """
    if not is_signature(signature):
        return False
    try:
        raw = base64.urlsafe_b64decode(signature + "==")
        nacl.bindings.crypto_sign_open(raw + message, public_key_of(address))
    except (nacl.exceptions.BadSignatureError, InvalidAddress):
        return False
    return True
