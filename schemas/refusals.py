"""Why something was not done: one record per reason, told apart by the field ``code``, with the data that explains it.

The same records say why a mempool turned an event away (on the sender's live subject) and why an included event
failed (in its outcome). ``HINTS`` has a sentence per code that says how to mend it.
"""

from typing import Final, get_args

from msgspec import Struct

from schemas.values import Address, Amount, ChainId, Count, Digest, Nonce, TimeMs


class Refusal(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="code"):
    """Base of all reasons."""


class NotCanonical(Refusal, frozen=True, tag="NOT_CANONICAL"):
    detail: str


class Malformed(Refusal, frozen=True, tag="MALFORMED"):
    """The bytes do not fit the record of their type; ``detail`` names the field as a path."""

    detail: str


class UnknownType(Refusal, frozen=True, tag="UNKNOWN_TYPE"):
    type: str


class TooLarge(Refusal, frozen=True, tag="TOO_LARGE"):
    limit: Count
    size: Count


class BadSignature(Refusal, frozen=True, tag="BAD_SIGNATURE"):
    sender: Address


class WrongChain(Refusal, frozen=True, tag="WRONG_CHAIN"):
    expected: ChainId
    found: ChainId


class WrongSubject(Refusal, frozen=True, tag="WRONG_SUBJECT"):
    """The event lies in the inbox of somebody who is not its sender."""

    subject: str
    sender: Address


class NonceTooLow(Refusal, frozen=True, tag="NONCE_TOO_LOW"):
    expected: Nonce
    found: Nonce


class NonceTooFar(Refusal, frozen=True, tag="NONCE_TOO_FAR"):
    expected: Nonce
    found: Nonce


class NonceGap(Refusal, frozen=True, tag="NONCE_GAP"):
    expected: Nonce
    found: Nonce


class NonceTaken(Refusal, frozen=True, tag="NONCE_TAKEN"):
    """Another event with this nonce waits already and pays at least as much; a replacement pays 10 % more."""

    pending: Digest
    needed_gas_price: Amount


class GasPriceTooLow(Refusal, frozen=True, tag="GAS_PRICE_TOO_LOW"):
    minimum: Amount
    found: Amount


class InsufficientBalance(Refusal, frozen=True, tag="INSUFFICIENT_BALANCE"):
    needed: Count
    available: Amount


class MempoolFull(Refusal, frozen=True, tag="MEMPOOL_FULL"):
    limit: Count
    needed_gas_price: Amount


class SenderLimitExceeded(Refusal, frozen=True, tag="SENDER_LIMIT_EXCEEDED"):
    limit: Count


class Expired(Refusal, frozen=True, tag="EXPIRED"):
    """Waited longer in the mempool than an event may."""

    waited_ms: Count


class AmountOverflow(Refusal, frozen=True, tag="AMOUNT_OVERFLOW"):
    limit: Count


class SelfTransfer(Refusal, frozen=True, tag="SELF_TRANSFER"):
    address: Address


class FaucetClosed(Refusal, frozen=True, tag="FAUCET_CLOSED"):
    pass


class FaucetLimit(Refusal, frozen=True, tag="FAUCET_LIMIT"):
    """``limit`` of ``per`` (request, day or total) would be passed; ``left`` can still be had."""

    per: str
    limit: Amount
    left: Amount


class NotCoordinator(Refusal, frozen=True, tag="NOT_COORDINATOR"):
    sender: Address


class NotYourJob(Refusal, frozen=True, tag="NOT_YOUR_JOB"):
    job: Digest
    owner: Address


class UnknownJob(Refusal, frozen=True, tag="UNKNOWN_JOB"):
    job: Digest


class UnknownMiner(Refusal, frozen=True, tag="UNKNOWN_MINER"):
    miner: Address


class WrongSituation(Refusal, frozen=True, tag="WRONG_SITUATION"):
    """The job is in another situation than the event is possible in."""

    job: Digest
    situation: str


class ServiceNotOffered(Refusal, frozen=True, tag="SERVICE_NOT_OFFERED"):
    miner: Address
    service: str


class MinerExcluded(Refusal, frozen=True, tag="MINER_EXCLUDED"):
    """The miner has failed this job before, or the job names other miners."""

    job: Digest
    miner: Address


class MinerBusy(Refusal, frozen=True, tag="MINER_BUSY"):
    miner: Address
    capacity: Count


class RequirementNotMet(Refusal, frozen=True, tag="REQUIREMENT_NOT_MET"):
    miner: Address
    needed_mib: Count
    available_mib: Count


class WrongPrice(Refusal, frozen=True, tag="WRONG_PRICE"):
    expected: Amount
    found: Amount


