"""Writes the test vectors of the simulations into tests/golden/services.

    python -m tests.golden.simulation_vectors

Results come from Python's integers, decimals and single floats, by the plainest way there is; none of our code
computes them.
"""

import json
import struct
from decimal import Decimal, localcontext
from functools import cache
from hashlib import sha256
from math import isqrt
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = Path(__file__).parent / "services"
OPTION: Final = "montecarlo.option"
WORD: Final = 0xFFFFFFFF


def vectors() -> dict[str, bytes]:
    """The files by name."""
    files = {f"{OPTION}.json": _options(), "nbody.json": _bodies()}
    return {name: (json.dumps(value, indent=1) + "\n").encode() for name, value in files.items()}


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x32-10."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = q >> 32 ^ b ^ k0, q & WORD, p >> 32 ^ d ^ k1, p & WORD
        k0, k1 = k0 + 0x9E3779B9 & WORD, k1 + 0xBB67AE85 & WORD
    return a, b, c, d


def key_of(domain: bytes, seed: str) -> tuple[int, ...]:
    """k0, k1, s0, s1."""
    return struct.unpack("<4I", sha256(domain + b"\0" + bytes.fromhex(seed)).digest()[:16])


# ---- Options ---------------------------------------------------------------------------------------------------------


def upper_tail(z: Decimal) -> Decimal:
    """The probability that a normal deviate is above z, by the power series of its density."""
    half, term, total, n = Decimal("0.5"), z, z, 0
    while abs(term) > Decimal(10) ** -40:
        n += 1
        term = -term * z * z * (2 * n - 1) / (2 * n * (2 * n + 1))
        total += term
    return half - total / _root_of_two_pi()


@cache
def _root_of_two_pi() -> Decimal:
    return (2 * Decimal("3.14159265358979323846264338327950288419716939937510582")).sqrt()


@cache
def deviate(index: int) -> int:
    """T[index]: Newton's method for the deviate whose upper tail is given, in 50 digits."""
    with localcontext(prec=50):
        octave, segment = divmod(index, 128)
        wanted = Decimal(2) ** (octave - 33) * (128 + segment) / 128
        if wanted == Decimal("0.5"):
            return 0
        z = (-2 * wanted.ln()).sqrt() if wanted < Decimal("0.1") else Decimal("0.5")
        for _ in range(60):
            density = (-z * z / 2).exp() / _root_of_two_pi()
            step = (upper_tail(z) - wanted) / density
            z += max(Decimal("-0.5"), min(Decimal("0.5"), step))
            if abs(step) < Decimal(10) ** -25:
                return int((z * 2**20).to_integral_value())
    raise AssertionError(f"no deviate for {index}")


@cache
def power(exponent: int, parts: int) -> int:
    """2**31 times 2**(exponent / parts), rounded to the nearest integer."""
    with localcontext(prec=50):
        return int((Decimal(2) ** (31 + Decimal(exponent) / parts)).to_integral_value())


def normal(word: int) -> int:
    """The deviate of a uniform word, in units of 2**-20."""
    odd = 2 * (word & 0x7FFFFFFF) + 1
    highest = odd.bit_length() - 1
    n = odd << 31 - highest
    index, rest = 128 * highest + (n >> 24 & 127), n & 0xFFFFFF
    magnitude = deviate(index) - ((deviate(index) - deviate(index + 1)) * rest >> 24)
    return -magnitude if word >> 31 else magnitude


def price(spot: int, logarithm: int) -> int:
    """The price whose binary logarithm over the spot is given in units of 2**-32."""
    logarithm = max(-(2**37), min(12 * 2**32 - 1, logarithm))
    whole, fraction = logarithm >> 32, logarithm & WORD
    m = power(fraction >> 24, 256) * power(fraction >> 16 & 255, 65_536) >> 31
    m += m * ((fraction & 0xFFFF) * 45_426) >> 48
    return ((spot >> 20) * m + ((spot & 0xFFFFF) * m >> 20)) >> 11 - whole


