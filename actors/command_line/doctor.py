"""``assay doctor``: what works here and what does not, each with its remedy."""

import shutil
import stat
import sys
from pathlib import Path
from typing import Final

from actors.command_line.context import home, keystore_directory, load_context
from actors.command_line.doctor_gpu import gpu_findings
from actors.command_line.doctor_network import Finding, look
from actors.command_line.network import connect
from actors.command_line.options import DISPLAY, NETWORK, Display, Network
from actors.command_line.output import Output, only_errors
from events.errors import AssayError

LEAST_DISK_BYTES: Final = 2 * 2**30


async def doctor(*, network: Network = NETWORK, display: Display = DISPLAY) -> int:
    """Check this machine and the network; exit code 1 when something has to be mended."""
    output = Output(display)
    only_errors()
    findings = [_python(), _nats_server(), *_keys(), _disk(), *gpu_findings(), *await _network(network)]
    marks = {"ok": "ok", "warning": "warn", "failed": "FAIL"}
    rows = [{"": marks[found.result], "check": found.check, "finding": found.finding} for found in findings]
    output.many(findings, rows)
    for found in findings:
        if found.fix and output.is_for_people:
            output.note(f"{found.check}: {found.fix}")
    return 1 if any(found.result == "failed" for found in findings) else 0


def _python() -> Finding:
    return Finding(check="python", result="ok", finding=".".join(map(str, sys.version_info[:3])))


def _nats_server() -> Finding:
    from bus.server import find_binary, version_of

    try:
        binary = find_binary()
    except AssayError as error:
        return Finding(check="nats-server", result="failed", finding=error.what, fix=error.hint)
    version = ".".join(map(str, version_of(binary)))
    return Finding(check="nats-server", result="ok", finding=f"{version} at {binary}")


def _keys() -> list[Finding]:
    findings = [_keystore()]
    context = load_context()
    if context is not None and isinstance(context.seed_file, str):
        findings.append(_seed_file(context.seed_file))
    return findings


def _keystore() -> Finding:
    from actors.keystore import Keystore

    directory = keystore_directory()
    if not directory.exists():
        return Finding(check="keystore", result="ok", finding=f"none yet at {directory}")
    try:
        listing = Keystore(directory).wallets()
    except AssayError as error:
        return Finding(check="keystore", result="failed", finding=str(error), fix=error.hint)
    if listing.faults:
        first = listing.faults[0]
        return Finding(check="keystore", result="failed", finding=str(first), fix=first.hint)
    count = len(listing.wallets)
    return Finding(
        check="keystore", result="ok", finding=f"{count} {'wallet' if count == 1 else 'wallets'} in {directory}"
    )


def _seed_file(path: str) -> Finding:
    try:
        mode = stat.S_IMODE(Path(path).stat().st_mode)
    except OSError as error:
        return Finding(
            check="seed file",
            result="failed",
            finding=f"{path}: {error.strerror}",
            fix="Start the devnet again, or remove the context.",
        )
    if mode & 0o077:
        return Finding(
            check="seed file", result="failed", finding=f"{path} has mode {mode:03o}", fix=f"chmod 600 {path}"
        )
    return Finding(check="seed file", result="ok", finding=f"{path}, mode {mode:03o}")


def _disk() -> Finding:
    place = home()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    finding = f"{free / 2**30:.1f} GiB free at {place}"
    if free >= LEAST_DISK_BYTES:
        return Finding(check="disk", result="ok", finding=finding)
    return Finding(check="disk", result="warning", finding=finding, fix="Make room: the log and the blobs only grow.")


async def _network(network: Network) -> list[Finding]:
    try:
        async with connect(network) as line:
            return await look(line)
    except AssayError as error:
        return [Finding(check="nats", result="failed", finding=str(error), fix=error.hint)]
