"""Execution of a block: from a state, a context and signed events to outcomes and roots. Pure.

An event that cannot be included (`admission`) changes nothing. One that is included uses its nonce; it does what it
says and is `Applied`, or does nothing and is `Failed` with the reason. Signatures are checked before, in
`projections.signatures`.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, cast

from msgspec import Struct

from events.canonical import canonical
from events.envelope import SignedEvent
from events.merkle import root_of_hashes
from projections import bonds, exams, jobs, miners, payments
from projections.state import Context, Draft, State, View
from projections.timers import fire
from schemas.blocks import Applied, Failed, Outcome
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
)
from schemas.refusals import (
    AnyRefusal,
    FaucetClosed,
    GasPriceTooLow,
    InsufficientBalance,
    NonceGap,
    NonceTooLow,
    Refusal,
    WrongChain,
)
from schemas.state import Account
from schemas.values import MAX_SAFE_INTEGER

RuleFunction = Callable[[Draft, Any, Context, str], Refusal | None]


class Action(Struct, frozen=True):
    """What an event type costs and does. ``free``: the fee is due only when it fails; the job's escrow pays for it."""

    gas: int
    rule: RuleFunction
    free: bool = False


ACTIONS: Final[Mapping[type[Body], Action]] = MappingProxyType(
    {
        TransferSent: Action(1_000, payments.transfer_sent),
        FaucetRequested: Action(2_000, payments.faucet_requested),
        MinerRegistered: Action(10_000, miners.miner_registered),
        BondDeposited: Action(2_000, bonds.bond_deposited),
        BondUnlocked: Action(2_000, bonds.bond_unlocked),
        BondWithdrawn: Action(2_000, bonds.bond_withdrawn),
        AttestationClaimed: Action(20_000, exams.attestation_claimed),
        ExamOpened: Action(10_000, exams.exam_opened, free=True),
        ExamCommitted: Action(5_000, exams.exam_committed, free=True),
        ExamRevealed: Action(5_000, exams.exam_revealed, free=True),
        ExamJudged: Action(10_000, exams.exam_judged, free=True),
        JobSubmitted: Action(10_000, jobs.job_submitted),
        JobAssigned: Action(5_000, jobs.job_assigned, free=True),
        JobCommitted: Action(5_000, jobs.job_committed, free=True),
        JobRevealed: Action(8_000, jobs.job_revealed, free=True),
        JobSettled: Action(10_000, jobs.job_settled, free=True),
        JobFailed: Action(5_000, jobs.job_failed, free=True),
        JobRefunded: Action(5_000, jobs.job_refunded, free=True),
        JobCancelled: Action(5_000, jobs.job_cancelled),
    }
)

GAS: Final[Mapping[str, int]] = MappingProxyType(
    {str(record.__struct_config__.tag): action.gas for record, action in ACTIONS.items()}
)


def gas_of(event: Body) -> int:
    """The gas of an event, by its type."""
    return ACTIONS[type(event)].gas


def fee_of(event: Body) -> int:
    """The most that an event can cost its sender in fees, in micro-ASY. May be above any balance."""
    return ACTIONS[type(event)].gas * event.gas_price


def admission(view: View, event: Body, nonce_expected: int, spendable: int) -> Refusal | None:
    """Why an event cannot be included whatever its action. A nonce above ``nonce_expected`` is for the caller to judge.

    ``spendable`` is what the sender can pay fees with; a faucet request can also pay out of what it asks for.
    """
    minimum, fee = view.parameters.min_gas_price, fee_of(event)
    if event.chain != view.genesis.chain:
        return WrongChain(expected=view.genesis.chain, found=event.chain)
    if event.nonce < nonce_expected:
        return NonceTooLow(expected=nonce_expected, found=event.nonce)
    if event.gas_price < minimum:
        return GasPriceTooLow(minimum=minimum, found=event.gas_price)
    if isinstance(event, FaucetRequested):
        if view.parameters.faucet_total == 0:
            return FaucetClosed()
        spendable = min(spendable + event.amount, MAX_SAFE_INTEGER)
    if fee > spendable:
        return InsufficientBalance(needed=min(fee, MAX_SAFE_INTEGER), available=spendable)
    return None


