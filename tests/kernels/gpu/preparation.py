"""What `make gpu-check` needs of a machine, and how it gets PyCUDA."""

import ctypes
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from actors.backends.build import compiler

_DRIVER: Final = "libcuda.so.1"
_ROOT: Final = Path(__file__).resolve().parents[3]
# Memory there and back: more than a driver that only answers.
_REACH: Final = """
import numpy
from actors.backends.pycuda import PyCudaGpu
gpu = PyCudaGpu()
words = numpy.arange(1000)
assert (gpu.get(gpu.put(words), words.dtype, words.shape) == words).all(), "memory does not keep what is put into it"
gpu.close()
"""


class Missing(Exception):
    """What the machine lacks."""


def require_gpu() -> None:
    """Raises `Missing` unless NVIDIA's driver shows a device."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise Missing(f"no GPU: NVIDIA's driver is not installed ({error})") from error
    status, count = driver.cuInit(0), ctypes.c_int()
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status or count.value < 1:
        raise Missing(f"no GPU: the driver shows none (CUDA error {status})")


def require_nvcc() -> str:
    """Where nvcc is. Raises `Missing`."""
    found = compiler()
    if found is None:
        raise Missing("no nvcc: install the CUDA toolkit, or add its bin directory to PATH")
    return found


def require_pycuda(say: Callable[[str], None]) -> None:
    """Build PyCUDA for this Python where it is not there. Raises `Missing` where that fails.

    PyCUDA is a source distribution: it needs a C++ compiler, CUDA's headers, those of cuRAND (which come as a Python
    package), and the libraries to link with, under the names that a linker looks for. Where no registry can be reached,
    PIP_NO_INDEX and PIP_FIND_LINKS lead pip to a folder that holds PyCUDA's sources, nvidia-curand, what they need, and
    setuptools, wheel and numpy to build with.
    """
    if importlib.util.find_spec("pycuda") is not None:
        return
    toolkit = Path(require_nvcc()).resolve().parents[1]
    if not (toolkit / "include" / "cuda.h").exists():
        toolkit = Path("/usr/local/cuda")
    if not (toolkit / "include" / "cuda.h").exists():
        raise Missing("no cuda.h: install the headers of the CUDA toolkit beside nvcc")
    say("building PyCUDA (some minutes)")
    _pip("install", "nvidia-curand")
    headers, library = _curand()
    with TemporaryDirectory(prefix="assay-pycuda-") as folder:
        (Path(folder) / "libcuda.so").symlink_to(_loaded_from(_DRIVER))
        (Path(folder) / "libcurand.so").symlink_to(library)
        _pip(
            "install",
            "pycuda>=2026.1",
            CUDA_ROOT=str(toolkit),
            CPATH=f"{headers}:{toolkit / 'include'}",
            LIBRARY_PATH=f"{folder}:{toolkit / 'lib64'}",
        )
    importlib.invalidate_caches()


def require_device() -> None:
    """Raises `Missing` unless PyCUDA reaches a device: built for another driver, or without the rights, it does not.

    In a process of its own, which may crash, and which gives the device back.
    """
    done = subprocess.run([sys.executable, "-c", _REACH], capture_output=True, text=True, check=False, cwd=_ROOT)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Missing(f"PyCUDA cannot be used: {words[-1]}")


def _pip(*words: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *words]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-12:]
        raise Missing("no PyCUDA: " + " ".join(words) + " failed\n" + "\n".join(last))


def _curand() -> tuple[Path, Path]:
    """Headers and library of the package nvidia-curand."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for library in sorted(Path(folder).glob("*/lib/libcurand.so.*")):
            return library.parents[1] / "include", library
    raise Missing("no cuRAND: the package nvidia-curand holds no library")


def _loaded_from(name: str) -> Path:
    """The file behind a library that this process has loaded."""
    ctypes.CDLL(name)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.split(maxsplit=5)[-1]
        if Path(path).name.startswith("libcuda.so"):
            return Path(path)
    raise Missing(f"{name} was loaded from nowhere that can be found")
