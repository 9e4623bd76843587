"""What ``assay doctor`` looks at on the other end of the line."""

import time
from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Struct

from actors.command_line.network import Line
from bus.connection import ApiError, Connection
from bus.port import Limits
from bus.streams import GENESIS, difference, stream_settings
from events import subjects
from events.errors import AssayError, Unreachable
from schemas.queries import MinersAnswer, MinersQuestion, Question, StatusAnswer

LARGEST_SKEW_MS: Final = 1_000


class Finding(Struct, frozen=True, kw_only=True):
    """What was looked at, and what to do where it is not well."""

    check: str
    result: Literal["ok", "warning", "failed"]
    finding: str
    fix: str = ""


async def look(line: Line) -> list[Finding]:
    """All checks over an open line; one that fails by an error is a finding too."""
    findings = [Finding(check="nats", result="ok", finding=f"{line.place.url}, chain {line.place.chain}")]
    for name, check in (("jetstream", _streams), ("clock", _clock), ("nodes", _nodes), ("miners", _miners)):
        try:
            findings.append(await check(line))
        except AssayError as error:
            findings.append(Finding(check=name, result="failed", finding=str(error), fix=error.hint))
    return findings


async def _stream_info(line: Line, kind: str) -> tuple[dict[str, Any], int]:
    """What the server says of a stream, and by how much its clock is ahead of ours, in milliseconds."""
    connection = await Connection.open(line.place.url, "assay-doctor")
    try:
        before = time.time_ns()
        info = await connection.api(f"STREAM.INFO.{subjects.stream(line.place.chain, kind)}")
        after = time.time_ns()
    except ApiError as error:
        hint = "Check the name of the chain, and that its nodes run: the first of them makes the streams."
        raise Unreachable(f"no stream {kind} of chain {line.place.chain}", why=error.description, hint=hint) from error
    finally:
        await connection.close()
    stamp = datetime.fromisoformat(info["ts"])
    theirs_ms = int(stamp.timestamp() * 1_000)
    return info, theirs_ms - (before + after) // 2_000_000


async def _streams(line: Line) -> Finding:
    for kind, wanted in stream_settings(line.place.chain, Limits()).items():
        info, _ = await _stream_info(line, kind)
        found = info["config"]
        genesis = found.get("metadata", {}).get(GENESIS)
        setting = difference(wanted | {"metadata": {GENESIS: genesis}}, found)
        if setting is not None:
            return Finding(
                check="jetstream",
                result="failed",
                finding=f"stream {found['name']}: {setting}",
                fix="Nodes refuse to start on it: set the stream back, or start the nodes with these limits.",
            )
    return Finding(check="jetstream", result="ok", finding="all settings of all streams are ours")


async def _clock(line: Line) -> Finding:
    _, ahead_ms = await _stream_info(line, "CHAIN")
    finding = f"the server's is {abs(ahead_ms)} ms {'ahead' if ahead_ms >= 0 else 'behind'}"
    if abs(ahead_ms) <= LARGEST_SKEW_MS:
        return Finding(check="clock", result="ok", finding=finding)
    fix = "Synchronise the clocks (chrony, systemd-timesyncd): blocks far from the server's time are refused."
    return Finding(check="clock", result="failed", finding=finding, fix=fix)


async def _nodes(line: Line) -> Finding:
    status = await line.ask("status", Question(), StatusAnswer)
    behind = await line.bus.chain_end() - status.position
    messages = "1 message" if behind == 1 else f"{behind} messages"
    finding = f"height {status.height}, genesis {status.genesis[:16]}…, {messages} behind the log"
    if behind < 1_000:
        return Finding(check="nodes", result="ok", finding=finding)
    return Finding(check="nodes", result="warning", finding=finding, fix="The node that answered is catching up.")


async def _miners(line: Line) -> Finding:
    found = await line.ask("miners", MinersQuestion(), MinersAnswer)
    free = sum(max(0, entry.miner.capacity - entry.miner.running) for entry in found.miners)
    finding = f"{len(found.miners)} registered, {free} {'place' if free == 1 else 'places'} free"
    if found.miners:
        return Finding(check="miners", result="ok", finding=finding)
    fix = "Jobs wait until one registers: `assay run miner`."
    return Finding(check="miners", result="warning", finding=finding, fix=fix)
