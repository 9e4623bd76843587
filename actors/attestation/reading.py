"""What one source says of one device, field by field: read, absent, or malformed. Nothing is judged here."""

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, get_args, get_type_hints

import msgspec
from msgspec import Struct, UnsetType

from schemas.attestation import SourceReport

Source: TypeAlias = Literal["nvml", "cuda", "sysfs", "procfs"]
# What a source says of one device, by names of `SourceReport`'s fields, as it came.
Raw: TypeAlias = Mapping[str, Any]


class Reading(Struct, frozen=True, kw_only=True):
    """One device as one source describes it. ``malformed`` names the fields whose values no such field can have."""

    report: SourceReport
    malformed: tuple[str, ...] = ()


class SourceState(Struct, frozen=True, kw_only=True):
    """Whether a source answered at all, and if not, why."""

    source: Source
    answered: bool
    devices: int = 0
    detail: str = ""


def _types() -> dict[str, Any]:
    """The type of each field, without the possibility that it is absent."""
    hints = get_type_hints(SourceReport, include_extras=True)
    return {name: next(part for part in get_args(hint) if part is not UnsetType) for name, hint in hints.items()}


_FIELDS: Final = _types()


def read(raw: Raw) -> Reading:
    """The record of what a source said; a field whose value does not fit its type is named instead of kept."""
    kept: dict[str, Any] = {}
    malformed = []
    for name, value in raw.items():
        if value is None:
            continue
        try:
            kept[name] = msgspec.convert(value, _FIELDS[name], strict=True)
        except (KeyError, msgspec.ValidationError):
            malformed.append(name)
    return Reading(report=SourceReport(**kept), malformed=tuple(sorted(malformed)))
