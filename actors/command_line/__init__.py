"""The command line ``assay``.

`main` is the last frame of the process: whatever reaches it becomes a message and an exit code. Nothing heavy is
imported before it is known what is wanted, so that ``assay --help`` answers at once.
"""

import io
import os
import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0 ok, 1 job failed, 2 usage, 3 not found, 4 not allowed,
    5 network, 6 time-out, 7 verification failed, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    # Read when NumPy is loaded. Our own threads share out its work; threads of the BLAS would only get in their way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not words or words in (["--help"], ["-h"]):
        from actors.command_line.verbs import overview

        sys.stdout.write(overview())
        return 0
    try:
        from actors.command_line.application import run

        return run(words)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  the last frame: every error becomes a message and an exit code
        from actors.command_line import problems

        return problems.report(error, words)


def _open_streams() -> None:
    """What is written is UTF-8, whatever the locale. A stream that the shell has closed is one to nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  as long as we live
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
