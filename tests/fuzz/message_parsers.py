"""The parsers of what travels beside the log: feeds, questions, answers, requests, chunks, the server's own words."""

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from actors import queries, runtime, wallet
from actors.command_line.follow import _tell_progress
from actors.command_line.network import Line
from actors.command_line.saying import _first_refusal
from actors.ledger import QueriedLedger
from actors.sandbox import _Process
from actors.sandbox_messages import decode_job
from actors.wallet_policy import Policy
from actors.worker import _answers, _decoded
from bus import publishing
from bus.blob_files import CHUNK_HEADER, MOST_CHUNKS, Assembly, chunk_of
from bus.client import TolerantClient
from bus.pulling import Doubt, position_of
from events.canonical import UNREADABLE, digest
from events.errors import AssayError, BusError, Refused
from projections.read_model import ReadModel
from schemas import queries as questions
from schemas.messages import FeedMessage, ProofBundle, QueryAnswer, QueryRefused, WalletAnswer
from tests.fuzz import ground
from tests.fuzz.engine import Parse, Parser
from tests.fuzz.ground import OneAnswer, OneMessage, run_now
from tests.projections.small_network import key_of
from tests.projections.story import story

ALICE = key_of("alice").address
BLOB = b"a blob in three chunks"
_wallet_answers: Any = msgspec.json.Decoder(WalletAnswer)
_query_answers: Any = msgspec.json.Decoder(QueryAnswer | QueryRefused)


class Ignored(Exception):
    """The reader has passed over the message."""


def feed(stack: ExitStack) -> Parse:
    stand_in = SimpleNamespace(voice=SimpleNamespace(address=ALICE))

    def read(data: bytes) -> object:
        message = runtime._feed_message(data)
        if not isinstance(message, FeedMessage):
            raise Ignored(message.why if hasattr(message, "why") else "")
        return runtime.Runtime._uses(stand_in, message)  # type: ignore[arg-type]

    return read


async def _written_model(path: Path) -> None:
    model = await ReadModel.open(path, ground.genesis())
    await model.restore()
    finals = story().finals
    await model.write(finals, finals[-1].commit_sequence, finals[-1].sequence)
    await model.close()


class _Rows:
    """A read model that answers in the same thread."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def read(self, query: Callable[[sqlite3.Connection], Any]) -> Any:
        return query(self._db)


class _NodeAtHead:
    """What `Queries` needs of a node."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.read_model = _Rows(db)
        self.genesis = ground.genesis()
        self.chain = ground.chain_at_head()
        self.written = SimpleNamespace(value=self.chain.height)

    async def wait_written(self, height: int) -> None:
        if height > self.chain.height:
            raise TimeoutError


def question(stack: ExitStack) -> Parse:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "node.sqlite"
        asyncio.run(_written_model(path))
        stored = sqlite3.connect(path)
        db = sqlite3.connect(":memory:")
        stack.callback(db.close)
        stored.backup(db)
        stored.close()
    handlers = queries.Queries(_NodeAtHead(db)).handlers()  # type: ignore[arg-type]

    def read(data: bytes) -> object:
        what, _, asked = data.partition(b"\n")
        handler = handlers.get(what.decode("latin-1"))
        if handler is None:
            raise Ignored("nobody answers this question")
        # Only a question with a minimum height needs an event loop, for its time limit.
        answering: Any = handler(asked)
        answer = asyncio.run(answering) if b"min_height" in asked else run_now(answering)
        assert len(answer) < 1_000_000
        found = _query_answers.decode(answer)
        if isinstance(found, QueryRefused):
            raise Ignored(found.problem.code + " " + found.problem.detail)
        return found

    return read


def request(stack: ExitStack) -> Parse:
    decisions = wallet.Wallet(ALICE, ground.genesis().chain, 1, Policy(request_limit=10**6, daily_limit=10**9))

    async def ask(asked: Any) -> bytes:
        done: Any = decisions.decide(wallet.Asked(asked, None, 0), 1_760_000_000_000)
        decisions._spending = wallet.Spending()
        for command in done.commands:
            if isinstance(command, wallet.Answer):
                return command.data
        return b""

    door = wallet.Door(SimpleNamespace(ask=ask))  # type: ignore[arg-type]

    def read(data: bytes) -> object:
        answer = run_now(door.answer(data))
        assert len(answer) < 1_000_000
        if answer:
            raise Ignored(_wallet_answers.decode(answer).problem.detail)
        return None

    return read


