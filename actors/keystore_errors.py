"""What can be wrong with a wallet.

AssayError
└── KeystoreError
    ├── WalletNotFound       no file of that name
    ├── WalletExists         a file of that name is there, and nothing is overwritten
    ├── InvalidWalletName    the name cannot be that of a file
    ├── WeakPassword         says all that is missing
    ├── BadPassword          does not open the file; indistinguishable from a file that was altered
    ├── CorruptKeystore      the file is not a wallet file: cut, damaged, renamed, or of another version
    ├── InsecurePermissions  others can read or exchange the file
    └── KeystoreUnavailable  the operating system refused
"""

from pathlib import Path

from events.errors import AssayError, BadInput, NotAllowed, NotFound


class KeystoreError(AssayError):
    """Base. The path of the file or directory, where there is one, is in ``data["path"]``."""

    code = "KEYSTORE_ERROR"


class WalletNotFound(KeystoreError, NotFound):
    code = "WALLET_NOT_FOUND"

    def __init__(self, path: Path, *, of_seed: bool = False) -> None:
        super().__init__(
            "the seed file does not exist" if of_seed else "the wallet does not exist",
            why=f"there is no file {path}",
            hint=f"Name another, or make it with `assay wallet new-seed {path}`."
            if of_seed
            else "See which there are with `assay wallet list`.",
            path=str(path),
        )


class WalletExists(KeystoreError, BadInput):
    code = "WALLET_EXISTS"

    def __init__(self, path: Path) -> None:
        super().__init__(
            "the wallet exists already",
            why=f"{path} is there, and a wallet is never overwritten",
            hint="Choose another name.",
            path=str(path),
        )


class InvalidWalletName(KeystoreError, BadInput):
    code = "INVALID_WALLET_NAME"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name[:64]!r} cannot be the name of a wallet",
            why="the name becomes the name of a file",
            hint="Use 1 to 63 of a-z, 0-9, dot, dash and underscore; begin with a letter or a digit.",
            name=name,
        )


class WeakPassword(KeystoreError, BadInput):
    """``missing`` lists every rule that the password does not keep."""

    code = "WEAK_PASSWORD"

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(
            "the password is too weak",
            why=f"it lacks {', '.join(missing)}",
            hint="Use at least 12 characters with a capital, a small letter, a digit and a symbol.",
            missing=missing,
        )
        self.missing = missing


class BadPassword(KeystoreError, NotAllowed):
    code = "BAD_PASSWORD"

    def __init__(self, path: Path) -> None:
        super().__init__(
            "the wallet stays locked",
            why=f"the password is wrong, or {path} was altered; the encryption cannot tell which",
            hint="Type it again; if you are sure of it, take the file from a backup.",
            path=str(path),
        )


class CorruptKeystore(KeystoreError, BadInput):
    code = "CORRUPT_KEYSTORE"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} cannot be read as a wallet",
            why=why,
            hint="Take the file from a backup, or import the seed again under another name.",
            path=str(path),
        )


class InsecurePermissions(KeystoreError, NotAllowed):
    """``mode`` holds the permission bits that were found."""

    code = "INSECURE_PERMISSIONS"

    def __init__(self, path: Path, mode: int) -> None:
        wanted = "700" if path.is_dir() else "600"
        super().__init__(
            f"{path} is not private",
            why=f"its mode is {mode:03o}, so others than its owner have rights on it",
            hint=f"chmod {wanted} {path}; if others may have read it, move the funds to a new wallet.",
            path=str(path),
            mode=mode,
        )
        self.mode = mode


class KeystoreUnavailable(KeystoreError):
    code = "KEYSTORE_UNAVAILABLE"

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"{path} cannot be used",
            why=error.strerror or str(error),
            hint="Check that the directory exists, is yours, and has space.",
            path=str(path),
        )
