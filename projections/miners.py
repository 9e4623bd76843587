"""Rules of miners: registration, whether one can take a job, and its counters."""

from typing import Any

import msgspec
from msgspec import UnsetType

from projections.bonds import attested_of, first_repeated, unattested, untrustworthy
from projections.state import Context, Draft, View
from schemas.events import MinerRegistered
from schemas.genesis import Trust
from schemas.refusals import (
    DuplicateEntry,
    MinerBusy,
    MinerExcluded,
    Refusal,
    RequirementNotMet,
    ServiceNotOffered,
    UnknownMiner,
)
from schemas.services import service_of, units_of
from schemas.state import Job, Miner
from schemas.values import MAX_SAFE_INTEGER


def miner_registered(draft: Draft, event: MinerRegistered, context: Context, event_id: str) -> Refusal | None:
    """Puts up the sender's offer, or replaces it. Counters and the time of the first registration stay."""
    repeated = first_repeated(offer.service for offer in event.offers)
    if repeated is not None:
        return DuplicateEntry(entry=repeated)
    known = draft.miner(event.sender)
    offered: dict[str, Any] = {
        "name": event.name,
        "capacity": event.capacity,
        "devices": event.devices,
        "offers": event.offers,
    }
    if known is None:
        miner = Miner(**offered, registered_ms=context.time_ms)
    else:
        miner = msgspec.structs.replace(known, **offered)
    draft.put_miner(event.sender, miner)
    return None


def unit_price_of(miner: Miner, service: str) -> int | None:
    """What the miner asks per unit of a service; None where it does not offer it."""
    return next((offer.unit_price for offer in miner.offers if offer.service == service), None)


def price_of(miner: Miner, job: Job) -> int | None:
    """What the miner asks for the whole job. May be above any amount."""
    unit_price = unit_price_of(miner, service_of(job.work))
    return None if unit_price is None else unit_price * units_of(job.work)


def memory_of(miner: Miner, trust: Trust | UnsetType) -> int:
    """The memory in MiB of its largest device, as it says; where the chain asks for measured memory, no more than was
    measured on its smallest GPU."""
    claimed = max((device.memory_mib for device in miner.devices), default=0)
    if isinstance(trust, UnsetType) or not trust.min_memory_mib:
        return claimed
    return min(claimed, attested_of(miner).memory_mib)


def cannot_take(view: View, job_id: str, job: Job, address: str) -> Refusal | None:
    """Why this miner cannot have this job now, price aside. Coordinators ask the same question before they assign."""
    miner = view.miner(address)
    if miner is None:
        return UnknownMiner(miner=address)
    if (refusal := untrustworthy(view.parameters.trust, address, miner)) is not None:
        return refusal
    if any(attempt.miner == address for attempt in job.attempts):
        return MinerExcluded(job=job_id, miner=address)
    if job.requirement.miners and address not in job.requirement.miners:
        return MinerExcluded(job=job_id, miner=address)
    if unit_price_of(miner, service_of(job.work)) is None:
        return ServiceNotOffered(miner=address, service=service_of(job.work))
    if (refusal := unattested(job.requirement, address, miner)) is not None:
        return refusal
    memory_mib = memory_of(miner, view.parameters.trust)
    if memory_mib < job.requirement.memory_mib:
        return RequirementNotMet(miner=address, needed_mib=job.requirement.memory_mib, available_mib=memory_mib)
    if miner.running >= miner.capacity:
        return MinerBusy(miner=address, capacity=miner.capacity)
    return None


def change_counters(
    draft: Draft, address: str, *, running: int = 0, settled: int = 0, failed: int = 0, earned: int = 0
) -> None:
    """Adds to the miner's counters. ``earned`` stops at the largest amount: the same coins can be earned again."""
    miner = draft.miner(address)
    if miner is None or miner.running + running < 0:
        raise AssertionError(f"miner {address} has no such job to end")
    draft.put_miner(
        address,
        msgspec.structs.replace(
            miner,
            running=miner.running + running,
            settled=miner.settled + settled,
            failed=miner.failed + failed,
            earned=min(miner.earned + earned, MAX_SAFE_INTEGER),
        ),
    )
