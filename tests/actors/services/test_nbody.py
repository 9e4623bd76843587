"""The service nbody: states that every device agrees on, and judging them."""

from hashlib import shake_256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from actors.backends.cpu import CpuBackend
from actors.backends.reference.nbody import leapfrog, reciprocal_square_root
from actors.services.base import Accepted, Computed, Rejected, RejectionCode
from actors.services.nbody import (
    bodies,
    bodies_to_check,
    check_inputs,
    chunk_root,
    compute,
    energy,
    findings,
    memory_needed,
    motion_of,
    read_states,
    result_sizes,
    verify,
)
from actors.services.npy import header_bytes, write_matrix
from events.errors import BadInput
from events.merkle import root
from schemas.services import BlobBodies, NBody, SeededBodies

SEED = "5e" * 32
BODIES = SeededBodies(count=100, seed="ab" * 32)
# 60 checkpoints of two slices each; 40 checkpoints; 3 checkpoints.
SLICED = NBody(bodies=BODIES, steps=60, every=1, step_ppb=1_000_000, softening_ppm=50_000)
WHOLE = NBody(bodies=SeededBodies(count=20, seed="ab" * 32), steps=120, every=3, step_ppb=10**6, softening_ppm=50_000)
FEW = replace(WHOLE, every=40)


