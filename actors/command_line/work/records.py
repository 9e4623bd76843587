"""The record of a work, made of words."""

from typing import Any, TypeVar

import msgspec

from events.errors import BadInput
from schemas.services import ServiceWork, service_of

Record = TypeVar("Record", bound=ServiceWork)


def record_of(record: type[Record], **fields: Any) -> Record:
    """The work, with the bounds of its fields checked here and not only by a node. Raises `BadInput`."""
    try:
        return msgspec.convert({"service": service_of(record), **fields}, record)
    except msgspec.ValidationError as error:
        hint = f"docs/services/{service_of(record)}.md has the bounds."
        raise BadInput(f"{service_of(record)} cannot be asked for this", why=str(error), hint=hint) from error


def seed_of(text: str | None) -> str:
    """The seed that was given, or a new one."""
    import secrets

    return secrets.token_bytes(32).hex() if text is None else text


def scaled(text: str, unit: int, what: str, *, exact: bool = True) -> int:
    """A decimal number such as 0.05 in whole parts of ``1 / unit``; rounded to the nearest unless it must be ``exact``.

    Raises `BadInput`.
    """
    from decimal import Decimal, InvalidOperation, localcontext

    try:
        with localcontext(prec=60):
            value = Decimal(text) * unit
            whole = int(value.to_integral_value())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise BadInput(f"{text!r} is no {what}", hint="Write a number such as 0.05.") from error
    if exact and whole != value:
        raise BadInput(f"{text!r} has too many digits for a {what}", hint=f"It is kept in parts of 1/{unit:,}.")
    return whole
