"""What ``assay doctor`` looks at on the way to a GPU: the kernel's module, NVML, CUDA, what stands before them, the
backends. Each is asked, never guessed; a host without a GPU is well, for the CPU backend works without."""

import importlib.util
import os
from typing import Final, Literal

from actors.attestation import files
from actors.attestation.probe import HostProbe, Places, probe
from actors.backends import build
from actors.command_line.doctor_network import Finding

_NO_GPU: Final = "The CPU backend works without. For a GPU install NVIDIA's driver, and in a container use its runtime."
_NOT_OURS: Final = (
    "To mine with one, load NVIDIA's driver for it, or hand it to this container or virtual machine. "
    "Otherwise nothing has to be mended."
)


def gpu_findings(places: Places | None = None) -> list[Finding]:
    """The lines from the driver to the backends."""
    places = places or Places()
    found = probe(places)
    sources = [_source(found, "nvml"), _source(found, "cuda")]
    return [_driver(places), *sources, *_unclaimed(found), *_covers(found), *_backends(found)]


def _driver(places: Places) -> Finding:
    version = files.module_version(places.sys)
    if version is None:
        return Finding(check="gpu driver", result="ok", finding="NVIDIA's kernel module is not loaded", fix=_NO_GPU)
    return Finding(check="gpu driver", result="ok", finding=version)


def _source(found: HostProbe, source: str) -> Finding:
    """A library that is silent is a fault only where a card is this host's."""
    state = next(state for state in found.sources if state.source == source)
    if state.answered and state.devices:
        reports = [getattr(gpu, source) for gpu in found.gpus]
        names = ", ".join(str(report.name) for report in reports if hasattr(report, "name"))
        return Finding(check=source, result="ok", finding=f"{state.devices} devices: {names}")
    finding = f"silent: {state.detail}" if state.detail else "no device"
    if not found.gpus:
        return Finding(check=source, result="ok", finding=finding)
    library = {"nvml": "libnvidia-ml.so.1", "cuda": "libcuda.so.1"}[source]
    fix = f"The kernel shows a GPU, but {library} does not: install the driver's libraries of the module's version."
    return Finding(check=source, result="warning", finding=finding, fix=fix)


def _unclaimed(found: HostProbe) -> list[Finding]:
    """Cards of the same machine that are not this host's: worth a warning where it has no other."""
    if not found.unclaimed:
        return []
    return [
        Finding(
            check="other gpus",
            result="ok" if found.gpus else "warning",
            finding=f"seen by the kernel only, not claimed: {', '.join(gpu.uuid for gpu in found.unclaimed)}",
            fix="" if found.gpus else _NOT_OURS,
        )
    ]


def _covers(found: HostProbe) -> list[Finding]:
    findings = []
    if found.preloaded:
        fix = "An attestation is held to 40 points: start without LD_PRELOAD, LD_AUDIT and /etc/ld.so.preload."
        findings.append(Finding(check="preloaded", result="warning", finding=", ".join(found.preloaded), fix=fix))
    if found.overlaid:
        fix = "An attestation is held to 40 points: unmount what lies over the driver's files, /proc/driver and /sys."
        findings.append(Finding(check="overlaid", result="warning", finding=", ".join(found.overlaid), fix=fix))
    return findings


def _backends(found: HostProbe) -> list[Finding]:
    cpu = Finding(check="backend cpu", result="ok", finding=f"{os.cpu_count()} processors")
    has_card = bool(found.gpus)
    # Where nothing is wrong with a host that has no GPU, nothing has to be mended either.
    worse: Literal["ok", "warning"] = "warning" if has_card else "ok"
    if importlib.util.find_spec("pycuda") is None:
        fix = "pip install 'assay-network[gpu]'; it needs a C++ compiler and CUDA's headers." if has_card else ""
        pycuda = Finding(check="backend pycuda", result=worse, finding="PyCUDA is not installed", fix=fix)
    elif not has_card:
        pycuda = Finding(check="backend pycuda", result="ok", finding="PyCUDA is installed, there is no GPU")
    else:
        pycuda = Finding(check="backend pycuda", result="ok", finding="PyCUDA is installed")
    nvcc = build.compiler()
    compiler = Finding(
        check="nvcc",
        result="ok" if nvcc else worse,
        finding=nvcc or "neither on PATH nor in /usr/local/cuda",
        fix=""
        if nvcc or not has_card
        else "Install the CUDA toolkit, or load kernels built with `assay kernels build`.",
    )
    return [cpu, pycuda, compiler]
