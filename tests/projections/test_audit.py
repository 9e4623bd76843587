"""The audit: what it checks, what it reports, and that no damage to an export escapes it."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from events.blocks import decode_block, hash_of, sign_block
from events.canonical import canonical
from events.errors import Divergence, NotFound
from events.merkle import root
from projections.audit import Auditor, AuditReport, audit_file
from projections.chain import Chain
from projections.log_file import LogWriter, Totals
from projections.state import State
from schemas.blocks import Block
from schemas.genesis import Genesis
from tests.projections.small_network import LogEntry, SmallNetwork, digest_of

PLACES = 500


def export(genesis: Genesis, log: list[LogEntry], totals: Totals) -> bytes:
    file = io.BytesIO()
    writer = LogWriter(file, genesis)
    for entry in log:
        writer.add(*entry)
    writer.close(totals)
    return file.getvalue()


def audited(network: SmallNetwork) -> Auditor:
    auditor = Auditor(network.genesis)
    for entry in network.log:
        auditor.add(*entry)
    return auditor


@pytest.fixture(scope="module")
def network() -> SmallNetwork:
    """Sixty small blocks with transfers, jobs, a failure, a timer and a take-over."""
    network = SmallNetwork()
    network.block(network.register("miner 0"), network.register("miner 1"))
    for number in range(10):
        network.run_job(f"miner {number % 2}")
    network.block(network.submit(lifetime_ms=1_000))
    network.block(time_ms=network.chain.earliest_ms(0) + 1_000)
    network.block(network.transfer(), network.transfer(10**12, sender="bob", to="alice"))
    network.block(network.transfer(), round_number=1)
    for amount in range(1, 6):
        network.block(network.transfer(amount))
    return network


@pytest.fixture(scope="module")
def data(network: SmallNetwork) -> bytes:
    return export(network.genesis, network.log, audited(network).totals())


def audit(path: Path, data: bytes, **options: object) -> AuditReport:
    (path / "log.ndjson").write_bytes(data)
    return audit_file(path / "log.ndjson", **options)


def test_an_honest_log_passes(network: SmallNetwork, data: bytes, tmp_path: Path) -> None:
    """The report says where the log stands, what it holds, and that every check passed."""
    report = audit(tmp_path, data)
    assert report.passed
    assert report.failure is None
    assert [check.result for check in report.checks] == ["passed"] * 8
    assert report.totals == Totals(
        messages=240, blocks=60, votes=180, events=61, height=60, head=network.chain.head_hash,
        state_root=network.chain.state.root(),
    )  # fmt: skip
    assert report.timers == 1
    assert report.outcomes["transfer.sent"] == {"INSUFFICIENT_BALANCE": 1, "applied": 7}
    assert report.outcomes["job.settled"] == {"applied": 10}
    assert (report.signatures.events, report.signatures.blocks) == (61, 60)
    assert (report.signatures.votes, report.signatures.receipts) == (120, 20)
    assert report.supply == network.chain.state.supply()
    assert (report.skipped, report.evidence) == (0, 0)
    assert msgspec.json.decode(msgspec.json.encode(report), type=AuditReport) == report


def test_an_audit_tells_its_progress_and_every_state_root(network: SmallNetwork, data: bytes, tmp_path: Path) -> None:
    """Progress counts bytes to the end, roots come once per height; with any number of threads they are the same."""
    steps: list[tuple[int, int]] = []
    for threads in (1, 2, 4):
        roots: dict[int, str] = {}
        audit(
            tmp_path, data, progress=lambda done, size: steps.append((done, size)), threads=threads,
            roots=roots.__setitem__,
        )  # fmt: skip
        assert roots == {final.header.height: final.header.state_root for final in network.finals}
    assert steps == sorted(steps[:241]) * 3
    assert steps[-1] == (len(data), len(data))
    assert {size for _, size in steps} == {len(data)}


def test_an_audit_may_expect_a_genesis(network: SmallNetwork, data: bytes, tmp_path: Path) -> None:
    """Another chain's log does not pass for the expected one."""
    assert audit(tmp_path, data, expected_genesis_hash=network.chain.genesis_hash).passed
    with pytest.raises(Divergence, match="genesis: ") as caught:
        audit(tmp_path, data, expected_genesis_hash=digest_of("another"))
    assert caught.value.height == 0


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(NotFound, match="nowhere"):
        audit_file(tmp_path / "nowhere")


def flip(data: bytes, generator: random.Random) -> tuple[bytes, int]:
    index = generator.randrange(len(data))
    changed = bytearray(data)
    changed[index] ^= 1 << generator.randrange(8)
    return bytes(changed), data.count(b"\n", 0, index)


def cut(data: bytes, generator: random.Random) -> tuple[bytes, int]:
    length = generator.randrange(len(data))
    return data[:length], data.count(b"\n", 0, length)


def on_lines(
    change: Callable[[list[bytes], random.Random], int],
) -> Callable[[bytes, random.Random], tuple[bytes, int]]:
    """A change to whole messages; it returns the index of the first line that is another one now."""

    def damage(data: bytes, generator: random.Random) -> tuple[bytes, int]:
        lines = data.splitlines(keepends=True)
        first = change(lines, generator)
        return b"".join(lines), first

    return damage


