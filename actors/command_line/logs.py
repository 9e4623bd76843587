"""``assay log export``, ``assay audit`` and ``assay verify log``."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from msgspec import Struct, to_builtins

from actors.command_line.network import Line, connect
from actors.command_line.options import DISPLAY, NETWORK, Display, Network
from actors.command_line.output import Advance, Output, check_target
from actors.command_line.verify import GenesisFile, load_genesis
from bus.port import ChainMessage
from events.blocks import genesis_hash
from events.errors import BadInput, Divergence, NotFound, TimedOut
from projections.audit import Auditor, AuditReport, audit_file
from projections.log_file import LogWriter
from schemas.genesis import Genesis

BATCH: Final = 500
WAIT_MS: Final = 2_000


async def log_messages(line: Line, end: int, advance: Advance) -> AsyncIterator[ChainMessage]:
    """The log from its first message to sequence ``end``. Raises TimedOut when the server stops answering."""
    reader = await line.bus.read_chain(0)
    try:
        done = 0
        while done < end:
            messages = await reader.next(min(BATCH, end - done), WAIT_MS)
            if not messages:
                raise TimedOut(f"the log stops after message {done} of {end}", hint="Try again.")
            for message in messages:
                if message.sequence <= end:
                    yield message
            done = messages[-1].sequence
            advance(min(done, end))
    finally:
        await reader.close()


async def known_genesis(line: Line, output: Output, file: Path | None) -> Genesis:
    """The genesis of a file, else of the context, else as a node says it, which is then said."""
    genesis = load_genesis(file)
    if genesis is None:
        genesis = await line.genesis()
        output.note(
            f"The genesis is the one that a node names, {genesis_hash(genesis)}; --genesis FILE names your own."
        )
    return genesis


async def export(
    file: Annotated[Path, Parameter(help="Where the log goes; a file of this name is replaced.")],
    /,
    *,
    genesis: GenesisFile = None,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """Write the whole log into FILE, one line per message. Everything is executed again on the way, so that the trailer
    says what is true."""
    output = Output(display)
    check_target(file)
    async with connect(network) as line:
        trailer = await export_log(line, output, await known_genesis(line, output, genesis), file)
    facts = {name.replace("_", " "): value for name, value in to_builtins(trailer).items()}
    output.one({"file": str(file), "trailer": trailer}, {"file": file} | facts)


async def export_log(line: Line, output: Output, genesis: Genesis, file: Path) -> Struct:
    """Writes the export beside its name and renames it when it is whole. Returns its trailer."""
    end = await line.bus.chain_end()
    beside = file.with_name(f".{file.name}.part")
    auditor = Auditor(genesis)
    try:
        with beside.open("wb") as opened, output.progress("export", end) as advance:
            writer = LogWriter(opened, genesis)
            async for message in log_messages(line, end, advance):
                auditor.add(message.sequence, message.kind, message.data)
                writer.add(message.sequence, message.kind, message.data)
            auditor.finish()
            trailer = writer.close(auditor.totals())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    return trailer


async def audit(
    log: Annotated[str, Parameter(help="An exported file, or `live` for the log of the network.")] = "live",
    /,
    *,
    genesis: GenesisFile = None,
    network: Network = NETWORK,
    display: Display = DISPLAY,
) -> None:
    """Execute a log again from genesis and compare everything: signatures, roots, votes, conservation. Exit
    code 7 names the height and the first difference. -o json gives the whole report."""
    output = Output(display)
    with _shown(output):
        if log == "live":
            async with connect(network) as line:
                report = await audit_live(line, output, await known_genesis(line, output, genesis))
        else:
            report = audit_export(Path(log), output, load_genesis(genesis))
    _show(output, report)


def verify_log(
    file: Annotated[Path, Parameter(help="What `assay log export` wrote.")],
    /,
    *,
    genesis: GenesisFile = None,
    display: Display = DISPLAY,
) -> None:
    """Execute an exported log again from genesis, offline: what `assay audit FILE` does."""
    output = Output(display)
    with _shown(output):
        report = audit_export(file, output, load_genesis(genesis))
    _show(output, report)


@contextmanager
def _shown(output: Output) -> Iterator[None]:
    """What was found before a difference is shown before it."""
    try:
        yield
    except Divergence as error:
        so_far = error.data.pop("report", None)
        if isinstance(so_far, AuditReport):
            _show(output, so_far)
        raise


async def audit_live(line: Line, output: Output, genesis: Genesis) -> AuditReport:
    """Audits the log up to its present end. Raises Divergence."""
    end = await line.bus.chain_end()
    auditor = Auditor(genesis)
    with output.progress("audit", end) as advance:
        async for message in log_messages(line, end, advance):
            auditor.add(message.sequence, message.kind, message.data)
    return auditor.finish()


def audit_export(file: Path, output: Output, known: Genesis | None) -> AuditReport:
    """Audits a file; its genesis must be the known one, if one is known. Raises Divergence, NotFound, BadInput."""
    if file.is_dir():
        raise BadInput(f"{file} is a directory", hint="Name a file that `assay log export` wrote.")
    if not file.exists():
        raise NotFound(f"there is no file {file}", hint="Name a file that `assay log export` wrote.")
    size = file.stat().st_size
    with output.progress("audit", size) as advance:
        report = audit_file(
            file,
            lambda done, _total: advance(done),
            expected_genesis_hash=genesis_hash(known) if known else None,
        )
    if known is None:
        say_whose_genesis(output, report.genesis)
    return report


def say_whose_genesis(output: Output, found: str) -> None:
    """Who makes a log can make its genesis as well, so what follows from it holds only for whoever knows that one."""
    output.note(f"The genesis is the one in the log itself, {found}: is it yours? --genesis FILE compares.")


def _show(output: Output, report: AuditReport) -> None:
    totals = report.totals
    marks = {"passed": "ok      ", "failed": "FAILED  ", "unfinished": "not done"}
    facts: dict[str, Any] = {
        "chain": f"{report.chain}, genesis {report.genesis}",
        "height": totals.height,
        "head": totals.head,
        "state root": totals.state_root,
        "messages": f"blocks {totals.blocks:,}, votes {totals.votes:,}, of these skipped {report.skipped:,}",
        "events": f"{totals.events:,}, timers {report.timers:,}",
        "checks": "\n".join(f"{marks[check.result]}  {check.claim}" for check in report.checks),
        "verdict": "passed" if report.passed else "failed",
    }
    output.one(report, facts)
