"""What others take for the same work: cuBLAS for a product, CuPy for a sort."""

import ctypes
import glob
import importlib.util
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from actors.backends.pycuda import PyCudaGpu
from tests.kernels.gpu.timing import median_ms

_TOOLKITS: Final = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/*/lib", "/usr/lib/*-linux-gnu")
# From cublas_api.h and library_types.h.
_TRANSPOSED, _AS_IT_IS, _DEFAULT = 1, 0, -1
_FLOAT32, _FLOAT16, _INT8, _INT32 = 0, 2, 3, 10
_IN_FLOAT32, _IN_INT32 = 68, 72


class NoReference(Exception):
    """There is nothing to compare with: why."""


def cublas_path() -> Path:
    """Where cuBLAS is: as the Python package nvidia-cublas, or in the CUDA toolkit. Raises `NoReference`."""
    spec = importlib.util.find_spec("nvidia")
    packages = [f"{folder}/*/lib" for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in (*packages, *_TOOLKITS):
        for found in sorted(glob.glob(f"{folder}/libcublas.so*"), reverse=True):  # noqa: PTH207
            return Path(found)
    raise NoReference("no cuBLAS: neither the package nvidia-cublas nor one in the CUDA toolkit")


class Cublas:
    """cuBLAS in the context of a device. Raises `NoReference` where it cannot be used."""

    def __init__(self, gpu: PyCudaGpu, path: Path | None = None) -> None:
        self._gpu = gpu
        path = path or cublas_path()
        try:
            for other in path.parent.glob("libcublasLt.so*"):
                ctypes.CDLL(str(other), mode=ctypes.RTLD_GLOBAL)
            self._library: Any = ctypes.CDLL(str(path))
        except OSError as error:
            raise NoReference(f"cuBLAS cannot be loaded: {error}") from error
        self._handle = ctypes.c_void_p()
        # It works in the context that is current, and that is so within a measurement.
        gpu.elapsed_ms(lambda: self._check(self._library.cublasCreate_v2(ctypes.byref(self._handle))))

    def product_ms(self, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
        """How long the product of ``a`` and ``b`` takes: of int8 in int32, of float16 in float32.

        It gets rows of ``a`` and columns of ``b``, as our kernels do: the fastest order for tensor cores.
        """
        whole = a.dtype == np.int8
        rows, inner, columns = *a.shape, b.shape[1]
        left, right = self._gpu.put(np.ascontiguousarray(a)), self._gpu.put(np.ascontiguousarray(b.T))
        product = self._gpu.zeros(4 * rows * columns)
        scalar = ctypes.c_int32 if whole else ctypes.c_float
        one, zero = scalar(1), scalar(0)
        element, result = (_INT8, _INT32) if whole else (_FLOAT16, _FLOAT32)

        def multiply() -> None:
            status = self._library.cublasGemmEx(
                self._handle,
                _TRANSPOSED,
                _AS_IT_IS,
                *(rows, columns, inner),
                ctypes.byref(one),
                *(ctypes.c_void_p(int(left.allocation)), element, inner),
                *(ctypes.c_void_p(int(right.allocation)), element, inner),
                ctypes.byref(zero),
                *(ctypes.c_void_p(int(product.allocation)), result, rows),
                _IN_INT32 if whole else _IN_FLOAT32,
                _DEFAULT,
            )
            self._check(status)

        return median_ms(lambda: self._gpu.elapsed_ms(multiply))

    def _check(self, status: int) -> None:
        if status:
            raise NoReference(f"cuBLAS answers with status {status}")


def cupy_sort_ms(keys: npt.NDArray[Any]) -> float | None:
    """How long CuPy takes to sort the same keys; None where it is not installed."""
    try:
        import cupy
    except ImportError:
        return None
    given = cupy.asarray(keys)

    def sort_ms() -> float:
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        cupy.sort(given)
        end.record()
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(begin, end))

    return median_ms(sort_ms)
