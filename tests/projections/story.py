"""One log with a bit of everything, for tests of what reads a log."""

from functools import cache

from schemas.events import JobCancelled, JobFailed
from tests.projections.small_network import SmallNetwork, key_of


class Story(SmallNetwork):
    """A log with everything in it: transfers, failures, timers, and jobs that end in different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.block(*(self.transfer(sender="alice") for _ in range(7)), self.transfer(sender="bob", to="carol"))
        self.block(self.register("miner 0"), self.register("miner 1"))
        self.settled = self.run_job()
        self.failing = self.transfer(amount=10**15)
        self.block(self.failing, self.transfer(sender="bob", to="alice"))
        waiting, cancelled = self.submit(lifetime_ms=1_000), self.submit("bob")
        self.expired, self.cancelled = waiting.id, cancelled.id
        self.block(waiting, cancelled)
        self.block(self.say("bob", JobCancelled, job=cancelled.id))
        self.block(self.transfer(), time_ms=self.finals[-1].header.time_ms + 5_000)
        retried = self.submit()
        self.retried = retried.id
        self.block(retried)
        self.block(self.assign(retried.id, "miner 1"))
        self.block(
            self.say("miner 1", JobFailed, job=retried.id, miner=key_of("miner 1").address, reason="MINER_FAILED")
        )
        self.block(self.assign(retried.id, "miner 0"))
        self.block(time_ms=self.finals[-1].header.time_ms + 20_000)
        self.block(self.transfer(sender="bob"))


@cache
def story() -> Story:
    """Written once; nobody appends to it."""
    return Story()
