"""Many honest products and as many with one bit changed, through the check that pays for them: no error either way.

    python -m tests.actors.attestation.long --count 10000 --seed 1

Shapes are drawn at random, most of them small, one in a hundred with sides of 512 and more. A forgery changes one bit
of one entry of an honest result, and commits to its own rows, so that only the check of the product can find it.
"""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from msgspec import Struct

from actors.backends.cpu import CpuBackend
from actors.services.base import Accepted, Rejected
from actors.services.matmul import operands, row_root, verify
from actors.services.npy import header_bytes
from schemas.services import MatmulInt8, SeededMatrix

LARGE_EVERY = 100


class Tally(Struct):
    """What a run has found."""

    honest: int = 0
    forged: int = 0
    wrongly_rejected: int = 0
    wrongly_accepted: int = 0
    large: int = 0
    codes: Counter[str] = Counter()


def shape_of(number: int, random: np.random.Generator) -> tuple[int, int, int]:
    """Rows, inner dimension and columns of the product of this number."""
    if number % LARGE_EVERY == 0:
        rows, inner, columns = random.integers(512, 640, 3).tolist()
    else:
        rows, inner, columns = (int(2 ** random.uniform(0, 6)) for _ in range(3))
    return rows, inner, columns


def verdict_on(work: MatmulInt8, product: np.ndarray, seed: str, executor: ThreadPoolExecutor) -> Accepted | Rejected:
    """What the check says of a product that was committed to as it is."""
    data = header_bytes("int32", *product.shape) + product.astype("<i4").tobytes()
    return verify(work, {}, data, row_root(product, executor), seed, 1)


def one_bit_changed(product: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy with any bit of any entry flipped."""
    changed = product.copy()
    flat = changed.reshape(-1).view(np.uint32)
    flat[random.integers(flat.size)] ^= np.uint32(1 << int(random.integers(32)))
    return changed


def run(count: int, seed: int, say: bool = False) -> Tally:
    """Check ``count`` honest results and as many forgeries."""
    random = np.random.default_rng(seed)
    tally = Tally(codes=Counter())
    began = time.monotonic()
    with ThreadPoolExecutor(1) as executor:
        for number in range(count):
            rows, inner, columns = shape_of(number, random)
            names = [random.bytes(32).hex() for _ in range(3)]
            work = MatmulInt8(
                a=SeededMatrix(rows=rows, columns=inner, seed=names[0]),
                b=SeededMatrix(rows=inner, columns=columns, seed=names[1]),
            )
            product = _product(work)
            tally.large += min(rows, inner, columns) >= 512
            tally.honest += 1
            tally.wrongly_rejected += not isinstance(verdict_on(work, product, names[2], executor), Accepted)
            tally.forged += 1
            found = verdict_on(work, one_bit_changed(product, random), names[2], executor)
            if isinstance(found, Rejected):
                tally.codes[found.code] += 1
            else:
                tally.wrongly_accepted += 1
            if say and (number + 1) % max(1, count // 10) == 0:
                print(f"{number + 1} of {count} after {time.monotonic() - began:.0f} s", file=sys.stderr)
    return tally


def _product(work: MatmulInt8) -> np.ndarray:
    a, b = operands(work, {})
    return CpuBackend().multiply(a, b)


def main() -> int:
    """Run it from the command line; exit code 1 when there was an error either way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    tally = run(arguments.count, arguments.seed, say=True)
    print(
        f"{tally.honest} honest results, {tally.wrongly_rejected} rejected; "
        f"{tally.forged} one-bit forgeries, {tally.wrongly_accepted} accepted; "
        f"{tally.large} of either with sides of 512 and more; {dict(tally.codes)}; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if tally.wrongly_rejected or tally.wrongly_accepted else 0


if __name__ == "__main__":
    sys.exit(main())
