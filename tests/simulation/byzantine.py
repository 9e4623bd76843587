"""A proposer that breaks the rules: it equivocates, censors, invents events, states wrong roots, votes twice or never.

It runs the honest code and spoils what that says, so that what it says is nearly right.
"""

from functools import partial
from hashlib import sha256

import msgspec

from actors.proposer import Proposer
from events.blocks import decode_block, sign_block, sign_vote
from events.canonical import canonical
from events.envelope import SignedEvent, parse, wrap
from events.errors import BusError, TimedOut
from projections import building
from projections.contest import Candidate
from schemas.blocks import SignedVote, Vote
from schemas.events import TransferSent
from tests.projections.small_network import key_of
from tests.simulation.world import SimulatedHost


class ByzantineProposer(Proposer):
    """Spoils some of its blocks and votes. ``host`` gives it its dice and its trace."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host.bus, host.clock, host.key, host.world.genesis, host.disk.folder / "read-model.db")
        self._host = host
        self._random = host.world.random(f"{host.name} misbehaves")
        self._old_votes: list[bytes] = []

    async def _append(self, height: int, turn: int, data: bytes, after_block: int | None) -> None:
        spoil = {
            "honest": lambda: [(data, after_block)],
            "equivocates": partial(self._equivocate, data),
            "invents": partial(self._invent, data),
            "wrong root": partial(self._with_header, data, state_root=sha256(data).hexdigest()),
            "wrong outcomes": partial(self._with_header, data, outcome_root=sha256(data).hexdigest()),
            "from the future": partial(self._with_header, data, time_ms=self._clock.now_ms() + 60_000),
            "out of turn": partial(self._with_header, data, round=1),
            "censors": partial(self._censor, data),
            "silent": list,
            "garbage": lambda: [(self._random.randbytes(40), None), (data[:-1], None)],
        }
        kind = self._random.choice([*spoil, "honest", "honest"])
        self._host.world.tell("byzantine", self._host.name, kind, height)
        if kind != "honest":
            self._host.world.trouble.counts[f"byzantine: {kind}"] += 1
        for message, fence in spoil[kind]():
            if fence is not None:
                await super()._append(height, turn, message, fence)
                continue
            self._appended_height, self._appended_ms = height, self._clock.now_ms()
            await self._say("block", message)

    def _equivocate(self, data: bytes) -> list[tuple[bytes, int | None]]:
        other = self._with_header(data, time_ms=decode_block(data).header.time_ms + 1)
        both = [(data, None), *other]
        self._random.shuffle(both)
        return both

    def _with_header(self, data: bytes, **changes: object) -> list[tuple[bytes, int | None]]:
        block = decode_block(data)
        header = msgspec.structs.replace(block.header, **changes)
        return [(canonical(sign_block(header, [bytes(raw) for raw in block.events], self._key)), None)]

    def _invent(self, data: bytes) -> list[tuple[bytes, int | None]]:
        """A block in which all is right but the signature of one event, with which somebody gives it coins."""
        victim = key_of("signer 0").address
        transfer = TransferSent(
            chain=self._node.genesis.chain,
            sender=victim,
            nonce=self._account(victim).nonce,
            gas_price=1,
            to=self._key.address,
            amount=1_000_000,
        )
        forged = parse(wrap(canonical(transfer), self._key.sign(b"assay:event:v1\x00" + canonical(transfer))))
        others = [signed for signed in self._events(data) if signed.event.sender != victim]
        return self._rebuilt(data, [*others, forged])

    def _censor(self, data: bytes) -> list[tuple[bytes, int | None]]:
        victim = key_of("signer 0").address
        return self._rebuilt(data, [signed for signed in self._events(data) if signed.event.sender != victim])

    def _events(self, data: bytes) -> list[SignedEvent]:
        return [parse(bytes(raw)) for raw in decode_block(data).events]

    def _rebuilt(self, data: bytes, events: list[SignedEvent]) -> list[tuple[bytes, int | None]]:
        header = decode_block(data).header
        built, _ = building.build(self._node.state, header, self._key, events, lambda _: True)
        return [] if built is None else [(built.block_bytes, None)]

    async def _cast(self, signed: SignedVote, candidate: Candidate) -> None:
        kind = self._random.choice(("honest", "honest", "twice", "wrong", "stale", "ahead", "forged", "never"))
        if kind != "honest":
            self._host.world.trouble.counts[f"byzantine: votes {kind}"] += 1
        vote = signed.vote
        elsewhere = msgspec.structs.replace(vote, block=sha256(vote.block.encode()).hexdigest())
        said: list[bytes] = []
        match kind:
            case "honest":
                await super()._cast(signed, candidate)
            case "twice":
                said = [canonical(signed), canonical(sign_vote(elsewhere, self._key))]
            case "wrong":
                said = [canonical(sign_vote(elsewhere, self._key))]
            case "stale":
                said = self._old_votes[-3:]
            case "ahead":
                ahead = msgspec.structs.replace(elsewhere, height=vote.height + self._random.randint(1, 3))
                said = [canonical(sign_vote(ahead, self._key))]
            case "forged":
                said = [canonical(self._forged(vote)), canonical(signed)]
        self._old_votes.append(canonical(signed))
        self._random.shuffle(said)
        for data in said:
            await self._say("vote", data)

    def _forged(self, vote: Vote) -> SignedVote:
        """In another validator's name."""
        others = [each.address for each in self._node.genesis.validators if each.address != self._key.address]
        theirs = msgspec.structs.replace(vote, validator=self._random.choice(others or [self._key.address]))
        return SignedVote(sig=self._key.sign(b"assay:vote:v1\x00" + canonical(theirs)), vote=theirs)

    async def _say(self, kind: str, data: bytes) -> None:
        try:
            await self._bus.append("block" if kind == "block" else "vote", data)
        except (BusError, TimedOut):
            return


async def run_byzantine(host: SimulatedHost, stop: object) -> None:
    """See `tests.simulation.world.run_proposer`."""
    await ByzantineProposer(host).run(stop)  # type: ignore[arg-type]
