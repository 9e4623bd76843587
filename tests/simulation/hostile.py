"""A client that means harm: it floods, replays, contradicts itself, forges, and lies to others."""

import asyncio
from random import Random

import msgspec

from events import subjects
from events.canonical import canonical
from events.envelope import SignedEvent, sign, wrap
from events.errors import BusError, InboxFull, MessageTooLarge, TimedOut
from schemas.events import JobCancelled, JobCommitted, JobSettled, TransferSent
from schemas.messages import EventRefused
from schemas.refusals import NonceTooLow
from tests.projections.small_network import digest_of, key_of
from tests.simulation.plan import CHAIN
from tests.simulation.world import SimulatedHost

VICTIMS = ("signer 0", "wallet", "miner 0", "coordinator 0")


class Villain:
    """Does something bad every now and then as long as there is trouble."""

    def __init__(self) -> None:
        self._nonce = 0

    async def run(self, host: SimulatedHost, stop: asyncio.Event) -> None:
        random = host.world.random("villain")
        deeds = (
            self._flood,
            self._replay,
            self._contradict,
            self._forge,
            self._overspend,
            self._wrong_turns,
            self._pollute_the_log,
            self._lie,
            self._bother_the_wallet,
        )
        while not host.world.trouble.calm:
            await host.clock.sleep_ms(random.randint(20, 800))
            deed = random.choice(deeds)
            try:
                done = await deed(host, random)
            except (BusError, TimedOut):
                continue
            if done:
                host.world.trouble.counts[f"hostile: {deed.__name__.strip('_').replace('_', ' ')}"] += 1
        await asyncio.Event().wait()

    def _transfer(self, host: SimulatedHost, nonce: int, amount: int = 1_000, chain: str = CHAIN) -> SignedEvent:
        to = key_of("stranger").address
        body = TransferSent(chain=chain, sender=host.key.address, nonce=nonce, gas_price=1, to=to, amount=amount)
        return sign(body, host.key)

    def _inject(self, host: SimulatedHost, subject: str, data: bytes) -> bool:
        """As the server's own acknowledgements can be led to any subject, so can bytes. False: it did not take them."""
        try:
            host.world.network.publish(subject, data)
        except (InboxFull, MessageTooLarge):
            return False
        return True

    # Each returns whether it has done what it is there for.

    async def _flood(self, host: SimulatedHost, random: Random) -> bool:
        """Garbage, and events far ahead."""
        for _ in range(random.randint(1, 30)):
            self._inject(host, subjects.inbox(CHAIN, host.key.address), random.randbytes(random.randint(0, 300)))
        far = self._transfer(host, self._nonce + random.choice((60, 64, 65, 1_000)))
        await host.bus.submit(host.key.address, far.raw)
        return True

    async def _replay(self, host: SimulatedHost, random: Random) -> bool:
        """What others have said, in the own inbox and in theirs."""
        host.world.read_log()
        events = [envelope for block in host.world.books.blocks for envelope in block.events]
        if not events:
            return False
        envelope = random.choice(events)
        raw = wrap(msgspec.json.encode(envelope["body"], order="sorted"), envelope["sig"])
        await host.bus.submit(host.key.address, raw)
        return self._inject(host, subjects.inbox(CHAIN, envelope["body"]["sender"]), raw)

    async def _contradict(self, host: SimulatedHost, random: Random) -> bool:
        """Two events of one nonce."""
        for amount in random.sample(range(1, 1_000), 2):
            await host.bus.submit(host.key.address, self._transfer(host, self._nonce, amount).raw)
        self._nonce += 1
        return True

    async def _forge(self, host: SimulatedHost, random: Random) -> bool:
        """An event in a victim's name, with a signature of the own key."""
        victim = key_of(random.choice(VICTIMS)).address
        body = TransferSent(chain=CHAIN, sender=victim, nonce=0, gas_price=9, to=host.key.address, amount=5)
        node = next(iter(host.world.nodes.values()), None)
        if node is not None:
            body = msgspec.structs.replace(body, nonce=node.state.account(victim).nonce)
        raw = wrap(canonical(body), host.key.sign(b"assay:event:v1\x00" + canonical(body)))
        injected = self._inject(host, subjects.inbox(CHAIN, victim), raw)
        await host.bus.submit(host.key.address, raw)
        return injected

    async def _overspend(self, host: SimulatedHost, random: Random) -> bool:
        await host.bus.submit(host.key.address, self._transfer(host, self._nonce, 2_000_000_000).raw)
        self._nonce += 1
        return True

    async def _wrong_turns(self, host: SimulatedHost, random: Random) -> bool:
        """Steps of others' jobs, and an event of another chain."""
        host.world.read_log()
        keeper = host.world.books.keeper
        jobs = keeper.unfinished or list(keeper.jobs) or [digest_of("no job")]
        job = random.choice(jobs)
        common = {"chain": CHAIN, "sender": host.key.address, "gas_price": 1}
        for record in (
            JobCancelled(**common, nonce=self._nonce, job=job),
            JobCommitted(**common, nonce=self._nonce + 1, job=job, root=job, result=job, size=132),
            JobSettled(**common, nonce=self._nonce + 2, job=job, receipt_sig="A" * 86),
        ):
            await host.bus.submit(host.key.address, sign(record, host.key).raw)
        self._nonce += 3
        await host.bus.submit(host.key.address, self._transfer(host, self._nonce, chain="assay-elsewhere").raw)
        return True

    async def _pollute_the_log(self, host: SimulatedHost, random: Random) -> bool:
        """Unsigned bytes, and old messages once more."""
        log = host.world.chain_log()
        if log is None or not log.last_sequence:
            return False
        old = log.messages[random.randint(1, log.last_sequence)]
        return self._inject(host, old.subject, random.choice((old.data, random.randbytes(20), b"{}", b"[" * 2_000)))

    async def _lie(self, host: SimulatedHost, random: Random) -> bool:
        """Tells a victim that its events were refused."""
        told_any = False
        for victim in VICTIMS:
            address = key_of(victim).address
            for name, (data, _) in list(host.world.acknowledged.items())[-5:]:
                if address.encode() in data:
                    told = EventRefused(event=name, refusal=NonceTooLow(expected=999, found=1), hint="")
                    await host.bus.publish_live(address, "refused", canonical(told))
                    told_any = True
        return told_any

    async def _bother_the_wallet(self, host: SimulatedHost, random: Random) -> bool:
        data = random.choice((b"", b"{}", random.randbytes(50), b'{"key":"x","event":{"type":"nonsense"}}'))
        await host.bus.ask_wallet(key_of("wallet").address, data, 500)
        return True
