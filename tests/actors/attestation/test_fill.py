"""The fill: what a device shows of its memory, and what it does not."""

from hashlib import sha256

import msgspec
import pytest

from actors.attestation.fill import Fill, HostMemory, challenged_walks, fill_seed, labels_in, opening_size, walks_in
from actors.attestation.fill_check import filled_mib
from schemas.attestation import ExamAnswer
from tests.actors.attestation.small_exam import CHALLENGE, EPOCH, MINER, UUID

MIB = 1


@pytest.fixture(scope="module")
def filled() -> tuple[ExamAnswer, bytes]:
    fill = Fill(HostMemory(fill_seed(EPOCH, MINER, UUID), MIB), MIB)
    said: list[tuple[int, int]] = []
    root = fill.work(lambda done, total: said.append((done, total)))
    assert said[0] == (1, 1)
    assert said[-1] == (2, 2)
    return ExamAnswer(gpu=UUID, rows=1, root="00" * 32, memory_mib=MIB, memory_root=root), fill.open(CHALLENGE)


def test_the_fill_is_what_it_was(filled: tuple[ExamAnswer, bytes]) -> None:
    """Root and opening of one MiB, which any other implementation must reproduce, never change."""
    answer, blob = filled
    assert answer.memory_root == "ba09be6480ac679c1b63d714dd45f61af649c61498ac0ec9095d3e34ad70698d"
    assert sha256(blob).hexdigest() == "3bac68d8a56127845fef1e406f4bfed8711b0a75cf57a0a41aae072467e503bb"


def test_a_filled_memory_shows(filled: tuple[ExamAnswer, bytes]) -> None:
    """An honest fill shows all that it claims."""
    answer, blob = filled
    assert filled_mib(EPOCH, MINER, answer, CHALLENGE, blob) == MIB
    assert len(blob) == opening_size(MIB, challenged_walks(MIB, CHALLENGE))


@pytest.mark.parametrize(
    "wrong", ["epoch", "miner", "device", "challenge", "claims more", "claims nothing", "cut", "changed", "no root"]
)
def test_anything_else_shows_nothing(filled: tuple[ExamAnswer, bytes], wrong: str) -> None:
    """Another exam's fill, another amount, a cut or changed opening: nothing is shown."""
    answer, blob = filled
    epoch, miner, challenge = EPOCH, MINER, CHALLENGE
    match wrong:
        case "epoch":
            epoch = "ee" * 32
        case "miner":
            miner = "U" + "B" * 55
        case "device":
            answer = msgspec.structs.replace(answer, gpu="GPU-other")
        case "challenge":
            challenge = "cc" * 32
        case "claims more":
            answer = msgspec.structs.replace(answer, memory_mib=16_777_216)
        case "claims nothing":
            answer = msgspec.structs.replace(answer, memory_mib=0)
        case "cut":
            blob = blob[:-32]
        case "changed":
            blob = bytes([blob[0] ^ 1]) + blob[1:]
        case _:
            answer = msgspec.structs.replace(answer, memory_root=msgspec.UNSET)
    assert filled_mib(epoch, miner, answer, challenge, blob) == 0


def test_every_label_is_read_four_times_on_average() -> None:
    """The walks together make as many steps as four readings of every label."""
    assert walks_in(8) * 256 == 4 * labels_in(8)


def test_what_has_not_been_filled_cannot_be_opened() -> None:
    """Opening before working is a broken invariant."""
    with pytest.raises(AssertionError, match="before the work"):
        Fill(HostMemory(fill_seed(EPOCH, MINER, UUID), MIB), MIB).open(CHALLENGE)
