"""``assay schemas export``: the records for other languages."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from actors.command_line.options import DISPLAY, Display
from actors.command_line.output import Output


def export(
    directory: Annotated[Path, Parameter(help="Made where it is missing.")], /, *, display: Display = DISPLAY
) -> None:
    """Write the JSON Schemas of all records and the AsyncAPI document into DIRECTORY; files of the same name are
    replaced."""
    from schemas.generate import generate

    files = generate()
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rows = [{"file": str(directory / name), "bytes": len(content)} for name, content in sorted(files.items())]
    Output(display).many(rows, rows)
