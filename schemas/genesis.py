"""The genesis: one file whose digest is the identity of a chain."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.values import Address, Amount, BasisPoints, ChainId, DurationMs, Power, TimeMs


class Parameters(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the rules of a chain leave open.

    ``faucet_request``, ``faucet_day`` and ``faucet_total`` bound the faucet per request, per account and day of block
    time, and over all time; a total of 0 means that there is no faucet. ``fee_burn_bps`` of a block's fees is burned,
    the proposer gets the rest; ``coordinator_bps`` of a job's price goes to its coordinator, the miner gets the rest.
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
