"""`assay miner explain`: what it says of a miner, from what the state holds."""

from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from actors.command_line.levels import level_rows
from actors.command_line.miner_explain import explained, facts_of
from actors.profiles import DEVNET, MAINNET, PROFILES, TESTNET
from events.blocks import decode_genesis
from events.canonical import canonical
from events.keys import Key
from projections.attestation import attested
from projections.bonds import standing_of
from schemas.events import Device, Offer
from schemas.refusals import BondTooLow, NotAttested, RequirementNotMet
from schemas.state import Attestation, Miner, Standing
from tests.projections.attested import ADDRESS, EXAM, attestation, host, verdict

RICH = 10**9
ADDRESSES = [Key(bytes([number]) * 32).address for number in (1, 2)]


def miner(found: Attestation, bond: int = RICH, **changes: Any) -> Miner:
    standing = Standing(attested=attested(found), bond=bond, submitted=4, on_time=3, verified=2, late=1, wrong=1)
    return Miner(
        name="a miner",
        capacity=1,
        devices=(Device(model="NVIDIA H200", memory_mib=143_771),),
        offers=(Offer(service="matmul.int8", unit_price=1),),
        registered_ms=0,
        standing=replace(standing, **changes),
    )


def test_a_measured_card_is_admitted_everywhere() -> None:
    """All levels with their raw values and thresholds, and every profile takes it."""
    found = attestation()
    for trust in PROFILES.values():
        said = explained(ADDRESS, miner(found), found, trust)
        assert (said.admitted, said.score, said.grade, said.refusal) == (True, 100, "M", None)
    rows = level_rows(said.gpus[0])
    assert [row["points"] for row in rows] == [10, 20, 30, 30, 10]
    assert all(row["found"] and row["asked for"] and row["why"] for row in rows)
    assert b'"admitted":true' in canonical(replace(said, refusal=BondTooLow(miner=ADDRESS, needed=1, available=0)))


@pytest.mark.parametrize(
    ("filled", "said"),
    [
        (115_000, "142655 MiB count, 115000 MiB filled in the exam; the chain asks for 15564"),
        (20_000, "25000 MiB count, 20000 MiB filled in the exam; the chain asks for 15564"),
        (0, "0 MiB count, 0 MiB filled in the exam; the chain asks for 15564"),
    ],
)
def test_memory_is_told_as_far_as_it_was_filled(filled: int, said: str) -> None:
    """Not what the sources say: what counts, and what was filled for it."""
    found = attestation(None, verdict(memory_mib=filled))
    assert facts_of(explained(ADDRESS, miner(found), found, MAINNET), found)["memory"] == said


def test_memory_that_was_not_filled_keeps_a_miner_out() -> None:
    """A right exam without any fill has all points and no jobs, where the chain asks for memory."""
    found = attestation(None, verdict(memory_mib=0))
    said = explained(ADDRESS, miner(found), found, MAINNET)
    assert said.refusal == RequirementNotMet(miner=ADDRESS, needed_mib=MAINNET.min_memory_mib, available_mib=0)
    assert explained(ADDRESS, miner(found), found, DEVNET).admitted


def test_what_keeps_a_miner_out_is_named() -> None:
    """The first term of the chain that is not met, as a refusal with its numbers."""
    claimed = attestation(examined=False)
    said = explained(ADDRESS, miner(claimed, bond=MAINNET.min_bond), claimed, MAINNET)
    assert said.refusal == NotAttested(miner=ADDRESS, needed=70, score=40)
    assert explained(ADDRESS, miner(claimed), claimed, DEVNET).admitted
    poor = explained(ADDRESS, miner(attestation(), bond=5), attestation(), MAINNET)
    assert poor.refusal == BondTooLow(miner=ADDRESS, needed=MAINNET.min_bond, available=5)
    assert explained(ADDRESS, miner(attestation(), bond=5), attestation(), TESTNET).admitted


def test_what_is_unlocked_of_the_bond_is_named() -> None:
    """With the time from which it can be withdrawn; who has unlocked nothing reads nothing of it."""
    bare = miner(attestation())
    standing = replace(standing_of(bare), unlocked=500_000, withdrawable_ms=1_000)
    waiting = explained(ADDRESS, replace(bare, standing=standing), None, UNSET)
    assert facts_of(waiting, None)["unlocked"] == "0.5 ASY, to withdraw from 1970-01-01 00:00:01.000Z on"
    assert "unlocked" not in facts_of(explained(ADDRESS, bare, None, UNSET), None)


def test_caps_stand_below_the_levels() -> None:
    """What holds the sum down is a line of its own, with its limit."""
    covered = attestation(host(preloaded=("/tmp/fake.so",)), verdict(expected=10**9))
    rows = level_rows(explained(ADDRESS, miner(covered), covered, TESTNET).gpus[0])
    assert [(row["found"], row["points"]) for row in rows[5:]] == [("TOO_SLOW", 20), ("DRIVER_COVERED", 40)]


def test_the_last_exam_is_named() -> None:
    """With the command that repeats its verdict; before any exam there is nothing to repeat."""
    judged, claimed = attestation(), attestation(examined=False)
    facts = facts_of(explained(ADDRESS, miner(judged), judged, TESTNET), judged)
    assert f"`assay verify exam {EXAM}`" in str(facts["examined"])
    assert "examined" not in facts_of(explained(ADDRESS, miner(claimed), claimed, TESTNET), claimed)


def test_a_miner_that_claims_nothing_has_nothing() -> None:
    """Without a claim the score is 0; a chain without trust parameters does not mind."""
    bare = replace(miner(attestation()), standing=UNSET)
    said = explained(ADDRESS, bare, None, TESTNET)
    assert (said.score, said.gpus, said.refusal) == (0, (), NotAttested(miner=ADDRESS, needed=60, score=0))
    assert explained(ADDRESS, bare, None, UNSET).admitted


def test_a_profile_stands_in_the_genesis(assay: Any, home: Any) -> None:
    """`genesis new --profile` writes the terms; without it they are those of a devnet."""
    words = ("--chain", "testnet", "--proposer", ADDRESSES[0], "--coordinator", ADDRESSES[1])
    for number, (name, trust) in enumerate(PROFILES.items()):
        assert assay("genesis", "new", f"{number}.json", *words, "--profile", name).code == 0
        assert decode_genesis((home / f"{number}.json").read_bytes()).parameters.trust == trust
    assert assay("genesis", "new", "default.json", *words).code == 0
    assert decode_genesis((home / "default.json").read_bytes()).parameters.trust == DEVNET
    assert "70 points" in assay("genesis", "show", "0.json").out
