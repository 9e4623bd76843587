"""Three NATS servers, in short; ``make faults`` is the long form."""

import signal
from functools import partial
from pathlib import Path
from random import Random

import pytest
import structlog

from bus.jetstream import JetStreamBus
from bus.port import Limits
from bus.readers import stream_state
from tests.bus.grounds import GENESIS, VALIDATORS
from tests.faults import run as long_form
from tests.faults.cluster import Cluster
from tests.faults.menu import Menu
from tests.faults.pulse import Pulse
from tests.faults.recovery import recovered

# Before Python 3.12 asyncio leaves sockets of lines that broke while they were opened to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SECONDS = 20.0
RATE = 300.0
WAIT_MS = 10_000
# Chance says which copy each of them reads.
READERS = 60


async def test_a_backlog_larger_than_a_request_is_read_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster the end of a request overtakes its messages: no reason to begin again, or a reader with a backlog
    would begin again for ever."""
    monkeypatch.setattr("bus.readers.SMALL_BATCH_BYTES", 6_000)
    monkeypatch.setattr("bus.readers.INBOX_BATCH", 16)
    async with Cluster(tmp_path) as cluster:
        bus = await JetStreamBus.connect(cluster.url, "c", Limits(replicas=3))
        await bus.set_up(GENESIS, VALIDATORS)
        for kind in ("INBOX", "CHAIN", "FEED", "BLOBS"):
            assert (await stream_state(bus._connection, "c", kind))["config"]["num_replicas"] == 3
        sent = [b"%03d" % number + b"x" * 497 for number in range(200)]
        assert not any(await bus.submit_many([("ALICE", data) for data in sent]))
        reader = await bus.read_inboxes(VALIDATORS[0])
        doubts: list[str] = []
        monkeypatch.setattr(reader._pull, "_suspect", doubts.append)
        found: list[bytes] = []
        while len(found) < len(sent):
            messages = await reader.next(3, WAIT_MS)
            assert messages, doubts
            found += [message.data for message in messages]
        assert (found, doubts) == (sent, [])
        await bus.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_hole_in_one_copy_of_the_log_is_read_from_another(tmp_path: Path) -> None:
    """A server whose files were damaged while it was down has a hole that NATS does not heal: readers pass it by, and
    it is gone when the server has been started with an empty store."""
    async with Cluster(tmp_path) as cluster:
        bus = await JetStreamBus.connect(cluster.url, "c", Limits(replicas=3))
        await bus.set_up(GENESIS, VALIDATORS)
        for number in range(20):
            await bus.append("vote", b"%02d" % number + b"x" * 1_000)
        await cluster.until_whole("c")
        await cluster.end(3, signal.SIGTERM)
        assert cluster.flip_bytes(3, "c", Random(1))
        cluster.spawn(3)
        await cluster.until_ready()
        await cluster.until_whole("c")
        with structlog.testing.capture_logs() as logs:
            for _ in range(READERS):
                reader = await bus.read_chain(0)
                found: list[int] = []
                while len(found) < 20:
                    messages = await reader.next(20, WAIT_MS)
                    assert messages
                    found += [message.sequence for message in messages]
                assert found == list(range(1, 21))
                await reader.close()
                if any(line["event"] == "message_missing_in_a_copy" for line in logs):
                    break
        assert {line["server"] for line in logs if line["event"] == "message_missing_in_a_copy"} == {"nats-3"}
        before = await cluster.copies("c")
        assert before[1] == before[2]
        assert (before[1].missing, len(before[3].missing)) == ([], 1)
        damaged, after = await cluster.heal("c")
        assert damaged == {3: before[3].missing}
        assert after == dict.fromkeys(before, before[1])
        await bus.close()


async def one_after_the_other(menu: Menu, pulse: Pulse, bounds: long_form.Bounds) -> None:
    """Each fault when the network has recovered from the one before, however long that takes on a busy machine."""
    faults = (
        partial(menu.bring_about, "kill -9 of the log's leader"),
        partial(menu.kill_actor, "proposer-1"),
        partial(menu.bring_about, "kill -9 of all servers"),
        partial(menu.bring_about, "partition of a server from the others"),
        partial(menu.kill_actor, "coordinator"),
        partial(menu.bring_about, "kill -9 of a server"),
    )
    for fault in faults:
        await fault()
        await recovered(menu, pulse, bounds.recovery_s)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_nothing_is_lost_while_one_after_the_other_fails(tmp_path: Path) -> None:
    """Servers and actors are killed and cut off under load, each after the network has recovered: nothing acknowledged
    is lost or done twice, every node holds the same blocks, and the audit passes."""
    report = await long_form.run(tmp_path, one_after_the_other, long_form.PATIENT, rate=RATE)
    assert report.verdict.violations == []
    assert len(report.faults) == 6
    assert report.verdict.acknowledged > 1_000


@pytest.mark.slow
@pytest.mark.timeout(1_200)
async def test_nothing_is_lost_while_servers_and_actors_fail(tmp_path: Path) -> None:
    """Four faults of the cluster, one every five seconds, and one of an actor after each: nothing acknowledged is
    lost or done twice, every node holds the same blocks, and the audit passes."""
    storm = partial(long_form.storm, seconds=SECONDS)
    report = await long_form.run(tmp_path, storm, long_form.PATIENT, seed=7, rate=RATE)
    assert report.verdict.violations == []
    assert report.verdict.acknowledged > 1_000
