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
            "honest": lambda: [data],
            "equivocates": partial(self._equivocate, data),
            "invents": partial(self._invent, data),
            "wrong root": partial(self._with_header, data, state_root=sha256(data).hexdigest()),
            "wrong outcomes": partial(self._with_header, data, outcome_root=sha256(data).hexdigest()),
            "from the future": partial(self._with_header, data, time_ms=self._clock.now_ms() + 60_000),
            "out of turn": partial(self._out_of_turn, data),
            "censors": partial(self._censor, data),
            "silent": list,
            "garbage": lambda: [self._random.randbytes(40), data[:-1]],
        }
        kind = self._random.choice([*spoil, "honest", "honest"])
        said = spoil[kind]()
        if not said and kind != "silent":
            kind, said = "honest", spoil["honest"]()  # there is nothing to leave out, or nobody to invent an event of
        self._host.world.tell("byzantine", self._host.name, kind, height)
        if kind == "honest":
            await super()._append(height, turn, data, after_block)
            return
        if said:
            self._appended_height, self._appended_ms = height, self._clock.now_ms()
        self._count(kind, [await self._say("block", message) for message in said])

    def _count(self, kind: str, heard: list[bool]) -> None:
        """It has happened when the log has all that was to be said."""
        if all(heard):
            self._host.world.trouble.counts[f"byzantine: {kind}"] += 1

    def _equivocate(self, data: bytes) -> list[bytes]:
        other = self._with_header(data, time_ms=decode_block(data).header.time_ms + 1)
        both = [data, *other]
        self._random.shuffle(both)
        return both

    def _out_of_turn(self, data: bytes) -> list[bytes]:
        return self._with_header(data, round=decode_block(data).header.round + 1)

    def _with_header(self, data: bytes, **changes: object) -> list[bytes]:
        block = decode_block(data)
        header = msgspec.structs.replace(block.header, **changes)
        return [canonical(sign_block(header, [bytes(raw) for raw in block.events], self._key))]

    def _invent(self, data: bytes) -> list[bytes]:
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
        return self._rebuilt(data, [forged, *others], with_event=forged)

    def _censor(self, data: bytes) -> list[bytes]:
        """Leaves out all that one of the senders in the block has said; the last of it, where nobody else has said
        anything."""
        events = self._events(data)
        victim = self._random.choice([signed.event.sender for signed in events] or [""])
        left = [signed for signed in events if signed.event.sender != victim] or events[:-1]
        return self._rebuilt(data, left) if left else []

    def _events(self, data: bytes) -> list[SignedEvent]:
        return [parse(bytes(raw)) for raw in decode_block(data).events]

    def _rebuilt(self, data: bytes, events: list[SignedEvent], with_event: SignedEvent | None = None) -> list[bytes]:
        """The block with these events; nothing where it cannot be made, or does not get the event that it is for."""
        header = decode_block(data).header
        built, _ = building.build(self._node.state, header, self._key, events, lambda _: True)
        if built is None or (with_event is not None and with_event.id not in {signed.id for signed in built.events}):
            return []
        return [built.block_bytes]

    async def _cast(self, signed: SignedVote, candidate: Candidate) -> None:
        kind = self._random.choice(("honest", "honest", "twice", "wrong", "stale", "ahead", "forged", "never"))
        vote = signed.vote
        old = [data for data in self._old_votes if data != canonical(signed)][-3:]
        if kind == "stale" and not old:
            kind = "honest"
        elsewhere = msgspec.structs.replace(vote, block=sha256(vote.block.encode()).hexdigest())
        said: list[bytes] = []
        match kind:
            case "honest":
                await super()._cast(signed, candidate)
                self._old_votes.append(canonical(signed))
                return
            case "twice":
                said = [canonical(signed), canonical(sign_vote(elsewhere, self._key))]
            case "wrong":
                said = [canonical(sign_vote(elsewhere, self._key))]
            case "stale":
                said = old
            case "ahead":
                ahead = msgspec.structs.replace(elsewhere, height=vote.height + self._random.randint(1, 3))
                said = [canonical(sign_vote(ahead, self._key))]
            case "forged":
                said = [canonical(self._forged(vote)), canonical(signed)]
        self._old_votes.append(canonical(signed))
        self._random.shuffle(said)
        self._count(f"votes {kind}", [await self._say("vote", data) for data in said])

    def _forged(self, vote: Vote) -> SignedVote:
        """In another validator's name."""
        others = [each.address for each in self._node.genesis.validators if each.address != self._key.address]
        theirs = msgspec.structs.replace(vote, validator=self._random.choice(others or [self._key.address]))
        return SignedVote(sig=self._key.sign(b"assay:vote:v1\x00" + canonical(theirs)), vote=theirs)

    async def _say(self, kind: str, data: bytes) -> bool:
        """Whether the log is known to have it."""
        try:
            await self._bus.append("block" if kind == "block" else "vote", data)
        except (BusError, TimedOut):
            return False
        return True


async def run_byzantine(host: SimulatedHost, stop: object) -> None:
    """See `tests.simulation.world.run_proposer`."""
    await ByzantineProposer(host).run(stop)  # type: ignore[arg-type]
