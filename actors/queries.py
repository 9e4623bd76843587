"""The door for questions: what every full node answers, on ``assay.<chain>.query.<what>``.

A question is a JSON object of `schemas.queries`, an empty message where nothing needs saying. The answer is a
QueryAnswer, or a QueryRefused with what is wrong. Any node may answer, and each answer names the height that it is
at.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from bus.port import Handler
from events.canonical import UNREADABLE, canonical
from events.errors import AssayError, BadInput, NotFound, TimedOut
from projections import read_model_queries as rows
from projections.proofs import state_bundle
from schemas.messages import Problem, ProofBundle, QueryAnswer, QueryRefused
from schemas.queries import (
    AccountQuestion,
    AttestationAnswer,
    AttestationQuestion,
    BlockQuestion,
    BlocksQuestion,
    EventQuestion,
    EventsQuestion,
    HeadersQuestion,
    JobQuestion,
    JobsQuestion,
    MinerQuestion,
    MinersQuestion,
    NonceAnswer,
    ProofQuestion,
    Question,
    ReceiptAnswer,
)

if TYPE_CHECKING:
    from actors.node import Node

MAX_QUESTION_BYTES: Final = 4_096
# How long a node that is behind waits before it says so; below the time-out of those who ask.
MAX_WAIT_MS: Final = 2_000
# Questions that wait at once; below what the bus lets in, so that those which need not wait always find a place.
MAX_WAITING: Final = 32

AnyQuestion = TypeVar("AnyQuestion", bound=Question)
_At = tuple[int, Any]


class Queries:
    """The handlers of one node, for `bus.port.Bus.serve_queries`."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._waiting = 0

    def handlers(self) -> dict[str, Handler]:
        """By the name of the question."""
        return {
            "account": self._rows(AccountQuestion, lambda db, q: rows.account(db, q.address)),
            "nonce": self._rows(AccountQuestion, _nonce),
            "job": self._rows(JobQuestion, lambda db, q: rows.job(db, q.job)),
            "jobs": self._rows(JobsQuestion, lambda db, q: rows.jobs(db, q.owner, q.situation, q.limit, q.cursor)),
            "block": self._rows(BlockQuestion, _block),
            "blocks": self._rows(BlocksQuestion, lambda db, q: rows.blocks(db, q.limit, q.cursor)),
            "headers": self._rows(HeadersQuestion, lambda db, q: rows.headers(db, q.first, q.limit)),
            "event": self._rows(EventQuestion, lambda db, q: rows.event(db, q.event)),
            "events": self._rows(EventsQuestion, lambda db, q: rows.events(db, q.address, q.limit, q.cursor)),
            "miner": self._rows(MinerQuestion, lambda db, q: rows.miner(db, q.miner)),
            "miners": self._rows(MinersQuestion, lambda db, q: rows.miners(db, q.limit, q.cursor)),
            "attestation": self._handler(AttestationQuestion, self._attestation),
            "status": self._rows(Question, lambda db, _: rows.status(db, self._node.genesis)),
            "genesis": self._rows(Question, lambda _, __: self._node.genesis),
            "receipt": self._handler(JobQuestion, self._receipt),
            "proof": self._handler(ProofQuestion, self._proof),
        }

    def _rows(self, question: type[AnyQuestion], answer: Callable[[sqlite3.Connection, AnyQuestion], Any]) -> Handler:
        """A handler that needs nothing but rows."""

        async def asked(parsed: AnyQuestion) -> _At:
            return await self._node.read_model.read(lambda db: (rows.height(db), answer(db, parsed)))

        return self._handler(question, asked)

    def _handler(self, question: type[AnyQuestion], answer: Callable[[AnyQuestion], Awaitable[_At]]) -> Handler:
        decoder = msgspec.json.Decoder(question)

        async def handle(data: bytes) -> bytes:
            try:
                parsed = _parsed(decoder, data)
                await self._wait(parsed)
                height, value = await answer(parsed)
            except AssayError as error:
                return canonical(QueryRefused(height=self._node.written.value, problem=problem_of(error)))
            return canonical(QueryAnswer(height=height, value=Raw(canonical(value))))

        return handle

    async def _wait(self, question: Question) -> None:
        wanted = question.min_height
        if isinstance(wanted, UnsetType) or wanted <= self._node.written.value:
            return
        if self._waiting >= MAX_WAITING:
            raise self._behind(wanted)
        self._waiting += 1
        try:
            async with asyncio.timeout(MAX_WAIT_MS / 1_000):
                await self._node.wait_written(wanted)
        except TimeoutError as error:
            raise self._behind(wanted) from error
        finally:
            self._waiting -= 1

    def _behind(self, wanted: int) -> TimedOut:
        return TimedOut(
            f"this node is not at height {wanted} yet",
            why=f"it is at {self._node.written.value}",
            hint="Ask again; another node may be further.",
            height=self._node.written.value,
        )

    async def _receipt(self, question: JobQuestion) -> _At:
        receipt, inclusion = await self._node.read_model.read(lambda db: rows.receipt(db, question.job))
        height, settlement = self._state_proof(f"job/{question.job}")
        return height, ReceiptAnswer(receipt=receipt, inclusion=inclusion, settlement=settlement)

    async def _attestation(self, question: AttestationQuestion) -> _At:
        chain = self._node.chain
        found = chain.state.attestation(question.miner)
        if found is None:
            raise NotFound(
                f"{question.miner} has claimed no GPUs",
                hint="A miner claims them when it starts; on some chains it need not.",
            )
        return chain.height, AttestationAnswer(address=question.miner, attestation=found)

    async def _proof(self, question: ProofQuestion) -> _At:
        key, event = question.key, question.event
        if not isinstance(key, UnsetType) and event is UNSET:
            return self._state_proof(key)
        if not isinstance(event, UnsetType) and key is UNSET:
            return await self._node.read_model.read(lambda db: (rows.height(db), rows.event_proof(db, event)))
        raise _not_one_of("a proof", "key", "event")

    def _state_proof(self, key: str) -> tuple[int, ProofBundle]:
        """Of a record in the state as it is now: no await comes between the state and its header."""
        chain = self._node.chain
        if chain.head is None:
            raise NotFound(
                "there is nothing to prove against yet", why="no block is final", hint="Ask for the genesis."
            )
        return chain.height, state_bundle(chain.head, chain.commit, chain.state.prove(key))


