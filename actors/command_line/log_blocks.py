"""A log executed again, block by block, for whoever wants to know more of it than an audit says."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from actors.command_line.logs import log_messages, say_whose_genesis
from actors.command_line.network import connect
from actors.command_line.options import Network
from actors.command_line.output import Output
from events.blocks import genesis_hash
from events.errors import BadInput, NotFound
from projections.audit import Auditor
from projections.chain import Chain, Final
from projections.log_file import LogReader
from schemas.genesis import Genesis


class Fold(Protocol):
    """Told every final block."""

    def add(self, final: Final, /) -> None: ...


Folded = TypeVar("Folded", bound=Fold)


async def each_block(
    log: Path | None, network: Network, known: Genesis | None, output: Output, begin: Callable[[Genesis], Folded]
) -> tuple[Folded, Chain]:
    """What ``begin`` makes of the genesis, told every final block, and the chain after the last: of the exported file
    ``log``, else of the network, for which the genesis must be ``known``. Raises VerificationFailed where the file is
    wrong, Divergence where what the log says is."""
    if log is not None:
        return _of_file(log, known, output, begin)
    if known is None:
        raise no_genesis()
    async with connect(network) as line:
        end = await line.bus.chain_end()
        auditor, fold = Auditor(known), begin(known)
        with output.progress("audit", end) as advance:
            async for message in log_messages(line, end, advance):
                if (final := auditor.add(message.sequence, message.kind, message.data)) is not None:
                    fold.add(final)
    auditor.finish()
    return fold, auditor.chain


def no_genesis() -> BadInput:
    """Nothing is proved by a network without one."""
    return BadInput("no genesis", why="a node's word is no proof", hint="Name the chain's genesis with --genesis FILE.")


def _of_file(
    log: Path, known: Genesis | None, output: Output, begin: Callable[[Genesis], Folded]
) -> tuple[Folded, Chain]:
    if not log.is_file():
        raise NotFound(f"there is no file {log}", hint="Name a file that `assay log export` wrote.")
    with log.open("rb") as file, output.progress("audit", log.stat().st_size) as advance:
        reader = LogReader(file)
        auditor = Auditor(reader.genesis, expected_genesis_hash=genesis_hash(known) if known else None)
        fold = begin(reader.genesis)
        for sequence, kind, data in reader.messages():
            if (final := auditor.add(sequence, kind, data)) is not None:
                fold.add(final)
            advance(reader.bytes_read)
        auditor.finish(reader.trailer)
    if known is None:
        say_whose_genesis(output, auditor.chain.genesis_hash)
    return fold, auditor.chain
