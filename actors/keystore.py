"""Wallets at rest: one encrypted file per wallet, and plain NKey seed files.

A wallet file is JSON of mode 0600 in a directory of mode 0700. It holds the 32-byte Ed25519 seed of an address, encrypted by
XChaCha20-Poly1305 (24-byte nonce) under a 32-byte key that Argon2id derives from the password and a 16-byte salt. The
associated data binds everything else in the file: version, name, address, time and the parameters of the derivation. So a file
that was renamed, or in which any of this was changed, does not open. Argon2id runs 3 passes over 64 MiB; libsodium, which
computes it, knows one lane only, so the parallelism is always 1.

A file `SU…` as any NKey tool writes it is a wallet too, without a password: see `load_seed_file`.

**Wiping.** What this module assembles itself, the text of a seed, is a bytearray, and `wipe` clears it. What cannot be wiped
from Python: the password (an immutable string, of which libsodium's binding takes an immutable copy), the derived key and the
raw seed (the binding gives and takes immutable bytes), and the key that signs. They live until their last reference is dropped
and their memory is used again; swap and core dumps are the operating system's to prevent.

All functions block; a derivation takes about a tenth of a second. Call them in a thread where others wait.
"""

import re
import secrets
import unicodedata
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import nacl.bindings
import nacl.exceptions
import nacl.pwhash.argon2id
from msgspec import Meta, Struct

from actors.keystore_errors import (
    BadPassword,
    CorruptKeystore,
    InsecurePermissions,
    InvalidWalletName,
    KeystoreError,
    KeystoreUnavailable,
    WalletExists,
    WalletNotFound,
    WeakPassword,
)
from actors.private_file import (
    PermissionsTooOpen,
    check_private_directory,
    create_private_file,
    make_private_directory,
    read_private_file,
    replace_private_file,
)
from events.canonical import canonical
from events.errors import InvalidKey
from events.keys import Key
from schemas.values import Address, TimeMs

VERSION: Final = 1
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
SEALED_BYTES: Final = 48  # the seed of 32 and the authenticator of 16
LARGEST_FILE: Final = 16_384
SHORTEST_PASSWORD: Final = 12
DOMAIN: Final = b"assay:keystore:v1\0"
WALLET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
WALLET_FILE: Final = re.compile(WALLET_NAME.pattern + r"\.json")
USER_SEED: Final = re.compile(rb"^[ \t]*(SU[A-Z2-7]{56})[ \t\r]*$", re.MULTILINE)


class DerivationCost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What Argon2id spends. The bounds hold for what a file asks for too: no file can make a reader use more than 1 GiB."""

    passes: Annotated[int, Meta(ge=1, le=16)] = 3
    memory_bytes: Annotated[int, Meta(ge=8_192, le=1_073_741_824)] = 67_108_864
    parallelism: Literal[1] = 1


class Derivation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the key comes from the password."""

    algorithm: Literal["argon2id"]
    cost: DerivationCost
    salt: Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]


