"""The service image.convolve: computing, committing, and judging a result."""

from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest

from actors.backends.cpu import CpuBackend
from actors.services import image_convolve
from actors.services.base import Accepted, Computed, Rejected, RejectionCode
from actors.services.image_convolve import check_inputs, compute, memory_needed, result_sizes, rows_to_check, verify
from actors.services.png import Form, read_png, write_png
from actors.services.sampling import SAMPLES
from events.errors import BadInput
from events.merkle import root
from schemas.services import MAX_KERNEL_SIDE, MAX_WEIGHT, ImageConvolve, Picture

SEED = "5e" * 32
HEIGHT, WIDTH = 300, 40
BLUR = ((1, 2, 1), (2, 4, 2), (1, 2, 1))
EDGES = ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1))


def root_of(picture: np.ndarray) -> str:
    return root(row.tobytes() for row in picture).hex()


def work_on(folder: Path, picture: np.ndarray, **fields: Any) -> tuple[ImageConvolve, dict[str, Path]]:
    digest, _ = write_png(folder / "in.png", picture)
    height, width, channels = picture.shape
    described = Picture(digest=digest, width=width, height=height, channels=channels)
    work = ImageConvolve(picture=described, **({"kernel": BLUR, "divisor": 16, "offset": 0} | fields))
    return work, {digest: folder / "in.png"}


def noise(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(height + channels).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageConvolve, dict[str, Path], Path, Computed]:
    """A picture with opacity, and an honest result."""
    folder = tmp_path_factory.mktemp("convolve")
    work, blobs = work_on(folder, noise(HEIGHT, WIDTH, 4))
    return work, blobs, folder / "out.png", compute(work, blobs, CpuBackend(2), folder / "out.png")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 50, 3), (50, 1, 4), (90, 120, 3)])
@pytest.mark.parametrize(
    ("kernel", "divisor", "offset"),
    [
        (((1,),), 1, 0),
        (BLUR, 16, 0),
        (EDGES, 1, 128),
        (((1, 0, -1),), 3, -7),
        (((MAX_WEIGHT,) * MAX_KERNEL_SIDE,) * MAX_KERNEL_SIDE, 7_372_575, 0),
        (((-MAX_WEIGHT,) * MAX_KERNEL_SIDE,) * MAX_KERNEL_SIDE, 16_777_215, 255),
    ],
)
def test_honest_results_are_accepted(
    tmp_path: Path, shape: tuple[int, int, int], kernel: Any, divisor: int, offset: int
) -> None:
    """A right result is accepted whatever the shapes, from a file and from memory; rows make its root."""
    work, blobs = work_on(tmp_path, noise(*shape), kernel=kernel, divisor=divisor, offset=offset)
    assert work.inconsistency() is None
    check_inputs(work, blobs)
    computed = compute(work, blobs, CpuBackend(), tmp_path / "out.png")
    height, width, channels = shape
    result = read_png(tmp_path / "out.png", Form(width=width, height=height, channels=channels))
    assert computed.root == root_of(result)
    assert computed.size in result_sizes(work)
    assert memory_needed(work) > 3 * result.nbytes
    for given in (tmp_path / "out.png", (tmp_path / "out.png").read_bytes()):
        assert verify(work, blobs, given, computed.root, SEED) == Accepted(error_bits=128, method="recomputed")


def test_a_blur_of_white_is_white(tmp_path: Path) -> None:
    """At the edges the picture is continued, so that an even surface stays even to its border."""
    work, blobs = work_on(tmp_path, np.full((9, 8, 3), 255, dtype=np.uint8))
    compute(work, blobs, CpuBackend(), tmp_path / "out.png")
    assert (read_png(tmp_path / "out.png", Form(width=8, height=9, channels=3)) == 255).all()


def test_opacity_is_carried_over(case: Any) -> None:
    """The fourth channel is that of the input."""
    work, blobs, result, _ = case
    form = Form(width=WIDTH, height=HEIGHT, channels=4)
    before, after = read_png(blobs[work.picture.digest], form), read_png(result, form)
    np.testing.assert_array_equal(after[:, :, 3], before[:, :, 3])
    assert (after[:, :, :3] != before[:, :, :3]).any()


def test_other_compression_is_as_good(case: Any, tmp_path: Path) -> None:
    """The root is over the samples: a file that another program has written passes too."""
    work, blobs, result, computed = case
    content = result.read_bytes()
    empty = chunk_of(b"IDAT")
    assert isinstance(verify(work, blobs, content[:-12] + empty + content[-12:], computed.root, SEED), Accepted)


def chunk_of(kind: bytes, content: bytes = b"") -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + crc32(kind + content).to_bytes(4, "big")