class PriceAboveEscrow(Refusal, frozen=True, tag="PRICE_ABOVE_ESCROW"):
    price: Count
    escrow: Amount


class WrongShape(Refusal, frozen=True, tag="WRONG_SHAPE"):
    detail: str


class TimeoutTooLong(Refusal, frozen=True, tag="TIMEOUT_TOO_LONG"):
    field: str
    limit_ms: Count
    found_ms: Count


class DeadlinePassed(Refusal, frozen=True, tag="DEADLINE_PASSED"):
    job: Digest
    deadline_ms: TimeMs
    now_ms: TimeMs


class BadReceiptSignature(Refusal, frozen=True, tag="BAD_RECEIPT_SIGNATURE"):
    signer: Address
    receipt: Digest


class DuplicateEntry(Refusal, frozen=True, tag="DUPLICATE_ENTRY"):
    """A list that names each thing once names one twice."""

    entry: str


class NotEnabled(Refusal, frozen=True, tag="NOT_ENABLED"):
    """The genesis of this chain does not provide for it."""

    feature: str


class Banned(Refusal, frozen=True, tag="BANNED"):
    """So many wrong results have shut the miner out."""

    miner: Address
    wrong: Count


class BondTooLow(Refusal, frozen=True, tag="BOND_TOO_LOW"):
    miner: Address
    needed: Amount
    available: Amount


class InsufficientBond(Refusal, frozen=True, tag="INSUFFICIENT_BOND"):
    needed: Amount
    available: Amount


class BondInUse(Refusal, frozen=True, tag="BOND_IN_USE"):
    """The bond vouches for jobs that have not ended."""

    running: Count


class BondLocked(Refusal, frozen=True, tag="BOND_LOCKED"):
    until_ms: TimeMs
    now_ms: TimeMs


class NotAttested(Refusal, frozen=True, tag="NOT_ATTESTED"):
    """The miner's attestation has too few points."""

    miner: Address
    needed: Count
    score: Count


class GradeTooLow(Refusal, frozen=True, tag="GRADE_TOO_LOW"):
    miner: Address
    needed: str
    grade: str


class PerformanceTooLow(Refusal, frozen=True, tag="PERFORMANCE_TOO_LOW"):
    """In giga-operations per second, of the miner's slowest GPU."""

    miner: Address
    needed: Count
    available: Count


class NothingClaimed(Refusal, frozen=True, tag="NOTHING_CLAIMED"):
    """The miner has said nothing of its GPUs that could be examined."""

    miner: Address


class ExamUnderway(Refusal, frozen=True, tag="EXAM_UNDERWAY"):
    miner: Address
    exam: Digest


class UnknownExam(Refusal, frozen=True, tag="UNKNOWN_EXAM"):
    """The miner is not in this exam, or not any more."""

    miner: Address
    exam: Digest


class WrongExamStage(Refusal, frozen=True, tag="WRONG_EXAM_STAGE"):
    exam: Digest
    stage: str


class ExamOver(Refusal, frozen=True, tag="EXAM_OVER"):
    exam: Digest
    deadline_ms: TimeMs
    now_ms: TimeMs


class WrongAnswers(Refusal, frozen=True, tag="WRONG_ANSWERS"):
    """Answers, openings or verdicts do not fit the GPUs that the miner has claimed, or each other."""

    detail: str


AnyRefusal = (
    NotCanonical
    | Malformed
    | UnknownType
    | TooLarge
    | BadSignature
    | WrongChain
    | WrongSubject
    | NonceTooLow
    | NonceTooFar
    | NonceGap
    | NonceTaken
    | GasPriceTooLow
    | InsufficientBalance
    | MempoolFull
    | SenderLimitExceeded
    | Expired
    | AmountOverflow
    | SelfTransfer
    | FaucetClosed
    | FaucetLimit
    | NotCoordinator
    | NotYourJob
    | UnknownJob
    | UnknownMiner
    | WrongSituation
    | ServiceNotOffered
    | MinerExcluded
    | MinerBusy
    | RequirementNotMet
    | WrongPrice
    | PriceAboveEscrow
    | WrongShape
    | TimeoutTooLong
    | DeadlinePassed
    | BadReceiptSignature
    | DuplicateEntry
    | NotEnabled
    | Banned
    | BondTooLow
    | InsufficientBond
    | BondInUse
    | BondLocked
    | NotAttested
    | GradeTooLow
    | PerformanceTooLow
    | NothingClaimed
    | ExamUnderway
    | UnknownExam
    | WrongExamStage
    | ExamOver
    | WrongAnswers
)
REFUSALS: Final[tuple[type[Refusal], ...]] = get_args(AnyRefusal)