class Label(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The open part of a wallet file; its canonical bytes are the associated data of the encryption."""

    name: Annotated[str, Meta(max_length=63)]
    address: Address
    created_ms: TimeMs
    cipher: Literal["xchacha20-poly1305"] = "xchacha20-poly1305"
    derivation: Derivation

    def associated_data(self) -> bytes:
        return DOMAIN + canonical(self)


class WalletFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wallet file, whole. Bytes are base64 in the JSON."""

    version: Literal[1]
    label: Label
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    sealed: Annotated[bytes, Meta(min_length=SEALED_BYTES, max_length=SEALED_BYTES)]


class Wallet(Struct, frozen=True, kw_only=True):
    """What can be known of a wallet without its password. Nothing here is authentic before `unlock` has succeeded."""

    name: str
    address: str
    created_ms: int


class Listing(Struct, frozen=True, kw_only=True):
    """The wallets of a keystore, by name, and what is wrong with the files that cannot be listed."""

    wallets: tuple[Wallet, ...]
    faults: tuple[KeystoreError, ...]


class _Version(Struct):
    version: int


_VERSION_DECODER: Final = msgspec.json.Decoder(_Version)
_DECODER: Final = msgspec.json.Decoder(WalletFile)


class Keystore:
    """The wallets in one directory, which is made when the first of them is."""

    def __init__(self, directory: Path, cost: DerivationCost | None = None) -> None:
        """`cost` is that of files written from now on; each file remembers its own."""
        self._directory = directory
        self._cost = DerivationCost() if cost is None else cost

    def create(self, name: str, password: str, now_ms: int) -> Wallet:
        """Make a wallet with a new random key. Raises WalletExists, WeakPassword, InvalidWalletName."""
        return self._store(name, secrets.token_bytes(KEY_BYTES), password, now_ms)

    def import_key(self, name: str, key: Key, password: str, now_ms: int) -> Wallet:
        """Make a wallet of a key that exists: one of `Key.from_seed_text` or `load_seed_file`. Raises as `create` does."""
        return self._store(name, key, password, now_ms)

    def wallets(self) -> Listing:
        """All wallets by name. A file that is damaged or readable by others does not hide the rest: it is a fault."""
        wallets: list[Wallet] = []
        faults: list[KeystoreError] = []
        for path in self._paths():
            try:
                label = self._read(path.stem).label
            except KeystoreError as fault:
                faults.append(fault)
            else:
                wallets.append(Wallet(name=label.name, address=label.address, created_ms=label.created_ms))
        return Listing(wallets=tuple(wallets), faults=tuple(faults))

    def unlock(self, name: str, password: str) -> Key:
        """The key that signs for the wallet. Raises WalletNotFound, BadPassword, CorruptKeystore, InsecurePermissions."""
        return Key(self._open(name, password)[1])

    def export_seed(self, name: str, password: str) -> bytearray:
        """The seed as `SU…`, which any NKey tool reads; `wipe` it after use. Raises as `unlock` does."""
        return _seed_of_raw(self._open(name, password)[1])

    def change_password(self, name: str, old: str, new: str) -> None:
        """Encrypt anew with another password, salt and nonce. A crash leaves the old file or the new one.

        Copies of the old file still open with the old password. Raises as `unlock` and `create` do.
        """
        check_password(new)
        label, raw = self._open(name, old)
        content = _seal(raw, name, label.created_ms, new, self._cost)
        try:
            replace_private_file(self._path(name), content)
        except OSError as error:
            raise KeystoreUnavailable(self._path(name), error) from error

    def _path(self, name: str) -> Path:
        # The name becomes a file's name: this is what keeps it inside the directory.
        if WALLET_NAME.fullmatch(name) is None:
            raise InvalidWalletName(name)
        return self._directory / f"{name}.json"

    def _paths(self) -> list[Path]:
        try:
            check_private_directory(self._directory)
            return sorted(path for path in self._directory.iterdir() if WALLET_FILE.fullmatch(path.name) is not None)
        except FileNotFoundError:
            return []
        except PermissionsTooOpen as error:
            raise InsecurePermissions(error.path, error.mode) from error
        except OSError as error:
            raise KeystoreUnavailable(self._directory, error) from error

    def _store(self, name: str, raw: bytes, password: str, now_ms: int) -> Wallet:
        path = self._path(name)
        check_password(password)
        try:
            make_private_directory(self._directory)
            if path.exists():
                raise WalletExists(path)  # before the costly derivation; the writing checks again
            create_private_file(path, _seal(raw, name, now_ms, password, self._cost))
        except PermissionsTooOpen as error:
            raise InsecurePermissions(error.path, error.mode) from error
        except FileExistsError as error:
            raise WalletExists(path) from error
        except OSError as error:
            raise KeystoreUnavailable(path, error) from error
        return Wallet(name=name, address=Key(raw).address, created_ms=now_ms)

    def _read(self, name: str) -> WalletFile:
        path = self._path(name)
        try:
            check_private_directory(self._directory)
            content = read_private_file(path, LARGEST_FILE)
        except FileNotFoundError as error:
            raise WalletNotFound(path) from error
        except PermissionsTooOpen as error:
            raise InsecurePermissions(error.path, error.mode) from error
        except OSError as error:
            raise KeystoreUnavailable(path, error) from error
        file = _decode(path, content)
        if file.label.name != name:
            raise CorruptKeystore(path, f"it belongs to the wallet {file.label.name!r}, so it was renamed or exchanged")
        return file

    def _open(self, name: str, password: str) -> tuple[Label, bytes]:
        file = self._read(name)
        key = _derive(password, file.label.derivation)
        try:
            raw = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                file.sealed, file.label.associated_data(), file.nonce, key
            )
        except nacl.exceptions.CryptoError as error:
            raise BadPassword(self._path(name)) from error
        if Key(raw).address != file.label.address:
            raise CorruptKeystore(self._path(name), "the key inside is not the key of the address outside")
        return file.label, raw


