"""Who proposes, and how many votes make a block final."""

from collections.abc import Iterable

from schemas.genesis import Genesis


class Validators:
    """The validators of a genesis: turns go round in the order of addresses, votes weigh by power."""

    def __init__(self, genesis: Genesis) -> None:
        self.power = {each.address: each.power for each in sorted(genesis.validators, key=lambda each: each.address)}
        self.addresses = tuple(self.power)
        self.total_power = sum(self.power.values())

    def __contains__(self, address: str) -> bool:
        return address in self.power

    def proposer(self, height: int, round: int) -> str:  # noqa: A002 - the field's own name
        """Whose turn it is."""
        return self.addresses[(height + round) % len(self.addresses)]

    def is_quorum(self, voters: Iterable[str]) -> bool:
        """Whether these validators, each named once, hold at least two thirds of the power."""
        return 3 * sum(self.power[voter] for voter in voters) >= 2 * self.total_power
