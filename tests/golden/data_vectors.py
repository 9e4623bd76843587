"""Writes the test vectors of the services on data into tests/golden/services.

    python -m tests.golden.data_vectors

Results come from the standard library alone, by the plainest way there is; none of our code computes them.
"""

import json
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = Path(__file__).parent / "services"
PRIME: Final = 2**32 - 5
SEED: Final = sha256(b"seed of the fingerprints").hexdigest()


def vectors() -> dict[str, bytes]:
    """The files by name."""
    files = {"sha256.tree.json": _trees(), "histogram.json": _histograms(), "sort.json": _sorts()}
    return {name: (json.dumps(value, indent=1) + "\n").encode() for name, value in files.items()}


def blob(case: dict[str, Any]) -> bytes:
    """The blob of a case of sha256.tree."""
    if "byte" in case:
        return bytes([case["byte"]]) * int(case["size"])
    return shake_256(str(case["material"]).encode()).digest(case["size"])


def _root(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return sha256(b"\x01" + _root(hashes[:half]) + _root(hashes[half:])).digest()


def _trees() -> Any:
    sizes = (1, 54, 55, 56, 63, 64, 1_023, 1_024, 1_025, 2_047, 3_072, 31_800, 33_792, 72_704)
    cases: list[dict[str, Any]] = [
        *({"material": f"blob of {size}", "size": size, "chunk_bytes": 1_024} for size in sizes),
        *({"byte": byte, "size": 5_000, "chunk_bytes": 2_048} for byte in (0x00, 0x80, 0xFF)),
        {"material": "large chunks", "size": 2_500_000, "chunk_bytes": 1_048_576},
    ]
    for case in cases:
        data, step = blob(case), case["chunk_bytes"]
        hashes = [sha256(b"\x00" + data[at : at + step]).digest() for at in range(0, len(data), step)]
        case |= {"first": hashes[0].hex(), "result": sha256(b"".join(hashes)).hexdigest(), "root": _root(hashes).hex()}
    return {
        "about": "sha256.tree: the blob is `size` times `byte`, or the first `size` bytes of SHAKE-256(`material`). "
        "`first` is the first leaf hash, `result` the SHA-256 of the result's file, `root` the committed root.",
        "cases": cases,
    }


def _histograms() -> Any:
    low, high = -(2**31), 2**31 - 1
    spread = [low, low + 1, -70_000, -65_537, -2, -1, 0, 1, 2, 99, 100, 101, 65_535, 70_000, high - 1, high]
    cases: list[dict[str, Any]] = [
        {"element": "uint8", "values": [0, 1, 2, 3, 254, 255, 255], "low": 1, "width": 1, "count": 2},
        {"element": "uint8", "values": [*range(256)] * 2, "low": -1, "width": 3, "count": 90},
        {
            "element": "uint16",
            "values": [0, 65_535, 65_534, 32_768, 32_767],
            "low": 32_768,
            "width": 16_384,
            "count": 2,
        },
        {"element": "int16", "values": [-32_768, -32_767, -1, 0, 1, 32_767], "low": -1, "width": 2, "count": 1},
        {"element": "int32", "values": spread, "low": low, "width": 2**32 - 1, "count": 1},
        {"element": "int32", "values": spread, "low": low, "width": 2**31, "count": 2},
        {"element": "int32", "values": spread, "low": low, "width": 2**31 - 1, "count": 3},
        {"element": "int32", "values": spread, "low": high, "width": 1, "count": 3},
        {"element": "int32", "values": spread, "low": -65_537, "width": 65_537, "count": 5},
        {"element": "int32", "values": [7] * 300, "low": 0, "width": 7, "count": 4},
    ]
    for case in cases:
        counts = [0] * (case["count"] + 2)
        for value in case["values"]:
            counts[min(max((value - case["low"]) // case["width"], -1), case["count"]) + 1] += 1
        case |= {"counts": counts, "root": _vector_root(counts, 8)}
    return {"about": "histogram: `counts` are the entries of the result, `root` is the committed root.", "cases": cases}


def _sorts() -> Any:
    cases: list[dict[str, Any]] = []
    for element, bits, signed in (("int32", 32, True), ("uint32", 32, False), ("int64", 64, True)):
        least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        singles = [1 << bit for bit in range(bits - signed)]
        random = shake_256(element.encode()).digest(bits // 8 * 40)
        drawn = [
            int.from_bytes(random[at : at + bits // 8], "little", signed=signed)
            for at in range(0, len(random), bits // 8)
        ]
        vectors_of_values = (
            [most],
            [most, least],
            [least, least, most, 0, least, 1, 1],
            [*range(20, 0, -1)],
            [*singles[::-1], least, most, 0],
            drawn + drawn[:7],
        )
        cases += [{"element": element, "values": values} for values in vectors_of_values]
    for case in cases:
        size = 8 if case["element"] == "int64" else 4
        case |= {"sorted": sorted(case["values"]), "fingerprint": _fingerprint(case["values"], size)}
        case["root"] = _vector_root(case["sorted"], size, signed=case["element"] != "uint32")
    return {
        "about": "sort: `sorted` are the entries of the result, `root` is the committed root, `fingerprint` is that of "
        "the values under `seed`, one number per evaluation.",
        "seed": SEED,
        "cases": cases,
    }


def _vector_root(values: list[int], size: int, *, signed: bool = True) -> str:
    content = b"".join(value.to_bytes(size, "little", signed=signed) for value in values)
    return _root([sha256(b"\x00" + content[at : at + 65_536]).digest() for at in range(0, len(content), 65_536)]).hex()


def _fingerprint(values: list[int], size: int) -> list[int]:
    digits = size // 2
    stream = shake_256(b"assay:permutation:v1\0" + bytes.fromhex(SEED)).digest(4 * 4 * digits * 65_536)

    def entry(evaluation: int, place: int, digit: int) -> int:
        at = 4 * ((evaluation * digits + place) * 65_536 + digit)
        return int.from_bytes(stream[at : at + 4], "little") & 0x3FFFFFFF

    sums = [0, 0, 0, 0]
    for value in values:
        for evaluation in range(4):
            weight = 1
            for place in range(digits):
                weight = weight * entry(evaluation, place, value >> 16 * place & 0xFFFF) % PRIME
            sums[evaluation] = (sums[evaluation] + weight) % PRIME
    return sums


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (DIRECTORY / name).write_bytes(content)
