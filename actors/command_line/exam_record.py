"""An exam as the final blocks of a log have it: who was in it, what was answered, opened and judged. Pure."""

import msgspec
from msgspec import Struct, UnsetType

from actors.exam_judge import BlockFacts
from events.blocks import genesis_hash
from projections.chain import Final
from schemas.attestation import ExamVerdict
from schemas.blocks import Applied
from schemas.events import AttestationClaimed, Body, ExamCommitted, ExamJudged, ExamOpened, ExamRevealed
from schemas.genesis import Genesis, Trust
from schemas.state import Attestation, ExamCommitment, Examination


class Judged(Struct, frozen=True, kw_only=True):
    """A verdict, who gave it in which block, and the miner's record as it was when the verdict was given."""

    verdict: ExamVerdict
    coordinator: str
    height: int
    attestation: Attestation


class ExamRecord:
    """Told the genesis, then block after block.

    ``miners`` is empty until the exam has been opened, ``judged`` is in the order of the log, ``blocks`` has the facts
    of all blocks by height, the genesis at 0.
    """

    def __init__(self, exam: str, genesis: Genesis) -> None:
        self._exam = exam
        self._trust: Trust | UnsetType = genesis.parameters.trust
        self._claims: dict[str, Attestation] = {}
        self.blocks: dict[int, BlockFacts] = {0: BlockFacts(genesis_hash(genesis), genesis.time_ms)}
        self.miners: tuple[str, ...] = ()
        self.judged: list[Judged] = []

    async def block(self, height: int) -> BlockFacts:
        """The facts of a final block, in the form that `actors.exam_judge` asks for them."""
        return self.blocks[height]

    def add(self, final: Final) -> None:
        """Takes what the block says of claims and of the exam."""
        self.blocks[final.header.height] = BlockFacts(final.hash, final.header.time_ms)
        outcomes = final.executed.outcomes[final.executed.timers :]
        for signed, outcome in zip(final.events, outcomes, strict=True):
            if isinstance(outcome, Applied):
                self._add(signed.event, signed.id, final)

    def _add(self, event: Body, event_id: str, final: Final) -> None:
        time_ms, height = final.header.time_ms, final.header.height
        match event:
            case AttestationClaimed():
                self._claims[event.sender] = Attestation(
                    evidence=event.evidence, since_ms=time_ms, claimed_ms=time_ms, claimed_height=height
                )
            case ExamOpened() if event_id == self._exam:
                self.miners = event.miners
                self._open(event, time_ms, height)
            case ExamCommitted() if event.exam == self._exam:
                given = ExamCommitment(answers=event.answers, committed_ms=time_ms, committed_height=height)
                self._change(event.sender, commitment=given)
            case ExamRevealed() if event.exam == self._exam:
                self._change(event.sender, openings=event.openings)
            case ExamJudged() if event.verdict.exam == self._exam:
                attestation = self._claims[event.verdict.miner]
                self.judged.append(
                    Judged(verdict=event.verdict, coordinator=event.sender, height=height, attestation=attestation)
                )

    def _open(self, event: ExamOpened, time_ms: int, height: int) -> None:
        if isinstance(self._trust, UnsetType):
            raise AssertionError("an exam was opened on a chain that has none")
        examination = Examination(
            exam=self._exam,
            cause=event.cause,
            shape=self._trust.exam,
            opened_ms=time_ms,
            opened_height=height,
            deadline_ms=time_ms + self._trust.exam_window_ms,
        )
        for miner in event.miners:
            self._claims[miner] = msgspec.structs.replace(self._claims[miner], examination=examination)

    def _change(self, miner: str, **changes: object) -> None:
        known = self._claims[miner]
        if not isinstance(known.examination, Examination):
            raise AssertionError(f"{miner} is in no exam")
        examination = msgspec.structs.replace(known.examination, **changes)
        self._claims[miner] = msgspec.structs.replace(known, examination=examination)