def check_password(password: str) -> None:
    """Raise WeakPassword with all that is missing: 12 characters, a capital, a small letter, a digit, a symbol.

    A symbol is whatever is neither letter nor digit, so a space is one.
    """
    rules = (
        ("12 characters", len(password) >= SHORTEST_PASSWORD),
        ("an upper-case letter", any(character.isupper() for character in password)),
        ("a lower-case letter", any(character.islower() for character in password)),
        ("a digit", any(character.isdigit() for character in password)),
        ("a symbol", any(not character.isalnum() for character in password)),
    )
    missing = tuple(name for name, kept in rules if not kept)
    if missing:
        raise WeakPassword(missing)


def load_seed_file(path: Path) -> Key:
    """The key in a plain seed file: a line `SU…`, alone or as NATS credentials decorate it.

    Raises WalletNotFound, InsecurePermissions, KeystoreUnavailable, InvalidKey.
    """
    try:
        content = read_private_file(path, LARGEST_FILE)
    except FileNotFoundError as error:
        raise WalletNotFound(path) from error
    except PermissionsTooOpen as error:
        raise InsecurePermissions(error.path, error.mode) from error
    except OSError as error:
        raise KeystoreUnavailable(path, error) from error
    return Key(_raw_of_seed(content, str(path)))


def write_seed_file(path: Path, seed: bytes | bytearray) -> None:
    """Write a seed `SU…` without encryption, mode 0600. Raises WalletExists when the file is there, and InvalidKey."""
    _raw_of_seed(seed, "the given text")
    line = bytearray(seed.strip() + b"\n")
    try:
        create_private_file(path, line)
    except FileExistsError as error:
        raise WalletExists(path) from error
    except OSError as error:
        raise KeystoreUnavailable(path, error) from error
    finally:
        wipe(line)


def wipe(secret: bytearray) -> None:
    """Overwrite a secret in place. Copies that were made of it stay."""
    for index in range(len(secret)):
        secret[index] = 0


def _derive(password: str, derivation: Derivation) -> bytes:
    # One password has several spellings in Unicode, and keyboards differ in which of them they produce.
    secret = unicodedata.normalize("NFKC", password).encode()
    return nacl.pwhash.argon2id.kdf(
        KEY_BYTES, secret, derivation.salt, opslimit=derivation.cost.passes, memlimit=derivation.cost.memory_bytes
    )


def _seal(raw: bytes, name: str, created_ms: int, password: str, cost: DerivationCost) -> bytes:
    derivation = Derivation(algorithm="argon2id", cost=cost, salt=secrets.token_bytes(SALT_BYTES))
    label = Label(name=name, address=Key(raw).address, created_ms=created_ms, derivation=derivation)
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        raw, label.associated_data(), nonce, _derive(password, derivation)
    )
    file = WalletFile(version=VERSION, label=label, nonce=nonce, sealed=sealed)
    return msgspec.json.format(canonical(file), indent=2) + b"\n"


def _decode(path: Path, content: bytes) -> WalletFile:
    if len(content) > LARGEST_FILE:
        raise CorruptKeystore(path, f"it is longer than {LARGEST_FILE} bytes")
    try:
        version = _VERSION_DECODER.decode(content).version
        if version != VERSION:
            raise CorruptKeystore(path, f"its version is {version}, and this program reads {VERSION}")
        return _DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptKeystore(path, str(error)) from error
