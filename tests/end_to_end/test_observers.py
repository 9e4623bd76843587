"""Whoever reads the log finds the same state, whenever it starts, however it is interrupted, wherever it runs."""

import asyncio
import locale
import os
import sys
from pathlib import Path

from actors.devnet import Devnet
from actors.devnet_files import Plan
from schemas.events import TransferSent
from tests.end_to_end.client import Client, Follower, connect, export_log, seeded_work

PROGRAM = Path(__file__).with_name("observer.py")
ROOT = Path(__file__).resolve().parents[2]


def installed(wanted: str) -> str:
    """This locale where the machine has it, else that of every machine."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        return locale.setlocale(locale.LC_ALL, wanted)
    except locale.Error:
        return "C.UTF-8"
    finally:
        locale.setlocale(locale.LC_ALL, before)


# Text files are ASCII there unless they say otherwise.
HERE = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ISTANBUL = {"PYTHONHASHSEED": "4242", "TZ": "Europe/Istanbul", "LC_ALL": installed("tr_TR.UTF-8")}
KOLKATA = {"PYTHONHASHSEED": "99", "TZ": "Asia/Kolkata", "LC_ALL": installed("hi_IN.UTF-8")}
CHATHAM = {"PYTHONHASHSEED": "random", "TZ": "Pacific/Chatham", "LC_ALL": "C.UTF-8"}
JOBS = 24
PATIENCE_S = 30.0


class Observer:
    """A process that runs ``observer.py``, and what it has written."""

    def __init__(self, roots: Path) -> None:
        self.roots = roots
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, surroundings: dict[str, str], *arguments: object) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            *map(str, arguments),
            str(self.roots),
            env=os.environ | {"PYTHONPATH": str(ROOT)} | surroundings,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )

    async def ended(self) -> None:
        """Returns when the process has ended well by itself."""
        assert self._process is not None
        _, errors = await self._process.communicate()
        assert self._process.returncode == 0, errors.decode()

    async def kill(self) -> None:
        """Kills the process if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()

    def lines(self) -> list[tuple[int, str]]:
        """Height and root of each line that is whole."""
        if not self.roots.exists():
            return []
        whole, _, _ = self.roots.read_text().rpartition("\n")
        return [(int(height), root) for height, root in map(str.split, whole.splitlines())]

    async def reached(self, height: int) -> None:
        """Returns when it has written the root of this height."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(found >= height for found, _ in self.lines()):
                assert self._process is not None
                assert self._process.returncode is None, (await self._process.communicate())[1].decode()
                await asyncio.sleep(0.02)


def roots_of(lines: list[tuple[int, str]]) -> dict[int, str]:
    """By height; a height that was met twice has the same root both times."""
    roots = dict(lines)
    assert len(roots) == len(set(lines))
    return roots


async def some_history(client: Client, follower: Follower, friend: str, count: int) -> None:
    """Jobs, transfers, and events that fail."""
    jobs = []
    for number in range(count):
        job = client.job(seeded_work(client.nonce))
        await client.submit(
            job,
            client.sign(TransferSent, to=friend, amount=1 + number),
            client.sign(TransferSent, to=client.address, amount=1),
            client.sign(TransferSent, to=friend, amount=10**15),
        )
        jobs.append(job.id)
    await follower.until_ended(jobs, PATIENCE_S)


async def test_all_readers_find_the_same_state_root_at_every_height(tmp_path: Path) -> None:
    """One that was killed and went on, one that started late, and audits of the export, under different hash seeds,
    time zones and locales."""
    early, late, auditor = (Observer(tmp_path / f"{name}.roots") for name in ("early", "late", "auditor"))
    async with Devnet(tmp_path / "net", Plan(wallet=False)) as devnet:
        bus = await connect(devnet)
        genesis, export = devnet.files.genesis_file, tmp_path / "log.ndjson"
        try:
            async with Follower(bus, devnet) as follower:
                client, friend = Client(bus, devnet.key()), devnet.key("miner-1").address
                await early.start(HERE, "follow", devnet.url, genesis, tmp_path / "early.db")
                await some_history(client, follower, friend, JOBS // 2)
                await early.reached(follower.books.height // 2)
                await early.kill()
                before = early.lines()
                await some_history(client, follower, friend, JOBS // 2)
                end = follower.books.height
                await late.start(ISTANBUL, "follow", devnet.url, genesis, tmp_path / "late.db")
                await early.start(KOLKATA, "follow", devnet.url, genesis, tmp_path / "early.db")
                await export_log(bus, devnet, export)
                await auditor.start(CHATHAM, "audit", export)
                await asyncio.gather(early.reached(end), late.reached(end), auditor.ended())
                said = {block["header"]["height"]: block["header"]["state_root"] for _, block in follower.heard}
        finally:
            await asyncio.gather(early.kill(), late.kill(), auditor.kill())
            await bus.close()

    after = early.lines()[len(before) :]
    assert 1 < after[0][0] <= before[-1][0] + 1, "it went on from its saved position"
    assert late.lines()[0][0] == 1, "the other one began at the beginning"
    assert sorted(said) == list(range(1, len(said) + 1))
    for observer in (early, late, auditor):
        found = roots_of(observer.lines())
        assert {height: found[height] for height in said} == said
