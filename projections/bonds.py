"""Rules of trust in miners: their bonds, and what results, late or wrong or right, do to their standing.

    coins ─ bond.deposited → bond ─ bond.unlocked → unlocked ─ bond.withdrawn, after the waiting time → coins

Bond and unlocked coins are slashed alike, so unlocking is no way out once a wrong result has been handed in: whoever
has unfinished jobs, or is banned, cannot take coins out.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from projections.payments import add_balance, change_supply
from projections.state import Context, Draft, View
from schemas.events import BondDeposited, BondUnlocked, BondWithdrawn, Requirement
from schemas.genesis import Trust
from schemas.refusals import (
    Banned,
    BondInUse,
    BondLocked,
    BondTooLow,
    GradeTooLow,
    InsufficientBalance,
    InsufficientBond,
    NotAttested,
    NotEnabled,
    PerformanceTooLow,
    Refusal,
    RequirementNotMet,
    UnknownMiner,
)
from schemas.state import Attested, Miner, Standing
from schemas.values import MAX_SAFE_INTEGER

NEW: Final = Standing()
UNATTESTED: Final = Attested(score=0, grade="C")
GRADES: Final = ("C", "M", "H")


def first_repeated(entries: Iterable[str]) -> str | None:
    """The first entry that came before."""
    seen = set()
    for entry in entries:
        if entry in seen:
            return entry
        seen.add(entry)
    return None


def trust_of(view: View) -> Trust | None:
    """The chain's trust parameters, if it has any."""
    trust = view.parameters.trust
    return None if isinstance(trust, UnsetType) else trust


def standing_of(miner: Miner) -> Standing:
    """That of a miner of which nothing is known yet is empty."""
    return NEW if miner.standing is UNSET else miner.standing


def attested_of(miner: Miner) -> Attested:
    """That of a miner that has claimed nothing is worth nothing."""
    found = standing_of(miner).attested
    return UNATTESTED if isinstance(found, UnsetType) else found


def put_standing(draft: Draft, address: str, miner: Miner, standing: Standing) -> None:
    """Replaces the miner's standing."""
    draft.put_miner(address, msgspec.structs.replace(miner, standing=standing))


def untrustworthy(trust: Trust | UnsetType, address: str, miner: Miner) -> Refusal | None:
    """Why this miner gets no jobs at all, whatever it offers."""
    if isinstance(trust, UnsetType):
        return None
    standing = standing_of(miner)
    if standing.banned:
        return Banned(miner=address, wrong=standing.wrong)
    if standing.bond < trust.min_bond:
        return BondTooLow(miner=address, needed=trust.min_bond, available=standing.bond)
    found = attested_of(miner)
    if found.score < trust.min_score:
        return NotAttested(miner=address, needed=trust.min_score, score=found.score)
    if found.memory_mib < trust.min_memory_mib:
        return RequirementNotMet(miner=address, needed_mib=trust.min_memory_mib, available_mib=found.memory_mib)
    if found.performance < trust.min_performance:
        return PerformanceTooLow(miner=address, needed=trust.min_performance, available=found.performance)
    return None


def unattested(requirement: Requirement, address: str, miner: Miner) -> Refusal | None:
    """Why the miner's attestation is not what a job asks for."""
    found = attested_of(miner)
    if not isinstance(requirement.score, UnsetType) and found.score < requirement.score:
        return NotAttested(miner=address, needed=requirement.score, score=found.score)
    if not isinstance(requirement.grade, UnsetType) and GRADES.index(found.grade) < GRADES.index(requirement.grade):
        return GradeTooLow(miner=address, needed=requirement.grade, grade=found.grade)
    return None


def bond_deposited(draft: Draft, event: BondDeposited, context: Context, event_id: str) -> Refusal | None:
    """Moves coins of a registered miner into its bond."""
    miner = draft.miner(event.sender)
    if trust_of(draft) is None:
        return NotEnabled(feature="bonds")
    if miner is None:
        return UnknownMiner(miner=event.sender)
    standing, available = standing_of(miner), draft.account(event.sender).balance
    if standing.banned:
        return Banned(miner=event.sender, wrong=standing.wrong)
    if event.amount > available:
        return InsufficientBalance(needed=event.amount, available=available)
    add_balance(draft, event.sender, -event.amount)
    change_supply(draft, bonded=event.amount)
    put_standing(draft, event.sender, miner, msgspec.structs.replace(standing, bond=standing.bond + event.amount))
    return None


