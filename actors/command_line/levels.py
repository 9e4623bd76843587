"""The table of a GPU's score: its levels, then what holds the sum down."""

from projections.attestation import GpuScore


def level_rows(gpu: GpuScore) -> list[dict[str, object]]:
    """The lines of a GPU's table: its levels, then what holds the sum down."""
    levels = [
        {
            "level": f"{level.number} {level.name}",
            "points": level.points,
            "of": level.most,
            "found": level.raw,
            "asked for": level.threshold,
            "why": level.sentence,
        }
        for level in gpu.levels
    ]
    caps = [
        {"level": "cap", "points": cap.limit, "of": "", "found": cap.code, "asked for": "", "why": cap.sentence}
        for cap in gpu.caps
    ]
    return [*levels, *caps]
