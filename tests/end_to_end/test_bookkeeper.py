"""The second set of books against the rules, where bonds are paid, slashed and withdrawn, and exams taken."""

import json

from events.canonical import canonical
from projections.bonds import standing_of
from tests.end_to_end.bookkeeper import BURNED, GENESIS, Bookkeeper
from tests.golden.generate import bonds, exams, timers
from tests.projections.ledger import trust
from tests.projections.small_network import SmallNetwork, make_genesis


def test_the_books_of_bonds_are_those_of_the_rules() -> None:
    """Every balance, every bond and all that was burned are the same in both, block by block."""
    network = SmallNetwork(make_genesis(trust=trust(slash_bps=1_234, ban_after=1)))
    network.block(network.register("miner 0"), network.register("miner 1"))
    network.run_job()
    timers(network)
    exams(network)
    bonds(network)
    books = Bookkeeper(json.loads(canonical(network.genesis)))
    for _, kind, data in network.log:
        books.add(kind, data)

    state = network.chain.state
    assert books.height == network.chain.height
    for address, account in state.accounts.items():
        assert books.balances[address] == account.balance
    for address, miner in state.miners().items():
        standing = standing_of(miner)
        found = (books.balances[f"bond/{address}"], books.balances[f"unlocked/{address}"])
        assert found == (standing.bond, standing.unlocked)
        assert (books.miners[address]["wrong"], books.miners[address]["banned"]) == (standing.wrong, standing.banned)
    assert any(standing_of(miner).slashed for miner in state.miners().values())
    assert books.balances[BURNED] == state.supply().burned
    assert state.supply().genesis == -books.balances[GENESIS]
