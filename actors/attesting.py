"""The miner's decisions on attestation: claim what its host shows, sit the exams that it is named in. Pure.

The miner claims at each start, as soon as it can. Of an exam it keeps one row, so that after a crash it goes on where
it was: the seed is the hash of the block that opened the exam, and the rows that it has to open are named by the hash
of the block that holds its answers.
"""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Final, Literal, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from actors.decision import Cancel, Command, Drop, Keep, Later, Say, Start, draft
from events.canonical import canonical
from schemas.attestation import ExamAnswer, ExamOpening, HostEvidence
from schemas.events import AttestationClaimed, Body, ExamCommitted, ExamJudged, ExamOpened, ExamRevealed
from schemas.values import Digest

CLAIMS: Final = "claims"
SEAT: Final = "seat"
AGAIN_MS: Final = 1_000


class Claimed(Struct, frozen=True):
    """What the host shows; None where it has nothing to claim."""

    evidence: HostEvidence | None


class Answered(Struct, frozen=True):
    """The exam's work is done."""

    exam: Digest
    answers: tuple[ExamAnswer, ...]


class Shown(Struct, frozen=True):
    """Everyone can fetch the challenged rows."""

    exam: Digest
    openings: tuple[ExamOpening, ...]


class SitOn(Struct, frozen=True):
    """Try once more what the exam's stage asks for."""

    exam: Digest


class Seat(Struct, frozen=True, kw_only=True):
    """The exam that this miner is in. ``challenge`` is known once its answers are in a block."""

    exam: Digest
    seed: Digest
    stage: Literal["opened", "answered", "committed", "shown"] = "opened"
    answers: tuple[ExamAnswer, ...] = ()
    challenge: Digest | UnsetType = UNSET
    openings: tuple[ExamOpening, ...] = ()


class Attester(Protocol):
    """The effects: looking at the host, computing, moving blobs."""

    def claim(self) -> Awaitable[Claimed]: ...

    def sit(self, exam: Digest, seed: Digest) -> Awaitable[Answered]:
        """Does the work on every claimed GPU at once."""

    def show(self, exam: Digest, seed: Digest, answers: tuple[ExamAnswer, ...], challenge: Digest) -> Awaitable[Shown]:
        """Makes the challenged rows again and uploads them; does the work anew where it is forgotten."""

    def forget(self, exam: Digest) -> Awaitable[None]: ...


_seat_decoder: Final = msgspec.json.Decoder(Seat)


class Attesting:
    """Decides for one address."""

    def __init__(self, address: str, attester: Attester) -> None:
        self._address = address
        self._attester = attester
        self._claims = 0
        self._seat: Seat | None = None
        self._claimed_again = False
        # Whether the last claim failed before it was said.
        self._unclaimed = False

    def begin(self, rows: Mapping[str, bytes]) -> list[Command]:
        """Claims, and goes on with the exam that was going on."""
        if CLAIMS in rows:
            self._claims = int(rows[CLAIMS])
        if SEAT in rows:
            self._seat = _seat_decoder.decode(rows[SEAT])
        return [self._claim(), *self._go_on()]

    def decide(self, message: object) -> list[Command]:
        """What an effect's message asks for."""
        match message:
            case Claimed(evidence=HostEvidence() as evidence):
                self._claims += 1
                said = draft(AttestationClaimed, evidence=evidence)
                return [Keep(CLAIMS, str(self._claims).encode()), Say(f"claim/{self._claims}", said)]
            case Answered() if (seat := self._at(message.exam, "opened")) is not None:
                return self._keep(msgspec.structs.replace(seat, stage="answered", answers=message.answers))
            case Shown() if (seat := self._at(message.exam, "committed")) is not None:
                return self._keep(msgspec.structs.replace(seat, stage="shown", openings=message.openings))
            case SitOn() if self._seat is not None and self._seat.exam == message.exam:
                return self._go_on()
        return []

    def read(self, event_id: str, event: Body, block: Digest) -> list[Command]:
        """An event of the own feed, applied in this block."""
        match event:
            case ExamOpened() if self._address in event.miners:
                return [*self._end(), *self._keep(Seat(exam=event_id, seed=block))]
            case ExamCommitted(sender=self._address) if (seat := self._at(event.exam, "answered")) is not None:
                return self._keep(msgspec.structs.replace(seat, stage="committed", challenge=block))
            case ExamJudged() if event.verdict.miner == self._address:
                return [*self._end(), *self._mend(event)]
        return []

    def look_again(self) -> list[Command]:
        """A while has passed: claims where that could not be done before."""
        if not self._unclaimed:
            return []
        self._unclaimed = False
        return [self._claim()]

    def failed(self, effect: str, exam: str) -> list[Command]:
        """An effect has failed. Of an exam it is tried again, until the exam's deadline ends this; a claim waits for
        `look_again`."""
        self._unclaimed = self._unclaimed or effect == "claim"
        if self._seat is None or self._seat.exam != exam or effect not in ("sit", "show"):
            return []
        return [Later(AGAIN_MS, SitOn(exam))]

    def in_vain(self, key: str) -> list[Command]:
        """What was said of an exam did nothing: it is over."""
        verb, _, exam = key.partition("/")
        if verb not in ("answer", "show") or self._seat is None or self._seat.exam != exam:
            return []
        return self._end()

    def _claim(self) -> Command:
        return Start("claim", self._attester.claim)

    def _mend(self, event: ExamJudged) -> list[Command]:
        """One missed exam may have been a bad moment: claim anew, which asks for another, once."""
        missed = any(gpu.result in ("absent", "late") for gpu in event.verdict.gpus)
        if not missed or self._claimed_again:
            return []
        self._claimed_again = True
        return [self._claim()]

    def _at(self, exam: str, stage: str) -> Seat | None:
        seat = self._seat
        return seat if seat is not None and (seat.exam, seat.stage) == (exam, stage) else None

    def _keep(self, seat: Seat) -> list[Command]:
        self._seat = seat
        return [Keep(SEAT, canonical(seat)), *self._go_on()]

    def _go_on(self) -> list[Command]:
        """What the exam's stage asks for."""
        seat = self._seat
        if seat is None:
            return []
        if seat.stage == "opened":
            return [Start(f"sit/{seat.exam}", partial(self._attester.sit, seat.exam, seat.seed))]
        if seat.stage == "answered":
            return [Say(f"answer/{seat.exam}", draft(ExamCommitted, exam=seat.exam, answers=seat.answers))]
        if seat.stage == "shown":
            return [Say(f"show/{seat.exam}", draft(ExamRevealed, exam=seat.exam, openings=seat.openings))]
        if isinstance(seat.challenge, UnsetType):
            raise AssertionError(f"the challenge of exam {seat.exam} is unknown")
        show = partial(self._attester.show, seat.exam, seat.seed, seat.answers, seat.challenge)
        return [Start(f"show/{seat.exam}", show)]

    def _end(self) -> list[Command]:
        """The miner is in no exam any more."""
        seat, self._seat = self._seat, None
        if seat is None:
            return []
        return [
            Cancel(f"sit/{seat.exam}"),
            Cancel(f"show/{seat.exam}"),
            Drop(SEAT),
            Start(f"forget/{seat.exam}", partial(self._attester.forget, seat.exam)),
        ]
