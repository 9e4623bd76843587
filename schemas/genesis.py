"""The genesis: one file whose digest is the identity of a chain."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.attestation import ExamShape, Memory
from schemas.values import Address, Amount, BasisPoints, ChainId, Count, DurationMs, Power, TimeMs


class Trust(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a chain asks of its miners before they get jobs, and what it takes when their results are wrong.

    Jobs go to miners whose attestation has ``min_score`` points or more, whose smallest GPU has ``min_memory_mib`` and
    whose slowest reached ``min_performance`` giga-operations per second in its exam, and who have bonded ``min_bond``;
    0 asks for nothing. An exam of ``exam`` must be answered within ``exam_window_ms`` and opened within
    ``exam_reveal_ms`` after that. All miners are examined every ``reexamine_ms``; a settled job leads to another exam
    of its miner with a chance of ``spot_check_bps``, and so does a speed that is ``drift_bps`` off. A wrong result
    burns ``slash_bps`` of the bond, ``ban_after`` of them (0: never) ban the miner. What is taken out of a bond waits
    for ``unbonding_ms``, and can be slashed until then.
    """

    min_score: Annotated[int, Meta(ge=0, le=100)]
    min_memory_mib: Memory
    min_performance: Count
    exam: ExamShape
    exam_window_ms: DurationMs
    exam_reveal_ms: DurationMs
    reexamine_ms: DurationMs
    spot_check_bps: BasisPoints
    drift_bps: BasisPoints
    min_bond: Amount
    unbonding_ms: DurationMs
    slash_bps: BasisPoints
    ban_after: Annotated[int, Meta(ge=0, le=1_000)]


class Parameters(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the rules of a chain leave open.

    ``faucet_request``, ``faucet_day`` and ``faucet_total`` bound the faucet per request, per account and day of block
    time, and over all time; a total of 0 means that there is no faucet. ``fee_burn_bps`` of a block's fees is burned,
    the proposer gets the rest; ``coordinator_bps`` of a job's price goes to its coordinator, the miner gets the rest.
    Without ``trust`` the chain has no bonds, no exams and no penalties.
    """

    min_gas_price: Amount
    max_block_bytes: Annotated[int, Meta(ge=4_096, le=4_194_304)]
    max_block_events: Annotated[int, Meta(ge=1, le=10_000)]
    max_block_gas: Annotated[int, Meta(ge=100_000, le=10_000_000_000)]
    min_block_interval_ms: DurationMs
    round_timeout_ms: DurationMs
    max_drift_ms: DurationMs
    fee_burn_bps: BasisPoints
    coordinator_bps: BasisPoints
    max_attempts: Annotated[int, Meta(ge=1, le=100)]
    reveal_timeout_ms: DurationMs
    verify_timeout_ms: DurationMs
    max_timeout_ms: DurationMs
    max_lifetime_ms: DurationMs
    faucet_request: Amount
    faucet_day: Amount
    faucet_total: Amount
    trust: Trust | UnsetType = UNSET


class Allocation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A balance that exists from the start."""

    address: Address
    balance: Amount


class GenesisValidator(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A proposer and the weight of its vote."""

    address: Address
    power: Power


class Genesis(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The state before the first block. Lists are sorted by address, without repetition."""

    chain: ChainId
    time_ms: TimeMs
    rules: Annotated[int, Meta(ge=1, le=1_000_000)]
    parameters: Parameters
    allocations: Annotated[tuple[Allocation, ...], Meta(max_length=100_000)]
    validators: Annotated[tuple[GenesisValidator, ...], Meta(min_length=1, max_length=7)]
    coordinators: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=100)]