def option_sums(work: dict[str, Any]) -> list[list[int]]:
    """The rows of the result of montecarlo.option, for a work as in JSON."""
    steps, paths = work["steps"], work["paths"]
    with localcontext(prec=50):
        ln2 = Decimal(2).ln()
        scale, squared = int(Decimal(2) ** 40 / ln2), int(Decimal(2) ** 64 / ln2**2)
    variance, per_step = work["volatility_ppm"] ** 2, 10**12 * 365 * steps
    diffusion = isqrt(variance * work["days"] * squared // per_step)
    drift = (2 * 10**6 * work["rate_ppm"] - variance) * work["days"] * scale // (2 * per_step)
    k0, k1, s0, s1 = key_of(b"assay:paths:v1", work["seed"])
    chunk_paths = min(4_096, 2**20 // steps)
    rows = []
    for first in range(0, paths, chunk_paths):
        row = [0, 0, 0, 0]
        for path in range(first, min(first + chunk_paths, paths)):
            walked, prices = 0, []
            for step in range(steps):
                walked += normal(philox((step // 4, path, s0, s1), (k0, k1))[step % 4])
                prices.append(price(work["spot"], (drift * (step + 1) >> 8) + (diffusion * walked >> 20)))
            last = sum(prices) // steps if work["style"] == "asian" else prices[-1]
            gain = work["strike"] - last if work["right"] == "put" else last - work["strike"]
            h, low = divmod(max(0, gain), 2**25)
            row = [row[0] + max(0, gain), row[1] + h * h, row[2] + h * low, row[3] + low * low]
        rows.append(row)
    return rows


def _options() -> Any:
    seed = sha256(b"seed of the options").hexdigest()
    plain = {
        "service": OPTION,
        "style": "european",
        "right": "call",
        "spot": 100_000_000,
        "strike": 105_000_000,
        "rate_ppm": 30_000,
        "volatility_ppm": 200_000,
        "days": 365,
        "steps": 1,
        "paths": 600,
        "seed": seed,
    }
    works = [
        plain,
        plain | {"style": "asian", "steps": 12, "paths": 50},
        plain | {"right": "put", "rate_ppm": -10_000, "steps": 5, "paths": 120},
        plain | {"style": "asian", "right": "put", "days": 1, "steps": 3, "paths": 40, "strike": 100_500_000},
        plain
        | {"volatility_ppm": 1_000_000, "spot": 100_000_000_000, "strike": 1, "paths": 200, "rate_ppm": 1_000_000},
        plain | {"volatility_ppm": 0, "paths": 3, "steps": 2},
        plain | {"spot": 1, "strike": 1, "paths": 9},
        plain | {"style": "asian", "steps": 4_096, "paths": 1, "volatility_ppm": 1_000_000},
    ]
    return {
        "about": "montecarlo.option: the work, the rows of the result, and the committed root.",
        "cases": [{"work": work, "rows": (rows := option_sums(work)), "root": _root_of_rows(rows)} for work in works],
    }


def _root_of_rows(rows: list[list[int]]) -> str:
    return root([struct.pack("<4q", *row) for row in rows]).hex()


def root(leaves: list[bytes]) -> bytes:
    """The RFC 9162 root."""
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + root(leaves[:half]) + root(leaves[half:])).digest()


# ---- Bodies ----------------------------------------------------------------------------------------------------------


def single(value: float) -> float:
    """Rounded to binary32. A sum, difference or product of two such numbers is exact enough in binary64 for that."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def reciprocal_square_root(value: float) -> float:
    """Three steps of Newton's method from an integer estimate, each operation in binary32."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    (q,) = struct.unpack("<f", struct.pack("<I", 0x5F3759DF - (bits >> 1)))
    half = single(0.5 * value)
    for _ in range(3):
        q = single(q * single(1.5 - single(half * single(q * q))))
    return float(q)


def next_state(state: list[list[float]], masses: list[float], dt: float, softening: float) -> list[list[float]]:
    """All bodies after a step: position and velocity of each."""
    half = single(0.5 * dt)
    middle = [[single(x + single(v * half)) for x, v in zip(body[:3], body[3:], strict=True)] for body in state]
    after = []
    for body, own in zip(state, middle, strict=True):
        pull = [0.0, 0.0, 0.0]
        for other, mass in zip(middle, masses, strict=True):
            d = [single(there - here) for there, here in zip(other, own, strict=True)]
            x2, y2, z2 = (single(part * part) for part in d)
            q = reciprocal_square_root(single(single(single(x2 + y2) + z2) + softening))
            s = single(mass * single(single(q * q) * q))
            pull = [single(a + single(part * s)) for a, part in zip(pull, d, strict=True)]
        velocity = [single(v + single(a * dt)) for v, a in zip(body[3:], pull, strict=True)]
        after.append([single(x + single(v * half)) for x, v in zip(own, velocity, strict=True)] + velocity)
    return after


def seeded_bodies(seed: str, count: int) -> tuple[list[list[float]], list[float]]:
    """States and masses of bodies that are made from a seed."""
    k0, k1, s0, s1 = key_of(b"assay:bodies:v1", seed)
    state = []
    for body in range(count):
        position, velocity = (philox((block, body, s0, s1), (k0, k1))[:3] for block in (0, 1))
        state.append([((w >> 8) - 2**23) / 2**23 for w in position] + [((w >> 8) - 2**23) / 2**25 for w in velocity])
    return state, [single(1 / count)] * count


def checkpoints(work: dict[str, Any], state: list[list[float]], masses: list[float]) -> list[list[list[float]]]:
    """The states after every ``every`` steps."""
    dt, softening = single(work["step_ppb"] / 10**9), single(work["softening_ppm"] / 10**6)
    found = []
    for step in range(1, work["steps"] + 1):
        state = next_state(state, masses, dt, single(softening * softening))
        if step % work["every"] == 0:
            found.append(state)
    return found


def _bodies() -> Any:
    seed = sha256(b"seed of the bodies").hexdigest()
    plain = {"service": "nbody", "steps": 4, "every": 2, "step_ppb": 1_000_000, "softening_ppm": 50_000}
    works = [
        plain | {"bodies": {"kind": "seed", "count": 9, "seed": seed}},
        plain | {"bodies": {"kind": "seed", "count": 70, "seed": seed}, "steps": 2, "every": 1},
        plain | {"bodies": {"kind": "seed", "count": 1, "seed": seed}, "steps": 3, "every": 3},
        plain | {"bodies": {"kind": "seed", "count": 5, "seed": seed}, "step_ppb": 62_500_000, "softening_ppm": 4_000},
    ]
    cases = []
    for work in works:
        count = work["bodies"]["count"]
        state, masses = seeded_bodies(seed, count)
        found = checkpoints(work, state, masses)
        parts = 64 if work["every"] == 1 else count
        leaves = [
            b"".join(struct.pack("<6f", *body) for body in states[first : first + parts])
            for states in found
            for first in range(0, count, parts)
        ]
        cases.append(
            {
                "work": work,
                "first": struct.pack("<6f", *state[0]).hex(),
                "last": struct.pack("<6f", *found[-1][-1]).hex(),
                "result": sha256(b"".join(leaves)).hexdigest(),
                "root": root(leaves).hex(),
            }
        )
    return {
        "about": "nbody: the work, the state of the first body at the beginning and of the last at the end (six "
        "binary32, little-endian), the SHA-256 of the result's elements without the file's header, the committed root.",
        "cases": cases,
    }


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for file_name, data in vectors().items():
        (DIRECTORY / file_name).write_bytes(data)
