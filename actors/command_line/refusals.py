"""Refusals as people read them; programs take the code and the data."""

from actors.command_line.amounts import duration
from actors.command_line.output import asy
from schemas.refusals import (
    BondLocked,
    BondTooLow,
    ExamOver,
    FaucetLimit,
    GasPriceTooLow,
    InsufficientBalance,
    InsufficientBond,
    Malformed,
    NonceGap,
    NonceTooFar,
    NonceTooLow,
    NotAttested,
    NotCanonical,
    NotYourJob,
    PerformanceTooLow,
    PriceAboveEscrow,
    Refusal,
    SelfTransfer,
    TimeoutTooLong,
    UnknownJob,
    WrongAnswers,
    WrongShape,
    WrongSituation,
)


def reason(refusal: Refusal) -> str:
    """Why, with the numbers; empty where the code says it all."""
    match refusal:
        case NotCanonical() | Malformed() | WrongShape() | WrongAnswers():
            return refusal.detail
        case InsufficientBalance():
            return f"it needs {asy(refusal.needed)}, and {asy(refusal.available)} are there"
        case NotAttested():
            return f"its attestation has {refusal.score} points, {refusal.needed} are asked for"
        case PerformanceTooLow():
            return f"{refusal.needed} giga-operations per second are asked for, it reached {refusal.available}"
        case ExamOver():
            return f"the exam was over {duration(refusal.now_ms - refusal.deadline_ms)} before"
        case InsufficientBond() | BondTooLow():
            return f"it needs {asy(refusal.needed)} of bond, and {asy(refusal.available)} are there"
        case BondLocked():
            return f"it is locked for another {duration(refusal.until_ms - refusal.now_ms)}"
        case PriceAboveEscrow():
            return f"the price is {asy(refusal.price)}, the escrow {asy(refusal.escrow)}"
        case GasPriceTooLow():
            return f"the least is {refusal.minimum} micro-ASY per unit of gas, this offers {refusal.found}"
        case NonceTooLow() | NonceTooFar() | NonceGap():
            return f"its nonce is {refusal.found}, the next of this sender is {refusal.expected}"
        case SelfTransfer():
            return "sender and recipient are the same"
        case FaucetLimit():
            return f"the limit per {refusal.per} is {asy(refusal.limit)}, of which {asy(refusal.left)} are left"
        case UnknownJob():
            return f"there is no job {refusal.job}"
        case NotYourJob():
            return f"its owner is {refusal.owner}"
        case WrongSituation():
            return f"the job is {refusal.situation}"
        case TimeoutTooLong():
            found, limit = duration(refusal.found_ms), duration(refusal.limit_ms)
            return f"{refusal.field} is {found}, the longest possible is {limit}"
        case _:
            facts = ((name, getattr(refusal, name)) for name in refusal.__struct_fields__)
            return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts)
