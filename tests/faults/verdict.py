"""What must hold when it is over. Shares no code with the rules but the audit, which is one of the things compared."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import Struct

from actors.devnet import Devnet
from bus.jetstream import JetStreamBus
from bus.port import ChainMessage
from events.canonical import canonical
from projections.audit import Auditor, audit_file
from projections.log_file import LogWriter
from tests.end_to_end.bookkeeper import BURNED, GENESIS, Bookkeeper, digest
from tests.faults.load import Ledger


class Verdict(Struct):
    """``violations`` in words; none is what we want."""

    violations: list[str] = []
    acknowledged: int = 0
    events: int = 0
    blocks: int = 0
    messages: int = 0
    lost: int = 0
    duplicated: int = 0
    divergent: int = 0
    refused: int = 0
    accounts: int = 0
    jobs: dict[str, int] = {}
    nodes: list[str] = []


async def export(bus: JetStreamBus, devnet: Devnet, path: Path) -> list[ChainMessage]:
    """The whole log, as messages and as a file of `assay log export`."""
    messages: list[ChainMessage] = []
    end = await bus.chain_end()
    reader = await bus.read_chain(0)
    auditor = Auditor(devnet.genesis)
    with path.open("wb") as file:
        writer = LogWriter(file, devnet.genesis)
        while len(messages) < end:
            for message in await reader.next(256, 1_000):
                writer.add(message.sequence, message.kind, message.data)
                auditor.add(message.sequence, message.kind, message.data)
                messages.append(message)
        writer.close(auditor.totals())
    await reader.close()
    return messages


def read_models(devnet: Devnet) -> dict[str, Path]:
    """The files of all full nodes."""
    data = devnet.directory / "data"
    return {path.relative_to(data).parts[0]: path for path in sorted(data.glob("*/*/read-model.db"))}


async def written(devnet: Devnet, height: int) -> None:
    """Returns when every full node has written as many blocks into its file."""
    for path in read_models(devnet).values():
        while _height_of(path) < height:  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.2)


def _height_of(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT COALESCE(MAX(height), 0) FROM blocks").fetchone()[0])


def judge(devnet: Devnet, messages: Iterable[ChainMessage], path: Path, ledger: Ledger, jobs: list[str]) -> Verdict:
    """Compares the log with what clients were promised, with a second set of books, and with what each node holds."""
    verdict = Verdict()
    books = Bookkeeper(json.loads(canonical(devnet.genesis)))
    places: dict[str, int] = {}
    hashes: dict[int, tuple[str, str]] = {}
    for message in messages:
        verdict.messages += 1
        block = books.add(message.kind, message.data)
        if block is None:
            continue
        header = block["header"]
        hashes[header["height"]] = (books.head, header["state_root"])
        for envelope in block["events"]:
            verdict.events += 1
            name = digest(envelope["body"])
            places[name] = places.get(name, 0) + 1
    verdict.blocks = books.height
    verdict.duplicated = sum(count > 1 for count in places.values())
    verdict.acknowledged = len(ledger.acknowledged)
    _check_promises(verdict, ledger, places)
    _check_jobs(verdict, books, jobs)
    _check_audit(verdict, devnet, path, books, hashes)
    _check_nodes(verdict, devnet, hashes)
    _check_accounts(verdict, devnet, books)
    if verdict.duplicated:
        verdict.violations.append(f"{verdict.duplicated} events are in the log twice")
    return verdict


def _check_promises(verdict: Verdict, ledger: Ledger, places: dict[str, int]) -> None:
    missing = [name for name in ledger.acknowledged if name not in places]
    told = [name for name in missing if name in ledger.refused]
    lost = [name for name in missing if name not in ledger.refused]
    verdict.refused, verdict.lost = len(told), len(lost)
    for name in islice(lost, 3):
        event = ledger.acknowledged[name].event
        verdict.violations.append(f"acknowledged, and in no block: {name[:12]} of {event.sender[:8]}, {event.nonce}")
    for name in islice(told, 3):
        verdict.violations.append(f"a good event was refused: {name[:12]}: {ledger.refused[name]}")


def _check_jobs(verdict: Verdict, books: Bookkeeper, jobs: list[str]) -> None:
    """That each has ended, and that there is no other. (The books end none twice: who did would hold other coins.)"""
    for job in jobs:
        how = "".join(books.ends.get(job, [])) or "no end"
        verdict.jobs[how] = verdict.jobs.get(how, 0) + 1
        if how == "no end":
            verdict.violations.append(f"job {job[:12]} has no end")
    unasked = books.ends.keys() - set(jobs)
    verdict.violations += [f"nobody asked for job {job[:12]}" for job in sorted(unasked)]


def _check_audit(
    verdict: Verdict, devnet: Devnet, path: Path, books: Bookkeeper, hashes: dict[int, tuple[str, str]]
) -> None:
    roots: dict[int, str] = {}
    report = audit_file(path, threads=2, roots=roots.__setitem__)
    if not report.passed:
        verdict.violations.append("the audit does not pass")
    other = [height for height, (_, root) in hashes.items() if roots.get(height) != root]
    verdict.divergent += len(other)
    if other or len(roots) != len(hashes):
        verdict.violations.append(f"the audit finds other roots at {len(other)} heights, and {len(roots)} blocks")
    supply = report.supply
    held = (books.balances[BURNED], -books.balances[GENESIS])
    if (supply.burned, supply.genesis) != held:
        verdict.violations.append(f"the books say {held} was burned and made, the audit {supply}")
    if sum(books.balances.values()):
        verdict.violations.append("the books do not balance")


def _check_nodes(verdict: Verdict, devnet: Devnet, hashes: dict[int, tuple[str, str]]) -> None:
    """Every full node's own rows, block by block."""
    if len(read_models(devnet)) != devnet.plan.proposers + 1:
        verdict.violations.append(f"only {list(read_models(devnet))} have rows")
    for name, path in read_models(devnet).items():
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            rows: list[tuple[int, bytes, bytes]] = db.execute("SELECT height, hash, header FROM blocks").fetchall()
        other = [row[0] for row in rows if hashes.get(row[0]) != _of_row(row)]
        verdict.divergent += len(other)
        verdict.nodes.append(f"{name}: {len(rows)} blocks")
        if other:
            verdict.violations.append(f"{name} holds other blocks than the log at heights {other[:5]}")
        if len(rows) != len(hashes):
            verdict.violations.append(f"{name} holds {len(rows)} of {len(hashes)} blocks")


