"""Writes the test vectors of the services on matrices into tests/golden/services.

    python -m tests.golden.product_vectors

Results come from the standard library alone, by the plainest way there is; none of our code computes them.
"""

import json
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = Path(__file__).parent / "services"
WORD: Final = 0xFFFFFFFF
SHAPES: Final = ((1, 1, 1), (2, 3, 2), (5, 17, 3), (3, 130, 4))


def vectors() -> dict[str, bytes]:
    """The files by name."""
    files = {"matmul.int8.json": _int8(), "matmul.fp16-exact.json": _fp16()}
    return {name: (json.dumps(value) + "\n").replace("}, {", "},\n{").encode() for name, value in files.items()}


def _philox(counter: list[int], key: list[int]) -> list[int]:
    c, k = list(counter), list(key)
    for _ in range(10):
        high, low = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(low >> 32) ^ c[1] ^ k[0], low & WORD, (high >> 32) ^ c[3] ^ k[1], high & WORD]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return c


def _seeded(seed: str, rows: int, columns: int) -> list[list[int]]:
    k0, k1, s0, s1 = struct.unpack("<4I", sha256(b"assay:matrix:v1\0" + bytes.fromhex(seed)).digest()[:16])

    def element(row: int, column: int) -> int:
        block = struct.pack("<4I", *_philox([column // 16, row, s0, s1], [k0, k1]))
        return int.from_bytes(block[column % 16 : column % 16 + 1], "little", signed=True)

    return [[element(row, column) for column in range(columns)] for row in range(rows)]


def _product(a: list[list[int]], b: list[list[int]]) -> list[list[int]]:
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]


def _root(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return sha256(b"\x01" + _root(hashes[:half]) + _root(hashes[half:])).digest()


def _case(a: list[list[int]], b: list[list[int]], form: str, **fields: Any) -> dict[str, Any]:
    product = _product(a, b)
    leaves = [sha256(b"\x00" + struct.pack(f"<{len(row)}{form}", *row)).digest() for row in product]
    return {**fields, "a": a, "b": b, "product": product, "root": _root(leaves).hex()}


def _seeds(rows: int) -> tuple[str, str]:
    return sha256(b"left %d" % rows).hexdigest(), sha256(b"right %d" % rows).hexdigest()


def _int8() -> Any:
    cases = []
    for rows, inner, columns in SHAPES:
        left, right = _seeds(rows)
        a, b = _seeded(left, rows, inner), _seeded(right, inner, columns)
        cases.append(_case(a, b, "i", seeds=[left, right]))
    for x, y in ((-128, -128), (-128, 127), (127, 127)):
        cases.append(_case([[x] * 129 + [1]], [[y]] * 129 + [[-1]], "i"))
    return {
        "about": "matmul.int8: `a` times `b` is `product`, `root` is the committed root; where there are `seeds`, the "
        "matrices are those of them.",
        "cases": cases,
    }


def _fp16() -> Any:
    cases = []
    for (rows, inner, columns), limit in zip(SHAPES, (2_048, 1_000, 129, 254), strict=True):
        left, right = _seeds(rows)
        a, b = (
            [[((e + 128) * (2 * limit + 1) >> 8) - limit for e in row] for row in matrix]
            for matrix in (_seeded(left, rows, inner), _seeded(right, inner, columns))
        )
        cases.append(_case(a, b, "f", seeds=[left, right], limit=limit))
    for x, y in ((256, 256), (-256, 256), (256, 0)):
        cases.append(_case([[x] * 127 + [255]], [[y]] * 127 + [[1]], "f", limit=256))
    return {
        "about": "matmul.fp16-exact: `a` times `b` is `product`, `root` is the committed root; where there are "
        "`seeds`, the matrices are those of them with this `limit`.",
        "cases": cases,
    }


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (DIRECTORY / name).write_bytes(content)
