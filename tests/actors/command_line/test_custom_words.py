"""The words of ``assay job submit kernel.custom``."""

from pathlib import Path

import numpy as np
import pytest

from actors.command_line.work.custom import _argument, _extents
from actors.command_line.work.files import digest_of
from events.errors import BadInput


def test_each_kind_of_argument_has_its_words(tmp_path: Path) -> None:
    """A file, a length, a number: signed, unsigned, and of fractions."""
    file = tmp_path / "values"
    np.arange(10, dtype="<f4").tofile(file)
    files: dict[str, Path] = {}
    assert _argument(f"input:float32:{file}", files) == {
        "kind": "input",
        "element": "float32",
        "digest": digest_of(file),
        "length": 10,
    }
    assert files == {digest_of(file): file}
    assert _argument("output:int64:7", files) == {"kind": "output", "element": "int64", "length": 7}
    assert _argument("scalar:int16:-2", files)["bytes"] == "feff"
    assert _argument("scalar:uint64:1", files)["bytes"] == "01" + "00" * 7
    assert _argument("scalar:float32:0.5", files)["bytes"] == "0000003f"
    assert (_extents("4"), _extents("4,5"), _extents("4,5,6")) == ([4, 1, 1], [4, 5, 1], [4, 5, 6])


@pytest.mark.parametrize(
    "word", ["input", "input:int32:", "buffer:int32:4", "output:complex64:4", "output:int8:x", "scalar:int8:1000"]
)
def test_other_words_are_refused(word: str) -> None:
    """With what they should be."""
    with pytest.raises(BadInput):
        _argument(word, {})


def test_half_an_element_is_refused(tmp_path: Path) -> None:
    """A file whose size does not fit its elements is a mistake."""
    (tmp_path / "odd").write_bytes(b"123")
    with pytest.raises(BadInput, match="no whole number of int32"):
        _argument(f"input:int32:{tmp_path / 'odd'}", {})
    with pytest.raises(BadInput, match="extent"):
        _extents("4,,5")
