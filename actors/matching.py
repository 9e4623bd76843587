"""Which miner may take a job, in which order, and why a job waits. Pure: the coordinator, the command line and every
node come to the same answer from the same state.

The rules refuse an assignment for the same reasons (`projections.miners.cannot_take`); here they come in an order that
explains best. A miner may take a job when it offers the service, has not had the job before, is among the miners that
the job names (if it names any), is trusted by the chain's own terms (not banned, bonded, attested), has a device
with the memory that is asked for, asks no more than the escrow, and has a place free.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from projections.bonds import attested_of, standing_of, unattested, untrustworthy
from projections.miners import memory_of, unit_price_of
from schemas.events import Requirement
from schemas.genesis import Trust
from schemas.refusals import code_of
from schemas.services import Work, service_of, units_of
from schemas.state import (
    Assigned,
    Cancelled,
    Committed,
    Job,
    Miner,
    Open,
    Refunded,
    Revealed,
    Settled,
)


class Wanted(Struct, frozen=True, kw_only=True):
    """What a job asks of a miner; also known of a job that has not been submitted yet."""

    work: Work
    escrow: int
    requirement: Requirement
    excluded: frozenset[str] = frozenset()
    trust: Trust | UnsetType = UNSET


class Waiting(Struct, frozen=True, kw_only=True):
    """Where a job stands: a code for programs, a sentence for people."""

    code: str
    sentence: str


Entry: TypeAlias = tuple[str, Miner]
_Test: TypeAlias = Callable[[Wanted, str, Miner], bool]


# Why a job's escrow went back; those of miners and results are about the last attempt.
_REFUNDED: Final = {
    "BAD_INPUT": "an input is not what the work says of it",
    "BLOB_UNAVAILABLE": "an input could not be fetched",
    "MINER_FAILED": "the last miner to try gave up",
    "RESULT_MALFORMED": "the file of the last result is not of the form that the service has",
    "RESULT_UNAVAILABLE": "the last result could not be fetched",
    "RESULT_WRONG": "the last result was wrong",
    "EXPIRED": "no miner took it within its lifetime",
    "DEADLINE_MISSED": "the last miner to try did not commit to a result in time",
    "RESULT_NOT_REVEALED": "the last miner to try did not hand its result out in time",
    "NOT_VERIFIED": "no coordinator verified the result in time",
}


def wanted_of(job: Job, trust: Trust | UnsetType = UNSET) -> Wanted:
    """What a submitted job asks for, on a chain with these trust parameters. Miners that have had it do not get it
    again."""
    excluded = frozenset(attempt.miner for attempt in job.attempts)
    return Wanted(work=job.work, escrow=job.escrow, requirement=job.requirement, excluded=excluded, trust=trust)


def price_of(work: Work, miner: Miner) -> int | None:
    """What the miner asks for the work in micro-ASY; None where it does not offer the service."""
    unit_price = unit_price_of(miner, service_of(work))
    return None if unit_price is None else unit_price * units_of(work)


def eligible(job: Job | Wanted, miners: Mapping[str, Miner], trust: Trust | UnsetType = UNSET) -> list[tuple[str, int]]:
    """Addresses and prices of the miners that may take the job now: cheapest first, then most places free, then by
    address."""
    wanted = wanted_of(job, trust) if isinstance(job, Job) else job
    remaining: Iterable[Entry] = miners.items()
    for _, test in _TESTS:
        remaining = _passing(wanted, remaining, test)
    ranked = sorted(
        remaining, key=lambda entry: (_price(wanted, entry[1]), entry[1].running - entry[1].capacity, entry[0])
    )
    return [(address, _price(wanted, miner)) for address, miner in ranked]


def why_waiting(job: Job, miners: Mapping[str, Miner], trust: Trust | UnsetType = UNSET) -> Waiting:
    """Why the job is where it is."""
    match job.situation:
        case Open():
            return why_unmatched(wanted_of(job, trust), miners)
        case Assigned(assignment=assignment):
            return Waiting(code="RUNNING", sentence=f"Miner {assignment.miner} is computing it.")
        case Committed(assignment=assignment):
            return Waiting(
                code="WAITING_FOR_REVEAL",
                sentence=f"Miner {assignment.miner} is bound to a result and has yet to hand it out.",
            )
        case Revealed():
            return Waiting(
                code="WAITING_FOR_VERDICT", sentence="The result can be fetched; a coordinator has yet to verify it."
            )
        case Settled(assignment=assignment):
            return Waiting(code="ENDED_SETTLED", sentence=f"It was verified, and miner {assignment.miner} was paid.")
        case Refunded(reason=reason):
            said = f"{reason}, {_REFUNDED[reason]}" if reason in _REFUNDED else reason
            return Waiting(code="ENDED_REFUNDED", sentence=f"The escrow went back to the client: {said}.")
        case Cancelled():
            return Waiting(code="ENDED_CANCELLED", sentence="Its owner withdrew it, and the escrow went back.")


def why_unmatched(wanted: Wanted, miners: Mapping[str, Miner]) -> Waiting:
    """Why no miner can take the work, or WAITING_FOR_COORDINATOR where one can.

    The code is that of the first requirement that none of the miners left over by those before it meets.
    """
    remaining = list(miners.items())
    for code, test in _TESTS:
        passing = _passing(wanted, remaining, test)
        if not passing:
            return Waiting(code=code, sentence=_SENTENCES[code](wanted, remaining))
        remaining = passing
    sentence = f"{_counted(remaining)} can take it; a coordinator has yet to assign it."
    return Waiting(code="WAITING_FOR_COORDINATOR", sentence=sentence)


def _passing(wanted: Wanted, miners: Iterable[Entry], test: _Test) -> list[Entry]:
    return [(address, miner) for address, miner in miners if test(wanted, address, miner)]


def _price(wanted: Wanted, miner: Miner) -> int:
    price = price_of(wanted.work, miner)
    if price is None:
        raise AssertionError("a miner without the service has passed the test for it")
    return price


def _offers_service(wanted: Wanted, _address: str, miner: Miner) -> bool:
    return price_of(wanted.work, miner) is not None


def _is_admitted(wanted: Wanted, address: str, _miner: Miner) -> bool:
    named = wanted.requirement.miners
    return address not in wanted.excluded and (named is UNSET or address in named)


def _is_free_of_bans(_wanted: Wanted, _address: str, miner: Miner) -> bool:
    return not standing_of(miner).banned


def _has_bond(wanted: Wanted, _address: str, miner: Miner) -> bool:
    return wanted.trust is UNSET or standing_of(miner).bond >= wanted.trust.min_bond


def _is_attested(wanted: Wanted, address: str, miner: Miner) -> bool:
    """Bans and bonds have been looked at before."""
    if untrustworthy(wanted.trust, address, miner) is not None:
        return False
    return unattested(wanted.requirement, address, miner) is None


def _has_memory(wanted: Wanted, _address: str, miner: Miner) -> bool:
    return memory_of(miner, wanted.trust) >= wanted.requirement.memory_mib


def _is_affordable(wanted: Wanted, _address: str, miner: Miner) -> bool:
    return _price(wanted, miner) <= wanted.escrow


def _has_place(_wanted: Wanted, _address: str, miner: Miner) -> bool:
    return miner.running < miner.capacity


_TESTS: Final[tuple[tuple[str, _Test], ...]] = (
    ("NO_MINER_FOR_SERVICE", _offers_service),
    ("ALL_MINERS_EXCLUDED", _is_admitted),
    ("ALL_MINERS_BANNED", _is_free_of_bans),
    ("NO_MINER_WITH_BOND", _has_bond),
    ("NO_MINER_ATTESTED", _is_attested),
    ("NO_MINER_WITH_MEMORY", _has_memory),
    ("PRICE_TOO_LOW", _is_affordable),
    ("ALL_MINERS_BUSY", _has_place),
)


def _no_service(wanted: Wanted, miners: list[Entry]) -> str:
    if len(miners) < 2:
        return f"The only miner does not offer {service_of(wanted.work)}." if miners else "No miner has registered."
    return f"None of the {len(miners)} registered miners offers {service_of(wanted.work)}."


def _all_excluded(wanted: Wanted, miners: list[Entry]) -> str:
    tried, service = sum(address in wanted.excluded for address, _ in miners), service_of(wanted.work)
    if tried < len(miners):
        others = f"the job names others than the remaining {len(miners) - tried}"
        return f"Of {_counted(miners)} with {service}, {tried} tried and failed, and {others}."
    if tried == 1:
        return f"The only miner that offers {service} has tried and failed."
    return f"All {tried} miners that offer {service} have tried and failed."


def _all_banned(_wanted: Wanted, miners: list[Entry]) -> str:
    return f"Banned for too many wrong results: the {_counted(miners)} that could do it."


def _no_bond(wanted: Wanted, miners: list[Entry]) -> str:
    needed = 0 if isinstance(wanted.trust, UnsetType) else wanted.trust.min_bond
    highest = max(standing_of(miner).bond for _, miner in miners)
    return f"This chain asks miners to bond {needed} micro-ASY; the most that one of them has bonded is {highest}."


def _not_attested(wanted: Wanted, miners: list[Entry]) -> str:
    """The code of the best one's refusal, since the terms are several: points, grade, memory, speed."""
    address, best = max(miners, key=lambda entry: attested_of(entry[1]).score)
    found = attested_of(best)
    refusal = untrustworthy(wanted.trust, address, best) or unattested(wanted.requirement, address, best)
    if refusal is None:
        raise AssertionError(f"miner {address} is attested and was turned down")
    return (
        f"{code_of(refusal)}: of the {_counted(miners)} that could do it, the best has {found.score} points, grade "
        f"{found.grade}, {found.memory_mib} MiB and {found.performance} giga-operations per second; asked for are "
        f"{_asked_for(wanted)}."
    )