def _check_accounts(verdict: Verdict, devnet: Devnet, books: Bookkeeper) -> None:
    """Every node's own accounts and jobs against the books: an event with two effects, or with none, shows in them."""
    addresses = {name for name in books.balances.keys() | books.nonces.keys() if name.startswith("U")}
    verdict.accounts = len(addresses)
    states = {job: record["state"] for job, record in books.jobs.items()}
    for name, path in read_models(devnet).items():
        held, found = _accounts_and_jobs(path)
        for address in sorted(addresses | held.keys()):
            has, should = held.get(address, (0, 0)), (books.balances[address], books.nonces[address])
            if has != should:
                verdict.violations.append(
                    f"{name}: {address[:8]} has {has[0]}, nonce {has[1]}; by the books {should[0]}, {should[1]}"
                )
        other = sorted(job for job in found.keys() | states.keys() if found.get(job) != states.get(job))
        verdict.violations += [f"{name}: job {job[:12]} is not as in the books" for job in other[:3]]


def _accounts_and_jobs(path: Path) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Balance and nonce by address, and the situation of each job."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT substr(key, 9), value FROM records WHERE key LIKE 'account/%'").fetchall()
        jobs = db.execute("SELECT lower(hex(id)), situation FROM jobs").fetchall()
    accounts = {address: json.loads(value) for address, value in rows}
    return {address: (each["balance"], each["nonce"]) for address, each in accounts.items()}, dict(jobs)


def _of_row(row: tuple[int, bytes, bytes]) -> tuple[str, str]:
    header: dict[str, Any] = json.loads(row[2])
    return row[1].hex(), header["state_root"]
