"""What chains of each kind ask of their miners, and that the documentation says the same."""

from pathlib import Path

from actors.attestation.devices import fill_for
from actors.attestation.judge import WEAKEST_PEAK
from actors.attestation.lists import shipped
from actors.profiles import MAINNET, PROFILES, TESTNET
from schemas.attestation import GpuEvidence, SourceReport

DOCUMENT = (Path(__file__).parents[2] / "docs" / "attestation.md").read_text(encoding="utf-8")


def test_the_terms_stand_in_the_documentation() -> None:
    """Points, memory, what is to be filled for it, and speed."""
    large = GpuEvidence(uuid="GPU-1", nvml=SourceReport(memory_mib=1_048_576))
    rows = [
        "| profile | points | memory in MiB | of it to fill | speed in giga-operations/s |",
        "|---|---|---|---|---|",
    ]
    for name, trust in PROFILES.items():
        memory = trust.min_memory_mib
        rows.append(
            f"| {name} | {trust.min_score} | {memory:,} | {fill_for(large, memory):,} | {trust.min_performance:,} |"
        )
    assert "\n".join(rows) + "\n\n" in DOCUMENT


def test_the_speed_is_that_of_the_weakest_class() -> None:
    """An eighth of the peak, in round numbers: below it no card of the class is held to be slow."""
    peaks = {device.product: device.peak_giga_operations for device in shipped().devices}
    for trust, product in ((MAINNET, "GeForce RTX 3090"), (TESTNET, "GeForce RTX 3060")):
        assert 0.95 * peaks[product] / 8 <= trust.min_performance <= peaks[product] / 8
    assert peaks["GeForce RTX 3090"] == WEAKEST_PEAK
