"""What happened, in a sentence: events and timers of a job's life as people read them."""

import msgspec

from actors.command_line.output import asy
from actors.command_line.refusals import reason
from events.envelope import parse
from schemas.blocks import Failed, TimerFired
from schemas.events import (
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
from schemas.queries import EventAnswer
from schemas.refusals import code_of
from schemas.services import Work, service_of


def short(text: str) -> str:
    """An address or a digest, short enough for a line, still recognisable."""
    return text if len(text) <= 16 else f"{text[:8]}…{text[-4:]}"


def work_in_words(work: Work) -> str:
    """The service and the sizes."""
    return f"{service_of(work)} {work.in_words()}".rstrip()


def event_of(answer: EventAnswer) -> Body | None:
    """The event of an entry, None for a timer."""
    return parse(bytes(answer.envelope)).event if isinstance(answer.envelope, msgspec.Raw) else None


def happened(answer: EventAnswer) -> str:
    """One final event or timer in words."""
    outcome = answer.outcome
    if isinstance(outcome, TimerFired):
        back = f", {asy(outcome.refunded)} went back" if outcome.refunded else ", another miner may try"
        return f"deadline passed: {outcome.reason}{back}"
    event = event_of(answer)
    if event is None:
        raise AssertionError("an outcome that is no timer has an event")
    words = in_words(event)
    if isinstance(outcome, Failed):
        return f"{words}: failed, {code_of(outcome.refusal)}: {reason(outcome.refusal)}"
    return words


def in_words(event: Body) -> str:
    """What an event says."""
    match event:
        case TransferSent():
            return f"{asy(event.amount)} from {short(event.sender)} to {short(event.to)}"
        case FaucetRequested():
            return f"{asy(event.amount)} from the faucet to {short(event.sender)}"
        case MinerRegistered():
            return f"miner {event.name} offers {', '.join(offer.service for offer in event.offers)}"
        case BondDeposited():
            return f"{asy(event.amount)} into the bond of miner {short(event.sender)}"
        case BondUnlocked():
            return f"{asy(event.amount)} of the bond of miner {short(event.sender)} unlocked"
        case BondWithdrawn():
            return f"what miner {short(event.sender)} had unlocked of its bond paid out"
        case AttestationClaimed():
            gpus = len(event.evidence.gpus)
            return f"miner {short(event.sender)} claims {gpus} GPU{'' if gpus == 1 else 's'}"
        case ExamOpened():
            count = len(event.miners)
            return f"exam opened for {count} miner{'' if count == 1 else 's'}, {event.cause}"
        case ExamCommitted():
            return f"miner {short(event.sender)} is bound to its answers to an exam"
        case ExamRevealed():
            return f"what miner {short(event.sender)} has to open of its answers can be fetched"
        case ExamJudged():
            results = ", ".join(gpu.result for gpu in event.verdict.gpus)
            return f"exam of miner {short(event.verdict.miner)} judged: {results or 'nothing'}"
        case JobSubmitted():
            return f"submitted: {work_in_words(event.work)}, escrow {asy(event.escrow)}"
        case JobAssigned():
            return f"assigned to miner {short(event.miner)} for {asy(event.price)}"
        case JobCommitted():
            return f"committed: the miner is bound to result {short(event.result)}"
        case JobRevealed():
            return "revealed: the result can be fetched, and the miner has signed the receipt"
        case JobSettled():
            return "settled: verified, paid, and the receipt is signed by the coordinator"
        case JobFailed():
            return f"attempt of miner {short(event.miner)} failed: {event.reason}"
        case JobRefunded():
            return f"refunded: {event.reason}"
        case JobCancelled():
            return "cancelled by its owner"
        case _:
            return type_of(event)
