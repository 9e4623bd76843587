"""The proposer: a validator that gathers events, builds blocks when it is its turn, and votes.

It proposes when something waits: an event in the mempool, or a deadline that has come. In round 0 it is one
validator's turn; when nothing has become final for the chain's round timeout since something began to wait here, the
next one's, and so on. The fence of the append keeps two from proposing at once; where others' bytes in the log have
moved it time and again, the block goes without, since the first valid one counts anyway. It votes for the first valid
block of each height, once: the vote is on disk before it is said, and is said again until the block is final. So is
the round of an own block, for the log may lose the block, and another one for that round would be evidence: a round in
which something was said that may have reached the log is given up, and the next one comes.

Nothing else here is kept on disk. After a crash the mempool fills again from the inboxes, the rest from the log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from actors.admission import RECENT, Admission
from actors.clock import backoff_ms, wait_at_most
from actors.mempool import Mempool, PoolLimits
from actors.node import Node
from actors.together import until_first_ends
from bus.port import Bus, Clock
from events.canonical import canonical
from events.envelope import SignedEvent
from events.errors import BusError, FenceRefused, MessageTooLarge, NotAllowed, TimedOut, WrongNetwork
from events.keys import Key
from projections.chain import Final as FinalBlock
from projections.contest import Candidate
from projections.execute import timers_due
from projections.read_model_recent import recent_events
from schemas.blocks import SignedVote
from schemas.genesis import Genesis
from schemas.refusals import NonceGap, Refusal
from schemas.state import Account

TICK_MS: Final = 250
VOTE_AGAIN_MS: Final = 2_000
VOTE_TRIES: Final = 25
VOTE_TRY_MS: Final = 40
SAY_AGAIN_MS: Final = 1_000
APPEND_AGAIN_MS: Final = 2_000
EXPIRE_EVERY_MS: Final = 10_000
FENCED_TRIES: Final = 3
# A validator of which nothing was seen for so long is taken for dead, if the others have made enough blocks for its
# turn to have come; after the longer while, if they have made any. Places that it does not free end in full inboxes,
# which let no more blocks come: to wait for many of them may be to wait for ever. To be wrong costs a reader made anew.
SILENT_MS: Final = 60_000
LONG_SILENT_MS: Final = 600_000

log = structlog.get_logger()


class Proposer:
    """One validator with its node, whose read model is the file ``path``."""

    def __init__(self, bus: Bus, clock: Clock, key: Key, genesis: Genesis, path: Path) -> None:
        limits = PoolLimits(
            events=bus.limits.inbox_messages,
            per_sender=bus.limits.inbox_per_sender,
            age_ms=bus.limits.inbox_age_s * 1_000,
        )
        rules = genesis.parameters
        most_from_faucet = min(rules.faucet_request, rules.faucet_day, rules.faucet_total)
        mempool = Mempool(genesis.chain, rules.min_gas_price, self._account, limits, most_from_faucet)
        self._admission = Admission(bus, mempool, self._account)
        # A signature that was checked on its way into the mempool is not checked again in a block.
        verified = self._admission.is_verified
        self._node = Node(
            bus, clock, genesis, path, verified=verified, threads=2, serve_queries=True, publish_feed=True
        )
        self._node.observe(self)
        self._bus = bus
        self._clock = clock
        self._key = key
        self._parameters = genesis.parameters
        self._wake = asyncio.Event()
        self._to_vote = asyncio.Event()
        self._waiting_since_ms: int | None = None
        self._appended_height = 0
        self._appended_ms = 0
        # How often the fence refused a block of a height.
        self._fence_refused = (0, 0)
        # The height and the round of the newest own block that the log may hold or have held; and what the disk says of
        # that, which is no earlier. At height 0 there is no block.
        self._said = (0, 0)
        self._kept_round = (0, 0)
        self._most_events = genesis.parameters.max_block_events
        self._seen: dict[str, tuple[int, int]] = {}
        self._retired: set[str] = set()

    @property
    def node(self) -> Node:
        """The node that the proposer follows the log with."""
        return self._node

    def _account(self, address: str) -> Account:
        return self._node.state.account(address)

    async def run(self, stop: asyncio.Event, up: Callable[[], None] = lambda: None) -> None:
        """Runs the node and all else until ``stop``; raises what the node cannot go on after. Calls ``up`` when it has
        caught up with the log. Can be called once."""
        await self._node.start()
        try:
            self._said = self._kept_round = await self._node.read_model.newest_proposal()
            self._admission.remember(await self._node.read_model.read(partial(recent_events, limit=RECENT)))
            await until_first_ends(stop.wait(), self._node.join(), self._work(up))
        finally:
            self._admission.close()
            await self._node.stop()

    async def _work(self, up: Callable[[], None]) -> None:
        """Votes and proposals wait until all is known that the log held at the start."""
        await self._node.read_up()
        for validator in self._node.genesis.validators:
            self._seen.setdefault(validator.address, (self._node.height, self._clock.now_ms()))
        log.info("up", address=self._key.address, height=self._node.height)
        up()
        await until_first_ends(
            self._keep_up(self._read_inboxes),
            self._say_kept_again(),
            self._vote_for_ever(),
            self._propose_for_ever(),
            self._tick_for_ever(),
        )

    async def _keep_up(self, work: Callable[[], Awaitable[None]]) -> None:
        attempt = 0
        while True:
            began_ms = self._clock.now_ms()
            try:
                await work()
            except WrongNetwork:
                raise
            except (BusError, TimedOut) as error:
                attempt = 0 if self._clock.now_ms() - began_ms > 60_000 else attempt + 1
                log.warning("the bus failed", error=str(error), attempt=attempt)
            await self._clock.sleep_ms(backoff_ms(attempt))

    async def _read_inboxes(self) -> None:
        reader = await self._bus.read_inboxes(self._key.address)
        await self._admission.run(reader, self._wake)

    # What the node tells.

    async def on_candidate(self, candidate: Candidate) -> None:
        """Votes, beside the fold."""
        self._to_vote.set()

    async def on_final(self, final: FinalBlock) -> None:
        """The mempool moves on with the state, and the next block can be built."""
        now_ms = self._clock.now_ms()
        for address in (final.header.proposer, *(entry.validator for entry in final.votes)):
            self._seen[address] = (final.header.height, now_ms)
            self._retired.discard(address)
        self._waiting_since_ms = None
        await self._admission.block_is_final(final.events)
        self._wake.set()

    # Votes.

    async def _vote_for_ever(self) -> None:
        """Votes for each candidate, and says a vote that does not show up in the log again."""
        while True:
            self._to_vote.clear()
            signed = self._node.chain.vote(self._key)
            candidate = self._node.chain.candidate
            if signed is not None and candidate is not None:
                await self._cast(signed, candidate)
            await wait_at_most(self._clock, VOTE_AGAIN_MS, self._to_vote.wait())

    async def _cast(self, signed: SignedVote, candidate: Candidate) -> None:
        """Says a vote behind the newest block that is known here, or not: in a log that has just lost that block, a
        quorum of votes without it would be the end."""
        before = self._node.kept.get(signed.vote.height)
        if before is not None and before.hash != signed.vote.block:
            return  # another block has this vote, or was final here, before the log lost it
        data = canonical(signed)
        try:
            await self._node.read_model.remember_vote(signed, candidate.block_bytes)
            for _ in range(VOTE_TRIES):
                try:
                    await self._bus.append("vote", data, self._node.last_block)
                    return
                except FenceRefused:
                    await self._clock.sleep_ms(VOTE_TRY_MS)  # until the newest block is known here too
                if self._node.chain.candidate is not candidate:
                    return
            await self._bus.append("vote", data)  # somebody floods the log with blocks
        except NotAllowed as error:
            log.error("no second vote", error=str(error))  # noqa: TRY400 - the trace says nothing more
        except (BusError, TimedOut) as error:
            log.warning("the vote could not be appended", error=str(error))

    async def _say_kept_again(self) -> None:
        """Puts back what the log has lost: final blocks with their votes, and what this validator has voted for."""
        node = self._node
        while node.kept:
            kept = node.kept.get(node.height + 1)
            if kept is None:
                await node.wait_height(node.height + 1)
                continue
            try:
                after_block = node.last_block
                if not node.chain.has_block(kept.hash):
                    after_block = await self._bus.append("block", kept.data, after_block)
                    log.warning("put a block back into the log", height=kept.height, final=kept.final)
                for vote in kept.said(self._bus.chain):
                    await self._bus.append("vote", vote, after_block)
            except FenceRefused:
                pass  # another validator has put it back, or a newer one in its place: read on
            except (BusError, TimedOut) as error:
                log.warning("a block could not be put back", height=kept.height, error=str(error))
            await wait_at_most(self._clock, SAY_AGAIN_MS, node.wait_height(kept.height))
        await asyncio.Event().wait()

    # Proposals.

    async def _propose_for_ever(self) -> None:
        while True:
            self._wake.clear()
            wait_ms = await self._propose()
            if wait_ms > 0:
                await wait_at_most(self._clock, wait_ms, self._wake.wait())

    async def _propose(self) -> int:
        """Proposes if there is reason to, and says after how many milliseconds to look again.

        Zero only after an event was dropped, so that it ends.
        """
        now_ms = self._clock.now_ms()
        chain = self._node.chain
        height = chain.height + 1
        if chain.candidate is not None or height in self._node.kept or self._is_under_way(height, now_ms):
            return TICK_MS
        mempool = self._admission.mempool
        if not mempool.has_ready() and not timers_due(self._node.state, now_ms):
            self._waiting_since_ms = None
            return self._until_deadline(now_ms)
        # A clock that was set back must not keep it waiting until the old time comes again.
        self._waiting_since_ms = min(self._waiting_since_ms or now_ms, now_ms)
        earliest_ms = chain.earliest_ms(0)
        if earliest_ms > now_ms:
            return min(earliest_ms - now_ms, TICK_MS)
        turn = self._turn(height, min(now_ms - self._waiting_since_ms, now_ms - earliest_ms))
        if turn is None:
            return TICK_MS
        # The fence is that of the state it is built on: no await comes between.
        after_block = self._fence(height)
        proposed = chain.propose(self._key, mempool.pick(self._most_events), now_ms, turn)
        if proposed is None:
            return TICK_MS
        block, refused = proposed
        dropped = await self._turn_away(refused)
        if block is None:
            return 0 if dropped else TICK_MS
        await self._append(height, turn, canonical(block), after_block)
        return TICK_MS

    def _fence(self, height: int) -> int | None:
        """After which block of the log to append; None: after any, for the fence has been moved too often."""
        refused_height, times = self._fence_refused
        return None if refused_height == height and times >= FENCED_TRIES else self._node.last_block

    def _is_under_way(self, height: int, now_ms: int) -> bool:
        """Whether an own block is on its way back from the log."""
        return self._appended_height == height and abs(now_ms - self._appended_ms) < APPEND_AGAIN_MS

    def _until_deadline(self, now_ms: int) -> int:
        deadline_ms = self._node.state.next_deadline_ms()
        return TICK_MS if deadline_ms is None else min(max(deadline_ms - now_ms, 1), TICK_MS)

    def _turn(self, height: int, waited_ms: int) -> int | None:
        """The latest round so far in which it is this validator's turn; None when it has had its say in it.

        Rounds count from when it began to wait, and begin no earlier than block time allows.
        """
        latest = waited_ms // self._parameters.round_timeout_ms
        size = len(self._node.genesis.validators)
        for turn in range(latest, max(latest - size, -1), -1):
            if self._node.chain.proposer_for(height, turn) == self._key.address:
                # Two blocks of one round would be evidence; what the first one lacked, the next round may have. At a
                # height below that of an own block there was a final one, which others put back.
                said = self._said >= (height, turn) or self._node.chain.was_proposed(turn)
                return None if said else turn
        return None

    async def _append(self, height: int, turn: int, data: bytes, after_block: int | None) -> None:
        self._appended_height, self._appended_ms = height, self._clock.now_ms()
        before, self._said = self._said, (height, turn)
        try:
            if self._kept_round < self._said:
                await self._node.read_model.remember_proposal(height, turn)
                self._kept_round = self._said
            await self._bus.append("block", data, after_block)
            self._most_events = self._parameters.max_block_events
        except FenceRefused:
            self._appended_height, self._said = 0, before
            refused_height, times = self._fence_refused
            self._fence_refused = (height, times + 1 if refused_height == height else 1)
            log.info("somebody else has proposed", height=height)
        except MessageTooLarge as error:
            self._appended_height, self._said = 0, before
            self._most_events = max(self._most_events // 2, 1)
            log.error(  # noqa: TRY400 - the trace says nothing more
                "the NATS server takes no block of this size; raise its max_payload",
                error=str(error),
                next_time=self._most_events,
            )
        except (BusError, TimedOut) as error:
            # It may have been stored: only the log can tell.
            log.warning("no answer to a proposal", height=height, error=str(error))

    async def _turn_away(self, refused: Sequence[tuple[SignedEvent, Refusal]]) -> int:
        """Drops what cannot be included, and says how many. What only lacks the event before it goes on waiting."""
        hopeless = [(signed, refusal) for signed, refusal in refused if not isinstance(refusal, NonceGap)]
        for signed, refusal in hopeless:
            await self._admission.turn_away(signed, refusal)
        return len(hopeless)

    # Housekeeping.

    async def _tick_for_ever(self) -> None:
        expired_ms = self._clock.now_ms()
        while True:
            await self._clock.sleep_ms(TICK_MS)
            now_ms = self._clock.now_ms()
            await self._admission.free_places()
            if now_ms - expired_ms > EXPIRE_EVERY_MS:
                expired_ms = now_ms
                await self._admission.expire(now_ms)
                await self._retire_the_dead(now_ms)

    async def _retire_the_dead(self, now_ms: int) -> None:
        """Frees the inbox places that only a dead validator has not freed. It gets a new reader when it is back."""
        for validator in self._node.genesis.validators:
            address = validator.address
            height, seen_ms = self._seen[address]
            blocks, silent_ms = self._node.height - height, now_ms - seen_ms
            had_its_turn = blocks >= len(self._node.genesis.validators)
            dead = blocks > 0 and silent_ms >= (SILENT_MS if had_its_turn else LONG_SILENT_MS)
            if dead and address != self._key.address and address not in self._retired:
                log.warning("a validator is silent; its inbox reader is retired", address=address, since_block=height)
                try:
                    await self._bus.retire_reader(address)
                except (BusError, TimedOut) as error:
                    log.warning("the reader could not be retired", error=str(error))
                    return
                self._retired.add(address)
