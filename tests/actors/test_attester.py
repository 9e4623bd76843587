"""Which devices a miner claims, and on what each of them works; libraries are mocks, the processor is every card."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Raw

from actors.attestation.lists import shipped
from actors.attestation.selftest import processor_id
from actors.attester import HostAttester
from actors.backends.base import Backend, DeviceFault
from actors.backends.cpu import CpuBackend
from actors.fetching import HostFault
from bus.simulated import SimulatedBus, SimulatedNetwork
from events.canonical import canonical, digest
from events.errors import AssayError, DeviceUnavailable
from schemas.attestation import ExamAnswer, ExamShape, HostEvidence
from schemas.messages import QueryAnswer
from tests.actors.attestation.mock_host import (
    SECOND_BUS,
    SECOND_UUID,
    UUID,
    kernel_trees,
    libraries,
    needs_compiler,
    neighbour,
    places,
)
from tests.actors.matrices import MINER
from tests.actors.town import ChosenFaults
from tests.actors.virtual_time import VirtualClock, run

SHAPE: Final = ExamShape(inner=64, columns=32, min_rows=64)
EXAM: Final = digest(b"the exam")
SEED: Final = digest(b"its seed")
NOT_THERE: Final = DeviceUnavailable("there is no such GPU")

pytestmark = needs_compiler


class Room:
    """A miner whose host has these cards, of which ``broken`` do not work."""

    def __init__(
        self,
        directory: Path,
        cards: int = 2,
        broken: str = "",
        error: Exception = NOT_THERE,
        **options: Any,
    ) -> None:
        self.asked: list[str | None] = []
        self._broken = broken
        self._error = error
        self._bus = SimulatedBus(SimulatedNetwork(VirtualClock(), ChosenFaults()), "assay-small", name="miner")
        _, sys = kernel_trees(directory)
        for bus in (SECOND_BUS, "0000:66:00.0"):
            neighbour(sys, bus)
        self.attester = HostAttester(
            self._bus,
            MINER,
            directory / "exams",
            SHAPE,
            300,
            shipped(),
            self._backend,
            places=places(directory, libraries(directory / "lib", CARDS=str(cards)), sys=sys),
            **options,
        )

    def _backend(self, device: str | None) -> Backend:
        self.asked.append(device)
        if device == self._broken:
            raise self._error
        return CpuBackend()

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def with_a_node() -> None:
            await self._bus.set_up("ab" * 32, ("VALIDATOR",))

            async def status(_: bytes) -> bytes:
                return canonical(QueryAnswer(height=5, value=Raw(canonical({"height": 5, "head": SEED}))))

            await self._bus.serve_queries({"status": status}, "1.0.0")
            await scenario()
            self.attester.close()

        run(with_a_node)

    async def claim(self) -> tuple[str, ...]:
        claimed = await self.attester.claim()
        return () if claimed.evidence is None else _names(claimed.evidence)


def _names(evidence: HostEvidence) -> tuple[str, ...]:
    return tuple(gpu.uuid for gpu in evidence.gpus)


def test_every_card_works_by_its_uuid(tmp_path: Path) -> None:
    """All cards that the libraries name are claimed, no neighbour is, and each answers on what has its UUID."""
    room = Room(tmp_path)

    async def scenario() -> None:
        assert await room.claim() == (UUID, SECOND_UUID)
        answered = await room.attester.sit(EXAM, SEED)
        assert [answer.gpu for answer in answered.answers] == [UUID, SECOND_UUID]
        assert answered.answers[0].root != answered.answers[1].root
        assert sorted(filter(None, room.asked)) == [UUID, SECOND_UUID]

    room.run(scenario)


@pytest.mark.parametrize(
    "error",
    [NOT_THERE, MemoryError("the GPU has too little memory")],
    ids=["not there", "full"],
)
def test_a_card_that_cannot_work_stays_claimed(tmp_path: Path, error: Exception) -> None:
    """It is named in the claim, and has no answer: what cannot be examined is not dropped."""
    room = Room(tmp_path, broken=UUID, error=error)

    async def scenario() -> None:
        assert await room.claim() == (UUID, SECOND_UUID)
        answered = await room.attester.sit(EXAM, SEED)
        assert [answer.gpu for answer in answered.answers] == [SECOND_UUID]

    room.run(scenario)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (NOT_THERE, DeviceUnavailable),
        (MemoryError("the GPU has too little memory"), HostFault),
        (DeviceFault("the GPU has failed"), DeviceUnavailable),
        (OSError("no such device"), HostFault),
    ],
)
def test_what_a_device_cannot_is_an_effects_failure(tmp_path: Path, error: Exception, raised: type[AssayError]) -> None:
    """A typed error, after which the exam is tried again; any other would stop the miner with all of its jobs."""
    room = Room(tmp_path, cards=1, broken=UUID, error=error)

    async def scenario() -> None:
        assert await room.claim() == (UUID,)
        with pytest.raises(raised):
            await room.attester.sit(EXAM, SEED)
        answer = ExamAnswer(gpu=UUID, rows=64, root=SEED)
        with pytest.raises(raised):
            await room.attester.show(EXAM, SEED, (answer,), EXAM)

    room.run(scenario)


def test_an_exam_for_a_card_that_is_gone_is_an_effects_failure(tmp_path: Path) -> None:
    """As after a restart in the middle of an exam, without the card that was claimed."""
    room = Room(tmp_path, only="GPU-that-is-gone")

    async def scenario() -> None:
        with pytest.raises(DeviceUnavailable):
            await room.attester.sit(EXAM, SEED)

    room.run(scenario)


@pytest.mark.parametrize(
    ("options", "claimed"),
    [
        ({"only": SECOND_UUID}, (SECOND_UUID,)),
        ({"only": SECOND_UUID.lower()}, (SECOND_UUID,)),
        ({"only": SECOND_UUID.removeprefix("GPU-").upper()}, (SECOND_UUID,)),
        ({"only": "GPU-of-somebody-else"}, ()),
        ({"processor": True}, (processor_id(MINER),)),
    ],
)
def test_what_the_settings_choose_is_claimed(tmp_path: Path, options: Any, claimed: tuple[str, ...]) -> None:
    """One card by its UUID, however it is written; nothing where there is none such; the processor beside cards."""
    room = Room(tmp_path, **options)

    async def scenario() -> None:
        assert await room.claim() == claimed

    room.run(scenario)