def remove(lines: list[bytes], generator: random.Random) -> int:
    index = generator.randrange(1, len(lines) - 1)
    del lines[index]
    return index


def repeat(lines: list[bytes], generator: random.Random) -> int:
    index = generator.randrange(1, len(lines) - 1)
    lines.insert(index, lines[index])
    return index + 1


def swap(lines: list[bytes], generator: random.Random) -> int:
    first, second = sorted(generator.sample(range(1, len(lines) - 1), 2))
    lines[first], lines[second] = lines[second], lines[first]
    return first


DAMAGES = [flip] * 6 + [cut, on_lines(remove), on_lines(repeat), on_lines(swap)]


@pytest.mark.parametrize("seed", range(10))
def test_no_damage_escapes(network: SmallNetwork, data: bytes, tmp_path: Path, seed: int) -> None:
    """A bit flipped, a cut, a message removed, repeated or swapped is found, at 500 places; the height is named."""
    reached = [1] * 2
    for final in network.finals:
        reached += [final.header.height] * (final.commit_sequence + 1 - len(reached))
        reached.append(final.header.height + 1)
    reached += [network.chain.height + 1] * 3
    generator = random.Random(seed)
    for number in range(PLACES // 10):
        damaged, line = DAMAGES[number % len(DAMAGES)](data, generator)
        with pytest.raises(Divergence) as caught:
            audit(tmp_path, damaged)
        assert caught.value.exit_code == 7
        assert caught.value.height == (reached[line] if line else 0)
        assert caught.value.difference.startswith(f"line {line + 1}: ")


def resealed(network: SmallNetwork, log: list[LogEntry]) -> bytes:
    """An export of a changed log by somebody who knows the format: all digests and counts are right."""
    kinds = [kind for _, kind, _ in log]
    totals = msgspec.structs.replace(
        audited(network).totals(), messages=len(log), blocks=kinds.count("block"), votes=kinds.count("vote")
    )
    return export(network.genesis, [(index, kind, data) for index, (_, kind, data) in enumerate(log, 1)], totals)


def change_block(log: list[LogEntry], change: Callable[[Block], Block], index: int = 4) -> None:
    sequence, kind, data = log[index]
    log[index] = (sequence, kind, canonical(change(decode_block(data))))


def other_header(**changes: object) -> Callable[[list[LogEntry]], None]:
    return lambda log: change_block(
        log, lambda block: msgspec.structs.replace(block, header=msgspec.structs.replace(block.header, **changes))
    )


def cheaper(log: list[LogEntry]) -> None:
    """Another amount in a signed event, and the event root that belongs to it."""

    def change(block: Block) -> Block:
        raw = bytes(block.events[0]).replace(b'"escrow":1000000', b'"escrow":1000001')
        header = msgspec.structs.replace(block.header, event_root=root([raw]).hex())
        return msgspec.structs.replace(block, events=(msgspec.Raw(raw),), header=header)

    change_block(log, change)


FORGERIES = {
    "a block removed": (lambda log: log.pop(4), "blocks"),
    "a block and its votes removed": (lambda log: [log.pop(4) for _ in range(4)], "blocks"),
    "the votes of a block removed": (lambda log: [log.pop(5) for _ in range(3)], "blocks"),
    "a block after its votes": (lambda log: log.insert(7, log.pop(4)), "blocks"),
    "an event changed": (cheaper, "blocks"),
    "an event removed": (
        lambda log: change_block(log, lambda block: msgspec.structs.replace(block, events=())),
        "blocks",
    ),
    "the time changed": (other_header(time_ms=1_750_000_000_201), "blocks"),
    "the state root changed": (other_header(state_root=digest_of("x")), "blocks"),
    "the end removed": (lambda log: [log.pop() for _ in range(4)], "trailer"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_history_is_found_even_with_right_digests(network: SmallNetwork, tmp_path: Path, name: str) -> None:
    """Who rewrites the export and all its digests fails at the votes: they name blocks that cannot be made anew."""
    forge, check = FORGERIES[name]
    log = list(network.log)
    forge(log)
    with pytest.raises(Divergence) as caught:
        audit(tmp_path, resealed(network, log))
    report = caught.value.data["report"]
    assert report.failure.check == check
    assert (report.failure.height, report.failure.difference) == (caught.value.height, caught.value.difference)
    assert caught.value.height == (network.chain.height - 1 if check == "trailer" else caught.value.height)
    results = {each.name: each.result for each in report.checks}
    assert results[check] == "failed"
    assert not report.passed


COLLUSIONS = {
    "state_root": ("execution", "state root: the block says "),
    "outcome_root": ("execution", "outcome root: the block says "),
    "event_root": ("events", "event root: the block says "),
}


@pytest.mark.parametrize("field", COLLUSIONS)
def test_a_quorum_that_lies_is_found(field: str) -> None:
    """Even when all validators sign a wrong root, re-execution finds it and says what differs."""
    check, words = COLLUSIONS[field]
    network = SmallNetwork()
    block = network.build(network.transfer())
    header = msgspec.structs.replace(block.header, **{field: digest_of("lie")})
    block = sign_block(header, tuple(bytes(raw) for raw in block.events), network.proposer())
    log = [("block", canonical(block))]
    log += [("vote", canonical(network.sign_vote_for(hash_of(header), key))) for key in network.validators]
    auditor = Auditor(network.genesis)
    auditor.add(1, *log[0])
    auditor.add(2, *log[1])
    with pytest.raises(Divergence) as caught:
        auditor.add(3, *log[2])
    assert caught.value.height == 1
    assert caught.value.difference.startswith(words)
    assert caught.value.data["report"].failure.check == check


@pytest.mark.parametrize(
    "change", [{"events": 62}, {"votes": 0}, {"head": digest_of("x")}, {"state_root": digest_of("x")}]
)
def test_the_trailer_is_compared_with_what_was_found(
    network: SmallNetwork, tmp_path: Path, change: dict[str, object]
) -> None:
    """Every count, the head and the state root of the trailer are those of the re-execution."""
    totals = msgspec.structs.replace(audited(network).totals(), **change)
    with pytest.raises(Divergence, match=rf"{next(iter(change))}: the trailer says") as caught:
        audit(tmp_path, export(network.genesis, network.log, totals))
    assert caught.value.height == network.chain.height


def test_a_live_log_is_audited_message_by_message(network: SmallNetwork) -> None:
    """Without a file there is no trailer to compare; all other checks are the same."""
    report = audited(network).finish()
    assert report.passed
    assert [check.name for check in report.checks if check.name in {"file", "trailer"}] == []
    assert report.totals.height == network.chain.height


def test_a_hole_in_a_live_log_is_found(network: SmallNetwork) -> None:
    """Sequences follow one another from 1."""
    auditor = Auditor(network.genesis)
    auditor.add(*network.log[0])
    with pytest.raises(Divergence, match="message 3 stands where 2 belongs") as caught:
        auditor.add(*network.log[2])
    assert caught.value.data["report"].failure.check == "order"


def test_foreign_messages_are_counted_and_skipped(network: SmallNetwork) -> None:
    """Garbage in the log is no failure of the log; the report says how much was skipped."""
    auditor = Auditor(network.genesis)
    auditor.add(1, "rumour", b"")
    auditor.add(2, "block", b"{}")
    for sequence, kind, data in network.log:
        auditor.add(sequence + 2, kind, data)
    report = auditor.finish()
    assert (report.skipped, report.totals.messages, report.totals.blocks) == (2, 242, 61)
    assert report.totals.height == network.chain.height


def test_coins_from_nowhere_are_found(network: SmallNetwork) -> None:
    """The sum of everything is compared with what was ever issued, at the end, and within every block."""
    auditor = audited(network)
    auditor.chain.state.accounts["nobody"] = msgspec.structs.replace(
        next(iter(auditor.chain.state.accounts.values())), balance=1
    )
    with pytest.raises(Divergence, match="coins are not conserved") as caught:
        auditor.finish()
    assert caught.value.height == network.chain.height
    assert caught.value.data["report"].failure.check == "conservation"


def test_a_broken_rule_is_named_with_its_height(network: SmallNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the rules themselves would make coins, the audit names the block."""

    def broken(_: object) -> None:
        raise AssertionError("coins are not conserved: on purpose")

    monkeypatch.setattr("projections.state.Draft.check_conservation", broken)
    with pytest.raises(Divergence, match="on purpose") as caught:
        audited(network)
    assert caught.value.height == 1


def test_an_impossible_genesis_is_refused(network: SmallNetwork, tmp_path: Path) -> None:
    """A genesis in disorder cannot be executed."""
    genesis = msgspec.structs.replace(network.genesis, allocations=network.genesis.allocations[::-1])
    with pytest.raises(Divergence, match=r"line 1: .*disorder") as caught:
        audit(tmp_path, export(genesis, [], audited(network).totals()))
    assert caught.value.height == 0


def test_a_file_of_something_else_is_named_so(network: SmallNetwork, tmp_path: Path) -> None:
    """Where not even the first line is one of an export, the hint names who writes them."""
    with pytest.raises(Divergence, match="line 1: ") as caught:
        audit(tmp_path, b"a receipt")
    assert "`assay log export`" in caught.value.hint


def test_an_audit_does_not_depend_on_where_it_starts(network: SmallNetwork) -> None:
    """An observer from zero and one from a saved state have the same root at every height."""
    middle = network.finals[29]
    rows: list[tuple[str, bytes]] = []
    auditor = Auditor(network.genesis)
    for entry in network.log[: middle.commit_sequence]:
        auditor.add(*entry)
    rows.extend(auditor.chain.state.rows())
    later = Chain(
        network.genesis, state=State.from_rows(network.genesis, rows), head=middle.header, commit=middle.votes
    )
    roots = []
    for entry in network.log[middle.commit_sequence :]:
        if (final := later.add(*entry, None)) is not None:
            roots.append(later.state.root())
            assert final.header.state_root == roots[-1]
    assert roots == [final.header.state_root for final in network.finals[30:]]
