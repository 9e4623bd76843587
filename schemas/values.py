"""Bounded value types that the records share.

Units stand last in a name: ``_ms`` milliseconds, ``_bps`` basis points (1/10,000). Money is an integer number of
micro-ASY (1 ASY = 1,000,000 micro-ASY). Every integer on the wire stays below 2**53, so that every JSON reader sees
it exactly.
"""

from typing import Annotated

from msgspec import Meta

MAX_SAFE_INTEGER = 2**53 - 1
MICRO_PER_ASY = 1_000_000

Address = Annotated[
    str, Meta(pattern=r"^[UM][A-Z2-7]{55}\Z", description="NATS NKey: U… a user, M… a multi-signature account")
]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="SHA-256, lower-case hexadecimal")]
# 64 bytes are 85 1/3 characters: only four last characters leave no bits over, so each signature has one text.
Signature = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]{85}[AQgw]\Z", description="Ed25519 signature, base64url, not padded")
]
ChainId = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9-]{1,30}[a-z0-9]\Z", description="name of the chain, a part of every subject")
]

Amount = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER, description="micro-ASY")]
PositiveAmount = Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER, description="micro-ASY, not zero")]
Nonce = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
Height = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
Round = Annotated[int, Meta(ge=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
TimeMs = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER, description="milliseconds since 1970-01-01T00:00:00Z")]
DurationMs = Annotated[int, Meta(ge=1, le=366 * 24 * 3_600_000, description="milliseconds")]
BasisPoints = Annotated[int, Meta(ge=0, le=10_000, description="1/10,000")]
Power = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")]
Memo = Annotated[str, Meta(max_length=256)]
ServiceName = Annotated[str, Meta(pattern=r"^[a-z0-9]+([.-][a-z0-9]+){0,5}\Z", max_length=64)]
