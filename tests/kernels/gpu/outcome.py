"""What a report of `make gpu-check` amounts to: a table, the aims, and what has failed."""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

Report: TypeAlias = dict[str, Any]

# What is aimed at on an H200: int8 products, and a copy on the device.
AIMS_TOPS: Final = {"matmul_wgmma": 1_300, "matmul_mma": 550}
AIM_COPY_GB: Final = 4_200
# Of the bandwidth of a copy in the same run, where nothing else bounds a kernel.
AIM_SHARE: Final = 0.85
# On every real card.
AIM_SCORE: Final = 90
LEFT_BY: Final = {
    "compile": "compiled",
    "tests": "tests",
    "rows": "timings",
    "jobs": "jobs",
    "attestation": "attestation",
}
LISTS: Final = ("devices", "comparisons", "timings", "fills")


def failures(report: Report) -> list[str]:
    """What makes the check fail, in sentences; empty where all is right."""
    found = [f"{step}: {error}" for step, error in report.get("errors", {}).items()]
    tests = report.get("tests")
    if tests is not None and tests["exit_code"]:
        found.append(f"tests failed: {tests['closing_line'] or tests['exit_code']}")
    for name in LISTS:
        found += [f"{name}: {row['name']}: {row['error']}" for row in report.get(name, ()) if "error" in row]
    found += [
        f"{row['name']}: differs from the CPU" for row in report.get("comparisons", ()) if row.get("equal") is False
    ]
    found += [f"{row['name']} (large): is wrong" for row in report.get("timings", ()) if row.get("holds") is False]
    for row in report.get("jobs", {}).get("rows", ()):
        if row.get("equal") is not True:
            found.append(f"job {row['name']} in the jail: {row.get('error', 'differs from the CPU')}")
    found += [f"{step}: nothing came of it" for step in report["steps"] if not _left(report, step)]
    return [*found, *_of_attestation(report.get("attestation"))]


def _left(report: Report, step: str) -> bool:
    """Whether a step has left what it is there for, or its error."""
    return step in report.get("errors", {}) or bool(report.get(LEFT_BY[step]))


def _of_attestation(found: Report | None) -> Iterator[str]:
    if found is None:
        return
    if "error" in found or "score" not in found:
        yield f"attestation: {found.get('error') or 'it has no score'} (exit code {found['exit_code']})"
        return
    if found["exit_code"]:
        yield f"attestation: the exam was not right (exit code {found['exit_code']})"
    if found["score"] < AIM_SCORE:
        why = _shortcomings(found) or "no reason given"
        yield f"attestation: score {found['score']}, not {AIM_SCORE} or more: {why}"


def _shortcomings(found: Report) -> str:
    """What held the score down."""
    said = [f"{gpu['gpu']} was not examined: {gpu['why']}" for gpu in found.get("unexamined", ())]
    for gpu in found.get("gpus", ()):
        said += [cap["sentence"] for cap in gpu["caps"]]
        lacking = [level for level in gpu["levels"] if level["points"] < level["most"]]
        said += [f"level {level['name']} {level['points']} of {level['most']}" for level in lacking]
    return "; ".join(said)


def table_of(report: Report) -> Iterator[str]:
    """The times, in columns, with what each is compared with; then aims."""
    if report.get("timings"):
        begun = f"{'kernel':<32}{'ms':>10}{'rate':>13} {'unit':<17}"
        yield f"{begun}{'reference':>10}{'its ms':>10}{'share':>8}{'CuPy ms':>10}"
    for row in report.get("timings", ()):
        yield _line(row)
    for row in report.get("devices", ()):
        if "copy_gb_per_second" in row:
            yield f"{'copy on the device':<42}{row['copy_gb_per_second']:>13,.1f} GB/s read and written"
    for row in report.get("fills", ()):
        if "seconds" in row:
            yield f"{row['name']}: {row['mib']:,} MiB in {row['seconds']:.2f} s"
    if "score" in report.get("attestation", {}):
        found = report["attestation"]
        exam = min((exam["giga_operations"] for exam in found.get("exams") or ()), default=0) / 1_000
        yield f"attestation: score {found['score']}, grade {found.get('grade', 'none')}, exam {exam:,.1f} TOPS"
    for name, value, aim, reached in aims_of(report):
        yield f"{'reached' if reached else 'MISSED '}  {name}: {value:,.2f} of {aim:,.2f}"


def _line(row: Report) -> str:
    if "error" in row:
        return f"{row['name']:<32} {row['error']}"
    begun = f"{row['name']:<32}{row['milliseconds']:>10.3f}{row['rate']:>13,.2f} {row['unit']:<17}"
    if "no_reference" in row:
        return f"{begun} {row['no_reference']}"
    cupy = f"{row['cupy_milliseconds']:>10.3f}" if "cupy_milliseconds" in row else ""
    return f"{begun}{row['reference']:>10}{row['reference_milliseconds']:>10.3f}{row['share']:>8.0%}{cupy}"


def aims_of(report: Report) -> Iterator[tuple[str, float, float, bool]]:
    """Name, value, aim, whether it is reached: of speed on an H200 alone, of the score on every card."""
    device = next((row for row in report.get("devices", ()) if "copy_gb_per_second" in row), None)
    if device is not None and "H200" in device["name"]:
        yield _at_least("copy on the device, GB/s", device["copy_gb_per_second"], AIM_COPY_GB)
        for row in report.get("timings", ()):
            if row["name"] in AIMS_TOPS and "rate" in row:
                yield _at_least(f"{row['name']} TOPS", row["rate"], AIMS_TOPS[row["name"]])
            if row.get("reference") == "copy":
                yield _at_least(f"{row['name']}, share of a copy", row["share"], AIM_SHARE)
        for row in report.get("fills", ()):
            if "seconds" in row:
                reached = row["seconds"] <= row["aim_seconds"]
                yield f"{row['name']}, seconds, at most", row["seconds"], row["aim_seconds"], reached
    if "attestation" in report:
        yield _at_least("attestation score", report["attestation"].get("score", 0), AIM_SCORE)


def _at_least(name: str, value: float, aim: float) -> tuple[str, float, float, bool]:
    return name, value, aim, value >= aim
