"""The encrypted wallet file: its records, and how a key goes in and comes out.

The file is JSON. It holds the 32-byte Ed25519 seed of an address, encrypted by XChaCha20-Poly1305 (24-byte nonce)
under a 32-byte key that Argon2id derives from the password and a 16-byte salt. The associated data binds everything
else in the file: version, name, address, time and the parameters of the derivation. So a file that was renamed, or in
which any of this was changed, does not open. Argon2id runs 3 passes over 64 MiB; libsodium, which computes it, knows
one lane only, so the parallelism is always 1.

No secret here can be wiped from Python: the password is an immutable string, of which libsodium's binding takes an
immutable copy, and the binding gives and takes the derived key and the raw seed as immutable bytes. They live until
their last reference is dropped and their memory is used again; swap and core dumps are the operating system's to
prevent.
"""

import base64
import errno
import os
import secrets
import unicodedata
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import nacl.bindings
import nacl.exceptions
import nacl.pwhash.argon2id
from msgspec import Meta, Struct

from actors.keystore_errors import BadPassword, CorruptKeystore, KeystoreUnavailable
from events.canonical import canonical
from events.keys import Key
from schemas.values import Address, TimeMs

VERSION: Final = 1
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
SEALED_BYTES: Final = 48  # the seed of 32 and the authenticator of 16
LARGEST_FILE: Final = 16_384
DOMAIN: Final = b"assay:keystore:v1\0"


class DerivationCost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What Argon2id spends. The bounds hold for what a file asks for too: none makes its reader use above 512 MiB."""

    passes: Annotated[int, Meta(ge=1, le=16)] = 3
    memory_bytes: Annotated[int, Meta(ge=8_192, le=536_870_912)] = 67_108_864
    parallelism: Literal[1] = 1


class Derivation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the key comes from the password."""

    algorithm: Literal["argon2id"]
    cost: DerivationCost
    salt: Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]


class Label(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The open part of a wallet file; its canonical bytes are the associated data of the encryption."""

    name: Annotated[str, Meta(min_length=1, max_length=63)]
    address: Address
    created_ms: TimeMs
    cipher: Literal["xchacha20-poly1305"]
    derivation: Derivation

    def associated_data(self) -> bytes:
        return DOMAIN + canonical(self)


class WalletFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wallet file, whole. Bytes are base64 in the JSON."""

    version: Literal[1]
    label: Label
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    sealed: Annotated[bytes, Meta(min_length=SEALED_BYTES, max_length=SEALED_BYTES)]


class _Version(Struct):
    version: int


_VERSION_DECODER: Final = msgspec.json.Decoder(_Version)
_DECODER: Final = msgspec.json.Decoder(WalletFile)


def seal(key: Key, name: str, password: str, created_ms: int, cost: DerivationCost, path: Path) -> bytes:
    """The content of a new file for `path`. Raises KeystoreUnavailable when there is too little memory."""
    derivation = Derivation(algorithm="argon2id", cost=cost, salt=secrets.token_bytes(SALT_BYTES))
    label = Label(
        name=name, address=key.address, created_ms=created_ms, cipher="xchacha20-poly1305", derivation=derivation
    )
    nonce = secrets.token_bytes(NONCE_BYTES)
    seed = base64.b32decode(key.seed_text() + "======")[2:34]  # between the two prefix bytes and the checksum
    secret = _derive(password, derivation, path)
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(seed, label.associated_data(), nonce, secret)
    file = WalletFile(version=VERSION, label=label, nonce=nonce, sealed=sealed)
    content = msgspec.json.format(canonical(file), indent=2) + b"\n"
    # Records are checked when they are read. What could not be read again, a key lost, must not be written.
    if _DECODER.decode(content) != file:
        raise AssertionError("a wallet file does not read as it was written")
    return content


def unseal(file: WalletFile, password: str, path: Path) -> Key:
    """The key in the file at `path`. Raises BadPassword, CorruptKeystore, KeystoreUnavailable (too little memory)."""
    secret = _derive(password, file.label.derivation, path)
    try:
        seed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            file.sealed, file.label.associated_data(), file.nonce, secret
        )
    except nacl.exceptions.CryptoError as error:
        raise BadPassword(path) from error
    key = Key(seed)
    if key.address != file.label.address:
        raise CorruptKeystore(path, "the key inside is not the key of the address outside")
    return key


def decode(content: bytes | bytearray, path: Path) -> WalletFile:
    """Read a file's content, still sealed. Raises CorruptKeystore."""
    if len(content) > LARGEST_FILE:
        raise CorruptKeystore(path, f"it is longer than {LARGEST_FILE} bytes")
    try:
        version = _VERSION_DECODER.decode(content).version
        if version != VERSION:
            raise CorruptKeystore(path, f"its version is {version}, and this program reads {VERSION}")
        return _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptKeystore(path, str(error)) from error


def _derive(password: str, derivation: Derivation, path: Path) -> bytes:
    # One password has several spellings in Unicode, and keyboards differ in which of them they produce. A terminal may
    # deliver bytes that are no text; they arrive as surrogates, and are a password all the same.
    secret = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    cost = derivation.cost
    try:
        return nacl.pwhash.argon2id.kdf(
            KEY_BYTES, secret, derivation.salt, opslimit=cost.passes, memlimit=cost.memory_bytes
        )
    except nacl.exceptions.RuntimeError as error:  # libsodium could not have the memory
        raise KeystoreUnavailable(path, OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))) from error
