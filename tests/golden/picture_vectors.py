"""Writes the test vectors of image.convolve, mandelbrot and kmeans into tests/golden/services.

    python -m tests.golden.picture_vectors

Results come from Python's integers alone, by the plainest way there is; none of our code computes them.
"""

import json
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = Path(__file__).parent / "services"
HEAVY: Final = 32_767
SEED: Final = sha256(b"seed of the first centres").hexdigest()


def vectors() -> dict[str, bytes]:
    """The files by name."""
    files = {"image.convolve.json": _pictures(), "mandelbrot.json": _sets(), "kmeans.json": _clusterings()}
    return {name: (json.dumps(value, indent=1) + "\n").encode() for name, value in files.items()}


def tree_root(leaves: list[bytes]) -> str:
    """The RFC 9162 root."""

    def root(hashes: list[bytes]) -> bytes:
        if len(hashes) == 1:
            return hashes[0]
        half = 1
        while half * 2 < len(hashes):
            half *= 2
        return sha256(b"\x01" + root(hashes[:half]) + root(hashes[half:])).digest()

    return root([sha256(b"\x00" + leaf).digest() for leaf in leaves]).hex()


def material(name: str, size: int) -> bytes:
    """The first bytes of SHAKE-256."""
    return shake_256(name.encode()).digest(size)