def problem_of(error: AssayError) -> Problem:
    """The error as an answer."""
    return Problem(code=error.code, detail=str(error), hint=error.hint, data=error.data or UNSET)


def _parsed(decoder: msgspec.json.Decoder[AnyQuestion], data: bytes) -> AnyQuestion:
    if len(data) > MAX_QUESTION_BYTES:
        raise BadInput(
            "the question is too long",
            why=f"{len(data)} bytes, {MAX_QUESTION_BYTES} are allowed",
            hint="Ask for one thing at a time.",
            limit=MAX_QUESTION_BYTES,
            size=len(data),
        )
    try:
        return decoder.decode(data or b"{}")
    except UNREADABLE as error:
        raise BadInput(
            "the question cannot be read",
            why=str(error)[:300],
            hint="Send a JSON object with the fields of this question, see `assay schemas export`.",
        ) from error


def _nonce(db: sqlite3.Connection, question: AccountQuestion) -> NonceAnswer:
    return NonceAnswer(address=question.address, nonce=rows.account(db, question.address).nonce)


def _block(db: sqlite3.Connection, question: BlockQuestion) -> Any:
    height, block_hash = question.height, question.hash
    if not isinstance(height, UnsetType) and block_hash is UNSET:
        return rows.block(db, height, question.limit, question.cursor)
    if not isinstance(block_hash, UnsetType) and height is UNSET:
        return rows.block(db, block_hash, question.limit, question.cursor)
    raise _not_one_of("a block", "height", "hash")


def _not_one_of(what: str, first: str, second: str) -> BadInput:
    return BadInput(
        f"{what} is asked for by `{first}` or by `{second}`",
        why="not exactly one of them is given",
        hint=f"Name one: `{first}` or `{second}`.",
    )