def _asked_for(wanted: Wanted) -> str:
    """What chain and job together ask of an attestation."""
    trust, job = wanted.trust, wanted.requirement
    points = 0 if isinstance(job.score, UnsetType) else job.score
    memory = performance = 0
    if not isinstance(trust, UnsetType):
        points, memory, performance = max(points, trust.min_score), trust.min_memory_mib, trust.min_performance
    grade = "" if isinstance(job.grade, UnsetType) else f"grade {job.grade}, "
    return f"{points} points, {grade}{memory} MiB and {performance} giga-operations per second"


def _no_memory(wanted: Wanted, miners: list[Entry]) -> str:
    largest = max(memory_of(miner, wanted.trust) for _, miner in miners)
    return f"The job asks for {wanted.requirement.memory_mib} MiB on one device; the largest offered has {largest} MiB."


def _too_cheap(wanted: Wanted, miners: list[Entry]) -> str:
    lowest = min(_price(wanted, miner) for _, miner in miners)
    return f"The cheapest miner that may take it asks {_asy(lowest)}; the escrow is {_asy(wanted.escrow)}."


def _asy(micro: int) -> str:
    return f"{Decimal(micro).scaleb(-6).normalize():,f} ASY"


def _all_busy(_wanted: Wanted, miners: list[Entry]) -> str:
    places = sum(miner.capacity for _, miner in miners)
    if places == 0:
        return f"The {_counted(miners)} that could do it: no new jobs at present."
    return f"The {_counted(miners)} that could do it: {places} of {places} places taken."


def _counted(miners: list[Entry]) -> str:
    return "1 miner" if len(miners) == 1 else f"{len(miners)} miners"


_SENTENCES: Final[dict[str, Callable[[Wanted, list[Entry]], str]]] = {
    "NO_MINER_FOR_SERVICE": _no_service,
    "ALL_MINERS_EXCLUDED": _all_excluded,
    "ALL_MINERS_BANNED": _all_banned,
    "NO_MINER_WITH_BOND": _no_bond,
    "NO_MINER_ATTESTED": _not_attested,
    "NO_MINER_WITH_MEMORY": _no_memory,
    "PRICE_TOO_LOW": _too_cheap,
    "ALL_MINERS_BUSY": _all_busy,
}
