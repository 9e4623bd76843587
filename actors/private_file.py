"""Files that only their owner may read: written whole or not at all, refused when others could read them.

A file appears under its name only after its bytes have reached the disk, and the name itself is then made durable by
syncing the directory. A process killed at any moment leaves the old file, the new file, or neither, and never a part of
one; at worst a hidden temporary file of mode 0600 stays behind.

The functions raise `OSError` as the operating system gave it; `PermissionsTooOpen` is theirs alone.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO


class PermissionsTooOpen(Exception):  # noqa: N818  a fact about the file; the caller names the error
    """Group or others have some right on the path. `mode` holds the permission bits."""

    def __init__(self, path: Path, mode: int) -> None:
        super().__init__(f"{path} has mode {mode:04o}")
        self.path = path
        self.mode = mode


def make_private_directory(path: Path) -> None:
    """Create the directory with mode 0700, and its parents as the umask says; refuse one that others can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private_directory(path)


def check_private_directory(path: Path) -> None:
    """Refuse a directory where others could list, add or exchange files."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & OTHERS:
        raise PermissionsTooOpen(path, mode)


def read_private_file(path: Path, limit: int) -> bytes:
    """Read at most `limit` + 1 bytes, so that a longer file shows itself without being read.

    The check of the mode and the reading use one descriptor: the file cannot be exchanged in between. A pipe or a
    device is refused as not being a file, without waiting for it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor, not a path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & OTHERS:
            raise PermissionsTooOpen(path, mode)
        return file.read(limit + 1)


def create_private_file(path: Path, content: bytes | bytearray) -> None:
    """Write a new file of mode 0600. Raises FileExistsError, and changes nothing, when the name is taken."""
    # A hard link is the one way to give a finished file a name that fails when the name exists.
    _write(path, content, lambda temporary: path.hardlink_to(temporary))


def replace_private_file(path: Path, content: bytes | bytearray) -> None:
    """Exchange the file for one of mode 0600 with this content, in one step."""
    _write(path, content, lambda temporary: temporary.replace(path))


def _write(path: Path, content: bytes | bytearray, publish: Callable[[Path], object]) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)  # mode 0600
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, not a path
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        publish(temporary)
    finally:
        with contextlib.suppress(FileNotFoundError):  # a replacement has taken the temporary name away
            temporary.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
