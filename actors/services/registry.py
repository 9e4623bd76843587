"""All services, by the record of their work."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from actors.services import (
    histogram,
    image_convolve,
    kernel_custom,
    kmeans,
    mandelbrot,
    matmul,
    matmul_fp16,
    nbody,
    option,
    sha256_tree,
    sort,
)
from actors.services.base import Service, Verdict
from schemas.services import (
    Histogram,
    ImageConvolve,
    KernelCustom,
    KMeans,
    Mandelbrot,
    MatmulFp16Exact,
    MatmulInt8,
    MonteCarloOption,
    NBody,
    ServiceWork,
    Sha256Tree,
    Sort,
)
from schemas.values import Digest

SERVICES: Final[Mapping[type[ServiceWork], Service]] = MappingProxyType(
    {
        MatmulInt8: matmul,
        MatmulFp16Exact: matmul_fp16,
        Sha256Tree: sha256_tree,
        Histogram: histogram,
        Sort: sort,
        MonteCarloOption: option,
        NBody: nbody,
        ImageConvolve: image_convolve,
        Mandelbrot: mandelbrot,
        KMeans: kmeans,
        KernelCustom: kernel_custom,
    }
)

# What a result says, for people, where that is not the file itself: of the work, its blobs, and the result.
FINDINGS: Final[Mapping[type[ServiceWork], Callable[[Any, Mapping[Digest, Path], Path], dict[str, str]]]] = (
    MappingProxyType({MonteCarloOption: option.findings, NBody: nbody.findings})
)


def service_for(work: ServiceWork) -> Service:
    """The service that does the work."""
    return SERVICES[type(work)]


def findings(work: ServiceWork, blobs: Mapping[Digest, Path], result: Path) -> dict[str, str]:
    """What the result says, each by its label; nothing for most services. Raises `BadInput`."""
    found = FINDINGS.get(type(work))
    return {} if found is None else found(work, blobs, result)


def verify(
    work: ServiceWork, blobs: Mapping[Digest, Path], result: Path | bytes, root: Digest, seed: Digest, threads: int = 0
) -> Verdict:
    """See `actors.services.base.Service.verify`."""
    return service_for(work).verify(work, blobs, result, root, seed, threads)
