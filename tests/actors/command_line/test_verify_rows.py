"""``assay verify rows``, on files that are right, changed, or none."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from events.canonical import canonical
from projections.read_model import ReadModel
from tests.actors.command_line.conftest import Run
from tests.projections.story import story


@pytest.fixture
def rows(home: Path) -> Path:
    """The file of a node that has the whole story, and the genesis beside it."""

    async def write() -> None:
        model = await ReadModel.open(home / "node.sqlite", story().genesis)
        await model.restore()
        finals = story().finals
        await model.write(finals, finals[-1].commit_sequence, finals[-1].sequence)
        await model.close()

    asyncio.run(write())
    (home / "genesis.json").write_bytes(canonical(story().genesis))
    return home / "node.sqlite"


def test_a_right_file_passes(assay: Run, rows: Path, home: Path) -> None:
    """The answer says how far the file is."""
    ended = assay("verify", "rows", rows, "--genesis", home / "genesis.json", "-o", "json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["passed"], found["height"]) == (True, story().chain.height)


def test_a_changed_row_does_not_pass(assay: Run, rows: Path, home: Path) -> None:
    """The first row that is wrong is named, the exit code is that of a failed verification."""
    with sqlite3.connect(rows) as db:
        db.execute("UPDATE events SET fee = fee + 1")
    db.close()
    ended = assay("verify", "rows", rows, "--genesis", home / "genesis.json")
    assert ended.code == 7
    assert "events: the row that begins with" in ended.err


@pytest.mark.parametrize(("words", "code"), [(("node.sqlite",), 2), (("none", "--genesis", "genesis.json"), 3)])
def test_what_is_missing_is_said(assay: Run, rows: Path, words: tuple[str, ...], code: int) -> None:
    """Without a genesis nothing can be checked, nor without the file."""
    assert assay("verify", "rows", *words).code == code
