"""What docs/guarantees.md tells operators to do about a stalled height, with a real server and real validators."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import nats
import pytest

from actors.devnet import Devnet
from events import subjects
from tests.faults.single_server import AGAIN_S, check, loaded, plan, put_back, until_height, watched, work

FORGET = "DELETE FROM votes WHERE height > {0}; DELETE FROM kept WHERE height > {0} AND final = 0"


@pytest.fixture
def believing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes believe at once that the log is shorter than it was."""
    (tmp_path / "sitecustomize.py").write_text("from actors import lost_tail\n\nlost_tail.PATIENCE_MS = 0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


def read_models(devnet: Devnet) -> dict[str, Path]:
    """Of the proposers, by name. Only their own directories are looked through: the server moves its files about."""
    names = [name for name in devnet.plan.actors() if name.startswith("proposer-")]
    found = {name: list(devnet.directory.glob(f"data/{name}/*/read-model.db")) for name in names}
    return {name: path for name, (path,) in found.items()}


def newest_final(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        (height,) = database.execute("SELECT max(height) FROM blocks").fetchone()
    return int(height)


def run(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(script)


async def kill_actors(devnet: Devnet) -> None:
    for name in devnet.plan.actors():
        await devnet.kill(name, for_good=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("believing")
async def test_operators_end_the_stall_of_a_height(tmp_path: Path) -> None:
    """Two validators that are bound to different blocks decide nothing; without their votes and the stream of the log
    they put back all that was final, and go on."""
    async with Devnet(tmp_path / "net", plan(2)) as devnet:
        async with loaded(devnet) as (pulse, _):
            await kill_actors(devnet)
        bound_from = max(pulse.hashes) + 1
        for number, path in enumerate(read_models(devnet).values()):
            # As if the log had lost what each has voted for; what the log has decided meanwhile stays.
            votes = [f"({height}, '{number:064x}', x'')" for height in range(bound_from, bound_from + 3)]
            run(path, f"INSERT OR REPLACE INTO votes VALUES {', '.join(votes)}")
            run(path, f"DELETE FROM kept WHERE height >= {bound_from} AND final = 0")
        await asyncio.gather(*(devnet.restart(name) for name in read_models(devnet)))
        # Or there may be nothing to vote on. Not from the client of the check, which needs that nonce.
        wanted = asyncio.create_task(work(devnet, 1, "client-2"))
        async with watched(devnet) as pulse, asyncio.timeout(AGAIN_S):
            logs = [devnet.files.log_file(name) for name in read_models(devnet)]
            while not all("no second vote" in path.read_text() for path in logs):  # noqa: ASYNC110  files tell nobody
                await asyncio.sleep(0.1)
            newest = max(newest_final(path) for path in read_models(devnet).values())
            await until_height(pulse, newest)
            before = dict(pulse.hashes)
        wanted.cancel()
        await asyncio.gather(wanted, return_exceptions=True)
        await kill_actors(devnet)
        for path in read_models(devnet).values():
            run(path, FORGET.format(newest))
        connection = await nats.connect(devnet.url)
        await connection.jetstream().delete_stream(subjects.stream(devnet.chain, "CHAIN"))
        await connection.close()
        await asyncio.gather(*(devnet.restart(name) for name in read_models(devnet)))
        async with watched(devnet) as pulse:
            await until_height(pulse, newest)
        others = [name for name in devnet.plan.actors() if name not in read_models(devnet)]
        await asyncio.gather(*(devnet.restart(name) for name in others))
        await check(devnet, before, tmp_path)
        assert put_back(devnet) >= len(before)
