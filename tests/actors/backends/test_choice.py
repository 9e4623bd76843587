"""Choosing a backend by its name."""

import sys
from importlib.machinery import ModuleSpec

import pytest

from actors.backends import NAMES, choose
from actors.backends import pycuda as ours
from events.errors import BadInput, DeviceUnavailable


def test_cpu_needs_nothing() -> None:
    """The CPU is always there."""
    assert choose("cpu", 2).name == "cpu"
    assert "cpu" in NAMES


def test_unknown_name_is_refused() -> None:
    """The error names the choices."""
    with pytest.raises(BadInput) as caught:
        choose("opencl")
    assert "pycuda" in caught.value.hint


@pytest.mark.parametrize(
    ("installed", "words"),
    [(False, "PyCUDA is not installed"), (True, "there is no GPU")],
    ids=["missing", "no driver"],
)
def test_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch, installed: bool, words: str) -> None:
    """Without PyCUDA, and without NVIDIA's driver, the error says which of them is missing and how to mend it."""
    spec = ModuleSpec("pycuda", None) if installed else None
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(ours, "_LIBRARY", "libcuda-that-is-nowhere.so.1")
    with pytest.raises(DeviceUnavailable, match=words) as caught:
        choose("pycuda")
    assert caught.value.hint
    assert "pycuda.driver" not in sys.modules
