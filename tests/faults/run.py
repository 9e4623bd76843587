"""A network of processes on three NATS servers, while everything that can fail does.

    python tests/faults/run.py --seconds 300 --seed 1

Every five seconds something happens to the cluster, and between two such faults to an actor, under load. The next
fault of the cluster waits until the network has recovered from the last one, or has failed to within the bound. Prints
a table and what the checkers found, writes ``build/faults.json``, and ends with 1 when anything is wrong.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import structlog
import uvloop
from msgspec import Struct

from actors.devnet import Devnet
from actors.devnet_files import Plan
from bus.jetstream import JetStreamBus
from bus.readers import stream_state
from events.errors import BusError, TimedOut
from tests.faults.cluster import Cluster, SmallDisk
from tests.faults.load import Load
from tests.faults.menu import Fault, Menu
from tests.faults.pulse import Pulse
from tests.faults.recovery import measure, pauses_of, recovered, too_slow, waits_of
from tests.faults.verdict import Verdict, export, judge, written

OUTPUT = Path("build/faults.json")
EVERY_S = 5.0
SENDERS = 32
RATE = 1_000.0
SHORT_RATE = 300.0
DISK_MIB = 2_048
# How the last words of an actor begin that could not reach a server for long enough; it is started again.
AWAY = ("no NATS server answers", "JetStream does not answer", "no server leads the stream")


class Bounds(Struct, frozen=True):
    """What takes as long as this has failed: a recovery, and what must be over when nothing fails any more; jobs may
    live for 120 s."""

    recovery_s: float = 10.0
    calm_s: float = 60.0
    jobs_s: float = 180.0


# On a machine that may be busy with others only what never comes to an end is wrong.
PATIENT = Bounds(240.0, 240.0, 300.0)
# What happens, from the first fault to the last.
Trouble = Callable[[Menu, Pulse, Bounds], Awaitable[None]]


class Report(Struct):
    """All that a run has found."""

    seed: int
    seconds: float
    faults: list[Fault]
    verdict: Verdict
    bound_s: float
    slowest_recovery_s: float
    longest_pause_s: float
    longest_wait_s: float
    repeated: int
    stops: list[str]
    starts: int
    copies_agree: bool
    holes: dict[str, list[int]]


@contextlib.asynccontextmanager
async def network(directory: Path) -> AsyncIterator[tuple[Cluster, Devnet]]:
    """The cluster and all actors on it."""
    async with contextlib.AsyncExitStack() as stack:
        disk = None
        if SmallDisk.possible():
            disk = stack.enter_context(SmallDisk(directory, DISK_MIB))
        else:
            print("not root: no server has a small disk, so it is never full", file=sys.stderr)
        cluster = await stack.enter_async_context(Cluster(directory, disk))
        plan = Plan(extra_clients=SENDERS, replicas=3, capacity=2)
        devnet = Devnet(directory / "net", plan, server=cluster)
        yield cluster, await stack.enter_async_context(devnet)


async def storm(menu: Menu, pulse: Pulse, bounds: Bounds, seconds: float) -> None:
    """A fault of the servers every five seconds, or when the network has recovered from the last one if that is later;
    in between one of an actor, unless the last one is still down: two proposers at once are no quorum any more."""
    actor: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        for _ in range(int(seconds / EVERY_S)):
            began_s = time.monotonic()
            servers = group.create_task(menu.next())
            await asyncio.sleep(EVERY_S / 2)
            if actor is None or actor.done():
                actor = group.create_task(menu.next_actor())
            await servers
            await asyncio.sleep(max(0.0, began_s + EVERY_S - time.monotonic()))
            await recovered(menu, pulse, bounds.recovery_s)
    await recovered(menu, pulse, bounds.recovery_s)


async def progress(pulse: Pulse, load: Load, menu: Menu) -> None:
    """A line every five seconds."""
    while True:
        acknowledged, final = len(load.ledger.acknowledged), pulse.events
        await asyncio.sleep(EVERY_S)
        fault = menu.faults[-1].kind if menu.faults else ""
        print(
            f"height {pulse.height}: {(len(load.ledger.acknowledged) - acknowledged) / EVERY_S:.0f}/s acknowledged, "
            f"{(pulse.events - final) / EVERY_S:.0f}/s final; {fault}",
            flush=True,
        )


async def in_time(waiting: Coroutine[Any, Any, None], what: str, limit_s: float) -> list[str]:
    """Waits; what does not come to an end is a violation."""
    try:
        await asyncio.wait_for(waiting, limit_s)
    except TimeoutError:
        return [f"{what} after {limit_s:.0f} s without a fault"]
    return []


async def drained(bus: JetStreamBus, pulse: Pulse, load: Load) -> None:
    """Returns when nothing waits any more: every sender's last event is final, and every inbox is empty."""
    while any(sender.final < sender.used for sender in load.senders):
        if (failure := pulse.failure()) is not None:
            raise failure
        await asyncio.sleep(0.1)
    while (await stream_state(bus._connection, bus.chain, "INBOX"))["state"]["messages"]:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    end = await bus.chain_end()
    while pulse.position < end:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def jobs_ended(bus: JetStreamBus, pulse: Pulse) -> None:
    """Returns when a node that holds every block so far knows no job that has not ended."""
    while True:
        question = msgspec.json.encode({"min_height": pulse.height})
        with contextlib.suppress(BusError, TimedOut):
            answer = msgspec.json.decode(await bus.query("status", question))
            jobs = answer["value"]["jobs"] if answer["answer"] == "found" else {"open": 1}
            if not any(jobs.get(name) for name in ("open", "assigned", "committed", "revealed")):
                return
        await asyncio.sleep(0.2)


