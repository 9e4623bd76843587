"""``assay kernels build``: compiled kernels for machines that have no compiler."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from actors.command_line.options import DISPLAY, Display
from actors.command_line.output import Output


def build(
    *,
    arch: Annotated[
        tuple[str, ...],
        Parameter(help="An architecture, as sm_80; again for more. Without it, those that each kernel is written for."),
    ] = (),
    directory: Annotated[
        Path | None, Parameter(help="Made where it is missing; without it, where miners of this installation look.")
    ] = None,
    display: Display = DISPLAY,
) -> None:
    """Compile all kernels with nvcc: machine code for each architecture, PTX for devices that are yet to come, and a
    manifest with the digests of sources and results."""
    from actors.backends.build import build as compile_kernels
    from actors.backends.build import cache_directory
    from actors.backends.recipes import capability_of, files, recipe
    from events.errors import BadInput

    for name in arch:
        if not name.startswith("sm_") or not name[3:].removesuffix("a").isdigit():
            raise BadInput(f"{name!r} is no architecture", hint="Write sm_75, sm_80, sm_90a …")
        capability_of(name)
    folder = directory or cache_directory()
    wanted = files()
    modules = compile_kernels(wanted, folder, arch)
    rows = [
        {
            "file": str(folder / module.name),
            "architecture": module.architecture,
            "kind": module.kind,
            "bytes": module.size,
            "digest": module.digest,
        }
        for module in modules
    ]
    output = Output(display)
    output.many(rows, rows)
    built = {module.file for module in modules}
    for name in wanted:
        if name not in built:
            needs = " or ".join(recipe(name).architectures)
            output.note(f"{name} is not built: it runs on {needs} alone, which --arch does not name")
