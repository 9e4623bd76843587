"""What a cluster may answer about the log while its servers elect a leader, or when one does not know yet that it lost
its office. Real clusters give these answers for moments; here they are given on purpose."""

import asyncio
from typing import Any

import pytest

from bus import readers
from bus.connection import Connection
from bus.port import Limits
from events.errors import SequenceGap, Unreachable
from tests.bus.grounds import GENESIS, VALIDATORS, JetStreamGround

WAIT_MS = 10_000
# A server puts aside as much of its disk as streams may take; the tests of this folder share one.
SMALL = Limits(inbox_bytes=2**20, blobs_total_bytes=2**20)
NOBODY = {"name": "assay", "replicas": [{"name": "nats-1"}, {"name": "nats-2"}, {"name": "nats-3"}]}
SOMEBODY = {"name": "assay", "leader": "nats-1", "replicas": [{"name": "nats-2"}, {"name": "nats-3"}]}


class Answers:
    """The real answers of JetStream's API, but that those about the log are those of a copy that ends at ``last``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any], last: int) -> None:
        self._real = Connection.api
        self._cluster = cluster
        self._last = last
        self.wrong_ones = 0
        monkeypatch.setattr(Connection, "api", self._api_of())

    def _api_of(self) -> Any:
        async def api(connection: Connection, subject: str, *arguments: Any, **named: Any) -> dict[str, Any]:
            info = await self._real(connection, subject, *arguments, **named)
            if subject.startswith("STREAM.INFO.") and self.wrong_ones:
                self.wrong_ones -= 1
                state = info["state"] | {"last_seq": self._last, "messages": self._last}
                info |= {"cluster": self._cluster, "state": state}
                info["config"]["num_replicas"] = 3
            return info

        return api


@pytest.mark.parametrize(
    ("cluster", "last", "wrong_ones"),
    [
        pytest.param(NOBODY, 0, 3, id="an empty copy while nobody leads"),
        pytest.param(NOBODY, 2, 3, id="a copy that is behind while nobody leads"),
        pytest.param(SOMEBODY, 2, 3, id="a leader that is cut off"),
    ],
)
async def test_an_answer_from_a_copy_that_is_behind_stops_no_reader(
    jetstream: JetStreamGround, monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any], last: int, wrong_ones: int
) -> None:
    """A reader that opens its consumer anew then goes on where it was, as soon as the answers are right again."""
    bus = await jetstream.connect(SMALL)
    await bus.set_up(GENESIS, VALIDATORS)
    for number in range(3):
        await bus.append("vote", b"%d" % number)
    reader = await bus.read_chain(0)
    found: list[bytes] = []
    while len(found) < 3:
        found += [message.data for message in await reader.next(3, WAIT_MS)]
    answers = Answers(monkeypatch, cluster, last)
    answers.wrong_ones = wrong_ones
    reader._pull.doubt("the line broke")
    await bus.append("vote", b"3")
    assert [message.data for message in await reader.next(3, WAIT_MS)] == [b"3"]
    assert answers.wrong_ones == 0
    await reader.close()
    await bus.close()


async def test_a_log_that_stays_too_short_is_a_gap(jetstream: JetStreamGround, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience has an end: a leader that goes on saying so is believed."""
    monkeypatch.setattr(readers, "STALE_S", 1.0)
    bus = await jetstream.connect(SMALL)
    await bus.set_up(GENESIS, VALIDATORS)
    for number in range(3):
        await bus.append("vote", b"%d" % number)
    answers = Answers(monkeypatch, SOMEBODY, 2)
    answers.wrong_ones = 1_000
    began = asyncio.get_running_loop().time()
    with pytest.raises(SequenceGap, match="the log ends at 2: 3 was read before"):
        await bus.read_chain(3)
    assert asyncio.get_running_loop().time() - began >= 1.0
    await bus.close()


async def test_the_end_of_the_log_is_not_asked_of_whoever_does_not_lead(
    jetstream: JetStreamGround, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked meanwhile waits for a leader; without one there is no answer."""
    monkeypatch.setattr("bus.connection.API_TIMEOUT_S", 1.0)
    bus = await jetstream.connect(SMALL)
    await bus.set_up(GENESIS, VALIDATORS)
    await bus.append("vote", b"0")
    answers = Answers(monkeypatch, NOBODY, 0)
    answers.wrong_ones = 4
    assert await bus.chain_end() == 1
    answers.wrong_ones = 1_000
    with pytest.raises(Unreachable, match="no server leads the stream"):
        await bus._connection.describe("ASSAY_" + bus.chain + "_CHAIN", timeout_s=0.5)
    await bus.close()
