"""Files that only their owner may read: written whole or not at all, refused when others could read them.

A file appears under its name only after its bytes have reached the disk, and the name itself is then made durable by
syncing the directory. A process killed at any moment leaves the old file, the new file, or neither, and never a part of
one; at worst a hidden temporary file of mode 0600 stays behind.

The functions raise `OSError` as the operating system gave it; `PermissionsTooOpen` is theirs alone.
"""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO


class PermissionsTooOpen(Exception):
    """Group or others have some right on the path. `mode` holds the permission bits."""

    def __init__(self, path: Path, mode: int) -> None:
        super().__init__(f"{path} has mode {mode:04o}")
        self.path = path
        self.mode = mode


def make_private_directory(path: Path) -> None:
    """Create the directory with mode 0700, and its parents as the umask says; refuse one that others can enter."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private_directory(path)


def check_private_directory(path: Path) -> None:
    """Refuse a directory where others could list, add or exchange files."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & OTHERS:
        raise PermissionsTooOpen(path, mode)


def read_private_file(path: Path, limit: int) -> bytearray:
    """Read at most `limit` + 1 bytes, so that a longer file shows itself without being read; the caller may wipe them.

    The check of the mode and the reading use one descriptor: the file cannot be exchanged in between. A pipe or a
    device is refused as not being a file, without waiting for it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & OTHERS:
            raise PermissionsTooOpen(path, mode)
        content = bytearray(limit + 1)
        filled = 0
        while filled <= limit and (count := os.readv(descriptor, [memoryview(content)[filled:]])):
            filled += count
        del content[filled:]
        return content
    finally:
        os.close(descriptor)


def create_private_file(path: Path, content: bytes | bytearray) -> None:
    """Write a new file of mode 0600. Raises FileExistsError, and changes nothing, when the name is taken."""
    # A hard link is the one way to give a finished file a name that fails when the name exists.
    _write(path, content, path.hardlink_to)


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
