"""A list of checks, told one by one; the first that fails decides."""

from typing import Final, Literal

from msgspec import Struct

from actors.command_line.output import Output
from events.errors import VerificationFailed

ASK_ANOTHER: Final = "Do not rely on it; ask another node."
# Where it is not a node but a coordinator that has said what does not hold.
SHOW_OTHERS: Final = "Keep the log and the blobs: they show anyone that the coordinator's verdict does not hold."


class Check(Struct, frozen=True, kw_only=True):
    """What was looked at. ``skipped`` says in ``detail`` what was missing for it."""

    claim: str
    result: Literal["passed", "failed", "skipped"]
    detail: str = ""


class Checks:
    """Collects checks. After one has failed the others are not looked at."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def hold(self, claim: str, *, holds: bool, difference: str, hint: str = ASK_ANOTHER) -> None:
        """Raises VerificationFailed with the difference unless it holds."""
        self._checks.append(
            Check(claim=claim, result="passed" if holds else "failed", detail="" if holds else difference)
        )
        if not holds:
            raise VerificationFailed(f"not true: {claim}", why=difference, hint=hint, claim=claim)

    def skip(self, claim: str, missing: str) -> None:
        """This could not be looked at."""
        self._checks.append(Check(claim=claim, result="skipped", detail=missing))

    def failed(self, claim: str, difference: str) -> None:
        """Notes a check that failed by an error, which the caller raises again."""
        self._checks.append(Check(claim=claim, result="failed", detail=difference))

    def show(
        self,
        output: Output,
        about: dict[str, object],
        *,
        known: bool = True,
        words: dict[str, object] | None = None,
    ) -> None:
        """Prints the checks. Nothing has ``passed`` unless it is ``known`` who may sign: anyone can sign anything.
        People read ``words``, where given, instead of ``about``."""
        failed = any(check.result == "failed" for check in self._checks)
        skipped = sum(check.result == "skipped" for check in self._checks)
        passed = known and not failed
        marks = {"passed": "ok     ", "failed": "FAILED ", "skipped": "skipped"}
        lines = "\n".join(
            f"{marks[check.result]}  {check.claim}" + (f": {check.detail}" if check.detail else "")
            for check in self._checks
        )
        verdict = "failed" if failed else "passed" if known else "incomplete"
        facts = (about if words is None else words) | {
            "checks": lines,
            "verdict": verdict + (f", {skipped} checks skipped" if skipped else ""),
        }
        output.one(about | {"passed": passed, "checks": self._checks}, facts)