def timers_due(state: State, time_ms: int) -> bool:
    """Whether a block at this time would have a deadline to act on."""
    deadline_ms = state.next_deadline_ms()
    return deadline_ms is not None and deadline_ms <= time_ms


class Executed(Struct, frozen=True):
    """A block's execution. ``outcomes`` are those of the ``timers`` first, then one per event in order."""

    outcomes: tuple[Outcome, ...]
    timers: int
    gas: int
    event_root: str
    outcome_root: str
    state_root: str
    draft: Draft


class BlockExecution:
    """One block in the making: due timers fire first, then events are included one by one, then `finish`."""

    def __init__(self, state: State, context: Context) -> None:
        self.context: Final = context
        self.draft: Final = state.draft()
        self.outcomes: Final[list[Outcome]] = list(fire(self.draft, context))
        self.timers: Final = len(self.outcomes)
        self.gas = 0
        self._fees = 0
        self._raws: Final[list[bytes]] = []
        self._finished = False

    def include(self, signed: SignedEvent) -> Refusal | None:
        """Executes an event. A refusal: it cannot be in this block, and nothing has changed."""
        event, draft = signed.event, self.draft
        account = draft.account(event.sender)
        refusal = admission(draft, event, account.nonce, account.balance)
        if refusal is not None:
            return refusal
        if event.nonce != account.nonce:
            return NonceGap(expected=account.nonce, found=event.nonce)
        action = ACTIONS[type(event)]
        fee = action.gas * event.gas_price
        if action.free:
            refusal = action.rule(draft, event, self.context, signed.id)
            if refusal is None:
                fee = 0
            self._charge(event.sender, fee)
        elif isinstance(event, FaucetRequested):
            refusal = action.rule(draft, event, self.context, signed.id)
            if refusal is not None and fee > account.balance:
                # It was to pay out of what it does not get.
                return refusal
            self._charge(event.sender, fee)
        else:
            self._charge(event.sender, fee)
            refusal = action.rule(draft, event, self.context, signed.id)
        self.gas += action.gas
        self._raws.append(signed.raw)
        if refusal is None:
            self.outcomes.append(Applied(event=signed.id, fee=fee))
        else:
            self.outcomes.append(Failed(event=signed.id, fee=fee, refusal=cast(AnyRefusal, refusal)))
        return None

    def _charge(self, sender: str, fee: int) -> None:
        """Uses up the nonce and takes the fee."""
        account = self.draft.account(sender)
        if account.balance < fee:
            raise AssertionError(f"{sender} was admitted but cannot pay {fee}")
        self._fees += fee
        self.draft.put_account(
            sender,
            Account(
                balance=account.balance - fee,
                nonce=account.nonce + 1,
                faucet_day=account.faucet_day,
                faucet_used=account.faucet_used,
            ),
        )

    def _share_fees(self) -> None:
        """Burns a part of the block's fees, rounded down; the proposer gets the rest."""
        burned = self._fees * self.draft.parameters.fee_burn_bps // 10_000
        if burned:
            payments.change_supply(self.draft, burned=burned)
        if self._fees > burned:
            payments.add_balance(self.draft, self.context.proposer, self._fees - burned)

    def finish(self) -> Executed:
        """Shares the fees, checks that coins are conserved, computes the roots. Possible once."""
        if self._finished:
            raise AssertionError("this block is finished")
        self._finished = True
        self._share_fees()
        self.draft.check_conservation()
        outcomes = tuple(self.outcomes)
        return Executed(
            outcomes=outcomes,
            timers=self.timers,
            gas=self.gas,
            event_root=_root(self._raws),
            outcome_root=_root([canonical(outcome) for outcome in outcomes]),
            state_root=self.draft.root(),
            draft=self.draft,
        )


def _root(leaves: list[bytes]) -> str:
    return root_of_hashes([sha256(b"\x00" + leaf).digest() for leaf in leaves]).hex()
