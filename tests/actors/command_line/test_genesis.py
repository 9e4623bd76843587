"""`assay genesis …`: the file that a network of one's own begins with."""

import json
from pathlib import Path
from typing import Any

import pytest

from events.blocks import decode_genesis, genesis_hash
from events.keys import Key
from projections.state import State

ONE, TWO, THREE = (Key(bytes([number]) * 32).address for number in (1, 2, 3))
WORDS = ("--chain", "testnet", "--proposer", ONE, "--coordinator", TWO)


def test_a_genesis_is_made_and_shown(assay: Any, home: Path) -> None:
    """`genesis new` writes a genesis that the rules accept, and `genesis show` tells the same hash."""
    more = ("--proposer", THREE, "--fund", f"{TWO}=100", "--fund", f"{THREE}=7u")
    made = assay("genesis", "new", "genesis.json", *WORDS, *more, "-o", "json")
    assert made.code == 0, made.err
    genesis = decode_genesis((home / "genesis.json").read_bytes())
    assert json.loads(made.out)["hash"] == genesis_hash(genesis)
    assert [validator.address for validator in genesis.validators] == sorted((ONE, THREE))
    state = State.from_genesis(genesis)
    assert (state.account(TWO).balance, state.account(THREE).balance) == (100_000_000, 7)
    assert genesis.parameters.faucet_total == 0
    assert assay("genesis", "show", "genesis.json", "-o", "json").out == made.out
    shown = assay("genesis", "show", "genesis.json").out
    assert genesis_hash(genesis) in shown
    assert "100.000007 ASY on 2 accounts" in shown


def test_a_main_network_has_no_faucet(assay: Any, home: Path) -> None:
    """--faucet with --profile mainnet is refused, and no file is written."""
    ended = assay("genesis", "new", "genesis.json", *WORDS, "--faucet", "--profile", "mainnet")
    assert (ended.code, "main network with a faucet" in ended.err) == (2, True)
    assert not (home / "genesis.json").exists()


def test_a_faucet_is_there_only_when_asked_for(assay: Any, home: Path) -> None:
    """With --faucet a test network gives coins to whoever asks."""
    assert assay("genesis", "new", "genesis.json", *WORDS, "--faucet").code == 0
    assert decode_genesis((home / "genesis.json").read_bytes()).parameters.faucet_total > 0


def test_a_genesis_is_never_overwritten(assay: Any, home: Path) -> None:
    """A second `genesis new` of the same name is refused, and the file stays."""
    assert assay("genesis", "new", "genesis.json", *WORDS).code == 0
    before = (home / "genesis.json").read_bytes()
    assert assay("genesis", "new", "genesis.json", *WORDS).code == 2
    assert (home / "genesis.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--chain", "Test", "--proposer", ONE, "--coordinator", TWO), "name of a chain"),
        (("--chain", "testnet", "--coordinator", TWO), "--proposer"),
        (("--chain", "testnet", "--proposer", ONE), "--coordinator"),
        ((*WORDS, "--proposer", ONE), "a proposer is named twice"),
        ((*WORDS, "--coordinator", "me"), "not an address"),
        ((*WORDS, *[word for n in range(10, 17) for word in ("--proposer", Key(bytes([n]) * 32).address)]), "8 propo"),
        ((*WORDS, "--fund", ONE), "funds nobody"),
        ((*WORDS, "--fund", f"me={1}"), "not an address"),
        ((*WORDS, "--fund", f"{ONE}=much"), "not an amount"),
        ((*WORDS, "--fund", f"{ONE}=1", "--fund", f"{ONE}=2"), "funded twice"),
    ],
)
def test_what_is_no_genesis_is_refused(assay: Any, home: Path, words: tuple[str, ...], said: str) -> None:
    """What cannot be a network is refused with the reason, and no file is made."""
    ended = assay("genesis", "new", "genesis.json", *words)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert not (home / "genesis.json").exists()