def _stuck(address: str, miner: Miner) -> Refusal | None:
    """Why nothing can be taken out of the bond now."""
    standing = standing_of(miner)
    if standing.banned:
        return Banned(miner=address, wrong=standing.wrong)
    if miner.running:
        return BondInUse(running=miner.running)
    return None


def bond_unlocked(draft: Draft, event: BondUnlocked, context: Context, event_id: str) -> Refusal | None:
    """Takes coins out of the bond; they wait, and all that waited already waits anew."""
    miner, trust = draft.miner(event.sender), trust_of(draft)
    if trust is None:
        return NotEnabled(feature="bonds")
    if miner is None:
        return UnknownMiner(miner=event.sender)
    if (refusal := _stuck(event.sender, miner)) is not None:
        return refusal
    standing = standing_of(miner)
    if event.amount > standing.bond:
        return InsufficientBond(needed=event.amount, available=standing.bond)
    unlocked = msgspec.structs.replace(
        standing,
        bond=standing.bond - event.amount,
        unlocked=standing.unlocked + event.amount,
        withdrawable_ms=context.time_ms + trust.unbonding_ms,
    )
    put_standing(draft, event.sender, miner, unlocked)
    return None


def bond_withdrawn(draft: Draft, event: BondWithdrawn, context: Context, event_id: str) -> Refusal | None:
    """Pays out what was unlocked and has waited."""
    miner = draft.miner(event.sender)
    if trust_of(draft) is None:
        return NotEnabled(feature="bonds")
    if miner is None:
        return UnknownMiner(miner=event.sender)
    if (refusal := _stuck(event.sender, miner)) is not None:
        return refusal
    standing = standing_of(miner)
    if not standing.unlocked:
        return InsufficientBond(needed=1, available=0)
    if context.time_ms < standing.withdrawable_ms:
        return BondLocked(until_ms=standing.withdrawable_ms, now_ms=context.time_ms)
    change_supply(draft, bonded=-standing.unlocked)
    add_balance(draft, event.sender, standing.unlocked)
    put_standing(draft, event.sender, miner, msgspec.structs.replace(standing, unlocked=0, withdrawable_ms=0))
    return None


def count(
    draft: Draft, address: str, *, submitted: int = 0, on_time: int = 0, verified: int = 0, late: int = 0
) -> None:
    """Adds to what the miner's standing counts. Does nothing on a chain without trust parameters."""
    miner = draft.miner(address)
    if miner is None or trust_of(draft) is None:
        return
    standing = standing_of(miner)
    counted = msgspec.structs.replace(
        standing,
        submitted=standing.submitted + submitted,
        on_time=standing.on_time + on_time,
        verified=standing.verified + verified,
        late=standing.late + late,
    )
    put_standing(draft, address, miner, counted)


def punish(draft: Draft, address: str) -> None:
    """For a wrong result: burns a share of all that is bonded, rounded up, the bond first; at last, the ban."""
    miner, trust = draft.miner(address), trust_of(draft)
    if miner is None or trust is None:
        return
    standing = standing_of(miner)
    slashed = -(-(standing.bond + standing.unlocked) * trust.slash_bps // 10_000)
    from_bond = min(slashed, standing.bond)
    wrong = standing.wrong + 1
    if slashed:
        change_supply(draft, bonded=-slashed, burned=slashed)
    punished = msgspec.structs.replace(
        standing,
        wrong=wrong,
        banned=standing.banned or 0 < trust.ban_after <= wrong,
        bond=standing.bond - from_bond,
        unlocked=standing.unlocked - (slashed - from_bond),
        slashed=min(standing.slashed + slashed, MAX_SAFE_INTEGER),
    )
    put_standing(draft, address, miner, punished)