def chunk(stack: ExitStack) -> Parse:
    name = digest(BLOB)

    def read(data: bytes) -> object:
        assembly = Assembly(name, None, 4_096)
        refused = True
        for sequence, line in enumerate(data.split(b"\n"), 1):
            header, _, content = line.partition(b" ")
            found = chunk_of(sequence, {CHUNK_HEADER: header.decode("utf-8", "surrogateescape")}, content)
            if found is None:
                continue
            assert 0 <= found.index < found.count <= MOST_CHUNKS
            refused = False
            if assembly.take(found):
                return found
            assert assembly.size <= 4_096
        if refused:
            raise Ignored("no chunk")
        return None

    return read


def sandbox(stack: ExitStack) -> Parse:
    class Stdout:
        data = b""

        async def readline(self) -> bytes:
            return self.data

    stdout = Stdout()
    process = _Process(SimpleNamespace(stdin=Stdout(), stdout=stdout))  # type: ignore[arg-type]

    def read(data: bytes) -> object:
        stdout.data = data
        reply = run_now(process._receive())
        if reply is None:
            raise Ignored("no message")
        return reply

    return read


def task(stack: ExitStack) -> Parse:
    return decode_job


class _Told:
    """An `Output` that prints nothing."""

    def event(self, value: Any, text: str) -> None:
        assert text


def live(stack: ExitStack) -> Parse:
    signed = story().failing

    def read(data: bytes) -> object:
        run_now(_tell_progress(OneMessage(data), _Told(), story().settled))  # type: ignore[arg-type]
        try:
            return run_now(_first_refusal(OneMessage(data), signed))  # type: ignore[arg-type]
        except AssayError as error:
            raise Ignored(str(error)) from error

    return read


_KINDS: tuple[tuple[str, Any], ...] = (
    ("account", questions.AccountAnswer),
    ("block", questions.BlockAnswer),
    ("event", questions.EventAnswer),
    ("job", questions.JobAnswer),
    ("proof", ProofBundle),
    ("receipt", questions.ReceiptAnswer),
    ("status", questions.StatusAnswer),
)


def answer(stack: ExitStack) -> Parse:
    bus = OneAnswer()
    line = Line(bus, None, 1_000)  # type: ignore[arg-type]
    ledger = QueriedLedger(bus, ALICE)  # type: ignore[arg-type]
    kinds = dict(_KINDS)

    def read(data: bytes) -> object:
        what, _, bus.data = data.partition(b"\n")
        if what == b"nonce":
            return run_now(ledger.account())
        if what == b"said":
            return run_now(ledger.event(story().settled))
        if what == b"worker":
            return _decoded(bus.data, _answers)
        name = what.decode("latin-1")
        return run_now(line.ask(name, questions.Question(), kinds.get(name, questions.AccountAnswer)))

    return read


def acknowledgement(stack: ExitStack) -> Parse:
    publisher = object.__new__(publishing.Publisher)
    publisher._prefix = "reply."
    settled: list[object] = []
    publisher._settle = lambda token, fate: settled.append(fate)  # type: ignore[method-assign]

    def read(data: bytes) -> object:
        settled.clear()
        run_now(publisher._answered(SimpleNamespace(subject="reply.1", headers=None, data=data)))  # type: ignore[arg-type]
        if not settled:
            raise Ignored("no acknowledgement")
        fate = settled[0]
        assert fate is None or isinstance(fate, int | BusError)
        return fate

    return read


def delivery(stack: ExitStack) -> Parse:
    def read(data: bytes) -> object:
        return position_of(data.decode("utf-8", "replace"))

    return read


def headers(stack: ExitStack) -> Parse:
    client = TolerantClient()

    def read(data: bytes) -> object:
        found = run_now(client._process_headers(data))
        if found is None:
            raise Ignored("no headers")
        assert all(isinstance(value, str) for value in found.values())
        return found

    return read


def draft(stack: ExitStack) -> Parse:
    from actors.decision import complete, draft_from_json

    def read(data: bytes) -> object:
        event = complete(draft_from_json(data), chain=ground.genesis().chain, sender=ALICE, gas_price=1)
        assert event.sender == ALICE
        return event

    return read


PARSERS = (
    Parser(name="feed", make=feed, refusals=(Ignored, Refused)),
    Parser(name="question", make=question, refusals=(Ignored,)),
    Parser(name="request", make=request, refusals=(Ignored,)),
    Parser(name="draft", make=draft, refusals=(Refused,)),
    Parser(name="chunk", make=chunk, refusals=(Ignored,)),
    Parser(name="sandbox", make=sandbox, refusals=(Ignored,)),
    Parser(name="task", make=task, refusals=UNREADABLE),
    Parser(name="live", make=live, refusals=(Ignored,)),
    Parser(name="answer", make=answer, refusals=(AssayError,)),
    Parser(name="acknowledgement", make=acknowledgement, refusals=(Ignored,)),
    Parser(name="delivery", make=delivery, refusals=(Doubt,)),
    Parser(name="headers", make=headers, refusals=(Ignored,)),
)
