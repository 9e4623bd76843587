"""The service ``nbody``: bodies that attract each other, in float32, with bits that every device agrees on.

A step is defined at the head of `actors.backends.reference.nbody`. The bodies are the rows of a ``.npy`` file of
float32, position x, y, z, velocity x, y, z, and mass; or made from a seed. The result is a ``.npy`` file of float32
with the states after every ``every`` steps, one below the other: row c · count + i is position and velocity of body i
in checkpoint c. With n = ``step_ppb`` and s = ``softening_ppm``,

    dt = n / 10^9 and e = s / 10^6, each divided in binary64 and rounded to binary32;   softening squared = e e

**From a seed.** k0, k1, s0, s1 are the first 16 bytes of SHA-256(``assay:bodies:v1`` ‖ 0 ‖ seed) as little-endian
words. Words 0, 1, 2 of Philox4x32-10 of the counter (0, i, s0, s1) under (k0, k1) are the position of body i, those of
(1, i, s0, s1) its velocity: a word w stands for ((w >> 8) - 2^23) / 2^23, a quarter of it for a velocity. The mass is
1 / count, rounded to binary32.

**Leaves.** Leaf *i* of the committed root is chunk *i*'s bytes. A chunk is a checkpoint or, where there is one after
every step, 64 bodies of it (the last ones may be fewer).

**Check.** Every number is held against what a state can be. Each checkpoint is checked from the one before as the
result itself has it. So a single wrong step could lead to where nothing is left to do, all bodies at rest in one place,
say, and every later step would be right: no step may go unchecked. Where there is a checkpoint after every step,
`BODIES_PER_STEP` bodies of each, or all where there are no more, drawn after the commitment, are computed again, bit by
bit. With a share f_t of wrong bodies in step t, a result passes with at most

    product over t of (1 - f_t)**BODIES_PER_STEP <= exp(-BODIES_PER_STEP (f_1 + f_2 + …)),

which is also at most (1 - p)**(steps BODIES_PER_STEP) with the share p of all (`actors.services.sampling`). A result
that has one step wrong for all bodies never passes. Else, where more steps lie between two checkpoints, there are so
few that all are computed again. How far energy and momentum have drifted, `findings` says.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from actors.backends.base import Backend, Float32Array, Int64Array, Motion, Progress, no_progress
from actors.backends.reference.nbody import STATE, drifted, kicked, leapfrog
from actors.services.base import Accepted, Computed, Rejected, RejectionCode, Verdict
from actors.services.generator import philox
from actors.services.npy import MAX_HEADER, MAX_PREFIX, matrix_from_bytes, open_matrix, write_matrix
from actors.services.sampling import sample
from events.errors import BadInput
from events.merkle import leaf_hash, root_of_hashes
from schemas.services import BODIES_PER_SLICE, STATE_BYTES, NBody, SeededBodies
from schemas.values import Digest

SUFFIX: Final = "npy"
DOMAIN: Final = b"assay:nbody:v1\0"
BODIES_DOMAIN: Final = b"assay:bodies:v1\0"
BODIES_PER_STEP: Final = 64
ERROR_BITS: Final = 128
COLUMNS: Final = 7
MOST_MASS: Final = 16.0
MOST_COORDINATE: Final = 1_024.0
# No state that the work allows comes near it, and from none below it can a step overflow.
MOST_STATE: Final = 2.0**60
# The interpreter's own needs; what a thread reserves (a stack, an arena of the allocator) and its arrays; a leaf of the
# tree as an object.
FIXED_BYTES: Final = 96 << 20
BYTES_PER_THREAD: Final = 96 << 20
BYTES_PER_LEAF: Final = 256
# Beyond so many bodies `findings` leaves the energy out: it looks at each pair.
MOST_FOR_ENERGY: Final = 8_192


def result_sizes(work: NBody) -> range:
    """Bytes that a file which `verify` reads can have: other programs write other headers."""
    size = work.checkpoints * work.bodies.count * STATE_BYTES
    return range(size, size + MAX_PREFIX + MAX_HEADER + 1)


def memory_needed(work: NBody, threads: int = 1) -> int:
    """Bytes of memory with which `compute` does the work on the CPU backend, with room to spare."""
    states = (2 * work.checkpoints + 8) * work.bodies.count * STATE_BYTES
    return FIXED_BYTES + threads * BYTES_PER_THREAD + states + work.chunks * BYTES_PER_LEAF


def check_inputs(work: NBody, blobs: Mapping[Digest, Path]) -> None:
    """Raises `BadInput` when the file does not have the bodies that the work describes."""
    bodies(work, blobs)


def bodies(work: NBody, blobs: Mapping[Digest, Path]) -> tuple[Float32Array, Float32Array]:
    """The states at the beginning, and the masses. Raises `BadInput`."""
    count = work.bodies.count
    if isinstance(work.bodies, SeededBodies):
        return _seeded(work.bodies.seed, count)
    rows = open_matrix(blobs[work.bodies.digest], "float32", count, COLUMNS)
    state, masses = np.ascontiguousarray(rows[:, :STATE]), np.ascontiguousarray(rows[:, STATE])
    _check_within(state, -MOST_COORDINATE, MOST_COORDINATE, "a position or a velocity")
    _check_within(masses, 0.0, MOST_MASS, "a mass")
    return state, masses


def _check_within(values: Float32Array, least: float, most: float, what: str) -> None:
    if not _is_within(values, least, most):
        raise BadInput(
            "the bodies are refused",
            why=f"{what} is not in the range from {least:g} to {most:g}",
            hint="Choose other units.",
            reason="RANGE",
        )


def _is_within(values: Float32Array, least: float, most: float) -> bool:
    """Whether all are; what is no number is not."""
    return bool(values.min() >= least and values.max() <= most)


def _seeded(seed: str, count: int) -> tuple[Float32Array, Float32Array]:
    material = hashlib.sha256(BODIES_DOMAIN + bytes.fromhex(seed)).digest()
    k0, k1, s0, s1 = (int.from_bytes(material[at : at + 4], "little") for at in (0, 4, 8, 12))
    numbers = np.arange(count, dtype=np.uint64)
    state = np.empty((count, STATE), dtype=np.float32)
    for block, scale in ((0, 2.0**-23), (1, 2.0**-25)):
        counter = [np.full(count, word, dtype=np.uint64) for word in (block, 0, s0, s1)]
        words = philox((counter[0], numbers, counter[2], counter[3]), (k0, k1))
        for axis in range(3):
            whole = (words[axis] >> np.uint64(8)).astype(np.int64) - (1 << 23)
            state[:, 3 * block + axis] = whole * scale
    return state, np.full(count, 1 / count, dtype=np.float32)


def motion_of(work: NBody) -> Motion:
    """The numbers that a step depends on."""
    softening = np.float32(work.softening_ppm / 1_000_000)
    return Motion(dt=float(np.float32(work.step_ppb / 1_000_000_000)), softening_squared=float(softening * softening))


def _rows(work: NBody, chunk: int) -> slice:
    """Where a chunk lies among the rows of the result."""
    count = work.bodies.count
    checkpoint, part = divmod(chunk, work.slices)
    if work.slices == 1:
        return slice(checkpoint * count, (checkpoint + 1) * count)
    first = part * BODIES_PER_SLICE
    return slice(checkpoint * count + first, checkpoint * count + min(first + BODIES_PER_SLICE, count))


def chunk_root(work: NBody, states: Float32Array) -> Digest:
    """The root over the chunks."""
    leaves = (states[_rows(work, chunk)].astype("<f4", copy=False).tobytes() for chunk in range(work.chunks))
    return root_of_hashes([leaf_hash(leaf) for leaf in leaves]).hex()


def compute(
    work: NBody,
    blobs: Mapping[Digest, Path],
    backend: Backend,
    result: Path,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Computed:
    """Do the work and write the new file ``result``. Raises `BadInput`, `MemoryError`, `OSError`."""
    state, masses = bodies(work, blobs)
    motion, count = motion_of(work), work.bodies.count
    states = np.empty((work.checkpoints * count, STATE), dtype=np.float32)
    for checkpoint in range(work.checkpoints):
        before = checkpoint * work.every

        def advance(done: int, _: int, before: int = before) -> None:
            progress(before + done, work.steps)

        state = backend.leapfrog(state, masses, motion, work.every, advance)
        states[checkpoint * count : (checkpoint + 1) * count] = state
    digest, size = write_matrix(result, states)
    return Computed(root=chunk_root(work, states), digest=digest, size=size)


def read_states(work: NBody, result: Path | bytes) -> Float32Array:
    """The rows of a result's file. Raises `BadInput`."""
    rows = work.checkpoints * work.bodies.count
    if isinstance(result, bytes):
        return matrix_from_bytes(result, "float32", rows, STATE)
    return open_matrix(result, "float32", rows, STATE)


