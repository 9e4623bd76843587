"""Tampering with the files of a NATS server that is down, and then starts again on them."""

import asyncio
import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import pytest

from bus import readers
from bus.jetstream import JetStreamBus
from bus.server import EmbeddedServer
from events.errors import AssayError
from projections.chain import Chain
from tests.projections.small_network import SmallNetwork, key_of
from tests.projections.story import story
from tests.tampering.changes import BYTES
from tests.tampering.logs import other_chain
from tests.tampering.verdicts import Target, Verdict, found, harmless, silent

WAIT_MS = 300
STALL_S = 0.5  # instead of half a minute
VALIDATORS = tuple(key_of(f"validator {index}").address for index in range(3))


async def _filled(directory: Path, network: SmallNetwork, log: list[tuple[str, bytes]]) -> None:
    """A server with a chain's whole log, stopped."""
    server = EmbeddedServer(directory, sync_interval="always")
    await server.start()
    bus = await JetStreamBus.connect(server.url, network.genesis.chain)
    await bus.set_up(network.chain.genesis_hash, VALIDATORS)
    for kind, data in log:
        await bus.append(kind, data)  # type: ignore[arg-type]
    await bus.close()
    await server.stop()


@cache
def _directory(which: str) -> Path:
    """Of a stopped server: `honest`, `foreign` (another chain of the same name), `replayed` (a part of the log twice),
    `spliced` (messages of the other chain in between)."""
    directory = Path(tempfile.mkdtemp(prefix="assay-tampering-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    network = other_chain() if which == "foreign" else story()
    log = [(kind, data) for _, kind, data in network.log]
    if which == "replayed":
        log = log[:20] + log[4:12] + log[20:] + log[-12:]
    elif which == "spliced":
        others = [(kind, data) for _, kind, data in other_chain().log]
        log = log[:20] + others[:30] + log[20:] + others[20:40]
    asyncio.run(_filled(directory, network, log))
    return directory


def _stream(directory: Path) -> Path:
    (stream,) = directory.rglob("ASSAY_*_CHAIN")
    return stream


def attempt(chance: Random, directory: Path) -> tuple[str, Verdict]:
    whole = chance.choice(("", "", "", "", "", "", "foreign", "replayed", "spliced"))
    place = directory / "server"
    shutil.copytree(_directory(whole or "honest"), place, ignore=shutil.ignore_patterns("*.log", "*.ports"))
    if whole:
        return f"the whole server: {whole}", _judged_soon(place)
    stream = _stream(place)
    files = sorted(path for path in stream.rglob("*") if path.is_file() and path.stat().st_size)
    blocks = [path for path in files if path.suffix == ".blk"]
    path = chance.choice(blocks if chance.random() < 0.7 else files)
    way = chance.choice((*BYTES, "lost", "of the other chain"))
    if way in BYTES:
        path.write_bytes(BYTES[way](path.read_bytes(), chance))
    elif way == "lost":
        path.unlink()
    else:
        other = _stream(_directory("foreign")) / path.relative_to(stream)
        shutil.copy(other, path)
    kind = "messages" if path.suffix == ".blk" else path.name
    if chance.random() < 0.3 and (index := stream / "msgs" / "index.db").exists():
        index.unlink()
        way += ", no index"
    return f"{kind}: {way}", _judged_soon(place)


def _judged_soon(directory: Path) -> Verdict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "STALL_S", STALL_S)
        patch.setattr(readers, "LOOK_EVERY_S", 0.1)
        return asyncio.run(_judged(directory))


async def _judged(directory: Path) -> Verdict:
    """What a node that has seen the whole log says, and what one says that begins from nothing."""
    server = EmbeddedServer(directory)
    try:
        try:
            await server.start()
        except AssayError as error:
            return found(f"the server does not start: {type(error).__name__}")
        async with asyncio.timeout(60):
            return await _looked_at(server)
    finally:
        await server.stop()


async def _looked_at(server: EmbeddedServer) -> Verdict:
    bus = await JetStreamBus.connect(server.url, story().genesis.chain)
    try:
        try:
            await bus.set_up(story().chain.genesis_hash, VALIDATORS)
        except AssayError as error:
            return found(f"at the start: {type(error).__name__}")
        known = await _known(bus)
        chain = Chain(story().genesis)
        roots = [final.header.state_root for final in story().finals]
        try:
            await _follow(bus, chain, roots)
        except AssayError as error:
            return found(f"by a node without memory: {type(error).__name__}")
    finally:
        await bus.close()
    if chain.height == len(roots):
        return harmless("the whole ledger is there")
    if known is not None:
        return found(f"by a node with a memory: {known}")
    return silent(f"the log ends at height {chain.height}, and nobody says so")


async def _known(bus: JetStreamBus) -> str | None:
    """The error that a node gets which goes on at the end of the log that it has read; None: nothing is amiss."""
    try:
        reader = await bus.read_chain(len(story().log))
    except AssayError as error:
        return type(error).__name__
    await reader.close()
    return None


async def _follow(bus: JetStreamBus, chain: Chain, roots: list[str]) -> None:
    """Reads until nothing is to come. Raises what a node would stop with, and AssertionError for another ledger."""
    reader = await bus.read_chain(0)
    try:
        while reader._complete != reader._last:
            for message in await reader.next(500, WAIT_MS):
                final = chain.add(message.sequence, message.kind, message.data, None)
                if final is not None and final.header.state_root != roots[final.header.height - 1]:
                    raise AssertionError(f"another ledger at height {final.header.height}")
    finally:
        await reader.close()


SERVERS = Target(name="server", attempt=attempt, share=1)
