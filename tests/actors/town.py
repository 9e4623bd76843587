"""A whole network in one process: proposers on the simulated bus, clients that submit, and an outsider that reads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from actors.proposer import Proposer
from bus.port import Limits
from bus.simulated import Faults, SimulatedBus, SimulatedNetwork
from events.envelope import SignedEvent, sign
from events.keys import Key
from projections.chain import Chain, Final
from schemas.events import Body, TransferSent
from schemas.genesis import Genesis
from schemas.messages import EventRefused
from schemas.refusals import code_of
from tests.actors.virtual_time import VirtualClock
from tests.projections.small_network import key_of, make_genesis

__all__ = ["Town", "key_of", "make_genesis"]


class ChosenFaults(Faults):
    """What goes wrong is said by name of the process; lost requests and answers by (name, operation), once each."""

    def __init__(self) -> None:
        self.cut: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.answers: list[tuple[str, str]] = []

    def cut_off(self, name: str) -> bool:
        return name in self.cut

    def loses_request(self, name: str, operation: str) -> bool:
        return _once(self.requests, (name, operation))

    def loses_answer(self, name: str, operation: str) -> bool:
        return _once(self.answers, (name, operation))


def _once(chosen: list[tuple[str, str]], fault: tuple[str, str]) -> bool:
    if fault in chosen:
        chosen.remove(fault)
        return True
    return False


class Process:
    """A running actor."""

    def __init__(self, task: "asyncio.Task[None]", stop: asyncio.Event) -> None:
        self.task = task
        self.stop = stop


class Town:
    """Everything of one chain. Made by `Town.open`."""

    def __init__(self, directory: Path, genesis: Genesis, limits: Limits) -> None:
        self.directory = directory
        self.genesis = genesis
        self.limits = limits
        self.clock = VirtualClock()
        self.faults = ChosenFaults()
        self.network = SimulatedNetwork(self.clock, self.faults)
        self.validators = [key_of(f"validator {index}") for index in range(len(genesis.validators))]
        self.proposers: dict[int, Proposer] = {}
        self.processes: dict[str, Process] = {}
        self.refusals: list[tuple[str, EventRefused]] = []
        self.finals: list[Final] = []
        self._chain = Chain(genesis)
        self._read = 0
        self._nonces: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, genesis: Genesis | None = None, limits: Limits | None = None
    ) -> AsyncIterator["Town"]:
        """With all proposers up; in the end everything is stopped, and what failed meanwhile is raised."""
        town = cls(directory, genesis or make_genesis(), limits or Limits())
        town.outsider = town.bus("outsider")
        listening = asyncio.create_task(town._listen())
        for index in range(len(town.validators)):
            await town.start_proposer(index)
        try:
            yield town
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            for name in list(town.processes):
                await town.end(name)

    outsider: SimulatedBus

    def bus(self, name: str) -> SimulatedBus:
        return SimulatedBus(self.network, self.genesis.chain, self.limits, name)

    async def run(self, name: str, work: Callable[[asyncio.Event], Any]) -> None:
        """Starts a process under a name."""
        stop = asyncio.Event()
        self.processes[name] = Process(asyncio.create_task(work(stop), name=name), stop)

    async def end(self, name: str) -> None:
        """Stops a process in good order; raises what it has failed with."""
        process = self.processes.pop(name)
        process.stop.set()
        await process.task

    async def kill(self, name: str) -> None:
        """What the process does from now on reaches nobody."""
        self.faults.cut.add(name)
        process = self.processes.pop(name)
        process.task.cancel()
        await asyncio.gather(process.task, return_exceptions=True)

    async def start_proposer(self, index: int, clock: VirtualClock | None = None) -> None:
        """Returns when it has caught up."""
        name, up = f"proposer {index}", asyncio.Event()
        self.faults.cut.discard(name)
        path = self.directory / f"{name}.db"
        proposer = Proposer(self.bus(name), clock or self.clock, self.validators[index], self.genesis, path)
        self.proposers[index] = proposer
        await self.run(name, lambda stop: proposer.run(stop, up.set))
        waiting = asyncio.create_task(up.wait())
        await asyncio.wait({waiting, self.processes[name].task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    def sign(self, who: str | Key, record: type[Body], **fields: Any) -> SignedEvent:
        """An event with the sender's next nonce, unless another is given."""
        key = key_of(who) if isinstance(who, str) else who
        if "nonce" not in fields:
            fields["nonce"] = self._nonces.get(key.address, 0)
            self._nonces[key.address] = fields["nonce"] + 1
        given = {"chain": self.genesis.chain, "sender": key.address, "gas_price": 1, **fields}
        return sign(record(**given), key)

    def transfer(self, who: str = "alice", to: str = "bob", amount: int = 1_000, **fields: Any) -> SignedEvent:
        return self.sign(who, TransferSent, to=key_of(to).address, amount=amount, **fields)

    async def submit(self, *events: SignedEvent) -> None:
        for signed in events:
            await self.outsider.submit(signed.event.sender, signed.raw)

    async def say(self, who: str, record: type[Body], **fields: Any) -> str:
        """Signs and submits; returns the id."""
        signed = self.sign(who, record, **fields)
        await self.submit(signed)
        return signed.id

    # What everybody can see.

    @property
    def chain(self) -> Chain:
        """An outsider's fold of the log as it is now."""
        stream = self.network.stream(self.genesis.chain, "CHAIN")
        while self._read + 1 in stream.messages:
            self._read += 1
            message = stream.messages[self._read]
            final = self._chain.add(message.sequence, message.subject.rpartition(".")[2], message.data, message.time_ns)
            if final is not None:
                self.finals.append(final)
        return self._chain

    def forget_the_log(self) -> None:
        """The outsider reads it again from its beginning."""
        self._chain, self._read = Chain(self.genesis), 0
        self.finals.clear()

    def included(self) -> list[str]:
        """Ids of all events in final blocks, in order."""
        _ = self.chain
        return [signed.id for final in self.finals for signed in final.events]

    def blocks_in_log(self) -> int:
        stream = self.network.stream(self.genesis.chain, "CHAIN")
        return sum(message.subject.endswith(".block") for message in stream.messages.values())

    def waiting_in_inbox(self) -> int:
        return len(self.network.stream(self.genesis.chain, "INBOX").messages)

    def codes(self, owner: str | None = None) -> list[str]:
        """Codes of the refusals told so far, to one or to all."""
        return [code_of(told.refusal) for address, told in self.refusals if owner in (None, address)]

    async def until(self, condition: Callable[[], object], within_ms: int = 60_000) -> None:
        """Lets time pass until the condition holds; fails after so many virtual milliseconds, or with a process."""
        deadline = self.clock.now_ms() + within_ms
        while not condition():
            for name, process in self.processes.items():
                if process.task.done():
                    process.task.result()
                    raise AssertionError(f"{name} has ended")
            if self.clock.now_ms() > deadline:
                raise AssertionError(f"not within {within_ms} ms: height {self.chain.height}, refused {self.codes()}")
            await self.clock.sleep_ms(10)

    async def until_included(self, events: Iterable[SignedEvent], within_ms: int = 60_000) -> None:
        wanted = {signed.id for signed in events}
        await self.until(lambda: wanted <= set(self.included()), within_ms)

    async def until_roots_agree(self) -> None:
        """All running proposers have the outsider's height and state root."""

        def agree() -> bool:
            head = (self.chain.height, self.chain.state.root())
            running = [self.proposers[int(name.split()[1])] for name in self.processes if name.startswith("proposer")]
            return all((proposer.node.height, proposer.node.state.root()) == head for proposer in running)

        await self.until(agree)

    async def _listen(self) -> None:
        async for message in self.outsider.listen_live("*", "refused"):
            self.refusals.append((message.owner, msgspec.json.decode(message.data, type=EventRefused)))
