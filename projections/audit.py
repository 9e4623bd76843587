"""Auditing a log: everything is executed again from the genesis, and compared with what the log says.

`Auditor` takes messages one by one, from a live log or from an export; `audit_file` reads an export. What does not hold
raises Divergence with the height and the first difference, and in ``data["report"]`` the report up to there.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from events.errors import BadInput, Divergence, NotFound, VerificationFailed
from projections.chain import Chain
from projections.chain import Final as FinalBlock
from projections.log_file import LogReader, Totals, Trailer
from schemas.blocks import Failed, TimerFired
from schemas.events import JobSettled, type_of
from schemas.genesis import Genesis
from schemas.refusals import code_of
from schemas.state import Supply

CHECKS: Final = (
    ("genesis", "the genesis does not contradict itself, and is the one that was given, if one was"),
    ("file", "every line of the export has its digest, nothing is missing, nothing is added"),
    ("order", "the messages of the log follow one another without holes"),
    ("blocks", "every final block stands in its place, is signed by its proposer, and has a quorum's votes"),
    ("events", "every event in a final block is signed by its sender and may be included"),
    ("execution", "executing every block again gives its outcomes, its gas and its state root"),
    ("conservation", "balances and escrows are the genesis and what was minted, without what was burned"),
    ("trailer", "head, state root and counts are those that the export claims"),
)

FIRST_LINE: Final = "Name a file that `assay log export` wrote. If this is one, do not trust it; compare with another."


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    claim: str
    result: Literal["passed", "failed", "unfinished"]


class SignaturesChecked(Struct, frozen=True, kw_only=True):
    """How many signatures hold: of events and blocks that are final, of votes that made them so, of receipts."""

    events: int
    blocks: int
    votes: int
    receipts: int


class Failure(Struct, frozen=True, kw_only=True):
    """Where the log and its re-execution part."""

    check: str
    height: int
    difference: str


class AuditReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an audit has found. ``outcomes`` counts by type of event, then by ``applied`` or the code of the refusal."""

    chain: str
    genesis: str
    totals: Totals
    timers: int
    outcomes: dict[str, dict[str, int]]
    signatures: SignaturesChecked
    skipped: int
    evidence: int
    supply: Supply
    checks: tuple[Check, ...]
    passed: bool
    failure: Failure | None = None


class _Counts:
    def __init__(self) -> None:
        self.messages = {"block": 0, "vote": 0}
        self.all_messages = 0
        self.events = 0
        self.timers = 0
        self.blocks = 0
        self.votes = 0
        self.receipts = 0
        self.outcomes: dict[str, dict[str, int]] = {}

    def add(self, final: FinalBlock) -> None:
        self.blocks += 1
        self.votes += len(final.votes)
        self.events += len(final.events)
        self.timers += final.executed.timers
        for signed, outcome in zip(final.events, final.executed.outcomes[final.executed.timers :], strict=True):
            if isinstance(outcome, TimerFired):
                raise AssertionError("the outcomes of timers come before those of events")
            result = code_of(outcome.refusal) if isinstance(outcome, Failed) else "applied"
            results = self.outcomes.setdefault(type_of(signed.event), {})
            results[result] = results.get(result, 0) + 1
            if isinstance(signed.event, JobSettled) and result == "applied":
                self.receipts += 2