@pytest.mark.parametrize("kind", [b"tRNS", b"gAMA", b"acTL", b"noTe"])
def test_other_chunks_are_rejected(case: Any, kind: bytes) -> None:
    """Right samples in a file that a viewer would show in another way are no result."""
    work, blobs, result, computed = case
    content = result.read_bytes()
    verdict = verify(work, blobs, content[:-12] + chunk_of(kind, bytes(4)) + content[-12:], computed.root, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.MALFORMED


def changed(picture: np.ndarray, row: int, channel: int, bits: int = 1) -> np.ndarray:
    forged = picture.copy()
    forged[row, 7, channel] ^= bits
    return forged


FORGED = [
    ("another lowest bit", lambda p: changed(p, 299, 2), 299),
    ("another highest bit", lambda p: changed(p, 0, 0, 128), 0),
    ("opacity", lambda p: changed(p, 12, 3), 12),
    ("a row in place of the next", lambda p: np.concatenate([p[:50], p[51:52], p[51:]]), 50),
    ("nothing done", None, 0),
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("forge", "row"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED])
def test_forged_results_are_rejected(case: Any, tmp_path: Path, forge: Any, row: int, threads: int) -> None:
    """Where all rows are filtered again, any wrong sample is found, with its row."""
    work, blobs, result, _ = case
    form = Form(width=WIDTH, height=HEIGHT, channels=4)
    right = read_png(result, form)
    forged = forge(right) if forge else read_png(blobs[work.picture.digest], form)
    write_png(tmp_path / "forged.png", forged)
    verdict = verify(work, blobs, tmp_path / "forged.png", root_of(forged), SEED, threads)
    assert isinstance(verdict, Rejected)
    assert (verdict.code, verdict.row) == (RejectionCode.CHUNK_MISMATCH, row)


def test_sampled_rows_of_costly_work(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too costly to do again whole is sampled: a tenth of wrong rows is caught, one wrong row mostly not."""
    monkeypatch.setattr(image_convolve, "WHOLE", 1)
    work, blobs, result, computed = case
    assert verify(work, blobs, result, computed.root, SEED) == Accepted(
        error_bits=0, method="sampled", samples=SAMPLES, chunks=HEIGHT
    )
    form = Form(width=WIDTH, height=HEIGHT, channels=4)
    right = read_png(result, form)
    caught = 0
    lazy = right.copy()
    lazy[::10, :, :3] = 0
    write_png(tmp_path / "lazy.png", lazy)
    lazy_root = root_of(lazy)
    for number in range(100):
        verdict = verify(work, blobs, tmp_path / "lazy.png", lazy_root, f"{number:064x}")
        caught += isinstance(verdict, Rejected)
        assert isinstance(verdict, Accepted) or verdict.row in rows_to_check(work, f"{number:064x}")
    assert caught >= 97
    one = changed(right, 77, 0)
    write_png(tmp_path / "one.png", one)
    verdicts = {
        77 in rows_to_check(work, f"{n:064x}"): verify(work, blobs, tmp_path / "one.png", root_of(one), f"{n:064x}")
        for n in range(40)
    }
    assert isinstance(verdicts[True], Rejected)
    assert isinstance(verdicts[False], Accepted)


def test_as_many_rows_as_are_cheap(tmp_path: Path) -> None:
    """Cheap work is done again whole, costly work in part, at least 44 rows of it."""
    picture = Picture(digest="ab" * 32, width=4_096, height=4_096, channels=3)
    small = ImageConvolve(picture=picture, kernel=BLUR, divisor=16, offset=0)
    large = msgspec.structs.replace(small, kernel=((1,) * 15,) * 15)
    assert len(rows_to_check(small, SEED)) == 2**28 // (4_096 * 27)
    assert len(rows_to_check(large, SEED)) == 97
    assert len(rows_to_check(msgspec.structs.replace(large, picture=noise_picture(16_384, 1_024)), SEED)) == SAMPLES
    thousand = msgspec.structs.replace(small, picture=noise_picture(1_000, 1_000))
    assert len(rows_to_check(thousand, SEED)) == 1_000


def noise_picture(width: int, height: int) -> Picture:
    return Picture(digest="ab" * 32, width=width, height=height, channels=3)


def test_result_that_was_not_committed_is_rejected(case: Any) -> None:
    """A right picture is rejected under another root."""
    work, blobs, result, computed = case
    verdict = verify(work, blobs, result, "00" * 32, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is RejectionCode.ROOT_MISMATCH
    assert computed.root in verdict.detail


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (None, RejectionCode.MALFORMED),
        ((HEIGHT, WIDTH, 3), RejectionCode.TYPE),
        ((HEIGHT, WIDTH), RejectionCode.TYPE),
        ((WIDTH, HEIGHT, 4), RejectionCode.SHAPE),
    ],
)
def test_misshapen_results_are_rejected(case: Any, tmp_path: Path, shape: Any, code: RejectionCode) -> None:
    """A result that is not a picture of the input's form is rejected as such."""
    work, blobs, _, computed = case
    if shape is None:
        (tmp_path / "bad.png").write_bytes(b"no picture")
    else:
        write_png(tmp_path / "bad.png", np.zeros(shape, dtype=np.uint16 if len(shape) == 2 else np.uint8))
    verdict = verify(work, blobs, tmp_path / "bad.png", computed.root, SEED)
    assert isinstance(verdict, Rejected)
    assert verdict.code is code


def test_bad_picture_is_the_clients_fault(case: Any, tmp_path: Path) -> None:
    """A blob that is not the picture of the work is a BadInput, for miner and verifier."""
    work, _, result, computed = case
    write_png(tmp_path / "bad.png", noise(5, 5, 1))
    blobs = {work.picture.digest: tmp_path / "bad.png"}
    for call in (
        lambda: check_inputs(work, blobs),
        lambda: compute(work, blobs, CpuBackend(), tmp_path / "out.png"),
        lambda: verify(work, blobs, result, computed.root, SEED),
    ):
        with pytest.raises(BadInput, match="png") as caught:
            call()
        assert caught.value.data["reason"] == "TYPE"


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_is_told(tmp_path: Path, threads: int) -> None:
    """Steps are counted up to the last one."""
    work, blobs = work_on(tmp_path, noise(700, 300, 3))
    told: list[tuple[int, int]] = []
    backend = CpuBackend(threads)
    compute(work, blobs, backend, tmp_path / "out.png", lambda done, total: told.append((done, total)), threads)
    assert told == [(done, len(told)) for done in range(1, len(told) + 1)]
    assert len(told) > 5
