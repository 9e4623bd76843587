"""The tour that ``assay demo`` gives: one real job from a stranger's client to an audited log."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from actors.command_line.logs import audit_export, export_log
from actors.command_line.network import Line, connect
from actors.command_line.options import Network
from actors.command_line.output import Output, asy, plain, styled
from actors.command_line.sentences import short
from actors.devnet import Devnet
from actors.devnet_files import CLIENT, COORDINATOR
from events.errors import JobUnsuccessful, NotFound, VerificationFailed
from projections.audit import AuditReport
from schemas import queries

SIDE: Final = 1_000
CLIENT_SCRIPT: Final = Path(__file__).resolve().parents[1] / "deploy" / "examples" / "plain_client.py"
CLIENT_TIMEOUT_S: Final = 60


async def run_demo(network: Devnet, output: Output) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs on a network that is up; what it found, for programs and for people. Raises JobUnsuccessful,
    VerificationFailed, and whatever goes wrong."""
    began = time.monotonic()
    for name, pid in network.pids().items():
        output.note(f"  process {pid}  {name}")
    with tempfile.TemporaryDirectory(prefix="assay-demo-") as folder:
        directory = Path(folder)
        async with connect(Network(url=network.url, chain=network.chain)) as line:
            before = await _balances(line, network)
            _headline(output, f"A plain NATS client wants the product of two {SIDE}×{SIDE} matrices of int8")
            job = await _run_client(network, output, directory)
            equal = await asyncio.to_thread(_equals_numpy, directory)
            receipt = await line.ask("receipt", queries.JobQuestion(job=job), queries.ReceiptAnswer)
            settled = receipt.inclusion.block.header.height
            block = await line.ask("block", queries.BlockQuestion(height=settled), queries.BlockAnswer)
            after = await _balances(line, network)
            _headline(output, "The log is exported, and executed again from genesis")
            log = directory / "log.ndjson"
            await export_log(line, output, network.genesis, log)
            report = await asyncio.to_thread(audit_export, log, output, network.genesis)
        took_ms = int((time.monotonic() - began) * 1_000)
        _headline(output, "Done")
        value = {
            "job": job,
            "equals_numpy": equal,
            "receipt": receipt.receipt,
            "block": block.block,
            "balances": {"before": before, "after": after},
            "audit": report,
            "took_ms": took_ms,
        }
    if not equal:
        raise VerificationFailed("the result is not NumPy's", hint="This must not happen; keep the log and report it.")
    return value, _facts(job, receipt, block, before, after, report, took_ms)


def _headline(output: Output, text: str) -> None:
    output.note("\n" + styled(text, "1", sys.stderr))


async def _balances(line: Line, network: Devnet) -> dict[str, int]:
    names = [name for name in network.files.keys if name in {CLIENT, COORDINATOR} or name.startswith("miner-")]
    balances = {}
    for name in names:
        question = queries.AccountQuestion(address=network.key(name).address)
        balances[name] = (await line.ask("account", question, queries.AccountAnswer)).balance
    return balances


async def _run_client(network: Devnet, output: Output, directory: Path) -> str:
    """Runs the plain client, passes on what it says, and returns the job's id. Raises JobUnsuccessful, NotFound."""
    if not CLIENT_SCRIPT.is_file():
        raise NotFound(f"{CLIENT_SCRIPT} is missing", hint="Run the demo from a checkout of the sources.")
    generator = np.random.default_rng()
    for name in ("a", "b"):
        matrix = generator.integers(-128, 128, (SIDE, SIDE), dtype=np.int8)
        np.save(directory / f"{name}.npy", matrix)
    files = [str(directory / name) for name in ("a.npy", "b.npy", "result.npy")]
    # Isolated, so that neither this directory nor PYTHONPATH changes what it imports.
    arguments = ["-I", str(CLIENT_SCRIPT), network.url, network.chain, str(network.files.seed_file(CLIENT)), *files]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    if process.stdout is None:
        raise AssertionError("the client was started without a pipe")
    job = ""
    try:
        async with asyncio.timeout(CLIENT_TIMEOUT_S):
            async for line in process.stdout:
                text = line.decode("utf-8", "replace").rstrip("\n")
                output.note(f"  client {process.pid}  {text}")
                if text.startswith("job "):
                    job = text.removeprefix("job ")
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0 or not job:
        raise JobUnsuccessful(
            "the client did not get its result", why=f"exit code {code}", hint="Its last lines are above."
        )
    return job


def _equals_numpy(directory: Path) -> bool:
    a, b, result = (np.load(directory / f"{name}.npy", allow_pickle=False) for name in ("a", "b", "result"))
    return bool(result.dtype == np.int32 and np.array_equal(result, a.astype(np.float64) @ b.astype(np.float64)))


def _facts(
    job: str,
    answer: queries.ReceiptAnswer,
    block: queries.BlockAnswer,
    before: dict[str, int],
    after: dict[str, int],
    report: AuditReport,
    took_ms: int,
) -> dict[str, Any]:
    header, receipt = block.block.header, plain(answer.receipt.receipt)
    width = max(len(name) for name in receipt)
    balances = [
        f"{name:<12} {asy(before[name]):>16}  {asy(after[name]):>16}  {_change(after[name] - before[name])}"
        for name in before
    ]
    totals = report.totals
    return {
        "result": f"{SIDE}×{SIDE} int32, verified, equal to NumPy's",
        "receipt": "\n".join(f"{name:<{width}}  {value}" for name, value in receipt.items()),
        "signed by": "\n".join(f"{entry.signer_role} {entry.key_id}" for entry in answer.receipt.signatures),
        "block": f"height {header.height}, {block.block.hash}\nproposer {short(header.proposer)}, "
        f"{len(block.block.votes)} votes, state root {header.state_root[:16]}…",
        "balances": "\n".join([f"{'':<12} {'before':>16}  {'after':>16}", *balances]),
        "audit": f"passed: {totals.events} events in {totals.height} blocks, {totals.votes} votes executed again; "
        f"state root {totals.state_root[:16]}…",
        "took": f"{took_ms // 1_000}.{took_ms % 1_000 // 100} s",
        "job": job,
    }


def _change(amount: int) -> str:
    return f"{'+' if amount >= 0 else '-'}{asy(abs(amount))}"