def code_of(refusal: Refusal) -> str:
    """The refusal's code, as in its field ``code``."""
    return str(refusal.__struct_config__.tag)


HINTS: Final[dict[str, str]] = {
    "NOT_CANONICAL": "Send RFC 8785 JSON: keys sorted, no white space, integers only, no nulls.",
    "MALFORMED": "Compare the field with the JSON Schema of its type (`assay schemas export`).",
    "UNKNOWN_TYPE": "Use one of the type names that `assay schemas export` lists.",
    "TOO_LARGE": "Put large data into a blob and send its digest.",
    "BAD_SIGNATURE": "Sign the bytes 'assay:event:v1' + a zero byte + the exact body with the key of `sender`.",
    "WRONG_CHAIN": "Put this chain's name into `chain` and sign again.",
    "WRONG_SUBJECT": "Publish to the inbox of the event's own sender.",
    "NONCE_TOO_LOW": "Ask `account` for the next nonce and sign again.",
    "NONCE_TOO_FAR": "Send the events before it first; only a few may wait for a gap to close.",
    "NONCE_GAP": "Send the events before it first.",
    "NONCE_TAKEN": "Wait, or replace it by an event with the named gas price.",
    "GAS_PRICE_TOO_LOW": "Offer at least the minimum gas price.",
    "INSUFFICIENT_BALANCE": "Fund the account, or send less.",
    "MEMPOOL_FULL": "Offer the named gas price, or try again later.",
    "SENDER_LIMIT_EXCEEDED": "Wait until some of your events are in a block.",
    "EXPIRED": "Sign it again with the next nonce, perhaps with a higher gas price.",
    "AMOUNT_OVERFLOW": "Keep every sum below 2^53 micro-ASY.",
    "SELF_TRANSFER": "Name another recipient.",
    "FAUCET_CLOSED": "This chain has no faucet; ask an owner of coins.",
    "FAUCET_LIMIT": "Ask for no more than what is left.",
    "NOT_COORDINATOR": "Only the coordinators of this chain may say this.",
    "NOT_YOUR_JOB": "Only the job's owner may say this.",
    "UNKNOWN_JOB": "Check the job's id; it is the id of its job.submitted event.",
    "UNKNOWN_MINER": "The miner has to register first.",
    "WRONG_SITUATION": "Look at the job: it has moved on.",
    "SERVICE_NOT_OFFERED": "Choose a miner that offers the service.",
    "MINER_EXCLUDED": "Choose a miner that may take this job.",
    "MINER_BUSY": "Wait until the miner has finished a job, or choose another.",
    "REQUIREMENT_NOT_MET": "Choose a miner with enough device memory.",
    "WRONG_PRICE": "The price is the miner's unit price times the units of the work.",
    "PRICE_ABOVE_ESCROW": "Choose a cheaper miner, or submit with a larger escrow.",
    "WRONG_SHAPE": "Columns of the first matrix and rows of the second must agree, within the service's bounds.",
    "TIMEOUT_TOO_LONG": "Ask for no more than the limit of this chain.",
    "DEADLINE_PASSED": "Too late; the job goes to another attempt.",
    "BAD_RECEIPT_SIGNATURE": "Sign the canonical bytes of the receipt as the log derives it.",
    "DUPLICATE_ENTRY": "Name each entry once.",
    "NOT_ENABLED": "Look at the genesis: only a chain that sets trust parameters has this.",
    "BANNED": "Choose another miner; this one has given too many wrong results.",
    "BOND_TOO_LOW": "The miner has to bond the missing coins (`bond.deposited`), or choose another.",
    "INSUFFICIENT_BOND": "Ask for no more than what is bonded.",
    "BOND_IN_USE": "Wait until the miner's jobs have ended; capacity 0 takes no new ones.",
    "BOND_LOCKED": "Wait until the named time.",
    "NOT_ATTESTED": "Ask `assay miner explain` what the miner's points lack, or choose another miner.",
    "GRADE_TOO_LOW": "Choose a miner of the grade, or ask for less.",
    "PERFORMANCE_TOO_LOW": "Choose a faster miner.",
    "NOTHING_CLAIMED": "The miner has to say `attestation.claimed` first.",
    "EXAM_UNDERWAY": "Wait for the verdict of the exam that the miner is in.",
    "UNKNOWN_EXAM": "Look at the miner's attestation: it names the exam that the miner is in.",
    "WRONG_EXAM_STAGE": "Commit first, then reveal, each once; the verdict comes last.",
    "EXAM_OVER": "Too late; the exam counts as not answered, and another follows.",
    "WRONG_ANSWERS": "Say one entry for each GPU of the claim, by its id, in its order.",
}
