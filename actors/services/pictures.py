"""What the services on pictures share."""

from typing import Any, Final

import numpy.typing as npt

from events.merkle import leaf_hash, root_of_hashes
from schemas.values import Digest

# Where all of a result is computed again no wrong one passes at all; what is left are collisions of the digests.
ERROR_BITS: Final = 128


def picture_root(samples: npt.NDArray[Any]) -> Digest:
    """The root over the rows of the samples: leaf *i* holds the bytes of row *i*."""
    return root_of_hashes([leaf_hash(row.tobytes()) for row in samples]).hex()
