"""``assay miner earnings``: what a miner has been paid, from the settled jobs in the log."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from msgspec import UNSET, Struct, UnsetType

from actors.command_line.network import Line, connect
from actors.command_line.options import DISPLAY, NETWORK, SIGNER, Address, Display, Network, Signer
from actors.command_line.output import Advance, Output, asy
from actors.command_line.secrets import own_address
from actors.command_line.sentences import event_of
from events.errors import BadInput, VerificationFailed
from events.keys import public_key_of
from projections.jobs import coordinators_share
from projections.receipts import receipt_of
from schemas import queries
from schemas.blocks import Applied
from schemas.events import JobSettled
from schemas.genesis import Parameters
from schemas.receipts import Receipt
from schemas.state import Miner, Settled
from schemas.values import MAX_SAFE_INTEGER

# Jobs asked for at once: a node lets few wait.
AT_ONCE: Final = 16
DAY_MS: Final = 86_400_000
EPOCH: Final = date(1970, 1, 1)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Payment(Struct, frozen=True):
    """A settled job of the miner. ``paid_ms`` is the time of the block that settled it."""

    paid_ms: int
    receipt: Receipt


class Earned(Struct, frozen=True, kw_only=True):
    """The settled jobs of one service, where asked for of one day in UTC. ``price`` is what the clients paid in
    micro-ASY, ``coordinators_share`` what coordinators got of it, ``earned`` what the miner got."""

    day: str | UnsetType = UNSET
    service: str
    jobs: int
    units: int
    unit_type: str
    price: int
    coordinators_share: int
    earned: int


class Total(Struct, frozen=True, kw_only=True):
    """The sums; units of different services have none."""

    jobs: int
    price: int
    coordinators_share: int
    earned: int


class Earnings(Struct, frozen=True, kw_only=True):
    """What a miner has earned in the blocks up to ``height``."""

    address: str
    height: int
    since: str | UnsetType = UNSET
    earnings: tuple[Earned, ...]
    total: Total


async def earnings(
    address: Address | None = None,
    /,
    *,
    by: Annotated[
        Literal["service", "day"], Parameter(help="A line for each service, or for each day in UTC and service.")
    ] = "service",
    since: Annotated[str | None, Parameter(help="Only what was paid from this day in UTC on, as 2026-01-31.")] = None,
    network: Network = NETWORK,
    signer: Signer = SIGNER,
    display: Display = DISPLAY,
) -> None:
    """What a miner has earned: its settled jobs, what the clients paid, the coordinators' share, and what was left.

    Without an address, your own. All of it follows from the log; the fees of the miner's own events are not counted.
    """
    owner = own_address(signer) if address is None else address
    public_key_of(owner)
    since_ms = 0 if since is None else _start_of(since)
    output = Output(display)
    async with connect(network) as line:
        question = queries.MinerQuestion(miner=owner)
        entry, height = await line.ask_at("miner", question, queries.MinerEntry)
        parameters = (await line.genesis()).parameters
        with output.progress("settled jobs", entry.miner.settled) as advance:
            payments = await _payments(line, owner, height, since_ms, advance)
    found = Earnings(
        address=owner,
        height=height,
        since=UNSET if since is None else since,
        earnings=earned_of(payments, parameters, by_day=by == "day"),
        total=total_of(payments, parameters),
    )
    if since is None:
        _check(found, entry.miner)
    _show(output, found)


def _start_of(day: str) -> int:
    """The first millisecond of a day in UTC. Raises BadInput."""
    try:
        if _DAY.fullmatch(day) is None:
            raise ValueError("a day is year, month and day, with hyphens")
        return (date.fromisoformat(day) - EPOCH).days * DAY_MS
    except ValueError as error:
        raise BadInput(f"{day[:80]!r} is not a day", why=str(error), hint="Write it as 2026-01-31.") from error


def _day_of(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms // 1_000, UTC):%Y-%m-%d}"


async def _payments(line: Line, address: str, height: int, since_ms: int, advance: Advance) -> list[Payment]:
    """What the miner was paid for up to ``height``, newest first: its history names the settled jobs."""
    payments: list[Payment] = []
    cursor: str | UnsetType = UNSET
    while True:
        question = queries.EventsQuestion(address=address, limit=queries.MAX_PAGE, cursor=cursor, min_height=height)
        page = await line.ask("events", question, queries.EventsAnswer)
        jobs = [
            event.job
            for entry in page.events
            if entry.height <= height and entry.time_ms >= since_ms and isinstance(entry.outcome, Applied)
            if isinstance(event := event_of(entry), JobSettled)
        ]
        for first in range(0, len(jobs), AT_ONCE):
            asked = (_payment(line, address, job, height) for job in jobs[first : first + AT_ONCE])
            payments += [payment for payment in await asyncio.gather(*asked) if payment is not None]
            advance(len(payments))
        if isinstance(page.next, UnsetType) or page.events[-1].time_ms < since_ms:
            return payments
        cursor = page.next


async def _payment(line: Line, address: str, job: str, height: int) -> Payment | None:
    """None for a job of another miner: the address was its client or coordinator."""
    question = queries.JobQuestion(job=job, min_height=height)
    found = (await line.ask("job", question, queries.JobAnswer)).job
    if not isinstance(found.situation, Settled):
        raise VerificationFailed(
            f"the nodes contradict each other about job {job}",
            why="one has it settled in a final block, another does not",
            hint="Ask again, or check the log with `assay audit`.",
            job=job,
        )
    receipt = receipt_of(job, found, line.place.chain)
    return Payment(found.situation.ended_ms, receipt) if receipt.provider == address else None


def earned_of(payments: Sequence[Payment], parameters: Parameters, *, by_day: bool) -> tuple[Earned, ...]:
    """The payments by service, or by day and service, in this order."""
    parts: dict[tuple[str, str], list[Payment]] = {}
    for payment in payments:
        day = _day_of(payment.paid_ms) if by_day else ""
        parts.setdefault((day, payment.receipt.service), []).append(payment)
    found = []
    for (day, service), part in sorted(parts.items()):
        total = total_of(part, parameters)
        found.append(
            Earned(
                day=day or UNSET,
                service=service,
                jobs=total.jobs,
                units=sum(payment.receipt.units for payment in part),
                unit_type=part[0].receipt.unit_type,
                price=total.price,
                coordinators_share=total.coordinators_share,
                earned=total.earned,
            )
        )
    return tuple(found)


def total_of(payments: Sequence[Payment], parameters: Parameters) -> Total:
    """The sums. A coordinator's share is rounded down for each job, as in its settlement."""
    price = sum(payment.receipt.price for payment in payments)
    share = sum(coordinators_share(payment.receipt.price, parameters) for payment in payments)
    return Total(jobs=len(payments), price=price, coordinators_share=share, earned=price - share)