async def two_deaths(menu: Menu, pulse: Pulse, bounds: Bounds) -> None:
    """Of the server that leads the log, and of a proposer."""
    for death in (menu.bring_about("kill -9 of the log's leader"), menu.kill_actor("proposer-1")):
        await death
        await recovered(menu, pulse, bounds.recovery_s)


async def run(directory: Path, trouble: Trouble, bounds: Bounds, seed: int = 1, rate: float = RATE) -> Report:
    """Everything from the start of the cluster to the verdict."""
    async with network(directory) as (cluster, devnet):
        load = Load(devnet, list(devnet.plan.clients()[1:]), rate)
        watching = await JetStreamBus.connect(devnet.url, devnet.chain, name="pulse")
        async with Pulse(watching, devnet.genesis_hash, devnet.plan.proposers, load.note_final) as pulse:
            loading = asyncio.create_task(load.run())
            await asyncio.sleep(2.0)
            began = time.monotonic()
            menu = Menu(cluster, devnet, Random(seed))
            telling = asyncio.create_task(progress(pulse, load, menu))
            await trouble(menu, pulse, bounds)
            load.stop()
            await loading
            took_s = time.monotonic() - began
            late = await in_time(drained(watching, pulse, load), "events still wait", bounds.calm_s)
            drained_s = time.monotonic()
            late += await in_time(jobs_ended(watching, pulse), "jobs still run", bounds.jobs_s)
            late += await in_time(written(devnet, pulse.height), "a node lacks blocks", bounds.calm_s)
            telling.cancel()
        await cluster.until_whole(devnet.chain)
        messages = await export(watching, devnet, directory / "log.ndjson")
        damaged, copies = await cluster.heal(devnet.chain)
        await watching.close()
        stops = stopped(devnet)
        await devnet.stop()
        verdict = await asyncio.to_thread(judge, devnet, messages, directory / "log.ndjson", load.ledger, load.jobs)
        agree = len({copy.digest for copy in copies.values()}) == 1
        if not agree:
            verdict.violations.append(f"the servers' copies of the log differ: {copies}")
        measure(menu.faults, pulse.beats, drained_s)
        verdict.violations += too_slow(menu.faults, pulse.beats, drained_s, bounds.recovery_s) + stops + late
        pauses, waits = (find(menu.faults, pulse.beats, drained_s) for find in (pauses_of, waits_of))
        for fault in menu.faults:
            fault.began_s, fault.mended_s = fault.began_s - began, fault.mended_s - began
        return Report(
            seed,
            took_s,
            menu.faults,
            verdict,
            bounds.recovery_s,
            max(fault.recovery_s for fault in menu.faults),
            max(pause.length_s for pause in pauses),
            max(wait.length_s - wait.broken_s for wait in waits),
            load.ledger.failures,
            stops,
            sum(devnet.starts(name) for name in devnet.plan.actors()),
            agree,
            {f"nats-{server}": missing for server, missing in damaged.items()},
        )


