"""What people wait for on one machine: the command, the server, a job's process, the end of a devnet.

The median of a few runs, each beside the start of a bare interpreter.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rows import Row

from actors.devnet import Devnet
from actors.devnet_files import Plan
from actors.sandbox import Finished, Limits, Sandbox
from actors.services.matmul import memory_needed, result_size
from bus.server import EmbeddedServer
from schemas.services import MatmulInt8, SeededMatrix

RUNS = 9
JOBS = 30
REFERENCE = "interpreter_start_ms"
_SEEDED = SeededMatrix(rows=16, columns=16, seed="ab" * 32)
WORK = MatmulInt8(a=_SEEDED, b=_SEEDED)
LIMITS = Limits(wall_ms=60_000, memory_bytes=memory_needed(WORK), output_bytes=result_size(WORK))


async def _median_ms(count: int, once: Callable[[], Awaitable[float]]) -> float:
    return median([await once() for _ in range(count)]) * 1_000


def _command(*words: str) -> Callable[[], Awaitable[float]]:
    def run() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    return lambda: asyncio.to_thread(run)


async def _server() -> float:
    """From nothing to a server that takes connections, its data thrown away."""
    server = EmbeddedServer()
    began = time.perf_counter()
    async with server:
        return time.perf_counter() - began


async def _devnet_stop() -> float:
    """The orderly end of seven processes and the server."""
    devnet = Devnet(plan=Plan(log_level="warning"))
    await devnet.start()
    began = time.perf_counter()
    await devnet.stop()
    return time.perf_counter() - began


async def _job_ms() -> float:
    """A tiny job in a jailed process of its own, with everything loaded beforehand."""
    with TemporaryDirectory(prefix="assay-bench-") as directory:
        places = iter(range(JOBS + 1))

        async with Sandbox(capacity=1) as sandbox:

            async def job() -> float:
                place = Path(directory, str(next(places)))
                place.mkdir()
                began = time.perf_counter()
                outcome = await sandbox.run(WORK, {}, place, LIMITS)
                took_s = time.perf_counter() - began
                if not isinstance(outcome, Finished):
                    raise RuntimeError(f"the job did not finish: {outcome}")
                return took_s

            await job()
            return await _median_ms(JOBS, job)


async def measure() -> list[Row]:
    """The rows of waiting, all in milliseconds."""
    found = {
        REFERENCE: await _median_ms(RUNS, _command("-c", "")),
        "command_overview_ms": await _median_ms(RUNS, _command("-m", "actors.command_line", "--help")),
        "server_ready_ms": await _median_ms(RUNS, _server),
        "sandbox_job_ms": await _job_ms(),
        "devnet_stop_ms": await _median_ms(3, _devnet_stop),
    }
    return [Row(name, value, "ms", REFERENCE) for name, value in found.items()]
