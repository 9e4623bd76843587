"""``assay verify rows``: a node's own file, derived again from the blocks in it."""

import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from actors.command_line.options import DISPLAY, Display
from actors.command_line.output import Output
from actors.command_line.verify import GenesisFile, load_genesis
from events.blocks import genesis_hash
from events.errors import BadInput, NotFound


def verify_rows(
    file: Annotated[Path, Parameter(help="The read model of a node, proposer-U…/read-model.db.")],
    /,
    *,
    genesis: GenesisFile = None,
    display: Display = DISPLAY,
) -> None:
    """Check the file from which a node answers: every block in it is checked and executed again, and every row
    compared with what follows. A file that does not pass can be deleted: its node makes it anew from the log."""
    from projections.read_model_check import check_rows

    known = load_genesis(genesis)
    if known is None:
        raise BadInput("no genesis", hint="Name the file with --genesis; its hash is the identity of the chain.")
    if not file.is_file():
        raise NotFound(f"there is no file {file}", hint="It lies in the data directory of a proposer or coordinator.")
    with tempfile.TemporaryDirectory() as directory:
        height = check_rows(file, known, Path(directory) / "rebuilt.sqlite")
    facts = {"file": str(file), "chain": known.chain, "genesis": genesis_hash(known), "height": height, "passed": True}
    Output(display).one(facts, {**facts, "passed": "yes, every row follows from the blocks"})
