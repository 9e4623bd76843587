"""What is found of a revealed result, as the reason that goes on record: a coordinator says it, anyone can repeat it.

A finding depends on the work, its blobs, the commitment and the challenge alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from actors.services.base import Accepted, RejectionCode, Verdict
from actors.services.registry import service_for, verify
from events.errors import BadInput
from schemas.services import Work
from schemas.state import Commitment

WRONG: Final = "RESULT_WRONG"
MALFORMED: Final = "RESULT_MALFORMED"
BAD_INPUT: Final = "BAD_INPUT"

# Of the work, its blobs by digest, the result's file, the committed root and the challenge's seed.
Verify = Callable[[Work, Mapping[str, Path], Path, str, str], Verdict]

_MALFORMED_CODES: Final = (RejectionCode.MALFORMED, RejectionCode.TYPE, RejectionCode.SHAPE)


class Finding(Struct, frozen=True, kw_only=True):
    """``reason`` is empty for a right result, which ``accepted`` then describes."""

    reason: str = ""
    detail: str = ""
    accepted: Accepted | None = None


def impossible_size(work: Work, size: int) -> Finding | None:
    """A result that cannot have the committed size is malformed, whatever its bytes are."""
    if size in service_for(work).result_sizes(work):
        return None
    return Finding(reason=MALFORMED, detail=f"no result of this work has {size} bytes")


def finding_on(
    work: Work, blobs: Mapping[str, Path], result: Path, commitment: Commitment, seed: str, verdict: Verify = verify
) -> Finding:
    """Looks at all of the result. Its file and those of ``blobs`` must have their digests."""
    found = impossible_size(work, commitment.size)
    if found is not None:
        return found
    if (size := result.stat().st_size) != commitment.size:
        return Finding(reason=MALFORMED, detail=f"it has {size} bytes, {commitment.size} were committed")
    try:
        given = verdict(work, blobs, result, commitment.root, seed)
    except BadInput as error:
        return Finding(reason=BAD_INPUT, detail=str(error))
    if isinstance(given, Accepted):
        return Finding(accepted=given)
    reason = MALFORMED if given.code in _MALFORMED_CODES else WRONG
    return Finding(reason=reason, detail=f"{given.code}: {given.detail}")
