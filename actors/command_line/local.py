"""``assay devnet`` and ``assay demo``: a network on this machine."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter, validators
from msgspec import UNSET

from actors.command_line.context import Context, load_context, local_home, save_context
from actors.command_line.options import DISPLAY, Display
from actors.command_line.output import Output, asy, only_errors, styled
from actors.devnet import Devnet
from actors.devnet_files import BALANCES, CLIENT, WALLET, Plan
from events.errors import BadInput
from schemas.values import MICRO_PER_ASY

Facts = dict[str, Any]
Directory = Annotated[
    Path | None, Parameter(help="Where the network keeps its state; without it, all is lost at the end.")
]


async def devnet(
    *,
    directory: Directory = None,
    proposers: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=7), help="1 to 7.")] = 3,
    miners: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=100), help="0 to 100.")] = 2,
    port: Annotated[
        int,
        Parameter(validator=validators.Number(gte=0, lte=65_535), help="Of the NATS server; 0 takes a free one."),
    ] = 0,
    display: Display = DISPLAY,
) -> None:
    """A whole network on this machine, until Ctrl-C: NATS, proposers, a coordinator, miners, a wallet. Commands in the
    same directory find it by themselves, through .assay/context.json."""
    output = Output(display)
    only_errors()
    network = Devnet(directory, Plan(proposers=proposers, miners=miners), port=port or None, tell=output.note)
    async with network:
        await stay(network, output, *banner(network))


async def stay(network: Devnet, output: Output, value: Facts, facts: Facts) -> None:
    """Prints what a network is, tells what to do next with it, and returns at Ctrl-C."""
    replaced = await running_here(network.url)
    context = enter(network)
    if replaced is not None:
        output.note(f"Commands in this directory find this network now, and {replaced.url} again after its end.")
    try:
        # Before anything is printed: who reads the banner may interrupt at once.
        with interrupted() as stop:
            output.one(value, facts)
            tell_next(output)
            await stop.wait()
        output.note("stopping")
    finally:
        leave(context, network, None if replaced is None else await running_here(network.url, replaced))


async def running_here(url: str, context: Context | None = None) -> Context | None:
    """The context, that of this directory where none is given, if it is of another network whose server listens."""
    if context is None:
        with contextlib.suppress(BadInput):
            context = load_context(local_home())
    if context is None or not isinstance(context.url, str) or context.url == url:
        return None
    try:
        server = urlsplit(context.url)
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(server.hostname, server.port)
    except (OSError, ValueError):
        return None
    writer.close()
    return context


def enter(network: Devnet) -> Path:
    """Writes the context of this directory, so that commands beside it find the network."""
    return save_context(
        local_home(),
        Context(
            url=network.url,
            chain=network.chain,
            genesis=str(network.files.genesis_file),
            seed_file=str(network.files.seed_file(CLIENT)),
            wallet=network.key(WALLET).address if network.plan.wallet else UNSET,
        ),
    )


def leave(context: Path, network: Devnet, replaced: Context | None = None) -> None:
    """Removes the context of a network whose state is thrown away, unless another network has taken its place. What it
    ``replaced`` comes back."""
    if not network.thrown_away:
        return
    found = load_context(context.parent)
    if found is None or found.url != network.url:
        return
    if replaced is None:
        context.unlink(missing_ok=True)
    else:
        save_context(context.parent, replaced)


@contextlib.contextmanager
def interrupted() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C or SIGTERM sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def banner(network: Devnet) -> tuple[Facts, Facts]:
    """What one needs to know of a running network: for programs, and for people."""
    accounts = [
        {
            "name": name,
            "address": network.key(name).address,
            "balance": BALANCES[name.partition("-")[0]] * MICRO_PER_ASY,
            "seed_file": str(network.files.seed_file(name)),
        }
        for name in network.files.keys
        if name.partition("-")[0] in BALANCES
    ]
    state = "thrown away at the end" if network.thrown_away else str(network.directory)
    value: Facts = {
        "url": network.url,
        "chain": network.chain,
        "genesis": network.genesis_hash,
        "genesis_file": str(network.files.genesis_file),
        "directory": str(network.directory),
        "thrown_away": network.thrown_away,
        "accounts": accounts,
        "processes": network.pids(),
    }
    processes = ", ".join(f"{name} {pid}" for name, pid in network.pids().items())
    funded = "\n".join(
        f"{entry['name']:<12} {entry['address']}  {asy(int(str(entry['balance'])))}" for entry in accounts
    )
    facts: Facts = {
        "network": f"{network.url}, chain {network.chain}",
        "genesis": f"{network.genesis_hash}\n{network.files.genesis_file}",
        "processes": processes,
        "logs": f"{network.directory}/logs",
        "state": state,
        "funded": funded,
        "key": f"{network.files.seed_file(CLIENT)} (client)",
    }
    return value, facts


def tell_next(output: Output) -> None:
    """The commands to try, as they can be typed here."""
    assay = command_here()
    lines = (
        styled("Next, in another terminal, in this directory:", "1", sys.stderr),
        f"  {assay} job submit matmul.int8 random:1000x1000 random:1000x1000",
        f"  {assay} job submit mandelbrot --width 640 --height 480",
        f"  {assay} miner list",
        f"  {assay} account",
        f"  {assay} audit",
        "Ctrl-C ends the network.",
    )
    output.note("\n".join(lines))


def command_here() -> str:
    """How this program is called: by its name where PATH finds it, else by its place."""
    program = Path(sys.argv[0])
    if program.name != "assay" or shutil.which("assay") is not None:
        return "assay"
    return os.path.relpath(program)


async def demo(
    *,
    keep: Annotated[bool, Parameter(negative=(), help="Leave the network up until Ctrl-C.")] = False,
    display: Display = DISPLAY,
) -> None:
    """A whole network on this machine; a plain NATS client, which imports nothing of ours, has two matrices multiplied;
    then its receipt, its block, the balances, and an audit of the exported log."""
    from actors.demo import run_demo

    output = Output(display)
    only_errors()
    async with Devnet(tell=output.note) as network:
        value, facts = await run_demo(network, output)
        if keep:
            about, more = banner(network)
            await stay(network, output, value | {"network": about}, facts | more)
        else:
            output.one(value, facts)
