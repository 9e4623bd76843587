"""The process in which a GPU's libraries are asked: ``python -m actors.attestation.child nvml|cuda|watch [PROCESS]``.

It writes one JSON document to standard output: what the library said, or why it said nothing, and the files that were
mapped while it did. When it crashes or hangs, that is the answer (`actors.attestation.probe`).
"""

import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

# A device or a library that says more than this is not an honest one.
MOST_DEVICES: Final = 256
READY: Final = b"ready\n"
LOOK_EVERY_S: Final = 0.1


class Said(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the child found out. ``silence`` is why the library did not answer."""

    devices: tuple[dict[str, Any], ...] = ()
    silence: str = ""
    mapped: tuple[str, ...] = ()


def mapped_files(maps: str) -> tuple[str, ...]:
    """The files in the text of ``/proc/self/maps``, sorted."""
    paths = {fields[5].strip() for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6}
    return tuple(sorted(path for path in paths if path.startswith("/")))


def _nvml() -> Sequence[Any]:
    from actors.attestation import nvml

    return nvml.devices()


def _cuda() -> Sequence[Any]:
    from actors.attestation import cuda

    return cuda.devices()


def _watch(process: str) -> Sequence[Any]:
    """After the first look one line says so; the last one follows when standard input is closed."""
    from actors.attestation import nvml

    said = False

    def go_on() -> bool:
        nonlocal said
        if not said:
            sys.stdout.buffer.write(READY)
            sys.stdout.buffer.flush()
            said = True
        readable, _, _ = select.select([sys.stdin], [], [], LOOK_EVERY_S)
        return not readable

    return nvml.watch(int(process), go_on)


_QUESTIONS: Final[dict[str, Callable[..., Sequence[Any]]]] = {"nvml": _nvml, "cuda": _cuda, "watch": _watch}


def main(arguments: Sequence[str]) -> int:
    """Ask, and write down what was said."""
    import pynvml

    from actors.attestation.cuda import CudaSilent

    question, *rest = arguments
    said: Sequence[Any] = ()
    silence = ""
    try:
        said = _QUESTIONS[question](*rest)[:MOST_DEVICES]
    except (pynvml.NVMLError, CudaSilent, OSError) as error:
        silence = str(error) or type(error).__name__
    mapped = mapped_files(Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"))
    sys.stdout.buffer.write(msgspec.json.encode(Said(devices=tuple(said), silence=silence, mapped=mapped)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
