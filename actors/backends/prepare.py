"""Compiles what a device needs before jobs ask for it: in their jail there is no compiler.

    python -m actors.backends.prepare [UUID]

A process of its own, since CUDA keeps memory of the device as long as the process lives that began it.
"""

import subprocess
import sys

from actors import jail
from actors.backends.build import cache_directory, load
from actors.backends.pycuda import PyCudaGpu
from actors.backends.recipes import files, fitting, recipe
from events.errors import AssayError, DeviceUnavailable


def prepare(device: str = "") -> None:
    """Have all kernels for the GPU of this UUID (without it, the first one) compiled. Takes a minute the first time.

    Raises `DeviceUnavailable`.
    """
    done = subprocess.run(
        [sys.executable, "-m", "actors.backends.prepare", device], capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise DeviceUnavailable("the GPU cannot be used", why=words[-1], hint="`assay doctor` says what is missing.")


def main(device: str) -> int:
    """Load every kernel that the device can run; the exit code. Says on stderr what went wrong, in one line."""
    try:
        gpu = PyCudaGpu(device or None)
        capability = gpu.properties.capability
        gpu.close()
        # What only the user's cache has, no job would find: a jail shows no home directory.
        shown = jail.shows if jail.shows(cache_directory()) else None
        for file in files():
            if fitting(recipe(file).architectures, capability):
                load(file, capability, shown=shown)
    except AssayError as error:
        print(error, file=sys.stderr)  # noqa: T201  the caller reads it
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2] or ("",)))
