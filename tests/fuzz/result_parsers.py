"""The verifiers of all services: what a stranger calls the result of a job.

An input is a byte that chooses the service, and the file. It is judged twice: under a root that nobody has, and under
the root that it has itself, so that the verdict does not end at the root.
"""

import re
import tempfile
from contextlib import ExitStack
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from actors.backends.cpu import CpuBackend
from actors.services.base import Accepted, Rejected, RejectionCode
from actors.services.png import write_png
from actors.services.registry import service_for, verify
from actors.services.vectors import write_vector
from events.errors import BadInput
from schemas.services import (
    Histogram,
    ImageConvolve,
    KMeans,
    Mandelbrot,
    MatmulFp16Exact,
    MatmulInt8,
    MonteCarloOption,
    NBody,
    SeededBodies,
    SeededMatrix,
    ServiceWork,
    Sha256Tree,
    Sort,
)
from schemas.services.clusters import SeededPoints
from schemas.services.pictures import Picture
from tests.fuzz.engine import Parse, Parser

SEED: Final = "5e" * 32
_ROOT: Final = re.compile(r"the root ([0-9a-f]{64})")


class Known(NamedTuple):
    """A small work, its inputs, and its honest result with the root."""

    work: ServiceWork
    inputs: dict[str, bytes]
    result: bytes
    root: str


@cache
def known() -> tuple[Known, ...]:
    """One for each service, in the order of what chooses them."""
    with tempfile.TemporaryDirectory(prefix="assay-fuzz-") as folder:
        return tuple(_done(Path(folder), number, *each) for number, each in enumerate(_works(Path(folder))))


def _works(folder: Path) -> list[tuple[ServiceWork, dict[str, bytes]]]:
    a, b = (SeededMatrix(rows=3, columns=3, seed=letter * 64) for letter in "ab")
    write_vector(folder / "values", np.arange(9, dtype=np.int32)[::-1].copy())
    write_png(folder / "picture", np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    values, picture = ((folder / name).read_bytes() for name in ("values", "picture"))
    data = {sha256(content).hexdigest(): content for content in (values, picture)}
    of_values, of_picture = data
    return [
        (MatmulInt8(a=a, b=b), {}),
        (MatmulFp16Exact(a=a, b=b, limit=9), {}),
        (Sha256Tree(digest=of_values, size=len(values), chunk_bytes=1_024), data),
        (Histogram(digest=of_values, element="int32", length=9, low=0, width=2, count=3), data),
        (Sort(digest=of_values, element="int32", length=9), data),
        (
            ImageConvolve(
                picture=Picture(digest=of_picture, width=4, height=4, channels=3),
                kernel=((1, 2, 1),),
                divisor=4,
                offset=0,
            ),
            data,
        ),
        (Mandelbrot(width=4, height=3, re=0, im=0, step=1 << 52, max_iterations=9), {}),
        (KMeans(points=SeededPoints(rows=6, columns=2, seed=SEED), clusters=2, iterations=2, seed=SEED), {}),
        (
            MonteCarloOption(
                style="european",
                right="call",
                spot=100,
                strike=90,
                rate_ppm=0,
                volatility_ppm=100_000,
                days=9,
                steps=1,
                paths=5,
                seed=SEED,
            ),
            {},
        ),
        (NBody(bodies=SeededBodies(count=2, seed=SEED), steps=2, every=1, step_ppb=9, softening_ppm=4_000), {}),
    ]


def _done(folder: Path, number: int, work: ServiceWork, inputs: dict[str, bytes]) -> Known:
    blobs = _written(folder, inputs)
    result = folder / f"result-{number}"
    computed = service_for(work).compute(work, blobs, CpuBackend(), result)
    return Known(work, inputs, result.read_bytes(), computed.root)


def _written(folder: Path, inputs: dict[str, bytes]) -> dict[str, Path]:
    for digest, content in inputs.items():
        (folder / digest).write_bytes(content)
    return {digest: folder / digest for digest in inputs}


def result(stack: ExitStack) -> Parse:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-fuzz-")))
    blobs = [_written(folder, each.inputs) for each in known()]

    def judge(data: bytes) -> object:
        if not data:
            raise BadInput("nothing")
        chosen = data[0] % len(known())
        each = known()[chosen]

        def verdict(root: str) -> Accepted | Rejected:
            return verify(each.work, blobs[chosen], data[1:], root, SEED, threads=1)

        found = verdict("00" * 32)
        assert isinstance(found, Rejected)
        if found.code is RejectionCode.ROOT_MISMATCH:
            own = _ROOT.search(found.detail)
            assert own is not None
            found = verdict(own[1])
            # All of so small a work is checked: what is accepted is right, and so is its root.
            assert isinstance(found, Rejected) or own[1] == each.root
        if isinstance(found, Rejected):
            raise BadInput(found.code, why=found.detail)
        return found

    return judge


PARSERS = (Parser(name="result", make=result, refusals=(BadInput,)),)
