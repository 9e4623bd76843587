"""Wallets at rest: a directory of encrypted wallet files, and plain NKey seed files.

The directory has mode 0700 and its files 0600; others' rights on either are refused, not mended, since the harm may be
done. The format of the files is that of `actors.wallet_file`, which also says what of a secret cannot be wiped. A file
`SU…` as any NKey tool writes it is a wallet too, without a password: see `load_seed_file`. Its content is wiped after
use; the text and the key made of it are immutable, and are not.

All functions block; a derivation takes about a tenth of a second. Call them in a thread where others wait.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from actors.keystore_errors import (
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
from actors.wallet_file import KEY_BYTES, LARGEST_FILE, DerivationCost, WalletFile, decode, seal, unseal
from events.errors import InvalidKey
from events.keys import Key

SHORTEST_PASSWORD: Final = 12
WALLET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SEED_LINE: Final = re.compile(rb"^[ \t]*(SU[A-Z2-7]{56})[ \t\r]*$", re.MULTILINE)


class Wallet(Struct, frozen=True, kw_only=True):
    """What can be known of a wallet without its password. Nothing here is authentic before `unlock` has succeeded."""

    name: str
    address: str
    created_ms: int


class Listing(Struct, frozen=True, kw_only=True):
    """The wallets of a keystore, by name, and what is wrong with the files that cannot be listed."""

    wallets: tuple[Wallet, ...]
    faults: tuple[KeystoreError, ...]


class Keystore:
    """The wallets in one directory, which is made when the first of them is.

    Every method may raise InsecurePermissions, and KeystoreUnavailable when the operating system refuses.
    """

    def __init__(self, directory: Path, cost: DerivationCost | None = None) -> None:
        """`cost` is that of files written from now on; each file remembers its own."""
        self._directory = directory
        self._cost = DerivationCost() if cost is None else cost

    def create(self, name: str, password: str, now_ms: int) -> Wallet:
        """Make a wallet with a new random key. Raises WalletExists, WeakPassword, InvalidWalletName."""
        return self._store(name, Key(secrets.token_bytes(KEY_BYTES)), password, now_ms)

    def import_seed(self, name: str, seed: str, password: str, now_ms: int) -> Wallet:
        """Make a wallet of a key that exists, given as `SU…`. Raises as `create` does, and InvalidKey."""
        return self._store(name, Key.from_seed_text(seed), password, now_ms)

    def wallets(self) -> Listing:
        """All wallets by name. A file that is damaged or readable by others does not hide the rest: it is a fault."""
        wallets: list[Wallet] = []
        faults: list[KeystoreError] = []
        for name in self._names():
            try:
                label = self._read(name).label
            except KeystoreError as fault:
                faults.append(fault)
            else:
                wallets.append(Wallet(name=name, address=label.address, created_ms=label.created_ms))
        return Listing(wallets=tuple(wallets), faults=tuple(faults))

    def unlock(self, name: str, password: str) -> Key:
        """The key that signs for the wallet. Raises WalletNotFound, BadPassword, CorruptKeystore, InvalidWalletName."""
        return unseal(self._read(name), password, self._path(name))

    def export_seed(self, name: str, password: str) -> str:
        """The seed as `SU…`, which any NKey tool reads. Raises as `unlock` does."""
        return self.unlock(name, password).seed_text()

    def change_password(self, name: str, old: str, new: str) -> None:
        """Encrypt anew with another password, salt and nonce. A crash leaves the old file or the new one.

        Copies of the old file still open with the old password. Raises WeakPassword, and as `unlock` does.
        """
        check_password(new)
        path = self._path(name)
        file = self._read(name)
        content = seal(unseal(file, old, path), name, new, file.label.created_ms, self._cost, path)
        with _translated(path):
            replace_private_file(path, content)

    def _path(self, name: str) -> Path:
        # The name becomes a file's name: this is what keeps it inside the directory.
        if WALLET_NAME.fullmatch(name) is None:
            raise InvalidWalletName(name)
        return self._directory / f"{name}.json"

    def _names(self) -> list[str]:
        with _translated(self._directory):
            if not self._directory.exists():
                return []
            check_private_directory(self._directory)
            files = [path for path in self._directory.iterdir() if path.suffix == ".json"]
            return sorted(path.stem for path in files if WALLET_NAME.fullmatch(path.stem) is not None)

    def _store(self, name: str, key: Key, password: str, now_ms: int) -> Wallet:
        path = self._path(name)
        check_password(password)
        with _translated(path):
            make_private_directory(self._directory)
            if path.exists():  # said before the costly derivation; the writing makes sure
                raise WalletExists(path)
            create_private_file(path, seal(key, name, password, now_ms, self._cost, path))
        return Wallet(name=name, address=key.address, created_ms=now_ms)

    def _read(self, name: str) -> WalletFile:
        path = self._path(name)
        with _translated(path), _not_found(path):
            check_private_directory(self._directory)
            content = read_private_file(path, LARGEST_FILE)
        file = decode(content, path)
        if file.label.name != name:
            raise CorruptKeystore(path, f"it is the wallet {file.label.name!r}, so the file was renamed or exchanged")
        return file


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
    with _translated(path), _not_found(path, of_seed=True):
        content = read_private_file(path, LARGEST_FILE)
    try:
        found = SEED_LINE.search(content)
        if found is None:
            raise InvalidKey(
                f"{path} holds no user seed",
                why="no line of it is SU and 56 more characters",
                hint="Make one with `assay wallet new-seed`, or export that of a wallet.",
            )
        return Key.from_seed_text(found[1].decode())
    finally:
        wipe(content)


def write_seed_file(path: Path, key: Key) -> None:
    """Write the seed as a line `SU…`, not encrypted, mode 0600. Raises WalletExists when the file is there."""
    line = bytearray(key.seed_text().encode() + b"\n")
    try:
        with _translated(path):
            create_private_file(path, line)
    finally:
        wipe(line)


def wipe(secret: bytearray) -> None:
    """Overwrite a secret in place. Copies that were made of it stay."""
    secret[:] = bytes(len(secret))


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionsTooOpen as error:
        raise InsecurePermissions(error.path, error.mode) from error
    except FileExistsError as error:
        raise WalletExists(path) from error
    except OSError as error:
        raise KeystoreUnavailable(path, error) from error


@contextmanager
def _not_found(path: Path, *, of_seed: bool = False) -> Iterator[None]:
    # For reading only: where a file is written, a missing directory is no missing wallet.
    try:
        yield
    except FileNotFoundError as error:
        raise WalletNotFound(path, of_seed=of_seed) from error