class Auditor:
    """The audit of one log from its first message. ``roots`` is told height and state root of each final block."""

    def __init__(
        self,
        genesis: Genesis,
        *,
        expected_genesis_hash: str | None = None,
        threads: int = 2,
        roots: Callable[[int, str], None] | None = None,
    ) -> None:
        """Raises BadInput when the genesis contradicts itself, Divergence when it is not the expected one."""
        self.chain: Final = Chain(genesis, threads=threads)
        found = self.chain.genesis_hash
        if expected_genesis_hash not in {None, found}:
            raise Divergence(0, f"genesis: {expected_genesis_hash} is expected, the log has {found}")
        self._roots = roots
        self._counts = _Counts()

    @property
    def height(self) -> int:
        """The height of the last final block."""
        return self.chain.height

    def add(self, sequence: int, kind: str, data: bytes) -> FinalBlock | None:
        """Takes the next message. Raises Divergence."""
        counts = self._counts
        counts.all_messages += 1
        if sequence != counts.all_messages:
            raise self.divergence("order", f"message {sequence} stands where {counts.all_messages} belongs")
        if kind in counts.messages:
            counts.messages[kind] += 1
        try:
            final = self.chain.add(sequence, kind, data, None)
        except Divergence as error:
            raise self.divergence(str(error.data.get("check", "blocks")), error.difference) from error
        except AssertionError as error:
            raise self.divergence("conservation", str(error)) from error
        if final is not None:
            counts.add(final)
            if self._roots is not None:
                self._roots(final.header.height, final.header.state_root)
        return final

    def finish(self, trailer: Trailer | None = None) -> AuditReport:
        """Adds up all coins, compares with the trailer if there is one. Raises Divergence."""
        try:
            self.chain.state.check_conservation()
        except AssertionError as error:
            raise self.divergence("conservation", str(error), height=self.height) from error
        if trailer is not None:
            found = self.totals()
            for name in Totals.__struct_fields__:
                stated, counted = getattr(trailer, name), getattr(found, name)
                if stated != counted:
                    difference = f"{name}: the trailer says {stated}, the audit finds {counted}"
                    raise self.divergence("trailer", difference, height=self.height)
        skipped = () if trailer is not None else ("file", "trailer")
        return self._report(tuple(check for check in CHECKS if check[0] not in skipped), None)

    def totals(self) -> Totals:
        """Where the log stands; what a writer puts into the trailer."""
        chain, counts = self.chain, self._counts
        return Totals(
            messages=counts.all_messages,
            blocks=counts.messages["block"],
            votes=counts.messages["vote"],
            events=counts.events,
            height=chain.height,
            head=chain.head_hash,
            state_root=chain.state.root(),
        )

    def divergence(self, check: str, difference: str, *, height: int | None = None) -> Divergence:
        """The error for a check that failed, at the next height if none is given, with the report so far."""
        failure = Failure(check=check, height=self.height + 1 if height is None else height, difference=difference)
        error = Divergence(failure.height, difference)
        error.data["report"] = self._report(CHECKS, failure)
        return error

    def _report(self, checks: tuple[tuple[str, str], ...], failure: Failure | None) -> AuditReport:
        counts, chain = self._counts, self.chain
        return AuditReport(
            chain=chain.genesis.chain,
            genesis=chain.genesis_hash,
            totals=self.totals(),
            timers=counts.timers,
            outcomes={name: dict(sorted(results.items())) for name, results in sorted(counts.outcomes.items())},
            signatures=SignaturesChecked(
                events=counts.events, blocks=counts.blocks, votes=counts.votes, receipts=counts.receipts
            ),
            skipped=chain.rejections,
            evidence=len(chain.evidence),
            supply=chain.state.supply(),
            checks=tuple(Check(name=name, claim=claim, result=_result(name, failure)) for name, claim in checks),
            passed=failure is None,
            failure=failure,
        )


def _result(name: str, failure: Failure | None) -> Literal["passed", "failed", "unfinished"]:
    if failure is None:
        return "passed"
    return "failed" if name == failure.check else "unfinished"


def audit_file(
    path: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    expected_genesis_hash: str | None = None,
    threads: int = 2,
    roots: Callable[[int, str], None] | None = None,
) -> AuditReport:
    """Audits an export, one line at a time.

    ``progress`` is told the bytes done and the size of the file. Raises Divergence, and NotFound where no file is.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise NotFound(
            f"cannot read {path}", why=str(error), hint="Name a file that `assay log export` wrote."
        ) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        try:
            reader = LogReader(file)
            auditor = Auditor(reader.genesis, expected_genesis_hash=expected_genesis_hash, threads=threads, roots=roots)
        except BadInput as error:
            raise Divergence(0, f"line 1: {error.what}: {error.why}", hint=FIRST_LINE) from error
        except Divergence:
            raise
        except VerificationFailed as error:
            raise Divergence(0, f"line 1: {error.why}", hint=FIRST_LINE) from error
        try:
            for sequence, kind, data in reader.messages():
                auditor.add(sequence, kind, data)
                if progress is not None:
                    progress(reader.bytes_read, size)
            if progress is not None:
                progress(size, size)
        except Divergence:
            raise
        except VerificationFailed as error:
            raise auditor.divergence("file", f"line {reader.line}: {error.why}") from error
        return auditor.finish(reader.trailer)