@pytest.fixture(scope="module", params=[SLICED, WHOLE, FEW], ids=["sliced", "whole", "few"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[NBody, Path, Computed]:
    """A work and an honest result."""
    result = tmp_path_factory.mktemp("nbody") / "result"
    return request.param, result, compute(request.param, {}, CpuBackend(), result)


def test_what_is_computed_is_committed(case: Any) -> None:
    """Root, digest and size are those of the file; leaves are slices of 64 bodies, or checkpoints."""
    work, result, computed = case
    states = read_states(work, result)
    count = work.bodies.count
    leaves = []
    for checkpoint in range(work.checkpoints):
        state = states[checkpoint * count : (checkpoint + 1) * count]
        leaves += [state[:64], state[64:]] if work.every == 1 else [state]
    assert computed.root == root(leaf.tobytes() for leaf in leaves).hex()
    assert len(leaves) == work.chunks
    assert computed.size == result.stat().st_size
    assert computed.size in result_sizes(work)
    assert memory_needed(work) > computed.size
    check_inputs(work, {})


def test_honest_results_are_accepted(case: Any) -> None:
    """The verdict is the same from file and memory, with any number of threads."""
    work, result, computed = case
    expected = (
        Accepted(error_bits=0, method="sampled", samples=60 * 64, chunks=60 * 100)
        if work is SLICED
        else Accepted(error_bits=128, method="recomputed")
    )
    for given in (result, result.read_bytes()):
        for threads in (0, 3):
            assert verify(work, {}, given, computed.root, SEED, threads) == expected


def blob_of(folder: Path, rows: np.ndarray) -> tuple[BlobBodies, dict[str, Path]]:
    digest, _ = write_matrix(folder / "bodies.npy", rows.astype(np.float32))
    return BlobBodies(count=len(rows), digest=digest), {digest: folder / "bodies.npy"}


def test_a_file_of_bodies_is_as_good_as_a_seed(tmp_path: Path) -> None:
    """The same bodies from a file have the same future."""
    state, masses = bodies(WHOLE, {})
    given, blobs = blob_of(tmp_path, np.column_stack((state, masses)))
    work = replace(WHOLE, bodies=given)
    computed = compute(work, blobs, CpuBackend(), tmp_path / "result")
    assert computed.root == compute(WHOLE, {}, CpuBackend(), tmp_path / "other").root
    assert isinstance(verify(work, blobs, tmp_path / "result", computed.root, SEED), Accepted)


def test_two_bodies_go_round_each_other(tmp_path: Path) -> None:
    """After a revolution a circular orbit is where it began, and energy is kept: the physics is right."""
    speed = np.sqrt(0.25 / (1 + 0.004**2) ** 1.5)
    rows = np.array([[0.5, 0, 0, 0, speed, 0, 0.5], [-0.5, 0, 0, 0, -speed, 0, 0.5]])
    given, blobs = blob_of(tmp_path, rows)
    steps = 628
    period = 2 * np.pi * 0.5 / speed
    work = NBody(bodies=given, steps=steps, every=steps, step_ppb=round(period / steps * 10**9), softening_ppm=4_000)
    compute(work, blobs, CpuBackend(), tmp_path / "result")
    last = read_states(work, tmp_path / "result")
    np.testing.assert_allclose(last[:, :3], rows[:, :3], atol=2e-3)
    assert float(findings(work, blobs, tmp_path / "result")["energy"].rpartition(" ")[2]) < 1e-5


def test_forces_are_those_of_float64() -> None:
    """A step agrees with one in float64 to a few units in the last place, and the root with that of the library."""
    state, masses = bodies(SLICED, {})
    motion = motion_of(SLICED)
    found = leapfrog(state, masses, motion, 1)
    x, v = state[:, :3].astype(np.float64), state[:, 3:].astype(np.float64)
    x = x + v * motion.dt / 2
    d = x[np.newaxis] - x[:, np.newaxis]
    a = (masses[:, np.newaxis] * d / ((d**2).sum(axis=2, keepdims=True) + motion.softening_squared) ** 1.5).sum(axis=1)
    v = v + a * motion.dt
    np.testing.assert_allclose(found, np.column_stack((x + v * motion.dt / 2, v)), rtol=2e-6, atol=2e-7)
    values = np.geomspace(2.0**-16, 2.0**123, 100_000).astype(np.float32)
    exact = 1 / np.sqrt(values.astype(np.float64))
    assert np.abs(reciprocal_square_root(values) / exact - 1).max() < 2**-21


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_do_not_matter(threads: int) -> None:
    """However the bodies are parted among threads, the bits are the same."""
    work = replace(SLICED, bodies=SeededBodies(count=600, seed=SEED))
    state, masses = bodies(work, {})
    expected = leapfrog(state, masses, motion_of(work), 2)
    assert leapfrog(state, masses, motion_of(work), 2, threads=threads).tobytes() == expected.tobytes()


def test_energy_of_two_bodies() -> None:
    """Kinetic plus potential energy, with the softening."""
    state = np.array([[0, 0, 0, 1, 0, 0], [3, 0, 0, 0, 2, 0]], dtype=np.float32)
    assert energy(state, np.array([2.0, 5.0]), 16.0) == pytest.approx(0.5 * 2 * 1 + 0.5 * 5 * 4 - 2 * 5 / 5)


def at(work: NBody, states: np.ndarray, checkpoint: int, body: int, value: float) -> np.ndarray:
    changed = states.copy()
    changed[checkpoint * work.bodies.count + body, 2] = value
    return changed


def stood_still(work: NBody, states: np.ndarray) -> np.ndarray:
    return np.tile(states[: work.bodies.count], (work.checkpoints, 1))


def next_after(work: NBody, states: np.ndarray) -> np.ndarray:
    """Each number off by one unit in its last place."""
    return np.nextafter(states, np.float32(np.inf))


FORGED = [
    ("not a number", lambda w, s: at(w, s, 1, 3, np.nan), RejectionCode.RANGE),
    ("infinite", lambda w, s: at(w, s, 2, 5, np.inf), RejectionCode.RANGE),
    ("below the range", lambda w, s: at(w, s, 0, 0, -(2.0**61)), RejectionCode.RANGE),
    ("stood still", stood_still, RejectionCode.CHUNK_MISMATCH),
    ("last places", next_after, RejectionCode.CHUNK_MISMATCH),
    ("all zero", lambda w, s: np.zeros_like(s), RejectionCode.CHUNK_MISMATCH),
    ("at the end of the range", lambda w, s: np.full_like(s, 2.0**60), RejectionCode.CHUNK_MISMATCH),
    ("signs of zero", lambda w, s: np.where(s > 0, np.float32(-0.0), s), RejectionCode.CHUNK_MISMATCH),
]


@pytest.mark.parametrize(("forge", "code"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_forged_results_are_rejected(case: Any, tmp_path: Path, forge: Any, code: RejectionCode) -> None:
    """A wrong result is rejected under a root that fits it, and no number in it makes the check overflow."""
    work, result, _ = case
    wrong = np.ascontiguousarray(forge(work, read_states(work, result)))
    write_matrix(tmp_path / "forged", wrong)
    with np.errstate(all="raise", under="ignore"):
        verdict = verify(work, {}, tmp_path / "forged", chunk_root(work, wrong), SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is code


def test_states_that_cannot_be_say_nothing(tmp_path: Path) -> None:
    """No energy is told of what is no number."""
    write_matrix(tmp_path / "forged", np.full((60, 6), np.nan, dtype=np.float32))
    with pytest.raises(BadInput, match="range"):
        findings(FEW, {}, tmp_path / "forged")


def verdicts_of(work: NBody, wrong: np.ndarray, folder: Path, seeds: int) -> list[Any]:
    write_matrix(folder / "forged", wrong)
    committed = chunk_root(work, wrong)
    return [verify(work, {}, folder / "forged", committed, f"{number:064x}") for number in range(seeds)]


@pytest.mark.parametrize(("work", "least", "most"), [(SLICED, 15, 35), (WHOLE, 40, 40)], ids=["sliced", "whole"])
def test_a_wrong_body_is_found_as_often_as_the_bound_says(tmp_path: Path, work: NBody, least: int, most: int) -> None:
    """A body that is moved once, and a future that follows from it: found with 64 of 100 bodies, always with all."""
    state, masses = bodies(work, {})
    motion = motion_of(work)
    states = []
    for checkpoint in range(work.checkpoints):
        state = leapfrog(state, masses, motion, work.every)
        if checkpoint == 30:
            state[7, 0] += np.float32(0.5)
        states.append(state)
    verdicts = verdicts_of(work, np.concatenate(states), tmp_path, 40)
    rejected = [verdict for verdict in verdicts if isinstance(verdict, Rejected)]
    assert least <= len(rejected) <= most
    assert {verdict.row for verdict in rejected} == {30 * work.slices}


def test_bodies_are_drawn_as_the_protocol_says() -> None:
    """64 of each step, from a stream of its own; all where they are few or several steps lie between checkpoints."""
    for step in (0, 1, 59, 300):
        stream = shake_256(b"assay:nbody:v1\0" + bytes.fromhex(SEED) + step.to_bytes(4, "little")).digest(8 * 500)
        words = [int.from_bytes(stream[at : at + 8], "little") for at in range(0, len(stream), 8)]
        drawn = list(dict.fromkeys(word % 100 for word in words if word < 2**64 - 2**64 % 100))[:64]
        assert bodies_to_check(SLICED, SEED, step).tolist() == sorted(drawn)
    few = replace(SLICED, bodies=SeededBodies(count=64, seed=SEED))
    assert bodies_to_check(few, SEED, 1).tolist() == list(range(64))
    assert bodies_to_check(WHOLE, SEED, 1).tolist() == list(range(20))


@pytest.mark.parametrize("at", [0, 200, 399])
def test_jump_to_where_nothing_is_left_to_do_is_found(tmp_path: Path, at: int) -> None:
    """Right up to one step that brings all bodies to rest in one place: though all that follows is right, it never
    passes."""
    work = replace(SLICED, steps=400)
    compute(work, {}, CpuBackend(), tmp_path / "result")
    wrong = read_states(work, tmp_path / "result").copy()
    wrong[100 * at :] = 0
    for verdict in verdicts_of(work, wrong, tmp_path, 10):
        assert isinstance(verdict, Rejected)
        assert (verdict.code, verdict.row // 2) == (RejectionCode.CHUNK_MISMATCH, at)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", RejectionCode.MALFORMED),
        (header_bytes("float32", 60, 6) + bytes(60 * 24 - 1), RejectionCode.MALFORMED),
        (header_bytes("float32", 60, 6) + bytes(60 * 24 + 1), RejectionCode.MALFORMED),
        (header_bytes("int32", 60, 6) + bytes(60 * 24), RejectionCode.TYPE),
        (header_bytes("float32", 6, 60) + bytes(60 * 24), RejectionCode.SHAPE),
        (header_bytes("float32", 60, 7) + bytes(60 * 28), RejectionCode.SHAPE),
        (header_bytes("float32", 60, 6) + bytes(60 * 24), RejectionCode.ROOT_MISMATCH),
    ],
)
def test_misshapen_results_are_rejected(tmp_path: Path, content: bytes, code: RejectionCode) -> None:
    """What is not such a table, or not the one that was committed, is rejected as such, from file and memory."""
    (tmp_path / "given").write_bytes(content)
    for given in (tmp_path / "given", content):
        verdict = verify(FEW, {}, given, "00" * 32, SEED)
        assert isinstance(verdict, Rejected)
        assert verdict.code is code


@pytest.mark.parametrize(
    ("body", "column", "value", "reason"),
    [
        (0, 0, np.nan, "RANGE"),
        (1, 2, 1_024.5, "RANGE"),
        (0, 4, -np.inf, "RANGE"),
        (1, 6, 16.5, "RANGE"),
        (0, 6, -1e-30, "RANGE"),
    ],
)
def test_bodies_that_would_overflow_are_the_clients_fault(
    tmp_path: Path, body: int, column: int, value: float, reason: str
) -> None:
    """Miner and verifier refuse them alike, before anything is computed."""
    rows = np.ones((3, 7), dtype=np.float32)
    rows[body, column] = value
    given, blobs = blob_of(tmp_path, rows)
    work = replace(FEW, bodies=given)
    calls = (
        lambda: check_inputs(work, blobs),
        lambda: compute(work, blobs, CpuBackend(), tmp_path / "result"),
        lambda: verify(work, blobs, b"", "00" * 32, SEED),
    )
    for call in calls:
        with pytest.raises(BadInput) as caught:
            call()
        assert caught.value.data["reason"] == reason


def test_a_file_of_something_else_is_the_clients_fault(tmp_path: Path) -> None:
    """Another type or shape is refused by its reason."""
    write_matrix(tmp_path / "bodies.npy", np.ones((3, 6), dtype=np.float32))
    work = replace(FEW, bodies=BlobBodies(count=3, digest="cc" * 32))
    with pytest.raises(BadInput, match="refused"):
        check_inputs(work, {"cc" * 32: tmp_path / "bodies.npy"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 121}, "no multiple"),
        ({"bodies": SeededBodies(count=2_237, seed=SEED), "steps": 2, "every": 2}, "10008338 interactions"),
        ({"bodies": SeededBodies(count=2_236, seed=SEED), "steps": 2, "every": 2}, None),
        ({"steps": 88, "every": 2}, None),
        ({"steps": 90, "every": 2}, "45 checkpoints"),
        ({"bodies": SeededBodies(count=65_536, seed=SEED), "steps": 42, "every": 1}, None),
        ({"bodies": SeededBodies(count=65_536, seed=SEED), "steps": 43, "every": 1}, "67633152 bytes"),
    ],
)
def test_what_contradicts_itself_is_told(changes: dict[str, Any], said: str | None) -> None:
    """Work of uneven checkpoints, too costly to check, or with too large a result is refused with its reason."""
    found = replace(WHOLE, **changes).inconsistency()
    assert (found is None) if said is None else said in (found or "")


def test_the_largest_result_fits_into_a_blob() -> None:
    """With its header, the largest table of checkpoints can be uploaded."""
    from bus.port import Limits

    largest = replace(WHOLE, bodies=SeededBodies(count=65_536, seed=SEED), steps=42, every=1)
    assert len(header_bytes("float32", 42 * 65_536, 6)) + 42 * 65_536 * 24 <= Limits().blob_bytes
    assert msgspec.json.decode(msgspec.json.encode(largest), type=NBody) == largest