def stopped(devnet: Devnet) -> list[str]:
    """What made an actor give up. Nothing here should, but that all servers are away while it starts."""
    found = []
    for name in devnet.plan.actors():
        lines = devnet.files.log_file(name).read_text(errors="replace").splitlines()
        found += [f"{name}: {line[:300]}" for line in lines if _is_the_end(line)]
    return found


def _is_the_end(line: str) -> bool:
    if line.startswith("error: "):
        return not line.removeprefix("error: ").startswith(AWAY)
    return "the actor stops" in line or "Traceback" in line


def show(report: Report) -> None:
    """The table."""
    print(f"{'fault':<44}{'target':<38}{'at s':>8}{'for s':>8}{'recovery s':>12}{'pause s':>9}")
    for fault in report.faults:
        print(
            f"{fault.kind:<44}{fault.target:<38}{fault.began_s:>8.1f}{fault.mended_s - fault.began_s:>8.1f}"
            f"{fault.recovery_s:>12.1f}{fault.pause_s:>9.1f}"
        )
    verdict = report.verdict
    print()
    for kind in sorted({fault.kind for fault in report.faults}):
        chosen = [fault for fault in report.faults if fault.kind == kind]
        times = sorted(fault.recovery_s for fault in chosen)
        print(
            f"{kind:<44}{len(times):>4} times, recovery median {times[len(times) // 2]:.1f} s, "
            f"at most {times[-1]:.1f} s; pause at most {max(fault.pause_s for fault in chosen):.1f} s"
        )
    missing = ", ".join(f"{len(holes)} of {server}" for server, holes in report.holes.items())
    print(
        f"\nseed {report.seed}: {len(report.faults)} faults in {report.seconds:.0f} s, "
        f"{sum(fault.of_servers for fault in report.faults)} of them of the servers, "
        f"{report.starts} starts of actors\n"
        f"{verdict.acknowledged} events acknowledged ({verdict.acknowledged / report.seconds:.0f}/s), "
        f"{verdict.events} in {verdict.blocks} final blocks, {verdict.messages} messages in the log; "
        f"{report.repeated} had to be said again\n"
        f"lost {verdict.lost}, refused {verdict.refused}, duplicated {verdict.duplicated}, "
        f"divergent roots {verdict.divergent}\n"
        f"{verdict.accounts} accounts compared at every node; jobs {verdict.jobs}; nodes {'; '.join(verdict.nodes)}\n"
        f"slowest recovery {report.slowest_recovery_s:.1f} s, longest time without a final block "
        f"{report.longest_pause_s:.1f} s, {report.longest_wait_s:.1f} s since the servers' last fault and without it "
        f"(first and last below {report.bound_s:.0f} s); "
        f"the three copies of the log {'agree' if report.copies_agree else 'differ'}"
        f"{f', made anew where messages were missing: {missing}' if missing else ''}"
    )
    for violation in verdict.violations:
        print("VIOLATION:", violation)


def quiet() -> None:
    """The connections of the test itself have nothing to tell."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def main() -> int:
    """The command."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=300.0)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--rate", type=float, default=RATE)
    arguments.add_argument("--short", action="store_true", help="two kills -9 and no more, for a machine that is busy")
    arguments.add_argument("--directory", type=Path, help="kept; without it all files are thrown away")
    chosen = arguments.parse_args()
    quiet()
    with contextlib.ExitStack() as stack:
        directory = chosen.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-faults-")))
        directory.mkdir(parents=True, exist_ok=True)
        if chosen.short:
            work = run(directory, two_deaths, PATIENT, chosen.seed, SHORT_RATE)
        else:
            work = run(directory, partial(storm, seconds=chosen.seconds), Bounds(), chosen.seed, chosen.rate)
        report = uvloop.run(work)
    show(report)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    return 1 if report.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
