"""The bounds of the value types."""

from typing import Any

import msgspec
import pytest

from schemas import values
from schemas.values import MAX_SAFE_INTEGER
from tests.golden.samples import ALICE

ADDRESS = ALICE.address
YEAR_MS = 366 * 24 * 3_600_000


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (values.Address, ADDRESS),
        (values.Address, "M" + "A" * 55),
        (values.Digest, "0123456789abcdef" * 4),
        (values.Signature, "A" * 86),
        (values.Signature, "_" * 85 + "w"),
        (values.ChainId, "abc"),
        (values.ChainId, "a" + "-" * 30 + "9"),
        (values.Amount, 0),
        (values.Amount, MAX_SAFE_INTEGER),
        (values.PositiveAmount, 1),
        (values.Nonce, 0),
        (values.Height, 0),
        (values.Round, 1_000_000),
        (values.DurationMs, 1),
        (values.DurationMs, YEAR_MS),
        (values.BasisPoints, 10_000),
        (values.Power, 1),
        (values.Name, "a"),
        (values.Name, "NVIDIA H100 80GB._-"),
        (values.Memo, ""),
        (values.Memo, "😀" * 256),
        (values.ServiceName, "matmul.int8"),
        (values.ServiceName, "a.b.c.d.e.f"),
    ],
)
def test_values_inside_the_bounds_are_taken(kind: Any, value: Any) -> None:
    """What lies on the edge of a bound is inside."""
    assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (values.Address, ""),
        (values.Address, ADDRESS.lower()),
        (values.Address, ADDRESS[:-1]),
        (values.Address, ADDRESS + "A"),
        (values.Address, ADDRESS + "\n"),
        (values.Address, "A" + ADDRESS[1:]),
        (values.Address, ADDRESS[:-1] + "1"),
        (values.Digest, "0" * 63),
        (values.Digest, "0" * 65),
        (values.Digest, "A" * 64),
        (values.Digest, "0" * 64 + "\n"),
        (values.Signature, "A" * 85),
        (values.Signature, "A" * 87),
        (values.Signature, "A" * 85 + "="),
        (values.Signature, "A" * 85 + "B"),
        (values.Signature, "+" * 85 + "A"),
        (values.ChainId, "ab"),
        (values.ChainId, "a" * 33),
        (values.ChainId, "1ab"),
        (values.ChainId, "ab-"),
        (values.ChainId, "a.b"),
        (values.ChainId, "a b"),
        (values.ChainId, "a*c"),
        (values.Amount, -1),
        (values.Amount, MAX_SAFE_INTEGER + 1),
        (values.Amount, True),
        (values.Amount, 1.5),
        (values.Amount, 1.0),
        (values.Amount, "1"),
        (values.Amount, None),
        (values.PositiveAmount, 0),
        (values.Nonce, -1),
        (values.Height, -1),
        (values.Round, 1_000_001),
        (values.Count, -1),
        (values.TimeMs, -1),
        (values.DurationMs, 0),
        (values.DurationMs, YEAR_MS + 1),
        (values.BasisPoints, 10_001),
        (values.Power, 0),
        (values.Name, ""),
        (values.Name, " a"),
        (values.Name, "a" * 65),
        (values.Name, "a\n"),
        (values.Name, "é"),
        (values.Memo, "m" * 257),
        (values.ServiceName, "Matmul"),
        (values.ServiceName, ".a"),
        (values.ServiceName, "a..b"),
        (values.ServiceName, "a" * 65),
        (values.ServiceName, "a.b.c.d.e.f.g"),
    ],
)
def test_values_outside_the_bounds_are_refused(kind: Any, value: Any) -> None:
    """What is just beyond a bound, or of another kind, is refused."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(value), type=kind)
