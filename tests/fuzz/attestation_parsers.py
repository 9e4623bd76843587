"""What strangers hand over in attestation: the opening of an exam, and an update of the lists of cards and drivers."""

from contextlib import ExitStack
from functools import cache
from typing import Final

import msgspec

from actors.attestation.exam import BackendExaminee, Sitting, a_seed, b_seed
from actors.attestation.exam_check import ExamFault, ExamSetup, check_opening
from actors.attestation.lists import LISTS_DOMAIN, Lists, SignedLists, read_update, shipped, signed
from actors.backends.cpu import CpuBackend
from events.canonical import UNREADABLE, canonical
from events.errors import BadInput, NotAllowed, VerificationFailed
from events.keys import Key
from events.merkle import leaf_hash
from schemas.attestation import ExamAnswer, ExamShape
from tests.fuzz.engine import Parse, Parser

EPOCH: Final = "5e" * 32
MINER: Final = "U" + "A" * 55
SHAPE: Final = ExamShape(inner=16, columns=8, min_rows=1)
MAINTAINER: Final = Key(bytes(31) + b"\1")


@cache
def opening() -> bytes:
    """That of an honest exam of one row, whose tree is its leaf."""
    sitting = Sitting(BackendExaminee(CpuBackend(), SHAPE, b_seed(EPOCH), a_seed(EPOCH, MINER, "GPU-1")), 1)
    sitting.work()
    return sitting.open(EPOCH)


@cache
def update() -> bytes:
    """Short lists, signed."""
    lists = shipped()
    return signed(msgspec.structs.replace(lists, devices=lists.devices[:2], drivers=lists.drivers[:2]), MAINTAINER)


def exam_opening(stack: ExitStack) -> Parse:
    setup, honest = ExamSetup(EPOCH, SHAPE.inner, SHAPE.columns), opening()

    def judge(data: bytes) -> object:
        answer = ExamAnswer(gpu="GPU-1", rows=1, root=leaf_hash(data).hex())
        found = check_opening(setup, SHAPE, MINER, answer, EPOCH, data)
        if found.fault is ExamFault.MALFORMED:
            raise BadInput(found.detail)
        assert found.passed == (data == honest)
        return found.fault

    return judge


def lists(stack: ExitStack) -> Parse:
    def read(data: bytes) -> object:
        found = read_update(data, MAINTAINER.address)
        assert signed(found, MAINTAINER).rstrip() == data.rstrip()
        return found.version

    return read


def _signed_again(data: bytes) -> bytes:
    try:
        body = msgspec.json.decode(data, type=SignedLists).body
    except UNREADABLE:
        return data
    assert isinstance(body, Lists)
    sig = MAINTAINER.sign(LISTS_DOMAIN + canonical(body))
    return canonical(SignedLists(body=body, sig=sig, signer=MAINTAINER.address))


PARSERS = (
    Parser(name="exam-opening", make=exam_opening, refusals=(BadInput,)),
    Parser(name="lists", make=lists, refusals=(BadInput, NotAllowed, VerificationFailed), repair=_signed_again),
)