def _check(found: Earnings, miner: Miner) -> None:
    """Raises VerificationFailed where the jobs do not add up to what the state has of the miner."""
    total = found.total
    if total.jobs == miner.settled and min(total.earned, MAX_SAFE_INTEGER) == miner.earned:
        return
    raise VerificationFailed(
        "the miner's jobs do not add up to its record",
        why=f"at height {found.height} they are {total.jobs} with {total.earned} micro-ASY, the record says "
        f"{miner.settled} with {miner.earned}",
        hint="A node is wrong: `assay audit` executes the log again.",
        jobs=total.jobs,
        earned=total.earned,
        height=found.height,
    )


def _show(output: Output, found: Earnings) -> None:
    total = found.total
    facts = {
        "jobs": total.jobs,
        "paid by clients": asy(total.price),
        "coordinators' share": asy(total.coordinators_share),
        "earned": asy(total.earned),
        "height": found.height,
    }
    if output.is_for_people:
        output.many(found.earnings, [_row(earned) for earned in found.earnings])
    output.one(found, facts)
    if not total.jobs:
        since = "" if isinstance(found.since, UnsetType) else f" since {found.since}"
        output.note(f"No job of this miner has been settled{since or ' yet'}.")


def _row(earned: Earned) -> dict[str, object]:
    day = {} if isinstance(earned.day, UnsetType) else {"day": earned.day}
    return {
        **day,
        "service": earned.service,
        "jobs": earned.jobs,
        "units": earned.units,
        "of": earned.unit_type,
        "price": asy(earned.price),
        "coordinators": asy(earned.coordinators_share),
        "earned": asy(earned.earned),
    }
