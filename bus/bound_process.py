"""A child process that does not outlive its parent, however the parent ends.

On Linux the kernel sees to it (``PR_SET_PDEATHSIG``, asked for by a small launcher, because code between fork and exec
is not safe in a process with threads). Elsewhere a watcher process holds the reading end of a pipe, which ends when the
parent does.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None, use_errno=True).prctl(1, int(sys.argv[2]), 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""
_WATCHER = """
import os, sys
if sys.stdin.buffer.read() == b"":
    os.kill(int(sys.argv[1]), int(sys.argv[2]))
"""
_ISOLATED = ("-I", "-S", "-c")


class BoundProcess:
    """``command`` starts with a path. The parent is the thread that makes this object.

    Output and errors go to the file ``output``, or nowhere. ``environment`` None: that of the parent.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        output: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        watcher: bool = not sys.platform.startswith("linux"),
    ) -> None:
        ending = str(int(signal.SIGTERM))
        self._watcher: subprocess.Popen[bytes] | None = None
        if watcher:
            self._process = _detached(command, output, environment)
            watch = [sys.executable, *_ISOLATED, _WATCHER, str(self._process.pid), ending]
            self._watcher = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
        else:
            launch = [sys.executable, *_ISOLATED, _LAUNCHER, str(os.getpid()), ending, *command]
            self._process = _detached(launch, output, environment)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when one ended it."""
        return self._process.poll()

    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Does nothing when the process has ended."""
        self._process.send_signal(number)

    def released(self) -> None:
        """To be called when the process has ended: the watcher goes too, without a signal to a stranger."""
        if self._watcher is not None:
            self._watcher.communicate(b"ended")
            self._watcher = None


def _detached(
    command: Sequence[str], output: IO[bytes] | None, environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C at a terminal reaches only the parent, which ends it in order."""
    target = subprocess.DEVNULL if output is None else output
    return subprocess.Popen(
        command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=target, stderr=target, env=environment
    )