def verify(
    work: NBody, blobs: Mapping[Digest, Path], result: Path | bytes, root: Digest, seed: Digest, threads: int = 0
) -> Verdict:
    """See `actors.services.base.Service.verify`."""
    beginning, masses = bodies(work, blobs)
    try:
        states = read_states(work, result)
    except BadInput as error:
        return Rejected(code=RejectionCode(error.data["reason"]), detail=error.why)
    found = chunk_root(work, states)
    if found != root:
        return Rejected(
            code=RejectionCode.ROOT_MISMATCH, detail=f"the chunks have the root {found}, {root} was committed"
        )
    if not _is_within(states, -MOST_STATE, MOST_STATE):
        return Rejected(code=RejectionCode.RANGE, detail="there is a number that no position or velocity can be")
    motion, count = motion_of(work), work.bodies.count

    def wrong_body(checkpoint: int) -> int | None:
        before = states[(checkpoint - 1) * count : checkpoint * count] if checkpoint else beginning
        after = states[checkpoint * count : (checkpoint + 1) * count]
        which = bodies_to_check(work, seed, checkpoint)
        again = _computed_again(work, before, masses, motion, which)
        claimed = after[which].astype(np.float32)  # in the byte order of this machine
        differ = (again.view(np.uint32) != claimed.view(np.uint32)).any(axis=1)
        return int(which[np.argmax(differ)]) if differ.any() else None

    with ThreadPoolExecutor(threads or 1, thread_name_prefix="verify") as executor:
        for checkpoint, body in enumerate(executor.map(wrong_body, range(work.checkpoints))):
            if body is not None:
                detail = f"body {body} of checkpoint {checkpoint} does not follow from the checkpoint before it"
                chunk = checkpoint * work.slices + (body // BODIES_PER_SLICE if work.slices > 1 else 0)
                return Rejected(code=RejectionCode.CHUNK_MISMATCH, detail=detail, row=chunk)
    checked = work.checkpoints * bodies_to_check(work, seed, 0).size
    if checked == len(states):
        return Accepted(error_bits=ERROR_BITS, method="recomputed")
    return Accepted(error_bits=0, method="sampled", samples=checked, chunks=len(states))


def bodies_to_check(work: NBody, seed: Digest, checkpoint: int) -> Int64Array:
    """Bodies of a checkpoint that a verifier with this challenge computes again, ascending."""
    count = work.bodies.count
    if work.every > 1 or count <= BODIES_PER_STEP:
        return np.arange(count)
    material = seed + checkpoint.to_bytes(4, "little").hex()
    return np.array(sample(material, DOMAIN, BODIES_PER_STEP, count))


def _computed_again(
    work: NBody, before: Float32Array, masses: Float32Array, motion: Motion, which: Int64Array
) -> Float32Array:
    """The states of these bodies as they follow from the checkpoint before."""
    if work.every > 1:
        return leapfrog(before, masses, motion, work.every)[which]
    return kicked(before, drifted(before, motion), masses, motion, which)


def energy(state: npt.NDArray[Any], masses: npt.NDArray[Any], softening_squared: float) -> float:
    """Kinetic and potential energy, in binary64."""
    state, masses = state.astype(np.float64), masses.astype(np.float64)
    kinetic = 0.5 * float(masses @ (state[:, 3:] ** 2).sum(axis=1))
    potential = 0.0
    for body in range(masses.size - 1):
        distances = np.sqrt(((state[body + 1 :, :3] - state[body, :3]) ** 2).sum(axis=1) + softening_squared)
        potential -= float(masses[body] * (masses[body + 1 :] / distances).sum())
    return kinetic + potential


def findings(work: NBody, blobs: Mapping[Digest, Path], result: Path) -> dict[str, str]:
    """How far what ought to be conserved has drifted from the first state to the last. Raises `BadInput`."""
    state, masses = bodies(work, blobs)
    last = read_states(work, result)[-work.bodies.count :]
    _check_within(last, -MOST_STATE, MOST_STATE, "a position or a velocity")
    momenta = [masses.astype(np.float64) @ rows[:, 3:].astype(np.float64) for rows in (state, last)]
    said = {"momentum": f"drifted by {float(np.abs(momenta[1] - momenta[0]).max()):.2e}"}
    if work.bodies.count > MOST_FOR_ENERGY:
        return {"energy": f"not computed for more than {MOST_FOR_ENERGY:,} bodies", **said}
    softening_squared = motion_of(work).softening_squared
    before, after = (energy(rows, masses, softening_squared) for rows in (state, last))
    drift = f", a drift of {(after - before) / abs(before):.2e}" if before else ""
    return {"energy": f"{before:.9g} at the beginning, {after:.9g} at the end{drift}", **said}
