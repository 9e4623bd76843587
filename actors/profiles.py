"""What chains of each kind ask of their miners: the values that `assay genesis new --profile` writes into a genesis.

Rules know parameters only, never these names.
"""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from schemas.attestation import ExamShape
from schemas.genesis import Trust
from schemas.values import MICRO_PER_ASY

DAY_MS: Final = 86_400_000

# A GPU streams rows of a product with a B of 16 MiB for about three seconds; on a processor a few rows are enough.
GPU_EXAM: Final = ExamShape(inner=8_192, columns=2_048, min_rows=256)
SMALL_EXAM: Final = ExamShape(inner=1_024, columns=256, min_rows=256)

# An eighth of the dense int8 peak of the weakest class of cards: an RTX 3090 on the main network, an RTX 3060 with
# 12 GB on the test network.
MAINNET_PERFORMANCE: Final = 35_000
TESTNET_PERFORMANCE: Final = 12_000

MAINNET: Final = Trust(
    min_score=70,
    min_memory_mib=16_384 * 95 // 100,
    min_performance=MAINNET_PERFORMANCE,
    exam=GPU_EXAM,
    exam_window_ms=10_000,
    exam_reveal_ms=15_000,
    reexamine_ms=7 * DAY_MS,
    spot_check_bps=500,
    drift_bps=1_000,
    min_bond=100 * MICRO_PER_ASY,
    unbonding_ms=7 * DAY_MS,
    slash_bps=500,
    ban_after=3,
)
TESTNET: Final = replace(
    MAINNET,
    min_score=60,
    min_memory_mib=12_288 * 95 // 100,
    min_performance=TESTNET_PERFORMANCE,
    min_bond=0,
    unbonding_ms=DAY_MS,
)
DEVNET: Final = Trust(
    min_score=0,
    min_memory_mib=0,
    min_performance=0,
    exam=SMALL_EXAM,
    exam_window_ms=30_000,
    exam_reveal_ms=15_000,
    reexamine_ms=7 * DAY_MS,
    spot_check_bps=500,
    drift_bps=1_000,
    min_bond=0,
    unbonding_ms=60_000,
    slash_bps=500,
    ban_after=3,
)
PROFILES: Final[Mapping[str, Trust]] = {"mainnet": MAINNET, "testnet": TESTNET, "devnet": DEVNET}