def filtered(case: dict[str, Any], picture: bytes) -> bytes:
    """The result's samples, row by row."""
    width, height, channels, kernel = (case[name] for name in ("width", "height", "channels", "kernel"))
    up, left = len(kernel) // 2, len(kernel[0]) // 2
    result = bytearray()
    for y in range(height):
        for x in range(width):
            for channel in range(channels):
                total = 0
                for i, row in enumerate(kernel):
                    for j, weight in enumerate(row):
                        near_y = min(max(y + i - up, 0), height - 1)
                        near_x = min(max(x + j - left, 0), width - 1)
                        total += weight * picture[(near_y * width + near_x) * channels + channel]
                value = min(max(total // case["divisor"] + case["offset"], 0), 255)
                result.append(picture[(y * width + x) * channels + 3] if channel == 3 else value)
    return bytes(result)


def _pictures() -> Any:
    sharpen = [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]
    blur = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    cases: list[dict[str, Any]] = [
        {"width": 1, "height": 1, "channels": 1, "kernel": [[1]], "divisor": 1, "offset": 0},
        {"width": 5, "height": 3, "channels": 1, "kernel": sharpen, "divisor": 1, "offset": 0},
        {
            "width": 4,
            "height": 6,
            "channels": 3,
            "kernel": blur,
            "divisor": 16,
            "offset": 0,
        },
        {"width": 7, "height": 5, "channels": 4, "kernel": [[-1, 0, 1]], "divisor": 2, "offset": 128},
        {"width": 3, "height": 8, "channels": 4, "kernel": [[-1], [0], [1], [0], [3]], "divisor": 7, "offset": -5},
        {"width": 2, "height": 2, "channels": 3, "kernel": [[1] * 15] * 15, "divisor": 225, "offset": 0},
        {
            "byte": 255,
            "width": 3,
            "height": 2,
            "channels": 1,
            "kernel": [[HEAVY] * 15] * 15,
            "divisor": 7_373,
            "offset": 0,
        },
        {
            "byte": 255,
            "width": 2,
            "height": 3,
            "channels": 1,
            "kernel": [[-HEAVY] * 15] * 15,
            "divisor": 16_777_215,
            "offset": 200,
        },
    ]
    for number, case in enumerate(cases):
        size = case["width"] * case["height"] * case["channels"]
        picture = bytes([case["byte"]]) * size if "byte" in case else material(f"picture {number}", size)
        result = filtered(case, picture)
        line = case["width"] * case["channels"]
        case |= {
            "picture": picture.hex(),
            "result": result.hex(),
            "root": tree_root([result[at : at + line] for at in range(0, size, line)]),
        }
    return {
        "about": "image.convolve: samples of picture and result, row by row; `root` is the committed root.",
        "cases": cases,
    }


def count_of(re: int, im: int, most: int) -> int:
    """Iterations of z = z**2 + c from within distance 2, in units of 2**-56."""

    def square(value: int) -> int:
        return value * value >> 56

    x = y = count = 0
    while count < most and square(x) + square(y) <= 4 << 56:
        xx, yy, cross = square(x), square(y), square(x + y)
        x, y, count = xx - yy + re, cross - xx - yy + im, count + 1
    return count


def _sets() -> Any:
    one = 1 << 50
    cases: list[dict[str, Any]] = [
        {"width": 1, "height": 1, "re": 0, "im": 0, "step": 1, "max_iterations": 65_535},
        {"width": 20, "height": 15, "re": -one // 2, "im": 0, "step": (1 << 53) - 1, "max_iterations": 50},
        {
            "width": 300,
            "height": 2,
            "re": -one * 3 // 4,
            "im": one // 10,
            "step": (1 << 56) // 400,
            "max_iterations": 90,
        },
        {"width": 4, "height": 5, "re": 3 * one + one // 2, "im": -3 * one, "step": (1 << 52) - 1, "max_iterations": 9},
        {"width": 2, "height": 3, "re": -one * 3 // 4, "im": one // 200, "step": 1, "max_iterations": 3_000},
    ]
    for case in cases:
        width, height = case["width"], case["height"]
        columns = [64 * case["re"] + ((2 * j + 1 - width) * case["step"] >> 1) for j in range(width)]
        rows = [64 * case["im"] + ((height - 1 - 2 * i) * case["step"] >> 1) for i in range(height)]
        counts = [[count_of(re, im, case["max_iterations"]) for re in columns] for im in rows]
        leaves = [b"".join(count.to_bytes(2, "big") for count in row) for row in counts]
        case |= {"counts": counts, "root": tree_root(leaves)}
    return {
        "about": "mandelbrot: `counts` are the samples of the result, `root` is the committed root.",
        "cases": cases,
    }


def first_indices(seed: str, clusters: int, count: int) -> list[int]:
    """The points that are the first centres."""
    stream = shake_256(b"assay:kmeans-centres:v1\0" + bytes.fromhex(seed)).digest(8 * 4_096)
    drawn: dict[int, None] = {}
    for at in range(0, len(stream), 8):
        if len(drawn) < clusters:
            drawn[int.from_bytes(stream[at : at + 8], "little") % count] = None
    return sorted(drawn) if clusters < count else list(range(count))


def nearest(point: list[int], centres: list[list[int]]) -> int:
    """The first of the nearest centres."""
    distances = [sum((p - c) ** 2 for p, c in zip(point, centre, strict=True)) for centre in centres]
    return distances.index(min(distances))


def lloyd(points: list[list[int]], clusters: int, iterations: int, seed: str) -> list[bytes]:
    """The leaves, which one after the other are the result's file."""
    step = max(256, -(-len(points) // 16))
    chunks = [points[at : at + step] for at in range(0, len(points), step)]
    history = [[points[index] for index in first_indices(seed, clusters, len(points))]]
    cells: list[bytes] = []
    for _ in range(iterations):
        total_counts = [0] * clusters
        total_sums = [[0] * len(points[0]) for _ in range(clusters)]
        for chunk in chunks:
            counts = [0] * clusters
            sums = [[0] * len(points[0]) for _ in range(clusters)]
            for point in chunk:
                label = nearest(point, history[-1])
                for tally, grand in ((counts, sums), (total_counts, total_sums)):
                    tally[label] += 1
                    grand[label] = [s + p for s, p in zip(grand[label], point, strict=True)]
            numbers = [*counts, *(s for row in sums for s in row)]
            cells.append(b"".join(number.to_bytes(4, "little", signed=True) for number in numbers))
        history.append(
            [
                [s // count for s in sums] if count else old
                for old, count, sums in zip(history[-1], total_counts, total_sums, strict=True)
            ]
        )
    centres = b"".join(c.to_bytes(2, "little", signed=True) for centres in history for row in centres for c in row)
    return [centres, *cells, *(bytes(nearest(point, history[-1]) for point in chunk) for chunk in chunks)]


def _clusterings() -> Any:
    cases: list[dict[str, Any]] = [
        {"points": [[5, -3]], "clusters": 1, "iterations": 1},
        {"points": [[0], [2], [1], [-32_768], [32_767], [1], [1]], "clusters": 3, "iterations": 4},
        {"points": [[-32_768] * 64, [32_767] * 64] * 3, "clusters": 2, "iterations": 2},
        {"points": [[7, 7]] * 5, "clusters": 5, "iterations": 2},
        {"material": "points", "rows": 600, "columns": 3, "clusters": 6, "iterations": 3},
    ]
    for case in cases:
        if "material" in case:
            raw = material(case["material"], case["rows"] * case["columns"] * 2)
            flat = [int.from_bytes(raw[at : at + 2], "little", signed=True) for at in range(0, len(raw), 2)]
            points = [flat[at : at + case["columns"]] for at in range(0, len(flat), case["columns"])]
        else:
            points = case["points"]
        leaves = lloyd(points, case["clusters"], case["iterations"], SEED)
        case |= {"result": sha256(b"".join(leaves)).hexdigest(), "root": tree_root(leaves)}
    return {
        "about": "kmeans: the points are given, or the little-endian int16 of SHAKE-256(`material`), row by row. "
        "`result` is the SHA-256 of the result's file, `root` the committed root.",
        "seed": SEED,
        "cases": cases,
    }


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, data in vectors().items():
        (DIRECTORY / name).write_bytes(data)
