"""What a wallet signs for those who ask it: limits per request and per rolling day, and lists of what is allowed.

The decision is pure: policy, what was spent, the event and the time are arguments. Who may ask at all is not decided
here; that is the right to publish on the wallet's subject. All amounts are micro-ASY.
"""

import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from events.errors import BadInput
from events.keys import is_address
from schemas.events import (
    EVENT_TYPES,
    AttestationClaimed,
    Body,
    BondDeposited,
    BondUnlocked,
    BondWithdrawn,
    ExamCommitted,
    ExamJudged,
    ExamOpened,
    ExamRevealed,
    FaucetRequested,
    JobAssigned,
    JobCancelled,
    JobCommitted,
    JobFailed,
    JobRefunded,
    JobRevealed,
    JobSettled,
    JobSubmitted,
    MinerRegistered,
    TransferSent,
    type_of,
)
from schemas.services import service_of
from schemas.values import Address, Amount, Count, ServiceName, TimeMs

DAY_MS: Final = 24 * 3_600_000
MINUTE_MS: Final = 60_000
LARGEST_FILE: Final = 1_048_576


class InvalidPolicy(BadInput):
    """The policy file cannot be used; nothing is signed under a policy that is only half understood."""

    code = "INVALID_POLICY"


class Policy(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits of one wallet, as its TOML file gives them.

    Both limits are required and 0 allows nothing that costs. An absent list of recipients or services allows all of
    them, an empty one none. Recipients bind transfers only: the escrow of a job goes to the chain, and back when it
    is not earned.
    """

    request_limit: Amount
    daily_limit: Amount
    types: tuple[str, ...] = ("transfer.sent", "job.submitted", "job.cancelled")
    recipients: tuple[Address, ...] | UnsetType = UNSET
    services: tuple[ServiceName, ...] | UnsetType = UNSET


class Spent(Struct, frozen=True):
    """An amount that was signed away at a time."""

    time_ms: TimeMs
    amount: Amount


class Spending(Struct, frozen=True):
    """What was signed away of late, oldest first.

    Entries of one minute are added up under the latest of their times, so a day has at most some 1,440 entries,
    however busy it was. The sum of a window is therefore exact or, by less than a minute, too high; never too low.
    """

    entries: tuple[Spent, ...] = ()

    def of_day_before(self, now_ms: int) -> int:
        """The sum of the 24 hours up to now. An entry from the future, after the clock was set back, counts too."""
        return sum(entry.amount for entry in self.entries if entry.time_ms > now_ms - DAY_MS)

    def pruned(self, now_ms: int) -> "Spending":
        """Without the entries that no longer count."""
        return Spending(tuple(entry for entry in self.entries if entry.time_ms > now_ms - DAY_MS))

    def with_amount(self, amount: int, now_ms: int) -> "Spending":
        """With this amount signed away now, and pruned."""
        entries = self.pruned(now_ms).entries
        if entries and entries[-1].time_ms // MINUTE_MS == now_ms // MINUTE_MS:
            last = entries[-1]
            merged = Spent(max(last.time_ms, now_ms), last.amount + amount)
            return Spending((*entries[:-1], merged))
        return Spending((*entries, Spent(now_ms, amount)))


class Allowed(Struct, frozen=True):
    """Sign it, and remember `amount` as spent."""

    amount: Count


class Denied(Struct, frozen=True, kw_only=True, tag_field="code"):
    """Base of the reasons not to sign. On the wire the field `code` tells them apart, as in `schemas.refusals`."""

    @property
    def code(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def hint(self) -> str:
        """How to mend it, in a sentence."""
        return HINTS[self.code]


class OverRequestLimit(Denied, frozen=True, tag="OVER_REQUEST_LIMIT"):
    limit: Amount
    asked: Count


class OverDailyLimit(Denied, frozen=True, tag="OVER_DAILY_LIMIT"):
    """`spent` is what the 24 hours before have cost already."""

    limit: Amount
    spent: Count
    asked: Count


class RecipientNotAllowed(Denied, frozen=True, tag="RECIPIENT_NOT_ALLOWED"):
    recipient: Address


class TypeNotAllowed(Denied, frozen=True, tag="TYPE_NOT_ALLOWED"):
    """The type of the event, or the service that a job asks for, is not on the list; `field` says which of the two."""

    field: Literal["type", "service"]
    found: str
    allowed: tuple[str, ...]


HINTS: Final[dict[str, str]] = {
    "OVER_REQUEST_LIMIT": "Ask for less at once, or have the wallet's owner raise request_limit.",
    "OVER_DAILY_LIMIT": "Wait until older spending is 24 hours past, or have the wallet's owner raise daily_limit.",
    "RECIPIENT_NOT_ALLOWED": "Have the wallet's owner add the address to recipients.",
    "TYPE_NOT_ALLOWED": "Have the wallet's owner add it to types or services.",
}


def policy_from_toml(text: str, source: str) -> Policy:
    """Read a policy; `source` names the file in the error. Raises InvalidPolicy."""
    try:
        policy = msgspec.convert(tomllib.loads(text), Policy)
    except (ValueError, RecursionError) as error:  # an integer of too many digits is a bare ValueError
        raise _invalid(source, str(error)) from error
    known = tuple(str(record.__struct_config__.tag) for record in EVENT_TYPES)
    for name in policy.types:
        if name not in known:
            raise _invalid(source, f"{name!r} in types is not the type of an event; known are {', '.join(known)}")
    if policy.recipients is not UNSET:
        for address in policy.recipients:
            if address.startswith("U") and not is_address(address):
                raise _invalid(source, f"{address!r} in recipients is not an address: its checksum is wrong")
    return policy


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises InvalidPolicy, also when the file cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise _invalid(str(path), f"it is longer than {LARGEST_FILE} bytes")
        return policy_from_toml(content.decode(), str(path))
    except OSError as error:
        raise _invalid(str(path), error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _invalid(str(path), f"it is not UTF-8: {error.reason} at byte {error.start}") from error


def cost_of(body: Body, gas: int) -> int:
    """The most that signing this event can cost its sender: what it gives away or locks, and its fee at `gas` units."""
    fee = gas * body.gas_price
    match body:
        case TransferSent():
            return body.amount + fee
        case JobSubmitted():
            return body.escrow + fee
        case FaucetRequested():
            # Where the faucet gives nothing, or less than a high gas price takes, the fee comes out of the balance.
            return fee
        case BondDeposited():
            return body.amount + fee
        case MinerRegistered() | BondUnlocked() | BondWithdrawn() | AttestationClaimed():
            return fee
        case JobCancelled() | JobAssigned() | JobCommitted() | JobRevealed():
            return fee
        case ExamOpened() | ExamCommitted() | ExamRevealed() | ExamJudged():
            return fee
        case JobSettled() | JobFailed() | JobRefunded():
            return fee
        case _:
            # A new way to spend must not slip past the limits as if it cost its fee alone.
            raise AssertionError(f"no rule says what a {type_of(body)} costs")


def decide(policy: Policy, spending: Spending, body: Body, *, gas: int, now_ms: int) -> Allowed | Denied:
    """Whether to sign `body`, whose type uses at most `gas` units of gas, at the time `now_ms`."""
    if type_of(body) not in policy.types:
        return TypeNotAllowed(field="type", found=type_of(body), allowed=policy.types)
    if isinstance(body, JobSubmitted) and policy.services is not UNSET:
        service = service_of(body.work)
        if service not in policy.services:
            return TypeNotAllowed(field="service", found=service, allowed=policy.services)
    if isinstance(body, TransferSent) and policy.recipients is not UNSET and body.to not in policy.recipients:
        return RecipientNotAllowed(recipient=body.to)
    asked = cost_of(body, gas)
    if asked > policy.request_limit:
        return OverRequestLimit(limit=policy.request_limit, asked=asked)
    spent = spending.of_day_before(now_ms)
    if spent + asked > policy.daily_limit:
        return OverDailyLimit(limit=policy.daily_limit, spent=spent, asked=asked)
    return Allowed(asked)


def _invalid(source: str, why: str) -> InvalidPolicy:
    return InvalidPolicy(
        f"the wallet policy {source} cannot be used",
        why=why,
        hint="Give request_limit and daily_limit in micro-ASY; optional are types, recipients and services.",
    )
