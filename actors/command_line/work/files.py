"""Files that a job is given: their digests, and what is in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.errors import BadInput
from schemas.services import Work, service_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def digest_of(file: Path) -> str:
    """The name under which the file becomes a blob. Raises `OSError`."""
    from hashlib import file_digest

    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def size_of(file: Path) -> int:
    """Bytes of the file. Raises `OSError`, and `BadInput` where there are none."""
    size = file.stat().st_size
    if not size:
        raise BadInput(f"{file} is empty", hint="Name a file with something in it.")
    return size


def array_in(file: Path, dimensions: int) -> "npt.NDArray[np.generic]":
    """What a .npy file says of itself: type and shape; the elements stay in the file. Raises `BadInput`, `OSError`."""
    import numpy as np

    from actors.services.npy import MAX_HEADER, MAX_PREFIX, read_literal

    try:
        with file.open("rb") as opened:
            read_literal(opened.read(MAX_PREFIX + MAX_HEADER))
        array: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    except (BadInput, ValueError, EOFError) as error:
        why = error.why if isinstance(error, BadInput) else str(error)
        hint = "Write it with numpy.save."
        raise BadInput(f"{file} is no .npy file that can be read", why=why, hint=hint) from error
    if not isinstance(array, np.ndarray) or array.ndim != dimensions:
        shape, wanted = ("vector", "1 dimension") if dimensions == 1 else ("table of rows and columns", "2 dimensions")
        raise BadInput(f"{file} holds no {shape}", hint=f"Give its array {wanted} before numpy.save.")
    return array


def check_files(work: Work, files: Mapping[str, Path]) -> None:
    """Raises `BadInput` where a miner would turn the files down: the fee would be spent, and the reason would be lost.

    ``files`` are by their digests. Raises `OSError` as well.
    """
    if not files:
        return
    from actors.services.registry import service_for

    try:
        service_for(work).check_inputs(work, files)
    except BadInput as error:
        names = " and ".join(map(str, files.values()))
        why = error.why if len(files) == 1 else f"{error.what}: {error.why}"
        service = service_of(work)
        hint = f"{error.hint} docs/services/{service}.md says what the files are."
        raise BadInput(f"{service} cannot work on {names}", why=why, hint=hint.strip(), **error.data) from error
